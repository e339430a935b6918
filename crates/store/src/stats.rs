//! Counters of the store, for metrics and tests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::ops::Operation;

/// What one operation has cost so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationStats {
    /// Name of the operation.
    pub name: &'static str,
    /// Requests answered.
    pub calls: u64,
    /// Batches that held at least one.
    pub batches: u64,
    /// Requests that had no outcome.
    pub errors: u64,
    /// Time from submission to answer, summed, µs.
    pub micros: u64,
}

/// The store's counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// One per operation, in the order of [`Operation::NAMES`].
    pub operations: Vec<OperationStats>,
    /// Transactions committed.
    pub commits: u64,
    /// Of these, the ones that were on disk before they were acknowledged.
    pub synced_commits: u64,
    /// Requests refused because a queue was full.
    pub refused: u64,
}

impl Stats {
    /// The counters of one operation.
    pub fn operation(&self, name: &str) -> Option<&OperationStats> {
        self.operations.iter().find(|operation| operation.name == name)
    }
}

#[derive(Default)]
struct Counters {
    calls: AtomicU64,
    batches: AtomicU64,
    errors: AtomicU64,
    micros: AtomicU64,
}

/// The counters themselves.
pub(crate) struct Meter {
    operations: Vec<Counters>,
    pub(crate) commits: AtomicU64,
    pub(crate) synced_commits: AtomicU64,
    pub(crate) refused: AtomicU64,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self {
            operations: Operation::NAMES.iter().map(|_| Counters::default()).collect(),
            commits: AtomicU64::new(0),
            synced_commits: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Counts one answered request.
    pub(crate) fn answered(&self, operation: usize, ok: bool, took: Duration) {
        let Some(counters) = self.operations.get(operation) else { return };
        add(&counters.calls, 1);
        add(&counters.errors, u64::from(!ok));
        add(&counters.micros, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Counts a batch for every operation that is in it.
    pub(crate) fn batch(&self, operations: impl Iterator<Item = usize>) {
        let present = operations.fold(0_u64, |seen, index| seen | 1_u64.checked_shl(index as u32).unwrap_or(0));
        for (index, counters) in self.operations.iter().enumerate() {
            add(&counters.batches, present >> index & 1);
        }
    }

    pub(crate) fn snapshot(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let operation = |(name, c): (&&'static str, &Counters)| OperationStats {
            name,
            calls: get(&c.calls),
            batches: get(&c.batches),
            errors: get(&c.errors),
            micros: get(&c.micros),
        };
        Stats {
            operations: Operation::NAMES.iter().zip(&self.operations).map(operation).collect(),
            commits: get(&self.commits),
            synced_commits: get(&self.synced_commits),
            refused: get(&self.refused),
        }
    }
}

pub(crate) fn add(counter: &AtomicU64, by: u64) {
    if by > 0 {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}
