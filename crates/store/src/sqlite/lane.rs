//! A queue in front of a thread that works in batches: what queued while it was busy is its next batch.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::StoreError;
use crate::job::{BATCH, Job, QUEUE};
use crate::ops::Class;
use crate::stats::Meter;

#[derive(Default)]
pub(super) struct Lane {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    waiting: [usize; 3],
    closed: bool,
}

impl Queue {
    fn waiting(&mut self, class: Class) -> &mut usize {
        let [read, soft, durable] = &mut self.waiting;
        match class {
            Class::Read => read,
            Class::Soft => soft,
            Class::Durable => durable,
        }
    }
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues jobs in their order; those that find no room come back with the reason.
    pub(super) fn push(&self, jobs: impl IntoIterator<Item = Job>) -> Vec<(Job, StoreError)> {
        let mut refused = Vec::new();
        let mut queue = self.lock();
        for job in jobs {
            let closed = queue.closed;
            let waiting = queue.waiting(job.operation.class());
            if closed {
                refused.push((job, StoreError::Unavailable("it was closed".to_owned())));
            } else if *waiting >= QUEUE {
                refused.push((job, StoreError::Busy));
            } else {
                *waiting += 1;
                queue.jobs.push_back(job);
            }
        }
        drop(queue);
        self.wake.notify_one();
        refused
    }

    /// The next batch, as soon as there is one; `None` once the lane is closed and empty.
    pub(super) fn take(&self) -> Option<Vec<Job>> {
        let mut queue = self.lock();
        while queue.jobs.is_empty() && !queue.closed {
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let count = queue.jobs.len().min(BATCH);
        let jobs: Vec<Job> = queue.jobs.drain(..count).collect();
        for job in &jobs {
            *queue.waiting(job.operation.class()) -= 1;
        }
        let more = !queue.jobs.is_empty();
        drop(queue);
        if more {
            self.wake.notify_one();
        }
        if jobs.is_empty() { None } else { Some(jobs) }
    }

    /// Takes no more; what is queued is still carried out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }
}

/// Held by a thread that works on a lane: should the thread end by a panic, nobody waits for ever.
pub(super) struct Attendance<'a> {
    pub(super) lane: &'a Lane,
    pub(super) meter: &'a Meter,
}

impl Drop for Attendance<'_> {
    fn drop(&mut self) {
        self.lane.close();
        while let Some(jobs) = self.lane.take() {
            for job in jobs {
                job.answer(self.meter, Err(StoreError::Unavailable("its thread ended".to_owned())));
            }
        }
    }
}
