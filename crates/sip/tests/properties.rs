//! What holds for every input: nothing panics, what is written can be read, streams may be cut anywhere.

#[expect(dead_code, reason = "only the octets are wanted here")]
#[path = "torture/table.rs"]
mod table;

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use commpool_sip::{
    Contacts, Forward, Frame, HeaderName, Limits, Message, Method, NameAddr, Request, Response, StreamFramer, Uri, Via,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Octets that are close to SIP: torture messages with some octets replaced, removed, doubled, or cut short.
fn nearly_sip() -> impl Strategy<Value = Vec<u8>> {
    let seeds: Vec<Vec<u8>> = table::cases(&table::own_folder()).into_iter().map(|case| case.octets).collect();
    let telling = select(b"\r\n\0\"\\<>;,:@?=%/[] \t*0\x80\xff".to_vec());
    let edits = vec((any::<Index>(), 0..4_u8, prop_oneof![telling, any::<u8>()]), 0..6);
    (select(seeds), edits).prop_map(|(mut octets, edits)| {
        for (at, kind, octet) in edits {
            let at = at.index(octets.len().max(1));
            match kind {
                0 if at < octets.len() => octets[at] = octet,
                1 if at < octets.len() => drop(octets.remove(at)),
                2 => octets.insert(at, octet),
                _ => octets.truncate(octets.len() - at % 64.min(octets.len().max(1))),
            }
        }
        octets
    })
}

/// Calls everything that reads a message.
fn read_all(message: &Message) {
    let _ = message.validate();
    let _ = (
        message.method(),
        message.request_uri(),
        message.status(),
        message.reason(),
        message.version(),
        message.body(),
    );
    let _ = (message.from(), message.to(), message.call_id(), message.cseq(), message.top_via());
    let _ = (
        message.max_forwards(),
        message.expires(),
        message.content_length(),
        message.event().map(|event| event.map(|event| event.id())),
    );
    for via in message.vias().flatten() {
        let _ = (via.branch(), via.rport(), via.received(), via.sent_by());
    }
    if let Ok(Contacts::List(contacts)) = message.contacts() {
        for contact in contacts {
            let _ = (contact.q(), contact.expires(), contact.tag(), contact.display_name());
            if let Ok(uri) = contact.uri() {
                let _ = (uri.aor(), uri.canonical_binding(), uri.user_decoded());
            }
        }
    }
    for (name, _) in message.all_rows() {
        let header = HeaderName::of(name);
        let _ = (
            message.text(header),
            message.list(header).count(),
            message.addresses(header).count(),
            message.authorizations(header).count(),
        );
    }
}

/// Writes everything that can be made of a message; what comes out must be messages again.
fn write_all(message: &Message, source: SocketAddr) {
    let limits = Limits { message: 1 << 20, ..Limits::default() };
    if message.is_request() {
        let answer = Response::to(message, 400).source(source).to_tag("t").build();
        let answer = Message::parse_framed(answer, &limits).unwrap();
        assert_eq!(answer.status(), Some(400));
        assert_eq!(answer.vias().count(), message.vias().count());
    }
    if message.validate().is_ok() {
        let forwarded =
            Forward::request(message).via("SIP/2.0/UDP p;branch=z9hG4bKp").max_forwards(5).source(source).build();
        let forwarded = Message::parse_framed(forwarded, &limits).unwrap();
        assert_eq!(forwarded.validate(), Ok(()));
        assert_eq!(forwarded.body(), message.body());
        assert_eq!(forwarded.vias().count(), message.vias().count() + 1);
        let back = Forward::response(&forwarded).build();
        let back = Message::parse_framed(back, &limits).unwrap();
        assert_eq!(back.vias().count(), message.vias().count());
        assert_eq!((back.from(), back.to(), back.cseq()), (message.from(), message.to(), message.cseq()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_octets_are_read_or_refused(octets in vec(any::<u8>(), 0..300)) {
        let octets = Bytes::from(octets);
        if let Ok(message) = Message::parse_datagram(octets.clone(), &Limits::default()) {
            read_all(&message);
        }
        let text = String::from_utf8_lossy(&octets);
        let _ = (Uri::parse(&text), Via::parse(&text), NameAddr::parse(&text));
    }

    #[test]
    fn odd_messages_are_read_or_refused_and_answers_to_them_are_messages(octets in nearly_sip(), v6: bool) {
        let source: SocketAddr = if v6 { "[2001:db8::9]:5060".parse().unwrap() } else { "192.0.2.9:5060".parse().unwrap() };
        let message = match Message::parse_datagram(Bytes::from(octets), &Limits::default()) {
            Ok(message) => message,
            Err(malformed) => match malformed.partial {
                Some(partial) => partial,
                None => return Ok(()),
            },
        };
        read_all(&message);
        write_all(&message, source);
    }

    #[test]
    fn a_valid_message_is_forwarded_octet_for_octet(octets in nearly_sip()) {
        let Ok(message) = Message::parse_datagram(Bytes::from(octets), &Limits::default()) else { return Ok(()) };
        if message.validate().is_ok() && message.has(HeaderName::ContentLength) {
            prop_assert_eq!(Forward::request(&message).build(), message.octets());
        }
    }

    #[test]
    fn a_stream_may_be_cut_anywhere(pieces in vec((piece(), any::<u8>()), 1..8), cuts in vec(1..200_usize, 1..40)) {
        let stream: Vec<u8> = pieces.iter().flat_map(|(piece, _)| piece.clone()).collect();
        let whole = frames(&stream, &[stream.len().max(1)]);
        prop_assert_eq!(&frames(&stream, &cuts), &whole);
        prop_assert_eq!(&frames(&stream, &[1]), &whole);
    }

    #[test]
    fn a_stream_of_anything_never_panics(octets in nearly_sip(), cuts in vec(1..50_usize, 1..10)) {
        prop_assert_eq!(&frames(&octets, &cuts).0, &frames(&octets, &[1]).0);
    }

    #[test]
    fn what_is_built_is_read_back(user in user(), subject in "[ -~äß]{0,40}", number in 0..(1_u32 << 31), body in vec(any::<u8>(), 0..200)) {
        let uri = format!("sip:{user}@example.org");
        let from = format!("\"x, <y>\" <{uri}>;tag=a");
        let built = Request::new(Method::Other("WHATEVER"), &uri)
            .header(HeaderName::Via, "SIP/2.0/UDP h;branch=z9hG4bK1")
            .header(HeaderName::From, &from)
            .header(HeaderName::To, format!("<{uri}>"))
            .header(HeaderName::CallId, "c@d")
            .header(HeaderName::CSeq, format!("{number} WHATEVER"))
            .header(HeaderName::Subject, &subject)
            .body("application/x", &body)
            .build();
        let message = Message::parse_framed(built.clone(), &Limits::default()).unwrap();
        prop_assert_eq!(message.validate(), Ok(()));
        prop_assert_eq!(message.request_uri(), &uri);
        prop_assert_eq!(message.from().unwrap().uri, &uri);
        prop_assert_eq!(message.cseq().unwrap(), (number, Method::Other("WHATEVER")));
        prop_assert_eq!(message.text(HeaderName::Subject).unwrap(), subject.trim());
        prop_assert_eq!(message.body(), body);
        prop_assert_eq!(frames(&built, &[7]).0, vec![Frame::Message(built.clone())]);
    }

    #[test]
    fn canonical_forms_are_fixed_points(user in user(), port in proptest::option::of(any::<u16>()), v6: bool) {
        let host = if v6 { "[2001:DB8::1]" } else { "Example.ORG" };
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let text = format!("sip:{user}@{host}{port};Transport=TCP;x=y");
        let uri = Uri::parse(&text).unwrap();
        let aor = uri.aor().unwrap();
        let again = format!("sip:{aor}");
        let again = Uri::parse(&again).unwrap();
        prop_assert_eq!(again.aor().unwrap(), aor);
        prop_assert_eq!(again.user_decoded(), uri.user_decoded());
        let binding = uri.canonical_binding();
        prop_assert_eq!(Uri::parse(&binding).unwrap().canonical_binding(), binding);
    }
}

/// A user part of plain, legal and escaped characters that decodes to UTF-8.
fn user() -> impl Strategy<Value = String> {
    let part = select(vec![
        "a", "Z", "0", "-", "_", ".", "!", "~", "*", "'", "(", ")", "&", "=", "+", "$", ",", ";", "?", "/", "%40",
        "%41", "%7e", "%00", "%c3%BC", "%25", "#",
    ]);
    vec(part, 1..12).prop_map(|parts| parts.concat())
}

/// A piece of a stream: a message or a keep-alive.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let message = (
        vec(select(vec!["l: ", "X: y\r\n", "Subject : a\r\n b\r\n", "Route:\r\n"]), 0..4),
        vec(select(b"\r\n :lX1".to_vec()), 0..80),
    )
        .prop_map(|(rows, body)| {
            let rows: String = rows.into_iter().filter(|row| *row != "l: ").collect();
            let mut octets = format!(
                "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP h\r\n{rows}Content-Length : {}\r\n\r\n",
                body.len()
            )
            .into_bytes();
            octets.extend(body);
            octets
        });
    prop_oneof![4 => message, 1 => Just(b"\r\n\r\n".to_vec())]
}

/// The frames but pongs, and whether the stream broke.
fn frames(octets: &[u8], cuts: &[usize]) -> (Vec<Frame>, bool) {
    let mut framer = StreamFramer::new(Limits::default());
    let mut buffer = BytesMut::new();
    let mut found = Vec::new();
    let mut rest = octets;
    for size in cuts.iter().cycle() {
        let (piece, after) = rest.split_at((*size).min(rest.len()));
        buffer.extend_from_slice(piece);
        rest = after;
        loop {
            match framer.next(&mut buffer) {
                Ok(Some(Frame::Pong)) => {}
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
        if rest.is_empty() {
            break;
        }
    }
    (found, false)
}
