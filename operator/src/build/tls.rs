//! The certificate towards clients: the pool's own authority and leaf, or a Secret that somebody else keeps. And the one
//! between front ends, which is always the pool's own.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::{Blocker, metadata};
use crate::crd::Reason;
use crate::names::Component;
use crate::observed::{Observed, Reach, data, text};
use crate::pki::authority::{Authority, advance};
use crate::pki::leaf::{Subject, issue, why_due};
use crate::pki::{Entropy, Facts, Identity, PairError, PkiError, Seconds, read_certificate, read_pair};
use crate::validate::{TlsSource, ValidatedPool};

/// Key of a certificate chain in a Secret.
pub const CERTIFICATE: &str = "tls.crt";
/// Key of a private key in a Secret.
pub const KEY: &str = "tls.key";
/// Key of what clients are to trust.
pub const TRUST: &str = "ca.crt";

/// The certificate that clients are shown now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateState {
    /// `SelfManaged`, `GivenSecret` or `NoTlsListener` where all is well.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// Last second of its life, where there is one.
    pub not_after: Option<Seconds>,
}

impl CertificateState {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), not_after: None }
    }

    /// Whether clients are shown a certificate that is valid now.
    pub fn is_good(&self) -> bool {
        matches!(self.reason, Reason::SelfManaged | Reason::GivenSecret | Reason::NoTlsListener)
    }
}

/// Secrets to write, what clients are shown now, and what is wrong.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The authority's Secret.
    pub authority: Option<Secret>,
    /// The Secret of the leaf towards clients.
    pub leaf: Option<Secret>,
    /// The Secret of the leaf between front ends.
    pub peers: Option<Secret>,
    /// What clients are shown now.
    pub state: CertificateState,
    /// Why a front end could not be given a certificate.
    pub blocker: Option<Blocker>,
}

/// Finds or makes the pool's certificates.
///
/// # Errors
/// If randomness or the certificate library fails.
pub fn certificates(
    pool: &ValidatedPool,
    observed: &Observed,
    reach: &Reach,
    now: Seconds,
    entropy: &mut dyn Entropy,
) -> Result<Certificates, PkiError> {
    let mut certificates = match &pool.tls {
        TlsSource::NoListener => Certificates::of(CertificateState::new(Reason::NoTlsListener, "no TLS listener")),
        TlsSource::Secret(name) => given(pool, name, observed.given.as_ref(), reach, now),
        TlsSource::SelfManaged => Certificates::of(shown(pool, observed.certificate.as_ref(), now)),
    };
    let self_managed = pool.tls == TlsSource::SelfManaged;
    if !self_managed && !pool.is_enterprise() {
        return Ok(certificates);
    }
    let before = match observed.authority.as_ref().map(read_authority).transpose() {
        Ok(before) => before,
        Err(problem) => {
            let message = format!("Secret {}, {problem}", pool.names.authority());
            if self_managed {
                certificates.state = CertificateState::new(Reason::AuthorityMalformed, message.clone());
            }
            certificates.blocker.get_or_insert(Blocker::new(Reason::AuthorityMalformed, message));
            return Ok(certificates);
        }
    };
    let authority = advance(before.as_ref(), pool.names.pool(), &pool.namespace, now, entropy)?;
    let mut current = |subject: &Subject, secret: Option<&Secret>, name: String| {
        let before = secret.map(identity);
        let leaf = match (why_due(before.as_ref(), subject, &authority, now)?, before) {
            (None, Some(before)) => before,
            _ => issue(subject, &authority, now, entropy)?,
        };
        Ok::<_, PkiError>(Some(leaf_secret(pool, name, leaf, &authority)))
    };
    if self_managed {
        let hosts = hosts(pool, reach).into_iter().map(str::to_owned).chain([internal_name(pool)]);
        let subject = Subject::new(pool.names.pool(), hosts);
        certificates.leaf = current(&subject, observed.certificate.as_ref(), pool.names.certificate())?;
    }
    if pool.is_enterprise() {
        let subject = Subject::peers(pool.names.pool(), pool.peers_name());
        certificates.peers = current(&subject, observed.peer_certificate.as_ref(), pool.names.peer_certificate())?;
    }
    certificates.authority = Some(authority_secret(pool, &authority));
    Ok(certificates)
}

impl Certificates {
    fn of(state: CertificateState) -> Self {
        Self { authority: None, leaf: None, peers: None, state, blocker: None }
    }
}

fn identity(secret: &Secret) -> Identity {
    Identity { certificate: text(secret, CERTIFICATE), key: text(secret, KEY) }
}

fn given(pool: &ValidatedPool, name: &str, secret: Option<&Secret>, reach: &Reach, now: Seconds) -> Certificates {
    let state = match read_given(name, secret) {
        Err(state) => state,
        Ok(facts) if !facts.is_current(now) => expired(&format!("key {CERTIFICATE} of Secret {name}"), &facts),
        Ok(facts) => {
            let foreign: Vec<&str> = hosts(pool, reach).into_iter().filter(|host| !facts.is_for(host)).collect();
            let mut state = CertificateState::new(Reason::GivenSecret, format!("Secret {name}"));
            if !foreign.is_empty() {
                state.message += &format!("; clients that check these names will refuse it: {}", foreign.join(", "));
            }
            state.not_after = Some(facts.not_after);
            state
        }
    };
    let unusable = matches!(state.reason, Reason::SecretMissing | Reason::SecretMalformed);
    let blocker = unusable.then(|| Blocker::new(state.reason, state.message.clone()));
    Certificates { blocker, ..Certificates::of(state) }
}

fn read_given(name: &str, secret: Option<&Secret>) -> Result<Facts, CertificateState> {
    let missing = |what: String| CertificateState::new(Reason::SecretMissing, format!("spec.tls.secretName: {what}"));
    let secret = secret
        .ok_or_else(|| missing(format!("there is no Secret {name}; make it with keys {CERTIFICATE} and {KEY}")))?;
    let under = |key: &str| data(secret, key).ok_or_else(|| missing(format!("Secret {name} has no key {key}")));
    read_pair(under(CERTIFICATE)?, under(KEY)?).map_err(|error| {
        let key = if matches!(error, PairError::Certificate(_)) { CERTIFICATE } else { KEY };
        CertificateState::new(
            Reason::SecretMalformed,
            format!("spec.tls.secretName: Secret {name}, key {key}: {error}"),
        )
    })
}

fn expired(what: &str, facts: &Facts) -> CertificateState {
    let date = |second| {
        k8s_openapi::jiff::Timestamp::from_second(second).map_or_else(|_| second.to_string(), |time| time.to_string())
    };
    let (from, to) = (date(facts.not_before), date(facts.not_after));
    CertificateState {
        not_after: Some(facts.not_after),
        ..CertificateState::new(Reason::Expired, format!("{what} is valid from {from} to {to} only"))
    }
}

fn shown(pool: &ValidatedPool, secret: Option<&Secret>, now: Seconds) -> CertificateState {
    let name = pool.names.certificate();
    let shown = secret.map(identity);
    match shown.map(|shown| read_pair(shown.certificate.as_bytes(), shown.key.as_bytes())) {
        Some(Ok(facts)) if facts.is_current(now) => CertificateState {
            not_after: Some(facts.not_after),
            ..CertificateState::new(Reason::SelfManaged, format!("Secret {name}; clients trust its {TRUST}"))
        },
        Some(_) | None => CertificateState::new(Reason::NotIssued, format!("Secret {name} is being written")),
    }
}

/// Names and addresses that a client may check: domains, public name and address.
fn hosts<'a>(pool: &'a ValidatedPool, reach: &'a Reach) -> Vec<&'a str> {
    let mut hosts: Vec<&str> = pool.spec.sip_domains.iter().map(String::as_str).collect();
    hosts.extend(pool.spec.service.hostname.as_deref());
    hosts.extend(reach.hosts());
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

fn internal_name(pool: &ValidatedPool) -> String {
    format!("{}.{}.svc", pool.names.service(), pool.namespace)
}

fn read_authority(secret: &Secret) -> Result<Authority, String> {
    let identity = |certificate: &str, key: &str| -> Result<Option<Identity>, String> {
        let identity = Identity { certificate: text(secret, certificate), key: text(secret, key) };
        if identity.certificate.is_empty() && identity.key.is_empty() {
            return Ok(None);
        }
        read_pair(identity.certificate.as_bytes(), identity.key.as_bytes())
            .map(|_| Some(identity))
            .map_err(|error| format!("keys {certificate} and {key}: {error}"))
    };
    let previous = text(secret, "previous.crt");
    Ok(Authority {
        current: identity(TRUST, "ca.key")?.ok_or_else(|| format!("key {TRUST}: there is none"))?,
        next: identity("next.crt", "next.key")?,
        previous: blocks(&previous).filter(|block| read_certificate(block).is_ok()).collect(),
    })
}

fn blocks(pem: &str) -> impl Iterator<Item = String> + '_ {
    pem.split_inclusive("-----END CERTIFICATE-----\n").map(str::to_owned)
}

fn authority_secret(pool: &ValidatedPool, authority: &Authority) -> Secret {
    let mut data = BTreeMap::new();
    let mut put = |key: &str, value: &str| data.insert(key.to_owned(), ByteString(value.as_bytes().to_vec()));
    put(TRUST, &authority.current.certificate);
    put("ca.key", &authority.current.key);
    if let Some(next) = &authority.next {
        put("next.crt", &next.certificate);
        put("next.key", &next.key);
    }
    if !authority.previous.is_empty() {
        put("previous.crt", &authority.previous.concat());
    }
    Secret {
        metadata: metadata::kept(pool, pool.names.authority(), Component::Certificates),
        data: Some(data),
        type_: Some("Opaque".into()),
        ..Secret::default()
    }
}

fn leaf_secret(pool: &ValidatedPool, name: String, leaf: Identity, authority: &Authority) -> Secret {
    let data = [(CERTIFICATE, leaf.certificate), (KEY, leaf.key), (TRUST, authority.bundle())];
    Secret {
        metadata: metadata::owned(pool, name, Component::Certificates),
        data: Some(data.map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).into()),
        type_: Some("kubernetes.io/tls".into()),
        ..Secret::default()
    }
}
