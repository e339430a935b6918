//! Standard Edition's own User Replicator: when it runs, and what it came to last.
//!
//! It runs at start where it never ran, at the times of its schedule, and at once when its configuration changes: a held
//! plan that an administrator releases does not wait for the next half hour. Nor does it when that run meets trouble that
//! passes.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use commpool_model::config::Directory;
use commpool_model::directory::{Counts, Outcome, RunResult};
use commpool_model::schedule::Timetable;
use commpool_store::Clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// The clock is looked at again after this: whoever sets it must not have to wait for a sleep from before.
const LOOK: Duration = Duration::from_secs(30);

/// A run that met passing trouble is tried again after so many seconds, then after twice as many, and so on.
const FIRST_PAUSE: u64 = 60;
/// The longest of these pauses, seconds.
const LAST_PAUSE: u64 = 1_920;

/// What the last run came to; clones share it.
#[derive(Clone, Debug, Default)]
pub struct LastRun(Arc<Mutex<Option<Outcome>>>);

impl LastRun {
    /// The outcome of the last run; `None`: there was none in this process.
    pub fn get(&self) -> Option<Outcome> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, outcome: Option<Outcome>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
    }
}

/// One run with this configuration.
pub type Cycle = Box<dyn Fn(Directory) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync>;

/// The task that runs the replicator.
pub struct Replication {
    /// Carries out one run.
    pub cycle: Cycle,
    /// The present configuration; `None`: users are added by hand.
    pub config: watch::Receiver<Option<Directory>>,
    /// Whether there has been no run ever.
    pub never_ran: bool,
    /// Time of day.
    pub clock: Clock,
    /// Where outcomes go.
    pub last: LastRun,
    /// Where they are counted.
    pub metrics: Arc<Metrics>,
}

/// Why the task woke.
enum Woken {
    /// It is time to run.
    Due,
    /// The configuration is another one.
    Changed,
    /// The server ends.
    Stopped,
}

impl Replication {
    /// Runs until stopped; a run under way is told by its own means and waited for.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut due = self.never_ran && self.config.borrow_and_update().is_some();
        let mut ran_with = self.config.borrow().as_ref().filter(|_| !self.never_ran).map(content);
        let mut pause = None;
        loop {
            if due {
                let ran = self.cycle().await;
                pause = ran.as_ref().filter(|(_, result)| passes(*result)).map(|_| longer(pause));
                ran_with = ran.map(|(config, _)| config).or(ran_with);
            }
            match self.wait(&stop, pause).await {
                Woken::Stopped => return,
                Woken::Due => due = true,
                Woken::Changed => {
                    let content = self.config.borrow().as_ref().map(content);
                    if content.is_none() {
                        self.last.set(None);
                        ran_with = None;
                    }
                    due = content.is_some() && content != ran_with;
                    pause = pause.filter(|_| content.is_some() && !due);
                }
            }
        }
    }

    /// One run, unless suspended; what it ran with, and what it came to.
    async fn cycle(&self) -> Option<(Directory, RunResult)> {
        let config = self.config.borrow().clone()?;
        if config.schedule.as_ref().is_some_and(|schedule| schedule.suspend) {
            return None;
        }
        // A panic in it must not end the server.
        let outcome = tokio::spawn((self.cycle)(config.clone())).await.unwrap_or_else(|error| {
            tracing::error!(%error, "the replicator broke");
            broken(&(self.clock)().to_rfc3339())
        });
        let Outcome { result, message, found, counts, .. } = &outcome;
        let result = *result;
        if result == RunResult::Synced {
            tracing::info!(found, ?counts, "users are as the directory says");
        } else {
            tracing::warn!(?result, message, found, ?counts, "users were not brought up to date");
        }
        self.metrics.directory_run(&outcome, (self.clock)());
        self.last.set(Some(outcome));
        Some((content(&config), result))
    }

    /// Waits for the next run; `pause`: seconds until one that is not on the timetable.
    async fn wait(&mut self, stop: &CancellationToken, pause: Option<u64>) -> Woken {
        let again = pause.map(|seconds| (self.clock)().plus_seconds(seconds));
        let due = self.next_due().into_iter().chain(again).min();
        loop {
            let left = due.map(|due| Duration::from_millis((self.clock)().millis_until(due)));
            if left == Some(Duration::ZERO) {
                return Woken::Due;
            }
            tokio::select! {
                () = stop.cancelled() => return Woken::Stopped,
                changed = self.config.changed() => {
                    return if changed.is_ok() { Woken::Changed } else { Woken::Stopped };
                }
                () = tokio::time::sleep(left.unwrap_or(LOOK).min(LOOK)) => {}
            }
        }
    }

    fn next_due(&self) -> Option<commpool_model::ids::Micros> {
        let config = self.config.borrow();
        let schedule = config.as_ref()?.schedule.as_ref().filter(|schedule| !schedule.suspend)?;
        // The configuration was checked: a schedule that is none would have been refused.
        let timetable = Timetable::new(&schedule.cron, schedule.time_zone.as_deref()).ok()?;
        timetable.next_after((self.clock)())
    }
}

/// Whether the next attempt may well do better though nobody mends anything.
const fn passes(result: RunResult) -> bool {
    matches!(result, RunResult::Busy | RunResult::DirectoryUnavailable)
}

/// The pause after this one.
fn longer(pause: Option<u64>) -> u64 {
    pause.map_or(FIRST_PAUSE, |seconds| (seconds * 2).min(LAST_PAUSE))
}

/// What a change must differ in to be worth a run of its own: another time of day is not.
fn content(config: &Directory) -> Directory {
    Directory { schedule: None, ..config.clone() }
}

fn broken(now: &str) -> Outcome {
    Outcome {
        result: RunResult::InternalError,
        message: "the replicator broke; its log says where".to_owned(),
        started: now.to_owned(),
        finished: now.to_owned(),
        found: 0,
        counts: Counts::default(),
        conflicts: Vec::new(),
        plan_digest: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use commpool_model::config::{Ldap, Mapping, Removal, Schedule};
    use commpool_model::ids::Micros;
    use tokio::sync::mpsc;
    use tokio::time::{Instant, timeout};

    use super::*;

    /// 2026-11-24 10:10:00 UTC.
    const START: u64 = 1_795_515_000_000_000;

    struct Bench {
        config: watch::Sender<Option<Directory>>,
        runs: mpsc::UnboundedReceiver<(Directory, u64)>,
        last: LastRun,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    /// Its n-th run, from 0, comes to `result(n)`.
    fn bench(config: Option<Directory>, never_ran: bool, result: fn(usize) -> RunResult) -> Bench {
        let began = Instant::now();
        let clock: Clock = Arc::new(move || Micros(START + u64::try_from(began.elapsed().as_micros()).unwrap()));
        let (config_in, config) = watch::channel(config);
        let (ran, runs) = mpsc::unbounded_channel();
        let (time, last, stop) = (Arc::clone(&clock), LastRun::default(), CancellationToken::new());
        let runs_so_far = AtomicUsize::new(0);
        let cycle: Cycle = Box::new(move |config| {
            ran.send((config, (time().0 - START) / 60_000_000)).unwrap();
            let number = runs_so_far.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move { Outcome { result: result(number), message: String::new(), ..broken("") } })
        });
        let metrics = Arc::default();
        let replication = Replication { cycle, config, never_ran, clock, last: last.clone(), metrics };
        let task = tokio::spawn(replication.run(stop.clone()));
        Bench { config: config_in, runs, last, stop, task }
    }

    fn directory(cron: &str) -> Directory {
        Directory {
            schedule: Some(Schedule { cron: cron.to_owned(), time_zone: None, suspend: false }),
            ldap: Ldap {
                urls: vec!["ldaps://dc1.example.com".to_owned()],
                base_dn: String::new(),
                filter: Ldap::default_filter(),
                bind_dn_file: "/dn".into(),
                password_file: "/password".into(),
                ca_file: "/ca".into(),
                page_size: 500,
                timeout_seconds: 30,
            },
            mapping: Mapping::default(),
            removal: Removal::default(),
        }
    }

    fn well(_: usize) -> RunResult {
        RunResult::Synced
    }

    /// Minute of the next run after the start.
    async fn minute(bench: &mut Bench) -> u64 {
        bench.runs.recv().await.unwrap().1
    }

    async fn nothing_for_a_day(bench: &mut Bench) {
        let day = Duration::from_secs(86_400);
        assert!(timeout(day, bench.runs.recv()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn it_runs_at_its_times() {
        let mut bench = bench(Some(directory("*/30 * * * *")), false, well);
        assert_eq!([minute(&mut bench).await, minute(&mut bench).await, minute(&mut bench).await], [20, 50, 80]);
        bench.stop.cancel();
        bench.task.await.unwrap();
        assert_eq!(bench.last.get().unwrap().result, RunResult::Synced);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_run_of_all_does_not_wait() {
        let mut bench = bench(Some(directory("0 3 * * *")), true, well);
        assert_eq!(minute(&mut bench).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_configuration_runs_at_once_and_another_time_does_not() {
        let mut bench = bench(Some(directory("0 3 * * *")), false, well);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let mut released = directory("0 3 * * *");
        released.removal.release_digest = "abcd".to_owned();
        bench.config.send(Some(released.clone())).unwrap();
        assert_eq!(bench.runs.recv().await.unwrap(), (released.clone(), 1));
        released.schedule.as_mut().unwrap().cron = "0 12 * * *".to_owned();
        bench.config.send(Some(released)).unwrap();
        assert_eq!(minute(&mut bench).await, 110, "at noon, and not at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_meets_passing_trouble_is_tried_again_and_a_refused_one_is_not() {
        let result = |n| match n {
            0 | 7 => RunResult::Busy,
            1..=6 => RunResult::DirectoryUnavailable,
            _ => RunResult::DirectoryRefused,
        };
        let mut bench = bench(Some(directory("0 3 * * *")), false, result);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let mut released = directory("0 3 * * *");
        released.removal.release_digest = "abcd".to_owned();
        bench.config.send(Some(released.clone())).unwrap();
        let mut minutes = Vec::new();
        for _ in 0..8 {
            minutes.push(minute(&mut bench).await);
        }
        assert_eq!(minutes, [1, 2, 4, 8, 16, 32, 64, 96]);
        released.ldap.base_dn = "DC=example".to_owned();
        bench.config.send(Some(released)).unwrap();
        assert_eq!(minute(&mut bench).await, 96, "a change does not wait for the pause");
        assert_eq!(minute(&mut bench).await, 1010, "at three, and not before");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_directory_nothing_is_tried_again() {
        let mut bench = bench(Some(directory("0 3 * * *")), true, |_| RunResult::DirectoryUnavailable);
        assert_eq!(minute(&mut bench).await, 0);
        bench.config.send(None).unwrap();
        nothing_for_a_day(&mut bench).await;
    }

    #[tokio::test(start_paused = true)]
    async fn suspended_or_without_a_directory_nothing_runs() {
        let mut suspended = directory("*/30 * * * *");
        suspended.schedule.as_mut().unwrap().suspend = true;
        let mut bench = bench(Some(suspended), true, well);
        nothing_for_a_day(&mut bench).await;
        bench.config.send(None).unwrap();
        nothing_for_a_day(&mut bench).await;
        bench.config.send(Some(directory("0 3 * * *"))).unwrap();
        assert_eq!(minute(&mut bench).await, 2 * 24 * 60, "a directory that is new is read at once");
        bench.config.send(None).unwrap();
        nothing_for_a_day(&mut bench).await;
        assert_eq!(bench.last.get(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_an_outcome_and_the_next_run_comes() {
        let mut bench = bench(Some(directory("*/30 * * * *")), false, |_| panic!("as asked"));
        assert_eq!([minute(&mut bench).await, minute(&mut bench).await], [20, 50]);
        assert_eq!(bench.last.get().unwrap().result, RunResult::InternalError);
    }
}
