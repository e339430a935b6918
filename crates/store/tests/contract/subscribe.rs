//! SUBSCRIBE, its end, and who watches whom; ACEs as they come with it and with routing.

use commpool_model::acl::Right;
use commpool_model::ids::{Incarnation, Key128, Origin, UserRef, Version};
use commpool_model::presence::Availability;
use commpool_store::ops::accounts::State;
use commpool_store::ops::assert::{Assert, Asserted, HeldSubscription};
use commpool_store::ops::route;
use commpool_store::ops::subscribe::{CSEQ_STEP, Dialog, End, Ended, Kind, Presentity, Reply, Request, Unwatch};

use crate::assert::nothing;
use crate::bench::{Bench, Registration, ace, contract, flow, publication};

/// An initial SUBSCRIBE; `n` makes dialog and transaction.
pub(crate) fn subscription(watcher: UserRef, fe: Incarnation, n: u8, presentities: &[&str]) -> Request {
    Request {
        watcher,
        watcher_address: "bob@example.com".to_owned(),
        origin: Origin([n; 16]),
        fe,
        endpoint: None,
        sub_id: Key128([n; 16]),
        initial: true,
        kind: Kind::Presence,
        presentities: presentities.iter().map(|name| format!("{name}@example.com")).collect(),
        held: Vec::new(),
        expires: 600,
        first_cseq: 1000,
        dialog: Dialog {
            call_id: format!("call-{n}"),
            local_tag: "ours".to_owned(),
            remote_tag: "theirs".to_owned(),
            remote_cseq: 1,
            contact: "sip:bob@192.0.2.1".to_owned(),
            route: vec!["<sip:a;lr>".to_owned(), "<sip:b;lr>".to_owned()],
            event_id: String::new(),
        },
    }
}

fn done(b: &Bench, request: Request) -> (bool, Option<Incarnation>, Vec<Option<Presentity>>) {
    match b.ask(request) {
        Reply::Done { replay, owner_before, cseq: _, presentities } => (replay, owner_before, presentities),
        other => panic!("{other:?}"),
    }
}

contract! {
    a_watcher_gets_state_rights_and_version
    a_state_that_is_held_and_current_is_not_sent_again
    interest_begins_with_the_dialog_and_ends_with_unwatch
    the_same_transaction_is_a_replay_and_its_twin_is_merged
    whoever_executes_a_subscribe_owns_the_dialog
    a_copy_at_another_front_end_takes_the_dialog_there
    the_notify_number_of_a_new_owner_is_ahead_of_every_owner_before
    expires_zero_reads_and_leaves_nothing
    a_dialog_about_nobody_leaves_nothing
    dialogs_past_their_time_do_not_keep_others_out
    routing_reads_only_the_entries_about_the_sender
}

fn a_watcher_gets_state_rights_and_version(b: &Bench) {
    let (fe, alice, bob) = (b.start(true), b.add("alice"), b.add("bob"));
    b.register(&Registration::new(alice, fe, 1));
    let (_, change) = b.publish(&publication(alice, flow(fe, 1), 50, Availability::Busy));
    let aces = vec![ace("", Right::Deny, Right::Unset), ace("bob@example.com", Right::Allow, Right::PoliteBlock)];
    b.set_aces(alice, aces.clone());
    let (replay, owner_before, presentities) = done(b, subscription(bob, fe, 1, &["alice", "nobody", "bob"]));
    assert_eq!((replay, owner_before, presentities.len()), (false, None, 3));
    let expected =
        Presentity { user: alice, state: State::On, aces, version: change.version, facts: Some(change.state) };
    assert_eq!((&presentities[0], &presentities[1]), (&Some(expected), &None));
    assert_eq!(presentities[2].as_ref().map(|bob| bob.version), Some(Version(0)));
    b.set_state("alice", State::Disabled);
    let (_, _, presentities) = done(b, subscription(bob, fe, 2, &["alice"]));
    assert_eq!(presentities[0].as_ref().map(|alice| alice.state), Some(State::Disabled));
}

fn a_state_that_is_held_and_current_is_not_sent_again(b: &Bench) {
    let (fe, alice, bob) = (b.start(true), b.add("alice"), b.add("bob"));
    let version = b.register(&Registration::new(alice, fe, 1)).change.unwrap().version;
    let held = |version| Request { held: vec![(alice, version)], ..subscription(bob, fe, 1, &["alice"]) };
    let facts = |request| done(b, request).2.remove(0).unwrap().facts;
    assert_eq!(facts(held(version)), None);
    assert!(facts(held(Version(version.0 - 1))).is_some());
}

fn interest_begins_with_the_dialog_and_ends_with_unwatch(b: &Bench) {
    let (fe, alice, bob) = (b.start(true), b.add("alice"), b.add("bob"));
    let second = b.start(false);
    let interested = |n| b.publish(&publication(alice, flow(fe, 1), n, Availability::Busy)).1.interest;
    assert_eq!(interested(1), []);
    done(b, subscription(bob, second, 1, &["alice"]));
    done(b, subscription(bob, fe, 2, &["alice"]));
    done(b, subscription(bob, fe, 3, &["alice"]));
    assert_eq!(interested(2), [fe, second]);
    assert_eq!(b.ask(End { fe, dialogs: vec![(bob, Key128([2; 16]))] }), Ended::Done);
    assert_eq!(interested(3), [fe, second], "only unwatch ends it");
    assert_eq!(b.ask(Unwatch { fe, users: vec![alice] }), Ended::Done);
    assert_eq!(interested(4), [second]);
}

fn the_same_transaction_is_a_replay_and_its_twin_is_merged(b: &Bench) {
    let (fe, bob) = (b.start(true), b.add("bob"));
    b.add("alice");
    let first = subscription(bob, fe, 1, &["alice"]);
    done(b, first.clone());
    assert!(done(b, first.clone()).0);
    let other_way = Request { origin: Origin([9; 16]), ..first.clone() };
    assert_eq!(b.ask(other_way.clone()), Reply::Merged);
    let mut refresh = Request { initial: false, origin: Origin([10; 16]), ..first.clone() };
    refresh.dialog.remote_cseq = 2;
    assert!(!done(b, refresh).0);
    let mut anew = Request { origin: Origin([11; 16]), ..first };
    anew.dialog.remote_cseq = 3;
    assert!(!done(b, anew).0, "another CSeq is another request");
    assert!(!done(b, other_way).0);
}

fn a_copy_at_another_front_end_takes_the_dialog_there(b: &Bench) {
    let (fe, bob) = (b.start(true), b.add("bob"));
    b.add("alice");
    let second = b.start(false);
    let first = subscription(bob, fe, 1, &["alice"]);
    done(b, first.clone());
    let copy = Request { fe: second, ..first.clone() };
    let (replay, owner_before, _) = done(b, copy.clone());
    assert_eq!((replay, owner_before), (false, Some(fe)));
    let (replay, owner_before, _) = done(b, copy);
    assert_eq!((replay, owner_before), (true, None), "and there it is a replay");
    assert_eq!(b.ask(End { fe, dialogs: vec![(bob, first.sub_id)] }), Ended::Done);
    assert!(done(b, Request { fe: second, ..first }).0, "who has lost it cannot end it");
}

fn whoever_executes_a_subscribe_owns_the_dialog(b: &Bench) {
    let (fe, bob) = (b.start(true), b.add("bob"));
    b.add("alice");
    let second = b.start(false);
    let first = subscription(bob, fe, 1, &["alice"]);
    done(b, first.clone());
    let mut moved = Request { initial: false, origin: Origin([9; 16]), fe: second, ..first.clone() };
    moved.dialog.remote_cseq = 2;
    assert_eq!(done(b, moved).1, Some(fe));
    assert_eq!(b.ask(End { fe, dialogs: vec![(bob, first.sub_id)] }), Ended::Done);
    let mut back = Request { initial: false, origin: Origin([10; 16]), ..first };
    back.dialog.remote_cseq = 3;
    assert_eq!(done(b, back).1, Some(second), "the end at the old owner did not touch it");
}

fn the_notify_number_of_a_new_owner_is_ahead_of_every_owner_before(b: &Bench) {
    let (fe, bob) = (b.start(true), b.add("bob"));
    b.add("alice");
    let cseq = |request: Request| match b.ask(request) {
        Reply::Done { cseq, .. } => cseq,
        other => panic!("{other:?}"),
    };
    let first = subscription(bob, fe, 1, &["alice"]);
    assert_eq!(cseq(first.clone()), 0);
    let mut again = Request { initial: false, origin: Origin([2; 16]), ..first };
    again.dialog.remote_cseq = 2;
    assert_eq!(cseq(again.clone()), 1000);
    again.origin = Origin([3; 16]);
    assert_eq!(cseq(again.clone()), 1000 + CSEQ_STEP);
    again = Request { origin: Origin([4; 16]), first_cseq: 5000, ..again };
    assert_eq!(cseq(again.clone()), 1000 + 2 * CSEQ_STEP);
    again.origin = Origin([5; 16]);
    assert_eq!(cseq(again), 5000);
}

fn expires_zero_reads_and_leaves_nothing(b: &Bench) {
    let (fe, alice, bob) = (b.start(true), b.add("alice"), b.add("bob"));
    let fetch = Request { expires: 0, ..subscription(bob, fe, 1, &["alice"]) };
    assert!(done(b, fetch.clone()).2[0].is_some());
    assert!(!done(b, fetch).0, "no row that a replay would be known by");
    assert_eq!(b.publish(&publication(alice, flow(fe, 1), 1, Availability::Busy)).1.interest, []);
    let first = subscription(bob, fe, 2, &["alice"]);
    done(b, first.clone());
    let mut end = Request { expires: 0, initial: false, origin: Origin([9; 16]), ..first.clone() };
    end.dialog.remote_cseq = 2;
    done(b, end);
    assert!(!done(b, first).0, "the row has gone");
}

fn a_dialog_about_nobody_leaves_nothing(b: &Bench) {
    let (fe, bob) = (b.start(true), b.add("bob"));
    let request = subscription(bob, fe, 1, &["nobody"]);
    assert_eq!(done(b, request.clone()).2, [None]);
    assert!(!done(b, request).0);
}

fn dialogs_past_their_time_do_not_keep_others_out(b: &Bench) {
    let (fe, bob) = (b.start(true), b.add("bob"));
    b.add("alice");
    let dialog = |n: u32| {
        let mut request = Request { expires: 1, ..subscription(bob, fe, 1, &["alice"]) };
        request.sub_id.0[..4].copy_from_slice(&n.to_be_bytes());
        request.origin.0[..4].copy_from_slice(&n.to_be_bytes());
        request
    };
    for part in (0..5000).collect::<Vec<u32>>().chunks(500) {
        for outcome in b.many(part.iter().map(|n| dialog(*n).into()).collect()) {
            outcome.unwrap();
        }
    }
    let held = HeldSubscription {
        watcher: bob,
        sub_id: Key128([200; 16]),
        origin: Origin([200; 16]),
        endpoint: None,
        kind: Kind::Presence,
        presentities: vec!["alice@example.com".to_owned()],
        expires: 60,
        cseq: 1,
        dialog: Dialog::default(),
    };
    let held = Assert { subscriptions: vec![held], ..nothing(fe) };
    let room = |b: &Bench, n| !matches!(b.ask(dialog(n)), Reply::TooMany);
    assert!(!room(b, 5000));
    assert!(matches!(b.ask(held.clone()), Asserted::Done(kept) if kept.subscriptions == 0));
    b.pass(3);
    assert!(room(b, 5000));
    assert!(matches!(b.ask(held), Asserted::Done(kept) if kept.subscriptions == 1));
}

fn routing_reads_only_the_entries_about_the_sender(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    b.register(&Registration::new(alice, fe, 1));
    let everybody = ace("", Right::Unset, Right::Deny);
    let domain = ace("example.com", Right::Unset, Right::Allow);
    let bob = ace("bob@example.com", Right::Deny, Right::Deny);
    b.set_aces(
        alice,
        vec![bob.clone(), domain.clone(), everybody.clone(), ace("eve@example.org", Right::Deny, Right::Deny)],
    );
    let route = |target: &str, sender: &str| {
        b.ask(route::Request { target: target.to_owned(), sender: sender.to_owned() }).found
    };
    let target = route("alice@example.com", "bob@example.com").unwrap();
    assert_eq!((target.user, target.state, target.endpoints.len()), (alice, State::On, 1));
    assert_eq!(target.aces, [everybody.clone(), bob, domain]);
    assert_eq!(route("alice@example.com", "carol@example.net").unwrap().aces, [everybody]);
    assert_eq!(route("nobody@example.com", "bob@example.com"), None);
    b.set_state("alice", State::Disabled);
    let target = route("alice@example.com", "bob@example.com").unwrap();
    assert_eq!((target.state, target.endpoints.len()), (State::Disabled, 1), "shown with its state");
}
