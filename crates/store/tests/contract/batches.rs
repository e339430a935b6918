//! Batches: order inside them, equal keys, classes, bounds, counters.

use commpool_model::ids::{Home, UserRef};
use commpool_model::presence::Availability;
use commpool_store::StoreError;
use commpool_store::ops::accounts::{Put, PutReply};
use commpool_store::ops::credentials::Verifier;
use commpool_store::ops::presence::Published;
use commpool_store::ops::register::{Change, Contacts, Reply};
use commpool_store::ops::{
    Class, HealthRequest, Operation, Outcome, accounts, assert, directory, endpoints, front_ends, pull, route,
};

use crate::bench::{Bench, Registration, binding, contract, flow, publication};
use crate::credentials::password;
use crate::subscribe::subscription;

contract! {
    equal_keys_in_one_batch_are_carried_out_one_after_the_other
    a_large_batch_is_answered_in_full
    what_breaks_a_bound_is_refused_before_it_is_queued
    health_tells_that_writes_are_taken
    every_call_is_counted
}

fn equal_keys_in_one_batch_are_carried_out_one_after_the_other(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    let register = |cseq| Operation::from(Registration::new(alice, fe, 1).cseq(cseq).0);
    let publish = |n| Operation::from(publication(alice, flow(fe, 1), n, Availability::Busy));
    let add = || Operation::from(Put::Add { address: "bob@example.com".to_owned(), display_name: String::new() });
    let batch =
        vec![register(1), register(2), register(1), register(2), publish(1), publish(2), publish(2), add(), add()];
    let outcomes: Vec<Outcome> = b.many(batch).into_iter().map(Result::unwrap).collect();
    let how = |n: usize| match &outcomes[n] {
        Outcome::Register(Reply::Done(done)) => Some((done.touched[0].how, done.replay)),
        _ => None,
    };
    assert_eq!(how(0), Some((Change::Created, false)));
    assert_eq!(how(1), Some((Change::Refreshed, false)));
    assert_eq!(outcomes[2], Outcome::Register(Reply::Stale));
    assert_eq!(how(3), Some((Change::Refreshed, true)));
    let replay = |n: usize| match &outcomes[n] {
        Outcome::Publish(Published::Done { replay, .. }) => *replay,
        other => panic!("{other:?}"),
    };
    assert_eq!((replay(4), replay(5), replay(6)), (false, false, true));
    assert!(matches!(outcomes[7], Outcome::AccountPut(PutReply::Done(_))));
    assert_eq!(outcomes[8], Outcome::AccountPut(PutReply::Exists));
    assert_eq!(b.endpoints("alice").len(), 1);
}

fn a_large_batch_is_answered_in_full(b: &Bench) {
    let fe = b.start(true);
    let users: Vec<UserRef> = (0..300).map(|n| b.add(&format!("user-{n}"))).collect();
    let requests = users.iter().map(|user| Operation::from(Registration::new(*user, fe, 1).0));
    for (user, outcome) in users.iter().zip(b.many(requests.collect())) {
        let Ok(Outcome::Register(Reply::Done(done))) = outcome else { panic!("{outcome:?}") };
        assert_eq!(done.bindings[0].id.user(), user.id, "each gets its own answer");
    }
}

fn what_breaks_a_bound_is_refused_before_it_is_queued(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    let registration = Registration::new(alice, fe, 1);
    let long = "x".repeat(9000);
    let refused: Vec<(&str, Operation)> = vec![
        ("contacts", registration.clone().contacts(Contacts::Each(vec![])).0.into()),
        ("contacts", registration.clone().contacts(Contacts::Each((1..=11).map(binding).collect())).0.into()),
        ("q", registration.clone().with(|b| b.q = 1001).0.into()),
        ("contact", registration.clone().with(|b| b.contact.clone_from(&long)).0.into()),
        ("path", registration.clone().with(|b| b.path = vec!["<sip:a>\n".to_owned()]).0.into()),
        ("path", registration.clone().with(|b| b.path = vec![String::new()]).0.into()),
        ("user.home", Registration::new(UserRef { home: Home(1), ..alice }, fe, 1).0.into()),
        ("user.id", Registration::new(UserRef::local(1 << 40), fe, 1).0.into()),
        ("limit", endpoints::SweepLost { fe, limit: 0 }.into()),
        ("limit", endpoints::Find { limit: 1001, ..Default::default() }.into()),
        ("address", Put::Add { address: "Alice@Example.com".to_owned(), display_name: String::new() }.into()),
        ("address", Put::Add { address: "alice".to_owned(), display_name: String::new() }.into()),
        ("target", route::Request { target: "a\0b".to_owned(), sender: String::new() }.into()),
        ("presentities", subscription(alice, fe, 1, &[]).into()),
        ("target", front_ends::Reap { by: fe, target: fe }.into()),
        ("limit", pull::Pull { fe, cursor: None, limit: 0 }.into()),
        ("dialogs", crate::adopt::flush(fe, &[(alice, 1), (alice, 1)]).into()),
        ("interest", assert::Assert { interest: vec![alice; 1001], ..crate::assert::nothing(fe) }.into()),
        ("label", {
            let mut put = password("alice", "", "aa");
            put.label.clear();
            put.into()
        }),
        ("verifiers", {
            let mut put = password("alice", "main", "aa");
            put.verifiers.clear();
            put.into()
        }),
    ];
    for (field, operation) in refused {
        match b.try_ask(operation.clone()) {
            Err(StoreError::Invalid { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{operation:?}: {other:?}"),
        }
    }
    assert_eq!(b.endpoints("alice"), []);
}

fn health_tells_that_writes_are_taken(b: &Bench) {
    let health = b.ask(HealthRequest);
    assert_eq!((health.writable, health.schema), (true, b.store.schema()));
}

fn every_call_is_counted(b: &Bench) {
    let (fe, alice) = (b.start(true), b.add("alice"));
    b.register(&Registration::new(alice, fe, 1));
    let _ = b.many(
        (0..10).map(|_| Operation::from(route::Request { target: String::new(), sender: String::new() })).collect(),
    );
    assert!(b.try_ask(endpoints::SweepLost { fe, limit: 0 }.into()).is_err());
    let stats = b.store.stats();
    let counts = |name: &str| stats.operation(name).map(|of| (of.calls, of.errors)).unwrap();
    assert_eq!((counts("register"), counts("route"), counts("sweep_lost")), ((1, 0), (10, 0), (1, 1)));
    let route = stats.operation("route").unwrap();
    assert!((1..=10).contains(&route.batches));
    assert_eq!(stats.operation("publish").unwrap().batches, 0);
}

#[test]
fn the_class_of_every_operation() {
    let fe = commpool_model::ids::Incarnation(1);
    let user = UserRef::local(1);
    let address = || "a@example.com".to_owned();
    let verifier =
        Verifier { algorithm: commpool_model::config::DigestAlgorithm::Md5, realm: address(), ha1: "a".repeat(32) };
    let put = commpool_store::ops::credentials::Put {
        address: address(),
        label: "main".to_owned(),
        verifiers: vec![verifier],
    };
    let revoke = commpool_store::ops::credentials::Revoke { address: address(), label: "main".to_owned() };
    let start = front_ends::Start {
        pod: String::new(),
        start_id: [0; 16],
        address: String::new(),
        build: String::new(),
        alone: true,
    };
    let expire = endpoints::Expire { fe, endpoints: vec![], publications: vec![], subscriptions: vec![] };
    let all: Vec<(Class, Operation)> = vec![
        (Class::Soft, start.into()),
        (
            Class::Soft,
            front_ends::Renew { fe, state: front_ends::State::Serving, load: front_ends::Load::default() }.into(),
        ),
        (Class::Soft, front_ends::Stop { fe }.into()),
        (Class::Soft, endpoints::FlowsLost { fe, flows: vec![] }.into()),
        (Class::Soft, endpoints::SweepLost { fe, limit: 1 }.into()),
        (Class::Soft, expire.into()),
        (Class::Read, endpoints::Find::default().into()),
        (Class::Read, endpoints::Timers::default().into()),
        (Class::Read, commpool_store::ops::credentials::Request { address: address() }.into()),
        (Class::Durable, put.into()),
        (Class::Durable, revoke.into()),
        (Class::Soft, Registration::new(user, fe, 1).0.into()),
        (Class::Soft, commpool_store::ops::register::Unregister { fe, user, endpoints: None }.into()),
        (Class::Read, route::Request { target: address(), sender: address() }.into()),
        (Class::Soft, publication(user, flow(fe, 1), 1, Availability::Busy).into()),
        (Class::Read, commpool_store::ops::presence::Of { fe, users: vec![] }.into()),
        (Class::Soft, subscription(user, fe, 1, &["a"]).into()),
        (Class::Soft, commpool_store::ops::subscribe::End { fe, dialogs: vec![] }.into()),
        (Class::Soft, commpool_store::ops::subscribe::Unwatch { fe, users: vec![] }.into()),
        (Class::Durable, Put::Add { address: address(), display_name: String::new() }.into()),
        (Class::Read, accounts::Find::default().into()),
        (Class::Read, accounts::ChangedSince::default().into()),
        (Class::Soft, front_ends::Reap { by: fe, target: fe }.into()),
        (Class::Read, front_ends::List.into()),
        (Class::Read, pull::Pull { fe, cursor: None, limit: 1 }.into()),
        (Class::Soft, crate::assert::nothing(fe).into()),
        (Class::Soft, crate::adopt::adoption(commpool_model::ids::EndpointId(1), fe).into()),
        (Class::Soft, commpool_store::ops::adopt::Flush { fe, dialogs: vec![] }.into()),
        (Class::Durable, directory::LeaseTake { name: address(), holder: address(), ttl_ms: 1 }.into()),
        (Class::Durable, directory::LeaseKeep { name: address(), token: 1, ttl_ms: 1 }.into()),
        (Class::Read, directory::SourceGet { source: address() }.into()),
        (Class::Read, directory::SourceUsers { source: address(), after: None, limit: 1 }.into()),
        (Class::Read, directory::Holders { addresses: vec![] }.into()),
        (Class::Soft, directory::Stage { source: address(), token: 1, first: 0, rows: vec![] }.into()),
        (Class::Durable, directory::Apply { source: address(), token: 1, version: 0, rows: 0, state: vec![] }.into()),
        (Class::Read, HealthRequest.into()),
    ];
    assert_eq!(all.len(), Operation::NAMES.len(), "every operation stands here");
    for (place, (class, operation)) in all.iter().enumerate() {
        assert_eq!((operation.class(), operation.index()), (*class, place), "{}", operation.name());
        assert_eq!(operation.name(), Operation::NAMES[place]);
    }
}
