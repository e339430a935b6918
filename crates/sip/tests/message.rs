//! Reading messages: limits, partial messages, the untyped views.

use bytes::Bytes;
use commpool_sip::{HeaderName, Limits, Malformed, Message, Method};

fn datagram(text: &str) -> Result<Message, Malformed> {
    Message::parse_datagram(Bytes::from(text.replace('\n', "\r\n")), &Limits::default())
}

fn message(text: &str) -> Message {
    datagram(text).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn rows_lists_and_text() {
    let message = message(
        "OPTIONS sip:a@b SIP/2.0\nk: one , \"t,wo\"\nX-Own:\n  folded\n\tvalue \nSUPPORTED:three,,\n <a,b>\nSubject: \u{e9}\n\n",
    );
    let list: Vec<_> = message.list(HeaderName::Supported).map(|member| member.unwrap().into_owned()).collect();
    assert_eq!(list, ["one", "\"t,wo\"", "three", "<a,b>"]);
    assert_eq!(message.rows(HeaderName::Supported).collect::<Vec<_>>(), [&b"one , \"t,wo\""[..], b"three,,\r\n <a,b>"]);
    assert_eq!(message.header_named("x-own"), Some(&b"folded\r\n\tvalue"[..]));
    assert_eq!(message.header_named("S"), Some("\u{e9}".as_bytes()));
    assert_eq!(message.header_named("x-other"), None);
    assert_eq!(message.text(HeaderName::Subject).unwrap(), "\u{e9}");
    assert_eq!(message.text(HeaderName::Event), None);
    assert!(message.has(HeaderName::Subject) && !message.has(HeaderName::Event));
    let names: Vec<_> = message.all_rows().map(|(name, _)| std::str::from_utf8(name).unwrap()).collect();
    assert_eq!(names, ["k", "X-Own", "SUPPORTED", "Subject"]);
}

#[test]
fn credentials_are_never_split() {
    let message = message(
        "REGISTER sip:b SIP/2.0\nAuthorization: Digest username=\"a\", realm=\"b, c\"\nAuthorization: Digest x=1,\n y=2\n\n",
    );
    let values: Vec<_> = message.authorizations(HeaderName::Authorization).collect();
    assert_eq!(values, ["Digest username=\"a\", realm=\"b, c\"", "Digest x=1,\r\n y=2"]);
    assert_eq!(message.authorizations(HeaderName::ProxyAuthorization).count(), 0);
}

#[test]
fn the_octets_are_kept_and_shared() {
    let octets = Bytes::from("OPTIONS sip:a@b SIP/2.0\r\nContent-Length: 2\r\n\r\nhi and more");
    let message = Message::parse_datagram(octets.clone(), &Limits::default()).unwrap();
    assert_eq!(message.octets().as_ref(), &octets[..octets.len() - 9]);
    assert_eq!(message.octets().as_ptr(), octets.as_ptr());
    assert_eq!(message.body().as_ptr(), octets[octets.len() - 11..].as_ptr());
    assert!(Message::parse_framed(octets, &Limits::default()).is_err());
}

#[test]
fn a_response_takes_its_method_from_cseq() {
    let response = message("SIP/2.0 202 Accepted\nCSeq: 4 SUBSCRIBE\n\n");
    assert_eq!((response.method(), response.request_uri(), response.status()), (Method::Subscribe, "", Some(202)));
    assert_eq!(message("SIP/2.0 202 Accepted\nCSeq: x\n\n").method(), Method::Other(""));
}

#[test]
fn what_is_no_sip_is_met_with_silence() {
    for text in [
        "",
        "\n\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "\u{16}\u{3}\u{1}",
        "OPTIONS sip:a@b SIP/2.0",
        "SIP/2.0 99 x\n\n",
        "SIP/2.0\n\n",
    ] {
        assert!(datagram(text).unwrap_err().partial.is_none(), "{text:?}");
    }
    // ACK and responses are never answered, nor is what has no Via to answer by.
    for text in [
        "ACK sip:a@b SIP/2.0\nVia: SIP/2.0/UDP h\nl: x\n\n",
        "SIP/2.0 200 OK\nVia: SIP/2.0/UDP h\nl: x\n\n",
        "BYE sip:a@b SIP/2.0\nl: x\n\n",
    ] {
        assert!(datagram(text).unwrap_err().partial.is_none(), "{text:?}");
    }
}

#[test]
fn limits_hold_at_their_edge() {
    let limits = Limits { message: 400, headers: 3, line: 100, body: 50 };
    let of = |rows: usize, line: usize, body: usize| {
        let mut text = "MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n".to_owned();
        (2..rows).for_each(|_| text.push_str("X: y\r\n"));
        text.push_str(&format!("Y: {}\r\n\r\n{}", "z".repeat(line - 3), "b".repeat(body)));
        Message::parse_datagram(Bytes::from(text), &limits)
    };
    assert!(of(3, 100, 50).is_ok());
    for (rows, line, body) in [(4, 100, 50), (3, 101, 50), (3, 100, 51), (3, 100, 300)] {
        let malformed = of(rows, line, body).unwrap_err();
        assert_eq!(malformed.status, 513, "{malformed}");
        assert!(malformed.partial.is_some_and(|partial| partial.top_via().is_ok()), "{rows} {line} {body}");
    }
}

#[test]
fn a_folded_row_counts_once_and_as_long_as_all_its_lines() {
    let limits = Limits { headers: 2, line: 40, ..Limits::default() };
    let folded = |text: &str| Message::parse_datagram(Bytes::from(text.replace('\n', "\r\n")), &limits);
    assert!(folded("OPTIONS sip:a@b SIP/2.0\nA: 1\n 2\n 3\nB: 4\n\n").is_ok());
    assert_eq!(
        folded("OPTIONS sip:a@b SIP/2.0\nA: 12345678901234567890\n 12345678901234567890\n\n").unwrap_err().status,
        513
    );
}

#[test]
fn debug_never_shows_content() {
    let shown = format!("{:?}", message("MESSAGE sip:secret@b SIP/2.0\nSubject: secret\n\nsecret"));
    assert!(shown.contains("MESSAGE") && !shown.contains("secret"), "{shown}");
}
