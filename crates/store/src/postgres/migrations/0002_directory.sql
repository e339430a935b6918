-- Users from a directory.

grant usage on schema commpool_api_1 to commpool_replicator;

-- Highest stamp of an account when the last one was removed: no stamp is given twice.
alter table commpool.pool add column last_change int8 not null default 0;

alter table commpool.account
    -- When it may be removed: its directory no longer has it.
    add column purge_at int8,
    add column phone text not null default '',
    add column title text not null default '',
    add column company text not null default '',
    add column office text not null default '';

create table commpool.lease (
    name text collate "C" primary key,
    holder text not null,
    -- Rises with every take.
    token int8 not null,
    until int8 not null
);

create table commpool.source (
    source text collate "C" primary key,
    version int8 not null,
    state bytea not null
);

create table commpool.identity (
    source text collate "C" not null,
    source_key uuid not null,
    user_id int8 not null,
    fingerprint uuid not null,
    primary key (source, source_key)
);
create unique index identity_user on commpool.identity (user_id);

-- What a run has put aside: worth nothing after a crash, which the run notices. kind: 1 put, 2 lapse, 3 remove.
create unlogged table commpool.incoming (
    source text collate "C" not null,
    number int4 not null,
    token int8 not null,
    kind int2 not null,
    source_key uuid not null,
    address text collate "C",
    state int2,
    display_name text,
    search text collate "C",
    phone text,
    title text,
    company text,
    office text,
    fingerprint uuid,
    purge_at int8,
    primary key (source, number)
) with (
    autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0
);
create index incoming_key on commpool.incoming (source, source_key);
