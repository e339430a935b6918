//! What a request costs before and beside its own work: identity, what is derived from it, Digest, transaction tables.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use commpool_sip::digest::{Algorithm, Credentials, NonceCounts, Nonces, challenge, ha1, verify};
use commpool_sip::otid::{Otid, PoolKey, RequestIdentity};
use commpool_sip::time::Moment;
use commpool_sip::transaction::{ClientTransactions, ServerTransactions};
use criterion::{Criterion, criterion_group, criterion_main};

fn key() -> PoolKey {
    PoolKey::from_octets(&[7; 32]).expect("32 octets are enough")
}

/// The identity of the request with this number.
fn otid(number: u64) -> Otid {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    Otid(octets)
}

fn identity(criterion: &mut Criterion) {
    let key = key();
    let request = RequestIdentity {
        via_sent_by: "192.0.2.1:5060",
        branch: Some("z9hG4bK.d0T7pX2vQ"),
        call_id: "2f1c1a0a7b@192.0.2.1",
        cseq: 20,
        from_uri: "sip:alice@example.org",
        from_tag: "8sT0a1",
        method: "MESSAGE",
        request_uri: "sip:bob@example.org",
        to_tag: "",
        top_via_raw: b"SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK.d0T7pX2vQ;rport",
    };
    criterion.bench_function("otid/of", |bencher| bencher.iter(|| Otid::of(&key, black_box(&request))));
    criterion.bench_function("otid/to_tag", |bencher| bencher.iter(|| key.to_tag(black_box(&otid(1)))));
    criterion.bench_function("otid/branch", |bencher| bencher.iter(|| key.branch(1, black_box(&otid(1)), 2, 3)));
}

fn digest(criterion: &mut Criterion) {
    let nonces = Nonces::new(&key());
    let nonce = nonces.issue(1000, "example.org", None, 1);
    criterion.bench_function("digest/challenge", |bencher| {
        bencher.iter(|| {
            let nonce = nonces.issue(1000, "example.org", None, black_box(1));
            challenge("example.org", &nonce, Algorithm::Sha256, false)
        });
    });
    for algorithm in [Algorithm::Sha256, Algorithm::Md5] {
        let ha1 = ha1(algorithm, "alice", "example.org", "secret");
        let value = format!(
            "Digest username=\"alice\", realm=\"example.org\", nonce=\"{nonce}\", uri=\"sip:example.org\", \
             response=\"{ha1}\", algorithm={}, cnonce=\"0a4f113b\", qop=auth, nc=00000001",
            algorithm.as_str()
        );
        let mut counts = NonceCounts::new(100_000);
        let mut number = 0;
        criterion.bench_function(&format!("digest/parse, check, verify {}", algorithm.as_str()), |bencher| {
            bencher.iter(|| {
                let credentials = Credentials::parse(black_box(&value)).expect("well formed");
                number += 1;
                let fresh = nonces.check(&credentials.nonce, 1001, "example.org", None);
                let first = counts.accept(Moment(1), &credentials.nonce, number);
                (fresh, first, verify(&credentials, "REGISTER", &ha1))
            });
        });
    }
}

/// Live transactions beside the one that is measured.
const CROWD: u64 = 50_000;

fn tables(criterion: &mut Criterion) {
    let request = Bytes::from_static(b"MESSAGE sip:b SIP/2.0\r\n\r\n");
    let response = Bytes::from_static(b"SIP/2.0 200 OK\r\n\r\n");
    for reliable in [true, false] {
        let kind = if reliable { "stream" } else { "datagram" };
        let mut server = ServerTransactions::new(usize::MAX);
        let (mut now, mut number) = (Moment::ZERO, 0);
        // 640 µs apart, 50,000 are alive at a time over datagrams (timer J is 32 s).
        let pause = Duration::from_micros(32_000_000 / CROWD);
        let mut server_step = || {
            number += 1;
            now = now + pause;
            let received = server.receive(now, otid(number), number % 1000, reliable);
            let flow = server.respond(now, &otid(number), response.clone(), true);
            (received, flow, server.due(now))
        };
        (0..CROWD).for_each(|_| drop(server_step()));
        criterion.bench_function(&format!("transaction/server, {kind}"), |bencher| bencher.iter(&mut server_step));

        let mut client = ClientTransactions::new(usize::MAX);
        let (key, mut now, mut number) = (key(), Moment::ZERO, 0);
        let mut client_step = || {
            number += 1;
            now = now + pause;
            let branch = key.branch(1, &otid(number), 2, 3);
            let deadline = now + Duration::from_secs(7);
            let started = client.start(now, &branch, number % 1000, reliable, request.clone(), deadline, number);
            let answered = client.receive(now, &branch, "MESSAGE", number % 1000, 200).is_some();
            (started, answered, client.due(now))
        };
        (0..CROWD).for_each(|_| drop(client_step()));
        criterion.bench_function(&format!("transaction/client, {kind}"), |bencher| bencher.iter(&mut client_step));
    }
}

criterion_group!(benches, identity, digest, tables);
criterion_main!(benches);
