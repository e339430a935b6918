//! Incarnations: start, lease, stop, and the fence around the writes of a dead one.

use commpool_model::ids::Incarnation;
use commpool_model::presence::Availability;
use commpool_store::ops::endpoints::{Expire, FlowsLost, Marked, SweepLost};
use commpool_store::ops::front_ends::{Load, Renew, Renewed, Start, State, Stop};
use commpool_store::ops::presence::{Of, Published};
use commpool_store::ops::register::{Reply, Unregister, Unregistered};
use commpool_store::ops::subscribe::{self, End, Ended, Unwatch};

use crate::bench::{Bench, Registration, contract, flow, publication};
use crate::subscribe::subscription;

contract! {
    each_start_is_a_new_incarnation_and_a_repeat_is_not
    a_lease_is_held_until_reaped
    a_dead_incarnation_changes_nothing
}

fn each_start_is_a_new_incarnation_and_a_repeat_is_not(b: &Bench) {
    let start = |id: u8, alone| Start {
        pod: "pod-0".to_owned(),
        start_id: [id; 16],
        address: "10.0.0.1:5062".to_owned(),
        build: "0.1.0".to_owned(),
        alone,
    };
    let first = b.ask(start(1, true));
    assert_eq!((first.schema, first.epoch), (b.store.schema(), 1));
    assert_ne!(first.fe, Incarnation(0));
    assert_eq!(b.ask(start(1, true)), first);
    let second = b.ask(start(2, false));
    let live: Vec<_> = second.live.iter().map(|front_end| front_end.fe).collect();
    assert_eq!(live, [first.fe, second.fe]);
    assert_eq!((second.live[1].address.as_str(), second.live[1].state), ("10.0.0.1:5062", State::Starting));
    let third = b.ask(start(3, true));
    assert_eq!(third.live.len(), 1, "alone, it reaps the others");
    assert!(third.fe > second.fe && second.fe > first.fe);
    let back = b.ask(start(1, false));
    assert!(back.fe > third.fe, "a dead incarnation never comes back");
}

fn a_lease_is_held_until_reaped(b: &Bench) {
    let fe = b.start(true);
    let Renewed::Held { ms_left, live, .. } = b.ask(Renew { fe, state: State::Serving, load: Load::default() }) else {
        panic!()
    };
    assert_eq!((ms_left, live.len(), live[0].state), (15_000, 1, State::Serving));
    b.pass(3600);
    assert!(
        matches!(b.ask(Renew { fe, state: State::Draining, load: Load::default() }), Renewed::Held { .. }),
        "it ran out, nobody reaped"
    );
    b.ask(Stop { fe });
    assert_eq!(b.ask(Renew { fe, state: State::Serving, load: Load::default() }), Renewed::Gone);
    assert_eq!(b.ask(Renew { fe: Incarnation(99), state: State::Serving, load: Load::default() }), Renewed::Gone);
    b.ask(Stop { fe });
}

fn a_dead_incarnation_changes_nothing(b: &Bench) {
    let (old, alice, bob) = (b.start(true), b.add("alice"), b.add("bob"));
    let endpoint = b.register(&Registration::new(alice, old, 1).expires(30)).touched[0].endpoint.unwrap();
    let first = publication(alice, flow(old, 1), 50, Availability::Busy);
    let (tag, _) = b.publish(&first);
    let watch = subscription(bob, old, 1, &["alice"]);
    b.ask(watch.clone());
    let fe = b.start(true);
    let before = (b.endpoints("alice"), b.ask(Of { fe, users: vec![alice] }));

    assert_eq!(b.ask(Registration::new(alice, old, 1).cseq(2).0), Reply::Gone);
    assert_eq!(b.ask(Registration::new(alice, old, 2).0), Reply::Gone);
    assert_eq!(b.ask(Unregister { fe: old, user: alice, endpoints: None }), Unregistered::Gone);
    assert_eq!(b.ask(publication(alice, flow(old, 1), 60, Availability::Away)), Published::Gone);
    assert_eq!(b.ask(FlowsLost { fe: old, flows: vec![(alice, 1)] }), Marked::Gone);
    assert_eq!(b.ask(subscription(bob, old, 2, &["alice"])), subscribe::Reply::Gone);
    assert_eq!(b.ask(End { fe: old, dialogs: vec![(bob, watch.sub_id)] }), Ended::Gone);
    assert_eq!(b.ask(Unwatch { fe: old, users: vec![alice] }), Ended::Gone);
    assert!(b.ask(SweepLost { fe: old, limit: 1 }).gone);
    assert_eq!((b.endpoints("alice"), b.ask(Of { fe, users: vec![alice] })), before);
    b.pass(31);
    let due = Expire { fe: old, endpoints: vec![endpoint], publications: vec![(alice, tag)], subscriptions: vec![] };
    let expired = b.ask(due.clone());
    assert!(expired.gone && expired.endpoints.is_empty());
    assert_eq!(b.ask(Expire { fe, ..due }).endpoints, [endpoint]);
    let moved =
        b.ask(subscribe::Request { fe, origin: commpool_model::ids::Origin([77; 16]), initial: false, ..watch });
    assert!(matches!(moved, subscribe::Reply::Done { owner_before: Some(before), .. } if before == old));
}
