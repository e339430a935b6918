//! Passwords that change while their verifiers are on the way from the store.

use std::time::Duration;

use commpool_sip::header::HeaderName;
use commpool_sip::message::Message;
use commpool_store::ops::accounts::State;

use super::bench::Pool;
use super::client::{Client, Draft};

/// Changes are asked for each second; who waits for the store is answered for after two.
const TOLD: Duration = Duration::from_millis(1100);

fn client(pool: &mut Pool) -> Client {
    pool.add_user("alice", "old");
    let flow = pool.connect("198.51.100.1:40000");
    Client::new(flow, "alice", "old", "desk")
}

/// A REGISTER with credentials, sent while answers of the store are on the way: none is there yet.
fn sends(pool: &mut Pool, client: &mut Client) {
    let challenge = {
        let draft = registration(client);
        client.bare(pool, &draft)
    };
    let mut draft = registration(client);
    draft.headers.push_str(&client.credentials(&challenge, &draft, 1));
    pool.slow = vec!["credentials"];
    pool.send(client.flow, &draft.text());
    assert!(pool.received(client.flow).is_empty());
}

fn registration(client: &mut Client) -> Draft {
    let mut draft = client.draft("REGISTER", client.user);
    draft.headers = format!("Contact: {};expires=600\r\n", client.contact);
    draft
}

fn status(answer: &Message) -> u16 {
    answer.status().unwrap()
}

#[test]
fn a_password_revoked_while_it_was_read_is_worth_nothing() {
    let mut pool = Pool::new();
    let mut alice = client(&mut pool);
    sends(&mut pool, &mut alice);
    pool.set_password("alice", "new");
    pool.pass(TOLD);
    pool.slow.clear();
    assert_eq!(pool.arrive(), 1);
    assert_eq!(status(&pool.one(alice.flow)), 401);
    // Neither is it remembered.
    assert_eq!(status(&alice.register(&mut pool, 600)), 401);
    let mut alice = Client::new(alice.flow, "alice", "new", "desk");
    assert_eq!(status(&alice.register(&mut pool, 600)), 200);
}

#[test]
fn so_is_that_of_an_account_switched_off_meanwhile() {
    let mut pool = Pool::new();
    let mut alice = client(&mut pool);
    sends(&mut pool, &mut alice);
    pool.set_state("alice", State::Disabled);
    pool.pass(TOLD);
    pool.slow.clear();
    pool.arrive();
    assert_eq!(status(&pool.one(alice.flow)), 401);
}

#[test]
fn a_password_read_after_its_change_counts_although_the_change_is_told_later() {
    let mut pool = Pool::new();
    let mut alice = client(&mut pool);
    pool.set_password("alice", "old");
    sends(&mut pool, &mut alice);
    pool.pass(TOLD);
    let reads = pool.calls.iter().filter(|name| **name == "credentials").count();
    pool.arrive();
    assert_eq!(status(&pool.one(alice.flow)), 200);
    assert_eq!(pool.calls.iter().filter(|name| **name == "credentials").count(), reads, "read again for nothing");
}

#[test]
fn an_account_that_never_stops_changing_is_told_to_come_again() {
    let mut pool = Pool::new();
    let mut alice = client(&mut pool);
    sends(&mut pool, &mut alice);
    for n in 0..4 {
        assert!(pool.received(alice.flow).iter().all(|answer| answer.status() == Some(100)), "answered after {n}");
        pool.set_password("alice", "old");
        pool.pass(TOLD);
        assert_eq!(pool.arrive(), 1);
    }
    let answer = pool.one(alice.flow);
    assert_eq!(status(&answer), 500, "{answer:?}");
    assert!(answer.text(HeaderName::RetryAfter).is_some());
    assert_eq!(pool.arrive(), 0, "it goes on reading");
}
