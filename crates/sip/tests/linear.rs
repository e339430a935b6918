//! Work grows with the octets and no faster, whatever is repeated.
#![expect(clippy::disallowed_methods, reason = "measuring time is what this test is about")]

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use commpool_sip::{Forward, HeaderName, Limits, Message, Response, StreamFramer};

const WIDE: Limits = Limits { message: 1 << 26, headers: 1 << 20, line: 1 << 26, body: 1 << 26 };
const FEW: usize = 2_500;
const TIMES: usize = 8;

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Other load on the machine only ever adds time, so the least of many runs comes close to the truth, and runs go on until it does.
fn assert_linear(what: &str, work: impl Fn(usize)) {
    let (mut few, mut many) = (Duration::MAX, Duration::MAX);
    for _ in 0..40 {
        few = few.min(timed(|| work(FEW)));
        many = many.min(timed(|| work(FEW * TIMES)));
        // Quadratic work would take 64 times as long; linear work takes 8 times.
        if many < few.max(Duration::from_micros(100)) * 24 {
            return;
        }
    }
    panic!("{what}: {few:?} for {FEW}, {many:?} for {}", FEW * TIMES);
}

fn read_and_write(message: &Message) {
    let _ = message.validate();
    let _ = (message.from().is_ok(), message.to().is_ok(), message.contacts().is_ok(), message.vias().count());
    let _ = (message.list(HeaderName::Supported).count(), message.text(HeaderName::Subject).is_some());
    let _ = (Response::to(message, 400).build(), Forward::request(message).via("SIP/2.0/UDP h").build());
}

#[test]
fn repetition_of_anything() {
    let head = "OPTIONS sip:a@b SIP/2.0\r\nFrom: <sip:a@b>;tag=1\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n";
    let repeated: [(&str, &str, &str, &str); 19] = [
        ("rows", "", "X: y\r\n", "To: <sip:a@b>\r\n"),
        ("Via rows", "", "Via: SIP/2.0/UDP h;branch=z\r\n", "To: <sip:a@b>\r\n"),
        ("Via members", "Via: SIP/2.0/UDP h", ", SIP/2.0/UDP h", "\r\n"),
        ("Contact members", "Contact: <sip:a@b>", ", <sip:a@b>;q=1", "\r\n"),
        ("commas", "Supported: ", ",", "\r\n"),
        ("header parameters", "To: <sip:a@b>", ";a=b", "\r\n"),
        ("URI parameters", "To: <sip:a@b", ";a=b", ">\r\n"),
        ("semicolons", "To: <sip:a@b>", ";", "\r\n"),
        ("quotes", "To: ", "\"", "\r\n"),
        ("backslashes", "To: \"", "\\", "\" <sip:a@b>\r\n"),
        ("escaped NUL", "To: \"", "\\\0", "\" <sip:a@b>\r\n"),
        ("brackets", "Contact: ", "<", "\r\n"),
        ("at signs", "To: <sip:", "@", ">\r\n"),
        ("colons", "To: <sip:", ":", ">\r\n"),
        ("escapes", "To: <sip:", "%41", "@b>\r\n"),
        ("spaces", "To: ", " ", "<sip:a@b>\r\n"),
        ("folds", "Subject: x", "\r\n ", "y\r\n"),
        ("bare line ends", "Subject: x", "\n", "y\r\n"),
        ("digits", "Content-Length: ", "0", "\r\n"),
    ];
    for (what, before, unit, after) in repeated {
        assert_linear(what, |count| {
            let text = format!("{head}{before}{}{after}\r\n", unit.repeat(count));
            match Message::parse_datagram(Bytes::from(text), &WIDE) {
                Ok(message) => read_and_write(&message),
                Err(malformed) => malformed.partial.iter().for_each(read_and_write),
            }
        });
    }
}

#[test]
fn a_stream_octet_by_octet() {
    for (what, unit) in [("rows", "X: y\r\n"), ("one row", "x"), ("folds", "x\r\n "), ("carriage returns", "\r\n\t")] {
        assert_linear(what, |count| {
            let text = format!("OPTIONS sip:a@b SIP/2.0\r\nY: {}z\r\nl: 5\r\n\r\n12345", unit.repeat(count));
            let mut framer = StreamFramer::new(WIDE);
            let mut buffer = BytesMut::new();
            let mut found = 0;
            for octet in text.bytes() {
                buffer.extend_from_slice(&[octet]);
                found += usize::from(framer.next(&mut buffer).unwrap().is_some());
            }
            assert_eq!(found, 1);
        });
    }
}

#[test]
fn keep_alives_in_masses() {
    assert_linear("pings", |count| {
        let mut framer = StreamFramer::new(WIDE);
        let mut buffer = BytesMut::from("\r\n\r\n".repeat(count).as_bytes());
        let mut found = 0;
        while framer.next(&mut buffer).unwrap().is_some() {
            found += 1;
        }
        assert_eq!(found, count);
    });
}
