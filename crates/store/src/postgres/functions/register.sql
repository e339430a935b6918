-- REGISTER and removal of bindings. The rules are those of the plan in Rust, said of many requests at once.

-- p_what: 0 asks, 1 removes all, 2 names Contacts; those are p_req … p_expires, each with the number of its request, its
-- endpoint id before salting and different keys inside a request. p_unreachable: front ends whose flows count as dead for
-- a request.
-- Answers heads (status: 0 done, 1 stale, 2 too many, 3 no account, 4 gone; flag: replay; version: the new one, if
-- presence changed; number: dialogs to adopt), what became of the Contacts (6), and the user's things.
create or replace function commpool_api_1.register(
    p_user int8[], p_origin uuid[], p_call_id text[], p_cseq int8[], p_fe int4[], p_serial int4[], p_transport int2[],
    p_remote text[], p_agent text[], p_what int2[],
    p_req int4[], p_key uuid[], p_id int8[], p_contact text[], p_value text[], p_q int2[], p_path text[],
    p_instance text[], p_reg_id int8[], p_expires int8[], p_unreachable_of int4[], p_unreachable int4[]
) returns setof commpool_api_1.fact
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now int8;
    v_live int4[];
    v_dead int4[];
    v_dead_at int8[];
    v_status int2[];
    v_plan commpool_api_1.contact_plan[];
    v_stale int4[];
    v_replay int4[];
    v_crowded int4[];
    v_clash boolean;
    v_removes boolean;
    v_moves boolean;
    v_restarts boolean;
    v_shows int8[];
    v_look_user int8[];
    v_told text[];
    v_seen text[];
    v_changed int8[];
    v_changed_idx int4[];
    v_version int8[];
    v_adopt_idx int4[];
    v_adopt int8[];
    v_done int8[];
begin
    perform commpool_api_1.enter(p_fe);
    perform commpool_api_1.lock_users(p_user);
    select l.live, l.dead, l.dead_at into v_live, v_dead, v_dead_at from commpool_api_1.lives() l;
    v_now := commpool_api_1.clock();
    select array_agg(case when r.fe = any (v_live) then case when a.state = 1 then 0 else 3 end else 4 end::int2
                     order by r.idx)
    into v_status
    from unnest(p_user, p_fe) with ordinality r(user_id, fe, idx)
    left join commpool.account a on a.user_id = r.user_id and a.user_id = any (p_user);

    with request as materialized (
        select r.* from unnest(p_user, p_origin, p_call_id, p_cseq, p_fe, p_serial, p_what, v_status) with ordinality
            r(user_id, origin, call_id, cseq, fe, serial, what, status, idx)
        where r.status = 0 and r.what > 0
    ), there as materialized (
        select e.user_id, e.endpoint_id, e.binding_key, e.fe, e.serial, e.transport, e.remote, e.call_id, e.cseq, e.origin,
               e.registered_at, e.instance, e.reg_id, e.lost, e.expires_at <= v_now as expired,
               commpool_api_1.visible(e.lost, e.expires_at, e.reg_id, e.transport, v_now) as visible
        from (select e.*, commpool_api_1.lost_since(e.lost_at, e.fe, v_live, v_dead, v_dead_at) as lost
              from commpool.endpoint e where e.user_id = any (p_user)) e
    ), crowd as materialized (
        select t.user_id, count(*) filter (where t.visible) as visible,
               array_agg(t.origin) filter (where not t.expired) as origins,
               array_agg(t.endpoint_id) as ids
        from there t group by t.user_id
    ), contact as materialized (
        select r.idx, c.pos, r.user_id, c.key, c.id, c.instance, c.reg_id, c.expires, r.origin, r.call_id, r.cseq, r.fe,
               r.serial
        from request r
        join unnest(p_req, p_key, p_id, p_instance, p_reg_id, p_expires) with ordinality
            c(req, key, id, instance, reg_id, expires, pos) on c.req = r.idx
    ), claimed as (
        -- A row belongs to the Contact with its key; else, on a dead flow, to the first of its instance.
        select distinct on (t.user_id, t.endpoint_id) c.idx, c.pos, t.endpoint_id, c.key = t.binding_key as by_key
        from there t join contact c on c.user_id = t.user_id
            and (c.key = t.binding_key or c.instance = t.instance and c.reg_id is null and t.reg_id is null
                and (t.lost is not null and not t.expired
                     or (c.idx, t.fe) in (select * from unnest(p_unreachable_of, p_unreachable))))
        order by t.user_id, t.endpoint_id, c.key = t.binding_key desc, c.pos
    ), ranked as (
        -- Of its rows a Contact is about the one with its key, else the one lost last.
        select c.*, row_number() over (
            partition by c.idx, c.pos order by c.by_key desc, case when not t.expired then t.lost end desc nulls last, c.endpoint_id desc) = 1 as best
        from claimed c join there t using (endpoint_id)
    ), planned as (
        select c.idx, c.pos, case when c.expires > 0 then 1 when t.endpoint_id is null then 3 else 2 end as act,
               c.user_id, coalesce(t.endpoint_id, case when c.expires > 0 then c.id end) as endpoint_id,
               t.endpoint_id is null and c.id = any (u.ids) as clash, c.origin = any (u.origins) as replay,
               c.call_id, c.cseq, c.fe, c.serial, t.endpoint_id as matched
        from contact c
        left join ranked m on m.idx = c.idx and m.pos = c.pos and m.best
        left join there t on t.endpoint_id = m.endpoint_id
        left join crowd u on u.user_id = c.user_id
        union all
        select c.idx, c.pos, 4, c.user_id, m.endpoint_id, false, false, c.call_id, c.cseq, c.fe, c.serial, m.endpoint_id
        from ranked m join contact c using (idx, pos) where not m.best and c.expires > 0
        union all
        select r.idx, row_number() over (partition by t.user_id order by t.endpoint_id), 2, t.user_id, t.endpoint_id,
               false, false, r.call_id, r.cseq, r.fe, r.serial, t.endpoint_id
        from request r join there t using (user_id) where r.what = 1
    ), judged as (
        select p.*, t.endpoint_id is not null and not t.expired as living, t.registered_at,
               coalesce(t.visible, false) as was_visible, (t.fe, t.serial) <> (p.fe, p.serial) as other_flow,
               t.call_id = p.call_id as same_call,
               p.act < 4 and t.call_id = p.call_id and p.cseq <= t.cseq and not t.expired as stale,
               t.fe as old_fe, t.serial as old_serial, t.transport, t.remote
        from planned p left join there t on t.endpoint_id = p.matched
    )
    select array_agg((j.idx, j.pos, j.act, j.user_id, j.endpoint_id, j.living, j.registered_at, j.was_visible,
                      coalesce(j.other_flow, false), coalesce(j.same_call, false), coalesce(j.stale, false),
                      coalesce(j.replay, false), j.old_fe, j.old_serial, j.transport, j.remote
                     )::commpool_api_1.contact_plan order by j.user_id, j.endpoint_id, j.pos),
           array_agg(distinct j.idx) filter (where j.stale),
           array_agg(distinct j.idx) filter (where j.replay),
           bool_or(j.clash) or count(*) filter (where j.matched is null and j.act = 1)
               > count(distinct j.endpoint_id) filter (where j.matched is null and j.act = 1),
           array_agg(distinct j.idx) filter (where coalesce(u.visible, 0) + j.contacts > 10)
    into v_plan, v_stale, v_replay, v_clash, v_crowded
    from (select j.*, count(*) filter (where j.act = 1) over (partition by j.idx) as contacts from judged j) j
    left join crowd u using (user_id);

    if v_replay is not null then
        -- What has been carried out before is not judged again.
        select array_agg(s.idx) into v_stale from unnest(v_stale) s(idx) where s.idx <> all (v_replay);
    end if;
    if v_stale is not null then
        select array_agg(case when s.idx = any (v_stale) then 1 else s.status end::int2 order by s.idx) into v_status
        from unnest(v_status) with ordinality s(status, idx);
    end if;
    if v_clash then
        v_plan := commpool_api_1.salted(v_plan, p_id, p_user);
    end if;
    if v_crowded is not null then
        select c.plan, c.status into v_plan, v_status
        from commpool_api_1.make_room(v_plan, v_status, v_crowded, p_user, v_now, v_live, v_dead, v_dead_at) c;
    end if;
    if v_stale is not null or v_replay is not null or v_crowded is not null then
        -- Refused requests change nothing; copies only tell what they find.
        select array_agg(p order by p.user_id, p.endpoint_id, p.pos) into v_plan
        from unnest(v_plan) p
        where v_status[p.req] = 0 and (p.act < 4 or v_replay is null or p.req <> all (v_replay));
    end if;

    select bool_or(p.act in (2, 4)), bool_or(p.act = 1 and (p.other_flow and p.same_call or p.fe is null)),
           bool_or(p.act = 1 and p.other_flow and not p.same_call),
           array_agg(distinct p.user_id) filter (
               where p.act in (2, 4) or p.act = 1 and (not p.was_visible or p.living and p.other_flow))
    into v_removes, v_moves, v_restarts, v_shows
    from unnest(v_plan) p where not p.replay;
    if v_shows is not null then
        select array_agg(l.user_id), array_agg(l.told), array_agg(l.seen) into v_look_user, v_told, v_seen
        from commpool_api_1.looks(v_shows, v_now, v_live, v_dead, v_dead_at) l;
    end if;
    if v_removes then
        -- In one order with what is written afterwards.
        perform from commpool.endpoint e join unnest(v_plan) p using (user_id, endpoint_id)
        where e.user_id = any (p_user)
        order by e.user_id, e.endpoint_id for update of e;
        delete from commpool.endpoint e using unnest(v_plan) p
        where p.act in (2, 4) and not p.replay and e.user_id = p.user_id and e.endpoint_id = p.endpoint_id
          and e.user_id = any (p_user);
    end if;

    insert into commpool.endpoint as e (
        user_id, endpoint_id, binding_key, fe, serial, transport, q, expires_at, registered_at, refreshed_at, cseq, reg_id,
        origin, call_id, remote, contact, contact_value, path, instance, agent)
    select p.user_id, p.endpoint_id, c.key, r.fe, r.serial, r.transport, c.q, v_now + c.expires * 1000000,
           case when p.living then p.registered_at else v_now end, v_now, r.cseq, c.reg_id, r.origin, r.call_id, r.remote,
           c.contact, c.value, c.path, c.instance, r.agent
    from unnest(v_plan) p
    join unnest(p_key, p_contact, p_value, p_q, p_path, p_instance, p_reg_id, p_expires) with ordinality
        c(key, contact, value, q, path, instance, reg_id, expires, pos) on c.pos = p.pos
    join unnest(p_origin, p_call_id, p_cseq, p_fe, p_serial, p_transport, p_remote, p_agent) with ordinality
        r(origin, call_id, cseq, fe, serial, transport, remote, agent, idx) on r.idx = p.req
    where p.act = 1 and not p.replay
    order by p.user_id, p.endpoint_id
    on conflict (user_id, endpoint_id) do update set
        binding_key = excluded.binding_key, fe = excluded.fe, serial = excluded.serial, transport = excluded.transport,
        q = excluded.q, lost_at = null, expires_at = excluded.expires_at, registered_at = excluded.registered_at,
        refreshed_at = excluded.refreshed_at, cseq = excluded.cseq, reg_id = excluded.reg_id, origin = excluded.origin,
        call_id = excluded.call_id, remote = excluded.remote, contact = excluded.contact,
        contact_value = excluded.contact_value, path = excluded.path, instance = excluded.instance,
        agent = excluded.agent;

    if v_shows is not null then
        -- In one order with whoever else writes them.
        perform from commpool.publication p
        where p.user_id = any (v_shows) and (p.endpoint_id is null or exists (
            select from unnest(v_plan) w
            where w.act in (2, 4) and not w.replay and w.user_id = p.user_id and w.endpoint_id = p.endpoint_id))
        order by p.user_id, p.pub_id for update;
        -- Publications that came on the flow before the REGISTER join its first endpoint; those of removed ones go.
        update commpool.publication p set endpoint_id = w.endpoint_id
        from (select distinct on (w.req) w.req, w.user_id, w.endpoint_id from unnest(v_plan) w
              where w.act = 1 and not w.replay and w.user_id = any (v_shows)
              order by w.req, w.endpoint_id) w
        where p.user_id = w.user_id and p.user_id = any (v_shows) and p.endpoint_id is null
          and p.fe = p_fe[w.req] and p.serial = p_serial[w.req];
        if v_removes then
            delete from commpool.publication p using unnest(v_plan) w
            where w.act in (2, 4) and not w.replay and p.user_id = w.user_id and p.endpoint_id = w.endpoint_id
              and p.user_id = any (v_shows);
        end if;
        select array_agg(a.user_id order by a.user_id) into v_changed
        from commpool_api_1.looks(v_shows, v_now, v_live, v_dead, v_dead_at) a
        join unnest(v_look_user, v_told, v_seen) b(user_id, told, seen) using (user_id)
        where a.seen <> b.told or a.seen <> b.seen;
    end if;
    if v_restarts then
        -- A client that began anew does not know its dialogs. Those that are the front end's own are his to end.
        with gone as materialized (
            select s.user_id, s.sub_id from unnest(v_plan) p
            join commpool.subscription s on s.user_id = p.user_id and s.endpoint_id = p.endpoint_id
            where p.act = 1 and not p.replay and p.other_flow and not p.same_call and s.fe <> p_fe[p.req]
              and s.user_id = any (p_user)
            order by s.user_id, s.sub_id for update of s
        )
        delete from commpool.subscription s using gone g
        where s.user_id = g.user_id and s.sub_id = g.sub_id and s.user_id = any (p_user);
    end if;
    if v_changed is not null then
        select array_agg(r.idx order by r.user_id), array_agg(b.version order by r.user_id)
        into v_changed_idx, v_version
        from commpool_api_1.bump(v_changed, v_now) b
        join unnest(p_user) with ordinality r(user_id, idx) using (user_id);
    end if;
    if v_moves then
        select array_agg(a.req), array_agg(a.number) into v_adopt_idx, v_adopt
        from (select p.req, count(*) as number
              from unnest(v_plan) p
              join commpool.subscription s on s.user_id = p.user_id and s.endpoint_id = p.endpoint_id
              where p.act = 1 and not p.replay and s.expires_at > v_now and s.user_id = any (p_user)
                and (p.other_flow and p.same_call and s.fe <> p_fe[p.req] or p.fe is null)
              group by p.req) a;
    end if;

    return query select * from commpool_api_1.told_at(v_now);
    return query
    select r.idx::int4, 1::int2, r.status, coalesce(r.idx = any (v_replay), false), c.version, a.number, n.*
    from unnest(v_status) with ordinality r(status, idx)
    left join unnest(v_changed_idx, v_version) c(idx, version) using (idx)
    left join unnest(v_adopt_idx, v_adopt) a(idx, number) using (idx)
    cross join commpool_api_1.nothing n;
    return query
    -- flag: it was there; key: the Contact's; at: place among the Contacts, or among the rows removed.
    select p.req, 6::int2, p.act, p.living, null::int8, null::int8, p.user_id, p.endpoint_id,
           case when p_what[p.req] = 2 then p_key[p.pos] end, p.fe, p.serial,
           p.transport, null::int2, null::int8, null::int8, p.pos::int8, null::int8, null::int8,
           p.remote, null::text, null::text, null::text, null::text, null::text, null::text, null::int2, null::int2,
           null::text, null::text, null::bytea
    from unnest(v_plan) p where p.act < 4;
    select array_agg(r.user_id) into v_done
    from unnest(p_user, v_status) r(user_id, status) where r.status = 0;
    return query
    select * from commpool_api_1.endpoints_seen(v_done, v_now, v_live, v_dead, v_dead_at);
    if v_changed is not null then
        return query select * from commpool_api_1.publications_seen(v_changed, v_now);
        return query select * from commpool_api_1.interested(v_changed);
    end if;
end $$;
grant execute on function commpool_api_1.register to commpool_server;

-- New bindings whose ids are taken get the next free salt, in the order of their Contacts.
create or replace function commpool_api_1.salted(p_plan commpool_api_1.contact_plan[], p_id int8[], p_user int8[])
returns commpool_api_1.contact_plan[]
language plpgsql
as $$
#variable_conflict use_column
declare
    v_taken int8[];
    v_plan commpool_api_1.contact_plan[] := p_plan;
    v_new record;
    v_id int8;
begin
    select array_agg(e.endpoint_id) into v_taken from commpool.endpoint e where e.user_id = any (p_user);
    for v_new in
        select p.n, p.pos from unnest(p_plan) with ordinality
            p(req, pos, act, user_id, endpoint_id, living, registered_at, was_visible, other_flow, same_call, stale, replay,
              fe, serial, transport, remote, n)
        -- A new binding has no row before it; the ids of all others are taken.
        where p.act = 1 and p.fe is null order by p.pos
    loop
        select p_id[v_new.pos] # s.salt into v_id from generate_series(0, 255) s(salt)
        where p_id[v_new.pos] # s.salt <> all (coalesce(v_taken, '{}')) order by s.salt limit 1;
        v_plan[v_new.n].endpoint_id := coalesce(v_id, p_id[v_new.pos] # 255);
        v_taken := v_taken || v_plan[v_new.n].endpoint_id;
    end loop;
    return v_plan;
end $$;

-- Above ten endpoints, those on dead flows give way, longest lost first; then the request is refused.
create or replace function commpool_api_1.make_room(
    p_plan commpool_api_1.contact_plan[], p_status int2[], p_crowded int4[], p_user int8[],
    p_now int8, p_live int4[], p_dead int4[], p_dead_at int8[],
    out plan commpool_api_1.contact_plan[], out status int2[]
)
language plpgsql
as $$
#variable_conflict use_column
declare
    v_req int4;
    v_excess int8;
    v_gone commpool_api_1.contact_plan[];
begin
    plan := p_plan;
    status := p_status;
    foreach v_req in array p_crowded loop
        continue when status[v_req] <> 0 or exists (select from unnest(plan) p where p.req = v_req and p.replay);
        select count(*) filter (where s.kept and s.seen) + count(*) filter (where s.written) - 10 into v_excess
        from (
            select true as kept, false as written, commpool_api_1.visible(
                       commpool_api_1.lost_since(e.lost_at, e.fe, p_live, p_dead, p_dead_at), e.expires_at, e.reg_id,
                       e.transport, p_now) as seen
            from commpool.endpoint e where e.user_id = p_user[v_req] and not exists (
                select from unnest(plan) p where p.req = v_req and p.endpoint_id = e.endpoint_id and p.fe is not null)
            union all
            select false, true, true from unnest(plan) p where p.req = v_req and p.act = 1
        ) s;
        continue when v_excess <= 0;
        select array_agg((v_req, 0, 4, e.user_id, e.endpoint_id, true, null, true, false, false, false, false, e.fe,
                          e.serial, e.transport, e.remote)::commpool_api_1.contact_plan)
        into v_gone
        from (
            select e.* from (
                select e.*, commpool_api_1.lost_since(e.lost_at, e.fe, p_live, p_dead, p_dead_at) as lost
                from commpool.endpoint e where e.user_id = p_user[v_req]) e
            where e.lost is not null and commpool_api_1.visible(e.lost, e.expires_at, e.reg_id, e.transport, p_now)
              and not exists (select from unnest(plan) p
                              where p.req = v_req and p.endpoint_id = e.endpoint_id and p.fe is not null)
            order by e.lost, e.endpoint_id limit v_excess
        ) e;
        if coalesce(cardinality(v_gone), 0) < v_excess then
            status[v_req] := 2;
        else
            plan := plan || v_gone;
        end if;
    end loop;
end $$;

-- Bindings removed by somebody other than their client; p_id null: all, and what the user published without one.
-- Answers a head only if the front end is alive.
create or replace function commpool_api_1.unregister(p_fe int4, p_user int8, p_id int8[])
returns setof commpool_api_1.fact
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now int8;
    v_live int4[];
    v_dead int4[];
    v_dead_at int8[];
    v_id int8[] := p_id;
    v_pub uuid[] := '{}';
begin
    perform commpool_api_1.enter(array[p_fe]);
    perform commpool_api_1.lock_users(array[p_user]);
    select l.live, l.dead, l.dead_at into v_live, v_dead, v_dead_at from commpool_api_1.lives() l;
    if not p_fe = any (v_live) then
        return;
    end if;
    v_now := commpool_api_1.clock();
    if p_id is null then
        select coalesce(array_agg(e.endpoint_id), '{}') into v_id from commpool.endpoint e where e.user_id = p_user;
        select coalesce(array_agg(p.pub_id), '{}') into v_pub from commpool.publication p where p.user_id = p_user;
    end if;
    return query select * from commpool_api_1.told_at(v_now);
    return query
    select * from commpool_api_1.remove(
        array_fill(p_user, array[cardinality(v_id)]), v_id, array_fill(p_user, array[cardinality(v_pub)]), v_pub,
        v_now, v_live, v_dead, v_dead_at);
end $$;
grant execute on function commpool_api_1.unregister to commpool_server;
