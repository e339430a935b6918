-- Users from a directory: who may run, what is known, and what a run wants, all of it at once.
--
-- Rows by the hundred thousand are looked up one by one, by `lateral … limit 1`: an index whatever the planner believes
-- of the tables' size. What is wanted is compared by sorting it, with no join that could become one of all with all.

-- A token, or who holds it and for how many milliseconds.
create or replace function commpool_api_1.lease_take(
    p_name text, p_holder text, p_ttl int8, out token int8, out holder text, out ms_left int8
)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_now int8 := commpool_api_1.clock();
begin
    insert into commpool.lease as l (name, holder, token, until) values (p_name, p_holder, 1, v_now + p_ttl * 1000)
    on conflict (name) do update set holder = excluded.holder, token = l.token + 1, until = excluded.until
    where l.until <= v_now
    returning l.token into lease_take.token;
    if not found then
        select l.holder, greatest(l.until - v_now, 0) / 1000 into lease_take.holder, ms_left
        from commpool.lease l where l.name = p_name;
    end if;
end $$;
grant execute on function commpool_api_1.lease_take to commpool_replicator;

-- Whether nobody has taken it since. p_ttl 0 gives it back.
create or replace function commpool_api_1.lease_keep(p_name text, p_token int8, p_ttl int8) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    update commpool.lease l set until = case when p_ttl = 0 then 0 else commpool_api_1.clock() + p_ttl * 1000 end
    where l.name = p_name and l.token = p_token;
    return found;
end $$;
grant execute on function commpool_api_1.lease_keep to commpool_replicator;

-- Whether this token was given last; it stays so until the end of the transaction.
create or replace function commpool_api_1.holds_lease(p_name text, p_token int8) returns boolean
language plpgsql
as $$
begin
    perform from commpool.lease l where l.name = p_name and l.token = p_token for share;
    return found;
end $$;

-- What is known of a source; one row in any case.
create or replace function commpool_api_1.source_get(
    p_source text, out version int8, out state bytea, out users int8, out at int8
)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
    select s.version, s.state into source_get.version, source_get.state from commpool.source s where s.source = p_source;
    select count(*) into users from commpool.identity i where i.source = p_source;
    at := commpool_api_1.clock();
end $$;
grant execute on function commpool_api_1.source_get to commpool_replicator;

-- Users of a source after a key, by key.
create or replace function commpool_api_1.source_users(p_source text, p_after uuid, p_limit int4)
returns table (source_key uuid, fingerprint uuid, user_id int8, address text, state int2, purge_at int8)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select i.source_key, i.fingerprint, i.user_id, a.address, c.state, c.purge_at
    from (select * from commpool.identity i
          where i.source = p_source
            and i.source_key >= coalesce(p_after, '00000000-0000-0000-0000-000000000000')
            and (p_after is null or i.source_key <> p_after)
          order by i.source_key limit p_limit) i
    join lateral (select c.state, c.purge_at from commpool.account c where c.user_id = i.user_id limit 1) c on true
    left join lateral (select a.address::text from commpool.address a where a.user_id = i.user_id limit 1) a on true
    order by i.source_key;
end $$;
grant execute on function commpool_api_1.source_users to commpool_replicator;

-- Who has these addresses; no row where nobody has. source: null for a user added by hand.
create or replace function commpool_api_1.address_holders(p_address text[])
returns table (idx int4, user_id int8, source text, source_key uuid)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select r.idx::int4, a.user_id, i.source, i.source_key
    from unnest(p_address) with ordinality r(address, idx)
    join lateral (select a.user_id from commpool.address a where a.address = r.address limit 1) a on true
    left join lateral (
        select i.source::text, i.source_key from commpool.identity i where i.user_id = a.user_id limit 1
    ) i on true;
end $$;
grant execute on function commpool_api_1.address_holders to commpool_replicator;

-- Puts rows aside. Whether the lease is held.
create or replace function commpool_api_1.stage(
    p_source text, p_token int8, p_first int4, p_kind int2[], p_key uuid[], p_address text[], p_state int2[],
    p_name text[], p_search text[], p_phone text[], p_title text[], p_company text[], p_office text[],
    p_fingerprint uuid[], p_purge_at int8[]
) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform set_config('synchronous_commit', 'off', true);
    if not commpool_api_1.holds_lease(p_source, p_token) then
        return false;
    end if;
    delete from commpool.incoming n
    where n.source = p_source and (p_first = 0 or n.number >= p_first and n.number < p_first + cardinality(p_kind));
    insert into commpool.incoming (
        source, number, token, kind, source_key, address, state, display_name, search, phone, title, company, office,
        fingerprint, purge_at
    )
    select p_source, p_first + r.idx - 1, p_token, r.kind, r.key, r.address, r.state, r.name, r.search, r.phone,
           r.title, r.company, r.office, r.fingerprint, r.purge_at
    from unnest(p_kind, p_key, p_address, p_state, p_name, p_search, p_phone, p_title, p_company, p_office,
                p_fingerprint, p_purge_at) with ordinality
        r(kind, key, address, state, name, search, phone, title, company, office, fingerprint, purge_at, idx);
    return true;
end $$;
grant execute on function commpool_api_1.stage to commpool_replicator;

-- Whether all rows are there, of this run, and of different keys.
create or replace function commpool_api_1.staged(p_source text, p_token int8, p_rows int4) returns boolean
language sql stable
begin atomic
    select count(*) = p_rows and count(distinct n.source_key) = p_rows
       and coalesce(bool_and(n.token = p_token and n.number < p_rows), true)
    from commpool.incoming n where n.source = p_source;
end;

-- Removes users with all that belongs to them.
create or replace function commpool_api_1.remove_users(p_user int8[]) returns void
language plpgsql
as $$
begin
    if p_user is null then
        return;
    end if;
    update commpool.pool set last_change = commpool_api_1.latest_change();
    delete from commpool.account t where t.user_id = any (p_user);
    delete from commpool.address t where t.user_id = any (p_user);
    delete from commpool.identity t where t.user_id = any (p_user);
    delete from commpool.credential t where t.user_id = any (p_user);
    delete from commpool.endpoint t where t.user_id = any (p_user);
    delete from commpool.publication t where t.user_id = any (p_user);
    delete from commpool.interest t where t.user_id = any (p_user);
    delete from commpool.subscription t where t.user_id = any (p_user);
    delete from commpool.presence t where t.user_id = any (p_user);
    delete from commpool.ace t where t.user_id = any (p_user);
end $$;

-- What becomes of each user that the rows put aside are about, by key. kind as there; 4: a lapsed user beside them whose
-- address another gets. Of two who want one address it is for who has it, else for the lowest key, if it is free or
-- freed by this very run.
create or replace function commpool_api_1.decided(p_source text) returns table (
    source_key uuid, kind int2, number int4, user_id int8, before text, after text, refused boolean, told boolean
)
language plpgsql stable
as $$
#variable_conflict use_column
begin
    return query
    with known as materialized (
        select n.number, n.kind, n.source_key as key, n.address, n.state, k.user_id, k.state as old_state, k.address as before
        from commpool.incoming n
        left join lateral (
            select i.user_id, c.state, c.purge_at, a.address
            from commpool.identity i
            join lateral (select c.state, c.purge_at from commpool.account c where c.user_id = i.user_id limit 1) c on true
            left join lateral (select a.address from commpool.address a where a.user_id = i.user_id limit 1) a on true
            where i.source = p_source and i.source_key = n.source_key limit 1
        ) k on true
        where n.source = p_source
          and (n.kind = 1 or n.kind = 2 and k.user_id is not null or n.kind = 3 and k.purge_at is not null)
    ), mention as (
        -- Every address by who wants it (role 1) and who has it but does not want it (2).
        select k.address, 1 as role, k.key, coalesce(k.address = k.before, false) as has_it
        from known k where k.kind = 1 and k.address is not null
        union all
        select k.before, 2, k.key, false from known k
        where k.before is not null and (k.kind <> 1 or k.address is distinct from k.before)
    ), ranked as (
        select m.*, row_number() over w as place, first_value(m.key) over w as winner
        from mention m window w as (partition by m.address order by m.role, not m.has_it, m.key)
    ), held as (
        select r.*, h.user_id as holder, h.source_key as holder_key, h.beside,
               r.place = 1 and r.role = 1 and (r.has_it or h.user_id is null or coalesce(h.free, false)) as is_granted
        from ranked r
        left join lateral (
            select a.user_id, o.source_key,
                   o.source_key is not null and c.purge_at is not null and not o.concerned as beside,
                   o.source_key is not null and (c.purge_at is not null or o.concerned) as free
            from commpool.address a
            join lateral (select c.purge_at from commpool.account c where c.user_id = a.user_id limit 1) c on true
            left join lateral (
                select i.source_key, exists (
                    select from commpool.incoming n
                    where n.source = p_source and n.source_key = i.source_key and (n.kind <> 3 or c.purge_at is not null)
                ) as concerned
                from commpool.identity i where i.user_id = a.user_id and i.source = p_source limit 1
            ) o on true
            where a.address = r.address and r.place = 1 and r.role = 1 and not r.has_it limit 1
        ) h on true
    ), settled as materialized (
        select h.*, bool_or(h.is_granted) over (partition by h.address) as granted from held h
    ), outcome as (
        -- One row for each user: the address he gets, and the one that would be left to him.
        select u.key, max(u.kind) as kind, max(u.number) as number, max(u.user_id) as user_id, max(u.before) as before,
               max(u.wanted) as wanted, bool_or(u.other_state) as other_state,
               max(u.address) filter (where u.role = 1 and u.granted and u.winner = u.key) as got,
               max(u.address) filter (where u.role = 2 and not u.granted) as kept
        from (select s.key, s.address, s.role, s.granted, s.winner, null::int2 as kind, null::int4 as number,
                     null::int8 as user_id, null::text as before, null::text as wanted, false as other_state
              from settled s
              union all
              select k.key, null, 3, false, null, k.kind, k.number, k.user_id, k.before,
                     case when k.kind = 1 then k.address end,
                     k.old_state is distinct from case when k.kind = 1 then k.state else 2 end
              from known k) u
        group by u.key
    ), merged as (
        select o.key, o.kind, o.number, o.user_id, o.before,
               case when o.kind = 3 or o.kind = 1 and o.wanted is null then null else coalesce(o.got, o.kept) end as after,
               o.wanted is not null and o.got is null as refused, o.other_state
        from outcome o
        union all
        select s.holder_key, 4::int2, null, s.holder, s.address, null, false, false
        from settled s where s.is_granted and s.beside
    )
    select m.key, m.kind, m.number, m.user_id, m.before, m.after, m.refused,
           m.kind <> 3 and (m.other_state or m.before is distinct from m.after)
    from merged m order by m.key;
end $$;

-- Applies what was put aside. status: 0 done, 1 the source has another version, 2 the lease is not held, 3 rows are
-- missing. refused: the first thousand keys that did not get their address.
create or replace function commpool_api_1.apply(
    p_source text, p_token int8, p_version int8, p_rows int4, p_state bytea,
    out status int2, out version int8, out refused uuid[]
)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_base int8;
    v_key uuid[];
    v_kind int2[];
    v_number int4[];
    v_user int8[];
    v_before text[];
    v_after text[];
    v_refused boolean[];
    v_stamp int8[];
    v_removed int8[];
    v_moved int8[];
begin
    if not commpool_api_1.holds_lease(p_source, p_token) then
        status := 2;
        return;
    end if;
    perform commpool_api_1.lock_accounts();
    if p_version <> coalesce((select s.version from commpool.source s where s.source = p_source), 0) then
        status := 1;
        return;
    elsif not commpool_api_1.staged(p_source, p_token, p_rows) then
        status := 3;
        return;
    end if;
    v_base := commpool_api_1.next_stamp() - 1;
    -- Numbers and stamps are given in the order of the keys. A new user who does not get his address is not made.
    select array_agg(m.source_key) filter (where m.made), array_agg(m.kind) filter (where m.made),
           array_agg(m.number) filter (where m.made), array_agg(m.user_id) filter (where m.made),
           array_agg(m.before) filter (where m.made), array_agg(m.after) filter (where m.made),
           array_agg(m.refused) filter (where m.made), array_agg(m.stamp) filter (where m.made),
           (array_agg(m.source_key order by m.source_key) filter (where m.refused))[1:1000],
           array_agg(m.user_id) filter (where m.kind = 3),
           array_agg(m.user_id) filter (where m.kind <> 3 and m.before is distinct from m.after and m.before is not null)
    into v_key, v_kind, v_number, v_user, v_before, v_after, v_refused, v_stamp, refused, v_removed, v_moved
    from (select d.source_key, d.kind, d.number, d.before, d.after, d.refused, d.made,
                 case when d.user_id is null and d.made then nextval('commpool.user_number') else d.user_id end as user_id,
                 case when d.told and d.made then
                     v_base + count(*) filter (where d.told and d.made) over (order by d.source_key rows unbounded preceding)
                 end as stamp
          from (select d.*, d.user_id is not null or not d.refused as made
                from commpool_api_1.decided(p_source) d order by d.source_key offset 0) d) m;
    perform commpool_api_1.remove_users(v_removed);
    -- An address may pass from one to the other: all are freed before any is given.
    delete from commpool.address a where a.user_id = any (v_moved);
    delete from commpool.credential c where c.user_id = any (v_moved);
    insert into commpool.account as c (
        user_id, state, display_name, search, changed, purge_at, phone, title, company, office
    )
    select r.user_id, case r.kind when 1 then n.state when 2 then 2 else o.state end,
           coalesce(n.display_name, o.display_name), coalesce(n.search, o.search), coalesce(r.stamp, o.changed),
           case r.kind when 1 then null when 2 then n.purge_at else o.purge_at end,
           coalesce(n.phone, o.phone), coalesce(n.title, o.title), coalesce(n.company, o.company),
           coalesce(n.office, o.office)
    from unnest(v_kind, v_number, v_user, v_stamp) r(kind, number, user_id, stamp)
    left join lateral (
        select * from commpool.incoming n where n.source = p_source and n.number = r.number limit 1
    ) n on true
    left join lateral (select * from commpool.account o where o.user_id = r.user_id limit 1) o on true
    where r.kind <> 3
    order by r.user_id
    on conflict (user_id) do update set
        state = excluded.state, display_name = excluded.display_name, search = excluded.search,
        changed = excluded.changed, purge_at = excluded.purge_at, phone = excluded.phone, title = excluded.title,
        company = excluded.company, office = excluded.office;
    insert into commpool.address (address, user_id)
    select r.after, r.user_id from unnest(v_before, v_after, v_user) r(before, after, user_id)
    where r.after is not null and r.after is distinct from r.before order by r.after collate "C";
    insert into commpool.identity as i (source, source_key, user_id, fingerprint)
    select p_source, r.key, r.user_id,
           case when r.refused then '00000000-0000-0000-0000-000000000000' else n.fingerprint end
    from unnest(v_key, v_kind, v_number, v_user, v_refused) r(key, kind, number, user_id, refused)
    join lateral (
        select n.fingerprint from commpool.incoming n where n.source = p_source and n.number = r.number limit 1
    ) n on true
    where r.kind = 1 order by r.key
    on conflict (source, source_key) do update set fingerprint = excluded.fingerprint;
    delete from commpool.incoming n where n.source = p_source;
    status := 0;
    version := p_version + 1;
    insert into commpool.source as s (source, version, state) values (p_source, p_version + 1, p_state)
    on conflict (source) do update set version = excluded.version, state = excluded.state;
end $$;
grant execute on function commpool_api_1.apply to commpool_replicator;
