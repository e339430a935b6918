-- Accounts and their addresses.

-- One writer of accounts at a time: so the stamps rise in the order in which the changes become visible.
create or replace function commpool_api_1.lock_accounts() returns void
language plpgsql
as $$
begin
    perform pg_advisory_xact_lock(1129335885, 0);
end $$;

-- The highest stamp given so far, also to accounts that are gone.
create or replace function commpool_api_1.latest_change() returns int8
language sql stable
begin atomic
    select greatest(p.last_change, (select max(a.changed) from commpool.account a)) from commpool.pool p;
end;

-- The first stamp above all others.
create or replace function commpool_api_1.next_stamp() returns int8
language sql volatile
begin atomic
    select greatest(commpool_api_1.latest_change() + 1, commpool_api_1.clock());
end;

-- Marks an account as changed.
create or replace function commpool_api_1.stamp(p_user int8) returns int8
language plpgsql
as $$
declare
    v_stamp int8 := commpool_api_1.next_stamp();
begin
    update commpool.account a set changed = v_stamp where a.user_id = p_user;
    return v_stamp;
end $$;

-- Adds accounts or changes them; of different addresses. Absent state and name: as they are.
-- status: 0 done, 1 the address is taken, 2 no such address, 3 the account came from a directory.
create or replace function commpool_api_1.account_put(
    p_address text[], p_add boolean[], p_state int2[], p_name text[], p_search text[]
) returns table (idx int4, status int2, user_id int8)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_stamp int8;
    v_user int8[];
    v_change boolean[];
    v_managed boolean[];
begin
    perform commpool_api_1.lock_accounts();
    v_stamp := commpool_api_1.next_stamp() - 1;
    -- Numbers are given in the order of the requests.
    select array_agg(coalesce(j.user_id, case when j.add then nextval('commpool.user_number') end) order by j.idx),
           array_agg(j.add <> (j.user_id is not null) and not j.managed order by j.idx),
           array_agg(j.managed order by j.idx)
    into v_user, v_change, v_managed
    from (select r.add, r.idx, a.user_id,
                 exists (select from commpool.identity i where i.user_id = a.user_id) as managed
          from unnest(p_address, p_add) with ordinality r(address, add, idx)
          left join commpool.address a on a.address = r.address and a.address = any (p_address)
          order by r.idx offset 0) j;
    insert into commpool.account as c (user_id, state, display_name, search, changed)
    select r.user_id, coalesce(r.state, o.state, 1), coalesce(r.name, o.display_name, ''),
           coalesce(r.search, o.search, ''), v_stamp + row_number() over (order by r.idx)
    from unnest(v_user, v_change, p_state, p_name, p_search) with ordinality
        r(user_id, change, state, name, search, idx)
    left join commpool.account o on o.user_id = r.user_id and o.user_id = any (v_user)
    where r.change
    order by r.user_id
    on conflict (user_id) do update set
        state = excluded.state, display_name = excluded.display_name, search = excluded.search,
        changed = excluded.changed;
    insert into commpool.address (address, user_id)
    select r.address, r.user_id from unnest(p_address, p_add, v_user, v_change) r(address, add, user_id, change)
    where r.add and r.change order by r.address;
    return query
    select r.idx::int4, case when r.change then 0 when r.managed then 3 when r.add then 1 else 2 end::int2, r.user_id
    from unnest(p_add, v_user, v_change, v_managed) with ordinality r(add, user_id, change, managed, idx);
end $$;
grant execute on function commpool_api_1.account_put to commpool_server;

-- Accounts after an address, in the order of their addresses. p_text: in address or name, in lower case.
create or replace function commpool_api_1.accounts_page(p_text text, p_after text, p_limit int4)
returns table (
    user_id int8, address text, display_name text, state int2, has_password boolean, managed boolean,
    phone text, title text, company text, office text
)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select c.user_id, a.address::text, c.display_name, c.state,
           exists (select from commpool.credential v where v.user_id = c.user_id),
           exists (select from commpool.identity i where i.user_id = c.user_id),
           c.phone, c.title, c.company, c.office
    from commpool.address a join commpool.account c using (user_id)
    where a.address > p_after and (strpos(a.address, p_text) > 0 or strpos(c.search, p_text) > 0)
    order by a.address limit p_limit;
end $$;
grant execute on function commpool_api_1.accounts_page to commpool_server;

-- Accounts changed after a mark, by stamp, with an empty address where there is none; without a mark one row with the highest stamp and no user.
create or replace function commpool_api_1.accounts_changed(p_after int8, p_limit int4)
returns table (changed int8, user_id int8, address text, state int2)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if p_after is null then
        return query select commpool_api_1.latest_change(), null::int8, null::text, null::int2;
        return;
    end if;
    return query
    select c.changed, c.user_id, coalesce(a.address::text, ''), c.state
    from commpool.account c left join commpool.address a using (user_id)
    where c.changed > p_after order by c.changed limit p_limit;
end $$;
grant execute on function commpool_api_1.accounts_changed to commpool_server;
