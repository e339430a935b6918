//! What the builders write: answers, forwarded messages, new requests.

use std::net::SocketAddr;

use bytes::Bytes;
use commpool_sip::{Forward, HeaderName, Limits, Message, Method, Request, Response, Rport};

fn message(text: &str) -> Message {
    let octets = Bytes::from(text.replace('\n', "\r\n"));
    Message::parse_datagram(octets, &Limits::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn text(octets: &Bytes) -> String {
    std::str::from_utf8(octets).unwrap().replace("\r\n", "\n")
}

const REQUEST: &str = "\
MESSAGE sip:bob@example.org;x=1 SIP/2.0
v: SIP/2.0/UDP laptop.example.org:5062 ; branch=z9hG4bK1;rport
Via: SIP/2.0/TCP 192.0.2.7;branch=z9hG4bK0, SIP/2.0/TLS a.example.org;branch=z9hG4bK9
Max-Forwards: 70
f: \"Ada\"
  <sip:ada@example.org>;tag=f1
To: sip:bob@example.org
Record-Route: <sip:p1.example.org;lr>
Route: <sip:pool.example.org;lr>, <sip:next.example.org;lr>
Call-ID: c1
CSeq:  7   MESSAGE
X-Odd  :  kept ,, as \"it is
Content-Type: text/plain
Content-Length: 2

hi";

#[test]
fn an_answer_copies_what_identifies_the_request_in_order() {
    let request = message(REQUEST);
    let answer = Response::to(&request, 200)
        .to_tag("t1")
        .copy(HeaderName::RecordRoute)
        .header(HeaderName::Expires, "60")
        .build();
    let expected = "\
SIP/2.0 200 OK
v: SIP/2.0/UDP laptop.example.org:5062 ; branch=z9hG4bK1;rport
Via: SIP/2.0/TCP 192.0.2.7;branch=z9hG4bK0, SIP/2.0/TLS a.example.org;branch=z9hG4bK9
f: \"Ada\"
  <sip:ada@example.org>;tag=f1
To: sip:bob@example.org;tag=t1
Call-ID: c1
CSeq:  7   MESSAGE
Record-Route: <sip:p1.example.org;lr>
Expires: 60
Content-Length: 0

";
    assert_eq!(text(&answer), expected);
    let answer = message(&text(&answer));
    answer.validate().unwrap();
    assert_eq!((answer.status(), answer.method()), (Some(200), Method::Message));
}

#[test]
fn an_answer_keeps_the_tag_that_is_there_and_carries_a_body() {
    let request = message(&REQUEST.replace("To: sip:bob@example.org", "To: <sip:bob@example.org>;tag=theirs"));
    let answer = Response::to(&request, 481).reason("Gone by now").to_tag("ours").body("text/plain", b"why").build();
    let answer = Message::parse_framed(answer, &Limits::default()).unwrap();
    assert_eq!(answer.to().unwrap().tag(), Some("theirs"));
    assert_eq!(answer.reason(), b"Gone by now");
    assert_eq!(
        (answer.text(HeaderName::ContentType).unwrap().as_ref(), answer.body().as_ref()),
        ("text/plain", &b"why"[..])
    );
}

/// The top Via of the answer to a request that came with `via` from `source`.
fn answered_via(via: &str, source: &str) -> String {
    let request = message(&format!(
        "OPTIONS sip:a@b SIP/2.0\nVia: {via}\nFrom: <sip:a@b>;tag=1\nTo: <sip:a@b>\nCall-ID: c\nCSeq: 1 OPTIONS\n\n"
    ));
    let answer = Response::to(&request, 200).source(source.parse::<SocketAddr>().unwrap()).build();
    let answer = Message::parse_framed(answer, &Limits::default()).unwrap();
    let via = String::from_utf8(answer.rows(HeaderName::Via).next().unwrap().to_vec()).unwrap();
    answer.validate().unwrap_or_else(|invalid| panic!("{via}: {invalid}"));
    via
}

#[test]
fn an_answer_says_where_the_request_came_from() {
    let cases = [
        // The address is the sent-by and nobody asked.
        ("SIP/2.0/UDP 192.0.2.1:5062;branch=z9", "192.0.2.1:5062", "SIP/2.0/UDP 192.0.2.1:5062;branch=z9"),
        ("SIP/2.0/UDP [2001:DB8::1]", "[2001:db8::1]:9", "SIP/2.0/UDP [2001:DB8::1]"),
        ("SIP/2.0/UDP 192.0.2.1", "[::ffff:192.0.2.1]:9", "SIP/2.0/UDP 192.0.2.1"),
        // Another address, or a name.
        ("SIP/2.0/UDP 10.0.0.1;branch=z9", "192.0.2.1:9", "SIP/2.0/UDP 10.0.0.1;branch=z9;received=192.0.2.1"),
        ("SIP/2.0/TCP name.example", "[2001:db8::1]:9", "SIP/2.0/TCP name.example;received=2001:db8::1"),
        // RFC 3581: asked for, so both, even if the address is the sent-by.
        (
            "SIP/2.0/UDP 192.0.2.1;rport;branch=z9",
            "192.0.2.1:9",
            "SIP/2.0/UDP 192.0.2.1;branch=z9;received=192.0.2.1;rport=9",
        ),
        (
            "SIP/2.0/UDP 192.0.2.1 ; rport ; branch=z9",
            "192.0.2.1:9",
            "SIP/2.0/UDP 192.0.2.1;branch=z9;received=192.0.2.1;rport=9",
        ),
        // What the client claims itself does not stay.
        (
            "SIP/2.0/UDP 192.0.2.1;received=10.9.9.9;rport=1",
            "192.0.2.1:9",
            "SIP/2.0/UDP 192.0.2.1;received=192.0.2.1;rport=9",
        ),
        ("SIP/2.0/UDP 192.0.2.1;received=10.9.9.9", "192.0.2.1:9", "SIP/2.0/UDP 192.0.2.1"),
        // Only the first value of a list is the sender's.
        (
            "SIP/2.0/UDP a.example;rport, SIP/2.0/UDP b.example;rport",
            "192.0.2.1:9",
            "SIP/2.0/UDP a.example;received=192.0.2.1;rport=9, SIP/2.0/UDP b.example;rport",
        ),
    ];
    for (via, source, expected) in cases {
        assert_eq!(answered_via(via, source), expected);
    }
}

#[test]
fn only_the_top_via_row_is_marked() {
    let request = message(REQUEST);
    let answer = Response::to(&request, 100).source("198.51.100.4:40000".parse().unwrap()).build();
    let answer = Message::parse_framed(answer, &Limits::default()).unwrap();
    let vias: Vec<_> = answer.vias().map(Result::unwrap).collect();
    assert_eq!(
        (vias[0].received(), vias[0].rport(), vias[0].branch()),
        (Some("198.51.100.4"), Rport::Port(40000), Some("z9hG4bK1"))
    );
    assert!(vias[1..].iter().all(|via| via.received().is_none()));
    assert_eq!(vias.len(), 3);
}

#[test]
fn a_request_that_cannot_be_read_is_answered_with_what_is_there() {
    let broken = "INVITE sip:a@b SIP/2.0\nVia: SIP/2.0/UDP h;branch=z\nTo: \"open <sip:a@b>\nCSeq: 1 INVITE\nContent-Length: 99\n\n";
    let malformed = Message::parse_datagram(Bytes::from(broken.replace('\n', "\r\n")), &Limits::default()).unwrap_err();
    let partial = malformed.partial.unwrap();
    let answer = Response::to(&partial, malformed.status).to_tag("t").build();
    let expected = "SIP/2.0 400 Bad Request\nVia: SIP/2.0/UDP h;branch=z\nTo: \"open <sip:a@b>;tag=t\nCSeq: 1 INVITE\nContent-Length: 0\n\n";
    assert_eq!(text(&answer), expected);
}

#[test]
fn values_cannot_break_out_of_their_row() {
    let request = message(REQUEST);
    let evil = "x\r\nContact: <sip:evil@example.net>\r\n\r\nSIP\0";
    let answer = Response::to(&request, 200)
        .reason(evil)
        .to_tag(evil)
        .header(HeaderName::Server, evil)
        .raw_header("X-A\r\nB", b"gone")
        .build();
    let answer = Message::parse_framed(answer, &Limits::default()).unwrap();
    assert!(!answer.has(HeaderName::Contact));
    assert_eq!(answer.rows(HeaderName::Server).next().unwrap(), b"x  Contact: <sip:evil@example.net>    SIP");
    let notify = Request::new(Method::Notify, "sip:a@b\r\nX: y").header(HeaderName::Subject, evil).build();
    let notify = Message::parse_framed(notify, &Limits::default()).unwrap();
    assert_eq!(notify.request_uri(), "sip:a@b%0D%0AX:%20y");
    assert_eq!(notify.all_rows().count(), 2);
}

#[test]
fn a_line_end_smuggled_into_a_copied_row_is_taken_out() {
    let bad = "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z\nContact: <sip:evil@example.net>\r\nFrom: <sip:a@b>\r\n\r\n";
    let request = Message::parse_datagram(Bytes::from(bad), &Limits::default()).unwrap();
    assert_eq!(request.validate().unwrap_err().status, 400);
    let answer = Response::to(&request, 400).build();
    assert!(
        text(&answer).contains("Via: SIP/2.0/UDP h;branch=z Contact: <sip:evil@example.net>\nFrom"),
        "{}",
        text(&answer)
    );
}

#[test]
fn a_forwarded_request_keeps_every_octet_but_the_changes() {
    let request = message(REQUEST);
    let forwarded = Forward::request(&request)
        .uri("sip:bob@192.0.2.9:5070")
        .via("SIP/2.0/UDP pool.example.org;branch=z9hG4bKpool;rport")
        .max_forwards(69)
        .pop(HeaderName::Route)
        .push(HeaderName::RecordRoute, "<sip:token@pool.example.org;lr>")
        .append(HeaderName::PAssertedIdentity, "<sip:ada@example.org>")
        .build();
    let expected = REQUEST
        .replace("sip:bob@example.org;x=1", "sip:bob@192.0.2.9:5070")
        .replace("v: SIP", "Via: SIP/2.0/UDP pool.example.org;branch=z9hG4bKpool;rport\nv: SIP")
        .replace("Max-Forwards: 70", "Max-Forwards: 69")
        .replace("<sip:pool.example.org;lr>, <sip:next", "<sip:next")
        .replace("Record-Route: <sip:p1", "Record-Route: <sip:token@pool.example.org;lr>\nRecord-Route: <sip:p1")
        .replace("Content-Length: 2\n", "Content-Length: 2\nP-Asserted-Identity: <sip:ada@example.org>\n");
    assert_eq!(text(&forwarded), expected);
}

#[test]
fn a_forwarded_request_without_changes_is_the_same() {
    let request = message(REQUEST);
    assert_eq!(Forward::request(&request).build(), request.octets());
}

#[test]
fn forwarding_marks_the_via_of_the_sender_only() {
    let request = message(REQUEST);
    let forwarded = Forward::request(&request)
        .via("SIP/2.0/UDP pool.example.org;branch=z9hG4bKpool")
        .source("198.51.100.4:4".parse().unwrap())
        .build();
    let expected = REQUEST.replace(
        "v: SIP/2.0/UDP laptop.example.org:5062 ; branch=z9hG4bK1;rport",
        "Via: SIP/2.0/UDP pool.example.org;branch=z9hG4bKpool\nv: SIP/2.0/UDP laptop.example.org:5062;branch=z9hG4bK1;received=198.51.100.4;rport=4",
    );
    assert_eq!(text(&forwarded), expected);
}

#[test]
fn absent_rows_are_added_behind_the_others() {
    let request = message("MESSAGE sip:a@b SIP/2.0\nVia: SIP/2.0/UDP h\nX: 1\n\nbody");
    let forwarded =
        Forward::request(&request).max_forwards(70).set(HeaderName::UserAgent, "u").remove(HeaderName::Route).build();
    assert_eq!(
        text(&forwarded),
        "MESSAGE sip:a@b SIP/2.0\nVia: SIP/2.0/UDP h\nX: 1\nMax-Forwards: 70\nUser-Agent: u\nContent-Length: 4\n\nbody"
    );
}

#[test]
fn set_and_remove_reach_every_row_of_the_name() {
    let request = message(
        "MESSAGE sip:a@b SIP/2.0\nk: a\nX: 1\nSupported: b\nc: t/p\nAuthorization: 1\nAuthorization: 2\nContent-Length: 0\n\n",
    );
    let forwarded =
        Forward::request(&request).set(HeaderName::Supported, "c, d").remove(HeaderName::Authorization).build();
    assert_eq!(text(&forwarded), "MESSAGE sip:a@b SIP/2.0\nSupported: c, d\nX: 1\nc: t/p\nContent-Length: 0\n\n");
}

#[test]
fn content_length_and_nameless_rows_cannot_be_edited() {
    let request = message(REQUEST);
    let forward = Forward::request(&request).set(HeaderName::ContentLength, "9").remove(HeaderName::ContentLength);
    let forward = forward.remove(HeaderName::Other).set(HeaderName::Other, "x").append(HeaderName::Other, "x");
    assert_eq!(forward.build(), request.octets());
}

#[test]
fn a_forwarded_response_loses_our_via_value_only() {
    let response = |vias: &str| {
        message(&format!("SIP/2.0 489 Nicht mögen\n{vias}\nFrom: <sip:a@b>\nX : y\nContent-Length: 0\n\n"))
    };
    let forwarded = |vias: &str| text(&Forward::response(&response(vias)).remove(HeaderName::Server).build());
    let rest = "From: <sip:a@b>\nX : y\nContent-Length: 0\n\n";
    let own = "SIP/2.0/TLS pool;branch=z9";
    assert_eq!(
        forwarded(&format!("Via: {own}\nv: SIP/2.0/UDP a;rport=1")),
        format!("SIP/2.0 489 Nicht mögen\nv: SIP/2.0/UDP a;rport=1\n{rest}")
    );
    assert_eq!(
        forwarded(&format!("Via: {own} , SIP/2.0/UDP a, SIP/2.0/UDP b")),
        format!("SIP/2.0 489 Nicht mögen\nVia: SIP/2.0/UDP a, SIP/2.0/UDP b\n{rest}")
    );
    assert_eq!(forwarded(&format!("Via: {own}")), format!("SIP/2.0 489 Nicht mögen\n{rest}"));
}

#[test]
fn a_binary_body_and_a_strange_phrase_pass_unchanged() {
    let mut octets =
        b"SIP/2.0 200 \xff\xfe\r\nVia: SIP/2.0/UDP p\r\nVia: SIP/2.0/UDP a\r\nX: \xff\r\nContent-Length: 256\r\n\r\n"
            .to_vec();
    octets.extend(0..=255_u8);
    let response = Message::parse_framed(Bytes::from(octets), &Limits::default()).unwrap();
    let forwarded = Forward::response(&response).build();
    let expected: Vec<u8> = b"SIP/2.0 200 \xff\xfe\r\nVia: SIP/2.0/UDP a\r\nX: \xff\r\nContent-Length: 256\r\n\r\n"
        .iter()
        .copied()
        .chain(0..=255)
        .collect();
    assert_eq!(forwarded, expected);
}

#[test]
fn a_new_request_is_complete() {
    let notify = Request::new(Method::Notify, "sip:ada@192.0.2.1")
        .header(HeaderName::Via, "SIP/2.0/UDP pool;branch=z9hG4bK1")
        .header(HeaderName::Event, "presence")
        .header(HeaderName::ContentLength, "12345")
        .raw_header("X-Own", b"1")
        .body("application/pidf+xml", b"<x/>")
        .build();
    let expected = "NOTIFY sip:ada@192.0.2.1 SIP/2.0\nVia: SIP/2.0/UDP pool;branch=z9hG4bK1\nEvent: presence\nX-Own: 1\nContent-Type: application/pidf+xml\nContent-Length: 4\n\n<x/>";
    assert_eq!(text(&notify), expected);
}
