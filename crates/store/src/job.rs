//! A request that waits for its answer.

use std::time::Instant;

use crate::error::StoreError;
use crate::ops::{Operation, Outcome};
use crate::stats::Meter;
use crate::store::Reply;

/// Most requests of one class that wait.
pub(crate) const QUEUE: usize = 4096;
/// Most requests in one batch.
pub(crate) const BATCH: usize = 64;

/// A request that waits for its answer.
pub(crate) struct Job {
    pub(crate) operation: Operation,
    reply: Reply,
    pub(crate) submitted: Instant,
}

impl Job {
    pub(crate) fn new(operation: Operation, reply: Reply, submitted: Instant) -> Self {
        Self { operation, reply, submitted }
    }

    pub(crate) fn answer(self, meter: &Meter, outcome: Result<Outcome, StoreError>) {
        meter.answered(self.operation.index(), outcome.is_ok(), self.submitted.elapsed());
        (self.reply)(outcome);
    }
}
