//! Users who come from a directory: what a run means for those who are signed in and those who watch.

use std::time::Duration;

use commpool_model::ids::{Key128, Micros};
use commpool_sip::header::HeaderName;
use commpool_sip::pidf::Basic;
use commpool_store::ops::accounts::State;
use commpool_store::ops::directory::{Card, Change};

use super::bench::{DOMAIN, Pool};
use super::client::Client;
use super::presence::{basic, subscribe, told};

fn entry(n: u8, name: &str, title: &str) -> Change {
    Change::Put {
        key: Key128([n; 16]),
        address: Some(format!("{name}@{DOMAIN}")),
        state: State::On,
        display_name: name.to_owned(),
        card: Card { title: title.to_owned(), ..Card::default() },
        fingerprint: Key128([n; 16]),
    }
}

/// A second of the clock passes, and with it whatever a change of an account leads to.
const SOON: Duration = Duration::from_secs(3);

fn signed_in(pool: &mut Pool, name: &'static str, password: &'static str) -> Client {
    pool.set_password(name, password);
    let flow = pool.connect(&format!("198.51.100.{}:40000", name.len()));
    let mut client = Client::new(flow, name, password, "desk");
    assert_eq!(client.register(pool, 600).status(), Some(200));
    client
}

#[test]
fn another_title_signs_nobody_out() {
    let mut pool = Pool::new();
    pool.replicate(vec![entry(1, "carol", "engineer")]);
    let mut carol = signed_in(&mut pool, "carol", "carol-password");
    pool.replicate(vec![entry(1, "carol", "director")]);
    pool.pass(SOON);
    assert!(pool.closed.is_empty());
    assert_eq!(carol.register(&mut pool, 600).status(), Some(200));
}

#[test]
fn a_renamed_user_is_signed_out_and_his_old_login_is_worth_nothing() {
    let mut pool = Pool::new();
    pool.replicate(vec![entry(1, "carol", "")]);
    let mut carol = signed_in(&mut pool, "carol", "carol-password");
    pool.replicate(vec![entry(1, "caroline", "")]);
    pool.pass(SOON);
    assert_eq!(pool.closed, [carol.flow]);
    carol.flow = pool.connect("198.51.100.1:40001");
    assert_eq!(carol.register(&mut pool, 600).status(), Some(401));
    signed_in(&mut pool, "caroline", "another-password");
}

#[test]
fn a_lapsed_user_is_signed_out_and_one_who_comes_back_signs_in_as_before() {
    let mut pool = Pool::new();
    pool.replicate(vec![entry(1, "carol", "")]);
    let mut carol = signed_in(&mut pool, "carol", "carol-password");
    pool.replicate(vec![Change::Lapse { key: Key128([1; 16]), purge_at: Micros(1) }]);
    pool.pass(SOON);
    assert_eq!(pool.closed, [carol.flow]);
    carol.flow = pool.connect("198.51.100.1:40001");
    assert_eq!(carol.register(&mut pool, 600).status(), Some(401));
    pool.replicate(vec![entry(1, "carol", "")]);
    pool.pass(SOON);
    assert_eq!(carol.register(&mut pool, 600).status(), Some(200));
}

#[test]
fn a_name_that_changes_hands_shows_its_watchers_nobody_until_they_ask_again() {
    let mut pool = Pool::new();
    pool.replicate(vec![entry(1, "carol", ""), entry(2, "dave", ""), entry(3, "alice", "")]);
    let mut alice = signed_in(&mut pool, "alice", "alice-password");
    signed_in(&mut pool, "carol", "carol-password");
    let answer = subscribe(&mut pool, &mut alice, "carol", None, 600);
    let tag = answer.text(HeaderName::To).unwrap().rsplit_once(";tag=").unwrap().1.to_owned();
    assert_eq!(basic(told(&mut pool, &mut alice).last().unwrap()), Some(Basic::Open));

    pool.replicate(vec![entry(1, "caroline", ""), entry(2, "carol", "")]);
    pool.pass(SOON);
    let documents = told(&mut pool, &mut alice);
    let last = documents.last().unwrap();
    assert_eq!((basic(last), last.entity.as_str()), (Some(Basic::Closed), "sip:carol@example.com"));

    // Whoever had the name before is none of its watchers' business any more.
    signed_in(&mut pool, "caroline", "another-password");
    pool.pass(SOON);
    assert!(told(&mut pool, &mut alice).iter().all(|document| basic(document) == Some(Basic::Closed)));

    signed_in(&mut pool, "carol", "third-password");
    pool.pass(SOON);
    assert_eq!(subscribe(&mut pool, &mut alice, "carol", Some(&tag), 600).status(), Some(200));
    let documents = told(&mut pool, &mut alice);
    let last = documents.last().unwrap();
    assert_eq!((basic(last), last.entity.as_str()), (Some(Basic::Open), "sip:carol@example.com"));
}

#[test]
fn whoever_subscribes_to_a_new_name_is_told_of_its_owner() {
    let mut pool = Pool::new();
    pool.replicate(vec![entry(1, "carol", ""), entry(3, "alice", "")]);
    let mut alice = signed_in(&mut pool, "alice", "alice-password");
    subscribe(&mut pool, &mut alice, "carol", None, 600);
    told(&mut pool, &mut alice);
    pool.replicate(vec![entry(1, "caroline", "")]);
    subscribe(&mut pool, &mut alice, "caroline", None, 600);
    pool.pass(SOON);
    told(&mut pool, &mut alice);
    signed_in(&mut pool, "caroline", "another-password");
    pool.pass(SOON);
    // What waited for the answer to the one before comes after it.
    let documents = [told(&mut pool, &mut alice), told(&mut pool, &mut alice)].concat();
    let of = |name: &str| {
        let entity = format!("sip:{name}@example.com");
        documents.iter().rev().find(|document| document.entity == entity).and_then(basic)
    };
    assert_eq!((of("caroline"), of("carol")), (Some(Basic::Open), Some(Basic::Closed)));
}
