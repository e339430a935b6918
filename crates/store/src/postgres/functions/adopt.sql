-- Dialogs that follow their endpoint to another front end, and what keeps their rows fresh.

-- No row: the front end is dead. Else a head (flag: more are there), the dialogs (10; number: NOTIFY CSeq; version: CSeq of
-- the SUBSCRIBE; fe: the owner before; source: kind; activities: whom they watch), addresses (9) of everybody watched,
-- what is known of them (7, under the number of their address), their entries and their facts.
create or replace function commpool_api_1.adopt(
    p_fe int4, p_user int8, p_endpoint int8, p_first_cseq int8, p_after uuid, p_limit int4,
    p_held_user int8[], p_held_version int8[]
) returns setof commpool_api_1.fact
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now int8;
    v_live int4[];
    v_sub uuid[];
    v_more boolean;
    v_address text[];
    v_user int8[];
    v_state int2[];
    v_new int8[];
    v_lock record;
    v_of int4[];
    v_pos int8[];
    v_wanted int8[];
begin
    perform commpool_api_1.enter(array[p_fe]);
    -- Whom the dialogs watch, before any lock: what changes meanwhile is another REGISTER's.
    select array_agg(distinct a.user_id) into v_new
    from commpool.subscription s
    cross join lateral unnest(string_to_array(s.presentities, E'\n')) p(address)
    join commpool.address a on a.address = p.address
    where s.user_id = p_user and s.endpoint_id = p_endpoint and s.fe <> p_fe;
    select array_agg(u.user_id) into v_new
    from unnest(v_new) u(user_id)
    where not exists (select from commpool.interest i
                      where i.user_id = any (v_new) and i.user_id = u.user_id and i.fe = p_fe);
    for v_lock in
        select l.user_id from (select p_user as user_id union select unnest(v_new)) l
        where l.user_id is not null order by l.user_id
    loop
        if v_lock.user_id = p_user then
            perform pg_advisory_xact_lock(v_lock.user_id);
        else
            perform pg_advisory_xact_lock_shared(v_lock.user_id);
        end if;
    end loop;
    select l.live into v_live from commpool_api_1.lives() l;
    if not p_fe = any (v_live) then
        return;
    end if;
    v_now := commpool_api_1.clock();
    select array_agg(s.sub_id) filter (where s.place <= p_limit), count(*) > p_limit into v_sub, v_more
    from (select s.sub_id, row_number() over (order by s.sub_id) as place from commpool.subscription s
          where s.user_id = p_user and s.endpoint_id = p_endpoint and s.expires_at > v_now
            and (p_after is null or s.sub_id > p_after)
          order by s.sub_id limit p_limit + 1) s;
    select array_agg(w.address), array_agg(w.user_id), array_agg(w.state), array_agg(1), array_agg(w.pos)
    into v_address, v_user, v_state, v_of, v_pos
    from (select distinct on (a.address) a.address::text as address, a.user_id, c.state,
                 dense_rank() over (order by a.address) as pos
          from commpool.subscription s
          cross join lateral unnest(string_to_array(s.presentities, E'\n')) p(address)
          join commpool.address a on a.address = p.address join commpool.account c on c.user_id = a.user_id
          where s.user_id = p_user and s.sub_id = any (v_sub)) w;
    insert into commpool.interest as i (user_id, fe, kinds)
    select a.user_id, p_fe, bit_or(s.kind)
    from commpool.subscription s
    cross join lateral unnest(string_to_array(s.presentities, E'\n')) p(address)
    join commpool.address a on a.address = p.address
    where s.user_id = p_user and s.sub_id = any (v_sub) and s.fe <> p_fe
      and not exists (select from commpool.interest x
                      where x.user_id = any (v_user) and x.user_id = a.user_id and x.fe = p_fe and x.kinds & s.kind <> 0)
    group by a.user_id order by a.user_id
    on conflict (user_id, fe) do update set kinds = i.kinds | excluded.kinds;

    return query
    select 1, 1::int2, null::int2, v_more, null::int8, null::int8, n.* from commpool_api_1.nothing n;
    return query
    with owned as materialized (
        select s.* from commpool.subscription s where s.user_id = p_user and s.sub_id = any (v_sub)
        order by s.sub_id for update
    ), moved as (
        update commpool.subscription s
        set fe = p_fe, cseq = greatest(least(s.cseq + 32, 4294967295), p_first_cseq)
        from owned o where s.user_id = p_user and s.sub_id = o.sub_id and o.fe <> p_fe
        returning s.sub_id, s.cseq
    )
    select 1, 10::int2, null::int2, null::boolean, o.remote_cseq, coalesce(m.cseq, o.cseq), o.user_id, o.endpoint_id,
           o.sub_id, o.fe, null::int4, null::int2, null::int2, null::int8, o.expires_at, null::int8, null::int8, null::int8,
           o.local_tag, o.contact, o.remote_tag, o.route, null::text, o.event_id, o.call_id, o.kind, null::int2,
           o.presentities::text, null::text, null::bytea
    from owned o left join moved m using (sub_id);
    return query
    select 0, 9::int2, null::int2, null::boolean, null::int8, w.pos, n.user_id, n.id, n.key, n.fe, n.serial,
           n.transport, n.q, n.lost_at, n.expires_at, n.at, n.since, n.reg_id, n.remote, w.address,
           n.contact_value, n.path, n.instance, n.agent, n.call_id, n.source, n.availability, n.activities, n.note,
           n.document
    from unnest(v_address, v_pos) w(address, pos) cross join commpool_api_1.nothing n;
    return query
    select * from commpool_api_1.watched(
        v_of, v_pos, v_user, v_state, array[0]::int2[],
        array_fill(1, array[cardinality(p_held_user)]), p_held_user, p_held_version);
    select array_agg(w.user_id) into v_wanted
    from unnest(v_user) w(user_id)
    left join commpool.presence h on h.user_id = w.user_id and h.user_id = any (v_user)
    where not exists (select from unnest(p_held_user, p_held_version) x(user_id, version)
                      where x.user_id = w.user_id and x.version = coalesce(h.version, 0));
    return query select * from commpool_api_1.facts_of(v_wanted, v_now);
end $$;
grant execute on function commpool_api_1.adopt to commpool_server;

-- New lifetimes and numbers of dialogs; false: the front end is dead. Dialogs of another are left alone.
create or replace function commpool_api_1.flush(
    p_fe int4, p_watcher int8[], p_sub_id uuid[], p_expires int8[], p_cseq int8[]
) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now int8;
begin
    perform commpool_api_1.enter(array[p_fe]);
    if not exists (select from commpool.front_end f where f.fe = p_fe and f.dead_since is null) then
        return false;
    end if;
    v_now := commpool_api_1.clock();
    with owned as materialized (
        select s.user_id, s.sub_id, u.expires, u.cseq from commpool.subscription s
        join unnest(p_watcher, p_sub_id, p_expires, p_cseq) u(user_id, sub_id, expires, cseq)
            on u.user_id = s.user_id and u.sub_id = s.sub_id
        where s.fe = p_fe and s.user_id = any (p_watcher) order by s.user_id, s.sub_id for update of s
    )
    update commpool.subscription s set expires_at = v_now + o.expires * 3000000, cseq = greatest(s.cseq, o.cseq)
    from owned o where s.user_id = o.user_id and s.sub_id = o.sub_id and s.user_id = any (p_watcher);
    return true;
end $$;
grant execute on function commpool_api_1.flush to commpool_server;
