//! REGISTER, challenges, bindings, loss of flows.

use std::time::Duration;

use commpool_sip::header::HeaderName;
use commpool_store::ops::Outcome;
use commpool_store::ops::accounts::State;
use commpool_store::ops::endpoints::Find;

use super::bench::Pool;
use super::client::Client;

fn alice(pool: &mut Pool, device: &str) -> Client {
    let flow = pool.connect(&format!("198.51.100.{}:40000", device.len()));
    Client::new(flow, "alice", "alice-password", device)
}

fn pool() -> Pool {
    let mut pool = Pool::new();
    pool.add_user("alice", "alice-password");
    pool
}

fn endpoints(pool: &mut Pool) -> usize {
    match pool.execute(Find { limit: 100, ..Find::default() }.into()) {
        Outcome::EndpointsFind(page) => page.rows.iter().filter(|(_, e)| e.lost_ms.is_none()).count(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_short_datagram_is_challenged_by_as_much_as_it_may_bring() {
    let mut pool = Pool::new();
    pool.add_user("alice", "alice-password");
    let mut challenges = |number: u32, padding: usize| {
        let flow = pool.udp(&format!("198.51.100.{number}:40000"));
        let request = format!(
            "REGISTER sip:example.com SIP/2.0\r\nv: SIP/2.0/UDP 198.51.100.{number}:40000;rport;branch=z9hG4bK{number}\r\n\
             f: <sip:alice@example.com>;tag=1\r\nt: <sip:alice@example.com>\r\ni: {number}@x\r\nCSeq: 1 REGISTER\r\n\
             m: <sip:alice@198.51.100.{number}>\r\nl: 0\r\nX: {}\r\n\r\n",
            "p".repeat(padding)
        );
        pool.send(flow, &request);
        let mut answers = pool.received(flow);
        let answer = answers.pop()?;
        assert!(answers.is_empty() && answer.octets().len() <= 2 * request.len(), "{} octets", answer.octets().len());
        assert_eq!(answer.status(), Some(401));
        let rows: Vec<_> =
            answer.rows(HeaderName::WwwAuthenticate).map(|r| String::from_utf8_lossy(r).into_owned()).collect();
        Some((request.len(), rows))
    };
    let (length, few) = challenges(1, 0).expect("clients this short exist");
    assert!((200..260).contains(&length), "{length}");
    assert!(few.len() == 1 && few[0].contains("algorithm=MD5"), "{few:?}");
    let (_, all) = challenges(2, 200).unwrap();
    assert_eq!(all.len(), 2, "{all:?}");
}

#[test]
fn the_request_uri_of_a_register_is_where_its_client_was_told_to_go() {
    let mut pool = Pool::new();
    pool.add_user("alice", "alice-password");
    let flow = pool.connect("198.51.100.1:40000");
    let mut alice = Client::new(flow, "alice", "alice-password", "desk");
    for uri in ["sip:example.com", "sip:192.0.2.1:5060;transport=tcp", "sip:203.0.113.7:30060", "sips:sip.example.com"]
    {
        let mut draft = alice.draft("REGISTER", "alice");
        draft.uri = uri.to_owned();
        draft.headers = format!("Contact: {};expires=600\r\n", alice.contact);
        assert_eq!(alice.ask(&mut pool, draft).status(), Some(200), "{uri}");
    }
    let mut draft = alice.draft("REGISTER", "alice");
    draft.to = "<sip:alice@elsewhere.example>".to_owned();
    assert_eq!(alice.ask(&mut pool, draft).status(), Some(403), "whose bindings they are stands in To");
}

#[test]
fn the_challenge_offers_sha256_before_md5_and_says_nothing_of_the_user() {
    let mut pool = pool();
    let mut client = alice(&mut pool, "desk");
    let draft = client.draft("REGISTER", "alice");
    let known = client.bare(&mut pool, &draft);
    let rows: Vec<String> =
        known.rows(HeaderName::WwwAuthenticate).map(|r| String::from_utf8_lossy(r).into_owned()).collect();
    assert_eq!(rows.len(), 2);
    assert!(rows[0].contains("SHA-256") && rows[1].contains("MD5"), "{rows:?}");
    client.user = "nobody";
    let draft = client.draft("REGISTER", "nobody");
    let unknown = client.bare(&mut pool, &draft);
    assert_eq!(unknown.status(), known.status());
    assert_eq!(pool.calls.iter().filter(|c| **c == "credentials").count(), 0);
}

#[test]
fn one_write_and_one_credential_read_make_a_registration_and_a_refresh_needs_no_read() {
    let mut pool = pool();
    let mut client = alice(&mut pool, "desk");
    pool.calls.clear();
    let answer = client.register(&mut pool, 3600);
    assert_eq!(answer.status(), Some(200));
    assert_eq!(pool.calls, ["credentials", "register"]);
    pool.calls.clear();
    assert_eq!(client.register(&mut pool, 3600).status(), Some(200));
    assert_eq!(pool.calls, ["register"]);
    let contact = answer.text(HeaderName::Contact).unwrap().into_owned();
    assert!(contact.starts_with(&client.contact), "{contact}");
    let expires: u32 = contact.rsplit_once("expires=").unwrap().1.parse().unwrap();
    assert!((540..=600).contains(&expires), "{expires}");
}

#[test]
fn wrong_password_unknown_user_and_disabled_user_get_the_same_answer() {
    let mut pool = pool();
    pool.add_user("carol", "carol-password");
    pool.set_state("carol", State::Disabled);
    pool.pass(Duration::from_secs(2));
    let mut seen = Vec::new();
    for (user, password) in [("alice", "wrong-password"), ("nobody", "any-password"), ("carol", "carol-password")] {
        let flow = pool.connect("198.51.100.9:40000");
        let mut client = Client::new(flow, user, password, "desk");
        let answer = client.register(&mut pool, 600);
        seen.push((answer.status(), answer.octets().len() - 3 * user.len()));
    }
    assert_eq!(seen[0].0, Some(401));
    assert!(seen.iter().all(|s| s.0 == seen[0].0), "{seen:?}");
    assert_eq!(endpoints(&mut pool), 0);
}

#[test]
fn a_retransmission_gets_the_same_octets_and_writes_nothing() {
    let mut pool = pool();
    let flow = pool.udp("198.51.100.7:40000");
    let mut client = Client::new(flow, "alice", "alice-password", "desk");
    let mut draft = client.draft("REGISTER", "alice");
    draft.headers = format!("Contact: {}\r\n", client.contact);
    let challenge = client.bare(&mut pool, &draft);
    draft.headers.push_str(&client.credentials(&challenge, &draft, 1));
    draft.cseq += 1;
    draft.branch.push('x');
    let first = client.bare(&mut pool, &draft);
    let calls = pool.calls.len();
    let second = client.bare(&mut pool, &draft);
    assert_eq!(first.status(), Some(200));
    assert_eq!(first.octets(), second.octets());
    assert_eq!(pool.calls.len(), calls);
}

#[test]
fn a_used_nonce_count_is_challenged_again_as_stale() {
    let mut pool = pool();
    let mut client = alice(&mut pool, "desk");
    let mut draft = client.draft("REGISTER", "alice");
    draft.headers = format!("Contact: {}\r\n", client.contact);
    let challenge = client.bare(&mut pool, &draft);
    draft.headers.push_str(&client.credentials(&challenge, &draft, 1));
    draft.branch.push('a');
    assert_eq!(client.bare(&mut pool, &draft).status(), Some(200));
    draft.branch.push('b');
    draft.cseq += 5;
    let answer = client.bare(&mut pool, &draft);
    assert_eq!(answer.status(), Some(401));
    assert!(answer.text(HeaderName::WwwAuthenticate).unwrap().contains("stale=true"));
}

#[test]
fn a_nonce_is_old_after_a_minute() {
    let mut pool = pool();
    let mut client = alice(&mut pool, "desk");
    client.register(&mut pool, 600);
    let mut draft = client.draft("REGISTER", "alice");
    let challenge = client.bare(&mut pool, &draft);
    draft.headers = client.credentials(&challenge, &draft, 1);
    draft.branch.push('a');
    pool.pass(Duration::from_secs(62));
    let answer = client.bare(&mut pool, &draft);
    assert_eq!(answer.status(), Some(401));
    assert!(answer.text(HeaderName::WwwAuthenticate).unwrap().contains("stale=true"));
}

#[test]
fn nobody_registers_for_somebody_else() {
    let mut pool = pool();
    pool.add_user("bob", "bob-password");
    let mut client = alice(&mut pool, "desk");
    let mut draft = client.draft("REGISTER", "bob");
    draft.headers = format!("Contact: {}\r\n", client.contact);
    assert_eq!(client.ask(&mut pool, draft).status(), Some(403));
    let mut draft = client.draft("REGISTER", "alice");
    draft.from = "<sip:bob@example.com>;tag=1".to_owned();
    assert_eq!(client.ask(&mut pool, draft).status(), Some(403));
    assert_eq!(endpoints(&mut pool), 0);
}

#[test]
fn a_lost_connection_is_unroutable_at_once_and_gone_after_its_grace() {
    let mut pool = pool();
    let mut client = alice(&mut pool, "desk");
    client.register(&mut pool, 600);
    assert_eq!(endpoints(&mut pool), 1);
    pool.disconnect(client.flow);
    pool.pass(Duration::from_secs(1));
    assert_eq!(endpoints(&mut pool), 0);
    let all = |pool: &mut Pool| match pool.execute(Find { limit: 100, ..Find::default() }.into()) {
        Outcome::EndpointsFind(page) => page.rows.len(),
        other => panic!("{other:?}"),
    };
    pool.pass(Duration::from_secs(13));
    assert_eq!(all(&mut pool), 1);
    pool.pass(Duration::from_secs(4));
    assert_eq!(all(&mut pool), 0);
}

#[test]
fn a_registration_ends_when_its_time_is_over() {
    let mut pool = pool();
    let mut client = alice(&mut pool, "desk");
    client.register(&mut pool, 60);
    pool.pass(Duration::from_secs(55));
    assert_eq!(endpoints(&mut pool), 1);
    pool.pass(Duration::from_secs(7));
    assert_eq!(endpoints(&mut pool), 0);
}

#[test]
fn a_new_password_closes_open_connections_within_ten_seconds() {
    let mut pool = pool();
    let mut client = alice(&mut pool, "desk");
    client.register(&mut pool, 600);
    pool.set_password("alice", "another-password");
    pool.pass(Duration::from_secs(9));
    assert_eq!(pool.closed, [client.flow]);
    assert_eq!(endpoints(&mut pool), 0);
    client.flow = pool.connect("198.51.100.1:40001");
    assert_eq!(client.register(&mut pool, 600).status(), Some(401));
}

#[test]
fn a_disabled_user_is_signed_out_over_udp_too() {
    let mut pool = pool();
    let flow = pool.udp("198.51.100.7:40000");
    let mut client = Client::new(flow, "alice", "alice-password", "desk");
    assert_eq!(client.register(&mut pool, 600).status(), Some(200));
    pool.set_state("alice", State::Disabled);
    pool.pass(Duration::from_secs(9));
    assert_eq!(endpoints(&mut pool), 0);
    assert_eq!(client.register(&mut pool, 600).status(), Some(401));
}

#[test]
fn an_absent_store_is_answered_for_within_two_seconds_and_its_late_answer_is_taken_in() {
    let mut pool = pool();
    let mut client = alice(&mut pool, "desk");
    client.register(&mut pool, 600);
    let mut draft = client.draft("REGISTER", "alice");
    draft.headers = format!("Contact: {}\r\n", client.contact);
    let challenge = client.bare(&mut pool, &draft);
    draft.headers.push_str(&client.credentials(&challenge, &draft, 1));
    draft.branch.push('a');
    draft.cseq += 3;
    pool.hold_store = true;
    pool.send(client.flow, &draft.text());
    assert!(pool.received(client.flow).is_empty());
    pool.pass(Duration::from_millis(2100));
    let answer = pool.one(client.flow);
    assert_eq!(answer.status(), Some(500));
    assert!(answer.has(HeaderName::RetryAfter));
    pool.release_store();
    assert!(pool.received(client.flow).is_empty(), "one final answer only");
    assert_eq!(endpoints(&mut pool), 1);
}

#[test]
fn a_connection_on_which_nobody_signs_in_is_closed_after_half_a_minute() {
    let mut pool = pool();
    let silent = pool.connect("198.51.100.3:40000");
    let mut client = alice(&mut pool, "desk");
    client.register(&mut pool, 600);
    pool.pass(Duration::from_secs(31));
    assert_eq!(pool.closed, [silent]);
}

#[test]
fn strangers_on_udp_get_no_more_than_twice_what_they_sent() {
    let mut pool = pool();
    let flow = pool.udp("203.0.113.9:5060");
    let short = "OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:x>\r\n\
                 Call-ID: 1\r\nCSeq: 1 OPTIONS\r\n\r\n";
    pool.send(flow, short);
    assert!(pool.received(flow).is_empty());
    let mut client = Client::new(flow, "alice", "alice-password", "desk");
    let draft = client.draft("OPTIONS", "alice");
    pool.send(flow, &draft.text());
    let answer = pool.one(flow);
    assert_eq!(answer.status(), Some(200));
    assert!(answer.octets().len() <= 2 * draft.text().len());
}

#[test]
fn methods_that_are_not_served_are_refused_and_leave_nothing_behind() {
    let mut pool = pool();
    let mut client = alice(&mut pool, "desk");
    for (method, status) in [("INVITE", 405), ("BYE", 405), ("FOO", 405), ("CANCEL", 481), ("NOTIFY", 481)] {
        let draft = client.draft(method, "alice");
        let answer = client.bare(&mut pool, &draft);
        assert_eq!(answer.status(), Some(status), "{method}");
        assert_eq!(answer.has(HeaderName::Allow), status == 405);
    }
    let draft = client.draft("ACK", "alice");
    pool.send(client.flow, &draft.text());
    assert!(pool.received(client.flow).is_empty());
}

#[test]
fn what_the_store_did_not_take_of_lost_flows_and_account_changes_is_tried_again() {
    let mut pool = pool();
    let mut client = alice(&mut pool, "desk");
    client.register(&mut pool, 600);
    pool.fail = vec!["flows_lost", "accounts_changed", "unregister"];
    pool.disconnect(client.flow);
    pool.pass(Duration::from_secs(3));
    assert_eq!(endpoints(&mut pool), 1, "the store does not know yet");
    pool.fail.clear();
    pool.pass(Duration::from_secs(2));
    assert_eq!(endpoints(&mut pool), 0);
    client.flow = pool.connect("198.51.100.1:40001");
    client.register(&mut pool, 600);
    pool.fail = vec!["accounts_changed", "unregister"];
    pool.set_state("alice", State::Disabled);
    pool.pass(Duration::from_secs(3));
    pool.fail = vec!["unregister"];
    pool.pass(Duration::from_secs(3));
    assert_eq!(pool.closed, [client.flow]);
    pool.fail.clear();
    pool.pass(Duration::from_secs(2));
    let all = match pool.execute(Find { limit: 100, ..Find::default() }.into()) {
        Outcome::EndpointsFind(page) => page.rows.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(all, 0, "no device is left, lost or alive");
}

#[test]
fn users_who_share_a_connection_are_kept_apart() {
    let mut pool = pool();
    pool.add_user("bob", "bob-password");
    let mut first = alice(&mut pool, "gateway");
    let mut second = Client::new(first.flow, "bob", "bob-password", "gateway");
    first.register(&mut pool, 600);
    second.register(&mut pool, 600);
    assert_eq!(endpoints(&mut pool), 2);
    pool.set_password("alice", "another-password");
    pool.pass(Duration::from_secs(3));
    assert_eq!(endpoints(&mut pool), 1, "only her device goes");
    assert!(pool.closed.is_empty(), "the connection is his too");
    pool.disconnect(first.flow);
    pool.pass(Duration::from_secs(1));
    assert_eq!(endpoints(&mut pool), 0);
}

#[test]
fn an_address_that_only_sent_something_is_forgotten() {
    let mut pool = pool();
    for port in 40000..40010 {
        let flow = pool.udp(&format!("198.51.100.7:{port}"));
        let mut client = Client::new(flow, "alice", "alice-password", "desk");
        let mut draft = client.draft("MESSAGE", "nobody");
        draft.headers = format!("Contact: {}\r\nUser-Agent: test\r\n", client.contact);
        draft.branch = format!("z9hG4bK-{port}");
        draft.call_id = format!("call-{port}");
        assert_eq!(client.ask(&mut pool, draft).status(), Some(404));
    }
    assert_eq!(pool.gauges()[1], 10);
    pool.pass(Duration::from_secs(60));
    assert_eq!(pool.gauges()[1], 0);
}
