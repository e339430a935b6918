-- Subscription dialogs and who watches whom.

-- p_of … p_address: whom each request watches, in order; p_held_of … p_held_version: what its front end has in memory.
-- Answers heads (status: 0 done, 1 merged, 2 too many, 4 gone; flag: replay; version: CSeq of the owner before; number:
-- that owner), one row per user watched (7; at: place in the request; flag: its facts come along), the users' entries,
-- and their facts under the number 0.
create or replace function commpool_api_1.subscribe(
    p_watcher int8[], p_origin uuid[], p_fe int4[], p_endpoint int8[], p_sub_id uuid[], p_initial boolean[],
    p_kind int2[], p_expires int8[], p_first_cseq int8[], p_presentities text[], p_call_id text[], p_local_tag text[],
    p_remote_tag text[], p_remote_cseq int8[], p_contact text[], p_route text[], p_event_id text[],
    p_of int4[], p_address text[], p_held_of int4[], p_held_user int8[], p_held_version int8[]
) returns setof commpool_api_1.fact
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now int8;
    v_live int4[];
    v_status int2[];
    v_replay boolean[];
    v_exists boolean[];
    v_owner int4[];
    v_cseq int8[];
    v_of int4[];
    v_pos int8[];
    v_user int8[];
    v_state int2[];
    v_new int8[];
    v_lock record;
    v_wanted int8[];
begin
    perform commpool_api_1.enter(p_fe);
    -- Users watched, and those whom a front end is going to watch for the first time.
    select array_agg(w.req), array_agg(w.pos), array_agg(w.user_id), array_agg(w.state)
    into v_of, v_pos, v_user, v_state
    from (
        select w.req, row_number() over (partition by w.req order by w.n) as pos, a.user_id, c.state
        from unnest(p_of, p_address) with ordinality w(req, address, n)
        left join commpool.address a on a.address = w.address and a.address = any (p_address)
        left join commpool.account c on c.user_id = a.user_id
    ) w;
    select array_agg(w.user_id) into v_new
    from unnest(v_of, v_user) w(req, user_id)
    where p_expires[w.req] > 0 and not exists (
        select from commpool.interest i
        where i.user_id = any (v_user) and i.user_id = w.user_id and i.fe = p_fe[w.req] and i.kinds & p_kind[w.req] <> 0);
    -- A publication that is being written is either seen below or sees the new interest.
    for v_lock in
        select l.user_id, bool_or(l.own) as own
        from (select u.user_id, true as own from unnest(p_watcher) u(user_id)
              union all select u.user_id, false from unnest(v_new) u(user_id)) l
        where l.user_id is not null group by l.user_id order by l.user_id
    loop
        if v_lock.own then
            perform pg_advisory_xact_lock(v_lock.user_id);
        else
            perform pg_advisory_xact_lock_shared(v_lock.user_id);
        end if;
    end loop;
    select l.live into v_live from commpool_api_1.lives() l;
    v_now := commpool_api_1.clock();

    select array_agg(d.status order by d.idx), array_agg(d.replay order by d.idx), array_agg(d.there order by d.idx),
           array_agg(d.owner order by d.idx), array_agg(d.cseq order by d.idx)
    into v_status, v_replay, v_exists, v_owner, v_cseq
    from (
        -- A copy that came in elsewhere came the way that answers take now: the dialog goes on there.
        select r.idx, coalesce(r.old_origin = r.origin and r.owner = r.fe, false) as replay, r.there, r.owner,
               coalesce(r.cseq, 0) as cseq,
               case when not r.fe = any (v_live) then 4
                    when r.initial and r.old_remote_cseq = r.remote_cseq and r.old_origin <> r.origin then 1
                    when not r.there and r.expires > 0 and 5000 <= r.before + (
                        select count(*) from (select from commpool.subscription x
                                              where x.user_id = r.watcher and x.expires_at > v_now limit 5000) x) then 2
                    else 0 end::int2 as status
        from (
            select r.*, s.user_id is not null as there, s.fe as owner, s.cseq, s.origin as old_origin,
                   s.remote_cseq as old_remote_cseq,
                   count(*) filter (where s.user_id is null and r.expires > 0) over (
                       partition by r.watcher order by r.idx rows between unbounded preceding and 1 preceding) as before
            from unnest(p_watcher, p_origin, p_fe, p_sub_id, p_initial, p_expires, p_remote_cseq) with ordinality
                r(watcher, origin, fe, sub_id, initial, expires, remote_cseq, idx)
            left join commpool.subscription s
                on s.user_id = r.watcher and s.sub_id = r.sub_id and s.user_id = any (p_watcher)
        ) r
    ) d;

    -- Interest first, the dialog last.
    insert into commpool.interest as i (user_id, fe, kinds)
    select w.user_id, p_fe[w.req], bit_or(p_kind[w.req])
    from unnest(v_of, v_user) w(req, user_id)
    where w.user_id is not null and v_status[w.req] = 0 and not v_replay[w.req] and p_expires[w.req] > 0
      and not exists (select from commpool.interest x
                      where x.user_id = any (v_user) and x.user_id = w.user_id and x.fe = p_fe[w.req]
                        and x.kinds & p_kind[w.req] <> 0)
    group by w.user_id, p_fe[w.req] order by w.user_id, p_fe[w.req]
    on conflict (user_id, fe) do update set kinds = i.kinds | excluded.kinds;
    if true = any (v_exists) and 0 = any (p_expires) then
        -- What is written and what ends, in one order.
        perform from commpool.subscription s join unnest(p_watcher, p_sub_id) r(watcher, sub_id)
            on s.user_id = r.watcher and s.sub_id = r.sub_id
        where s.user_id = any (p_watcher) order by s.user_id, s.sub_id for update of s;
    end if;
    insert into commpool.subscription as s (
        user_id, sub_id, fe, kind, endpoint_id, expires_at, cseq, remote_cseq, origin, presentities, call_id, local_tag,
        remote_tag, contact, route, event_id)
    select r.watcher, r.sub_id, r.fe, r.kind, r.endpoint, v_now + r.expires * 3000000,
           greatest(least(r.cseq + 32, 4294967295), r.first_cseq), r.remote_cseq, r.origin, r.presentities, r.call_id,
           r.local_tag, r.remote_tag, r.contact, r.route, r.event_id
    from unnest(p_watcher, p_origin, p_fe, p_endpoint, p_sub_id, p_kind, p_expires, p_first_cseq, p_presentities, p_call_id,
                p_local_tag, p_remote_tag, p_remote_cseq, p_contact, p_route, p_event_id, v_status, v_replay, v_cseq)
        with ordinality
        r(watcher, origin, fe, endpoint, sub_id, kind, expires, first_cseq, presentities, call_id, local_tag, remote_tag,
          remote_cseq, contact, route, event_id, status, replay, cseq, idx)
    where r.status = 0 and not r.replay and r.expires > 0
      and exists (select from unnest(v_of, v_user) w(req, user_id) where w.req = r.idx and w.user_id is not null)
    order by r.watcher, r.sub_id
    on conflict (user_id, sub_id) do update set
        -- Over UDP a client's refresh may come in where nobody knows its endpoint.
        fe = excluded.fe, kind = excluded.kind, endpoint_id = coalesce(excluded.endpoint_id, s.endpoint_id), expires_at = excluded.expires_at,
        cseq = excluded.cseq, remote_cseq = excluded.remote_cseq, origin = excluded.origin,
        presentities = excluded.presentities, call_id = excluded.call_id, local_tag = excluded.local_tag,
        remote_tag = excluded.remote_tag, contact = excluded.contact, route = excluded.route,
        event_id = excluded.event_id;
    -- What asks for no lifetime, or about nobody, ends its dialog.
    if true = any (v_exists) then
        with ended as materialized (
            select s.user_id, s.sub_id
            from unnest(p_watcher, p_sub_id, p_expires, v_status, v_replay) with ordinality
                r(watcher, sub_id, expires, status, replay, idx)
            join commpool.subscription s on s.user_id = r.watcher and s.sub_id = r.sub_id
            where s.user_id = any (p_watcher) and r.status = 0 and not r.replay
              and (r.expires = 0 or not exists (
                  select from unnest(v_of, v_user) w(req, user_id) where w.req = r.idx and w.user_id is not null))
            order by s.user_id, s.sub_id for update of s
        )
        delete from commpool.subscription s using ended e
        where s.user_id = e.user_id and s.sub_id = e.sub_id and s.user_id = any (p_watcher);
    end if;

    return query
    select r.idx::int4, 1::int2, r.status, r.replay, r.cseq,
           case when r.owner <> p_fe[r.idx] then r.owner end::int8, n.*
    from unnest(v_status, v_replay, v_owner, v_cseq) with ordinality r(status, replay, owner, cseq, idx)
    cross join commpool_api_1.nothing n;
    return query
    select * from commpool_api_1.watched(v_of, v_pos, v_user, v_state, v_status, p_held_of, p_held_user, p_held_version);
    select array_agg(distinct w.user_id) into v_wanted
    from unnest(v_of, v_user) w(req, user_id)
    left join commpool.presence h on h.user_id = w.user_id and h.user_id = any (v_user)
    where v_status[w.req] = 0 and not exists (
        select from unnest(p_held_of, p_held_user, p_held_version) x(req, user_id, version)
        where x.req = w.req and x.user_id = w.user_id and x.version = coalesce(h.version, 0));
    return query select * from commpool_api_1.facts_of(v_wanted, v_now);
end $$;
grant execute on function commpool_api_1.subscribe to commpool_server;

-- Users whom requests watch (7; id: the user; status: his state; version; flag: his facts are needed), and the entries
-- of each once.
create or replace function commpool_api_1.watched(
    p_of int4[], p_pos int8[], p_user int8[], p_state int2[], p_status int2[],
    p_held_of int4[], p_held_user int8[], p_held_version int8[]
) returns setof commpool_api_1.fact
language plpgsql
as $$
#variable_conflict use_column
begin
    return query
    select w.req, 7::int2, w.state, not exists (
               select from unnest(p_held_of, p_held_user, p_held_version) x(req, user_id, version)
               where x.req = w.req and x.user_id = w.user_id and x.version = coalesce(h.version, 0)),
           coalesce(h.version, 0), w.pos, w.user_id, n.id, n.key, n.fe, n.serial, n.transport, n.q, n.lost_at, n.expires_at,
           n.at, n.since, n.reg_id, n.remote, n.contact, n.contact_value, n.path, n.instance, n.agent, n.call_id, n.source,
           n.availability, n.activities, n.note, n.document
    from unnest(p_of, p_pos, p_user, p_state) w(req, pos, user_id, state)
    left join commpool.presence h on h.user_id = w.user_id and h.user_id = any (p_user)
    cross join commpool_api_1.nothing n
    where w.user_id is not null and p_status[w.req] = 0;
    return query
    select 0, 5::int2, null::int2, null::boolean, null::int8, null::int8, f.*
    from (select distinct w.user_id from unnest(p_of, p_user) w(req, user_id)
          where w.user_id is not null and p_status[w.req] = 0) w
    cross join lateral (select * from commpool_api_1.ace_fact a
                        where a.user_id = w.user_id order by a.contact limit 1000) f;
end $$;

-- false: the front end is dead. Dialogs that another took over are no longer his to end.
create or replace function commpool_api_1.unsubscribe(p_fe int4, p_watcher int8[], p_sub_id uuid[]) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform commpool_api_1.enter(array[p_fe]);
    if not exists (select from commpool.front_end f where f.fe = p_fe and f.dead_since is null) then
        return false;
    end if;
    with ended as materialized (
        select s.user_id, s.sub_id from commpool.subscription s
        join unnest(p_watcher, p_sub_id) u(user_id, sub_id) on u.user_id = s.user_id and u.sub_id = s.sub_id
        where s.fe = p_fe and s.user_id = any (p_watcher) order by s.user_id, s.sub_id for update of s
    )
    delete from commpool.subscription s using ended e
    where s.user_id = e.user_id and s.sub_id = e.sub_id and s.user_id = any (p_watcher);
    return true;
end $$;
grant execute on function commpool_api_1.unsubscribe to commpool_server;

-- false: the front end is dead.
create or replace function commpool_api_1.unwatch(p_fe int4, p_user int8[]) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform commpool_api_1.enter(array[p_fe]);
    if not exists (select from commpool.front_end f where f.fe = p_fe and f.dead_since is null) then
        return false;
    end if;
    with ended as materialized (
        select i.user_id from commpool.interest i where i.fe = p_fe and i.user_id = any (p_user)
        order by i.user_id for update
    )
    delete from commpool.interest i using ended e
    where i.user_id = e.user_id and i.fe = p_fe and i.user_id = any (p_user);
    return true;
end $$;
grant execute on function commpool_api_1.unwatch to commpool_server;
