-- Where a user can be reached, and whether the sender may.

-- Answers heads (status: state of the account, 0 no such address; number: the user), his entries about the sender, and
-- his endpoints. p_domain: the sender's.
create or replace function commpool_api_1.route(p_target text[], p_sender text[], p_domain text[])
returns setof commpool_api_1.fact
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now int8 := commpool_api_1.clock();
    v_live int4[];
    v_dead int4[];
    v_dead_at int8[];
    v_idx int4[];
    v_user int8[];
    v_users int8[];
    v_state int2[];
begin
    select l.live, l.dead, l.dead_at into v_live, v_dead, v_dead_at from commpool_api_1.lives() l;
    select array_agg(r.idx::int4), array_agg(a.user_id), array_agg(c.state) into v_idx, v_user, v_state
    from unnest(p_target) with ordinality r(address, idx)
    join commpool.address a on a.address = r.address and a.address = any (p_target)
    join commpool.account c on c.user_id = a.user_id;
    select array_agg(distinct u.user_id) into v_users from unnest(v_user) u(user_id);
    return query select * from commpool_api_1.told_at(v_now);
    return query
    select u.idx, 1::int2, u.state, null::boolean, null::int8, u.user_id, n.*
    from unnest(v_idx, v_user, v_state) u(idx, user_id, state) cross join commpool_api_1.nothing n;
    return query
    select u.idx, 5::int2, null::int2, null::boolean, null::int8, null::int8, f.*
    from unnest(v_idx, v_user) u(idx, user_id) join commpool_api_1.ace_fact f
        on f.user_id = u.user_id and f.user_id = any (v_user) and f.contact = any (array[p_sender[u.idx], p_domain[u.idx], '']);
    return query select * from commpool_api_1.endpoints_seen(v_users, v_now, v_live, v_dead, v_dead_at);
end $$;
grant execute on function commpool_api_1.route to commpool_server;
