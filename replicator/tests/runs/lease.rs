//! Two runs at once, runs that die, runs that are stopped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use commpool_model::directory::RunResult;
use commpool_replicator::cycle;
use commpool_replicator::fault::Fault;
use commpool_replicator::source::{Intake, Source};
use commpool_store::ops::directory::{LeaseKeep, LeaseKept, LeaseTake, LeaseTaken};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::lists::{List, Pool, people};

/// A list whose first entries were read, and whose end waits.
#[derive(Clone, Default)]
struct Slow {
    list: List,
    reading: Arc<Notify>,
    go_on: Arc<Notify>,
}

impl Source for Slow {
    async fn read(&self, intake: &mut Intake) -> Result<(), Fault> {
        self.list.read(intake).await?;
        self.reading.notify_one();
        self.go_on.notified().await;
        Ok(())
    }
}

/// A directory whose reading does not go well at all.
struct Panics;

impl Source for Panics {
    async fn read(&self, _: &mut Intake) -> Result<(), Fault> {
        panic!("as a library might")
    }
}

fn slow() -> Slow {
    Slow { list: List { entries: people(1..=3), ..List::default() }, ..Slow::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_at_once_one_runs() {
    for pool in Pool::both() {
        let slow = slow();
        let (job, source) = (pool.job(), slow.clone());
        let first = tokio::spawn(async move { cycle::run_from(source, job, "first", &CancellationToken::new()).await });
        slow.reading.notified().await;
        // By a clock that stands still every lease is always kept.
        let second = pool.run(&slow.list).await;
        assert_eq!(second.result, RunResult::Busy);
        assert!(second.message.contains("first") && second.message.contains("60 s left"), "{second:?}");
        slow.go_on.notify_one();
        assert_eq!(first.await.unwrap().counts.added, 3);
        assert!(!pool.run(&slow.list).await.counts.any(), "the lease was given back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_run_is_waited_for_until_its_lease_runs_out() {
    let pool = Pool::ticking();
    let slow = slow();
    let (job, source) = (pool.job(), slow.clone());
    let first = tokio::spawn(async move { cycle::run_from(source, job, "first", &CancellationToken::new()).await });
    slow.reading.notified().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    pool.seconds(57);
    let left = held(&pool).await;
    assert!(left <= 3_000, "{left} ms");
    assert_eq!(pool.run(&slow.list).await.counts.added, 3);
}

/// Milliseconds left of somebody's lease.
async fn held(pool: &Pool) -> u64 {
    let take = LeaseTake { name: "directory".to_owned(), holder: "curious".to_owned(), ttl_ms: 60_000 };
    match pool.store.ask(take).await.unwrap() {
        LeaseTaken::Held { ms_left, .. } => ms_left,
        taken => panic!("{taken:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_seen_to_live_is_not_waited_for() {
    let pool = Pool::ticking();
    let take = LeaseTake { name: "directory".to_owned(), holder: "alive".to_owned(), ttl_ms: 60_000 };
    let LeaseTaken::Taken(token) = pool.store.ask(take).await.unwrap() else { panic!("the lease is held") };
    let store = pool.store.clone();
    let keeper = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let keep = LeaseKeep { name: "directory".to_owned(), token, ttl_ms: 60_000 };
            assert_eq!(store.ask(keep).await, Ok(LeaseKept::Kept));
        }
    });
    let (began, slow) = (Instant::now(), slow());
    let outcome = pool.run(&slow.list).await;
    assert_eq!(outcome.result, RunResult::Busy);
    assert!(outcome.message.contains("alive") && began.elapsed() < Duration::from_secs(30), "{outcome:?}");
    keeper.abort();
    // Who gives it back lets the next one in at once.
    let job = pool.job();
    let waiting =
        tokio::spawn(async move { cycle::run_from(slow.list, job, "second", &CancellationToken::new()).await });
    let back = LeaseKeep { name: "directory".to_owned(), token, ttl_ms: 0 };
    assert_eq!(pool.store.ask(back).await, Ok(LeaseKept::Kept));
    assert_eq!(waiting.await.unwrap().counts.added, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_for_longer_than_anybody_waits_is_not_waited_for() {
    let pool = Pool::ticking();
    let take = LeaseTake { name: "directory".to_owned(), holder: "long".to_owned(), ttl_ms: 600_000 };
    assert!(matches!(pool.store.ask(take).await.unwrap(), LeaseTaken::Taken(_)));
    let began = Instant::now();
    assert_eq!(pool.run(&slow().list).await.result, RunResult::Busy);
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_can_be_stopped() {
    let pool = Pool::ticking();
    let take = LeaseTake { name: "directory".to_owned(), holder: "dead".to_owned(), ttl_ms: 60_000 };
    assert!(matches!(pool.store.ask(take).await.unwrap(), LeaseTaken::Taken(_)));
    let (job, stop, began) = (pool.job(), CancellationToken::new(), Instant::now());
    let stopped = stop.clone();
    let run = tokio::spawn(async move { cycle::run_from(slow().list, job, "second", &stopped).await });
    stop.cancel();
    assert!(run.await.unwrap().message.contains("asked to stop"));
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_lease_was_taken_writes_nothing() {
    for pool in Pool::both() {
        let slow = slow();
        let (job, source) = (pool.job(), slow.clone());
        let first = tokio::spawn(async move { cycle::run_from(source, job, "first", &CancellationToken::new()).await });
        slow.reading.notified().await;
        pool.seconds(61);
        let take = LeaseTake { name: "directory".to_owned(), holder: "second".to_owned(), ttl_ms: 60_000 };
        assert!(matches!(pool.store.ask(take).await.unwrap(), LeaseTaken::Taken(_)));
        slow.go_on.notify_one();
        let outcome = first.await.unwrap();
        assert_eq!((outcome.result, pool.users().await.len()), (RunResult::Busy, 0), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_while_it_reads_it_changes_nothing_and_gives_the_lease_back() {
    let pool = Pool::new();
    let slow = slow();
    let (job, source, stop) = (pool.job(), slow.clone(), CancellationToken::new());
    let stopped = stop.clone();
    let first = tokio::spawn(async move { cycle::run_from(source, job, "first", &stopped).await });
    slow.reading.notified().await;
    stop.cancel();
    let outcome = first.await.unwrap();
    assert_eq!(outcome.result, RunResult::ReadIncomplete);
    assert!(outcome.message.contains("asked to stop"), "{outcome:?}");
    assert_eq!(pool.run(&slow.list).await.counts.added, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_an_outcome() {
    let pool = Pool::new();
    let outcome = cycle::run_from(Panics, pool.job(), "test", &CancellationToken::new()).await;
    assert_eq!(outcome.result, RunResult::InternalError);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_needs_no_lease_and_writes_nothing() {
    let pool = Pool::new();
    let take = LeaseTake { name: "directory".to_owned(), holder: "other".to_owned(), ttl_ms: 60_000 };
    assert!(matches!(pool.store.ask(take).await.unwrap(), LeaseTaken::Taken(_)));
    let list = List { entries: people(1..=3), ..List::default() };
    let mut steps = 0;
    let planned = cycle::plan_from(&list, &pool.job(), |_, step| steps += usize::from(step.change.is_some())).await;
    let planned = planned.unwrap();
    assert_eq!((steps, planned.tally.counts.added, planned.held), (3, 3, false));
    assert!(pool.users().await.is_empty());
}
