//! The threads that read: one snapshot per batch.

use rusqlite::Connection;

use super::lane::{Attendance, Lane};
use super::open::explain;
use super::tables::Transaction;
use crate::clock::Clock;
use crate::engine;
use crate::error::StoreError;
use crate::job::Job;
use crate::ops::accounts::Changed;
use crate::ops::{Operation, Outcome};
use crate::stats::Meter;

pub(super) struct Reader {
    connection: Connection,
    clock: Clock,
    /// `data_version` of the connection and the mark at which no account had changed.
    quiet: Option<(i64, u64)>,
}

impl Reader {
    pub(super) fn new(connection: Connection, clock: Clock) -> Self {
        Self { connection, clock, quiet: None }
    }

    /// Works until the lane is closed and empty.
    pub(super) fn run(mut self, lane: &Lane, meter: &Meter) {
        let _attendance = Attendance { lane, meter };
        while let Some(jobs) = lane.take() {
            let outcomes = self.batch(&jobs);
            meter.batch(jobs.iter().map(|job| job.operation.index()));
            for (job, outcome) in jobs.into_iter().zip(outcomes) {
                job.answer(meter, outcome);
            }
        }
    }

    fn batch(&mut self, jobs: &[Job]) -> Vec<Result<Outcome, StoreError>> {
        // Read before the snapshot: what is committed in between shows as a difference next time.
        let asked = jobs.iter().any(|job| matches!(job.operation, Operation::AccountsChanged(_)));
        let version = if asked { self.data_version().ok() } else { None };
        if let [only] = jobs
            && let Some(unchanged) = self.unchanged(&only.operation, version)
        {
            return vec![Ok(unchanged)];
        }
        if let Err(error) = self.statement("begin") {
            return jobs.iter().map(|_| Err(unavailable(&error))).collect();
        }
        let now = (self.clock)();
        let mut transaction = Transaction::new(&self.connection, false);
        let execute = |job: &Job| engine::execute(&mut transaction, now, &job.operation);
        let outcomes: Vec<_> = jobs.iter().map(execute).map(|one| one.map_err(|error| unavailable(&error))).collect();
        if let Err(error) = self.statement("commit") {
            tracing::warn!(%error, "a snapshot of the store did not end");
        }
        self.remember(&outcomes, version);
        outcomes
    }

    fn unchanged(&self, operation: &Operation, version: Option<i64>) -> Option<Outcome> {
        let Operation::AccountsChanged(request) = operation else { return None };
        let (quiet, cursor) = self.quiet?;
        let same = version == Some(quiet) && request.cursor == Some(cursor);
        same.then(|| Outcome::AccountsChanged(Changed { cursor, ..Changed::default() }))
    }

    fn remember(&mut self, outcomes: &[Result<Outcome, StoreError>], version: Option<i64>) {
        for outcome in outcomes {
            if let (Ok(Outcome::AccountsChanged(changed)), Some(version)) = (outcome, version) {
                self.quiet = (!changed.more).then_some((version, changed.cursor));
            }
        }
    }

    fn data_version(&self) -> rusqlite::Result<i64> {
        self.connection.prepare_cached("pragma data_version")?.query_row([], |row| row.get(0))
    }

    fn statement(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }
}

fn unavailable(error: &rusqlite::Error) -> StoreError {
    StoreError::Unavailable(explain(error))
}
