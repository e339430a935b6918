//! The schema, version by version.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::open::{self, SqliteOptions, Use};
use crate::error::StoreError;

/// Name and text of each migration; the first brings the schema to version 1.
const MIGRATIONS: &[(&str, &str)] = &[
    ("0001_pool", include_str!("migrations/0001_pool.sql")),
    ("0002_refreshed", include_str!("migrations/0002_refreshed.sql")),
    ("0003_load", include_str!("migrations/0003_load.sql")),
    ("0004_directory", include_str!("migrations/0004_directory.sql")),
    ("0005_expiry", include_str!("migrations/0005_expiry.sql")),
];

/// How long another migration may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a migration did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Version before, 0 for a new store.
    pub before: u32,
    /// Version now.
    pub after: u32,
    /// Migrations carried out.
    pub applied: Vec<&'static str>,
}

/// Brings the store in this folder to this build's schema, creating it where there is none. A repeat does nothing; runs
/// beside each other wait for one another; one that is killed leaves whole versions only.
///
/// # Errors
/// The folder or file cannot be written, or its schema is newer than this build's.
pub fn migrate(folder: &Path) -> Result<Report, StoreError> {
    open::create(folder)?;
    let mut connection =
        open::connect(folder, Use::Write, &SqliteOptions { busy_timeout: PATIENCE, ..SqliteOptions::default() })?;
    let file = folder.join(super::DATABASE_FILE);
    let cause = |error| open::unavailable(&file, &error);
    connection.pragma_update(None, "synchronous", "full").map_err(cause)?;
    let before = version(&connection).map_err(cause)?;
    if before > crate::SCHEMA {
        return Err(StoreError::Schema { need: crate::SCHEMA, found: before });
    }
    let mut applied = Vec::new();
    for (number, (name, sql)) in (1..).zip(MIGRATIONS) {
        if apply(&mut connection, number, name, sql).map_err(cause)? {
            applied.push(*name);
        }
    }
    Ok(Report { before, after: crate::SCHEMA, applied })
}

/// Carries out one migration unless it has been; asks inside the transaction, since another process may be faster.
fn apply(connection: &mut Connection, number: u32, name: &str, sql: &str) -> rusqlite::Result<bool> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if version(&transaction)? >= number {
        return Ok(false);
    }
    transaction.execute_batch(
        "create table if not exists migration (version integer primary key, name text not null) strict",
    )?;
    transaction.execute_batch(sql)?;
    transaction.execute("insert into migration values (?1, ?2)", (number, name))?;
    transaction.commit()?;
    Ok(true)
}

/// Version of the schema, 0 for none.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    let table = "select 1 from sqlite_schema where type = 'table' and name = 'migration'";
    match connection.query_row(table, [], |_| Ok(())).optional()? {
        None => Ok(0),
        Some(()) => connection.query_row("select coalesce(max(version), 0) from migration", [], |row| row.get(0)),
    }
}
