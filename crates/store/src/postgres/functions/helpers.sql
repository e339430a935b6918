-- What the operations share. Nobody but their owner may call these.
--
-- Where a table is joined with a list of users, it is also limited to them by `= any`: whatever the planner believes of
-- the size of a table that was small a moment ago, it reads no more than their rows.
--
-- Kinds of rows in answers: 0 the clock, 1 head, 2 endpoint (number: lost at), 3 publication, 4 interested front end,
-- 5 access control entry, 6 what became of a Contact, 7 somebody watched, 8 endpoint removed, 9 address, 10 dialog.

create or replace function commpool_api_1.clock() returns int8
language sql volatile
return (extract(epoch from clock_timestamp()) * 1000000)::int8;

-- The moment from which an endpoint counts as lost: marked, or by the death of its front end; null: it does not.
create or replace function commpool_api_1.lost_since(lost_at int8, fe int4, live int4[], dead int4[], dead_at int8[])
returns int8
language sql immutable
return least(lost_at, case when fe = any (live) then null else coalesce(dead_at[array_position(dead, fe)], 0) end);

-- Whether the grace after a loss is over: 15 s, 35 s for a client that uses outbound (RFC 5626). A client over UDP (1)
-- does not learn that its front end is gone: it is expected back until its binding expires.
create or replace function commpool_api_1.faded(
    lost int8, expires_at int8, reg_id int8, transport int2, now int8
) returns boolean
language sql immutable
return lost is not null and case when transport = 1 then expires_at <= now
                                 else lost + case when reg_id is null then 15000000 else 35000000 end <= now end;

-- Whether anybody may still see an endpoint.
create or replace function commpool_api_1.visible(
    lost int8, expires_at int8, reg_id int8, transport int2, now int8
) returns boolean
language sql immutable
return expires_at > now
    and (lost is null or transport = 1 or lost + case when reg_id is null then 15000000 else 35000000 end > now);

-- Which incarnations are alive, and since when the others are not.
create or replace function commpool_api_1.lives(out live int4[], out dead int4[], out dead_at int8[])
language sql stable
begin atomic
    select coalesce(array_agg(f.fe) filter (where f.dead_since is null), '{}'),
           coalesce(array_agg(f.fe order by f.fe) filter (where f.dead_since is not null), '{}'),
           coalesce(array_agg(f.dead_since order by f.fe) filter (where f.dead_since is not null), '{}')
    from commpool.front_end f;
end;

-- The fence: whoever holds it knows that these front ends are not declared dead meanwhile. Their state must be read in a
-- later statement. What follows need not be on disk before it is acknowledged.
create or replace function commpool_api_1.enter(p_fe int4[]) returns void
language plpgsql
as $$
begin
    perform set_config('synchronous_commit', 'off', true);
    perform pg_advisory_xact_lock_shared(1129335884, s.fe)
    from (select distinct u.fe from unnest(p_fe) u(fe) order by u.fe) s;
end $$;

-- One writer per user at a time.
create or replace function commpool_api_1.lock_users(p_user int8[]) returns void
language plpgsql
as $$
begin
    perform pg_advisory_xact_lock(s.user_id)
    from (select distinct u.user_id from unnest(p_user) u(user_id) order by u.user_id) s;
end $$;

-- The columns of a fact that describe a thing, all empty.
create or replace view commpool_api_1.nothing as
select null::int8 as user_id, null::int8 as id, null::uuid as key, null::int4 as fe, null::int4 as serial,
       null::int2 as transport, null::int2 as q, null::int8 as lost_at, null::int8 as expires_at, null::int8 as at,
       null::int8 as since, null::int8 as reg_id, null::text as remote, null::text as contact,
       null::text as contact_value, null::text as path, null::text as instance, null::text as agent,
       null::text as call_id, null::int2 as source, null::int2 as availability, null::text as activities,
       null::text as note, null::bytea as document;

-- Endpoints as those columns.
create or replace view commpool_api_1.endpoint_fact as
select e.user_id, e.endpoint_id as id, e.binding_key as key, e.fe, e.serial, e.transport, e.q, e.lost_at, e.expires_at,
       e.registered_at as at, e.refreshed_at as since, e.reg_id, e.remote, e.contact, e.contact_value, e.path,
       e.instance, e.agent, e.call_id, null::int2 as source, null::int2 as availability, null::text as activities,
       null::text as note, null::bytea as document
from commpool.endpoint e;

-- Publications as those columns: `id` is the endpoint.
create or replace view commpool_api_1.publication_fact as
select p.user_id, p.endpoint_id as id, p.pub_id as key, p.fe, p.serial, null::int2 as transport, null::int2 as q,
       null::int8 as lost_at, p.expires_at, p.updated as at, p.since, null::int8 as reg_id, null::text as remote,
       null::text as contact, null::text as contact_value, null::text as path, null::text as instance,
       null::text as agent, null::text as call_id, p.source, p.availability, p.activities, p.note, p.document
from commpool.publication p;

-- Access control entries as those columns: `contact` is the mask, `source` and `availability` are the rights to presence
-- and to communication.
create or replace view commpool_api_1.ace_fact as
select a.user_id, null::int8 as id, null::uuid as key, null::int4 as fe, null::int4 as serial, null::int2 as transport,
       null::int2 as q, null::int8 as lost_at, null::int8 as expires_at, null::int8 as at, null::int8 as since,
       null::int8 as reg_id, null::text as remote, a.mask::text as contact, null::text as contact_value,
       null::text as path, null::text as instance, null::text as agent, null::text as call_id, a.presence as source,
       a.communication as availability, null::text as activities, null::text as note, null::bytea as document
from commpool.ace a;

-- The moment that all else in an answer refers to.
create or replace function commpool_api_1.told_at(p_now int8) returns setof commpool_api_1.fact
language sql stable
begin atomic
    select 0, 0::int2, null::int2, null::boolean, p_now, null::int8, n.* from commpool_api_1.nothing n;
end;

-- Endpoints of different users that anybody may still see.
create or replace function commpool_api_1.endpoints_seen(
    p_user int8[], p_now int8, p_live int4[], p_dead int4[], p_dead_at int8[]
) returns setof commpool_api_1.fact
language sql stable
begin atomic
    select 0, 2::int2, null::int2, null::boolean, null::int8,
           commpool_api_1.lost_since(f.lost_at, f.fe, p_live, p_dead, p_dead_at), f.*
    from unnest(p_user) u(user_id) join commpool_api_1.endpoint_fact f using (user_id)
    where f.user_id = any (p_user) and commpool_api_1.visible(
        commpool_api_1.lost_since(f.lost_at, f.fe, p_live, p_dead, p_dead_at), f.expires_at, f.reg_id, f.transport, p_now);
end;

-- The same endpoints as presence needs them: ids and since when.
create or replace function commpool_api_1.devices_seen(
    p_user int8[], p_now int8, p_live int4[], p_dead int4[], p_dead_at int8[]
) returns setof commpool_api_1.fact
language sql stable
begin atomic
    select 0, 2::int2, null::int2, null::boolean, null::int8, null::int8, e.user_id, e.endpoint_id, n.key, n.fe,
           n.serial, n.transport, n.q, n.lost_at, n.expires_at, e.registered_at, n.since, n.reg_id, n.remote, n.contact,
           n.contact_value, n.path, n.instance, n.agent, n.call_id, n.source, n.availability, n.activities, n.note,
           n.document
    from unnest(p_user) u(user_id) join commpool.endpoint e using (user_id)
    cross join commpool_api_1.nothing n
    where e.user_id = any (p_user) and commpool_api_1.visible(
        commpool_api_1.lost_since(e.lost_at, e.fe, p_live, p_dead, p_dead_at), e.expires_at, e.reg_id, e.transport, p_now);
end;

-- Publications of different users whose time is not over.
create or replace function commpool_api_1.publications_seen(p_user int8[], p_now int8)
returns setof commpool_api_1.fact
language sql stable
begin atomic
    select 0, 3::int2, null::int2, null::boolean, null::int8, null::int8, f.*
    from unnest(p_user) u(user_id) join commpool_api_1.publication_fact f using (user_id)
    where f.user_id = any (p_user) and f.expires_at > p_now;
end;

-- Front ends with a watcher of users.
create or replace function commpool_api_1.interested(p_user int8[]) returns setof commpool_api_1.fact
language sql stable
begin atomic
    select 0, 4::int2, null::int2, null::boolean, null::int8, null::int8, i.user_id, n.id, n.key, i.fe, n.serial,
           n.transport, n.q, n.lost_at, n.expires_at, n.at, n.since, n.reg_id, n.remote, n.contact, n.contact_value,
           n.path, n.instance, n.agent, n.call_id, n.source, n.availability, n.activities, n.note, n.document
    from unnest(p_user) u(user_id) join commpool.interest i using (user_id)
    cross join commpool_api_1.nothing n
    where i.user_id = any (p_user);
end;

-- What users look like, in short: equal texts mean that watchers need not be told. `told` counts every row there is,
-- `seen` only those whose time is not over. The text lists the publications that count, the winner first, and says
-- whether a device without a publication makes the user signed in.
create or replace function commpool_api_1.looks(
    p_user int8[], p_now int8, p_live int4[], p_dead int4[], p_dead_at int8[]
) returns table (user_id int8, told text, seen text)
language sql stable
begin atomic
    with device as (
        select e.user_id, e.endpoint_id, commpool_api_1.visible(
            commpool_api_1.lost_since(e.lost_at, e.fe, p_live, p_dead, p_dead_at), e.expires_at, e.reg_id, e.transport, p_now) as seen
        from commpool.endpoint e where e.user_id = any (p_user)
    ), published as (
        select p.user_id, p.endpoint_id, p.pub_id, p.source, p.availability, p.since, p.updated, p.activities, p.note,
               p.endpoint_id is null or d.user_id is not null as told,
               p.expires_at > p_now and (p.endpoint_id is null or coalesce(d.seen, false)) as seen
        from commpool.publication p left join device d on d.user_id = p.user_id and d.endpoint_id = p.endpoint_id
        where p.user_id = any (p_user)
    ), counted as (
        -- Of each endpoint the newest only.
        select distinct on (m.live, p.user_id, p.endpoint_id, case when p.endpoint_id is null then p.pub_id end)
               m.live, p.*, p.source = 1 and p.availability = 1 as closed,
               case when p.source = 2 then 100 else p.availability end as rank
        from (values (false), (true)) m(live) join published p on case when m.live then p.seen else p.told end
        order by m.live, p.user_id, p.endpoint_id, case when p.endpoint_id is null then p.pub_id end,
                 p.since desc, p.updated desc, p.pub_id desc
    ), listed as (
        select c.live, c.user_id, count(c.endpoint_id) as owned,
               (array_agg(c.closed order by c.rank desc, c.since desc, c.updated desc, c.pub_id desc))[1] as closed,
               string_agg(concat_ws('|', coalesce(c.endpoint_id::text, c.pub_id::text), c.source, c.availability, c.since,
                                    length(c.activities), c.activities, 'note ' || c.note),
                          E'\n' order by c.rank desc, c.since desc, c.updated desc, c.pub_id desc) as list
        from counted c group by c.live, c.user_id
    ), devices as (
        select d.user_id, count(*) as told, count(*) filter (where d.seen) as seen from device d group by d.user_id
    )
    select u.user_id,
           case when coalesce(d.told, 0) > coalesce(t.owned, 0) and coalesce(t.closed, true) then '+' else '' end
               || coalesce(t.list, ''),
           case when coalesce(d.seen, 0) > coalesce(s.owned, 0) and coalesce(s.closed, true) then '+' else '' end
               || coalesce(s.list, '')
    from (select distinct x.user_id from unnest(p_user) x(user_id)) u
    left join devices d using (user_id)
    left join listed t on t.user_id = u.user_id and not t.live
    left join listed s on s.user_id = u.user_id and s.live;
end;

-- Raises the versions of users: to the clock, and always.
create or replace function commpool_api_1.bump(p_user int8[], p_now int8) returns table (user_id int8, version int8)
language plpgsql
as $$
#variable_conflict use_column
begin
    return query
    insert into commpool.presence as h (user_id, version)
    select u.user_id, p_now from unnest(p_user) u(user_id) order by u.user_id
    on conflict (user_id) do update set version = greatest(h.version + 1, p_now)
    returning h.user_id, h.version;
end $$;

-- Removes endpoints with their publications, and publications by themselves. Answers what went (8), heads of users who
-- look different by it, and what is left of those.
create or replace function commpool_api_1.remove(
    p_user int8[], p_id int8[], p_pub_user int8[], p_pub_id uuid[],
    p_now int8, p_live int4[], p_dead int4[], p_dead_at int8[]
) returns setof commpool_api_1.fact
language plpgsql
as $$
#variable_conflict use_column
declare
    v_users int8[];
    v_before_user int8[];
    v_told text[];
    v_seen text[];
    v_changed int8[];
begin
    select array_agg(distinct u.user_id) into v_users
    from (select unnest(p_user) union all select unnest(p_pub_user)) u(user_id);
    if v_users is null then
        return;
    end if;
    select array_agg(l.user_id), array_agg(l.told), array_agg(l.seen) into v_before_user, v_told, v_seen
    from commpool_api_1.looks(v_users, p_now, p_live, p_dead, p_dead_at) l;
    return query
    with locked as materialized (
        select e.user_id, e.endpoint_id from commpool.endpoint e
        join unnest(p_user, p_id) u(user_id, id) on u.user_id = e.user_id and u.id = e.endpoint_id
        where e.user_id = any (p_user) order by e.user_id, e.endpoint_id for update of e
    ), gone as (
        delete from commpool.endpoint e using locked l
        where e.user_id = l.user_id and e.endpoint_id = l.endpoint_id and e.user_id = any (p_user)
        returning e.user_id, e.endpoint_id, e.fe, e.serial, e.transport, e.remote
    )
    select 0, 8::int2, null::int2, null::boolean, null::int8, null::int8, g.user_id, g.endpoint_id, null::uuid, g.fe,
           g.serial, g.transport, null::int2, null::int8, null::int8, null::int8, null::int8, null::int8, g.remote,
           null::text, null::text, null::text, null::text, null::text, null::text, null::int2, null::int2, null::text,
           null::text, null::bytea
    from gone g;
    with locked as materialized (
        select p.user_id, p.pub_id from commpool.publication p
        where p.user_id = any (v_users)
          and (exists (select from unnest(p_user, p_id) u(user_id, id)
                       where u.user_id = p.user_id and u.id = p.endpoint_id)
               or exists (select from unnest(p_pub_user, p_pub_id) u(user_id, id)
                          where u.user_id = p.user_id and u.id = p.pub_id))
        order by p.user_id, p.pub_id for update
    )
    delete from commpool.publication p using locked l
    where p.user_id = l.user_id and p.pub_id = l.pub_id and p.user_id = any (v_users);
    select array_agg(a.user_id order by a.user_id) into v_changed
    from commpool_api_1.looks(v_users, p_now, p_live, p_dead, p_dead_at) a
    join unnest(v_before_user, v_told, v_seen) b(user_id, told, seen) using (user_id)
    where a.seen <> b.told or a.seen <> b.seen;
    if v_changed is null then
        return;
    end if;
    return query
    select 0, 1::int2, null::int2, null::boolean, b.version, b.user_id, n.*
    from commpool_api_1.bump(v_changed, p_now) b cross join commpool_api_1.nothing n;
    return query select * from commpool_api_1.devices_seen(v_changed, p_now, p_live, p_dead, p_dead_at);
    return query select * from commpool_api_1.publications_seen(v_changed, p_now);
    return query select * from commpool_api_1.interested(v_changed);
end $$;
