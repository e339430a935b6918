//! A whole pool: a real PostgreSQL, several front ends as processes, clients that know where they land.
//!
//! Faults carry the numbers of the list that the design promises to survive: F1 a front end is killed, F2 one stands
//! still, F4 all are replaced, F6 the database is killed, F9 one is cut off from the database, F10 two are cut off from
//! each other, F29 a request inside a dialog comes to another front end.

mod database;
mod faults;
mod linphone;
mod one_command;
mod rollout;
mod statements;
mod talk;
