//! One face of all backends.

use std::path::Path;

use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::error::StoreError;
use crate::memory::{Memory, MemoryStore};
use crate::ops::{Ask, Operation, Outcome};
use crate::postgres::{PostgresOptions, PostgresStore};
use crate::sqlite::{SqliteOptions, SqliteStore};
use crate::stats::Stats;

/// Gets the answer to one operation, on a thread of the store: must be quick and must not wait for the store.
pub type Reply = Box<dyn FnOnce(Result<Outcome, StoreError>) + Send>;

/// The Back-End Database. Clones share the same data; the last one to go stops the store's threads.
#[derive(Clone)]
pub enum Store {
    /// In memory only.
    Memory(MemoryStore),
    /// SQLite in a folder (Standard Edition).
    Sqlite(SqliteStore),
    /// PostgreSQL (Enterprise Edition).
    Postgres(PostgresStore),
}

impl Store {
    /// An empty pool in memory, with the time of this clock.
    pub fn memory(clock: Clock) -> Self {
        Self::Memory(MemoryStore::new(Memory::new(), clock))
    }

    /// The embedded store in this folder, with the time of this clock; created where there is none.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub fn open_sqlite(folder: &Path, options: &SqliteOptions, clock: Clock) -> Result<Self, StoreError> {
        SqliteStore::open(folder, options, clock).map(Self::Sqlite)
    }

    /// The database that all front ends of a pool share. It need not be there: requests are answered with what is wrong,
    /// and the attempts to connect go on.
    ///
    /// # Errors
    /// As [`PostgresStore::open`].
    pub fn open_postgres(options: PostgresOptions) -> Result<Self, StoreError> {
        PostgresStore::open(options).map(Self::Postgres)
    }

    /// Version of the schema that this build needs.
    pub fn schema(&self) -> u32 {
        match self {
            Self::Memory(_) | Self::Sqlite(_) => crate::SCHEMA,
            Self::Postgres(_) => crate::postgres::schema(),
        }
    }

    /// Hands over one operation.
    pub fn submit(&self, operation: Operation, reply: Reply) {
        self.submit_many(vec![(operation, reply)]);
    }

    /// Hands over several operations with one wake-up. They are carried out in their order as far as they share a lane:
    /// reads among reads, writes among writes. What finds its queue full is answered [`StoreError::Busy`] at once.
    pub fn submit_many(&self, batch: Vec<(Operation, Reply)>) {
        match self {
            Self::Memory(store) => store.submit_many(batch),
            Self::Sqlite(store) => store.submit_many(batch),
            Self::Postgres(store) => store.submit_many(batch),
        }
    }

    /// Carries out one operation.
    ///
    /// # Errors
    /// Any [`StoreError`]; a refusal by the rules of the pool is an outcome, not an error.
    pub async fn call(&self, operation: Operation) -> Result<Outcome, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.submit(operation, Box::new(move |outcome| drop(answer.send(outcome))));
        answered.await.unwrap_or_else(|_| Err(StoreError::Unavailable("it was closed".to_owned())))
    }

    /// Carries out one operation whose reply has a known type.
    ///
    /// # Errors
    /// As [`Store::call`].
    pub async fn ask<R: Ask>(&self, request: R) -> Result<R::Reply, StoreError> {
        let outcome = self.call(request.into()).await?;
        R::reply(outcome).ok_or_else(|| StoreError::Unknown("the answer is another operation's".to_owned()))
    }

    /// The counters at this moment.
    pub fn stats(&self) -> Stats {
        match self {
            Self::Memory(store) => store.meter().snapshot(),
            Self::Sqlite(store) => store.meter().snapshot(),
            Self::Postgres(store) => store.meter().snapshot(),
        }
    }

    /// Carries out what is queued, then stops; blocks until that is done. Later requests are refused where there was
    /// anything to stop.
    pub fn close(&self) {
        match self {
            Self::Memory(_) => {}
            Self::Sqlite(store) => store.close(),
            Self::Postgres(store) => store.close(),
        }
    }
}
