//! Subscription dialogs as their notifier keeps them.

use proptest::prelude::*;

use super::*;
use crate::limits::Limits;
use crate::message::Message;

const START: Moment = Moment(50_000_000);
const POOL_SECONDS: u64 = 28_000_000;
const VIA: &str = "SIP/2.0/TCP pool.example.org;rport;branch=z9hG4bKx";

fn subscribe() -> Subscribe<'static> {
    Subscribe {
        call_id: "c1@client",
        local_tag: "ours",
        remote_tag: "theirs",
        local_uri: "\"Bob, B\" <sip:bob@example.org>;tag=ours",
        remote_uri: "sip:alice@example.org;tag=theirs",
        contact: "sip:alice@192.0.2.7:5070;transport=tcp?Subject=x",
        route_set: vec!["<sip:edge.example.org;lr>", "Edge <sip:inner.example.org;lr>;x=y"],
        event_package: "presence",
        event_id: Some("17"),
        cseq: 5,
        expires: 600,
        last_local_cseq: 0,
        pool_seconds: POOL_SECONDS,
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn notify(dialog: &mut Dialog, now: Moment, state: SubState) -> Message {
    let octets = dialog.notify(now, VIA, "sip:pool.example.org;transport=tcp", state, None);
    let message = Message::parse_datagram(octets, &Limits::default()).unwrap();
    message.validate().unwrap();
    message
}

fn cseq(message: &Message) -> u32 {
    message.cseq().unwrap().0
}

#[test]
fn a_notify_is_complete() {
    let mut dialog = Dialog::new(START, &subscribe()).unwrap();
    let body = ("application/pidf+xml", &b"<presence/>"[..]);
    let octets =
        dialog.notify(START + seconds(100), VIA, "sip:pool.example.org;transport=tcp", SubState::Active, Some(body));
    let expected = "NOTIFY sip:alice@192.0.2.7:5070;transport=tcp SIP/2.0\r\n\
        Via: SIP/2.0/TCP pool.example.org;rport;branch=z9hG4bKx\r\n\
        Route: <sip:edge.example.org;lr>\r\n\
        Route: Edge <sip:inner.example.org;lr>;x=y\r\n\
        Max-Forwards: 70\r\n\
        From: \"Bob, B\" <sip:bob@example.org>;tag=ours\r\n\
        To: <sip:alice@example.org>;tag=theirs\r\n\
        Call-ID: c1@client\r\n\
        CSeq: 28000032 NOTIFY\r\n\
        Contact: <sip:pool.example.org;transport=tcp>\r\n\
        Event: presence;id=17\r\n\
        Subscription-State: active;expires=500\r\n\
        Content-Type: application/pidf+xml\r\n\
        Content-Length: 11\r\n\
        \r\n\
        <presence/>";
    assert_eq!(String::from_utf8(octets.to_vec()).unwrap(), expected);
}

#[test]
fn states_are_told_as_they_are() {
    let mut dialog = Dialog::new(START, &Subscribe { event_id: None, remote_tag: "", ..subscribe() }).unwrap();
    let pending = notify(&mut dialog, START, SubState::Pending);
    assert_eq!(pending.text(HeaderName::SubscriptionState).unwrap(), "pending;expires=600");
    assert_eq!(pending.text(HeaderName::Event).unwrap(), "presence");
    assert_eq!(pending.to().unwrap().tag(), None);
    assert_eq!(pending.body().len(), 0);
    for reason in [
        Reason::Deactivated,
        Reason::Probation,
        Reason::Rejected,
        Reason::Timeout,
        Reason::Giveup,
        Reason::Noresource,
        Reason::Invariant,
    ] {
        let over = notify(&mut dialog, START, SubState::Terminated(reason));
        let expected = format!("terminated;reason={}", reason.as_str());
        assert_eq!(over.text(HeaderName::SubscriptionState).unwrap(), expected);
    }
    let late = notify(&mut dialog, START + seconds(9999), SubState::Active);
    assert_eq!(late.text(HeaderName::SubscriptionState).unwrap(), "active;expires=0");
}

#[test]
fn a_strict_router_gets_the_request_uri() {
    let route_set = vec!["<sip:lr@strict.example.org;transport=tcp>", "<sip:loose.example.org;lr>"];
    let mut dialog = Dialog::new(START, &Subscribe { route_set, ..subscribe() }).unwrap();
    let message = notify(&mut dialog, START, SubState::Active);
    assert_eq!(message.request_uri(), "sip:lr@strict.example.org;transport=tcp");
    let routes: Vec<_> = message.rows(HeaderName::Route).collect();
    assert_eq!(routes, [&b"<sip:loose.example.org;lr>"[..], b"<sip:alice@192.0.2.7:5070;transport=tcp>"]);
}

#[test]
fn cseq_starts_above_everything_known_and_rises_by_one() {
    let mut dialog = Dialog::new(START, &subscribe()).unwrap();
    for step in 0..3 {
        assert_eq!(cseq(&notify(&mut dialog, START, SubState::Active)), 28_000_032 + step);
    }
    assert_eq!(dialog.local_cseq(), 28_000_034);
    let known = Subscribe { last_local_cseq: 30_000_000, ..subscribe() };
    assert_eq!(cseq(&notify(&mut Dialog::new(START, &known).unwrap(), START, SubState::Active)), 30_000_032);
    for (last_local_cseq, pool_seconds) in [(u32::MAX, 0), (0, u64::MAX), (CSEQ_LIMIT - 1, 0)] {
        let absurd = Subscribe { last_local_cseq, pool_seconds, ..subscribe() };
        let mut dialog = Dialog::new(START, &absurd).unwrap();
        for _ in 0..3 {
            assert!(cseq(&notify(&mut dialog, START, SubState::Active)) < CSEQ_LIMIT);
        }
    }
}

#[test]
fn a_refresh_moves_target_and_lifetime_and_is_taken_in_order_only() {
    let mut dialog = Dialog::new(START, &subscribe()).unwrap();
    let later = START + seconds(300);
    assert_eq!(dialog.refresh(later, 5, None, 600), Err(DialogError::OutOfOrder));
    assert_eq!(dialog.refresh(later, 4, None, 600), Err(DialogError::OutOfOrder));
    assert_eq!(dialog.refresh(later, 6, Some("no uri"), 600), Err(DialogError::Unfit("Contact")));
    assert_eq!((dialog.remaining(later), dialog.remote_cseq()), (300, 5));
    dialog.refresh(later, 9, Some("sip:alice@192.0.2.8"), 600).unwrap();
    assert_eq!((dialog.remaining(later), dialog.remote_cseq()), (600, 9));
    assert_eq!(dialog.remote_target(), "sip:alice@192.0.2.8");
    assert!(!dialog.is_expired(later + seconds(599)) && dialog.is_expired(later + seconds(600)));
    dialog.refresh(later, 10, None, 0).unwrap();
    assert_eq!(dialog.remote_target(), "sip:alice@192.0.2.8");
    assert!(dialog.is_expired(later));
}

#[test]
fn what_could_break_a_message_is_refused_by_name() {
    let long = "x".repeat(LONGEST_TEXT + 1);
    let cases = [
        ("Call-ID", Subscribe { call_id: "a\r\nX: y", ..subscribe() }),
        ("Call-ID", Subscribe { call_id: " ", ..subscribe() }),
        ("Call-ID", Subscribe { call_id: &long, ..subscribe() }),
        ("To tag", Subscribe { local_tag: "", ..subscribe() }),
        ("From tag", Subscribe { remote_tag: "a;b", ..subscribe() }),
        ("To", Subscribe { local_uri: "\"open <sip:bob@example.org>", ..subscribe() }),
        ("From", Subscribe { remote_uri: "<sip:a@b\0>", ..subscribe() }),
        ("Contact", Subscribe { contact: "*", ..subscribe() }),
        ("Record-Route", Subscribe { route_set: vec!["<sip:a;lr>", "<"], ..subscribe() }),
        ("Event", Subscribe { event_package: "presence;x", ..subscribe() }),
        ("Event id", Subscribe { event_id: Some("1,2"), ..subscribe() }),
    ];
    for (what, subscribe) in cases {
        assert_eq!(Dialog::new(START, &subscribe).unwrap_err(), DialogError::Unfit(what), "{subscribe:?}");
    }
    let route_set = vec!["<sip:a;lr>"; MOST_ROUTES + 1];
    assert_eq!(Dialog::new(START, &Subscribe { route_set, ..subscribe() }).unwrap_err(), DialogError::TooManyRoutes);
}

#[test]
fn answers_end_keep_or_raise() {
    let fresh = Dialog::new(START, &subscribe()).unwrap();
    for status in [404, 405, 410, 416, 480, 481, 482, 483, 484, 485, 489, 501, 604] {
        assert_eq!(fresh.clone().answer(status), After::End, "{status}");
    }
    for status in [200, 202, 400, 401, 403, 406, 408, 413, 415, 420, 486, 488, 503, 600, 603] {
        assert_eq!(fresh.clone().answer(status), After::Keep, "{status}");
    }
}

#[test]
fn a_refused_cseq_is_raised_once() {
    let mut dialog = Dialog::new(START, &subscribe()).unwrap();
    let first = cseq(&notify(&mut dialog, START, SubState::Active));
    assert_eq!(dialog.answer(500), After::RetryHigherCSeq);
    assert_eq!(cseq(&notify(&mut dialog, START, SubState::Active)), first + 65);
    assert_eq!(dialog.answer(500), After::Keep);

    let mut proven = Dialog::new(START, &subscribe()).unwrap();
    notify(&mut proven, START, SubState::Active);
    assert_eq!(proven.answer(200), After::Keep);
    assert_eq!(proven.answer(500), After::Keep, "an owner that was accepted is nobody's follower");
}

#[test]
fn sixteen_at_once_then_one_a_second() {
    let mut dialog = Dialog::new(START, &subscribe()).unwrap();
    for _ in 0..16 {
        assert_eq!(dialog.ready(START), Ok(()));
        notify(&mut dialog, START, SubState::Active);
    }
    assert_eq!(dialog.ready(START), Err(START + seconds(1)));
    assert_eq!(dialog.ready(START + seconds(1)), Ok(()));
    notify(&mut dialog, START + seconds(1), SubState::Active);
    assert_eq!(dialog.ready(START + seconds(1)), Err(START + seconds(2)));
    let rested = START + seconds(100);
    for _ in 0..16 {
        assert_eq!(dialog.ready(rested), Ok(()));
        notify(&mut dialog, rested, SubState::Active);
    }
    assert!(dialog.ready(rested).is_err(), "rest is not saved up beyond the burst");
}

proptest! {
    #[test]
    fn pace_and_order_hold_whenever_it_is_asked(pauses in prop::collection::vec(0_u64..3_000_000, 1..200)) {
        let mut dialog = Dialog::new(START, &subscribe()).unwrap();
        let (mut now, mut sent, mut last) = (START, 0_u64, 0);
        for pause in pauses {
            now = now + Duration::from_micros(pause);
            if let Err(when) = dialog.ready(now) {
                prop_assert!(when > now && dialog.ready(when).is_ok());
                continue;
            }
            let number = cseq(&notify(&mut dialog, now, SubState::Active));
            prop_assert!(number > last);
            last = number;
            sent += 1;
            prop_assert!(sent <= 16 + now.since(START).as_secs());
        }
    }
}
