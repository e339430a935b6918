//! Leases that ran out: who sees them, who may end them, what an administrator is shown.

use commpool_model::ids::{Incarnation, Micros};
use commpool_model::presence::Availability;
use commpool_store::ops::endpoints::SweepLost;
use commpool_store::ops::front_ends::{List, Load, Reap, Reaped, Renew, Renewed, State, Status, Stop};
use commpool_store::ops::register::Reply;

use crate::bench::{Bench, Registration, contract, flow, publication};
use crate::subscribe::subscription;

const LOAD: Load = Load { connections: 7, links: 1 };

/// What a renewal tells: the store's clock and the leases that ran out.
fn renewed(b: &Bench, fe: Incarnation) -> (Micros, Vec<Incarnation>) {
    match b.ask(Renew { fe, state: State::Serving, load: LOAD }) {
        Renewed::Held { now, expired, .. } => (now, expired),
        Renewed::Gone => panic!("{fe:?} is gone"),
    }
}

contract! {
    a_renewal_tells_the_time_and_whose_lease_ran_out
    only_a_lease_that_ran_out_is_reaped
    the_reaped_ones_endpoints_are_lost_and_swept_by_others
    publications_of_the_reaped_end_in_their_time
    front_ends_are_listed_with_their_endpoints
}

fn a_renewal_tells_the_time_and_whose_lease_ran_out(b: &Bench) {
    let (first, second, third) = (b.start(true), b.start(false), b.start(false));
    assert_eq!(renewed(b, first), (b.now(), vec![]));
    b.pass(14);
    renewed(b, third);
    b.pass(1);
    assert_eq!(renewed(b, first), (b.now(), vec![second]));
    assert_eq!(renewed(b, second).1, [], "the owner of a lease that ran out may renew it");
    assert_eq!(renewed(b, first).1, []);
    b.pass(60);
    assert_eq!(renewed(b, first).1, [second, third]);
    b.ask(Stop { fe: second });
    assert_eq!(renewed(b, first).1, [third], "what is dead is no longer to be reaped");
}

fn only_a_lease_that_ran_out_is_reaped(b: &Bench) {
    let (first, second) = (b.start(true), b.start(false));
    let reap = Reap { by: first, target: second };
    b.pass(14);
    assert_eq!(b.ask(reap), Reaped::Alive);
    b.pass(1);
    assert_eq!(b.ask(Reap { by: Incarnation(99), target: second }), Reaped::Gone);
    assert_eq!(b.ask(reap), Reaped::Done);
    assert_eq!(b.ask(reap), Reaped::Done, "once more is as good");
    assert_eq!(b.ask(Reap { target: Incarnation(99), ..reap }), Reaped::Done);
    assert_eq!(b.ask(Renew { fe: second, state: State::Serving, load: Load::default() }), Renewed::Gone);
    assert_eq!(b.ask(Reap { by: second, target: first }), Reaped::Gone);
    let Renewed::Held { live, .. } = b.ask(Renew { fe: first, state: State::Serving, load: Load::default() }) else {
        panic!()
    };
    assert_eq!(live.iter().map(|front_end| front_end.fe).collect::<Vec<_>>(), [first]);
}

fn the_reaped_ones_endpoints_are_lost_and_swept_by_others(b: &Bench) {
    let (fe, other, alice) = (b.start(true), b.start(false), b.add("alice"));
    let endpoint = b.register(&Registration::new(alice, other, 1)).touched[0].endpoint.unwrap();
    b.publish(&publication(alice, flow(other, 1), 50, Availability::Busy));
    b.pass(16);
    assert_eq!(b.endpoints("alice")[0].lost_ms, None, "to reap is what counts, not the clock");
    assert_eq!(b.ask(Reap { by: fe, target: other }), Reaped::Done);
    assert_eq!(b.ask(Registration::new(alice, other, 1).cseq(2).0), Reply::Gone);
    b.pass(3);
    assert_eq!(b.endpoints("alice")[0].lost_ms, Some(3_000));
    b.pass(12);
    let swept = b.ask(SweepLost { fe, limit: 10 });
    assert_eq!((swept.endpoints, swept.changes.len()), (vec![endpoint], 1));
}

fn publications_of_the_reaped_end_in_their_time(b: &Bench) {
    let (fe, other) = (b.start(true), b.start(false));
    let (alice, carol, bob) = (b.add("alice"), b.add("carol"), b.add("bob"));
    b.ask(subscription(bob, fe, 1, &["alice", "carol"]));
    b.register(&Registration::new(alice, other, 1));
    let busy = publication(alice, flow(other, 1), 50, Availability::Busy);
    let (_, before) = b.publish(&busy);
    b.publish(&publication(carol, flow(other, 9), 60, Availability::Away));
    b.pass(16);
    assert_eq!(b.ask(Reap { by: fe, target: other }), Reaped::Done);
    b.register(&Registration::new(alice, fe, 1).cseq(2).on(flow(fe, 1)));
    let sweep = || b.ask(SweepLost { fe, limit: 10 });
    b.pass(600 - 16 - 1);
    assert_eq!(sweep().changes, []);
    b.pass(1);
    let swept = sweep();
    assert_eq!((swept.endpoints, swept.changes.len(), swept.more), (vec![], 2, false));
    let change = &swept.changes[0];
    assert_eq!((change.user, change.interest.as_slice()), (Some(alice), [fe].as_slice()));
    assert_eq!((change.state.publications.len(), change.state.devices.len()), (0, 1));
    assert!(change.version > before.version);
    assert_eq!((swept.changes[1].user, swept.changes[1].state.publications.len()), (Some(carol), 0));
    assert_eq!(sweep().changes, []);

    // Who has his publication from a front end that lives waits for that one first.
    b.publish(&publication(alice, flow(fe, 1), 51, Availability::Busy));
    b.pass(659);
    assert_eq!(sweep().changes, []);
    b.pass(1);
    assert_eq!(sweep().changes.len(), 1);
}

fn front_ends_are_listed_with_their_endpoints(b: &Bench) {
    let (first, second, alice) = (b.start(true), b.start(false), b.add("alice"));
    b.register(&Registration::new(alice, second, 1));
    b.register(&Registration::new(alice, second, 2));
    b.pass(5);
    renewed(b, first);
    b.pass(11);
    b.ask(Stop { fe: second });
    b.pass(2);
    let listed = b.ask(List).front_ends;
    let seen = |of: &Status| (of.fe, of.state, of.lease_ms, of.dead_ms, of.endpoints);
    let expected = [(first, State::Serving, 2_000, None, 0), (second, State::Dead, 0, Some(2_000), 2)];
    assert_eq!(listed.iter().map(seen).collect::<Vec<_>>(), expected);
    assert_eq!((listed[0].pod.as_str(), listed[0].build.as_str()), ("pod-0", "0.1.0"));
    assert_eq!(listed[0].load, LOAD);
}
