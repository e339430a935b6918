-- Publications and the state they add up to.

-- p_what: 1 sets, 2 refreshes, 3 removes.
-- Answers heads (status: 0 done, 1 no such tag, 2 too many, 3 no account, 4 gone; flag: replay; version; key: the
-- publication), what is left of the users, and whom to tell where something is told.
create or replace function commpool_api_1.publish(
    p_user int8[], p_fe int4[], p_serial int4[], p_endpoint int8[], p_if_match uuid[], p_tag uuid[], p_what int2[],
    p_expires int8[], p_source int2[], p_availability int2[], p_activities text[], p_note text[], p_document bytea[]
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
    v_replay boolean[];
    v_pub uuid[];
    v_endpoint int8[];
    v_quiet int8[];
    v_look_user int8[];
    v_told text[];
    v_seen text[];
    v_loud int8[];
    v_done int8[];
    v_tell int8[];
begin
    perform commpool_api_1.enter(p_fe);
    perform commpool_api_1.lock_users(p_user);
    select l.live, l.dead, l.dead_at into v_live, v_dead, v_dead_at from commpool_api_1.lives() l;
    v_now := commpool_api_1.clock();

    select array_agg(d.status order by d.idx), array_agg(d.copy is not null order by d.idx),
           array_agg(coalesce(d.copy, d.old, d.tag) order by d.idx), array_agg(d.endpoint order by d.idx),
           array_agg(d.user_id) filter (where d.status = 0 and d.copy is null and d.what < 3 and d.same_document)
    into v_status, v_replay, v_pub, v_endpoint, v_quiet
    from (
        select r.idx, r.user_id, r.tag, r.what, o.old, o.same_document,
               coalesce(o.copy, case when h.removed_tag = r.tag then h.removed_id end) as copy,
               coalesce(e.endpoint_id, o.endpoint_id) as endpoint,
               case when not r.fe = any (v_live) then 4
                    when a.state is distinct from 1 then 3
                    when o.copy is not null or h.removed_tag = r.tag then 0
                    when o.old is null and (r.if_match is not null or r.what > 1) then 1
                    when o.old is null and o.live - coalesce(o.replaced, 0) >= 20 then 2
                    else 0 end::int2 as status
        from unnest(p_user, p_fe, p_serial, p_endpoint, p_if_match, p_tag, p_what, p_document) with ordinality
            r(user_id, fe, serial, endpoint, if_match, tag, what, document, idx)
        left join commpool.account a on a.user_id = r.user_id and a.user_id = any (p_user)
        left join commpool.presence h on h.user_id = r.user_id and h.user_id = any (p_user)
        -- The endpoint named, else the one that registered on the flow last.
        left join lateral (
            select e.endpoint_id from commpool.endpoint e
            where e.user_id = r.user_id
              and (e.endpoint_id = r.endpoint or e.lost_at is null and e.fe = r.fe and e.serial = r.serial)
            order by (e.endpoint_id = r.endpoint) desc nulls last, e.registered_at desc, e.endpoint_id desc limit 1
        ) e on true
        left join lateral (
            select (array_agg(p.pub_id order by p.pub_id) filter (where p.tag = r.tag or p.pub_id = r.tag))[1] as copy,
                   (array_agg(p.pub_id order by p.pub_id)
                       filter (where p.tag = r.if_match and p.expires_at > v_now))[1] as old,
                   (array_agg(p.endpoint_id order by p.pub_id)
                       filter (where p.tag = r.if_match and p.expires_at > v_now))[1] as endpoint_id,
                   bool_or(r.what = 2 or p.document = r.document)
                       filter (where p.tag = r.if_match and p.expires_at > v_now) as same_document,
                   count(*) filter (where p.expires_at > v_now) as live,
                   count(*) filter (where p.expires_at > v_now
                       and case when p.endpoint_id is null then p.fe = r.fe and p.serial = r.serial
                                else p.endpoint_id = e.endpoint_id end) as replaced
            from commpool.publication p where p.user_id = r.user_id
        ) o on true
    ) d;

    -- Only these can be without news.
    if v_quiet is not null then
        select array_agg(l.user_id), array_agg(l.told), array_agg(l.seen) into v_look_user, v_told, v_seen
        from commpool_api_1.looks(v_quiet, v_now, v_live, v_dead, v_dead_at) l;
    end if;

    -- A client that begins anew leaves nothing of its last run behind. Where something goes, what is written afterwards
    -- is locked with it, in one order.
    if 3 = any (p_what) or array_position(p_if_match, null) is not null then
        with touched as materialized (
            select p.user_id, p.pub_id,
                   case when r.what = 3 then true
                        when r.if_match is not null then false
                        when p.endpoint_id is null then p.fe = r.fe and p.serial = r.serial
                        else p.endpoint_id = r.endpoint_id end as goes
            from unnest(p_user, p_fe, p_serial, p_if_match, p_what, v_status, v_replay, v_pub, v_endpoint)
                r(user_id, fe, serial, if_match, what, status, replay, pub_id, endpoint_id)
            join commpool.publication p using (user_id)
            where p.user_id = any (p_user) and r.status = 0 and not r.replay
              and case when r.what = 3 or r.if_match is not null then p.pub_id = r.pub_id
                       when p.endpoint_id is null then p.fe = r.fe and p.serial = r.serial
                       else p.endpoint_id = r.endpoint_id end
            order by p.user_id, p.pub_id for update of p
        )
        delete from commpool.publication p using touched t
        where t.goes and p.user_id = t.user_id and p.pub_id = t.pub_id and p.user_id = any (p_user);
    end if;

    insert into commpool.publication as p (
        user_id, pub_id, tag, fe, serial, source, availability, endpoint_id, since, updated, expires_at, activities, note,
        document)
    select r.user_id, r.pub_id, r.tag, r.fe, r.serial,
           case r.what when 1 then r.source else o.source end,
           case r.what when 1 then r.availability else o.availability end,
           r.endpoint_id,
           case when r.what = 2 or (o.source, o.availability, o.activities) = (r.source, r.availability, r.activities)
                    and o.note is not distinct from r.note then o.since else v_now end,
           v_now, v_now + r.expires * 1000000,
           case r.what when 1 then r.activities else o.activities end,
           case r.what when 1 then r.note else o.note end,
           case r.what when 1 then r.document else o.document end
    from unnest(p_user, p_fe, p_serial, p_tag, p_what, p_expires, p_source, p_availability, p_activities, p_note,
                p_document, v_status, v_replay, v_pub, v_endpoint)
        r(user_id, fe, serial, tag, what, expires, source, availability, activities, note, document, status, replay, pub_id,
          endpoint_id)
    left join commpool.publication o
        on o.user_id = r.user_id and o.pub_id = r.pub_id and o.user_id = any (p_user)
    where r.status = 0 and not r.replay and r.what < 3
    order by r.user_id
    on conflict (user_id, pub_id) do update set
        tag = excluded.tag, fe = excluded.fe, serial = excluded.serial, source = excluded.source,
        availability = excluded.availability, endpoint_id = excluded.endpoint_id, since = excluded.since,
        updated = excluded.updated, expires_at = excluded.expires_at, activities = excluded.activities,
        note = excluded.note, document = excluded.document;

    if v_quiet is not null then
        select array_agg(a.user_id) into v_quiet
        from commpool_api_1.looks(v_quiet, v_now, v_live, v_dead, v_dead_at) a
        join unnest(v_look_user, v_told, v_seen) b(user_id, told, seen) using (user_id)
        where a.seen = b.told and a.seen = b.seen;
    end if;
    with loud as (
        insert into commpool.presence as h (user_id, version, removed_tag, removed_id)
        select r.user_id, v_now, case when r.what = 3 then r.tag end, case when r.what = 3 then r.pub_id end
        from unnest(p_user, p_tag, p_what, v_status, v_replay, v_pub) r(user_id, tag, what, status, replay, pub_id)
        where r.status = 0 and not r.replay and (v_quiet is null or r.user_id <> all (v_quiet))
        order by r.user_id
        on conflict (user_id) do update set
            version = greatest(h.version + 1, v_now),
            removed_tag = coalesce(excluded.removed_tag, h.removed_tag),
            removed_id = coalesce(excluded.removed_id, h.removed_id)
        returning h.user_id
    )
    select array_agg(l.user_id) into v_loud from loud l;

    select array_agg(r.user_id), array_agg(r.user_id) filter (where r.replay or r.user_id = any (v_loud))
    into v_done, v_tell
    from unnest(p_user, v_status, v_replay) r(user_id, status, replay) where r.status = 0;
    return query select * from commpool_api_1.told_at(v_now);
    return query
    select r.idx::int4, 1::int2, r.status, r.replay, coalesce(h.version, 0), null::int8, null::int8, null::int8, r.pub_id,
           n.fe, n.serial, n.transport, n.q, n.lost_at, n.expires_at, n.at, n.since, n.reg_id, n.remote, n.contact,
           n.contact_value, n.path, n.instance, n.agent, n.call_id, n.source, n.availability, n.activities, n.note,
           n.document
    from unnest(p_user, v_status, v_replay, v_pub) with ordinality r(user_id, status, replay, pub_id, idx)
    left join commpool.presence h on h.user_id = r.user_id and h.user_id = any (p_user)
    cross join commpool_api_1.nothing n;
    return query select * from commpool_api_1.devices_seen(v_done, v_now, v_live, v_dead, v_dead_at);
    return query select * from commpool_api_1.publications_seen(v_done, v_now);
    if v_tell is not null then
        return query select * from commpool_api_1.interested(v_tell);
    end if;
end $$;
grant execute on function commpool_api_1.publish to commpool_server;

-- Answers one head per user asked (user_id; version), and their things under the number 0.
create or replace function commpool_api_1.presence_of(p_user int8[]) returns setof commpool_api_1.fact
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
    return query select * from commpool_api_1.facts_of(p_user, commpool_api_1.clock());
end $$;
grant execute on function commpool_api_1.presence_of to commpool_server;

-- Versions and present state of users, each once.
create or replace function commpool_api_1.facts_of(p_user int8[], p_now int8) returns setof commpool_api_1.fact
language plpgsql stable
as $$
#variable_conflict use_column
declare
    v_live int4[];
    v_dead int4[];
    v_dead_at int8[];
    v_user int8[];
begin
    select l.live, l.dead, l.dead_at into v_live, v_dead, v_dead_at from commpool_api_1.lives() l;
    select array_agg(u.user_id) into v_user
    from (select distinct x.user_id from unnest(p_user) x(user_id)) u;
    return query select * from commpool_api_1.told_at(p_now);
    return query
    select 0, 1::int2, null::int2, null::boolean, h.version, h.user_id, n.*
    from commpool.presence h cross join commpool_api_1.nothing n where h.user_id = any (v_user);
    return query select * from commpool_api_1.devices_seen(v_user, p_now, v_live, v_dead, v_dead_at);
    return query select * from commpool_api_1.publications_seen(v_user, p_now);
end $$;
