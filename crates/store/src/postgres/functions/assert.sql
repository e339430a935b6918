-- What a front end holds, said again after some of it was lost: the newer row stays.

-- p_e_…: endpoints, p_p_…: publications, p_i_user: users watched, p_s_…: dialogs; ages and what is left of lifetimes in
-- milliseconds. No row: the front end is dead. Else one row of kind 0, and one per thing that lost: its kind (1 endpoint,
-- 2 publication, 3 dialog) and its place.
create or replace function commpool_api_1.assert(
    p_fe int4,
    p_e_user int8[], p_e_id int8[], p_e_key uuid[], p_e_serial int4[], p_e_transport int2[], p_e_remote text[],
    p_e_lost int8[], p_e_left int8[], p_e_age int8[], p_e_refreshed int8[], p_e_origin uuid[], p_e_call_id text[],
    p_e_cseq int8[], p_e_q int2[], p_e_contact text[], p_e_value text[], p_e_path text[], p_e_instance text[],
    p_e_reg_id int8[], p_e_agent text[],
    p_p_user int8[], p_p_id uuid[], p_p_tag uuid[], p_p_serial int4[], p_p_endpoint int8[], p_p_source int2[],
    p_p_availability int2[], p_p_activities text[], p_p_note text[], p_p_document bytea[], p_p_since int8[],
    p_p_updated int8[], p_p_left int8[],
    p_i_user int8[],
    p_s_user int8[], p_s_id uuid[], p_s_origin uuid[], p_s_endpoint int8[], p_s_kind int2[], p_s_presentities text[],
    p_s_expires int8[], p_s_cseq int8[], p_s_call_id text[], p_s_local_tag text[], p_s_remote_tag text[],
    p_s_remote_cseq int8[], p_s_contact text[], p_s_route text[], p_s_event_id text[]
) returns table (kind int2, place int4)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now int8;
    v_live int4[];
    v_dead int4[];
    v_dead_at int8[];
    -- Per thing: 0 it is written, 1 it is there already, 2 it lost.
    v_endpoint int2[];
    v_publication int2[];
    v_dialog int2[];
    v_users int8[];
    v_look_user int8[];
    v_told text[];
    v_seen text[];
    v_changed int8[];
begin
    perform commpool_api_1.enter(array[p_fe]);
    select l.live, l.dead, l.dead_at into v_live, v_dead, v_dead_at from commpool_api_1.lives() l;
    if not p_fe = any (v_live) then
        return;
    end if;
    v_now := commpool_api_1.clock();

    -- Rows of the same binding, by id or by key, decide by CSeq inside one Call-ID, else by time.
    with there as materialized (
        select e.* from commpool.endpoint e where e.user_id = any (p_e_user)
        order by e.user_id, e.endpoint_id for update
    ), seen as materialized (
        select t.user_id, t.endpoint_id, t.binding_key, commpool_api_1.visible(
            commpool_api_1.lost_since(t.lost_at, t.fe, v_live, v_dead, v_dead_at), t.expires_at, t.reg_id, t.transport,
            v_now) as seen
        from there t
    ), judged as (
        select h.n, h.user_id, a.state is distinct from 1 as off, h.expires <= 0 as over,
               coalesce(bool_or(t.endpoint_id = h.id and t.binding_key = h.key and t.origin = h.origin and t.fe = p_fe
                                and t.serial = h.serial and (t.lost_at is null) = (h.lost is null)), false) as same,
               coalesce(bool_or(case when t.call_id = h.call_id and t.cseq <> h.cseq then t.cseq > h.cseq
                                     else t.refreshed_at > greatest(v_now - h.refreshed * 1000, 0) end), false) as newer,
               count(*) filter (where t.endpoint_id = h.id) = 0 as fresh,
               (select count(*) from seen s where s.user_id = h.user_id and s.seen and s.endpoint_id <> h.id
                                             and s.binding_key <> h.key) as others
        from unnest(p_e_user, p_e_id, p_e_key, p_e_serial, p_e_lost, p_e_left, p_e_refreshed, p_e_origin, p_e_call_id,
                    p_e_cseq) with ordinality
            h(user_id, id, key, serial, lost, expires, refreshed, origin, call_id, cseq, n)
        left join commpool.account a on a.user_id = h.user_id and a.user_id = any (p_e_user)
        left join there t on t.user_id = h.user_id and (t.endpoint_id = h.id or t.binding_key = h.key)
        group by h.n, h.user_id, h.id, h.key, a.state, h.expires
    )
    select array_agg(case when j.off then 2 when j.same then 1 when j.over or j.newer or j.others + j.before >= 10 then 2
                          else 0 end::int2 order by j.n)
    into v_endpoint
    from (select j.*, count(*) filter (where j.fresh and not (j.off or j.over or j.newer)) over (
              partition by j.user_id order by j.n rows between unbounded preceding and 1 preceding) as before
          from judged j) j;

    with there as materialized (
        select p.user_id, p.pub_id, p.tag, p.updated, p.expires_at from commpool.publication p
        where p.user_id = any (p_p_user) order by p.user_id, p.pub_id for update
    )
    select array_agg(case when j.off then 2 when j.tag = j.held_tag then 1
                          when j.expires <= 0 or j.updated > j.held_updated or j.others + j.before >= 20 then 2
                          else 0 end::int2 order by j.n)
    into v_publication
    from (
        select h.n, a.state is distinct from 1 as off, t.tag, h.tag as held_tag, h.expires, t.updated,
               greatest(v_now - h.updated * 1000, 0) as held_updated,
               (select count(*) from there o where o.user_id = h.user_id and o.pub_id <> h.id and o.expires_at > v_now)
                   as others,
               count(*) filter (where t.pub_id is null) over (
                   partition by h.user_id order by h.n rows between unbounded preceding and 1 preceding) as before
        from unnest(p_p_user, p_p_id, p_p_tag, p_p_updated, p_p_left) with ordinality h(user_id, id, tag, updated, expires, n)
        left join commpool.account a on a.user_id = h.user_id and a.user_id = any (p_p_user)
        left join there t on t.user_id = h.user_id and t.pub_id = h.id
    ) j;

    with there as materialized (
        select s.user_id, s.sub_id, s.fe, s.remote_cseq, s.cseq from commpool.subscription s
        join unnest(p_s_user, p_s_id) h(user_id, id) on h.user_id = s.user_id and h.id = s.sub_id
        where s.user_id = any (p_s_user) order by s.user_id, s.sub_id for update of s
    )
    select array_agg(
        case when h.expires = 0 or t.fe <> p_fe and (t.remote_cseq, t.cseq) > (h.remote_cseq, h.cseq) then 2
             when t.fe = p_fe and (t.remote_cseq, t.cseq) >= (h.remote_cseq, h.cseq) then 1
             when t.sub_id is null and 5000 <= (select count(*) from (
                 select from commpool.subscription x
                 where x.user_id = h.user_id and x.expires_at > v_now limit 5000) x) then 2
             else 0 end::int2 order by h.n)
    into v_dialog
    from unnest(p_s_user, p_s_id, p_s_expires, p_s_remote_cseq, p_s_cseq) with ordinality
        h(user_id, id, expires, remote_cseq, cseq, n)
    left join there t on t.user_id = h.user_id and t.sub_id = h.id;

    select array_agg(distinct u.user_id) into v_users
    from (select e.user_id from unnest(p_e_user, v_endpoint) e(user_id, how) where e.how = 0
          union all select p.user_id from unnest(p_p_user, v_publication) p(user_id, how) where p.how = 0) u;
    if v_users is not null then
        select array_agg(l.user_id), array_agg(l.told), array_agg(l.seen) into v_look_user, v_told, v_seen
        from commpool_api_1.looks(v_users, v_now, v_live, v_dead, v_dead_at) l;
    end if;

    -- What was not there above may have come since, by a request at another front end: it is judged by the same rules.
    delete from commpool.endpoint e
    using unnest(p_e_user, p_e_id, p_e_key, p_e_call_id, p_e_cseq, p_e_refreshed, v_endpoint)
        h(user_id, id, key, call_id, cseq, refreshed, how)
    where h.how = 0 and e.user_id = h.user_id and e.user_id = any (p_e_user) and e.binding_key = h.key and e.endpoint_id <> h.id
      and not case when e.call_id = h.call_id and e.cseq <> h.cseq then e.cseq > h.cseq
                   else e.refreshed_at > greatest(v_now - h.refreshed * 1000, 0) end;
    with written as (insert into commpool.endpoint as e (
        user_id, endpoint_id, binding_key, fe, serial, transport, q, lost_at, expires_at, registered_at, refreshed_at, cseq,
        reg_id, origin, call_id, remote, contact, contact_value, path, instance, agent)
    select h.user_id, h.id, h.key, p_fe, h.serial, h.transport, h.q,
           case when h.lost is not null then greatest(v_now - h.lost * 1000, 0) end, v_now + h.expires * 1000, greatest(v_now - h.age * 1000, 0), greatest(v_now - h.refreshed * 1000, 0), h.cseq,
           h.reg_id, h.origin, h.call_id, h.remote, h.contact, h.value, h.path, h.instance, h.agent
    from unnest(p_e_user, p_e_id, p_e_key, p_e_serial, p_e_transport, p_e_remote, p_e_lost, p_e_left, p_e_age,
                p_e_refreshed, p_e_origin, p_e_call_id, p_e_cseq, p_e_q, p_e_contact, p_e_value, p_e_path, p_e_instance,
                p_e_reg_id, p_e_agent, v_endpoint)
        h(user_id, id, key, serial, transport, remote, lost, expires, age, refreshed, origin, call_id, cseq, q, contact,
          value, path, instance, reg_id, agent, how)
    where h.how = 0 order by h.user_id, h.id
    on conflict (user_id, endpoint_id) do update set
        binding_key = excluded.binding_key, fe = excluded.fe, serial = excluded.serial, transport = excluded.transport,
        q = excluded.q, lost_at = excluded.lost_at, expires_at = excluded.expires_at,
        registered_at = excluded.registered_at, refreshed_at = excluded.refreshed_at, cseq = excluded.cseq,
        reg_id = excluded.reg_id, origin = excluded.origin, call_id = excluded.call_id, remote = excluded.remote,
        contact = excluded.contact, contact_value = excluded.contact_value, path = excluded.path,
        instance = excluded.instance, agent = excluded.agent
    where not case when e.call_id = excluded.call_id and e.cseq <> excluded.cseq then e.cseq > excluded.cseq
                   else e.refreshed_at > excluded.refreshed_at end
    returning e.user_id, e.endpoint_id)
    select array_agg(case when h.how = 0 and (h.user_id, h.id) not in (select w.user_id, w.endpoint_id from written w)
                          then 2 else h.how end::int2 order by h.n)
    into v_endpoint
    from unnest(p_e_user, p_e_id, v_endpoint) with ordinality h(user_id, id, how, n);
    with written as (insert into commpool.publication as p (
        user_id, pub_id, tag, fe, serial, source, availability, endpoint_id, since, updated, expires_at, activities, note,
        document)
    select h.user_id, h.id, h.tag, p_fe, h.serial, h.source, h.availability, h.endpoint,
           greatest(v_now - h.since * 1000, 0), greatest(v_now - h.updated * 1000, 0), v_now + h.expires * 1000,
           h.activities, h.note, h.document
    from unnest(p_p_user, p_p_id, p_p_tag, p_p_serial, p_p_endpoint, p_p_source, p_p_availability, p_p_activities,
                p_p_note, p_p_document, p_p_since, p_p_updated, p_p_left, v_publication)
        h(user_id, id, tag, serial, endpoint, source, availability, activities, note, document, since, updated, expires,
          how)
    where h.how = 0 order by h.user_id, h.id
    on conflict (user_id, pub_id) do update set
        tag = excluded.tag, fe = excluded.fe, serial = excluded.serial, source = excluded.source,
        availability = excluded.availability, endpoint_id = excluded.endpoint_id, since = excluded.since,
        updated = excluded.updated, expires_at = excluded.expires_at, activities = excluded.activities,
        note = excluded.note, document = excluded.document
    where p.updated <= excluded.updated
    returning p.user_id, p.pub_id)
    select array_agg(case when h.how = 0 and (h.user_id, h.id) not in (select w.user_id, w.pub_id from written w)
                          then 2 else h.how end::int2 order by h.n)
    into v_publication
    from unnest(p_p_user, p_p_id, v_publication) with ordinality h(user_id, id, how, n);
    insert into commpool.interest as i (user_id, fe, kinds)
    select distinct u.user_id, p_fe, 1 from unnest(p_i_user) u(user_id)
    where not exists (select from commpool.interest x
                      where x.user_id = any (p_i_user) and x.user_id = u.user_id and x.fe = p_fe and x.kinds & 1 = 1)
    order by u.user_id
    on conflict (user_id, fe) do update set kinds = i.kinds | excluded.kinds;
    with written as (insert into commpool.subscription as s (
        user_id, sub_id, fe, kind, endpoint_id, expires_at, cseq, remote_cseq, origin, presentities, call_id, local_tag,
        remote_tag, contact, route, event_id)
    select h.user_id, h.id, p_fe, h.kind, h.endpoint, v_now + h.expires * 3000000, h.cseq, h.remote_cseq, h.origin,
           h.presentities, h.call_id, h.local_tag, h.remote_tag, h.contact, h.route, h.event_id
    from unnest(p_s_user, p_s_id, p_s_origin, p_s_endpoint, p_s_kind, p_s_presentities, p_s_expires, p_s_cseq, p_s_call_id,
                p_s_local_tag, p_s_remote_tag, p_s_remote_cseq, p_s_contact, p_s_route, p_s_event_id, v_dialog)
        h(user_id, id, origin, endpoint, kind, presentities, expires, cseq, call_id, local_tag, remote_tag, remote_cseq,
          contact, route, event_id, how)
    where h.how = 0 order by h.user_id, h.id
    on conflict (user_id, sub_id) do update set
        fe = excluded.fe, kind = excluded.kind, endpoint_id = excluded.endpoint_id, expires_at = excluded.expires_at,
        cseq = excluded.cseq, remote_cseq = excluded.remote_cseq, origin = excluded.origin,
        presentities = excluded.presentities, call_id = excluded.call_id, local_tag = excluded.local_tag,
        remote_tag = excluded.remote_tag, contact = excluded.contact, route = excluded.route,
        event_id = excluded.event_id
    where s.fe = excluded.fe or (s.remote_cseq, s.cseq) <= (excluded.remote_cseq, excluded.cseq)
    returning s.user_id, s.sub_id)
    select array_agg(case when h.how = 0 and (h.user_id, h.id) not in (select w.user_id, w.sub_id from written w)
                          then 2 else h.how end::int2 order by h.n)
    into v_dialog
    from unnest(p_s_user, p_s_id, v_dialog) with ordinality h(user_id, id, how, n);

    if v_users is not null then
        select array_agg(a.user_id order by a.user_id) into v_changed
        from commpool_api_1.looks(v_users, v_now, v_live, v_dead, v_dead_at) a
        join unnest(v_look_user, v_told, v_seen) b(user_id, told, seen) using (user_id)
        where a.seen <> b.told or a.seen <> b.seen;
        if v_changed is not null then
            perform from commpool_api_1.bump(v_changed, v_now);
        end if;
    end if;
    return query
    select 0::int2, 0
    union all select 1::int2, e.n::int4 from unnest(v_endpoint) with ordinality e(how, n) where e.how = 2
    union all select 2::int2, p.n::int4 from unnest(v_publication) with ordinality p(how, n) where p.how = 2
    union all select 3::int2, s.n::int4 from unnest(v_dialog) with ordinality s(how, n) where s.how = 2;
end $$;
grant execute on function commpool_api_1.assert to commpool_server;
