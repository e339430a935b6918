//! PUBLISH, SUBSCRIBE, NOTIFY: who sees what, when.

use std::time::Duration;

use commpool_model::acl::{Ace, Right};
use commpool_sip::Message;
use commpool_sip::header::HeaderName;
use commpool_sip::pidf::{self, Basic, Document};
use commpool_store::ops::accounts::State;

use super::bench::Pool;
use super::client::Client;

struct Two {
    pool: Pool,
    alice: Client,
    bob: Client,
}

/// Alice watches, Bob is watched; both signed in.
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

pub(crate) fn subscribe(pool: &mut Pool, client: &mut Client, to: &str, to_tag: Option<&str>, expires: u32) -> Message {
    let mut draft = client.draft("SUBSCRIBE", to);
    if let Some(tag) = to_tag {
        draft.to = format!("{};tag={tag}", draft.to);
    }
    draft.headers = format!(
        "Event: presence\r\nExpires: {expires}\r\nContact: {}\r\nAccept: application/pidf+xml\r\n",
        client.contact
    );
    client.ask(pool, draft)
}

fn publish(pool: &mut Pool, client: &mut Client, basic: &str, extra: &str, etag: Option<&str>) -> Message {
    let user = client.user;
    let mut draft = client.draft("PUBLISH", user);
    let if_match = etag.map(|t| format!("SIP-If-Match: {t}\r\n")).unwrap_or_default();
    draft.headers = format!("Event: presence\r\nExpires: 600\r\nContent-Type: application/pidf+xml\r\n{if_match}");
    draft.body = format!(
        "<?xml version='1.0'?><presence xmlns='urn:ietf:params:xml:ns:pidf' xmlns:dm='urn:ietf:params:xml:ns:pidf:data-model' \
         xmlns:r='urn:ietf:params:xml:ns:pidf:rpid' entity='sip:{user}@example.com'><tuple id='t1'><status><basic>{basic}</basic>\
         </status></tuple>{extra}</presence>"
    );
    client.ask(pool, draft)
}

/// The documents in the NOTIFYs that came in; each is answered 200.
pub(crate) fn told(pool: &mut Pool, client: &mut Client) -> Vec<Document> {
    let notifies = client.answer_all(pool, 200);
    notifies.iter().map(|n| pidf::parse(&n.body()).unwrap()).collect()
}

pub(crate) fn basic(document: &Document) -> Option<Basic> {
    document.tuples[0].basic
}

#[test]
fn what_is_watched_is_the_same_in_to_and_request_uri() {
    let Two { mut pool, mut alice, bob: _ } = two();
    pool.add_user("carol", "carol-password");
    let headers = format!("Event: presence\r\nExpires: 600\r\nContact: {}\r\n", alice.contact);
    // In a dialog only To names whom it is about: a refresh would watch Carol from then on.
    for to in ["<sip:carol@example.com>", "<sip:bob@elsewhere.example>", "<tel:+123>"] {
        let mut draft = alice.draft("SUBSCRIBE", "bob");
        (draft.to, draft.headers) = (to.to_owned(), headers.clone());
        assert_eq!(alice.ask(&mut pool, draft).status(), Some(403), "{to}");
    }
    assert!(told(&mut pool, &mut alice).is_empty());
    for (number, to) in ["<sip:BOB@Example.COM>", "\"Bob\" <sips:bob@example.com:5061>"].into_iter().enumerate() {
        let mut draft = alice.draft("SUBSCRIBE", "bob");
        (draft.to, draft.headers) = (to.to_owned(), headers.clone());
        draft.call_id = format!("spelled-{number}");
        assert_eq!(alice.ask(&mut pool, draft).status(), Some(200), "{to}");
        assert_eq!(told(&mut pool, &mut alice).len(), 1, "{to}");
    }
}

#[test]
fn nobody_is_hidden_from_himself() {
    let Two { mut pool, mut alice, mut bob } = two();
    for denied in [Right::Deny, Right::PoliteBlock] {
        for mask in ["", "example.com", "bob@example.com"] {
            pool.set_aces("bob", vec![Ace { mask: mask.to_owned(), presence: denied, communication: denied }]);
            assert_eq!(subscribe(&mut pool, &mut bob, "bob", None, 600).status(), Some(200));
            let told = told(&mut pool, &mut bob);
            assert!(!told.is_empty() && told.iter().all(|d| basic(d) == Some(Basic::Open)), "{denied:?} {mask:?}");
        }
    }
    pool.set_aces("bob", vec![Ace { mask: String::new(), presence: Right::Deny, communication: Right::Deny }]);
    assert_eq!(subscribe(&mut pool, &mut alice, "bob", None, 600).status(), Some(200));
    assert_eq!(basic(&told(&mut pool, &mut alice)[0]), Some(Basic::Closed), "a denial looks like being away");
}

#[test]
fn a_watcher_is_told_at_once_and_at_every_change() {
    let Two { mut pool, mut alice, mut bob } = two();
    pool.calls.clear();
    let answer = subscribe(&mut pool, &mut alice, "bob", None, 600);
    assert_eq!(answer.status(), Some(200));
    assert_eq!(pool.calls, ["subscribe"]);
    assert_eq!(basic(&told(&mut pool, &mut alice)[0]), Some(Basic::Open), "signed in counts as open");
    pool.calls.clear();
    assert_eq!(
        publish(
            &mut pool,
            &mut bob,
            "open",
            "<dm:person id='p'><r:activities><r:away/></r:activities></dm:person>",
            None
        )
        .status(),
        Some(200)
    );
    assert_eq!(pool.calls, ["publish"]);
    let documents = told(&mut pool, &mut alice);
    assert_eq!(documents[0].person.as_ref().unwrap().activities, ["away"]);
    bob.register(&mut pool, 0);
    assert_eq!(basic(&told(&mut pool, &mut alice)[0]), Some(Basic::Closed), "signing out acts at once");
}

#[test]
fn notify_numbers_rise_and_a_refresh_costs_no_store_call() {
    let Two { mut pool, mut alice, bob: _ } = two();
    let answer = subscribe(&mut pool, &mut alice, "bob", None, 600);
    let tag = answer.to().unwrap().tag().unwrap().to_owned();
    let first = alice.answer_all(&mut pool, 200);
    pool.calls.clear();
    assert_eq!(subscribe(&mut pool, &mut alice, "bob", Some(&tag), 600).status(), Some(200));
    assert!(pool.calls.is_empty(), "{:?}", pool.calls);
    let second = alice.answer_all(&mut pool, 200);
    assert_eq!(second.len(), 1, "a refresh is always followed by a NOTIFY");
    assert!(second[0].cseq().unwrap().0 > first[0].cseq().unwrap().0);
    assert_eq!(subscribe(&mut pool, &mut alice, "bob", Some(&tag), 0).status(), Some(200));
    let last = alice.answer_all(&mut pool, 200);
    assert!(last[0].text(HeaderName::SubscriptionState).unwrap().starts_with("terminated"));
}

#[test]
fn a_refresh_of_a_dialog_nobody_knows_is_carried_out() {
    let Two { mut pool, mut alice, bob: _ } = two();
    let answer = subscribe(&mut pool, &mut alice, "bob", Some("from-before"), 600);
    assert_eq!(answer.status(), Some(200));
    assert_eq!(answer.to().unwrap().tag(), Some("from-before"));
    assert_eq!(alice.answer_all(&mut pool, 200).len(), 1);
}

#[test]
fn a_lost_connection_is_no_news_if_it_comes_back_in_time_and_offline_if_not() {
    let Two { mut pool, mut alice, mut bob } = two();
    subscribe(&mut pool, &mut alice, "bob", None, 3600);
    told(&mut pool, &mut alice);
    pool.disconnect(bob.flow);
    pool.pass(Duration::from_secs(10));
    bob.flow = pool.connect("198.51.100.2:40001");
    bob.register(&mut pool, 600);
    pool.pass(Duration::from_secs(30));
    assert!(told(&mut pool, &mut alice).is_empty(), "a reconnect in the grace is silent");
    pool.disconnect(bob.flow);
    pool.pass(Duration::from_secs(14));
    assert!(told(&mut pool, &mut alice).is_empty());
    pool.pass(Duration::from_secs(4));
    assert_eq!(basic(&told(&mut pool, &mut alice)[0]), Some(Basic::Closed));
}

#[test]
fn two_devices_add_up_to_the_more_available_one() {
    let Two { mut pool, mut alice, mut bob } = two();
    let flow = pool.connect("198.51.100.3:40000");
    let mut phone = Client::new(flow, "bob", "bob-password", "phone");
    phone.register(&mut pool, 600);
    publish(&mut pool, &mut bob, "closed", "", None);
    publish(&mut pool, &mut phone, "open", "", None);
    subscribe(&mut pool, &mut alice, "bob", None, 600);
    let documents = told(&mut pool, &mut alice);
    assert_eq!(basic(&documents[0]), Some(Basic::Open), "the first tuple is the aggregate");
    assert_eq!(documents[0].tuples.len(), 3);
    phone.register(&mut pool, 0);
    let documents = told(&mut pool, &mut alice);
    assert_eq!(basic(documents.last().unwrap()), Some(Basic::Closed));
}

#[test]
fn an_unknown_tag_is_412_and_a_removed_publication_leaves_the_bare_sign_in() {
    let Two { mut pool, mut alice, mut bob } = two();
    let answer = publish(&mut pool, &mut bob, "open", "", None);
    let etag = answer.text(HeaderName::SipEtag).unwrap().into_owned();
    assert_eq!(publish(&mut pool, &mut bob, "open", "", Some("bogus")).status(), Some(412));
    let changed = publish(&mut pool, &mut bob, "closed", "", Some(&etag));
    assert_eq!(changed.status(), Some(200));
    assert_ne!(changed.text(HeaderName::SipEtag).unwrap(), etag);
    assert_eq!(publish(&mut pool, &mut bob, "open", "", Some(&etag)).status(), Some(412), "an old tag");
    subscribe(&mut pool, &mut alice, "bob", None, 600);
    assert_eq!(basic(&told(&mut pool, &mut alice)[0]), Some(Basic::Closed));
    let etag = changed.text(HeaderName::SipEtag).unwrap().into_owned();
    let mut draft = bob.draft("PUBLISH", "bob");
    draft.headers = format!("Event: presence\r\nExpires: 0\r\nSIP-If-Match: {etag}\r\n");
    assert_eq!(bob.ask(&mut pool, draft).status(), Some(200));
    assert_eq!(basic(&told(&mut pool, &mut alice)[0]), Some(Basic::Open));
}

#[test]
fn a_disabled_user_is_invisible_within_ten_seconds() {
    let Two { mut pool, mut alice, bob: _ } = two();
    subscribe(&mut pool, &mut alice, "bob", None, 600);
    told(&mut pool, &mut alice);
    pool.set_state("bob", State::Disabled);
    pool.pass(Duration::from_secs(9));
    let documents = told(&mut pool, &mut alice);
    assert_eq!(basic(documents.last().unwrap()), Some(Basic::Closed));
}

#[test]
fn bursts_of_changes_are_paced_and_the_last_state_wins() {
    let Two { mut pool, mut alice, mut bob } = two();
    subscribe(&mut pool, &mut alice, "bob", None, 600);
    let mut seen = told(&mut pool, &mut alice).len();
    for n in 0..30 {
        let basic = if n % 2 == 0 { "closed" } else { "open" };
        publish(&mut pool, &mut bob, basic, "", None);
        seen += told(&mut pool, &mut alice).len();
    }
    assert!(seen <= 17, "{seen}");
    pool.pass(Duration::from_secs(3));
    let last = told(&mut pool, &mut alice);
    assert_eq!(basic(last.last().unwrap()), Some(Basic::Open));
}

#[test]
fn what_is_not_presence_is_refused_by_name() {
    let Two { mut pool, mut alice, bob: _ } = two();
    for (headers, status, header) in [
        ("Event: dialog\r\n", 489, HeaderName::AllowEvents),
        ("", 489, HeaderName::AllowEvents),
        ("Event: presence\r\nAccept: text/plain\r\n", 406, HeaderName::Accept),
        ("Event: presence\r\nExpires: 5\r\n", 423, HeaderName::MinExpires),
    ] {
        let mut draft = alice.draft("SUBSCRIBE", "bob");
        draft.headers = format!("{headers}Contact: {}\r\n", alice.contact);
        let answer = alice.ask(&mut pool, draft);
        assert_eq!(answer.status(), Some(status), "{headers}");
        assert!(answer.has(header));
    }
    assert_eq!(subscribe(&mut pool, &mut alice, "nobody", None, 600).status(), Some(404));
}

#[test]
fn a_device_known_by_its_instance_keeps_its_publication_over_a_reconnect() {
    let Two { mut pool, mut alice, bob: _ } = two();
    let flow = pool.connect("198.51.100.3:40000");
    let mut phone = Client::new(flow, "bob", "bob-password", "phone");
    let instance = ";+sip.instance=\"<urn:uuid:34343434-2222-4333-8444-555555555555>\"";
    phone.contact.push_str(instance);
    phone.register(&mut pool, 600);
    publish(
        &mut pool,
        &mut phone,
        "open",
        "<dm:person id='p'><r:activities><r:busy/></r:activities></dm:person>",
        None,
    );
    subscribe(&mut pool, &mut alice, "bob", None, 600);
    told(&mut pool, &mut alice);
    pool.disconnect(phone.flow);
    phone.flow = pool.connect("198.51.100.3:40001");
    phone.contact = format!("<sip:bob@phone.invalid:5099;transport=tcp>{instance}");
    phone.register(&mut pool, 600);
    pool.pass(Duration::from_secs(40));
    assert!(told(&mut pool, &mut alice).is_empty());
}

#[test]
fn an_end_while_a_notify_waits_for_its_answer_still_has_its_last_word() {
    let Two { mut pool, mut alice, bob: _ } = two();
    let answer = subscribe(&mut pool, &mut alice, "bob", None, 600);
    let tag = answer.to().unwrap().tag().unwrap().to_owned();
    let waiting = pool.received(alice.flow);
    assert_eq!(subscribe(&mut pool, &mut alice, "bob", Some(&tag), 0).status(), Some(200));
    pool.put_back(alice.flow, waiting);
    alice.answer_all(&mut pool, 200);
    let last = alice.answer_all(&mut pool, 200);
    assert!(last[0].text(HeaderName::SubscriptionState).unwrap().starts_with("terminated"), "{last:?}");
}

#[test]
fn nobody_takes_over_anothers_dialog() {
    let Two { mut pool, mut alice, mut bob } = two();
    pool.add_user("carol", "carol-password");
    let answer = subscribe(&mut pool, &mut alice, "bob", None, 600);
    let tag = answer.to().unwrap().tag().unwrap().to_owned();
    told(&mut pool, &mut alice);
    let flow = pool.connect("198.51.100.4:40000");
    let mut carol = Client::new(flow, "carol", "carol-password", "desk");
    let mut draft = carol.draft("SUBSCRIBE", "bob");
    draft.call_id = "alice-desk".to_owned();
    draft.from = "<sip:carol@example.com>;tag=alice-desk-tag".to_owned();
    draft.to = format!("{};tag={tag}", draft.to);
    draft.cseq = 5000;
    draft.headers = format!("Event: presence\r\nExpires: 0\r\nContact: {}\r\n", carol.contact);
    carol.ask(&mut pool, draft);
    publish(&mut pool, &mut bob, "closed", "", None);
    assert_eq!(told(&mut pool, &mut alice).len(), 1, "her subscription goes on");
}

#[test]
fn the_rows_of_dialogs_whose_client_never_came_back_go_and_those_of_others_stay() {
    let Two { mut pool, mut alice, mut bob } = two();
    subscribe(&mut pool, &mut alice, "bob", None, 600);
    let answer = subscribe(&mut pool, &mut bob, "alice", None, 600);
    let tag = answer.to().unwrap().tag().unwrap().to_owned();
    pool.disconnect(alice.flow);
    told(&mut pool, &mut bob);
    pool.pass(Duration::from_secs(20));
    assert_eq!(told(&mut pool, &mut bob).len(), 1, "alice is offline");
    for _ in 0..8 {
        pool.pass(Duration::from_secs(290));
        bob.register(&mut pool, 600);
        assert_eq!(subscribe(&mut pool, &mut bob, "alice", Some(&tag), 600).status(), Some(200));
        told(&mut pool, &mut bob);
    }
    assert_eq!((pool.gauges()[3], pool.rows("subscription")), (1, 1));
}
