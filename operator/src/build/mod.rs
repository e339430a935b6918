//! From a validated pool to the objects it is made of. Pure: what is random or depends on time is passed in.

pub mod config;
pub mod front_end;
pub mod keys;
pub mod metadata;
pub mod service;
pub mod storage;
pub mod tls;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret, Service, ServiceAccount};

use crate::crd::Reason;
use crate::error::Error;
use crate::names::Component;
use crate::observed::{Observed, Reach};
use crate::pki::{Entropy, Seconds};
use crate::validate::{Invalid, TlsSource, ValidatedPool};

/// Something that keeps the pool from being as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// Its kind.
    pub reason: Reason,
    /// What exactly, and what mends it.
    pub message: String,
}

impl Blocker {
    /// A blocker with this message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// Whether the front end must stay as it is meanwhile: a new pod could not start, or not serve.
    pub fn holds_front_end(&self) -> bool {
        self.reason != Reason::CannotGrow
    }
}

impl From<Invalid> for Blocker {
    fn from(invalid: Invalid) -> Self {
        Self::new(Reason::Invalid, invalid.to_string())
    }
}

/// The objects of a pool, in the order in which they are written; absent: left as it is, or not wanted.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// First, so that the pool's address is known early.
    pub service: Option<Service>,
    /// The front ends' identity; it has no rights.
    pub service_account: Option<ServiceAccount>,
    /// The pool's key.
    pub keys: Option<Secret>,
    /// The authority, before what it signed.
    pub authority: Option<Secret>,
    /// The certificate.
    pub certificate: Option<Secret>,
    /// The configuration.
    pub config: Option<Secret>,
    /// The volume claim.
    pub claim: Option<PersistentVolumeClaim>,
    /// Last, so that a pod starts with all it is given.
    pub front_end: Option<StatefulSet>,
}

/// What was built, and what could not be.
#[derive(Clone, Debug)]
pub struct Built {
    /// The objects.
    pub desired: Desired,
    /// Why some are missing.
    pub blockers: Vec<Blocker>,
    /// The certificate that clients are shown now.
    pub certificate: tls::CertificateState,
}

/// Builds all objects of `pool`. Secrets with random content are taken over from `observed` where they are right.
///
/// # Errors
/// If randomness or the certificate library fails; a retry can help.
pub fn build(
    pool: &ValidatedPool,
    observed: &Observed,
    reach: &Reach,
    now: Seconds,
    entropy: &mut dyn Entropy,
) -> Result<Built, Error> {
    let mut blockers = Vec::new();
    let keys = keys::keys(pool, observed.keys.as_ref(), entropy)?;
    let certificates = tls::certificates(pool, observed, reach, now, entropy)?;
    blockers.extend(certificates.blocker);
    let (claim, refusal) = storage::claim(pool, observed.claim.as_ref(), observed.class.as_ref());
    blockers.extend(refusal);
    let mut desired = Desired {
        service: Some(service::service(pool)),
        service_account: Some(service_account(pool)),
        authority: certificates.authority,
        certificate: certificates.leaf,
        claim: Some(claim),
        ..Desired::default()
    };
    match config::server_config(pool, reach) {
        Ok(server) => {
            let hash = config::restart_hash(&server, &keys)?;
            desired.config = Some(config::secret(pool, &server)?);
            desired.front_end = Some(front_end::stateful_set(pool, &hash, certificate_secret(pool)));
        }
        Err(invalid) => blockers.push(invalid.into()),
    }
    desired.keys = Some(keys);
    Ok(Built { desired, blockers, certificate: certificates.state })
}

/// The Secret whose certificate the front end shows.
fn certificate_secret(pool: &ValidatedPool) -> Option<String> {
    match &pool.tls {
        TlsSource::NoListener => None,
        TlsSource::SelfManaged => Some(pool.names.certificate()),
        TlsSource::Secret(name) => Some(name.clone()),
    }
}

fn service_account(pool: &ValidatedPool) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata::owned(pool, pool.names.front_end(), Component::FrontEnd),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
