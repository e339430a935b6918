//! Opening the database file.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{DATABASE_FILE, migrate};
use crate::error::StoreError;

/// Settings of an embedded store.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// Threads that read, each with a connection of its own; 1–4.
    pub readers: usize,
    /// How long a write waits for another process, at most.
    pub busy_timeout: Duration,
    /// Whether the whole file is checked when it is opened.
    pub check: bool,
    /// Whether an older schema is brought up to date. A store that is not there is made in any case.
    pub upgrade: bool,
    /// Most memory for pages of the file that each connection keeps, KiB; a reading one keeps a quarter of it.
    pub cache_kib: u32,
}

impl SqliteOptions {
    /// For the command line, which works beside a server: what is there stays as it is.
    pub fn beside() -> Self {
        Self { readers: 1, check: false, upgrade: false, cache_kib: 8_192, ..Self::default() }
    }
}

impl Default for SqliteOptions {
    fn default() -> Self {
        let busy_timeout = Duration::from_millis(1500);
        Self { readers: 2, busy_timeout, check: true, upgrade: true, cache_kib: 65_536 }
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Write,
    Read,
}

/// Pages after which the log is written back into the file.
const CHECKPOINT: u32 = 4000;
const STATEMENTS: usize = 128;

/// Makes the folder where it is absent, for its owner only.
pub(super) fn create_folder(folder: &Path) -> Result<(), StoreError> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    created.map_err(|error| not_created(folder, &error))
}

/// Makes the folder and the file in it where they are absent, for their owner only.
pub(super) fn create(folder: &Path) -> Result<(), StoreError> {
    create_folder(folder)?;
    let file = folder.join(DATABASE_FILE);
    let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(&file);
    opened.map(drop).map_err(|error| not_created(&file, &error))
}

fn not_created(path: &Path, error: &io::Error) -> StoreError {
    let mend = "check owner, mode and free space";
    StoreError::Unavailable(format!("cannot create {}: {error}; {mend}", path.display()))
}

/// A connection to the file of this folder, which must be there.
pub(super) fn connect(folder: &Path, what_for: Use, options: &SqliteOptions) -> Result<Connection, StoreError> {
    let file = folder.join(DATABASE_FILE);
    let cause = |error| unavailable(&file, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&file, flags).map_err(cause)?;
    prepare(&connection, what_for, options).map_err(cause)?;
    Ok(connection)
}

fn prepare(connection: &Connection, what_for: Use, options: &SqliteOptions) -> rusqlite::Result<()> {
    connection.busy_timeout(options.busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    match what_for {
        Use::Write => {
            connection.pragma_update(None, "cache_size", -i64::from(options.cache_kib))?;
            connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT)
        }
        Use::Read => {
            connection.pragma_update(None, "cache_size", -i64::from(options.cache_kib / 4))?;
            connection.pragma_update(None, "query_only", true)
        }
    }
}

/// Refuses a file that is damaged or of another schema.
pub(super) fn verify(connection: &Connection, folder: &Path, whole: bool) -> Result<(), StoreError> {
    let file = folder.join(DATABASE_FILE);
    let cause = |error| unavailable(&file, &error);
    let found = migrate::version(connection).map_err(cause)?;
    if found != crate::SCHEMA {
        return Err(StoreError::Schema { need: crate::SCHEMA, found });
    }
    if !whole {
        return Ok(());
    }
    let verdict: String = connection.query_row("pragma quick_check(1)", [], |row| row.get(0)).map_err(cause)?;
    if verdict == "ok" {
        return Ok(());
    }
    let text = format!("{}: {verdict}; the file is damaged: restore it from a backup", file.display());
    Err(StoreError::Unavailable(text))
}

/// What a failure of SQLite means to an operator.
pub(super) fn explain(error: &rusqlite::Error) -> String {
    let mend = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => "the file is damaged: restore it from a backup",
        Some(ErrorCode::DiskFull) => "free some space",
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => "check owner and mode",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "another process has been writing for too long",
        _ => return error.to_string(),
    };
    format!("{error}; {mend}")
}

pub(super) fn unavailable(file: &Path, error: &rusqlite::Error) -> StoreError {
    StoreError::Unavailable(format!("{}: {}", file.display(), explain(error)))
}
