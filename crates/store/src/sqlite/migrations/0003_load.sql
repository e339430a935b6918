-- What a front end said of itself at its last renewal.
alter table front_end add column connections integer not null default 0;
alter table front_end add column links integer not null default 0;
