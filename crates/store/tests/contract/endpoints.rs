//! Lost flows, sweeping, expiry, listing.

use commpool_model::ids::UserRef;
use commpool_model::presence::Availability;
use commpool_store::ops::endpoints::{Expire, Find, FlowsLost, Marked, SweepLost, Timers};
use commpool_store::ops::presence::Of;
use commpool_store::ops::{FlowRef, Transport, front_ends, subscribe};

use crate::bench::{Bench, Registration, contract, flow, publication};
use crate::subscribe::subscription;

fn nothing(fe: commpool_model::ids::Incarnation) -> Expire {
    Expire { fe, endpoints: vec![], publications: vec![], subscriptions: vec![] }
}

fn watched(b: &Bench, fe: commpool_model::ids::Incarnation, watcher: UserRef, name: &str) {
    let done = b.ask(subscription(watcher, fe, 200, &[name]));
    assert!(matches!(done, subscribe::Reply::Done { .. }));
}

contract! {
    a_lost_flow_is_marked_only_where_the_row_names_it
    presence_outlives_a_lost_flow_by_its_grace
    a_register_in_the_grace_keeps_everything_quiet
    the_endpoints_of_a_dead_front_end_are_lost_since_its_death
    a_client_over_udp_is_expected_back_as_long_as_its_binding_lives
    sweeping_goes_by_chunks_and_cleans_up_after_the_dead
    the_longest_lost_are_swept_first
    dialogs_of_the_dead_are_forgotten_in_their_time
    what_no_timer_removed_is_swept_whoever_owns_it
    only_what_is_past_by_the_stores_clock_expires
    a_dialogs_row_lives_three_times_as_long_as_granted
    pages_of_endpoints_in_order
    timers_of_what_is_live_page_by_page
}

fn a_lost_flow_is_marked_only_where_the_row_names_it(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    b.register(&Registration::new(alice, fe, 1));
    b.register(&Registration::new(alice, fe, 2));
    b.register(&Registration::new(alice, fe, 1).cseq(2).on(flow(fe, 3)));
    assert_eq!(b.ask(FlowsLost { fe, flows: vec![(alice, 1)] }), Marked::Done(0), "it moved on");
    assert_eq!(b.ask(FlowsLost { fe, flows: vec![(alice, 2), (alice, 99)] }), Marked::Done(1));
    b.pass(2);
    assert_eq!(b.ask(FlowsLost { fe, flows: vec![(alice, 2)] }), Marked::Done(0), "once is enough");
    b.pass(1);
    let lost: Vec<_> = b.endpoints("alice").iter().map(|e| (e.flow.serial, e.lost_ms)).collect();
    assert_eq!(lost, [(3, None), (2, Some(3_000))]);
}

fn presence_outlives_a_lost_flow_by_its_grace(b: &Bench) {
    let (fe, alice, bob) = (b.start(true), b.add("alice"), b.add("bob"));
    watched(b, fe, bob, "alice");
    let plain = b.register(&Registration::new(alice, fe, 1).instance("urn:uuid:1", None)).touched[0].endpoint.unwrap();
    let outbound =
        b.register(&Registration::new(alice, fe, 2).instance("urn:uuid:2", Some(1))).touched[0].endpoint.unwrap();
    b.publish(&publication(alice, flow(fe, 1), 50, Availability::Available));
    b.ask(FlowsLost { fe, flows: vec![(alice, 1), (alice, 2)] });
    let quiet = |swept: &commpool_store::ops::endpoints::Swept| swept.endpoints.is_empty() && swept.changes.is_empty();
    b.pass(14);
    assert!(quiet(&b.ask(SweepLost { fe, limit: 10 })));
    assert_eq!(b.ask(Of { fe, users: vec![alice] }).states[0].1.publications.len(), 1);
    b.pass(1);
    let swept = b.ask(SweepLost { fe, limit: 10 });
    assert_eq!((swept.gone, swept.endpoints, swept.more), (false, vec![plain], false));
    let [change] = swept.changes.as_slice() else { panic!("{:?}", swept.changes) };
    assert_eq!((change.user, change.interest.as_slice()), (Some(alice), [fe].as_slice()));
    assert_eq!((change.state.publications.len(), change.state.devices.len()), (0, 1));
    b.pass(19);
    assert!(quiet(&b.ask(SweepLost { fe, limit: 10 })));
    b.pass(1);
    let swept = b.ask(SweepLost { fe, limit: 10 });
    assert_eq!(swept.endpoints, [outbound]);
    assert!(swept.changes[0].version > change.version && swept.changes[0].state.devices.is_empty());
    assert!(quiet(&b.ask(SweepLost { fe, limit: 10 })));
}

fn a_register_in_the_grace_keeps_everything_quiet(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    b.register(&Registration::new(alice, fe, 1));
    let (_, before) = b.publish(&publication(alice, flow(fe, 1), 50, Availability::Busy));
    b.ask(FlowsLost { fe, flows: vec![(alice, 1)] });
    b.pass(14);
    let done = b.register(&Registration::new(alice, fe, 1).cseq(2).on(flow(fe, 2)));
    assert_eq!(done.change, None);
    b.pass(60);
    let swept = b.ask(SweepLost { fe, limit: 10 });
    assert_eq!((swept.endpoints, swept.changes), (vec![], vec![]));
    let states = b.ask(Of { fe, users: vec![alice] }).states;
    assert_eq!((states[0].2, &states[0].1), (before.version, &before.state));
}

fn the_endpoints_of_a_dead_front_end_are_lost_since_its_death(b: &Bench) {
    let (old, alice) = (b.start(true), b.add("alice"));
    let endpoint = b.register(&Registration::new(alice, old, 1)).touched[0].endpoint.unwrap();
    b.pass(100);
    b.ask(front_ends::Stop { fe: old });
    b.pass(5);
    let fe = b.start(true);
    assert_eq!(b.endpoints("alice")[0].lost_ms, Some(5_000));
    b.pass(9);
    assert_eq!(b.ask(SweepLost { fe, limit: 10 }).endpoints, []);
    b.pass(1);
    assert_eq!(b.ask(SweepLost { fe, limit: 10 }).endpoints, [endpoint]);
}

fn a_client_over_udp_is_expected_back_as_long_as_its_binding_lives(b: &Bench) {
    let (old, alice) = (b.start(true), b.add("alice"));
    let over_udp = FlowRef { transport: Transport::Udp, ..flow(old, 1) };
    let endpoint = b.register(&Registration::new(alice, old, 1).on(over_udp)).touched[0].endpoint.unwrap();
    let left = b.endpoints("alice")[0].expires_ms / 1_000;
    b.ask(front_ends::Stop { fe: old });
    let fe = b.start(false);
    b.pass(left - 1);
    assert_eq!(b.ask(SweepLost { fe, limit: 10 }).endpoints, []);
    assert_eq!(b.endpoints("alice").len(), 1, "unreachable, but seen");
    b.pass(1);
    assert_eq!(b.ask(SweepLost { fe, limit: 10 }).endpoints, [endpoint]);
}

fn sweeping_goes_by_chunks_and_cleans_up_after_the_dead(b: &Bench) {
    let (old, watcher) = (b.start(true), b.add("watcher"));
    let users: Vec<_> = (0..5).map(|n| b.add(&format!("user-{n}"))).collect();
    for user in &users {
        b.register(&Registration::new(*user, old, 1));
    }
    watched(b, old, watcher, "user-0");
    let fe = b.start(true);
    b.pass(20);
    let mut swept = Vec::new();
    let mut calls = 0;
    loop {
        let part = b.ask(SweepLost { fe, limit: 2 });
        assert!(part.endpoints.len() <= 2);
        swept.extend(part.endpoints);
        calls += 1;
        if !part.more {
            break;
        }
    }
    let mut sorted = swept.clone();
    sorted.sort_unstable();
    assert_eq!((swept.len(), calls), (5, 4), "the last also forgot what the dead one watched");
    assert_eq!(swept, sorted);
    let change = b.register(&Registration::new(users[0], fe, 1)).change.unwrap();
    assert_eq!(change.interest, []);
}

fn the_longest_lost_are_swept_first(b: &Bench) {
    let (fe, alice, bob) = (b.start(true), b.add("alice"), b.add("bob"));
    let of_alice = b.register(&Registration::new(alice, fe, 1)).touched[0].endpoint.unwrap();
    let of_bob = b.register(&Registration::new(bob, fe, 2)).touched[0].endpoint.unwrap();
    b.ask(FlowsLost { fe, flows: vec![(bob, 2)] });
    b.pass(1);
    b.ask(FlowsLost { fe, flows: vec![(alice, 1)] });
    b.pass(20);
    let first = b.ask(SweepLost { fe, limit: 1 });
    assert_eq!((first.endpoints, first.more), (vec![of_bob], true));
    assert_eq!(b.ask(SweepLost { fe, limit: 1 }).endpoints, [of_alice]);
}

fn dialogs_of_the_dead_are_forgotten_in_their_time(b: &Bench) {
    let (old, bob) = (b.start(true), b.add("bob"));
    b.add("alice");
    let request = subscription(bob, old, 1, &["alice"]);
    b.ask(request.clone());
    let fe = b.start(true);
    let later = |n| subscribe::Request {
        fe,
        initial: false,
        origin: commpool_model::ids::Origin([n; 16]),
        expires: 0,
        ..request.clone()
    };
    let owner_before = |n| match b.ask(later(n)) {
        subscribe::Reply::Done { owner_before, .. } => owner_before,
        other => panic!("{other:?}"),
    };
    b.pass(3 * u64::from(request.expires) - 1);
    b.ask(SweepLost { fe, limit: 10 });
    assert_eq!(owner_before(2), Some(old), "it may still be taken over");
    assert_eq!(owner_before(3), None, "which ended it");

    let start = b.start(true);
    b.ask(subscribe::Request { fe: start, ..request.clone() });
    let fe = b.start(true);
    b.pass(3 * u64::from(request.expires));
    b.ask(SweepLost { fe, limit: 10 });
    let gone = b.ask(subscribe::Request { fe, ..later(4) });
    assert!(matches!(gone, subscribe::Reply::Done { owner_before: None, .. }));
}

fn what_no_timer_removed_is_swept_whoever_owns_it(b: &Bench) {
    let (fe, alice, bob) = (b.start(true), b.add("alice"), b.add("bob"));
    watched(b, fe, bob, "alice");
    let endpoint = b.register(&Registration::new(alice, fe, 1).expires(600)).touched[0].endpoint.unwrap();
    let request = subscription(bob, fe, 1, &["alice"]);
    let cseq = |b: &Bench| match b.ask(subscribe::Request { expires: 0, ..request.clone() }) {
        subscribe::Reply::Done { cseq, .. } => cseq,
        other => panic!("{other:?}"),
    };
    b.ask(request.clone());
    b.pass(659);
    assert_eq!(b.ask(SweepLost { fe, limit: 10 }).endpoints, [], "its owner comes first");
    b.pass(1);
    let swept = b.ask(SweepLost { fe, limit: 10 });
    assert_eq!((swept.endpoints, swept.changes.len(), swept.more), (vec![endpoint], 1, false));
    assert_eq!(swept.changes[0].interest, [fe]);

    b.pass(3 * 600 - 660 - 1);
    b.ask(SweepLost { fe, limit: 10 });
    assert_eq!(cseq(b), 1000, "the row is there until its time");
    b.ask(request.clone());
    b.pass(3 * 600);
    assert!(b.ask(SweepLost { fe, limit: 2 }).more, "two are past their time");
    assert!(!b.ask(SweepLost { fe, limit: 2 }).more);
    assert_eq!(cseq(b), 0);
}

fn only_what_is_past_by_the_stores_clock_expires(b: &Bench) {
    let (fe, alice, bob) = (b.start(true), b.add("alice"), b.add("bob"));
    watched(b, fe, bob, "alice");
    let short = b.register(&Registration::new(alice, fe, 1).expires(60)).touched[0].endpoint.unwrap();
    let long = b.register(&Registration::new(alice, fe, 2)).touched[0].endpoint.unwrap();
    let (on_short, _) = b.publish(&publication(alice, flow(fe, 1), 50, Availability::Available));
    let (on_long, _) = b.publish(&publication(alice, flow(fe, 2), 51, Availability::Busy));
    let due = Expire { endpoints: vec![short, long], publications: vec![(alice, on_long)], ..nothing(fe) };
    b.pass(59);
    let early = b.ask(due.clone());
    assert_eq!((early.endpoints, early.changes, early.gone), (vec![], vec![], false));
    b.pass(1);
    let expired = b.ask(due.clone());
    assert_eq!(expired.endpoints, [short]);
    let [change] = expired.changes.as_slice() else { panic!("{:?}", expired.changes) };
    let left: Vec<_> = change.state.publications.iter().map(|publication| publication.id).collect();
    assert_eq!((left, change.interest.as_slice()), (vec![on_long], [fe].as_slice()), "{on_short:?} went along");
    b.pass(540);
    let expired = b.ask(due.clone());
    assert_eq!((expired.endpoints.as_slice(), expired.changes.len()), ([].as_slice(), 1));
    assert_eq!(expired.changes[0].state.publications, []);
    assert_eq!(b.ask(due).changes, []);
}

fn a_dialogs_row_lives_three_times_as_long_as_granted(b: &Bench) {
    let (fe, bob) = (b.start(true), b.add("bob"));
    b.add("alice");
    let request = subscription(bob, fe, 1, &["alice"]);
    b.ask(request.clone());
    let due = Expire { subscriptions: vec![(bob, request.sub_id)], ..nothing(fe) };
    let known = |b: &Bench| matches!(b.ask(request.clone()), subscribe::Reply::Done { replay: true, .. });
    b.pass(3 * u64::from(request.expires) - 1);
    b.ask(due.clone());
    assert!(known(b));
    b.pass(1);
    b.ask(due);
    assert!(!known(b));
}

fn pages_of_endpoints_in_order(b: &Bench) {
    let (fe, alice, bob) = (b.start(true), b.add("alice"), b.add("bob"));
    for n in [3, 1, 2] {
        b.register(&Registration::new(alice, fe, n));
    }
    b.register(&Registration::new(bob, fe, 1));
    b.register(&Registration::new(bob, fe, 2).expires(10));
    b.pass(10);
    let mut all = Vec::new();
    let mut find = Find { limit: 3, ..Find::default() };
    let first = b.ask(find.clone());
    assert!(first.more);
    all.extend(first.rows);
    find.after = all.last().map(|(_, endpoint)| endpoint.id);
    let second = b.ask(find);
    assert!(!second.more);
    all.extend(second.rows);
    let seen: Vec<_> = all.iter().map(|(address, e)| (address.as_str(), e.flow.serial)).collect();
    let expected = ["alice@example.com", "alice@example.com", "alice@example.com", "bob@example.com"];
    assert_eq!(seen, expected.into_iter().zip([1, 2, 3, 1]).collect::<Vec<_>>());
    let one = |address: &str| Find { address: Some(address.to_owned()), limit: 2, ..Find::default() };
    let page = b.ask(one("alice@example.com"));
    assert_eq!((page.rows.len(), page.more), (2, true));
    let after = Some(page.rows[1].1.id);
    let rest = b.ask(Find { after, ..one("alice@example.com") });
    assert_eq!((rest.rows.len(), rest.more), (1, false));
    assert_eq!(b.ask(one("nobody@example.com")).rows, []);
}

fn timers_of_what_is_live_page_by_page(b: &Bench) {
    let (fe, alice, bob) = (b.start(true), b.add("alice"), b.add("bob"));
    b.register(&Registration::new(alice, fe, 1).expires(100));
    b.register(&Registration::new(bob, fe, 1).expires(5));
    b.publish(&publication(bob, flow(fe, 1), 50, Availability::Busy));
    b.pass(10);
    let mut request = Timers { limit: 1, ..Timers::default() };
    let first = b.ask(request);
    assert!(first.more);
    assert_eq!(first.endpoints.iter().map(|(id, ms)| (id.user(), *ms)).collect::<Vec<_>>(), [(alice.id, 90_000)]);
    assert_eq!(first.publications.iter().map(|(user, _, ms)| (*user, *ms)).collect::<Vec<_>>(), [(bob, 590_000)]);
    request.after = first.endpoints.last().map(|(id, _)| *id);
    request.after_publication = first.publications.last().map(|(user, id, _)| (*user, *id));
    let second = b.ask(request);
    assert_eq!(second.endpoints.iter().map(|(id, ms)| (id.user(), *ms)).collect::<Vec<_>>(), [(bob.id, 0)]);
    assert_eq!((second.publications, second.more), (vec![], false));
}
