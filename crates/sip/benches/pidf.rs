//! What presence documents cost: an ordinary one, the largest that is let in, and bombs.

use std::fmt::Write as _;
use std::hint::black_box;

use commpool_sip::pidf::{Basic, Document, Note, Person, Tuple, parse, write};
use criterion::{Criterion, criterion_group, criterion_main};

/// A document as a client publishes it.
fn ordinary() -> Document {
    Document {
        entity: "sip:alice@example.org".into(),
        tuples: vec![Tuple {
            id: "t1".into(),
            basic: Some(Basic::Open),
            contact: Some(("sip:alice@192.0.2.7;transport=tcp".into(), Some(800))),
            timestamp: Some("2026-11-24T08:00:00Z".into()),
            ..Tuple::default()
        }],
        person: Some(Person {
            id: "p1".into(),
            activities: vec!["on-the-phone".into()],
            notes: vec![Note::new("Back at ten & then in a meeting")],
            timestamp: None,
        }),
        notes: Vec::new(),
    }
}

fn presence(inside: &str) -> String {
    format!("<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='sip:a@example.org'>{inside}</presence>")
}

/// As many numbered pieces as fit into a document.
fn filled(before: &str, piece: impl Fn(usize) -> String, after: &str) -> String {
    let mut inside = before.to_owned();
    for number in 0.. {
        let piece = piece(number);
        if inside.len() + piece.len() + after.len() > 65_000 {
            break;
        }
        let _ = write!(inside, "{piece}");
    }
    presence(&(inside + after))
}

/// That many pieces, each with its number between.
fn names(count: usize, before: &str, after: &str) -> String {
    (0..count).map(|number| format!("{before}{number:02}{after}")).collect()
}

fn documents(criterion: &mut Criterion) {
    let written = write(&ordinary());
    criterion.bench_function("pidf/parse ordinary", |bencher| bencher.iter(|| parse(black_box(&written))));
    let document = ordinary();
    criterion.bench_function("pidf/write ordinary", |bencher| bencher.iter(|| write(black_box(&document))));
    let cases = [
        ("largest: 64 KiB of tuples", filled("", |n| format!("<tuple id='t{n}'><status/></tuple>"), "")),
        ("largest: 4095 elements", presence(&"<x/>".repeat(4095))),
        ("largest: 64 attributes each", filled("", |_| format!("<x{}/>", names(64, " a", "=''")), "")),
        (
            "largest: 60 namespaces in scope",
            filled(&format!("<x{}>", names(60, " xmlns:n", "='u'")), |_| "<n00:y/>".into(), "</x>"),
        ),
        ("bomb: nested namespaces", filled("", |n| format!("<a xmlns:n{n}='urn:{n}'>"), "")),
        ("bomb: depth 10,000", presence(&"<a>".repeat(10_000))),
        ("bomb: attributes", filled("<x", |n| format!(" a{n}=''"), "/>")),
        ("bomb: namespaces of one element", filled("<x", |n| format!(" xmlns:n{n}=''"), "/>")),
        ("bomb: entities", format!("<!DOCTYPE p [<!ENTITY a 'ha'>]>{}", presence(&"&a;".repeat(20_000)))),
        ("bomb: one long name", presence(&format!("<{}", "a".repeat(65_000)))),
    ];
    for (name, document) in cases {
        criterion.bench_function(&format!("pidf/{name}"), |bencher| {
            bencher.iter(|| parse(black_box(document.as_bytes())).is_ok());
        });
    }
}

criterion_group!(benches, documents);
criterion_main!(benches);
