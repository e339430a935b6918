//! Works on a lane: one connection, one call at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::call::{Line, carry_out};
use super::connect::connect;
use super::fault::{Fault, explain, judge, unavailable};
use super::lane::{Lane, Next};
use super::options::PostgresOptions;
use crate::error::StoreError;
use crate::job::Job;
use crate::ops::{Class, Health, Operation, Outcome};
use crate::stats::{Meter, add};

/// Durable calls that may hang in their commit at once, each on a connection that is left to itself.
const HUNG: usize = 3;
/// Waits between attempts to connect, at first and at most.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Requests after which tables may have grown much.
const GROWTH: usize = 2000;
/// Least and greatest age at which plans are made anew.
const SHORTEST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);
/// Wait after a schema of another version was found.
const SCHEMA_WAIT: Duration = Duration::from_secs(10);

pub(super) struct Worker {
    line: Line,
    lane: Arc<Lane>,
    options: Arc<PostgresOptions>,
    meter: Arc<Meter>,
    connection: Option<PgConnection>,
    /// Why the last attempt to connect failed.
    away: Option<StoreError>,
    wait: Duration,
    hung: Arc<Semaphore>,
    plans: Plans,
}

/// How old the connection's plans are. A plan is kept until the database has looked at its tables again, once a minute at
/// best; one that was made while a table was all but empty reads the whole of it, which may have grown to anything since.
struct Plans {
    made: Instant,
    /// Requests carried out by them.
    requests: usize,
}

impl Plans {
    fn new() -> Self {
        Self { made: Instant::now(), requests: 0 }
    }

    /// Whether tables may have grown much since.
    fn are_old(&self) -> bool {
        let age = self.made.elapsed();
        self.requests >= GROWTH && age >= SHORTEST || self.requests > 0 && age >= LONGEST
    }
}

/// How a call ended.
enum Ended {
    Done(sqlx::Result<Vec<Outcome>>),
    /// It did not end in time.
    TooLong,
}

impl Worker {
    pub(super) fn new(line: Line, lane: Arc<Lane>, options: Arc<PostgresOptions>, meter: Arc<Meter>) -> Self {
        let hung = Arc::new(Semaphore::new(HUNG));
        Self { line, lane, options, meter, connection: None, away: None, wait: FIRST_WAIT, hung, plans: Plans::new() }
    }

    /// Works until the lane is closed and empty.
    pub(super) async fn run(mut self) {
        loop {
            if self.connection.is_none() && !self.reconnect().await {
                return;
            }
            self.lane.up();
            let open = self.serve().await;
            self.lane.down();
            if !open {
                return;
            }
        }
    }

    /// Works as long as there is a connection; `false`: the lane is closed and empty.
    async fn serve(&mut self) -> bool {
        self.plans = Plans::new();
        while self.connection.is_some() {
            if self.plans.are_old() {
                self.replan().await;
                continue;
            }
            match self.lane.next().await {
                Next::Closed => return false,
                Next::Late(jobs) => self.fail(jobs, &StoreError::Unavailable("the database is slow".to_owned())),
                Next::Call(jobs) => self.work(jobs).await,
            }
        }
        true
    }

    /// Lets plans be made anew; without an answer the connection is given up.
    async fn replan(&mut self) {
        self.plans = Plans::new();
        let Some(mut connection) = self.connection.take() else { return };
        let call = sqlx::query("select commpool_api_1.replan()").execute(&mut connection);
        if let Ok(Ok(_)) = timeout(self.options.caller.pace().patience, call).await {
            self.connection = Some(connection);
        }
    }

    /// Tries to connect once, and waits for a while if that fails. While the database is known to be away, whoever asks
    /// is told so at once. `false`: the lane is closed and empty.
    async fn reconnect(&mut self) -> bool {
        let attempt = connect(&self.options, self.line);
        let connected = tokio::select! {
            connected = attempt => connected,
            () = self.tell_meanwhile() => return false,
        };
        let error = match connected {
            Ok(connection) => {
                tracing::info!(lane = self.line.name(), place = self.options.place(), "connected to the database");
                (self.connection, self.away, self.wait) = (Some(connection), None, FIRST_WAIT);
                return true;
            }
            Err(error) => error,
        };
        if self.away.as_ref() != Some(&error) {
            tracing::warn!(lane = self.line.name(), %error, "no connection to the database");
        }
        let wait = match error {
            StoreError::Schema { .. } => SCHEMA_WAIT,
            _ => self.wait + jitter(self.wait),
        };
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        let open = timeout(wait, self.tell(&error)).await.is_err();
        self.away = Some(error);
        open
    }

    /// Answers what is asked while an attempt to connect is under way.
    async fn tell_meanwhile(&self) {
        if let Some(error) = &self.away {
            return self.tell(error).await;
        }
        sleep(self.options.caller.pace().turn).await;
        let text = format!("{} does not answer yet", self.options.place());
        self.tell(&StoreError::Unavailable(text)).await;
    }

    /// Answers what is asked with an error, unless another connection serves the lane. Returns when it is closed.
    async fn tell(&self, error: &StoreError) {
        while !self.lane.is_served() {
            let Some(jobs) = self.lane.clear().await else { return };
            self.fail(jobs, error);
        }
        std::future::pending().await
    }

    fn fail(&self, jobs: impl IntoIterator<Item = Job>, error: &StoreError) {
        for job in jobs {
            let answer = refusal(&job.operation, error);
            job.answer(&self.meter, answer);
        }
    }

    /// Carries out requests of one kind: in one call, unless a row of one of them spoils it for the others.
    async fn work(&mut self, jobs: Vec<Job>) {
        let mut parts = VecDeque::from([jobs]);
        while let Some(jobs) = parts.pop_front() {
            let operations: Vec<&Operation> = jobs.iter().map(|job| &job.operation).collect();
            let begun = jobs.iter().map(|job| job.submitted).min().unwrap_or_else(Instant::now);
            match self.attempts(&operations, begun).await {
                Ok(outcomes) => {
                    for (job, outcome) in jobs.into_iter().zip(outcomes) {
                        job.answer(&self.meter, Ok(outcome));
                    }
                }
                Err(Failure::Row(_)) if jobs.len() > 1 => {
                    let mut first = jobs;
                    let second = first.split_off(first.len() / 2);
                    parts.extend([first, second]);
                }
                Err(Failure::Row(error) | Failure::All(error)) => self.fail(jobs, &error),
            }
        }
    }

    /// One call, repeated once where that is harmless and may help.
    async fn attempts(&mut self, operations: &[&Operation], begun: Instant) -> Result<Vec<Outcome>, Failure> {
        self.meter.batch(operations.iter().map(|operation| operation.index()));
        let (fault, error) = match self.attempt(operations, begun).await? {
            Ok(outcomes) => return Ok(outcomes),
            Err(failed) => failed,
        };
        // What a durable call adds is told apart from what was there before, so it must not be repeated blindly.
        let harmless = match fault {
            Fault::Broken => operations.iter().all(|operation| operation.class() != Class::Durable),
            Fault::Again | Fault::Leave => true,
            Fault::Schema | Fault::Row | Fault::Refused => false,
        };
        if !harmless {
            return Err(self.failure(fault, &error));
        }
        match self.attempt(operations, begun).await {
            Ok(Ok(outcomes)) => Ok(outcomes),
            // The first one may have been carried out.
            _ if fault == Fault::Broken => Err(self.failure(fault, &error)),
            Ok(Err((fault, error))) => Err(self.failure(fault, &error)),
            Err(failure) => Err(failure),
        }
    }

    /// One call, on a new connection if there is none.
    async fn attempt(
        &mut self,
        operations: &[&Operation],
        begun: Instant,
    ) -> Result<Result<Vec<Outcome>, (Fault, sqlx::Error)>, Failure> {
        let patience = || self.options.caller.pace().patience.saturating_sub(begun.elapsed());
        if self.connection.is_none() {
            let slow = |_| Err(StoreError::Unavailable(format!("{} does not answer in time", self.options.place())));
            let connected = timeout(patience(), connect(&self.options, self.line)).await.unwrap_or_else(slow);
            self.connection = Some(connected.map_err(Failure::All)?);
        }
        let error = match self.call(operations, patience()).await? {
            Ended::Done(Ok(outcomes)) if outcomes.len() == operations.len() => {
                self.count(operations);
                self.plans.requests += outcomes.len();
                return Ok(Ok(outcomes));
            }
            Ended::Done(Ok(_)) => sqlx::Error::Decode("an answer is missing".into()),
            Ended::Done(Err(error)) => error,
            Ended::TooLong => return Err(Failure::All(self.unknown("the database does not answer in time"))),
        };
        let fault = judge(&error);
        if matches!(fault, Fault::Broken | Fault::Leave | Fault::Schema) {
            self.connection = None;
        }
        Ok(Err((fault, error)))
    }

    fn failure(&self, fault: Fault, error: &sqlx::Error) -> Failure {
        tracing::warn!(lane = self.line.name(), error = explain(error), "a call of the database failed");
        match fault {
            Fault::Row => Failure::Row(unavailable(error)),
            Fault::Broken => Failure::All(self.unknown(&explain(error))),
            Fault::Schema => Failure::All(StoreError::Schema { need: super::functions::schema(), found: 0 }),
            Fault::Leave | Fault::Again | Fault::Refused => Failure::All(unavailable(error)),
        }
    }

    /// What is told where the connection went in the middle of a call: a read has changed nothing.
    fn unknown(&self, cause: &str) -> StoreError {
        match self.line {
            Line::Read => StoreError::Unavailable(cause.to_owned()),
            Line::Soft | Line::Durable | Line::Lease => StoreError::Unknown(cause.to_owned()),
        }
    }

    async fn call(&mut self, operations: &[&Operation], patience: Duration) -> Result<Ended, Failure> {
        let Some(mut connection) = self.connection.take() else { return Ok(Ended::TooLong) };
        if self.line == Line::Durable {
            return self.durable_call(connection, operations, patience).await;
        }
        match timeout(patience, carry_out(&mut connection, operations)).await {
            Ok(done) => {
                self.connection = Some(connection);
                Ok(Ended::Done(done))
            }
            // The connection is closed hard: an answer that comes late belongs to nobody.
            Err(_) => Ok(Ended::TooLong),
        }
    }

    /// A durable commit may wait for a standby that is away. It must not be cancelled: a cancel makes a success of it
    /// though nothing is replicated. So its connection is left to it, a few times.
    async fn durable_call(
        &mut self,
        mut connection: PgConnection,
        operations: &[&Operation],
        patience: Duration,
    ) -> Result<Ended, Failure> {
        let Ok(permit) = Arc::clone(&self.hung).try_acquire_owned() else {
            self.connection = Some(connection);
            let text = "durable writes hang; look for a standby that is away";
            return Err(Failure::All(StoreError::Unavailable(text.to_owned())));
        };
        let operations: Vec<Operation> = operations.iter().map(|operation| (*operation).clone()).collect();
        let call = tokio::spawn(async move {
            let _until_it_ends = permit;
            let operations: Vec<&Operation> = operations.iter().collect();
            let done = carry_out(&mut connection, &operations).await;
            (connection, done)
        });
        match timeout(patience, call).await {
            Ok(Ok((connection, done))) => {
                self.connection = Some(connection);
                Ok(Ended::Done(done))
            }
            Ok(Err(_)) | Err(_) => Ok(Ended::TooLong),
        }
    }

    fn count(&self, operations: &[&Operation]) {
        if self.line != Line::Read {
            let durable = operations.iter().any(|operation| operation.class() == Class::Durable);
            add(&self.meter.commits, 1);
            add(&self.meter.synced_commits, u64::from(durable));
        }
    }
}

/// Why requests have no outcome.
enum Failure {
    /// By a row of one of them.
    Row(StoreError),
    /// All of them.
    All(StoreError),
}

/// What a request is told of a failure; to ask for the store's health is not a failure.
fn refusal(operation: &Operation, error: &StoreError) -> Result<Outcome, StoreError> {
    match operation {
        Operation::Health(_) => Ok(Outcome::Health(Health { writable: false, schema: 0 })),
        _ => Err(error.clone()),
    }
}

/// Up to as long again, so that front ends do not come back in step.
fn jitter(wait: Duration) -> Duration {
    getrandom::u32().map_or(wait, |random| wait * (random >> 24) / 256)
}
