-- Front ends: start, lease, stop, reaping, listing.

-- The epoch of the soft data; it rises when the canary has gone, to the clock and always, so that no number is told
-- twice. Such a rise is on disk before it is told.
create or replace function commpool_api_1.epoch(p_now int8) returns int8
language plpgsql
as $$
declare
    v_epoch int8;
begin
    if not exists (select from commpool.boot) then
        insert into commpool.boot (id) values (gen_random_uuid()) on conflict do nothing;
        if found then
            perform set_config('synchronous_commit', 'local', true);
            update commpool.pool set epoch = greatest(epoch + 1, p_now);
        end if;
    end if;
    select p.epoch into v_epoch from commpool.pool p;
    return v_epoch;
end $$;

-- Declares a front end dead once none of its writes is under way; its endpoints count as lost from now.
create or replace function commpool_api_1.bury(p_fe int4, p_now int8) returns void
language plpgsql
as $$
begin
    perform pg_advisory_xact_lock(1129335884, p_fe);
    update commpool.front_end f set state = 4, dead_since = p_now where f.fe = p_fe and f.dead_since is null;
end $$;

-- A new incarnation. What it is told is on disk: its number must never be given again.
create or replace function commpool_api_1.front_end_start(
    p_pod text, p_start_id uuid, p_address text, p_build text, p_alone boolean
) returns table (fe int4, address text, build text, state int2, lease_until int8, me int4, epoch int8, at int8)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now int8;
    v_me int4;
    v_epoch int8;
    v_other int4;
begin
    perform pg_advisory_xact_lock(1129335884, 0);
    v_now := commpool_api_1.clock();
    select f.fe into v_me from commpool.front_end f
    where f.pod = p_pod and f.start_id = p_start_id and f.dead_since is null order by f.fe limit 1;
    if v_me is null then
        insert into commpool.front_end (fe, pod, start_id, address, build, state, lease_until)
        values (nextval('commpool.incarnation'), p_pod, p_start_id, p_address, p_build, 1, v_now + 15000000)
        returning front_end.fe into v_me;
    end if;
    if p_alone then
        for v_other in
            select f.fe from commpool.front_end f where f.fe <> v_me and f.dead_since is null order by f.fe
        loop
            perform commpool_api_1.bury(v_other, v_now);
        end loop;
    end if;
    -- A dead one is remembered for a day, and as long as anything of it is left.
    delete from commpool.front_end f
    where f.fe <> v_me and f.dead_since + 86400000000 <= v_now
      and not exists (select from commpool.endpoint e where e.fe = f.fe)
      and not exists (select from commpool.publication p where p.fe = f.fe)
      and not exists (select from commpool.interest i where i.fe = f.fe)
      and not exists (select from commpool.subscription s where s.fe = f.fe);
    v_epoch := commpool_api_1.epoch(v_now);
    return query
    select f.fe, f.address, f.build, f.state, f.lease_until, v_me, v_epoch, v_now
    from commpool.front_end f where f.dead_since is null order by f.fe;
end $$;
grant execute on function commpool_api_1.front_end_start to commpool_server;

-- No row: reaped or unknown.
create or replace function commpool_api_1.renew(p_fe int4, p_state int2, p_connections int4, p_links int4)
returns table (fe int4, address text, build text, state int2, lease_until int8, me int4, epoch int8, at int8)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now int8;
    v_epoch int8;
begin
    perform set_config('synchronous_commit', 'off', true);
    v_now := commpool_api_1.clock();
    if p_state = 4 then
        perform commpool_api_1.bury(p_fe, v_now);
        return;
    end if;
    update commpool.front_end f set state = p_state, lease_until = v_now + 15000000, connections = p_connections, links = p_links
    where f.fe = p_fe and f.dead_since is null;
    if not found then
        return;
    end if;
    v_epoch := commpool_api_1.epoch(v_now);
    return query
    select f.fe, f.address, f.build, f.state, f.lease_until, p_fe, v_epoch, v_now
    from commpool.front_end f where f.dead_since is null order by f.fe;
end $$;
grant execute on function commpool_api_1.renew to commpool_server;

create or replace function commpool_api_1.front_end_stop(p_fe int4) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform set_config('synchronous_commit', 'off', true);
    perform commpool_api_1.bury(p_fe, commpool_api_1.clock());
end $$;
grant execute on function commpool_api_1.front_end_stop to commpool_server;

-- 0 done, 1 its lease holds, 2 a write of it is under way, 3 who asks is dead.
create or replace function commpool_api_1.reap(p_by int4, p_target int4) returns int2
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_now int8;
    v_until int8;
begin
    perform commpool_api_1.enter(array[p_by]);
    if not exists (select from commpool.front_end f where f.fe = p_by and f.dead_since is null) then
        return 3;
    end if;
    v_now := commpool_api_1.clock();
    select f.lease_until into v_until from commpool.front_end f where f.fe = p_target and f.dead_since is null;
    if v_until is null then
        return 0;
    elsif v_until > v_now then
        return 1;
    end if;
    -- Its writes end within moments; who waits for the fence keeps new ones from passing.
    perform set_config('lock_timeout', '300', true);
    begin
        perform pg_advisory_xact_lock(1129335884, p_target);
    exception when lock_not_available then
        return 2;
    end;
    -- It may have renewed its lease meanwhile.
    update commpool.front_end f set state = 4, dead_since = v_now
    where f.fe = p_target and f.dead_since is null and f.lease_until <= v_now;
    if found or not exists (select from commpool.front_end f where f.fe = p_target and f.dead_since is null) then
        return 0;
    end if;
    return 1;
end $$;
grant execute on function commpool_api_1.reap to commpool_server;

create or replace function commpool_api_1.front_ends() returns table (
    fe int4, pod text, address text, build text, state int2, lease_until int8, dead_since int8, endpoints int8, at int8,
    connections int4, links int4
)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_now int8 := commpool_api_1.clock();
begin
    return query
    select f.fe, f.pod::text, f.address, f.build, f.state, f.lease_until, f.dead_since,
           (select count(*) from commpool.endpoint e where e.fe = f.fe), v_now,
           f.connections, f.links
    from commpool.front_end f order by f.fe;
end $$;
grant execute on function commpool_api_1.front_ends to commpool_server;
