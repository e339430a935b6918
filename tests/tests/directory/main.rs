//! Users from real directories: Samba as an Active Directory and OpenLDAP, into PostgreSQL and SQLite, by the real
//! `commpool-replicator`, beside real servers.

mod faults;
mod groups;
mod life;
mod many;
mod refusals;
mod sign_in;
mod standard;
mod values;

use commpool_harness::{directory, postgres};

/// Whether a test can be run; says so if not.
fn ready(test: &str) -> bool {
    directory::can_run(test) && postgres::can_run(test)
}
