-- Passwords as Digest verifiers.

-- One row per verifier, or one without for a user that has none; no row for an unknown address.
create or replace function commpool_api_1.credentials(p_address text[])
returns table (idx int4, user_id int8, state int2, changed int8, algorithm int2, realm text, verifier text)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select r.idx::int4, c.user_id, c.state, c.changed, v.algorithm, v.realm, v.verifier
    from unnest(p_address) with ordinality r(address, idx)
    join commpool.address a on a.address = r.address and a.address = any (p_address)
    join commpool.account c on c.user_id = a.user_id
    left join commpool.credential v on v.user_id = c.user_id
    order by r.idx, v.label, v.algorithm;
end $$;
grant execute on function commpool_api_1.credentials to commpool_server;

-- A new password under a label. status: 0 done, 1 no such address, 2 too many labels.
create or replace function commpool_api_1.credential_put(
    p_address text, p_label text, p_algorithm int2[], p_realm text[], p_verifier text[], out status int2, out changed int8
)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_user int8;
    v_others int8;
begin
    perform commpool_api_1.lock_accounts();
    select a.user_id into v_user from commpool.address a where a.address = p_address;
    if v_user is null then
        status := 1;
        return;
    end if;
    select count(distinct c.label) into v_others
    from commpool.credential c where c.user_id = v_user and c.label <> p_label;
    if v_others >= 20 then
        status := 2;
        return;
    end if;
    delete from commpool.credential c where c.user_id = v_user and c.label = p_label;
    insert into commpool.credential (user_id, label, algorithm, realm, verifier)
    select v_user, p_label, v.algorithm, v.realm, v.verifier
    from unnest(p_algorithm, p_realm, p_verifier) v(algorithm, realm, verifier);
    status := 0;
    changed := commpool_api_1.stamp(v_user);
end $$;
grant execute on function commpool_api_1.credential_put to commpool_server;

-- null: no such address or label.
create or replace function commpool_api_1.credential_revoke(p_address text, p_label text) returns int8
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_user int8;
begin
    perform commpool_api_1.lock_accounts();
    select a.user_id into v_user from commpool.address a where a.address = p_address;
    delete from commpool.credential c where c.user_id = v_user and c.label = p_label;
    if not found then
        return null;
    end if;
    return commpool_api_1.stamp(v_user);
end $$;
grant execute on function commpool_api_1.credential_revoke to commpool_server;
