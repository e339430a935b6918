//! The Back-End Database: domain operations over Memory, SQLite and PostgreSQL.
//!
//! [`ops`] says what can be asked; [`Store`] carries batches of it to a backend. What an operation does is written
//! once, in `engine`, over the tables that Memory and SQLite offer. PostgreSQL, shared by many, says the same in functions
//! of its own, and one contract suite holds all three to it.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod bounds;
mod clock;
mod codes;
mod engine;
mod error;
mod job;
mod memory;
pub mod ops;
pub mod postgres;
mod rows;
mod sqlite;
mod stats;
mod store;

pub use clock::{Clock, system_clock};
pub use error::StoreError;
pub use memory::{Memory, MemoryStore, SoftRows};
pub use sqlite::{DATABASE_FILE, FolderLock, LockError, Report, SqliteOptions, SqliteStore, lock_folder, migrate};
pub use stats::{OperationStats, Stats};
pub use store::{Reply, Store};

/// Version of the schema that this build reads and writes in Memory and SQLite.
pub const SCHEMA: u32 = 5;
