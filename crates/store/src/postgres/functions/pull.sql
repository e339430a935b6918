-- What changed since a front end last asked.

-- Users it watches whose version is above a mark, by version: heads (number: the user), and their facts.
create or replace function commpool_api_1.pull(p_fe int4, p_above int8, p_limit int4) returns setof commpool_api_1.fact
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_user int8[];
begin
    if p_above is not null then
        select array_agg(c.user_id) into v_user
        from (select h.user_id from commpool.presence h join commpool.interest i using (user_id)
              where h.version > p_above and i.fe = p_fe order by h.version, h.user_id limit p_limit) c;
    end if;
    return query select * from commpool_api_1.facts_of(v_user, commpool_api_1.clock());
end $$;
grant execute on function commpool_api_1.pull to commpool_server;
