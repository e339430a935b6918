//! The embedded store behind the common face: a lane for writes, a lane for reads.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::lane::Lane;
use super::open::{self, SqliteOptions, Use};
use super::read::Reader;
use super::write::Writer;
use crate::bounds;
use crate::clock::Clock;
use crate::error::StoreError;
use crate::job::Job;
use crate::ops::{Class, Operation};
use crate::stats::{Meter, add};
use crate::store::Reply;

/// SQLite in a folder, shared by many callers.
#[derive(Clone)]
pub struct SqliteStore {
    shared: Arc<Shared>,
}

struct Shared {
    writes: Arc<Lane>,
    reads: Arc<Lane>,
    meter: Arc<Meter>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl SqliteStore {
    /// Opens the store in this folder, creating it where there is none, and starts its threads.
    ///
    /// # Errors
    /// It cannot be written, is damaged, or has a schema that this build neither reads nor may bring up to date.
    pub fn open(folder: &Path, options: &SqliteOptions, clock: Clock) -> Result<Self, StoreError> {
        if options.upgrade || !folder.join(super::DATABASE_FILE).exists() {
            super::migrate(folder)?;
        }
        let connection = open::connect(folder, Use::Write, options)?;
        open::verify(&connection, folder, options.check)?;
        let shared = Shared {
            writes: Arc::default(),
            reads: Arc::default(),
            meter: Arc::new(Meter::new()),
            threads: Mutex::default(),
        };
        let writer = Writer::new(connection, clock.clone());
        shared.start("store-write", &shared.writes, move |lane, meter| writer.run(lane, meter))?;
        for _ in 0..options.readers.clamp(1, 4) {
            let connection = open::connect(folder, Use::Read, options)?;
            let reader = Reader::new(connection, clock.clone());
            shared.start("store-read", &shared.reads, move |lane, meter| reader.run(lane, meter))?;
        }
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(crate) fn submit_many(&self, batch: Vec<(Operation, Reply)>) {
        let now = Instant::now();
        let mut writes = Vec::new();
        let mut reads = Vec::new();
        for (operation, reply) in batch {
            let job = Job::new(operation, reply, now);
            if let Err(error) = bounds::check(&job.operation) {
                job.answer(&self.shared.meter, Err(error));
            } else if is_read(&job.operation) {
                reads.push(job);
            } else {
                writes.push(job);
            }
        }
        for (lane, jobs) in [(&self.shared.writes, writes), (&self.shared.reads, reads)] {
            if jobs.is_empty() {
                continue;
            }
            for (job, error) in lane.push(jobs) {
                add(&self.shared.meter.refused, 1);
                job.answer(&self.shared.meter, Err(error));
            }
        }
    }

    /// Carries out what is queued, then ends the threads and closes the file; waits for that. Later requests are
    /// refused.
    pub fn close(&self) {
        self.shared.close();
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.shared.meter
    }
}

/// Health is of the class of reads but asks about writes, so it goes where these go.
fn is_read(operation: &Operation) -> bool {
    operation.class() == Class::Read && !matches!(operation, Operation::Health(_))
}

impl Shared {
    fn start(
        &self,
        name: &str,
        lane: &Arc<Lane>,
        work: impl FnOnce(&Lane, &Meter) + Send + 'static,
    ) -> Result<(), StoreError> {
        let (lane, meter) = (Arc::clone(lane), Arc::clone(&self.meter));
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(&lane, &meter));
        let thread = thread.map_err(|error| StoreError::Unavailable(format!("cannot start a thread: {error}")))?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    fn close(&self) {
        self.writes.close();
        self.reads.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // The last handle may go inside a reply, on a thread of the store itself.
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the store had panicked");
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}
