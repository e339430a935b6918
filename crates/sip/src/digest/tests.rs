//! Digest as real clients speak it.

use std::borrow::Cow;

use proptest::prelude::*;

use super::*;

/// Answers a challenge as a client does.
fn answer(algorithm: Algorithm, ha1: &str, method: &str, uri: &str, nc: &str) -> String {
    let ha2 = algorithm.hash(&[method.as_bytes(), uri.as_bytes()]);
    let response = algorithm.hash(&[ha1, "nonce1", nc, "c0", "auth", &ha2].map(str::as_bytes));
    format!(
        "Digest username=\"alice\", realm=\"example.org\", nonce=\"nonce1\", uri=\"{uri}\", response=\"{response}\", \
         algorithm={}, cnonce=\"c0\", qop=auth, nc={nc}",
        algorithm.as_str()
    )
}

#[test]
fn the_example_of_rfc_7616_comes_out() {
    let common = "username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir/index.html\", \
        nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, \
        cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, \
        opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";
    for (algorithm, response) in [
        (Algorithm::Md5, "8ca523f5e9506fed4657c9700eebdbec"),
        (Algorithm::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ] {
        let value = format!("Digest {common}, algorithm={}, response=\"{response}\"", algorithm.as_str());
        let credentials = Credentials::parse(&value).unwrap();
        let ha1 = ha1(algorithm, "Mufasa", "http-auth@example.org", "Circle of Life");
        assert!(verify(&credentials, "GET", &ha1), "{algorithm:?}");
        assert!(!verify(&credentials, "POST", &ha1), "{algorithm:?}");
    }
}

#[test]
fn counts_are_hexadecimal_beyond_the_ninth_use() {
    let ha1 = ha1(Algorithm::Sha256, "alice", "example.org", "secret");
    for (nc, number) in [("00000009", 9), ("0000000a", 10), ("0000000A", 10), ("0000001f", 31), ("ffffffff", u32::MAX)]
    {
        let value = answer(Algorithm::Sha256, &ha1, "REGISTER", "sip:example.org", nc);
        let credentials = Credentials::parse(&value).unwrap();
        assert_eq!(credentials.nc, Some(number));
        assert!(verify(&credentials, "REGISTER", &ha1), "{nc}");
    }
}

#[test]
fn a_wrong_password_user_or_changed_answer_fails() {
    let right = ha1(Algorithm::Md5, "alice", "example.org", "secret");
    let value = answer(Algorithm::Md5, &right, "REGISTER", "sip:example.org", "00000001");
    let credentials = Credentials::parse(&value).unwrap();
    assert!(verify(&credentials, "REGISTER", &right));
    for (user, password) in [("alice", "Secret"), ("bob", "secret"), ("alice", "")] {
        assert!(!verify(&credentials, "REGISTER", &ha1(Algorithm::Md5, user, "example.org", password)));
    }
    assert!(!verify(&credentials, "REGISTER", ""));
    for changed in [
        Credentials { response: Cow::Borrowed(""), ..credentials.clone() },
        Credentials { response: Cow::Owned(format!("{}0", credentials.response)), ..credentials.clone() },
        Credentials { nonce: Cow::Borrowed("nonce2"), ..credentials.clone() },
        Credentials { uri: Cow::Borrowed("sip:example.com"), ..credentials.clone() },
        Credentials { cnonce: Some(Cow::Borrowed("c1")), ..credentials.clone() },
        Credentials { algorithm_name: Some(Cow::Borrowed("SHA-256")), ..credentials.clone() },
        Credentials { algorithm_name: Some(Cow::Borrowed("MD5-sess")), ..credentials.clone() },
    ] {
        assert!(!verify(&changed, "REGISTER", &right), "{changed:?}");
    }
}

#[test]
fn an_answer_without_quality_of_protection_is_refused() {
    let ha1 = ha1(Algorithm::Md5, "alice", "example.org", "secret");
    let ha2 = Algorithm::Md5.hash(&[b"REGISTER", b"sip:example.org"]);
    let response = Algorithm::Md5.hash(&[ha1.as_bytes(), b"nonce1", ha2.as_bytes()]);
    let old = format!(
        "Digest username=\"alice\",realm=\"example.org\",nonce=\"nonce1\",uri=\"sip:example.org\",response=\"{response}\""
    );
    let credentials = Credentials::parse(&old).unwrap();
    assert_eq!((credentials.algorithm(), credentials.qop), (Some(Algorithm::Md5), None));
    assert!(!verify(&credentials, "REGISTER", &ha1));
    let integrity =
        answer(Algorithm::Md5, &ha1, "REGISTER", "sip:example.org", "00000001").replace("=auth,", "=auth-int,");
    assert!(!verify(&Credentials::parse(&integrity).unwrap(), "REGISTER", &ha1));
}

#[test]
fn parameters_come_in_any_order_case_and_spacing() {
    let value = "  dIgEsT\t NC = 0000000a ,, QOP=\"auth\", uri=\"sip:b@example.org;a=1,2\",response=AB,\r\n\
        Realm=\"a \\\"b\\\\\", username=\"al, ice\",nonce=\"n\" , algorithm=\"sha-256\", foo=bar, username*=UTF-8''x, ";
    let credentials = Credentials::parse(value).unwrap();
    assert_eq!(credentials.username, "al, ice");
    assert_eq!(credentials.realm, "a \"b\\");
    assert_eq!(credentials.uri, "sip:b@example.org;a=1,2");
    assert_eq!((credentials.nc, credentials.qop), (Some(10), Some("auth")));
    assert_eq!(credentials.algorithm(), Some(Algorithm::Sha256));
    assert_eq!(credentials.other, [("foo", Cow::Borrowed("bar")), ("username*", Cow::Borrowed("UTF-8''x"))]);
}

#[test]
fn what_is_wrong_is_said() {
    let base = "Digest username=\"a\",realm=\"r\",nonce=\"n\",uri=\"u\"";
    let error = |value: &str| Credentials::parse(value).unwrap_err();
    for other in ["", "Basic YTpi", "NTLM qop=\"auth\"", "Digest2 a=b", "Digestive"] {
        assert_eq!(error(other), CredentialsError::Scheme, "{other}");
    }
    assert_eq!(error("Digest"), CredentialsError::Missing("username"));
    assert_eq!(error(base), CredentialsError::Missing("response"));
    assert_eq!(error(&format!("{base},response=\"x\",NONCE=\"m\"")), CredentialsError::Duplicate("nonce"));
    for wrong in [
        "nc=a",
        "nc=0000000g",
        "nc=000000001",
        "nc=\"\"",
        "nc=+0000001",
        "x",
        "=y",
        "x=",
        "x=\"y",
        "x=\"y\\",
        "x=y z",
        "é=1",
    ] {
        let value = format!("{base},response=\"x\",{wrong}");
        assert!(matches!(error(&value), CredentialsError::Syntax(_)), "{wrong}: {:?}", error(&value));
    }
    let many = ",x=y".repeat(28);
    assert!(matches!(error(&format!("{base},response=\"x\"{many}")), CredentialsError::Syntax(_)));
    assert!(Credentials::parse(&format!("{base},response=\"x\"{}", ",x=y".repeat(27))).is_ok());
}

#[test]
fn a_challenge_cannot_be_broken_out_of() {
    assert_eq!(
        challenge("example.org", "n0", Algorithm::Sha256, false),
        "Digest realm=\"example.org\", nonce=\"n0\", algorithm=SHA-256, qop=\"auth\""
    );
    assert_eq!(
        challenge("a\"b\\c\r\nX: y", "n0", Algorithm::Md5, true),
        "Digest realm=\"a\\\"b\\\\cX: y\", nonce=\"n0\", algorithm=MD5, stale=true, qop=\"auth\""
    );
}

#[test]
fn algorithms_have_the_names_of_the_registry() {
    for algorithm in [Algorithm::Sha256, Algorithm::Md5] {
        assert_eq!(Algorithm::parse(&algorithm.as_str().to_lowercase()), Some(algorithm));
    }
    assert_eq!(Algorithm::parse("SHA-512-256"), None);
    assert_eq!(ha1(Algorithm::Md5, "a", "b", "c"), "02cc8f08398a4f3113b554e8105ebe4c");
}

#[test]
fn digest_uris_match_by_user_and_host() {
    for (digest, request, expected) in [
        ("sip:example.org", "sip:example.org", true),
        ("sip:example.org", "sip:Example.ORG:5060;transport=tcp", true),
        ("sips:bob@example.org", "sip:bob@example.org;gr=x?Subject=y", true),
        ("sip:bob:pw@example.org", "sip:bob@example.org", true),
        ("sip:[2001:db8::1]:5060", "sip:[2001:DB8::1]", true),
        ("sip:[2001:db8::1]", "sip:[2001:db8::2]", false),
        ("sip:Bob@example.org", "sip:bob@example.org", false),
        ("sip:bob@example.org", "sip:example.org", false),
        ("sip:example.org", "sip:example.com", false),
        ("tel:+1", "tel:+1", true),
        ("tel:+1", "tel:+1;x=y", false),
        ("", "sip:example.org", false),
        ("sip:", "sips:", false),
        ("sip:b%6fb@example.org", "sip:bob@example.org", true),
        ("pres:bob@example.org", "sip:bob@example.org", false),
    ] {
        assert_eq!(uri_matches(digest, request), expected, "{digest} {request}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_fail_badly(text in ".{0,200}", tail in ".{0,200}") {
        let _ = Credentials::parse(&text);
        let _ = Credentials::parse(&format!("Digest {tail}"));
        let _ = uri_matches(&text, &tail);
    }

    #[test]
    fn a_quoted_realm_is_read_back(realm in "[^\\p{Cc}]{0,40}") {
        let value = challenge(&realm, "n", Algorithm::Md5, false) + ",username=u,uri=u,response=r";
        let value = value.replacen("qop=\"auth\"", "qop=auth", 1);
        prop_assert_eq!(Credentials::parse(&value).unwrap().realm, realm);
    }
}
