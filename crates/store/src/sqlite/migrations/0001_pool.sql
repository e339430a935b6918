-- Users come first in every key of a user's row; only addresses are unique across users.
-- Times are microseconds since 1970 by the store's clock. Endpoint ids are 64-bit patterns; their order inside one user
-- is that of the numbers.

create table pool (
    one integer primary key check (one = 1),
    epoch integer not null,
    last_user integer not null,
    last_incarnation integer not null,
    probes integer not null
) strict;
insert into pool values (1, 1, 0, 0, 0);

create table front_end (
    fe integer primary key,
    pod text not null,
    start_id blob not null,
    address text not null,
    build text not null,
    state integer not null,
    lease_until integer not null,
    dead_since integer
) strict, without rowid;

create table account (
    user_id integer primary key,
    state integer not null,
    display_name text not null,
    changed integer not null
) strict, without rowid;
create unique index account_changed on account (changed);

create table address (
    address text primary key,
    user_id integer not null
) strict, without rowid;
create index address_user on address (user_id);

create table credential (
    user_id integer not null,
    label text not null,
    algorithm integer not null,
    realm text not null,
    verifier text not null,
    primary key (user_id, label, algorithm)
) strict, without rowid;

create table ace (
    user_id integer not null,
    mask text not null,
    presence integer not null,
    communication integer not null,
    primary key (user_id, mask)
) strict, without rowid;

create table endpoint (
    user_id integer not null,
    endpoint_id integer not null,
    binding_key blob not null,
    fe integer not null,
    serial integer not null,
    transport integer not null,
    remote text not null,
    lost_at integer,
    expires_at integer not null,
    registered_at integer not null,
    origin blob not null,
    call_id text not null,
    cseq integer not null,
    q integer not null,
    contact text not null,
    contact_value text not null,
    path text not null,
    instance text,
    reg_id integer,
    agent text not null,
    primary key (user_id, endpoint_id)
) strict, without rowid;
create index endpoint_fe on endpoint (fe);
create index endpoint_lost on endpoint (lost_at) where lost_at is not null;

create table publication (
    user_id integer not null,
    pub_id blob not null,
    tag blob not null,
    fe integer not null,
    serial integer not null,
    endpoint_id integer,
    source integer not null,
    availability integer not null,
    activities text not null,
    note text,
    since integer not null,
    updated integer not null,
    expires_at integer not null,
    document blob not null,
    primary key (user_id, pub_id)
) strict, without rowid;

create table presence (
    user_id integer primary key,
    version integer not null,
    removed_tag blob,
    removed_id blob
) strict, without rowid;

create table interest (
    user_id integer not null,
    fe integer not null,
    kinds integer not null,
    primary key (user_id, fe)
) strict, without rowid;
create index interest_fe on interest (fe);

create table subscription (
    user_id integer not null,
    sub_id blob not null,
    fe integer not null,
    origin blob not null,
    endpoint_id integer,
    kind integer not null,
    presentities text not null,
    expires_at integer not null,
    cseq integer not null,
    call_id text not null,
    local_tag text not null,
    remote_tag text not null,
    remote_cseq integer not null,
    contact text not null,
    route text not null,
    event_id text not null,
    primary key (user_id, sub_id)
) strict, without rowid;
create index subscription_fe on subscription (fe);
