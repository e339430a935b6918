//! The memory store behind the common face: every batch is carried out at once, by its caller's thread.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::Memory;
use crate::bounds;
use crate::clock::Clock;
use crate::ops::Operation;
use crate::stats::Meter;
use crate::store::Reply;

/// A [`Memory`] shared by many callers.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

struct Shared {
    memory: Mutex<Memory>,
    clock: Clock,
    meter: Meter,
}

impl MemoryStore {
    /// A store over this data, with the time of this clock.
    pub fn new(memory: Memory, clock: Clock) -> Self {
        Self { shared: Arc::new(Shared { memory: Mutex::new(memory), clock, meter: Meter::new() }) }
    }

    /// Looks into the data, or changes it beside all operations.
    pub fn with<R>(&self, look: impl FnOnce(&mut Memory) -> R) -> R {
        look(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.shared.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn submit_many(&self, batch: Vec<(Operation, Reply)>) {
        let begun = Instant::now();
        let meter = &self.shared.meter;
        let mut operations = Vec::with_capacity(batch.len());
        let mut replies = Vec::with_capacity(batch.len());
        for (operation, reply) in batch {
            let index = operation.index();
            match bounds::check(&operation) {
                Ok(()) => {
                    operations.push(operation);
                    replies.push((index, reply));
                }
                Err(error) => {
                    meter.answered(index, false, begun.elapsed());
                    reply(Err(error));
                }
            }
        }
        let outcomes = self.lock().execute((self.shared.clock)(), &operations);
        meter.batch(operations.iter().map(Operation::index));
        for ((index, reply), outcome) in replies.into_iter().zip(outcomes) {
            meter.answered(index, true, begun.elapsed());
            reply(Ok(outcome));
        }
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.shared.meter
    }
}
