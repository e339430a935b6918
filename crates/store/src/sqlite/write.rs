//! The thread that writes: one transaction per batch, as durable as its most demanding request.

use std::sync::atomic::Ordering;

use rusqlite::{Connection, ErrorCode};

use super::lane::{Attendance, Lane};
use super::open::explain;
use super::tables::Transaction;
use crate::clock::Clock;
use crate::engine;
use crate::error::StoreError;
use crate::ops::{Class, Health, Operation, Outcome};
use crate::stats::{Meter, add};

pub(super) struct Writer {
    connection: Connection,
    clock: Clock,
    /// Whether commits are on disk before they return at present.
    synced: bool,
    /// Whether the last transaction failed for a reason that is not a request's own.
    failed: bool,
}

/// Where a transaction broke off.
enum Failure {
    /// Before or in it: nothing was changed.
    Before(rusqlite::Error),
    /// By a row of one of its requests.
    Row(rusqlite::Error),
    /// In the commit.
    Commit(rusqlite::Error),
}

impl Writer {
    pub(super) fn new(connection: Connection, clock: Clock) -> Self {
        Self { connection, clock, synced: false, failed: false }
    }

    /// Works until the lane is closed and empty.
    pub(super) fn run(mut self, lane: &Lane, meter: &Meter) {
        let _attendance = Attendance { lane, meter };
        while let Some(jobs) = lane.take() {
            let operations: Vec<&Operation> = jobs.iter().map(|job| &job.operation).collect();
            let outcomes = self.batch(&operations, meter);
            meter.batch(operations.into_iter().map(Operation::index));
            for (job, outcome) in jobs.into_iter().zip(outcomes) {
                job.answer(meter, outcome);
            }
        }
    }

    /// One transaction for all; where one request cannot be carried out, one for each.
    fn batch(&mut self, operations: &[&Operation], meter: &Meter) -> Vec<Result<Outcome, StoreError>> {
        match self.transaction(operations, meter) {
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            Err(Failure::Row(_)) if operations.len() > 1 => {
                operations.chunks(1).flat_map(|single| self.batch(single, meter)).collect()
            }
            Err(failure) => {
                let error = self.judge(&failure);
                operations.iter().map(|operation| answer_of(operation, &error)).collect()
            }
        }
    }

    fn judge(&mut self, failure: &Failure) -> StoreError {
        let (cause, error) = match failure {
            Failure::Row(cause) | Failure::Before(cause) => (cause, StoreError::Unavailable(explain(cause))),
            Failure::Commit(cause) => (cause, StoreError::Unknown(explain(cause))),
        };
        self.failed |= !matches!(failure, Failure::Row(_));
        tracing::warn!(%cause, "a transaction of the store failed");
        error
    }

    fn transaction(&mut self, operations: &[&Operation], meter: &Meter) -> Result<Vec<Outcome>, Failure> {
        let durable = operations.iter().any(|operation| operation.class() == Class::Durable);
        self.sync(durable).map_err(Failure::Before)?;
        self.statement("begin immediate").map_err(Failure::Before)?;
        let outcomes = self.execute(operations).and_then(|outcomes| {
            self.statement("commit").map_err(Failure::Commit)?;
            Ok(outcomes)
        });
        match outcomes {
            Ok(outcomes) => {
                self.failed = false;
                add(&meter.commits, 1);
                meter.synced_commits.fetch_add(u64::from(durable), Ordering::Relaxed);
                Ok(outcomes)
            }
            Err(failure) => {
                // Some failures have rolled back already.
                if !self.connection.is_autocommit() {
                    self.statement("rollback").map_err(Failure::Before)?;
                }
                Err(failure)
            }
        }
    }

    fn execute(&self, operations: &[&Operation]) -> Result<Vec<Outcome>, Failure> {
        let now = (self.clock)();
        let mut transaction = Transaction::new(&self.connection, self.failed);
        let one = |operation: &&Operation| engine::execute(&mut transaction, now, operation).map_err(Failure::of_row);
        operations.iter().map(one).collect()
    }

    fn sync(&mut self, durable: bool) -> rusqlite::Result<()> {
        if durable != self.synced {
            self.connection.execute_batch(if durable {
                "pragma synchronous=full"
            } else {
                "pragma synchronous=normal"
            })?;
            self.synced = durable;
        }
        Ok(())
    }

    fn statement(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }
}

impl Failure {
    fn of_row(error: rusqlite::Error) -> Self {
        let own = match &error {
            rusqlite::Error::SqliteFailure(failure, _) => matches!(
                failure.code,
                ErrorCode::ConstraintViolation
                    | ErrorCode::TypeMismatch
                    | ErrorCode::TooBig
                    | ErrorCode::ParameterOutOfRange
            ),
            _ => true,
        };
        if own { Self::Row(error) } else { Self::Before(error) }
    }
}

/// What a request is told of a failure; to ask for the store's health is not a failure.
fn answer_of(operation: &Operation, error: &StoreError) -> Result<Outcome, StoreError> {
    match operation {
        Operation::Health(_) => Ok(Outcome::Health(Health { writable: false, schema: crate::SCHEMA })),
        _ => Err(error.clone()),
    }
}
