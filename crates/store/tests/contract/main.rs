//! What every backend of the store keeps to: one suite, run on each of them.

mod accounts;
mod addresses;
mod adopt;
mod assert;
mod batches;
mod bench;
mod credentials;
#[allow(dead_code, reason = "each program of tests uses its part")]
#[path = "../support/database.rs"]
mod database;
mod directory;
mod endpoints;
mod front_ends;
mod leases;
mod presence;
mod pull;
mod reap;
mod register;
mod subscribe;
mod takeover;
