-- What a build asks first, and whether writes are taken.

-- Whether a set of functions has been put in place here at some time: builds that know a later one keep its promises.
create or replace function commpool_api_1.hello(p_functions text)
returns table (offered boolean, floor int4, schema int4, standby boolean, read_only boolean)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select exists (select from commpool.function_set s where s.hash = p_functions), p.floor,
           (select coalesce(max(m.version), 0) from commpool.migration m), pg_is_in_recovery(),
           current_setting('transaction_read_only')::boolean
    from commpool.pool p;
end $$;
grant execute on function commpool_api_1.hello to commpool_server, commpool_replicator;

-- Forgets the session's plans: they were made for the tables as they were then.
create or replace function commpool_api_1.replan() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    execute 'discard plans';
end $$;
grant execute on function commpool_api_1.replan to commpool_server, commpool_replicator;

create or replace function commpool_api_1.health() returns int4
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_schema int4;
begin
    perform set_config('synchronous_commit', 'off', true);
    update commpool.boot set probed = commpool_api_1.clock();
    select max(m.version) into v_schema from commpool.migration m;
    return v_schema;
end $$;
grant execute on function commpool_api_1.health to commpool_server, commpool_replicator;
