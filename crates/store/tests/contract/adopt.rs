//! Dialogs that follow their endpoint to another front end.

use commpool_model::ids::{EndpointId, Incarnation, Key128, Origin, UserRef};
use commpool_model::presence::Availability;
use commpool_store::ops::adopt::{Adopt, Adopted, AdoptedDialog, Flush, Flushed};
use commpool_store::ops::endpoints::Expire;
use commpool_store::ops::front_ends::Stop;
use commpool_store::ops::register::{Change, Unregister, Unregistered};
use commpool_store::ops::subscribe::{CSEQ_STEP, Ended, Presentity, Reply, Request};

use crate::bench::{Bench, Registration, contract, flow, publication};
use crate::subscribe::subscription;

pub(crate) fn adoption(endpoint: EndpointId, fe: Incarnation) -> Adopt {
    Adopt { fe, endpoint, first_cseq: 0, held: vec![], after: None }
}

/// Every dialog an hour long, as far as number 2000.
pub(crate) fn flush(fe: Incarnation, dialogs: &[(UserRef, u8)]) -> Flush {
    let flushed =
        |&(watcher, n): &(UserRef, u8)| Flushed { watcher, sub_id: Key128([n; 16]), expires: 3600, cseq: 2000 };
    Flush { fe, dialogs: dialogs.iter().map(flushed).collect() }
}

fn adopted(b: &Bench, request: Adopt) -> (Vec<AdoptedDialog>, Vec<(String, Presentity)>) {
    match b.ask(request) {
        Adopted::Done { dialogs, watched, more: false } => (dialogs, watched),
        other => panic!("{other:?}"),
    }
}

/// Bob's endpoint, who watches alice and carol from it in two dialogs.
fn watching(b: &Bench, fe: Incarnation, bob: UserRef) -> EndpointId {
    let endpoint = b.register(&Registration::new(bob, fe, 1)).touched[0].endpoint;
    for (n, names) in [(1, ["alice", "carol"].as_slice()), (2, &["alice"])] {
        let done = b.ask(Request { endpoint, ..subscription(bob, fe, n, names) });
        assert!(matches!(done, Reply::Done { .. }));
    }
    b.ask(subscription(bob, fe, 3, &["alice"]));
    endpoint.unwrap()
}

contract! {
    who_begins_anew_where_he_was_has_his_dialogs_ended_by_their_owner
    a_register_elsewhere_tells_that_dialogs_can_be_adopted
    dialogs_wait_for_an_endpoint_that_was_long_away
    an_endpoints_dialogs_become_the_new_owners
    a_refresh_where_the_endpoint_is_not_known_leaves_the_dialog_its_endpoint
    to_adopt_twice_is_to_adopt_once
    states_that_are_held_are_not_sent_again
    many_dialogs_are_adopted_in_parts
    flushed_lifetimes_and_numbers_are_kept
    a_flush_touches_no_dialog_of_another
}

fn a_register_elsewhere_tells_that_dialogs_can_be_adopted(b: &Bench) {
    let (old, bob) = (b.start(true), b.add("bob"));
    let fe = b.start(false);
    for name in ["alice", "carol"] {
        b.add(name);
    }
    let endpoint = watching(b, old, bob);
    let adoptable = |request: Registration| b.register(&request).adoptable;
    assert_eq!(adoptable(Registration::new(bob, old, 1).cseq(2)), 0, "nothing has moved");
    assert_eq!(adoptable(Registration::new(bob, old, 1).cseq(3).on(flow(old, 7))), 0, "they are here already");
    assert_eq!(adoptable(Registration::new(bob, fe, 1).cseq(4).on(flow(fe, 1))), 2);
    assert_eq!(adoptable(Registration::new(bob, fe, 1).cseq(5)), 0, "told once");
    let third = b.start(false);
    let restarted = Registration::new(bob, third, 1).call("anew");
    assert_eq!(adoptable(restarted), 0, "a client that began anew does not know its dialogs");
    assert_eq!(adopted(b, adoption(endpoint, third)).0.len(), 0, "and they are over");
    let first = subscription(bob, old, 3, &["alice"]);
    assert!(matches!(b.ask(first), Reply::Done { replay: true, .. }), "but for those of no endpoint");
}

fn who_begins_anew_where_he_was_has_his_dialogs_ended_by_their_owner(b: &Bench) {
    let (fe, bob) = (b.start(true), b.add("bob"));
    for name in ["alice", "carol"] {
        b.add(name);
    }
    let endpoint = watching(b, fe, bob);
    b.register(&Registration::new(bob, fe, 1).call("anew").on(flow(fe, 7)));
    assert_eq!(adopted(b, adoption(endpoint, fe)).0.len(), 2);
    let other = b.start(false);
    b.register(&Registration::new(bob, other, 1).call("anew").cseq(2).on(flow(other, 7)));
    assert_eq!(adopted(b, adoption(endpoint, other)).0.len(), 2, "the same client, elsewhere");
}

fn dialogs_wait_for_an_endpoint_that_was_long_away(b: &Bench) {
    let (fe, bob) = (b.start(true), b.add("bob"));
    for name in ["alice", "carol"] {
        b.add(name);
    }
    let endpoint = watching(b, fe, bob);
    let dropped = b.ask(Unregister { fe, user: bob, endpoints: Some(vec![endpoint]) });
    assert!(matches!(dropped, Unregistered::Done { .. }));
    let back = b.register(&Registration::new(bob, fe, 1).cseq(2));
    assert_eq!((back.touched[0].endpoint, back.touched[0].how), (Some(endpoint), Change::Created));
    assert_eq!(back.adoptable, 2, "whoever owns them");
    assert_eq!(adopted(b, adoption(endpoint, fe)).0.len(), 2);
}

fn a_refresh_where_the_endpoint_is_not_known_leaves_the_dialog_its_endpoint(b: &Bench) {
    let (old, bob) = (b.start(true), b.add("bob"));
    let (fe, third) = (b.start(false), b.start(false));
    b.add("alice");
    let endpoint = b.register(&Registration::new(bob, old, 1)).touched[0].endpoint;
    let first = Request { endpoint, ..subscription(bob, old, 1, &["alice"]) };
    b.ask(first.clone());
    let mut again = Request { origin: Origin([9; 16]), endpoint: None, fe, initial: false, ..first };
    again.dialog.remote_cseq = 2;
    assert!(matches!(b.ask(again), Reply::Done { owner_before: Some(before), .. } if before == old));
    let (dialogs, _) = adopted(b, adoption(endpoint.unwrap(), third));
    assert_eq!((dialogs.len(), dialogs[0].owner_before), (1, Some(fe)));
}

fn an_endpoints_dialogs_become_the_new_owners(b: &Bench) {
    let (old, bob) = (b.start(true), b.add("bob"));
    let fe = b.start(false);
    let (alice, carol) = (b.add("alice"), b.add("carol"));
    let endpoint = watching(b, old, bob);
    b.pass(100);
    let (_, change) = b.publish(&publication(alice, flow(old, 9), 50, Availability::Busy));
    assert_eq!(change.interest, [old]);
    let (dialogs, watched) = adopted(b, Adopt { first_cseq: 500, ..adoption(endpoint, fe) });
    let expected = subscription(bob, old, 1, &["alice", "carol"]);
    let first = &dialogs[0];
    assert_eq!(
        (first.sub_id, &first.presentities, first.kind),
        (expected.sub_id, &expected.presentities, expected.kind)
    );
    assert_eq!((first.seconds_left, first.cseq, first.owner_before), (1700, 1000 + CSEQ_STEP, Some(old)));
    assert_eq!(first.dialog, expected.dialog);
    assert_eq!((dialogs.len(), dialogs[1].sub_id), (2, Key128([2; 16])), "the third is no endpoint's");
    let seen: Vec<_> = watched.iter().map(|(address, of)| (address.as_str(), of.user, of.version)).collect();
    assert_eq!(seen[0], ("alice@example.com", alice, change.version));
    assert_eq!((seen[1].0, seen[1].1, seen.len()), ("carol@example.com", carol, 2));
    assert_eq!(watched[0].1.facts.as_ref(), Some(&change.state));
    let (_, change) = b.publish(&publication(alice, flow(old, 9), 51, Availability::Away));
    assert_eq!(change.interest, [old, fe], "the new owner is told of what follows");
    let moved = Request { fe: old, initial: false, origin: commpool_model::ids::Origin([9; 16]), ..expected };
    assert!(matches!(b.ask(moved), Reply::Done { owner_before: Some(by), .. } if by == fe));
    b.ask(Stop { fe });
    assert_eq!(b.ask(adoption(endpoint, fe)), Adopted::Gone);
}

fn to_adopt_twice_is_to_adopt_once(b: &Bench) {
    let (old, bob) = (b.start(true), b.add("bob"));
    b.add("alice");
    let endpoint = watching(b, old, bob);
    let fe = b.start(false);
    let request = Adopt { first_cseq: 5000, ..adoption(endpoint, fe) };
    let (first, _) = adopted(b, request.clone());
    assert_eq!(first[0].cseq, 5000);
    let (again, watched) = adopted(b, request.clone());
    let seen = |of: &AdoptedDialog| (of.sub_id, of.cseq);
    assert_eq!(again.iter().map(seen).collect::<Vec<_>>(), first.iter().map(seen).collect::<Vec<_>>());
    assert!(again.iter().all(|dialog| dialog.owner_before.is_none()));
    assert_eq!(watched.len(), 1, "carol is nobody");
    b.pass(1800);
    assert_eq!(adopted(b, request), (vec![], vec![]), "expired");
}

fn states_that_are_held_are_not_sent_again(b: &Bench) {
    let (old, bob, alice) = (b.start(true), b.add("bob"), b.add("alice"));
    let endpoint = watching(b, old, bob);
    let version = b.publish(&publication(alice, flow(old, 9), 50, Availability::Busy)).1.version;
    let fe = b.start(false);
    let (_, watched) = adopted(b, Adopt { held: vec![(alice, version)], ..adoption(endpoint, fe) });
    assert_eq!((watched[0].1.facts.as_ref(), watched[0].1.version), (None, version));
}

fn many_dialogs_are_adopted_in_parts(b: &Bench) {
    let (old, bob) = (b.start(true), b.add("bob"));
    b.add("alice");
    let endpoint = b.register(&Registration::new(bob, old, 1)).touched[0].endpoint;
    let dialog = |n: u32| {
        let mut request = Request { endpoint, ..subscription(bob, old, 1, &["alice"]) };
        request.sub_id.0[..4].copy_from_slice(&n.to_be_bytes());
        request.origin.0[..4].copy_from_slice(&n.to_be_bytes());
        request.into()
    };
    for outcome in b.many((0..501).map(dialog).collect()) {
        outcome.unwrap();
    }
    let fe = b.start(false);
    let request = adoption(endpoint.unwrap(), fe);
    let Adopted::Done { dialogs, more: true, .. } = b.ask(request.clone()) else { panic!() };
    assert_eq!(dialogs.len(), 500);
    let after = dialogs.last().map(|dialog| dialog.sub_id);
    let (rest, _) = adopted(b, Adopt { after, ..request });
    assert_eq!((rest.len(), rest[0].owner_before), (1, Some(old)));
}

fn flushed_lifetimes_and_numbers_are_kept(b: &Bench) {
    let (old, bob) = (b.start(true), b.add("bob"));
    let fe = b.start(false);
    b.add("alice");
    let endpoint = watching(b, old, bob);
    b.pass(1700);
    assert_eq!(b.ask(flush(old, &[(bob, 1), (bob, 77)])), Ended::Done);
    b.pass(100);
    let (dialogs, _) = adopted(b, adoption(endpoint, fe));
    let [kept] = dialogs.as_slice() else { panic!("{dialogs:?}") };
    assert_eq!((kept.sub_id, kept.seconds_left, kept.cseq), (Key128([1; 16]), 3 * 3600 - 100, 2000 + CSEQ_STEP));
    let due = Expire { fe, endpoints: vec![], publications: vec![], subscriptions: vec![(bob, kept.sub_id)] };
    b.ask(due);
    assert_eq!(adopted(b, adoption(endpoint, fe)).0.len(), 1);
}

fn a_flush_touches_no_dialog_of_another(b: &Bench) {
    let (old, bob) = (b.start(true), b.add("bob"));
    let fe = b.start(false);
    b.add("alice");
    let endpoint = watching(b, old, bob);
    adopted(b, adoption(endpoint, fe));
    assert_eq!(b.ask(flush(old, &[(bob, 1)])), Ended::Done);
    let (dialogs, _) = adopted(b, adoption(endpoint, fe));
    assert_eq!((dialogs[0].seconds_left, dialogs[0].cseq), (1800, 1000 + CSEQ_STEP));
    b.ask(Stop { fe });
    assert_eq!(b.ask(flush(fe, &[(bob, 1)])), Ended::Gone);
}
