//! The store of Standard Edition: SQLite in a folder of its own.
//!
//! One thread writes, in transactions of what has queued up; one or two others read. Any number of further processes
//! may use the same folder: the command line works beside a server.

mod accounts;
mod credentials;
mod directory;
mod endpoints;
mod front_ends;
mod lane;
mod lock;
mod migrate;
mod open;
mod presence;
mod read;
mod register;
mod route;
mod store;
mod subscribe;
mod tables;
mod values;
mod write;

pub use self::lock::{FolderLock, LockError, lock_folder};
pub use self::migrate::{Report, migrate};
pub use self::open::SqliteOptions;
pub use self::store::SqliteStore;

/// Name of the database file inside its folder.
pub const DATABASE_FILE: &str = "commpool.db";
