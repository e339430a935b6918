//! The database behind the common face: lanes, and a thread that works on them.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::call::Line;
use super::lane::Lane;
use super::options::PostgresOptions;
use super::worker::Worker;
use crate::bounds;
use crate::error::StoreError;
use crate::job::Job;
use crate::ops::Operation;
use crate::stats::{Meter, add};
use crate::store::Reply;

/// PostgreSQL, shared by many callers.
#[derive(Clone)]
pub struct PostgresStore {
    shared: Arc<Shared>,
}

struct Shared {
    lanes: Vec<(Line, Arc<Lane>)>,
    meter: Arc<Meter>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl PostgresStore {
    /// Begins to connect and returns at once. While the database is away or has another schema, requests are answered
    /// with that, and the attempts go on.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn open(options: PostgresOptions) -> Result<Self, StoreError> {
        let meter = Arc::new(Meter::new());
        let caller = options.caller;
        let options = Arc::new(options);
        let lanes: Vec<(Line, Arc<Lane>)> =
            Line::ALL.into_iter().map(|line| (line, Arc::new(Lane::new(caller.pace().turn)))).collect();
        let workers: Vec<Worker> = lanes
            .iter()
            .flat_map(|(line, lane)| {
                let worker = || Worker::new(*line, Arc::clone(lane), Arc::clone(&options), Arc::clone(&meter));
                (0..line.connections(caller)).map(move |_| worker())
            })
            .collect();
        let failed = |error| StoreError::Unavailable(format!("cannot start a thread: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let work = move || {
            runtime.block_on(async {
                let workers: Vec<_> = workers.into_iter().map(|worker| tokio::spawn(worker.run())).collect();
                for worker in workers {
                    if worker.await.is_err() {
                        tracing::error!("a lane of the store had panicked");
                    }
                }
            });
        };
        let thread = thread::Builder::new().name("store-postgres".to_owned()).spawn(work).map_err(failed)?;
        Ok(Self { shared: Arc::new(Shared { lanes, meter, thread: Mutex::new(Some(thread)) }) })
    }

    pub(crate) fn submit_many(&self, batch: Vec<(Operation, Reply)>) {
        let now = Instant::now();
        let meter = &self.shared.meter;
        let mut jobs = Vec::with_capacity(batch.len());
        for (operation, reply) in batch {
            let job = Job::new(operation, reply, now);
            match bounds::check(&job.operation) {
                Ok(()) => jobs.push((Line::of(&job.operation), job)),
                Err(error) => job.answer(meter, Err(error)),
            }
        }
        // Stable: what shares a lane keeps its order.
        jobs.sort_by_key(|(line, _)| *line);
        let mut jobs = jobs.into_iter().peekable();
        while let Some((line, first)) = jobs.next() {
            let mut together = vec![first];
            while let Some((_, job)) = jobs.next_if(|(other, _)| *other == line) {
                together.push(job);
            }
            for (job, error) in self.shared.push(line, together) {
                add(&meter.refused, 1);
                job.answer(meter, Err(error));
            }
        }
    }

    /// Carries out what is queued, then closes the connections; waits for that. Later requests are refused.
    pub fn close(&self) {
        self.shared.close();
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.shared.meter
    }
}

impl Shared {
    fn push(&self, line: Line, jobs: Vec<Job>) -> Vec<(Job, StoreError)> {
        match self.lanes.iter().find(|(of, _)| *of == line) {
            Some((_, lane)) => lane.push(jobs),
            None => jobs.into_iter().map(|job| (job, StoreError::Busy)).collect(),
        }
    }

    fn close(&self) {
        for (_, lane) in &self.lanes {
            lane.close();
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The last handle may go inside a reply, on the thread of the store itself.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != thread::current().id())
            && thread.join().is_err()
        {
            tracing::error!("the thread of the store had panicked");
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}
