//! What a front end holds, said again after the store lost some of it.

use commpool_model::ids::{EndpointId, Incarnation, Key128, UserRef};
use commpool_model::presence::Availability;
use commpool_store::ops::Endpoint;
use commpool_store::ops::accounts::State;
use commpool_store::ops::assert::{Assert, Asserted, HeldEndpoint, HeldPublication, HeldSubscription, Kept};
use commpool_store::ops::endpoints::FlowsLost;
use commpool_store::ops::front_ends::Stop;
use commpool_store::ops::presence::{Action, Of, Published};
use commpool_store::ops::register::Unregister;
use commpool_store::ops::subscribe::{End, Reply, Request, Unwatch};

use crate::bench::{Bench, Registration, again, contract, flow, publication};
use crate::subscribe::subscription;

pub(crate) fn nothing(fe: Incarnation) -> Assert {
    Assert { fe, endpoints: vec![], publications: vec![], interest: vec![], subscriptions: vec![] }
}

fn kept(b: &Bench, request: Assert) -> Kept {
    match b.ask(request) {
        Asserted::Done(kept) => kept,
        Asserted::Gone => panic!("it is gone"),
    }
}

/// What a front end remembers of a REGISTER that it carried out.
fn held(request: &Registration, endpoint: &Endpoint, refreshed_ms: u64) -> HeldEndpoint {
    let commpool_store::ops::register::Contacts::Each(bindings) = &request.0.contacts else { panic!() };
    let endpoint = endpoint.clone();
    HeldEndpoint { key: bindings[0].key, origin: request.0.origin, cseq: request.0.cseq, refreshed_ms, endpoint }
}

/// The publication that [`publication`] makes, as its front end remembers it.
fn published(user: UserRef, n: u8, endpoint: Option<EndpointId>, updated_ms: u64) -> HeldPublication {
    let request = publication(user, flow(Incarnation(1), u32::from(n)), n, Availability::Busy);
    let Action::Set { expires, state, document } = request.action else { unreachable!() };
    HeldPublication {
        user,
        id: request.tag,
        tag: request.tag,
        serial: u32::from(n),
        endpoint,
        state: *state,
        document,
        since_ms: updated_ms,
        updated_ms,
        expires_ms: u64::from(expires) * 1000 - updated_ms,
    }
}

/// A dialog as its owner remembers it.
fn dialog(request: &Request, cseq: u32) -> HeldSubscription {
    HeldSubscription {
        watcher: request.watcher,
        sub_id: request.sub_id,
        origin: request.origin,
        endpoint: request.endpoint,
        kind: request.kind,
        presentities: request.presentities.clone(),
        expires: request.expires,
        cseq,
        dialog: request.dialog.clone(),
    }
}

contract! {
    what_was_lost_is_there_again
    what_is_there_already_is_left_alone
    a_newer_row_stays
    an_older_row_gives_way
    only_who_may_sign_in_is_asserted
    the_bounds_of_a_user_hold
    a_dead_front_end_asserts_nothing
}

fn what_was_lost_is_there_again(b: &Bench) {
    let (fe, alice, bob) = (b.start(true), b.add("alice"), b.add("bob"));
    let register = Registration::new(alice, fe, 1).instance("urn:uuid:1", Some(1));
    let endpoint = b.register(&register).bindings.remove(0);
    b.publish(&publication(alice, flow(fe, 1), 1, Availability::Busy));
    let watch = Request { endpoint: None, ..subscription(bob, fe, 1, &["alice"]) };
    b.ask(watch.clone());
    b.pass(10);
    let (endpoints, states) = (b.endpoints("alice"), b.ask(Of { fe, users: vec![alice] }).states);
    b.ask(Unregister { fe, user: alice, endpoints: None });
    b.ask(End { fe, dialogs: vec![(bob, watch.sub_id)] });
    b.ask(Unwatch { fe, users: vec![alice] });
    assert_eq!(b.endpoints("alice"), []);

    let request = Assert {
        endpoints: vec![held(
            &register,
            &Endpoint { age_ms: 10_000, expires_ms: 3_590_000, ..endpoint.clone() },
            10_000,
        )],
        publications: vec![published(alice, 1, Some(endpoint.id), 10_000)],
        interest: vec![alice],
        subscriptions: vec![dialog(&watch, 1000)],
        ..nothing(fe)
    };
    let all = Kept { endpoints: 1, publications: 1, interest: 1, subscriptions: 1, ..Kept::default() };
    assert_eq!(kept(b, request.clone()), all);
    assert_eq!(b.endpoints("alice"), endpoints);
    let now = b.ask(Of { fe, users: vec![alice] }).states;
    assert_eq!(now[0].1, states[0].1);
    assert!(now[0].2 > states[0].2, "who read meanwhile hears of it");
    let replay = b.register(&register);
    assert_eq!((replay.replay, replay.bindings), (true, endpoints), "order and replay are known too");
    assert!(matches!(b.ask(watch), Reply::Done { replay: true, .. }));
    let (_, change) = b.publish(&again(
        &publication(alice, flow(fe, 1), 1, Availability::Busy),
        2,
        Key128([1; 16]),
        Action::Refresh { expires: 60 },
    ));
    assert_eq!((change.version, change.interest), (now[0].2, vec![]));
    assert_eq!(b.publish(&publication(alice, flow(fe, 1), 3, Availability::Away)).1.interest, [fe]);
    assert_eq!(kept(b, request).lost_publications, [], "an old word about what has been replaced is forgiven");
}

fn what_is_there_already_is_left_alone(b: &Bench) {
    let (fe, alice, bob) = (b.start(true), b.add("alice"), b.add("bob"));
    let register = Registration::new(alice, fe, 1);
    let endpoint = b.register(&register).bindings.remove(0);
    let version = b.publish(&publication(alice, flow(fe, 1), 1, Availability::Busy)).1.version;
    let watch = subscription(bob, fe, 1, &["alice"]);
    b.ask(watch.clone());
    b.pass(10);
    let before = b.endpoints("alice");
    let request = Assert {
        endpoints: vec![held(&register, &Endpoint { expires_ms: 1, ..endpoint.clone() }, 10_000)],
        publications: vec![published(alice, 1, Some(endpoint.id), 10_000)],
        interest: vec![alice],
        subscriptions: vec![dialog(&watch, 1000)],
        ..nothing(fe)
    };
    let all = Kept { endpoints: 1, publications: 1, interest: 1, subscriptions: 1, ..Kept::default() };
    assert_eq!(kept(b, request), all);
    assert_eq!(b.endpoints("alice"), before);
    assert_eq!(b.ask(Of { fe, users: vec![alice] }).states[0].2, version, "no news");
}

fn a_newer_row_stays(b: &Bench) {
    let (old, alice, bob) = (b.start(true), b.add("alice"), b.add("bob"));
    let fe = b.start(false);
    let first = Registration::new(alice, old, 1);
    let endpoint = b.register(&first).bindings.remove(0);
    let initial = publication(alice, flow(old, 1), 1, Availability::Busy);
    b.publish(&initial);
    let watch = subscription(bob, old, 1, &["alice"]);
    b.ask(watch.clone());
    b.pass(10);
    b.register(&Registration::new(alice, fe, 1).cseq(2).on(flow(fe, 1)));
    b.publish(&again(&initial, 2, initial.tag, Action::Refresh { expires: 600 }));
    let mut moved = Request { fe, initial: false, origin: commpool_model::ids::Origin([9; 16]), ..watch.clone() };
    moved.dialog.remote_cseq = 2;
    b.ask(moved);
    let before = (b.endpoints("alice"), b.ask(Of { fe, users: vec![alice] }).states);
    let request = Assert {
        endpoints: vec![held(&first, &endpoint, 0)],
        publications: vec![published(alice, 1, Some(endpoint.id), 10_000)],
        subscriptions: vec![dialog(&watch, 1001)],
        ..nothing(old)
    };
    let lost = Kept {
        lost_endpoints: vec![endpoint.id],
        lost_publications: vec![(alice, initial.tag)],
        lost_subscriptions: vec![(bob, watch.sub_id)],
        ..Kept::default()
    };
    assert_eq!(kept(b, request), lost);
    assert_eq!((b.endpoints("alice"), b.ask(Of { fe, users: vec![alice] }).states), before);

    let other_call = held(&Registration::new(alice, old, 1).call("another").cseq(9), &endpoint, 10_001);
    let later = HeldEndpoint { refreshed_ms: 0, ..other_call.clone() };
    let call_id = "another".to_owned();
    let of = |held: HeldEndpoint| {
        let endpoint = Endpoint { call_id: call_id.clone(), ..held.endpoint };
        Assert { endpoints: vec![HeldEndpoint { endpoint, ..held }], ..nothing(old) }
    };
    b.pass(10);
    assert_eq!(kept(b, of(other_call)).endpoints, 0, "between Calls the time decides");
    assert_eq!(kept(b, of(later)).endpoints, 1);
}

fn an_older_row_gives_way(b: &Bench) {
    let (old, alice, bob) = (b.start(true), b.add("alice"), b.add("bob"));
    let fe = b.start(false);
    b.register(&Registration::new(alice, old, 1));
    b.ask(FlowsLost { fe: old, flows: vec![(alice, 1)] });
    let initial = publication(alice, flow(old, 1), 1, Availability::Away);
    b.publish(&initial);
    let watch = subscription(bob, old, 1, &["alice"]);
    b.ask(watch.clone());
    b.pass(10);
    let second = Registration::new(alice, fe, 1).cseq(2).on(flow(fe, 4));
    let endpoint = Endpoint { flow: flow(fe, 4), lost_ms: None, expires_ms: 60_000, ..b.endpoints("alice").remove(0) };
    let refreshed = HeldPublication { tag: Key128([7; 16]), ..published(alice, 1, Some(endpoint.id), 0) };
    let mut moved = dialog(&watch, 1000 + 40);
    moved.dialog.remote_cseq = 2;
    let request = Assert {
        endpoints: vec![held(&second, &endpoint, 0)],
        publications: vec![refreshed],
        subscriptions: vec![moved],
        ..nothing(fe)
    };
    assert_eq!(kept(b, request), Kept { endpoints: 1, publications: 1, subscriptions: 1, ..Kept::default() });
    let now = b.endpoints("alice").remove(0);
    assert_eq!((now.flow, now.lost_ms, now.expires_ms), (flow(fe, 4), None, 60_000));
    let stale = again(&initial, 2, initial.tag, Action::Refresh { expires: 60 });
    assert_eq!(b.ask(stale), Published::Precondition);
    let back = Request { fe: old, initial: false, origin: commpool_model::ids::Origin([8; 16]), ..watch };
    assert!(matches!(b.ask(back), Reply::Done { owner_before: Some(by), cseq: 1040, .. } if by == fe));
}

fn only_who_may_sign_in_is_asserted(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    let register = Registration::new(alice, fe, 1);
    let endpoint = b.register(&register).bindings.remove(0);
    b.ask(Unregister { fe, user: alice, endpoints: None });
    b.set_state("alice", State::Disabled);
    let request = Assert {
        endpoints: vec![held(&register, &endpoint, 0)],
        publications: vec![published(alice, 1, None, 0)],
        ..nothing(fe)
    };
    let lost = (vec![endpoint.id], vec![(alice, Key128([1; 16]))]);
    let seen = kept(b, request.clone());
    assert_eq!((seen.lost_endpoints, seen.lost_publications), lost);
    b.set_state("alice", State::On);
    let over =
        HeldEndpoint { endpoint: Endpoint { expires_ms: 0, ..endpoint.clone() }, ..request.endpoints[0].clone() };
    assert_eq!(kept(b, Assert { endpoints: vec![over], ..nothing(fe) }).lost_endpoints, [endpoint.id]);
    assert_eq!(kept(b, request).endpoints, 1);
}

fn the_bounds_of_a_user_hold(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    let register = Registration::new(alice, fe, 1);
    let endpoint = b.register(&register).bindings.remove(0);
    b.ask(Unregister { fe, user: alice, endpoints: None });
    for n in 2..=11 {
        b.register(&Registration::new(alice, fe, n));
    }
    for n in 1..=20 {
        b.publish(&publication(alice, flow(fe, 100 + u32::from(n)), n, Availability::Away));
    }
    let request = Assert {
        endpoints: vec![held(&register, &endpoint, 0)],
        publications: vec![published(alice, 21, None, 0)],
        ..nothing(fe)
    };
    let seen = kept(b, request);
    assert_eq!((seen.lost_endpoints, seen.lost_publications), (vec![endpoint.id], vec![(alice, Key128([21; 16]))]));
    assert_eq!(b.endpoints("alice").len(), 10);
}

fn a_dead_front_end_asserts_nothing(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    let register = Registration::new(alice, fe, 1);
    let endpoint = b.register(&register).bindings.remove(0);
    b.ask(Unregister { fe, user: alice, endpoints: None });
    b.ask(Stop { fe });
    let request = Assert { endpoints: vec![held(&register, &endpoint, 0)], interest: vec![alice], ..nothing(fe) };
    assert_eq!(b.ask(request), Asserted::Gone);
    assert_eq!(b.endpoints("alice"), []);
}
