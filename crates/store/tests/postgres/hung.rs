//! Durable commits that wait for a standby that is away.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use commpool_harness::postgres::Settings;
use commpool_store::StoreError;
use commpool_store::ops::accounts::{Put, PutReply};

use crate::pool::{ANSWER, NAME, add, open, register, route_to, start, until, with_cluster};

fn put(n: u8) -> Put {
    Put::Add { address: format!("user-{n}@example.com"), display_name: String::new() }
}

#[test]
fn a_durable_write_that_hangs_is_left_and_hinders_nobody() {
    with_cluster("a standby away", &Settings::default(), |cluster| async move {
        let store = open(&cluster);
        let fe = start(&store, 1).await.fe;
        let alice = add(&store, "alice").await;
        cluster.sql(NAME, "alter system set synchronous_standby_names = 'nobody'").unwrap();
        cluster.sql(NAME, "select pg_reload_conf()").unwrap();
        // The setting takes a moment to be heard of.
        let unknown = |answer: &Result<_, _>| matches!(answer, Err(StoreError::Unknown(_)));
        let next = AtomicU8::new(0);
        let another = || put(next.fetch_add(1, Ordering::Relaxed));
        let _ = until(&store, Duration::from_secs(10), another, unknown).await;
        // It keeps its locks, so those behind it are refused.
        let first = next.load(Ordering::Relaxed);
        for n in first..first + 5 {
            let asked = Instant::now();
            let answer = store.ask(put(n)).await;
            assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
            assert!(asked.elapsed() < ANSWER, "{:?}", asked.elapsed());
        }
        assert!(store.ask(register(alice, fe, 1, 1)).await.is_ok(), "soft writes go on");
        assert!(store.ask(route_to("alice")).await.is_ok());

        cluster.sql(NAME, "alter system reset synchronous_standby_names").unwrap();
        cluster.sql(NAME, "select pg_reload_conf()").unwrap();
        let done = until(&store, Duration::from_secs(10), || put(first), Result::is_ok).await;
        assert!(matches!(done, Ok(PutReply::Done(_))), "what was refused was not carried out: {done:?}");
        assert_eq!(store.ask(put(first - 1)).await, Ok(PutReply::Exists), "what hung was");
        store.close();
    });
}
