//! Who does not prove who he is learns nothing from us: no name, no password.

use commpool_model::directory::{Outcome, RunResult};
use commpool_replicator::cycle;
use tokio_util::sync::CancellationToken;

use crate::lists::{Pool, people};
use crate::pki::Flaw;
use crate::stub::{Ask, Deed, Manner, Stub, done};

async fn run(stub: &Stub) -> Outcome {
    let mut pool = Pool::new();
    pool.config = stub.configuration();
    cycle::run(pool.job(), "test", &CancellationToken::new()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_certificate_is_enough_in_both_ways() {
    for start_tls in [false, true] {
        let stub = Stub::new(Manner { entries: people(1..=3), start_tls, ..Manner::default() }).await;
        let outcome = run(&stub).await;
        assert_eq!((outcome.result, outcome.counts.added, stub.binds()), (RunResult::Synced, 3, 1), "{outcome:?}");
        assert_eq!(stub.seen().first() == Some(&Ask::StartTls), start_tls);
        assert_eq!(stub.seen().last(), Some(&Ask::Unbind));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_certificates_are_named_and_never_see_a_bind() {
    for (flaw, cause) in [
        (Flaw::Ca, "is not of a CA in caFile"),
        (Flaw::Host, "is not for `127.0.0.1`"),
        (Flaw::Expired, "has expired"),
        (Flaw::Early, "is not valid yet"),
        (Flaw::ClientOnly, "is not made for servers"),
    ] {
        for start_tls in [false, true] {
            let stub = Stub::new(Manner { flaw, start_tls, ..Manner::default() }).await;
            let outcome = run(&stub).await;
            assert_eq!(outcome.result, RunResult::DirectoryUnavailable, "{flaw:?}: {outcome:?}");
            assert!(outcome.message.contains(&format!("its certificate {cause}")), "{flaw:?}: {outcome:?}");
            let expected = if start_tls { vec![Ask::StartTls] } else { Vec::new() };
            assert_eq!(stub.seen(), expected, "{flaw:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn start_tls_refused_or_half_hearted_is_the_end() {
    let answers: [fn(u32) -> Vec<Deed>; 5] = [
        |id| vec![Deed::Send(done(id, 0x78, 2, "no TLS here", None))],
        |id| vec![Deed::Send(done(id, 0x65, 0, "", None))],
        // Something slipped in before TLS, to be taken for an answer to what is asked over it.
        |id| vec![Deed::Send([done(id, 0x78, 0, "", None), done(2, 0x61, 0, "", None)].concat())],
        |_| vec![Deed::HangUp],
        |id| vec![Deed::Send(done(id + 1, 0x78, 0, "", None))],
    ];
    for answer in answers {
        let script = move |id: u32, ask: &Ask| (*ask == Ask::StartTls).then(|| answer(id));
        let manner = Manner { start_tls: true, script: Some(std::sync::Arc::new(script)), ..Manner::default() };
        let stub = Stub::new(manner).await;
        let outcome = run(&stub).await;
        assert_eq!(outcome.result, RunResult::DirectoryUnavailable, "{outcome:?}");
        assert_eq!(stub.seen(), [Ask::StartTls], "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_without_tls_is_told_so() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let other = Stub::new(Manner::default()).await;
    let mut pool = Pool::new();
    pool.config = other.configuration();
    pool.config.ldap.urls = vec![format!("ldaps://{address}")];
    let serving = tokio::spawn(async move { drop(listener.accept().await) });
    let outcome = cycle::run(pool.job(), "test", &CancellationToken::new()).await;
    serving.await.unwrap();
    assert_eq!(outcome.result, RunResult::DirectoryUnavailable);
    assert!(outcome.message.starts_with(&format!("ldaps://{address}: ")), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_used_are_named() {
    let stub = Stub::new(Manner::default()).await;
    let file = |text: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    };
    for (text, cause) in
        [("", "no certificate"), ("-----BEGIN CERTIFICATE-----\n!!\n", "PEM"), ("nonsense", "no certificate")]
    {
        let file = file(text);
        let mut pool = Pool::new();
        pool.config = stub.configuration();
        pool.config.ldap.ca_file = file.path().to_owned();
        let outcome = cycle::run(pool.job(), "test", &CancellationToken::new()).await;
        assert_eq!(outcome.result, RunResult::ConfigurationInvalid);
        assert!(outcome.message.starts_with("caFile ") && outcome.message.contains(cause), "{outcome:?}");
    }
    let empty = file("\n");
    let mut pool = Pool::new();
    pool.config = stub.configuration();
    pool.config.ldap.password_file = empty.path().to_owned();
    let outcome = cycle::run(pool.job(), "test", &CancellationToken::new()).await;
    assert_eq!((outcome.result, stub.seen()), (RunResult::ConfigurationInvalid, Vec::new()), "{outcome:?}");
}
