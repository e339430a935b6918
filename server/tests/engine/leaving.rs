//! A front end that leaves: every flow is closed in time, evenly; and one that cannot serve any more.

use std::collections::BTreeSet;
use std::time::Duration;

use commpool_store::StoreError;

use super::bench::Pool;
use super::client::Client;

const SECOND: Duration = Duration::from_secs(1);

fn connected(pool: &mut Pool, flows: u32) {
    for n in 0..flows {
        pool.connect(&format!("198.51.{}.{}:40000", 100 + n / 250, n % 250));
    }
}

#[test]
fn thousands_of_flows_are_closed_evenly_before_the_end() {
    let mut pool = Pool::shared(Duration::from_secs(36));
    pool.pass(SECOND);
    connected(&mut pool, 5_000);
    pool.drain();
    // Nobody else is there to wait for: it begins after three seconds, and twelve are kept for the end.
    pool.pass(3 * SECOND - Duration::from_millis(1));
    assert!(pool.closed.is_empty());
    let mut each = Vec::new();
    for _ in 3..24 {
        let before = pool.closed.len();
        pool.pass(SECOND);
        each.push(pool.closed.len() - before);
    }
    assert!(each.iter().all(|flows| (228..250).contains(flows)), "{each:?}");
    let all: BTreeSet<_> = pool.closed.iter().collect();
    assert_eq!((all.len(), pool.closed.len()), (5_000, 5_000), "each of them, once");
    assert!(pool.drained());
}

#[test]
fn a_flow_with_an_open_request_is_closed_after_its_answer() {
    let mut pool = Pool::shared(Duration::from_secs(60));
    pool.pass(SECOND);
    pool.add_user("alice", "password");
    let flow = pool.connect("198.51.100.1:40000");
    let mut alice = Client::new(flow, "alice", "password", "desk");
    assert_eq!(alice.register(&mut pool, 600).status(), Some(200));
    connected(&mut pool, 10);
    pool.drain();
    pool.pass(5 * SECOND / 2);
    let challenge = {
        let draft = alice.draft("MESSAGE", "bob");
        alice.bare(&mut pool, &draft)
    };
    let mut draft = alice.draft("MESSAGE", "bob");
    draft.headers = alice.credentials(&challenge, &draft, 1);
    pool.hold_store = true;
    pool.send(flow, &draft.text());
    pool.pass(SECOND);
    assert_eq!((pool.closed.len(), pool.closed.contains(&flow)), (10, false));
    pool.release_store();
    pool.pass(SECOND);
    assert_eq!((pool.closed.len(), pool.closed.contains(&flow)), (11, true));
}

#[test]
fn who_comes_in_the_last_moment_is_sent_on_too() {
    let mut pool = Pool::shared(Duration::from_secs(60));
    pool.pass(SECOND);
    pool.drain();
    pool.pass(4 * SECOND);
    assert!(pool.drained());
    let flow = pool.connect("198.51.100.1:40000");
    assert!(!pool.drained());
    pool.pass(SECOND);
    assert_eq!(pool.closed, [flow]);
    assert!(pool.drained());
}

#[test]
fn a_build_that_the_store_has_left_behind_is_not_ready_and_says_why_until_a_renewal_succeeds() {
    let mut pool = Pool::shared(Duration::from_secs(60));
    pool.pass(SECOND);
    assert_eq!(pool.ready(), (true, None));
    // A store that is away is no reason.
    pool.fail = vec!["renew"];
    pool.pass(6 * SECOND);
    assert_eq!(pool.ready(), (true, None));

    let away = std::mem::replace(&mut pool.failure, StoreError::Schema { need: 4, found: 0 });
    pool.pass(2 * SECOND);
    let (ready, why) = pool.ready();
    assert!(!ready && why.as_ref().is_some_and(|why| why.contains("migrate")), "{why:?}");
    // Nor is it one to believe that all is well again.
    pool.failure = away;
    pool.pass(2 * SECOND);
    assert_eq!(pool.ready(), (false, why));

    pool.fail.clear();
    pool.pass(2 * SECOND);
    assert_eq!(pool.ready(), (true, None));
}
