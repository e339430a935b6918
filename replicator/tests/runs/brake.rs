//! What keeps a directory from taking the service from many at once.

use commpool_model::directory::RunResult;
use commpool_replicator::entry::Entry;
use commpool_replicator::fault::{Fault, Kind};

use crate::lists::{List, Pool, people, person};

fn list(entries: Vec<Entry>) -> List {
    List { entries, ..List::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_missing_are_held_and_released_by_their_digest_alone() {
    for mut pool in Pool::both() {
        pool.synced(&people(1..=40)).await;
        let before = pool.known().await;
        // Even what has nothing to do with it waits: half a plan is none.
        let gone = list(people(10..=41));
        let held = pool.run(&gone).await;
        assert_eq!((held.result, held.counts.missing, held.counts.added), (RunResult::DeletionHeld, 9, 1), "{held:?}");
        assert!(held.message.contains("9 of 40 users") && held.message.contains(&held.plan_digest), "{held:?}");
        assert_eq!(pool.known().await, before);

        pool.config.removal.release_digest = "0123456789abcdef".to_owned();
        let still = pool.run(&gone).await;
        assert_eq!((still.result, &still.plan_digest), (RunResult::DeletionHeld, &held.plan_digest));
        pool.config.removal.release_digest = held.plan_digest.clone();
        let other = pool.run(&list(people(11..=41))).await;
        assert_eq!(other.result, RunResult::DeletionHeld, "the digest of one plan releases no other");
        assert_eq!(pool.known().await, before);

        let released = pool.run(&gone).await;
        assert_eq!((released.result, released.counts.missing), (RunResult::Synced, 9));
        assert_eq!(pool.users().await.iter().filter(|user| user.ends_with("lapsed")).count(), 9);
        assert!(!pool.run(&gone).await.counts.any());

        // A release is used up: the same accident once more is held once more.
        assert_eq!(pool.run(&list(people(1..=41))).await.counts.added, 9);
        let again = pool.run(&gone).await;
        assert_eq!((again.result, again.counts.missing), (RunResult::DeletionHeld, 9));
        assert_ne!(again.plan_digest, held.plan_digest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_directory_that_recovers_was_never_gone() {
    let pool = Pool::new();
    pool.synced(&people(1..=40)).await;
    assert_eq!(pool.run(&list(people(20..=40))).await.result, RunResult::DeletionHeld);
    assert!(!pool.synced(&people(1..=40)).await.counts.any());
}

#[tokio::test(flavor = "multi_thread")]
async fn disabled_in_words_is_never_held() {
    let pool = Pool::new();
    pool.synced(&people(1..=40)).await;
    let off = |n: u8| person(n, &format!("p{n}@example.com"), &[("userAccountControl", &["514"])]);
    let outcome = pool.synced(&(1..=40).map(off).collect::<Vec<_>>()).await;
    assert_eq!(outcome.counts.disabled, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_cannot_be_read_brings_nobody_back() {
    let pool = Pool::new();
    let off = |n: u8| person(n, &format!("p{n}@example.com"), &[("userAccountControl", &["514"])]);
    let all: Vec<Entry> = people(1..=3).into_iter().chain((4..=9).map(off)).collect();
    pool.synced(&people(1..=9)).await;
    assert_eq!(pool.synced(&all).await.counts.disabled, 6);
    let before = pool.known().await;
    let veiled = all.iter().cloned().map(|mut entry| {
        entry.attributes.retain(|(name, _)| name != "useraccountcontrol");
        entry
    });
    let veiled: Vec<Entry> = veiled.collect();
    let mut few = all.clone();
    few[8] = veiled[8].clone();
    assert!(!pool.run(&list(few)).await.counts.any(), "one who is off, and does not say so any more, stays off");
    // Those who are on lose the service, which the directory did not say of them: many are held.
    pool.synced(&people(1..=9)).await;
    let outcome = pool.run(&list(veiled)).await;
    assert_eq!((outcome.result, outcome.counts.disabled), (RunResult::DeletionHeld, 9), "{outcome:?}");
    assert_eq!(pool.known().await.len(), before.len());
    assert!(pool.users().await.iter().all(|user| user.ends_with(" on")));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_missing_are_held_though_they_are_switched_off() {
    let pool = Pool::new();
    pool.synced(&people(1..=40)).await;
    let off = |n: u8| person(n, &format!("p{n}@example.com"), &[("userAccountControl", &["514"])]);
    let all: Vec<Entry> = people(1..=20).into_iter().chain((21..=40).map(off)).collect();
    pool.synced(&all).await;
    // Nothing is asked again when the grace is over, and with them goes what they could come back to.
    let outcome = pool.run(&list(people(1..=20))).await;
    assert_eq!((outcome.result, outcome.counts.missing), (RunResult::DeletionHeld, 20), "{outcome:?}");
    pool.days(8);
    assert_eq!(pool.run(&list(people(1..=20))).await.counts.removed, 0);
    assert_eq!(pool.users().await.len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_vanish_from_many_entries_are_held() {
    let pool = Pool::new();
    pool.synced(&people(1..=40)).await;
    let without = |last| (1..=last).map(|n| person(n, "", &[])).chain(people(last + 1..=40)).collect();
    let outcome = pool.run(&list(without(39))).await;
    assert_eq!((outcome.result, outcome.counts.disabled), (RunResult::DeletionHeld, 39));
    assert!(pool.users().await.iter().all(|user| user.ends_with(" on")));
    // From all of them: then it is the reading that is at fault.
    let outcome = pool.run(&list(without(40))).await;
    assert_eq!((outcome.result, outcome.plan_digest.as_str()), (RunResult::ReadIncomplete, ""));
    assert!(outcome.message.contains("none of 40 entries has an address"), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_addresses_for_many_are_held() {
    let primary = "msRTCSIP-PrimaryUserAddress";
    let named = |n: u8| person(n, &format!("mail{n}@example.com"), &[(primary, &[&format!("sip:p{n}@example.com")])]);
    let mut pool = Pool::new();
    pool.synced(&(1..=40).map(named).collect::<Vec<_>>()).await;
    // The account may not read the attribute any more: mail, which comes next, gives everybody another address.
    let mut veiled: Vec<Entry> = (1..=40).map(named).collect();
    veiled.iter_mut().for_each(|entry| entry.attributes.retain(|(name, _)| *name != primary.to_ascii_lowercase()));
    let outcome = pool.run(&list(veiled.clone())).await;
    assert_eq!((outcome.result, outcome.counts.changed), (RunResult::DeletionHeld, 40), "{outcome:?}");
    assert!(outcome.message.contains("40 of 40 users"), "{outcome:?}");
    assert!(pool.users().await.iter().all(|user| user.starts_with('p')));
    pool.config.removal.release_digest = outcome.plan_digest;
    let mut others = veiled.clone();
    others[0] = person(1, "else@example.com", &[]);
    assert_eq!(pool.run(&list(others)).await.result, RunResult::DeletionHeld, "that is another plan");
    assert_eq!(pool.run(&list(veiled.clone())).await.result, RunResult::Synced);
    // Some may be renamed on any day.
    let few = veiled.iter().skip(5).cloned();
    let few: Vec<Entry> = (1..=5).map(|n| person(n, &format!("new{n}@example.com"), &[])).chain(few).collect();
    assert_eq!(pool.synced(&few).await.counts.changed, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sees_only_what_everybody_sees_takes_nobody_away() {
    let mut pool = Pool::new();
    pool.synced(&people(1..=3)).await;
    pool.config.removal.max_percent = 100;
    let built_in = Entry::new("CN=Guests", &[("objectGUID", &["0123456789abcdef"])]);
    let outcome = pool.run(&list(vec![built_in])).await;
    assert_eq!(outcome.result, RunResult::ReadIncomplete, "{outcome:?}");
    assert_eq!(pool.users().await, ["p1 on", "p2 on", "p3 on"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_answer_is_none() {
    let mut pool = Pool::new();
    let outcome = pool.run(&List::default()).await;
    // Whoever has just set this up must not be told that all is well.
    assert_eq!((outcome.result, outcome.found), (RunResult::ReadIncomplete, 0));
    assert!(outcome.message.contains("the filter finds nobody: nothing"), "{outcome:?}");
    pool.synced(&people(1..=2)).await;
    let outcome = pool.run(&List::default()).await;
    assert_eq!((outcome.result, outcome.plan_digest.as_str()), (RunResult::ReadIncomplete, ""));
    assert!(outcome.message.contains("finds nobody, and there are 2 users"), "{outcome:?}");
    pool.config.removal.max_percent = 100;
    assert_eq!(pool.run(&List::default()).await.result, RunResult::ReadIncomplete);
    assert_eq!(pool.users().await, ["p1 on", "p2 on"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_read_that_can_bring_nobody_is_none() {
    let mut pool = Pool::new();
    let without = |n| person(n, "", &[]);
    let outcome = pool.run(&list((1..=3).map(without).collect())).await;
    assert_eq!(outcome.result, RunResult::ReadIncomplete, "{outcome:?}");
    assert!(outcome.message.contains("none of 3 entries has an address: the account"), "{outcome:?}");
    let veiled = |n| person(n, &format!("p{n}@example.com"), &[("userAccountControl", &["?"])]);
    let outcome = pool.run(&list((1..=3).map(veiled).collect())).await;
    assert_eq!(outcome.result, RunResult::ReadIncomplete, "{outcome:?}");
    assert!(outcome.message.contains("says whether it may sign in"), "{outcome:?}");
    pool.config.mapping.enabled.group = "CN=Domain Users,DC=example,DC=com".to_owned();
    let outcome = pool.run(&list(people(1..=3))).await;
    assert_eq!(outcome.result, RunResult::ReadIncomplete, "{outcome:?}");
    assert!(outcome.message.contains("is in the group: nothing was changed; a primary group"), "{outcome:?}");
    let members = List { members: people(2..=2), ..list(people(1..=3)) };
    assert_eq!((pool.run(&members).await.counts.added, pool.users().await), (1, vec!["p2 on".to_owned()]));
    // All switched off is an answer: a class that has not begun.
    let pool = Pool::new();
    let off = |n| person(n, &format!("p{n}@example.com"), &[("userAccountControl", &["514"])]);
    assert!(!pool.synced(&(1..=3).map(off).collect::<Vec<_>>()).await.counts.any());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_did_not_end_changes_nothing() {
    for (kind, result) in [
        (Kind::Broken, RunResult::ReadIncomplete),
        (Kind::Incomplete, RunResult::ReadIncomplete),
        (Kind::Refused, RunResult::DirectoryRefused),
        (Kind::Unreachable, RunResult::DirectoryUnavailable),
    ] {
        let pool = Pool::new();
        pool.synced(&people(1..=3)).await;
        let before = pool.known().await;
        let fault = Some(Fault::new(kind, "told so"));
        let outcome = pool.run(&List { entries: people(3..=9), members: Vec::new(), fault }).await;
        assert_eq!((outcome.result, outcome.message.as_str()), (result, "told so"));
        assert_eq!(pool.known().await, before);
    }
}
