//! The stream framer: keep-alives, limits, smuggling, and work that stays linear.

use bytes::{BufMut, BytesMut};
use commpool_sip::{Frame, FrameError, Limits, StreamFramer};

fn feed(framer: &mut StreamFramer, buffer: &mut BytesMut, octets: &[u8]) -> Result<Vec<Frame>, FrameError> {
    buffer.put_slice(octets);
    let mut frames = Vec::new();
    while let Some(frame) = framer.next(buffer)? {
        frames.push(frame);
    }
    Ok(frames)
}

fn all(octets: &[u8]) -> Result<Vec<Frame>, FrameError> {
    feed(&mut StreamFramer::new(Limits::default()), &mut BytesMut::new(), octets)
}

fn refused(octets: &[u8]) -> FrameError {
    all(octets).expect_err("must be refused")
}

const HEAD: &str = "MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z\r\n";

fn with(rows: &str, body: &str) -> Vec<u8> {
    format!("{HEAD}{rows}\r\n\r\n{body}").into_bytes()
}

fn kinds(frames: &[Frame]) -> String {
    frames
        .iter()
        .map(|frame| match frame {
            Frame::Message(_) => 'M',
            Frame::Ping => '2',
            Frame::Pong => '1',
        })
        .collect()
}

#[test]
fn keep_alives_are_told_apart() {
    let message = String::from_utf8(with("l: 2", "hi")).unwrap();
    for (text, expected) in [
        ("\r\n\r\n", "2"),
        ("\r\n", "1"),
        ("\r\n\r\n\r\n\r\n", "22"),
        ("\r\n\r\n\r\n", "21"),
        (&format!("\r\n{message}\r\n\r\n{message}"), "1M2M"),
        (&format!("{message}\r\n{message}"), "M1M"),
    ] {
        assert_eq!(kinds(&all(text.as_bytes()).unwrap()), expected, "{text:?}");
    }
}

#[test]
fn a_ping_is_counted_over_segment_borders() {
    for pieces in
        [&[&b"\r\n"[..], b"\r\n"][..], &[b"\r", b"\n\r\n"], &[b"\r\n\r", b"\n"], &[b"\r", b"\n", b"\r", b"\n"]]
    {
        let mut framer = StreamFramer::new(Limits::default());
        let mut buffer = BytesMut::new();
        let frames: Vec<_> = pieces.iter().flat_map(|piece| feed(&mut framer, &mut buffer, piece).unwrap()).collect();
        assert!(kinds(&frames).ends_with('2'), "{pieces:?} gives {}", kinds(&frames));
        assert_eq!(kinds(&frames).matches('2').count(), 1, "{pieces:?}");
        assert!(!framer.has_partial());
    }
}

#[test]
fn a_message_between_two_line_ends_is_no_ping() {
    let mut framer = StreamFramer::new(Limits::default());
    let mut buffer = BytesMut::new();
    assert_eq!(kinds(&feed(&mut framer, &mut buffer, b"\r\n").unwrap()), "1");
    assert_eq!(kinds(&feed(&mut framer, &mut buffer, &with("l: 0", "")).unwrap()), "M");
    assert_eq!(kinds(&feed(&mut framer, &mut buffer, b"\r\n").unwrap()), "1");
}

#[test]
fn partial_says_when_the_deadline_runs() {
    let mut framer = StreamFramer::new(Limits::default());
    let mut buffer = BytesMut::new();
    assert!(!framer.has_partial());
    let octets = with("Content-Length: 2", "hi");
    let (last, first) = octets.split_last().unwrap();
    for octet in first {
        assert!(feed(&mut framer, &mut buffer, &[*octet]).unwrap().is_empty());
        assert!(framer.has_partial());
    }
    assert_eq!(feed(&mut framer, &mut buffer, &[*last]).unwrap(), [Frame::Message(octets.into())]);
    assert!(!framer.has_partial() && buffer.is_empty());
}

#[test]
fn a_body_that_looks_like_a_message_stays_a_body() {
    let hidden = "REGISTER sip:b SIP/2.0\r\nl: 0\r\n\r\n";
    for length in [
        "Content-Length: 32",
        "Content-Length : 32",
        "CONTENT-LENGTH\t:\t0032",
        "l:32",
        "Content-Length:\r\n 32",
        "l : \r\n\t32\r\n ",
    ] {
        let octets = with(length, hidden);
        assert_eq!(all(&octets).unwrap(), [Frame::Message(octets.clone().into())], "{length}");
    }
}

#[test]
fn a_content_length_must_be_one_plain_number() {
    for rows in [
        "X: 1",
        "l: 0\r\nl: 0",
        "l: 0\r\nContent-Length: 34",
        "l: +1",
        "l: -1",
        "l:",
        "l: 1 1",
        "l: 0x1",
        "l: 1,1",
        "l: \u{661}",
    ] {
        let error = refused(&with(rows, "REGISTER sip:b SIP/2.0\r\nl: 0\r\n\r\n"));
        assert_eq!(error.status, Some(400), "{rows}: {error}");
        assert!(error.head.unwrap().top_via().is_ok());
    }
}

#[test]
fn sizes_are_refused_before_anything_is_held() {
    for length in [
        "65537",
        "1000000000",
        "4294967296",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999999999999999999999999",
    ] {
        let error = refused(&with(&format!("l: {length}"), ""));
        assert_eq!(error.status, Some(513), "{length}: {error}");
    }
    let limits = Limits { message: 300, headers: 4, line: 100, body: 50 };
    let fits = |octets: &[u8]| feed(&mut StreamFramer::new(limits), &mut BytesMut::new(), octets);
    let exact = with(&format!("X: {}\r\nl: 50", "x".repeat(97)), &"b".repeat(50));
    assert_eq!(fits(&exact).unwrap().len(), 1);
    for rows in ["l: 51", &format!("X: {}\r\nl: 0", "x".repeat(98)), "X: 1\r\nX: 2\r\nX: 3\r\nl: 0"] {
        assert_eq!(fits(&with(rows, "")).expect_err(rows).status, Some(513), "{rows}");
    }
}

#[test]
fn endless_rows_and_lines_stop_at_the_limit() {
    let limits = Limits::default();
    let endless = [b"MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP h\r\nX: ".to_vec(), vec![b'x'; 10_000]].concat();
    assert_eq!(refused(&endless).status, Some(513));
    assert_eq!(refused(&[HEAD.as_bytes(), "X: y\r\n".repeat(limits.headers).as_bytes()].concat()).status, Some(513));
    assert_eq!(refused(&[HEAD.as_bytes(), b"X: y\r\n", " z\r\n".repeat(10_000).as_bytes()].concat()).status, Some(513));
    assert_eq!(refused(&vec![b'x'; limits.line + 1]).status, None);
}

#[test]
fn bare_line_ends_break_the_stream() {
    for text in ["X: a\rb: c", "X: a\nb: c", "X: a\r\r\nb: c", "X: a\n\r\nl: 0"] {
        let error = refused(&with(text, ""));
        assert_eq!(error.status, Some(400), "{text:?}");
    }
    for text in ["\n", "\rX", "\r\n\n"] {
        assert_eq!(refused(text.as_bytes()).status, None, "{text:?}");
    }
}

#[test]
fn a_broken_stream_stays_broken() {
    let mut framer = StreamFramer::new(Limits::default());
    let mut buffer = BytesMut::new();
    assert!(feed(&mut framer, &mut buffer, &with("l: x", "")).is_err());
    buffer.clear();
    let again = feed(&mut framer, &mut buffer, &with("l: 0", "")).unwrap_err();
    assert!(again.status.is_none() && again.head.is_none());
}

#[test]
fn responses_and_acks_are_never_answered() {
    let response = b"SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP h\r\n\r\n";
    let ack = b"ACK sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP h\r\nl: x\r\n\r\n";
    for octets in [&response[..], ack] {
        assert_eq!(refused(octets).status, None);
    }
}
