-- Users from a directory.

-- Highest stamp of an account when the last one was removed: no stamp is given twice.
alter table pool add column last_change integer not null default 0;

alter table account add column purge_at integer;
alter table account add column phone text not null default '';
alter table account add column title text not null default '';
alter table account add column company text not null default '';
alter table account add column office text not null default '';

create table lease (
    name text primary key,
    holder text not null,
    token integer not null,
    until integer not null
) strict, without rowid;

create table source (
    source text primary key,
    version integer not null,
    state blob not null
) strict, without rowid;

create table identity (
    source text not null,
    source_key blob not null,
    user_id integer not null,
    fingerprint blob not null,
    primary key (source, source_key)
) strict, without rowid;
create unique index identity_user on identity (user_id);

-- What a run has put aside. kind: 1 put, 2 lapse, 3 remove.
create table incoming (
    source text not null,
    number integer not null,
    token integer not null,
    kind integer not null,
    source_key blob not null,
    address text,
    state integer,
    display_name text,
    phone text,
    title text,
    company text,
    office text,
    fingerprint blob,
    purge_at integer,
    primary key (source, number)
) strict, without rowid;
