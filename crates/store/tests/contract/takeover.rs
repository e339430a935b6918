//! A device that comes back: instances, dead flows, and what stays quiet meanwhile.

use commpool_model::presence::Availability;
use commpool_store::ops::endpoints::{FlowsLost, SweepLost};
use commpool_store::ops::register::Change;

use crate::bench::{Bench, Registration, contract, flow, publication};

contract! {
    an_instance_takes_over_its_binding_on_a_dead_flow
    a_binding_at_an_unreachable_front_end_counts_as_dead
    a_live_binding_of_the_same_instance_stays
    every_dead_twin_goes_when_the_instance_is_back
    a_known_contact_comes_before_its_instance
    outbound_bindings_are_taken_over_by_key_only
    a_stale_request_takes_nothing_over
    who_comes_back_after_the_grace_but_before_the_sweep_is_news
}

fn an_instance_takes_over_its_binding_on_a_dead_flow(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    let first = b.register(&Registration::new(alice, fe, 1).instance("urn:uuid:1", None)).touched[0].endpoint;
    let (tag, _) = b.publish(&publication(alice, flow(fe, 1), 50, Availability::Busy));
    b.ask(FlowsLost { fe, flows: vec![(alice, 1)] });
    b.pass(5);
    let done = b.register(&Registration::new(alice, fe, 2).instance("urn:uuid:1", None));
    assert_eq!((done.touched[0].endpoint, done.touched[0].how), (first, Change::Refreshed));
    assert_eq!(done.touched[0].previous, Some(flow(fe, 1)));
    let [endpoint] = done.bindings.as_slice() else { panic!("{done:?}") };
    assert_eq!((endpoint.flow.serial, endpoint.lost_ms, endpoint.age_ms), (2, None, 5_000));
    assert_eq!(endpoint.contact, "sip:device@192.0.2.2:5060");
    assert_eq!(done.change, None, "watchers hear nothing");
    let of = commpool_store::ops::presence::Of { fe, users: vec![alice] };
    let facts = &b.ask(of).states[0].1;
    assert_eq!((facts.publications[0].id, facts.publications[0].endpoint), (tag, first));
    let later = b.register(&Registration::new(alice, fe, 2).cseq(2).instance("urn:uuid:1", None));
    assert_eq!(later.touched[0].endpoint, first, "from now on under the new Contact");
}

fn a_binding_at_an_unreachable_front_end_counts_as_dead(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    let other = b.start(false);
    let there = Registration::new(alice, other, 1).instance("urn:uuid:1", None);
    let first = b.register(&there).touched[0].endpoint;
    let mut back = Registration::new(alice, fe, 2).instance("urn:uuid:1", None);
    back.0.unreachable = vec![other];
    let done = b.register(&back);
    assert_eq!((done.touched[0].endpoint, done.bindings.len()), (first, 1));
    assert_eq!(done.change, None, "watchers hear nothing");
}

fn a_live_binding_of_the_same_instance_stays(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    b.register(&Registration::new(alice, fe, 1).instance("urn:uuid:1", None));
    let done = b.register(&Registration::new(alice, fe, 2).instance("urn:uuid:1", None));
    assert_eq!((done.bindings.len(), done.touched[0].how), (2, Change::Created));
    b.ask(FlowsLost { fe, flows: vec![(alice, 1), (alice, 2)] });
    let other = b.register(&Registration::new(alice, fe, 3).instance("urn:uuid:2", None));
    assert_eq!(other.bindings.len(), 3, "another instance takes nothing over");
}

fn every_dead_twin_goes_when_the_instance_is_back(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    b.register(&Registration::new(alice, fe, 1).instance("urn:uuid:1", None));
    let newest = b.register(&Registration::new(alice, fe, 2).instance("urn:uuid:1", None)).touched[0].endpoint;
    b.ask(FlowsLost { fe, flows: vec![(alice, 1)] });
    b.pass(1);
    b.ask(FlowsLost { fe, flows: vec![(alice, 2)] });
    let done = b.register(&Registration::new(alice, fe, 3).instance("urn:uuid:1", None));
    assert_eq!((done.bindings.len(), done.touched[0].endpoint), (1, newest), "the one lost last goes on");
}

fn a_known_contact_comes_before_its_instance(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    let first = b.register(&Registration::new(alice, fe, 1).instance("urn:uuid:1", None)).touched[0].endpoint;
    b.register(&Registration::new(alice, fe, 2).instance("urn:uuid:1", None));
    b.ask(FlowsLost { fe, flows: vec![(alice, 2)] });
    let done = b.register(&Registration::new(alice, fe, 1).cseq(2).instance("urn:uuid:1", None));
    assert_eq!((done.bindings.len(), done.touched[0].endpoint), (1, first), "and the dead twin goes");
}

fn outbound_bindings_are_taken_over_by_key_only(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    b.register(&Registration::new(alice, fe, 1).instance("urn:uuid:1", Some(1)));
    b.ask(FlowsLost { fe, flows: vec![(alice, 1)] });
    let plain = b.register(&Registration::new(alice, fe, 2).instance("urn:uuid:1", None));
    assert_eq!(plain.bindings.len(), 2);
    let second_flow = b.register(&Registration::new(alice, fe, 3).instance("urn:uuid:1", Some(2)));
    assert_eq!(second_flow.bindings.len(), 3);
    let back = b.register(&Registration::new(alice, fe, 1).cseq(2).on(flow(fe, 4)).instance("urn:uuid:1", Some(1)));
    assert_eq!((back.bindings.len(), back.touched[0].how), (3, Change::Refreshed));
}

fn a_stale_request_takes_nothing_over(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    b.register(&Registration::new(alice, fe, 1).call("same").cseq(5).instance("urn:uuid:1", None));
    b.ask(FlowsLost { fe, flows: vec![(alice, 1)] });
    let old = Registration::new(alice, fe, 2).call("same").cseq(4).instance("urn:uuid:1", None);
    assert_eq!(b.ask(old.0), commpool_store::ops::register::Reply::Stale);
}

fn who_comes_back_after_the_grace_but_before_the_sweep_is_news(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    let first = b.register(&Registration::new(alice, fe, 1));
    b.ask(FlowsLost { fe, flows: vec![(alice, 1)] });
    b.pass(15);
    assert_eq!(b.endpoints("alice"), []);
    let done = b.register(&Registration::new(alice, fe, 1).cseq(2).on(flow(fe, 2)));
    assert_eq!(done.touched[0].endpoint, first.touched[0].endpoint);
    let change = done.change.expect("somebody may have read `closed` meanwhile");
    assert_eq!(change.state.devices.len(), 1);
    let swept = b.ask(SweepLost { fe, limit: 10 });
    assert_eq!((swept.endpoints, swept.changes), (vec![], vec![]));
}
