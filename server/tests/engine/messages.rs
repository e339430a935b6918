//! MESSAGE: to every endpoint, once, with one final answer.

use std::time::Duration;

use commpool_model::acl::{Ace, Right};
use commpool_sip::header::HeaderName;
use commpool_store::ops::Transport;

use super::bench::Pool;
use super::client::Client;

struct Two {
    pool: Pool,
    alice: Client,
    bob: Client,
}

fn two() -> Two {
    let mut pool = Pool::new();
    pool.add_user("alice", "alice-password");
    pool.add_user("bob", "bob-password");
    let (a, b) = (pool.connect("198.51.100.1:40000"), pool.connect("198.51.100.2:40000"));
    let mut alice = Client::new(a, "alice", "alice-password", "desk");
    let mut bob = Client::new(b, "bob", "bob-password", "desk");
    alice.register(&mut pool, 600);
    bob.register(&mut pool, 600);
    Two { pool, alice, bob }
}

/// Sends a MESSAGE with good credentials; whatever comes back at once.
fn say(pool: &mut Pool, from: &mut Client, to: &str, body: &str) -> Vec<commpool_sip::Message> {
    let mut draft = from.draft("MESSAGE", to);
    draft.headers = "Content-Type: text/plain\r\n".to_owned();
    draft.body = body.to_owned();
    let challenge = from.bare(pool, &draft);
    assert_eq!(challenge.status(), Some(407));
    draft.headers.push_str(&from.credentials(&challenge, &draft, 1));
    draft.cseq += 1000;
    draft.branch.push('m');
    pool.send(from.flow, &draft.text());
    pool.received(from.flow)
}

#[test]
fn a_message_reaches_its_endpoint_with_one_read_and_the_endpoints_own_answer_goes_back() {
    let Two { mut pool, mut alice, mut bob } = two();
    pool.calls.clear();
    assert!(say(&mut pool, &mut alice, "bob", "hello").is_empty());
    assert_eq!(pool.calls, ["route"]);
    let delivered = bob.answer_all(&mut pool, 200);
    let [message] = delivered.as_slice() else { panic!("{delivered:?}") };
    assert_eq!(&message.body()[..], b"hello");
    assert_eq!(message.request_uri(), "sip:bob@desk.invalid:5070;transport=tcp");
    assert_eq!(message.vias().count(), 2);
    assert_eq!(message.max_forwards().unwrap(), Some(69));
    assert!(!message.has(HeaderName::ProxyAuthorization) && !message.has(HeaderName::Authorization));
    assert_eq!(message.text(HeaderName::PAssertedIdentity).unwrap(), "<sip:alice@example.com>");
    let answer = pool.one(alice.flow);
    assert_eq!(answer.status(), Some(200));
    assert_eq!(answer.to().unwrap().tag(), Some("device"));
    assert_eq!(answer.vias().count(), 1);
}

#[test]
fn every_endpoint_gets_it_and_the_first_success_is_the_answer() {
    let Two { mut pool, mut alice, mut bob } = two();
    let flow = pool.udp("198.51.100.3:40000");
    let mut phone = Client::new(flow, "bob", "bob-password", "phone");
    phone.register(&mut pool, 600);
    say(&mut pool, &mut alice, "bob", "hello");
    assert_eq!(phone.answer_all(&mut pool, 486).len(), 1);
    assert!(pool.received(alice.flow).is_empty(), "one failed, the other is still open");
    assert_eq!(bob.answer_all(&mut pool, 200).len(), 1);
    assert_eq!(pool.one(alice.flow).status(), Some(200));
}

#[test]
fn when_all_refuse_the_best_answer_goes_back_and_credentials_never_cross() {
    for (first, second, expected) in
        [(486, 404, 486), (603, 486, 603), (401, 401, 403), (503, 503, 500), (408, 408, 480)]
    {
        let Two { mut pool, mut alice, mut bob } = two();
        let flow = pool.connect("198.51.100.3:40000");
        let mut phone = Client::new(flow, "bob", "bob-password", "phone");
        phone.register(&mut pool, 600);
        say(&mut pool, &mut alice, "bob", "hello");
        bob.answer_all(&mut pool, first);
        phone.answer_all(&mut pool, second);
        assert_eq!(pool.one(alice.flow).status(), Some(expected), "{first} {second}");
    }
}

#[test]
fn somebody_not_signed_in_is_said_at_once() {
    let Two { mut pool, mut alice, mut bob } = two();
    bob.register(&mut pool, 0);
    let answers = say(&mut pool, &mut alice, "bob", "hello");
    assert_eq!(answers[0].status(), Some(480));
    let answers = say(&mut pool, &mut alice, "nobody", "hello");
    assert_eq!(answers[0].status(), Some(404));
}

#[test]
fn a_silent_device_is_answered_for_in_time_and_its_connection_is_probed() {
    let Two { mut pool, mut alice, bob } = two();
    say(&mut pool, &mut alice, "bob", "hello");
    pool.pass(Duration::from_millis(3400));
    assert!(pool.received(alice.flow).is_empty(), "nothing before 3.5 s");
    pool.pass(Duration::from_millis(200));
    assert_eq!(pool.one(alice.flow).status(), Some(100));
    pool.pass(Duration::from_millis(4500));
    let answer = pool.one(alice.flow);
    assert_eq!(answer.status(), Some(480));
    assert!(answer.has(HeaderName::RetryAfter));
    pool.pass(Duration::from_secs(11));
    assert_eq!(pool.closed, [bob.flow]);
}

#[test]
fn a_device_that_goes_away_ends_its_leg_at_once() {
    let Two { mut pool, mut alice, bob } = two();
    say(&mut pool, &mut alice, "bob", "hello");
    pool.disconnect(bob.flow);
    assert_eq!(pool.one(alice.flow).status(), Some(480));
}

#[test]
fn an_answer_counts_only_on_the_flow_its_request_went_out_on() {
    let Two { mut pool, mut alice, mut bob } = two();
    say(&mut pool, &mut alice, "bob", "hello");
    let stranger = pool.connect("203.0.113.1:40000");
    let request = pool.one(bob.flow);
    let octets = commpool_sip::build::Response::to(&request, 200).to_tag("forged").build();
    pool.send(stranger, std::str::from_utf8(&octets).unwrap());
    assert!(pool.received(alice.flow).is_empty());
    pool.send(bob.flow, std::str::from_utf8(&octets).unwrap());
    assert_eq!(pool.one(alice.flow).status(), Some(200));
    bob.answer_all(&mut pool, 200);
}

#[test]
fn who_denies_messages_looks_away_and_still_reaches_himself() {
    let Two { mut pool, mut alice, mut bob } = two();
    for mask in ["", "example.com", "bob@example.com"] {
        pool.set_aces("bob", vec![Ace { mask: mask.to_owned(), presence: Right::Unset, communication: Right::Deny }]);
        let delivered = say(&mut pool, &mut bob, "bob", "a note to myself");
        pool.put_back(bob.flow, delivered);
        assert_eq!(bob.answer_all(&mut pool, 200).len(), 1, "{mask:?}");
        assert_eq!(pool.one(bob.flow).status(), Some(200), "{mask:?}");
    }
    pool.set_aces("bob", vec![Ace { mask: String::new(), presence: Right::Unset, communication: Right::Deny }]);
    assert_eq!(say(&mut pool, &mut alice, "bob", "hello")[0].status(), Some(480));
    assert!(bob.answer_all(&mut pool, 200).is_empty());
}

#[test]
fn what_is_for_a_sips_uri_goes_over_tls_only() {
    let Two { mut pool, mut alice, mut bob } = two();
    let udp = pool.udp("198.51.100.3:40000");
    let mut by_udp = Client::new(udp, "bob", "bob-password", "udp");
    by_udp.register(&mut pool, 60);
    let secret = |pool: &mut Pool, alice: &mut Client| {
        let mut draft = alice.draft("MESSAGE", "bob");
        (draft.uri, draft.body) = ("sips:bob@example.com".to_owned(), "a secret".to_owned());
        draft.headers = "Content-Type: text/plain\r\n".to_owned();
        let challenge = alice.bare(pool, &draft);
        draft.headers.push_str(&alice.credentials(&challenge, &draft, 1));
        draft.branch.push('m');
        pool.send(alice.flow, &draft.text());
        pool.received(alice.flow)
    };
    assert_eq!(secret(&mut pool, &mut alice)[0].status(), Some(480), "no device has TLS");
    let tls = pool.connect_over(Transport::Tls, "198.51.100.4:40000");
    let mut by_tls = Client::new(tls, "bob", "bob-password", "tls");
    by_tls.register(&mut pool, 600);
    assert!(secret(&mut pool, &mut alice).is_empty());
    assert_eq!(by_tls.answer_all(&mut pool, 200).len(), 1);
    assert_eq!(pool.one(alice.flow).status(), Some(200));
    assert!(bob.answer_all(&mut pool, 200).is_empty() && by_udp.answer_all(&mut pool, 200).is_empty());
}

#[test]
fn a_copy_of_a_request_draws_its_answer_nowhere_else() {
    let mut pool = Pool::new();
    pool.add_user("alice", "alice-password");
    let (own, elsewhere) = (pool.udp("198.51.100.1:40000"), pool.udp("203.0.113.1:40000"));
    let mut alice = Client::new(own, "alice", "alice-password", "desk");
    let mut draft = alice.draft("REGISTER", "alice");
    draft.headers = format!("Contact: {};expires=60\r\n", alice.contact);
    let challenge = alice.bare(&mut pool, &draft);
    draft.headers.push_str(&alice.credentials(&challenge, &draft, 1));
    draft.branch.push('r');
    let answer = alice.bare(&mut pool, &draft);
    assert_eq!(answer.status(), Some(200));
    for flow in [own, elsewhere, pool.connect("203.0.113.1:40001")] {
        pool.send(flow, &draft.text());
        assert_eq!(pool.one(own).octets(), answer.octets(), "{flow:?}");
        assert!(pool.received(elsewhere).is_empty() && pool.received(flow).is_empty(), "{flow:?}");
    }
}

#[test]
fn no_relay_to_elsewhere_no_loops_no_hops_left() {
    let Two { mut pool, mut alice, bob: _ } = two();
    let cases: [(&str, &str, u16); 4] = [
        ("sip:bob@elsewhere.example", "", 403),
        ("tel:+123", "", 416),
        ("sip:bob@example.com", "Route: <sip:192.0.2.99;lr>\r\n", 403),
        ("sip:bob@example.com", "Proxy-Require: foo\r\n", 420),
    ];
    for (uri, headers, status) in cases {
        let mut draft = alice.draft("MESSAGE", "bob");
        (draft.uri, draft.headers) = (uri.to_owned(), headers.to_owned());
        let answer = if status == 420 { alice.bare(&mut pool, &draft) } else { alice.ask(&mut pool, draft) };
        assert_eq!(answer.status(), Some(status), "{uri} {headers}");
    }
    let mut draft = alice.draft("MESSAGE", "bob");
    let challenge = alice.bare(&mut pool, &draft);
    draft.headers = alice.credentials(&challenge, &draft, 1);
    draft.branch.push('m');
    pool.send(alice.flow, &draft.text().replace("Max-Forwards: 70", "Max-Forwards: 0"));
    assert_eq!(pool.one(alice.flow).status(), Some(483));
}

#[test]
fn bodies_over_the_limit_are_refused() {
    let Two { mut pool, mut alice, bob: _ } = two();
    let body = "x".repeat(60_000);
    let answers = say(&mut pool, &mut alice, "bob", &body);
    assert!(answers.is_empty(), "60,000 octets pass");
}
