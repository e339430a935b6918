//! What only PostgreSQL has: schema and functions, rights, faults of the server and the way to it, many front ends at once.

mod assert;
#[allow(dead_code, reason = "each program of tests uses its part")]
#[path = "../support/database.rs"]
mod database;
mod directory;
mod durability;
mod faults;
mod fence;
mod hung;
mod load;
mod migrate;
mod pool;
mod rights;
mod slow;
mod tls;
