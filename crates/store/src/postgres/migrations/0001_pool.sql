-- Tables of a pool. Users come first in every key of a user's row; only addresses are unique across users.
--
-- Times are microseconds since 1970 by the database's clock. Front ends and flows are 32-bit patterns, endpoint ids
-- 64-bit patterns; their order inside one user is that of the numbers. Text that is compared is compared by octets.
--
-- Indexes by front end go on with the user: a search by both must not depend on which one the planner takes.

create schema commpool_api_1;
grant usage on schema commpool_api_1 to commpool_server;

create table commpool.pool (
    one boolean primary key default true check (one),
    -- Rises when soft data was lost.
    epoch int8 not null,
    -- Oldest API number that may still be used.
    floor int4 not null
);
insert into commpool.pool values (true, 1, 1);

-- Empty after exactly the events that can lose soft commits.
create unlogged table commpool.boot (
    one boolean primary key default true check (one),
    id uuid not null,
    probed int8 not null default 0
);
insert into commpool.boot values (true, gen_random_uuid());

create sequence commpool.incarnation as int4;
create sequence commpool.user_number as int8 maxvalue 1099511627775;

create table commpool.front_end (
    fe int4 primary key,
    pod text collate "C" not null,
    start_id uuid not null,
    address text not null,
    build text not null,
    state int2 not null,
    lease_until int8 not null,
    dead_since int8,
    -- What it said of itself at its last renewal.
    connections int4 not null default 0,
    links int4 not null default 0
) with (
    fillfactor = 10,
    autovacuum_vacuum_threshold = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0
);

create table commpool.account (
    user_id int8 primary key,
    state int2 not null,
    display_name text not null,
    -- The name in lower case, by the rules of the server and not of the database's locale.
    search text collate "C" not null,
    -- Stamp of the last change: rises in the order of the commits.
    changed int8 not null
);
create unique index account_changed on commpool.account (changed);

create table commpool.address (
    address text collate "C" primary key,
    user_id int8 not null
);
create index address_user on commpool.address (user_id);

create table commpool.credential (
    user_id int8 not null,
    label text collate "C" not null,
    algorithm int2 not null,
    realm text not null,
    verifier text not null,
    primary key (user_id, label, algorithm)
);

create table commpool.ace (
    user_id int8 not null,
    mask text collate "C" not null,
    presence int2 not null,
    communication int2 not null,
    primary key (user_id, mask)
);

create table commpool.endpoint (
    user_id int8 not null,
    endpoint_id int8 not null,
    binding_key uuid not null,
    fe int4 not null,
    serial int4 not null,
    transport int2 not null,
    q int2 not null,
    lost_at int8,
    expires_at int8 not null,
    registered_at int8 not null,
    refreshed_at int8 not null,
    cseq int8 not null,
    reg_id int8,
    origin uuid not null,
    call_id text collate "C" not null,
    remote text not null,
    contact text not null,
    contact_value text not null,
    path text not null,
    instance text collate "C",
    agent text not null,
    primary key (user_id, endpoint_id)
) with (
    fillfactor = 80, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0
);
create index endpoint_fe on commpool.endpoint (fe, user_id);
create index endpoint_lost on commpool.endpoint (lost_at) where lost_at is not null;

create table commpool.publication (
    user_id int8 not null,
    pub_id uuid not null,
    tag uuid not null,
    fe int4 not null,
    serial int4 not null,
    source int2 not null,
    availability int2 not null,
    endpoint_id int8,
    since int8 not null,
    updated int8 not null,
    expires_at int8 not null,
    activities text collate "C" not null,
    note text collate "C",
    document bytea not null,
    primary key (user_id, pub_id)
) with (
    fillfactor = 80, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0
);

create table commpool.presence (
    user_id int8 primary key,
    version int8 not null,
    -- Tag and id of the last publication removed by its client: a replay of the removal is known by it.
    removed_tag uuid,
    removed_id uuid
) with (
    fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0
);
create index presence_version on commpool.presence (version);

create table commpool.interest (
    user_id int8 not null,
    fe int4 not null,
    kinds int2 not null,
    primary key (user_id, fe)
) with (
    autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0
);
create index interest_fe on commpool.interest (fe, user_id);

create table commpool.subscription (
    user_id int8 not null,
    sub_id uuid not null,
    fe int4 not null,
    kind int2 not null,
    endpoint_id int8,
    expires_at int8 not null,
    -- First NOTIFY CSeq of the owner, or the last one he told.
    cseq int8 not null,
    remote_cseq int8 not null,
    origin uuid not null,
    presentities text collate "C" not null,
    call_id text not null,
    local_tag text not null,
    remote_tag text not null,
    contact text not null,
    route text not null,
    event_id text not null,
    primary key (user_id, sub_id)
) with (
    fillfactor = 80, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0
);
create index subscription_fe on commpool.subscription (fe, user_id);

-- A row of most answers: a head of request `idx`, or one thing that belongs to a user.
create type commpool_api_1.fact as (
    idx int4,
    kind int2,
    status int2,
    flag boolean,
    version int8,
    number int8,
    user_id int8,
    id int8,
    key uuid,
    fe int4,
    serial int4,
    transport int2,
    q int2,
    lost_at int8,
    expires_at int8,
    at int8,
    since int8,
    reg_id int8,
    remote text,
    contact text,
    contact_value text,
    path text,
    instance text,
    agent text,
    call_id text,
    source int2,
    availability int2,
    activities text,
    note text,
    document bytea
);

-- What one Contact of a REGISTER, or a row of its user, comes to.
create type commpool_api_1.contact_plan as (
    req int4,
    pos int4,
    -- 1 written, 2 removed by its Contact, 3 nothing there to remove, 4 removed along.
    act int2,
    user_id int8,
    endpoint_id int8,
    -- The row there before, unless expired.
    living boolean,
    registered_at int8,
    was_visible boolean,
    other_flow boolean,
    same_call boolean,
    stale boolean,
    replay boolean,
    fe int4,
    serial int4,
    transport int2,
    remote text
);
