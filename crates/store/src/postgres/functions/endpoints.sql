-- Endpoints as a whole: lost flows, sweeping, expiry, listing.

-- How many rows were marked; null: the front end is dead.
create or replace function commpool_api_1.flows_lost(p_fe int4, p_user int8[], p_serial int4[]) returns int8
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now int8;
    v_marked int8;
begin
    perform commpool_api_1.enter(array[p_fe]);
    if not exists (select from commpool.front_end f where f.fe = p_fe and f.dead_since is null) then
        return null;
    end if;
    v_now := commpool_api_1.clock();
    with held as materialized (
        select e.user_id, e.endpoint_id from commpool.endpoint e
        where e.fe = p_fe and e.lost_at is null and exists (
            select from unnest(p_user, p_serial) l(user_id, serial)
            where l.user_id = e.user_id and l.serial = e.serial)
          and e.user_id = any (p_user)
        order by e.user_id, e.endpoint_id for update
    ), marked as (
        update commpool.endpoint e set lost_at = v_now from held h
        where e.user_id = h.user_id and e.endpoint_id = h.endpoint_id and e.user_id = any (p_user)
        returning 1
    )
    select count(*) into v_marked from marked;
    return v_marked;
end $$;
grant execute on function commpool_api_1.flows_lost to commpool_server;

-- Removes endpoints whose grace is over, longest lost first, then what dead front ends leave behind: publications past
-- their time, and what they watched; and of some users what is past its time and no timer removed. Answers a head (flag:
-- more is due), unless the front end is dead, and what `remove` answers.
create or replace function commpool_api_1.sweep_lost(p_fe int4, p_limit int4) returns setof commpool_api_1.fact
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now int8;
    v_live int4[];
    v_dead int4[];
    v_dead_at int8[];
    v_user int8[];
    v_id int8[];
    v_left int8;
    v_fe int4;
    v_forgotten int8;
    v_first int8;
    v_pub_user int8[];
    v_pub_id uuid[];
begin
    perform commpool_api_1.enter(array[p_fe]);
    select l.live, l.dead, l.dead_at into v_live, v_dead, v_dead_at from commpool_api_1.lives() l;
    if not p_fe = any (v_live) then
        return;
    end if;
    v_now := commpool_api_1.clock();
    -- A hundred users have their turn, any of them, by the last digits of the clock. No index goes by time: it would cost
    -- every refresh more than these looks cost.
    select v_now % (coalesce(max(a.user_id), 0) / 100 + 1) * 100 into v_first from commpool.account a;
    -- Three searches, each by its index; what somebody else has in hand is left to the next sweep. The owner of what is
    -- past its time has a minute to remove it.
    with marked as materialized (
        select e.user_id, e.endpoint_id, e.lost_at from commpool.endpoint e
        where e.lost_at is not null and commpool_api_1.faded(
            commpool_api_1.lost_since(e.lost_at, e.fe, v_live, v_dead, v_dead_at), e.expires_at, e.reg_id, e.transport,
            v_now)
        order by e.lost_at, e.user_id, e.endpoint_id limit p_limit + 1 for update skip locked
    ), held as materialized (
        select e.user_id, e.endpoint_id, e.fe from commpool.endpoint e
        where e.fe = any (v_dead) and e.lost_at is null and commpool_api_1.faded(
            commpool_api_1.lost_since(e.lost_at, e.fe, v_live, v_dead, v_dead_at), e.expires_at, e.reg_id, e.transport,
            v_now)
        order by e.fe, e.user_id, e.endpoint_id limit p_limit + 1 for update skip locked
    ), overdue as materialized (
        select e.user_id, e.endpoint_id from commpool.endpoint e
        where e.user_id between v_first and v_first + 99 and e.fe = any (v_live) and e.lost_at is null
          and e.expires_at + 60000000 <= v_now
        order by e.user_id, e.endpoint_id limit p_limit + 1 for update skip locked
    ), due as (
        select d.*, row_number() over (order by d.way, d.rank, d.user_id, d.endpoint_id) as place
        from (select m.user_id, m.endpoint_id, 1 as way, m.lost_at as rank from marked m
              union all select h.user_id, h.endpoint_id, 2, h.fe from held h
              union all select o.user_id, o.endpoint_id, 3, 0 from overdue o) d
    )
    select array_agg(d.user_id) filter (where d.place <= p_limit),
           array_agg(d.endpoint_id) filter (where d.place <= p_limit), p_limit - count(*)
    into v_user, v_id, v_left from due d;
    v_left := greatest(v_left, 0);
    select array_agg(d.user_id), array_agg(d.pub_id), v_left - count(*) into v_pub_user, v_pub_id, v_left
    from (select p.user_id, p.pub_id from commpool.publication p
          where p.fe = any (v_dead) and p.expires_at <= v_now
          union
          select p.user_id, p.pub_id from commpool.publication p
          where p.user_id between v_first and v_first + 99 and p.expires_at + 60000000 <= v_now
          order by user_id, pub_id limit v_left) d;
    -- Those that go with their endpoints too, so that all are locked in one order. Who refreshes one meanwhile keeps it.
    select array_agg(d.user_id), array_agg(d.pub_id) into v_pub_user, v_pub_id
    from (select p.user_id, p.pub_id from commpool.publication p
          where p.user_id = any (v_pub_user || v_user)
            and (p.expires_at <= v_now and exists (
                     select from unnest(v_pub_user, v_pub_id) u(user_id, id) where u.user_id = p.user_id and u.id = p.pub_id)
                 or exists (
                     select from unnest(v_user, v_id) u(user_id, id)
                     where u.user_id = p.user_id and u.id = p.endpoint_id))
          order by p.user_id, p.pub_id for update) d;
    foreach v_fe in array v_dead loop
        exit when v_left = 0;
        -- Searched once: a plan that looks again for each row would find others under the limit.
        with gone as materialized (
            select x.user_id from commpool.interest x where x.fe = v_fe
            order by x.user_id limit v_left for update skip locked
        )
        delete from commpool.interest i using gone g where i.user_id = g.user_id and i.fe = v_fe;
        get diagnostics v_forgotten = row_count;
        v_left := v_left - v_forgotten;
        with gone as materialized (
            select x.user_id, x.sub_id from commpool.subscription x where x.fe = v_fe and x.expires_at <= v_now
            order by x.user_id, x.sub_id limit v_left for update skip locked
        )
        delete from commpool.subscription s using gone g
        where s.user_id = g.user_id and s.sub_id = g.sub_id and s.fe = v_fe;
        get diagnostics v_forgotten = row_count;
        v_left := v_left - v_forgotten;
    end loop;
    if v_left > 0 then
        with gone as materialized (
            select x.user_id, x.sub_id from commpool.subscription x
            where x.user_id between v_first and v_first + 99 and x.expires_at <= v_now
            order by x.user_id, x.sub_id limit v_left for update skip locked
        )
        delete from commpool.subscription s using gone g
        where s.user_id = g.user_id and s.sub_id = g.sub_id and s.user_id between v_first and v_first + 99;
        get diagnostics v_forgotten = row_count;
        v_left := v_left - v_forgotten;
    end if;
    return query select * from commpool_api_1.told_at(v_now);
    return query
    select 1, 1::int2, null::int2, v_left = 0, null::int8, null::int8, n.* from commpool_api_1.nothing n;
    return query
    select * from commpool_api_1.remove(v_user, v_id, v_pub_user, v_pub_id, v_now, v_live, v_dead, v_dead_at);
end $$;
grant execute on function commpool_api_1.sweep_lost to commpool_server;

-- Removes what is past its expiry by the database's clock. Answers a head unless the front end is dead, and what
-- `remove` answers.
create or replace function commpool_api_1.expire(
    p_fe int4, p_user int8[], p_id int8[], p_pub_user int8[], p_pub_id uuid[], p_sub_user int8[], p_sub_id uuid[]
) returns setof commpool_api_1.fact
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now int8;
    v_live int4[];
    v_dead int4[];
    v_dead_at int8[];
    v_user int8[];
    v_id int8[];
    v_pub_user int8[];
    v_pub_id uuid[];
begin
    perform commpool_api_1.enter(array[p_fe]);
    select l.live, l.dead, l.dead_at into v_live, v_dead, v_dead_at from commpool_api_1.lives() l;
    if not p_fe = any (v_live) then
        return;
    end if;
    v_now := commpool_api_1.clock();
    select array_agg(d.user_id), array_agg(d.endpoint_id) into v_user, v_id
    from (select e.user_id, e.endpoint_id from commpool.endpoint e
          join unnest(p_user, p_id) u(user_id, id) on u.user_id = e.user_id and u.id = e.endpoint_id
          where e.expires_at <= v_now and e.user_id = any (p_user) order by e.user_id, e.endpoint_id for update of e) d;
    -- Those that go with their endpoints too, so that all are locked in one order.
    select array_agg(d.user_id), array_agg(d.pub_id) into v_pub_user, v_pub_id
    from (select p.user_id, p.pub_id from commpool.publication p
          where p.user_id = any (p_pub_user || v_user)
            and (p.expires_at <= v_now and exists (
                     select from unnest(p_pub_user, p_pub_id) u(user_id, id) where u.user_id = p.user_id and u.id = p.pub_id)
                 or exists (
                     select from unnest(v_user, v_id) u(user_id, id)
                     where u.user_id = p.user_id and u.id = p.endpoint_id))
          order by p.user_id, p.pub_id for update) d;
    with due as materialized (
        select s.user_id, s.sub_id from commpool.subscription s
        join unnest(p_sub_user, p_sub_id) u(user_id, id) on u.user_id = s.user_id and u.id = s.sub_id
        where s.expires_at <= v_now and s.user_id = any (p_sub_user) order by s.user_id, s.sub_id for update of s
    )
    delete from commpool.subscription s using due d
    where s.user_id = d.user_id and s.sub_id = d.sub_id and s.user_id = any (p_sub_user);
    return query select * from commpool_api_1.told_at(v_now);
    return query
    select 1, 1::int2, null::int2, false, null::int8, null::int8, n.* from commpool_api_1.nothing n;
    return query
    select * from commpool_api_1.remove(v_user, v_id, v_pub_user, v_pub_id, v_now, v_live, v_dead, v_dead_at);
end $$;
grant execute on function commpool_api_1.expire to commpool_server;

-- Who is signed in, by user and endpoint; p_address null: everybody. Answers endpoints and the addresses (9) of their
-- users.
create or replace function commpool_api_1.endpoints_find(
    p_address text, p_after_user int8, p_after_id int8, p_limit int4
) returns setof commpool_api_1.fact
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now int8 := commpool_api_1.clock();
    v_live int4[];
    v_dead int4[];
    v_dead_at int8[];
    v_only int8;
    v_user int8[];
    v_id int8[];
begin
    select l.live, l.dead, l.dead_at into v_live, v_dead, v_dead_at from commpool_api_1.lives() l;
    if p_address is not null then
        select a.user_id into v_only from commpool.address a where a.address = p_address;
        if v_only is null then
            return;
        end if;
    end if;
    select array_agg(e.user_id), array_agg(e.endpoint_id) into v_user, v_id
    from (
        select e.user_id, e.endpoint_id from commpool.endpoint e
        where (e.user_id, e.endpoint_id) > (p_after_user, p_after_id) and (v_only is null or e.user_id = v_only)
          and commpool_api_1.visible(
              commpool_api_1.lost_since(e.lost_at, e.fe, v_live, v_dead, v_dead_at), e.expires_at, e.reg_id, e.transport,
              v_now)
        order by e.user_id, e.endpoint_id limit p_limit
    ) e;
    return query select * from commpool_api_1.told_at(v_now);
    return query
    select 1, 2::int2, null::int2, null::boolean, null::int8,
           commpool_api_1.lost_since(f.lost_at, f.fe, v_live, v_dead, v_dead_at), f.*
    from unnest(v_user, v_id) u(user_id, id) join commpool_api_1.endpoint_fact f using (user_id, id)
    where f.user_id = any (v_user);
    return query
    select 1, 9::int2, null::int2, null::boolean, null::int8, null::int8, a.user_id, n.id, n.key, n.fe, n.serial,
           n.transport, n.q, n.lost_at, n.expires_at, n.at, n.since, n.reg_id, n.remote, a.address::text,
           n.contact_value, n.path, n.instance, n.agent, n.call_id, n.source, n.availability, n.activities, n.note,
           n.document
    from commpool.address a cross join commpool_api_1.nothing n where a.user_id = any (v_user);
end $$;
grant execute on function commpool_api_1.endpoints_find to commpool_server;

-- Expiries of endpoints (no key) and of publications, each by their keys.
create or replace function commpool_api_1.timers(
    p_after_user int8, p_after_id int8, p_after_pub_user int8, p_after_pub_id uuid, p_limit int4
) returns table (user_id int8, id int8, key uuid, expires_at int8, at int8)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now int8 := commpool_api_1.clock();
begin
    return query
    select e.user_id, e.endpoint_id, null::uuid, e.expires_at, v_now from commpool.endpoint e
    where (e.user_id, e.endpoint_id) > (p_after_user, p_after_id)
    order by e.user_id, e.endpoint_id limit p_limit;
    return query
    select p.user_id, null::int8, p.pub_id, p.expires_at, v_now from commpool.publication p
    where (p.user_id, p.pub_id) > (p_after_pub_user, p_after_pub_id)
    order by p.user_id, p.pub_id limit p_limit;
end $$;
grant execute on function commpool_api_1.timers to commpool_server;
