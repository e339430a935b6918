//! PUBLISH and what it adds up to (RFC 3903).

use commpool_model::ids::{Key128, Micros, Version};
use commpool_model::presence::{Availability, Facts, State, aggregate};
use commpool_store::ops::accounts;
use commpool_store::ops::endpoints::FlowsLost;
use commpool_store::ops::presence::{Action, Of, Publish, Published};
use commpool_store::ops::register::{Unregister, Unregistered};

use crate::bench::{Bench, Registration, again, contract, flow, publication};
use crate::subscribe::subscription;

fn refresh(expires: u32) -> Action {
    Action::Refresh { expires }
}

fn set(availability: Availability) -> Action {
    let state =
        State { availability, activities: vec!["meeting".to_owned(), "steering".to_owned()], ..State::default() };
    Action::Set { expires: 600, state: Box::new(state), document: b"<other/>".to_vec() }
}

fn facts(b: &Bench, fe: commpool_model::ids::Incarnation, user: commpool_model::ids::UserRef) -> (Facts, Version) {
    let (of, facts, version) = b.ask(Of { fe, users: vec![user] }).states.remove(0);
    assert_eq!(of, user);
    (facts, version)
}

contract! {
    the_first_and_the_last_endpoint_are_news
    a_publication_lives_from_initial_to_removal
    a_replay_answers_as_before_and_changes_nothing
    a_tag_that_names_nothing_live_is_refused
    a_new_initial_publication_replaces_the_old_one_of_its_endpoint
    a_publication_before_its_registration_joins_the_endpoint
    a_publication_follows_the_endpoint_it_is_refreshed_by
    twenty_publications_and_no_more
    disabled_users_do_not_publish
    publications_go_with_their_endpoint_and_with_the_user
    time_alone_hides_what_is_over
    versions_rise_even_when_the_clock_does_not
    states_come_in_the_order_asked
}

fn the_first_and_the_last_endpoint_are_news(b: &Bench) {
    let (fe, alice, bob) = (b.start(true), b.add("alice"), b.add("bob"));
    b.ask(subscription(bob, fe, 1, &["alice"]));
    let first = b.register(&Registration::new(alice, fe, 1)).change.unwrap();
    assert_eq!((first.user, first.interest.as_slice(), first.state.devices.len()), (Some(alice), [fe].as_slice(), 1));
    assert_eq!(aggregate(&first.state).availability, Availability::SignedIn);
    assert_eq!(b.register(&Registration::new(alice, fe, 2)).change, None, "a second silent one is not");
    assert_eq!(b.register(&Registration::new(alice, fe, 2).cseq(2).expires(0)).change, None);
    let last = b.register(&Registration::new(alice, fe, 1).cseq(2).expires(0)).change.unwrap();
    assert_eq!((last.state, last.interest.as_slice()), (Facts::default(), [fe].as_slice()));
    assert!(last.version > first.version);
}

fn a_publication_lives_from_initial_to_removal(b: &Bench) {
    let (fe, alice, bob) = (b.start(true), b.add("alice"), b.add("bob"));
    b.ask(subscription(bob, fe, 1, &["alice"]));
    let endpoint = b.register(&Registration::new(alice, fe, 1)).touched[0].endpoint;
    let first = publication(alice, flow(fe, 1), 50, Availability::Available);
    let (id, change) = b.publish(&first);
    let [published] = change.state.publications.as_slice() else { panic!("{change:?}") };
    assert_eq!(
        (published.id, published.endpoint, published.document.as_slice()),
        (id, endpoint, b"<doc 50/>".as_slice())
    );
    assert_eq!((published.since, published.updated), (b.now(), b.now()));
    assert_eq!((published.state.note.as_deref(), change.interest.as_slice()), (Some("note 50"), [fe].as_slice()));

    b.pass(300);
    let (same, refreshed) = b.publish(&again(&first, 51, first.tag, refresh(900)));
    assert_eq!((same, refreshed.version), (id, change.version), "a refresh is no news");
    assert_eq!(refreshed.interest, []);
    assert_eq!(refreshed.state.publications[0].updated, b.now());
    assert_eq!(refreshed.state.publications[0].since, published.since);
    assert_eq!(b.ask(again(&first, 52, first.tag, refresh(900))), Published::Precondition, "the tag is new each time");

    b.pass(899);
    let (same, modified) = b.publish(&again(&first, 53, Key128([51; 16]), set(Availability::Busy)));
    assert_eq!(same, id);
    assert!(modified.version > change.version);
    let now = &modified.state.publications[0];
    assert_eq!(
        (now.state.availability, now.since, now.document.as_slice()),
        (Availability::Busy, b.now(), b"<other/>".as_slice())
    );
    assert_eq!(
        (now.state.activities.as_slice(), now.state.note.as_deref()),
        (["meeting".to_owned(), "steering".to_owned()].as_slice(), None)
    );
    assert_eq!(facts(b, fe, alice), (modified.state, modified.version));

    let (same, removed) = b.publish(&again(&first, 54, Key128([53; 16]), Action::Remove));
    assert_eq!((same, removed.state.publications.as_slice()), (id, [].as_slice()));
    assert!(removed.version > modified.version);
    assert_eq!(b.ask(again(&first, 55, Key128([53; 16]), refresh(60))), Published::Precondition);
}

fn a_replay_answers_as_before_and_changes_nothing(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    b.register(&Registration::new(alice, fe, 1));
    let first = publication(alice, flow(fe, 1), 50, Availability::Available);
    let (id, _) = b.publish(&first);
    let modify = again(&first, 51, first.tag, set(Availability::Busy));
    let (_, modified) = b.publish(&modify);
    let replayed = |request: &Publish| match b.ask(request.clone()) {
        Published::Done { replay: true, id, change } => (id, change.state.publications.len(), change.version),
        other => panic!("{other:?}"),
    };
    b.pass(5);
    assert_eq!(replayed(&modify), (id, 1, modified.version));
    assert_eq!(replayed(&first), (id, 1, modified.version), "a late copy of the first does not publish a second time");
    let remove = again(&first, 52, Key128([51; 16]), Action::Remove);
    let (_, removed) = b.publish(&remove);
    assert_eq!(replayed(&remove), (id, 0, removed.version));
}

fn a_tag_that_names_nothing_live_is_refused(b: &Bench) {
    let (fe, alice, bob) = (b.start(true), b.add("alice"), b.add("bob"));
    let first = publication(alice, flow(fe, 1), 50, Availability::Available);
    for action in [set(Availability::Busy), refresh(60), Action::Remove] {
        assert_eq!(b.ask(again(&first, 60, Key128([9; 16]), action)), Published::Precondition);
    }
    for action in [refresh(60), Action::Remove] {
        assert_eq!(b.ask(Publish { action, ..first.clone() }), Published::Precondition);
    }
    b.publish(&first);
    let foreign = again(&publication(bob, flow(fe, 2), 51, Availability::Away), 52, first.tag, refresh(60));
    assert_eq!(b.ask(foreign), Published::Precondition, "another user's");
    b.pass(600);
    assert_eq!(b.ask(again(&first, 53, first.tag, refresh(60))), Published::Precondition, "expired");
}

fn a_new_initial_publication_replaces_the_old_one_of_its_endpoint(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    b.register(&Registration::new(alice, fe, 1));
    b.register(&Registration::new(alice, fe, 2));
    let (_, _) = b.publish(&publication(alice, flow(fe, 1), 50, Availability::Available));
    let (other, _) = b.publish(&publication(alice, flow(fe, 2), 51, Availability::Away));
    let (new, change) = b.publish(&publication(alice, flow(fe, 1), 52, Availability::Busy));
    let left: Vec<_> = change.state.publications.iter().map(|publication| publication.id).collect();
    assert_eq!(left, [other, new]);
    let first = publication(alice, flow(fe, 1), 50, Availability::Available);
    assert_eq!(b.ask(again(&first, 53, first.tag, refresh(60))), Published::Precondition);
}

fn a_publication_before_its_registration_joins_the_endpoint(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    let (id, change) = b.publish(&publication(alice, flow(fe, 1), 50, Availability::Busy));
    assert_eq!(change.state.publications[0].endpoint, None);
    let (second, _) = b.publish(&publication(alice, flow(fe, 1), 51, Availability::Away));
    let change = b.register(&Registration::new(alice, fe, 1));
    let joined = change.change.unwrap().state.publications;
    assert_eq!(joined.iter().map(|p| (p.id, p.endpoint)).collect::<Vec<_>>(), [(second, change.touched[0].endpoint)]);
    assert_ne!(second, id, "one client on one flow has one publication");
    let gone = b.register(&Registration::new(alice, fe, 1).cseq(2).expires(0)).change.unwrap();
    assert_eq!(gone.state, Facts::default(), "and it goes with the endpoint");
}

fn a_publication_follows_the_endpoint_it_is_refreshed_by(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    b.register(&Registration::new(alice, fe, 1));
    let first = publication(alice, flow(fe, 1), 50, Availability::Busy);
    b.publish(&first);
    b.ask(FlowsLost { fe, flows: vec![(alice, 1)] });
    let second = b.register(&Registration::new(alice, fe, 2)).touched[0].endpoint;
    let back = Publish { flow: flow(fe, 2), endpoint: second, ..again(&first, 51, first.tag, refresh(600)) };
    let (_, change) = b.publish(&back);
    assert_eq!(change.state.publications[0].endpoint, second);
    b.pass(15);
    let swept = b.ask(commpool_store::ops::endpoints::SweepLost { fe, limit: 10 });
    assert_eq!(swept.endpoints.len(), 1);
    assert_eq!(facts(b, fe, alice).0.publications.len(), 1);
}

fn twenty_publications_and_no_more(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    for n in 1..=20 {
        b.publish(&publication(alice, flow(fe, u32::from(n)), n, Availability::Away));
    }
    let more = publication(alice, flow(fe, 21), 21, Availability::Away);
    assert_eq!(b.ask(more.clone()), Published::TooMany);
    b.publish(&publication(alice, flow(fe, 7), 22, Availability::Away));
    b.pass(600);
    b.publish(&more);
}

fn disabled_users_do_not_publish(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    b.set_state("alice", accounts::State::Disabled);
    let request = publication(alice, flow(fe, 1), 1, Availability::Away);
    assert_eq!(b.ask(request.clone()), Published::NoAccount);
    let stranger = commpool_model::ids::UserRef::local(99);
    assert_eq!(b.ask(Publish { user: stranger, ..request }), Published::NoAccount);
}

fn publications_go_with_their_endpoint_and_with_the_user(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    let first = b.register(&Registration::new(alice, fe, 1)).touched[0].endpoint.unwrap();
    b.register(&Registration::new(alice, fe, 2));
    b.publish(&publication(alice, flow(fe, 1), 50, Availability::Available));
    b.publish(&publication(alice, flow(fe, 2), 51, Availability::Away));
    b.publish(&publication(alice, flow(fe, 9), 52, Availability::Busy));
    let gone = b.ask(Unregister { fe, user: alice, endpoints: Some(vec![first]) });
    let Unregistered::Done { change: Some(change), .. } = gone else { panic!("{gone:?}") };
    assert_eq!(change.state.publications.len(), 2);
    let gone = b.ask(Unregister { fe, user: alice, endpoints: None });
    let Unregistered::Done { change: Some(change), .. } = gone else { panic!("{gone:?}") };
    assert_eq!(change.state, Facts::default());
}

fn time_alone_hides_what_is_over(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    b.register(&Registration::new(alice, fe, 1));
    let (_, change) = b.publish(&publication(alice, flow(fe, 1), 50, Availability::Available));
    b.pass(600);
    let (seen, version) = facts(b, fe, alice);
    assert_eq!((seen.publications.len(), seen.devices.len(), version), (0, 1, change.version));
    let (_, after) = b.publish(&publication(alice, flow(fe, 7), 51, Availability::Away));
    assert_eq!(after.state.publications.len(), 1);
}

fn versions_rise_even_when_the_clock_does_not(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    let mut last = Version(0);
    for n in 1..=6 {
        let (_, change) = b.publish(&publication(alice, flow(fe, 1), n, Availability::Away));
        assert!(change.version > last, "{:?} after {last:?}", change.version);
        last = change.version;
        match n {
            2 => b.back(3600),
            4 => b.pass(7200),
            _ => {}
        }
    }
    assert!(Micros(last.0) >= b.now(), "and are never behind it");
}

fn states_come_in_the_order_asked(b: &Bench) {
    let (fe, alice, bob) = (b.start(true), b.add("alice"), b.add("bob"));
    b.register(&Registration::new(alice, fe, 1));
    let stranger = commpool_model::ids::UserRef::local(99);
    let states = b.ask(Of { fe, users: vec![bob, stranger, alice] }).states;
    let seen: Vec<_> = states.iter().map(|(user, facts, _)| (*user, facts.devices.len())).collect();
    assert_eq!(seen, [(bob, 0), (stranger, 0), (alice, 1)]);
    assert_eq!((states[0].2, states[1].2), (Version(0), Version(0)));
}
