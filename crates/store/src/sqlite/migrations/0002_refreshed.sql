-- When the last REGISTER of a binding was carried out; of those there before nothing is known.

alter table endpoint add column refreshed_at integer not null default 0;
