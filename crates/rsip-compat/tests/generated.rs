//! Generated messages within what rsip can hold: both sides must read the same, and nothing may change on the way there and back.

use bytes::Bytes;
use commpool_rsip_compat::{NotCarried, compare, from_rsip, to_rsip};
use commpool_sip::{HeaderName, Limits, Message, Method, Request, Response};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        select(vec!["example.org", "pool.example.org", "Example.ORG", "a1-b2.invalid", "localhost"])
            .prop_map(str::to_owned),
        any::<[u8; 4]>().prop_map(|octets| std::net::Ipv4Addr::from(octets).to_string()),
    ]
}

/// Without a dot: rsip takes that for the host.
fn user() -> impl Strategy<Value = String> {
    vec(select(vec!["a", "b", "Z", "9", "-", "_", "+", "%40", "%C3%BC", "~", "*", "'", "&", "$"]), 1..10)
        .prop_map(|parts| parts.concat())
}

fn uri() -> impl Strategy<Value = String> {
    let params = vec(
        select(vec![";lr", ";transport=tcp", ";transport=TLS", ";user=phone", ";x=y-1", ";ob", ";maddr=192.0.2.1"]),
        0..3,
    );
    (select(vec!["sip", "sips"]), option::of(user()), host(), option::of(1_u16..), params).prop_map(
        |(scheme, user, host, port, params)| {
            let user = user.map(|user| format!("{user}@")).unwrap_or_default();
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            format!("{scheme}:{user}{host}{port}{}", params.concat())
        },
    )
}

fn address() -> impl Strategy<Value = String> {
    (select(vec!["", "Ada ", "\"Ada Lovelace\" ", "\"Ада; Л.\" "]), uri())
        .prop_map(|(display, uri)| format!("{display}<{uri}>"))
}

fn via() -> impl Strategy<Value = String> {
    let transport = select(vec!["UDP", "TCP", "TLS", "WS", "WSS"]);
    let params = vec(select(vec![";rport", ";rport=5062", ";received=192.0.2.4", ";alias", ";ttl=1"]), 0..3);
    (transport, host(), option::of(1_u16..), "[a-zA-Z0-9.-]{1,12}", params).prop_map(
        |(transport, host, port, branch, params)| {
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            format!("SIP/2.0/{transport} {host}{port};branch=z9hG4bK{branch}{}", params.concat())
        },
    )
}

fn method() -> impl Strategy<Value = &'static str> {
    select(vec![
        "REGISTER",
        "MESSAGE",
        "PUBLISH",
        "SUBSCRIBE",
        "NOTIFY",
        "OPTIONS",
        "INVITE",
        "ACK",
        "CANCEL",
        "BYE",
        "REFER",
        "UPDATE",
    ])
}

prop_compose! {
    fn message()(
        method in method(),
        target in uri(),
        vias in vec(via(), 1..4),
        (from, to) in (address(), address()),
        tags in ("[a-z0-9.]{1,8}", option::of("[A-Z0-9]{1,8}")),
        contacts in vec(address(), 0..3),
        (number, hops) in (0..(1_u32 << 31), 0..=255_u8),
        subject in "[a-zA-Z0-9][ -~]{0,20}[a-zA-Z0-9]",
        body in vec(any::<u8>(), 0..60),
        answer in option::of(select(vec![100_u16, 180, 200, 202, 302, 404, 481, 489, 500, 603])),
    ) -> Bytes {
        let mut request = Request::new(Method::of(method), &target);
        for via in &vias {
            request = request.header(HeaderName::Via, via);
        }
        request = request
            .header(HeaderName::MaxForwards, hops.to_string())
            .header(HeaderName::From, format!("{from};tag={}", tags.0))
            .header(HeaderName::To, format!("{to}{}", tags.1.map(|tag| format!(";tag={tag}")).unwrap_or_default()))
            .header(HeaderName::CallId, "abc-1@example.org")
            .header(HeaderName::CSeq, format!("{number} {method}"))
            .header(HeaderName::Subject, subject);
        for contact in &contacts {
            request = request.header(HeaderName::Contact, contact);
        }
        let request = request.body("application/octet-stream", &body).build();
        match answer {
            Some(status) => {
                let request = Message::parse_framed(request, &Limits::default()).expect("a message");
                Response::to(&request, status).to_tag("t").header(HeaderName::Server, "s").body("text/plain", &body).build()
            }
            None => request,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn both_sides_read_the_same(octets in message()) {
        let ours = Message::parse_framed(octets.clone(), &Limits::default()).unwrap();
        prop_assert_eq!(ours.validate(), Ok(()));
        let theirs = rsip::SipMessage::try_from(octets.as_ref()).unwrap();
        prop_assert_eq!(compare(&ours, &theirs), Ok(()));
    }

    #[test]
    fn there_and_back_changes_nothing(octets in message()) {
        let ours = Message::parse_framed(octets, &Limits::default()).unwrap();
        let back = from_rsip(&to_rsip(&ours).unwrap()).unwrap();
        // A `transport` parameter is the only thing that rsip spells in its own way.
        let spelling = |message: &Message| {
            let octets = message.octets().to_ascii_lowercase();
            octets.split(|octet| *octet == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        prop_assert_eq!(spelling(&back), spelling(&ours));
        prop_assert_eq!(back.body(), ours.body());
    }
}

fn message_of(text: &str) -> Message {
    Message::parse_datagram(Bytes::from(text.replace('\n', "\r\n")), &Limits::default()).unwrap()
}

const PLAIN: &str = "MESSAGE sip:b@example.org SIP/2.0\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\nFrom: <sip:a@example.org>;tag=1\nTo: <sip:b@example.org>\nCall-ID: c\nCSeq: 1 MESSAGE\n\n";

#[test]
fn what_rsip_cannot_hold_is_refused() {
    assert!(to_rsip(&message_of(PLAIN)).is_ok());
    for (from, to) in [
        ("Via: SIP/2.0/UDP h", "Via: SIP/2.0/UDP [2001:db8::1]"),
        ("sip:b@example.org SIP", "sip:b@[2001:db8::1] SIP"),
        ("sip:b@example.org SIP", "tel:+1;ext=2 SIP"),
        ("<sip:b@example.org>", "<sip:b.c@example.org>"),
        ("<sip:b@example.org>\n", "<sip:b@example.org;gr=urn:uuid:1-2>\n"),
        ("MESSAGE", "SERVICE"),
        ("Call-ID", "Contact: <sip:b@h?Subject=x>\nCall-ID"),
        ("Call-ID", "Contact: <sip:b@h>;+sip.instance=\"<urn:uuid:1>\"\nCall-ID"),
        ("MESSAGE sip:b@example.org SIP/2.0", "SIP/2.0 200 All is well"),
        ("CSeq: 1 MESSAGE", "CSeq: 1 INVITE"),
    ] {
        let changed = message_of(&PLAIN.replace(from, to));
        assert!(to_rsip(&changed).is_err(), "{to}");
    }
}

#[test]
fn long_names_and_one_value_a_row_are_made_for_rsip() {
    let ours = message_of(
        "MESSAGE sip:b@example.org SIP/2.0\nv : SIP/2.0/UDP h;branch=z9hG4bK1,\n SIP/2.0/TCP i\nf: <sip:a@example.org>;tag=1\nt: <sip:b@example.org>\ni: c\nCSeq: 1\n MESSAGE\nl: 2\n\nhi",
    );
    let theirs = to_rsip(&ours).unwrap();
    let text = theirs.to_string().replace("\r\n", "\n");
    let expected = "MESSAGE sip:b@example.org SIP/2.0\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\nVia: SIP/2.0/TCP i\nFrom: <sip:a@example.org>;tag=1\nTo: <sip:b@example.org>\nCall-ID: c\nCSeq: 1 MESSAGE\nContent-Length: 2\n\nhi";
    assert_eq!(text, expected);
}

#[test]
fn what_rsip_writes_wrongly_is_refused() {
    let Ok(rsip::SipMessage::Request(plain)) = to_rsip(&message_of(PLAIN)) else { panic!("must be carried") };
    let with = |change: fn(&mut rsip::Request)| {
        let mut request = plain.clone();
        change(&mut request);
        from_rsip(&request.into()).map(|message| message.octets().clone())
    };
    assert!(with(|_| {}).is_ok());
    // An address from rsip's own constructor is written without brackets.
    assert!(
        with(|request| request.uri.host_with_port =
            (rsip::Host::from(std::net::IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1_u16])), 5060_u16).into())
        .is_err()
    );
    assert!(with(|request| request.headers.push(rsip::Header::Other("X".into(), "1\r\nY: 2".into()))).is_err());
    assert!(with(|request| request.headers.push(rsip::Header::Other("X Y".into(), "1".into()))).is_err());
    assert!(with(|request| request.headers.push(rsip::headers::ContentLength::from(7_u32).into())).is_err());
    assert!(with(|request| request.headers.retain(|header| !matches!(header, rsip::Header::From(_)))).is_err());
    let error: NotCarried = with(|request| request.version = rsip::Version::V1).unwrap_err();
    assert!(error.to_string().contains("SIP/2.0"), "{error}");
}
