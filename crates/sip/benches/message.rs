//! The message core beside a plain scanner that does the same with `memchr` alone and keeps nothing.
//!
//! The scanner is the floor: one pass, no allocation, no checks beyond what finding the values needs. Targets: reading at most 3 times
//! its time, reading with the six typed fields at most twice, writing at most 3 times copying the rows.

use std::hint::black_box;

use bytes::Bytes;
use commpool_sip::{Contacts, Forward, Limits, Message};
use criterion::{Criterion, criterion_group, criterion_main};

const SAMPLES: [(&str, &[u8]); 5] = [
    ("register", include_bytes!("../tests/samples/register.sip")),
    ("message", include_bytes!("../tests/samples/message.sip")),
    ("subscribe", include_bytes!("../tests/samples/subscribe.sip")),
    ("notify", include_bytes!("../tests/samples/notify.sip")),
    ("response", include_bytes!("../tests/samples/response.sip")),
];

mod scanner {
    //! Finds rows and values and nothing else.

    use memchr::{memchr, memchr2};

    #[derive(Clone, Copy, Default)]
    pub(crate) struct Row<'a> {
        pub(crate) name: &'a [u8],
        pub(crate) value: &'a [u8],
    }

    pub(crate) struct Scan<'a> {
        pub(crate) start: &'a [u8],
        pub(crate) rows: [Row<'a>; 64],
        pub(crate) used: usize,
        pub(crate) body: &'a [u8],
    }

    fn trim(mut text: &[u8]) -> &[u8] {
        while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = text {
            text = rest;
        }
        while let [rest @ .., b' ' | b'\t' | b'\r' | b'\n'] = text {
            text = rest;
        }
        text
    }

    pub(crate) fn scan(octets: &[u8]) -> Option<Scan<'_>> {
        let mut at = memchr(b'\n', octets)? + 1;
        let mut scan = Scan { start: trim(&octets[..at]), rows: [Row::default(); 64], used: 0, body: &[] };
        let mut length = None;
        while !octets[at..].starts_with(b"\r\n") {
            let begin = at;
            loop {
                at += memchr(b'\n', &octets[at..])? + 1;
                if !matches!(octets.get(at), Some(b' ' | b'\t')) {
                    break;
                }
            }
            let row = &octets[begin..at];
            let colon = memchr(b':', row)?;
            let row = Row { name: trim(&row[..colon]), value: trim(&row[colon + 1..]) };
            if row.name.eq_ignore_ascii_case(b"content-length") || row.name.eq_ignore_ascii_case(b"l") {
                length = std::str::from_utf8(row.value).ok()?.parse::<usize>().ok();
            }
            *scan.rows.get_mut(scan.used)? = row;
            scan.used += 1;
        }
        let body = &octets[at + 2..];
        scan.body = body.get(..length.unwrap_or(body.len()))?;
        Some(scan)
    }

    #[derive(Default)]
    pub(crate) struct Fields<'a> {
        pub(crate) sent_by: &'a [u8],
        pub(crate) branch: &'a [u8],
        pub(crate) from: &'a [u8],
        pub(crate) from_tag: &'a [u8],
        pub(crate) to: &'a [u8],
        pub(crate) to_tag: &'a [u8],
        pub(crate) call_id: &'a [u8],
        pub(crate) cseq: u32,
        pub(crate) cseq_method: &'a [u8],
        pub(crate) contact: &'a [u8],
    }

    fn param<'a>(text: &'a [u8], name: &[u8]) -> &'a [u8] {
        let mut rest = text;
        while let Some(at) = memchr(b';', rest) {
            rest = &rest[at + 1..];
            let end = memchr(b';', rest).unwrap_or(rest.len());
            if let Some(equals) = memchr(b'=', &rest[..end])
                && trim(&rest[..equals]).eq_ignore_ascii_case(name)
            {
                return trim(&rest[equals + 1..end]);
            }
        }
        &[]
    }

    fn address(text: &[u8]) -> (&[u8], &[u8]) {
        let mut from = 0;
        if text.first() == Some(&b'"') {
            from = 1;
            while let Some(at) = memchr2(b'"', b'\\', &text[from..]) {
                from += at + 1 + usize::from(text[from + at] == b'\\');
                if text[from - 1] == b'"' {
                    break;
                }
            }
        }
        match memchr(b'<', &text[from..]) {
            Some(open) => {
                let uri = &text[from + open + 1..];
                let close = memchr(b'>', uri).unwrap_or(uri.len());
                uri.split_at(close)
            }
            None => text.split_at(memchr(b';', text).unwrap_or(text.len())),
        }
    }

    pub(crate) fn fields<'a>(scan: &Scan<'a>) -> Fields<'a> {
        let mut fields = Fields::default();
        for row in &scan.rows[..scan.used] {
            let is =
                |long: &[u8], short: &[u8]| row.name.eq_ignore_ascii_case(long) || row.name.eq_ignore_ascii_case(short);
            if is(b"via", b"v") && fields.sent_by.is_empty() {
                let space = memchr(b' ', row.value).unwrap_or_default();
                let rest = trim(&row.value[space..]);
                fields.sent_by = trim(&rest[..memchr(b';', rest).unwrap_or(rest.len())]);
                fields.branch = param(rest, b"branch");
            } else if is(b"from", b"f") {
                let (uri, params) = address(row.value);
                (fields.from, fields.from_tag) = (uri, param(params, b"tag"));
            } else if is(b"to", b"t") {
                let (uri, params) = address(row.value);
                (fields.to, fields.to_tag) = (uri, param(params, b"tag"));
            } else if is(b"call-id", b"i") {
                fields.call_id = row.value;
            } else if is(b"cseq", b"cseq") {
                let space = memchr2(b' ', b'\t', row.value).unwrap_or_default();
                fields.cseq = std::str::from_utf8(&row.value[..space])
                    .ok()
                    .and_then(|digits| digits.parse().ok())
                    .unwrap_or_default();
                fields.cseq_method = trim(&row.value[space..]);
            } else if is(b"contact", b"m") {
                fields.contact = address(row.value).0;
            }
        }
        fields
    }

    /// Writes every row again, one by one.
    pub(crate) fn copy(scan: &Scan<'_>, size: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(size);
        out.extend_from_slice(scan.start);
        out.extend_from_slice(b"\r\n");
        for row in &scan.rows[..scan.used] {
            out.extend_from_slice(row.name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(row.value);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(scan.body);
        out
    }
}

/// The same fields as the scanner reads, typed and checked.
fn read_fields(message: &Message) {
    let via = message.top_via().unwrap();
    black_box((via.sent_by(), via.branch()));
    let from = message.from().unwrap();
    black_box((from.uri, from.tag()));
    let to = message.to().unwrap();
    black_box((to.uri, to.tag()));
    black_box(message.call_id().unwrap());
    black_box(message.cseq().unwrap());
    if let Contacts::List(contacts) = message.contacts().unwrap() {
        black_box(contacts.first().map(|contact| contact.uri));
    }
}

fn benches(criterion: &mut Criterion) {
    let limits = Limits::default();
    for (name, octets) in SAMPLES {
        let shared = Bytes::from_static(octets);
        let mut group = criterion.benchmark_group(format!("parse/{name}"));
        group.bench_function("scanner", |bencher| {
            bencher.iter(|| black_box(scanner::scan(black_box(octets)).unwrap().used))
        });
        group.bench_function("message", |bencher| {
            bencher.iter(|| Message::parse_datagram(black_box(shared.clone()), &limits).unwrap())
        });
        group.finish();
        let mut group = criterion.benchmark_group(format!("fields/{name}"));
        group.bench_function("scanner", |bencher| {
            bencher.iter(|| {
                let fields = scanner::fields(&scanner::scan(black_box(octets)).unwrap());
                black_box((fields.sent_by, fields.branch, fields.from, fields.from_tag, fields.to));
                black_box((fields.to_tag, fields.call_id, fields.cseq, fields.cseq_method, fields.contact));
            });
        });
        group.bench_function("message", |bencher| {
            bencher.iter(|| read_fields(&Message::parse_datagram(black_box(shared.clone()), &limits).unwrap()));
        });
        group.bench_function("validate", |bencher| {
            let message = Message::parse_datagram(shared.clone(), &limits).unwrap();
            bencher.iter(|| black_box(&message).validate().unwrap());
        });
        group.finish();
        let mut group = criterion.benchmark_group(format!("write/{name}"));
        let scan = scanner::scan(octets).unwrap();
        let message = Message::parse_datagram(shared.clone(), &limits).unwrap();
        group.bench_function("scanner", |bencher| bencher.iter(|| scanner::copy(black_box(&scan), octets.len() + 64)));
        group.bench_function("message", |bencher| bencher.iter(|| Forward::request(black_box(&message)).build()));
        group.bench_function("changed", |bencher| {
            bencher.iter(|| {
                let forward = Forward::request(black_box(&message)).uri("sip:bob@192.0.2.1:5060");
                forward
                    .via("SIP/2.0/TLS pool.example.org:5061;branch=z9hG4bKAAAAAQxq4m3k1p0sJ8")
                    .max_forwards(69)
                    .build()
            });
        });
        group.finish();
    }
}

criterion_group!(message, benches);
criterion_main!(message);
