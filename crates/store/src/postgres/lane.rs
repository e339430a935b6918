//! A queue in front of one or two connections: what queued while they were busy is their next call.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::call::{Company, Keys, ROOM, company, weight};
use crate::error::StoreError;
use crate::job::{Job, QUEUE};

/// How far behind its first request a call is filled up.
const SIGHT: usize = 1024;

pub(super) struct Lane {
    /// How long a request may wait for its turn; then nothing is done about it.
    turn: Duration,
    queue: Mutex<Queue>,
    wake: Notify,
    /// Workers that have a connection.
    connected: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

/// What comes next on a lane.
pub(super) enum Next {
    /// Requests of one kind, for one call.
    Call(Vec<Job>),
    /// Requests that have waited too long.
    Late(Vec<Job>),
    /// Nothing any more.
    Closed,
}

impl Lane {
    pub(super) fn new(turn: Duration) -> Self {
        Self { turn, queue: Mutex::default(), wake: Notify::default(), connected: AtomicUsize::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues jobs in their order; those that find no room come back with the reason.
    pub(super) fn push(&self, jobs: impl IntoIterator<Item = Job>) -> Vec<(Job, StoreError)> {
        let mut refused = Vec::new();
        let mut queue = self.lock();
        for job in jobs {
            if queue.closed {
                refused.push((job, StoreError::Unavailable("it was closed".to_owned())));
            } else if queue.jobs.len() >= QUEUE {
                refused.push((job, StoreError::Busy));
            } else {
                queue.jobs.push_back(job);
            }
        }
        drop(queue);
        self.wake.notify_one();
        refused
    }

    /// Waits for something to do.
    pub(super) async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            self.wake.notified().await;
        }
    }

    fn try_next(&self) -> Option<Next> {
        let mut queue = self.lock();
        let late = queue.late(self.turn);
        let next = if !late.is_empty() {
            Next::Late(late)
        } else if let Some(first) = queue.jobs.pop_front() {
            Next::Call(queue.fill(first))
        } else if queue.closed {
            Next::Closed
        } else {
            return None;
        };
        let more = !queue.jobs.is_empty() || queue.closed;
        drop(queue);
        if more {
            self.wake.notify_one();
        }
        Some(next)
    }

    /// Everything that waits, as soon as something does; nothing as soon as somebody works on it; `None`: closed and
    /// empty.
    pub(super) async fn clear(&self) -> Option<Vec<Job>> {
        loop {
            if self.is_served() {
                // What woke us is for that one.
                self.wake.notify_one();
                return Some(Vec::new());
            }
            let (jobs, closed) = self.drain();
            match (jobs.is_empty(), closed) {
                (false, _) => return Some(jobs),
                (true, true) => {
                    self.wake.notify_one();
                    return None;
                }
                (true, false) => self.wake.notified().await,
            }
        }
    }

    fn drain(&self) -> (Vec<Job>, bool) {
        let mut queue = self.lock();
        (queue.jobs.drain(..).collect(), queue.closed)
    }

    /// Counts in a worker that has a connection.
    pub(super) fn up(&self) {
        self.connected.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts out one that has lost it.
    pub(super) fn down(&self) {
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether somebody works on it.
    pub(super) fn is_served(&self) -> bool {
        self.connected.load(Ordering::Relaxed) > 0
    }

    /// Takes no more; what is queued is still carried out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }
}

impl Queue {
    /// Takes out those at the front that have waited too long.
    fn late(&mut self, turn: Duration) -> Vec<Job> {
        let mut late = Vec::new();
        while self.jobs.front().is_some_and(|job| job.submitted.elapsed() > turn) {
            late.extend(self.jobs.pop_front());
        }
        late
    }

    /// The call that a request begins: others of its kind join, but no two with one key, and none overtakes another
    /// with its key.
    fn fill(&mut self, first: Job) -> Vec<Job> {
        let (kind, mut room) = (first.operation.index(), ROOM.saturating_sub(weight(&first.operation)));
        let mut seen = Keys::new();
        match company(&first.operation) {
            Company::Alone => return vec![first],
            Company::Keyed(key) => drop(seen.insert(key)),
            Company::Any => {}
        }
        let mut call = vec![first];
        let mut passed = VecDeque::new();
        while room > 0 && passed.len() < SIGHT {
            let Some(job) = self.jobs.pop_front() else { break };
            let free = match company(&job.operation) {
                Company::Alone => {
                    self.jobs.push_front(job);
                    break;
                }
                Company::Keyed(key) => seen.insert(key),
                Company::Any => true,
            };
            let weight = weight(&job.operation);
            if free && job.operation.index() == kind && weight <= room {
                room -= weight;
                call.push(job);
            } else {
                passed.push_back(job);
            }
        }
        passed.append(&mut self.jobs);
        self.jobs = passed;
        call
    }
}
