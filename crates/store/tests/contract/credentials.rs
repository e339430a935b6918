//! Passwords.

use commpool_model::config::DigestAlgorithm::{self, Md5, Sha256};
use commpool_store::ops::accounts::State;
use commpool_store::ops::credentials::{Login, Put, PutReply, Request, Revoke, Revoked, Verifier};

use crate::bench::{Bench, contract};

fn verifier(algorithm: DigestAlgorithm, digits: &str) -> Verifier {
    Verifier { algorithm, realm: "example.com".to_owned(), ha1: digits.repeat(16) }
}

/// A password for both algorithms; `digits` are its hashes' repeated.
pub(crate) fn password(name: &str, label: &str, digits: &str) -> Put {
    Put {
        address: format!("{name}@example.com"),
        label: label.to_owned(),
        verifiers: vec![verifier(Sha256, &digits.repeat(2)), verifier(Md5, digits)],
    }
}

fn login(b: &Bench, name: &str) -> Option<Login> {
    b.ask(Request { address: format!("{name}@example.com") }).found
}

contract! {
    a_password_is_put_replaced_and_revoked
    twenty_labels_and_no_more
}

fn a_password_is_put_replaced_and_revoked(b: &Bench) {
    let alice = b.add("alice");
    assert_eq!(login(b, "nobody"), None);
    let before = login(b, "alice").unwrap();
    assert_eq!((before.user, before.state, before.verifiers.as_slice()), (alice, State::On, [].as_slice()));
    let PutReply::Done(stamp) = b.ask(password("alice", "main", "aa")) else { panic!() };
    let seen = login(b, "alice").unwrap();
    assert!(stamp > before.stamp && seen.stamp == stamp);
    assert_eq!(seen.verifiers, [verifier(Sha256, "aaaa"), verifier(Md5, "aa")]);
    b.ask(password("alice", "a phone", "bb"));
    let digits =
        |b: &Bench| login(b, "alice").unwrap().verifiers.iter().map(|v| v.ha1[..2].to_owned()).collect::<Vec<_>>();
    assert_eq!(digits(b), ["bb", "bb", "aa", "aa"]);
    b.ask(Put { verifiers: vec![verifier(Md5, "cc")], ..password("alice", "main", "") });
    assert_eq!(digits(b), ["bb", "bb", "cc"], "the label's other algorithm went with the old password");
    let revoke = Revoke { address: "alice@example.com".to_owned(), label: "a phone".to_owned() };
    let Revoked::Done(revoked) = b.ask(revoke.clone()) else { panic!() };
    assert_eq!((digits(b), login(b, "alice").unwrap().stamp), (vec!["cc".to_owned()], revoked));
    assert_eq!(b.ask(revoke), Revoked::NotFound);
    let nobody = Revoke { address: "nobody@example.com".to_owned(), label: "main".to_owned() };
    assert_eq!((b.ask(nobody), b.ask(password("nobody", "main", "aa"))), (Revoked::NotFound, PutReply::NotFound));
    b.set_state("alice", State::Disabled);
    let disabled = login(b, "alice").unwrap();
    assert_eq!((disabled.state, disabled.verifiers.len()), (State::Disabled, 1));
    assert!(disabled.stamp > revoked);
}

fn twenty_labels_and_no_more(b: &Bench) {
    b.add("alice");
    for n in 0..20 {
        assert!(matches!(b.ask(password("alice", &format!("device {n}"), "aa")), PutReply::Done(_)));
    }
    assert_eq!(b.ask(password("alice", "one more", "aa")), PutReply::TooMany);
    assert!(matches!(b.ask(password("alice", "device 7", "bb")), PutReply::Done(_)));
    assert_eq!(login(b, "alice").unwrap().verifiers.len(), 40);
}
