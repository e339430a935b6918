//! REGISTER: order, replay, removal, limits (RFC 3261 §10.3).

use commpool_model::ids::{EndpointId, Key128, Origin};
use commpool_store::ops::accounts::State;
use commpool_store::ops::register::{Binding, Change, Contacts, Reply, Unregister, Unregistered};

use crate::bench::{Bench, Registration, binding, contract, flow, ids};

contract! {
    a_new_binding_comes_back_as_it_was_given
    a_refresh_keeps_the_endpoint_and_its_age
    the_same_transaction_gets_the_same_answer_and_changes_nothing
    a_late_copy_does_not_undo_what_came_since
    an_older_request_of_the_same_call_is_stale
    all_contacts_or_none
    of_two_contacts_with_one_key_the_last_counts
    expires_zero_removes_one
    a_removal_by_another_flow_tells_the_holder
    a_star_removes_all_unless_one_is_newer
    a_query_changes_nothing
    ten_endpoints_and_no_more
    bindings_on_dead_flows_give_way_to_the_eleventh
    clashing_ids_are_salted
    a_moved_binding_names_its_previous_flow
    an_expired_binding_is_gone_before_its_timer
    only_accounts_that_are_on_may_register
    unregister_takes_named_endpoints_or_all
}

fn a_new_binding_comes_back_as_it_was_given(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    let request = Registration::new(alice, fe, 1).with(|binding| {
        binding.q = 700;
        binding.path = vec!["<sip:edge.example.org;lr>".to_owned(), "<sip:inner.example.org;lr>".to_owned()];
        binding.instance = Some("urn:uuid:1".to_owned());
        binding.reg_id = Some(2);
    });
    let done = b.register(&request);
    assert!(!done.replay);
    let [touched] = done.touched.as_slice() else { panic!("{done:?}") };
    assert_eq!((touched.how, &touched.previous), (Change::Created, &None));
    let [endpoint] = done.bindings.as_slice() else { panic!("{done:?}") };
    assert_eq!(touched.endpoint, Some(endpoint.id));
    assert_eq!(endpoint.id, EndpointId::new(alice.id, Key128([1; 16]), 0));
    let Contacts::Each(given) = &request.0.contacts else { unreachable!() };
    assert_eq!((&endpoint.contact, &endpoint.contact_value), (&given[0].contact, &given[0].contact_value));
    assert_eq!((endpoint.q, &endpoint.path), (700, &given[0].path));
    assert_eq!((endpoint.instance.as_deref(), endpoint.reg_id), (Some("urn:uuid:1"), Some(2)));
    assert_eq!((&endpoint.flow, endpoint.lost_ms), (&request.0.flow, None));
    assert_eq!((endpoint.expires_ms, endpoint.age_ms), (3_600_000, 0));
    assert_eq!((endpoint.agent.as_str(), endpoint.call_id.as_str()), ("Client/1.0", "call-1"));
}

fn a_refresh_keeps_the_endpoint_and_its_age(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    let first = b.register(&Registration::new(alice, fe, 1));
    b.pass(100);
    let done = b.register(&Registration::new(alice, fe, 1).cseq(2).expires(60));
    assert_eq!(ids(&done.bindings), ids(&first.bindings));
    assert_eq!((done.bindings[0].age_ms, done.bindings[0].expires_ms), (100_000, 60_000));
    assert_eq!((done.touched[0].how, &done.touched[0].previous), (Change::Refreshed, &None));
    assert_eq!(done.change, None, "a refresh is no news to watchers");
}

fn the_same_transaction_gets_the_same_answer_and_changes_nothing(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    let request = Registration::new(alice, fe, 1);
    let first = b.register(&request);
    b.pass(10);
    let again = b.register(&request.clone().on(flow(fe, 9)));
    assert!(again.replay && again.change.is_none());
    assert_eq!(ids(&again.bindings), ids(&first.bindings));
    assert_eq!(again.bindings[0].flow, request.0.flow, "a copy by another way moves nothing");
    assert_eq!(again.bindings[0].expires_ms, 3_590_000);
    assert_eq!(again.touched[0].endpoint, first.touched[0].endpoint);
}

fn a_late_copy_does_not_undo_what_came_since(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    b.register(&Registration::new(alice, fe, 2));
    let swap = vec![binding(1), Binding { expires: 0, ..binding(2) }];
    let request = Registration::new(alice, fe, 1).contacts(Contacts::Each(swap));
    assert_eq!(b.register(&request).bindings.len(), 1);
    b.register(&Registration::new(alice, fe, 2).call("anew"));
    let copy = b.register(&request);
    assert!(copy.replay && copy.change.is_none());
    assert_eq!(copy.bindings.len(), 2);
    let how: Vec<Change> = copy.touched.iter().map(|touched| touched.how).collect();
    assert_eq!(how, [Change::Refreshed, Change::Removed]);
}

fn an_older_request_of_the_same_call_is_stale(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    b.register(&Registration::new(alice, fe, 1).cseq(5));
    let mut equal = Registration::new(alice, fe, 1).cseq(5).expires(60);
    equal.0.origin = Origin([99; 16]);
    for stale in [equal, Registration::new(alice, fe, 1).cseq(4), Registration::new(alice, fe, 1).cseq(3).expires(0)] {
        assert_eq!(b.ask(stale.0), Reply::Stale);
    }
    assert_eq!(b.endpoints("alice")[0].expires_ms, 3_600_000);
    let other_call = b.register(&Registration::new(alice, fe, 1).call("another").expires(60));
    assert_eq!((other_call.bindings.len(), other_call.bindings[0].expires_ms), (1, 60_000));
    assert_eq!(other_call.bindings[0].call_id, "another");
}

fn all_contacts_or_none(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    b.register(&Registration::new(alice, fe, 1).cseq(5));
    let both = Contacts::Each(vec![binding(2), binding(1)]);
    let stale = Registration::new(alice, fe, 1).cseq(4).contacts(both.clone());
    assert_eq!(b.ask(stale.0), Reply::Stale);
    assert_eq!(b.endpoints("alice").len(), 1, "the new one has not been added");
    let done = b.register(&Registration::new(alice, fe, 1).cseq(6).contacts(both));
    let how: Vec<Change> = done.touched.iter().map(|touched| touched.how).collect();
    assert_eq!(how, [Change::Created, Change::Refreshed]);
    assert_eq!(done.bindings.len(), 2);
}

fn of_two_contacts_with_one_key_the_last_counts(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    let both = vec![Binding { expires: 0, ..binding(1) }, binding(2), Binding { expires: 60, ..binding(1) }];
    let request = Registration::new(alice, fe, 1).contacts(Contacts::Each(both));
    let done = b.register(&request);
    let first = EndpointId::new(alice.id, Key128([1; 16]), 0);
    let touched: Vec<_> = done.touched.iter().map(|touched| (touched.endpoint == Some(first), touched.how)).collect();
    assert_eq!(touched, [(true, Change::Created), (false, Change::Created), (true, Change::Created)]);
    assert_eq!((done.bindings.len(), done.bindings[0].expires_ms), (2, 60_000));
    let gone = vec![binding(1), Binding { expires: 0, ..binding(1) }];
    let done = b.register(&Registration::new(alice, fe, 1).cseq(2).contacts(Contacts::Each(gone)));
    assert_eq!(done.bindings.len(), 1);
}

fn expires_zero_removes_one(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    let kept = b.register(&Registration::new(alice, fe, 1));
    let gone = b.register(&Registration::new(alice, fe, 2)).touched[0].endpoint;
    let done = b.register(&Registration::new(alice, fe, 2).cseq(2).expires(0));
    assert_eq!(ids(&done.bindings), ids(&kept.bindings));
    assert_eq!((done.touched[0].endpoint, done.touched[0].how), (gone, Change::Removed));
    let again = b.register(&Registration::new(alice, fe, 2).cseq(3).expires(0));
    assert_eq!((again.touched[0].endpoint, again.touched[0].how), (None, Change::Removed));
    assert_eq!(again.change, None);
}

fn a_removal_by_another_flow_tells_the_holder(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    b.register(&Registration::new(alice, fe, 1));
    let done = b.register(&Registration::new(alice, fe, 1).cseq(2).on(flow(fe, 7)).expires(0));
    assert_eq!(done.touched[0].previous, Some(flow(fe, 1)));
}

fn a_star_removes_all_unless_one_is_newer(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    b.register(&Registration::new(alice, fe, 1).call("one").cseq(5));
    b.register(&Registration::new(alice, fe, 2).call("two").cseq(9));
    let star = |cseq| Registration::new(alice, fe, 3).call("one").cseq(cseq).contacts(Contacts::RemoveAll);
    assert_eq!(b.ask(star(5).0), Reply::Stale);
    assert_eq!(b.endpoints("alice").len(), 2);
    let done = b.register(&star(6));
    assert_eq!((done.bindings.len(), done.touched.len()), (0, 2));
    assert!(done.touched.iter().all(|touched| touched.how == Change::Removed && touched.previous.is_some()));
    assert!(done.change.is_some_and(|change| change.state.devices.is_empty()));
    assert!(b.register(&star(7)).touched.is_empty());
}

fn a_query_changes_nothing(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    let query = Registration::new(alice, fe, 9).contacts(Contacts::Query);
    assert_eq!(b.register(&query).bindings, []);
    let one = b.register(&Registration::new(alice, fe, 1));
    let done = b.register(&query);
    assert_eq!((done.bindings, done.touched, done.change, done.replay), (one.bindings, vec![], None, false));
}

fn ten_endpoints_and_no_more(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    for n in 1..=10 {
        b.register(&Registration::new(alice, fe, n));
    }
    assert_eq!(b.ask(Registration::new(alice, fe, 11).0), Reply::TooMany);
    assert_eq!(b.endpoints("alice").len(), 10);
    let swap = vec![Binding { expires: 0, ..binding(10) }, binding(11)];
    let done = b.register(&Registration::new(alice, fe, 10).cseq(2).contacts(Contacts::Each(swap)));
    assert_eq!(done.bindings.len(), 10, "what goes makes room for what comes");
    b.pass(3601);
    assert_eq!(b.register(&Registration::new(alice, fe, 12)).bindings.len(), 1, "what has expired does not count");
}

fn bindings_on_dead_flows_give_way_to_the_eleventh(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    for n in 1..=10 {
        b.register(&Registration::new(alice, fe, n));
    }
    b.ask(commpool_store::ops::endpoints::FlowsLost { fe, flows: vec![(alice, 4)] });
    b.pass(1);
    b.ask(commpool_store::ops::endpoints::FlowsLost { fe, flows: vec![(alice, 3)] });
    let done = b.register(&Registration::new(alice, fe, 11));
    assert_eq!(done.bindings.len(), 10);
    assert!(done.bindings.iter().all(|endpoint| endpoint.flow.serial != 4), "longest lost, first to go");
    assert!(done.bindings.iter().any(|endpoint| endpoint.flow.serial == 3));
}

fn clashing_ids_are_salted(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    let alike = |n: u8| Registration::new(alice, fe, n).with(|binding| binding.key.0[..3].fill(7));
    let first = b.register(&alike(1)).touched[0].endpoint.unwrap();
    let second = b.register(&alike(2)).touched[0].endpoint.unwrap();
    let mut key = Key128([2; 16]);
    key.0[..3].fill(7);
    assert_eq!(first, EndpointId::new(alice.id, key, 0));
    assert_eq!(second, EndpointId::new(alice.id, key, 1));
    let third = b.register(&alike(3)).touched[0].endpoint.unwrap();
    assert!(third != first && third != second && third.user() == alice.id);
    assert_eq!(b.register(&alike(2).cseq(2)).touched[0].endpoint, Some(second));
}

fn a_moved_binding_names_its_previous_flow(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    b.register(&Registration::new(alice, fe, 1));
    let done = b.register(&Registration::new(alice, fe, 1).cseq(2).on(flow(fe, 8)));
    assert_eq!((done.touched[0].how, done.touched[0].previous.clone()), (Change::Refreshed, Some(flow(fe, 1))));
    assert_eq!(done.bindings[0].flow, flow(fe, 8));
    assert_eq!(done.change, None);
}

fn an_expired_binding_is_gone_before_its_timer(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    b.register(&Registration::new(alice, fe, 1).expires(60));
    b.pass(60);
    assert_eq!(b.endpoints("alice"), []);
    let done = b.register(&Registration::new(alice, fe, 2));
    assert_eq!(done.bindings.len(), 1);
    let again = b.register(&Registration::new(alice, fe, 1).expires(60));
    assert_eq!((again.touched[0].how, again.replay), (Change::Created, false), "neither replay nor stale");
}

fn only_accounts_that_are_on_may_register(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    b.register(&Registration::new(alice, fe, 1));
    for state in [State::Disabled, State::Removed] {
        b.set_state("alice", state);
        assert_eq!(b.ask(Registration::new(alice, fe, 2).0), Reply::NoAccount);
    }
    b.set_state("alice", State::On);
    b.register(&Registration::new(alice, fe, 2));
    let stranger = commpool_model::ids::UserRef::local(4711);
    assert_eq!(b.ask(Registration::new(stranger, fe, 1).0), Reply::NoAccount);
}

fn unregister_takes_named_endpoints_or_all(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    let first = b.register(&Registration::new(alice, fe, 1)).touched[0].endpoint.unwrap();
    let second = b.register(&Registration::new(alice, fe, 2)).touched[0].endpoint.unwrap();
    let one = Unregister { fe, user: alice, endpoints: Some(vec![first]) };
    let Unregistered::Done { removed, change } = b.ask(one.clone()) else { panic!() };
    assert_eq!((removed, change), (vec![(first, flow(fe, 1))], None));
    let all = Unregister { endpoints: None, ..one.clone() };
    let Unregistered::Done { removed, change } = b.ask(all.clone()) else { panic!() };
    assert_eq!(removed, [(second, flow(fe, 2))]);
    assert!(change.is_some_and(|change| change.state.devices.is_empty()));
    let nothing = Unregistered::Done { removed: vec![], change: None };
    assert_eq!((b.ask(one), b.ask(all)), (nothing.clone(), nothing));
}
