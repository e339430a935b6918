//! From a validated pool to the objects it is made of. Pure: what is random or depends on time is passed in.

pub mod config;
pub mod credentials;
pub mod database;
pub mod directory;
pub mod front_end;
mod given;
pub mod keys;
pub mod metadata;
pub mod migration;
pub mod pod;
pub mod replicator;
pub mod service;
pub mod storage;
pub mod tls;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use self::given::Given;
use crate::crd::Reason;
use crate::crd::database::ExternalSpec;
use crate::error::Error;
use crate::names::Component;
use crate::observed::{Observed, Reach, Workload};
use crate::pki::{Entropy, Seconds};
use crate::validate::{Database, Invalid, TlsSource, ValidatedPool};

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
    /// The Service that names each front end.
    pub peers: Option<Service>,
    /// The pods' identity; it has no rights.
    pub service_account: Option<ServiceAccount>,
    /// The pool's key.
    pub keys: Option<Secret>,
    /// The logins of a database of the pool's own.
    pub credentials: Option<Secret>,
    /// The authority, before what it signed.
    pub authority: Option<Secret>,
    /// The certificate towards clients.
    pub certificate: Option<Secret>,
    /// The certificate between front ends.
    pub peer_certificate: Option<Secret>,
    /// The configuration.
    pub config: Option<Secret>,
    /// The volume claim.
    pub claim: Option<PersistentVolumeClaim>,
    /// The way to a database of the pool's own.
    pub database_service: Option<Service>,
    /// The database of the pool's own, before those who need it.
    pub database: Option<StatefulSet>,
    /// The migration of its schema, before those who count on it.
    pub migration: Option<Job>,
    /// Last but one, so that a pod starts with all it is given.
    pub front_end: Option<Workload>,
    /// What protects them from being taken away at once.
    pub disruption_budget: Option<PodDisruptionBudget>,
    /// What brings users from a directory.
    pub replicator: Option<CronJob>,
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
    let volume = storage::Wanted::by(pool)
        .map(|wanted| storage::claim(pool, &wanted, observed.claim.as_ref(), observed.class.as_ref()));
    let (claim, refusal) = volume.unzip();
    blockers.extend(refusal.flatten());
    let mut desired = Desired {
        service: Some(service::service(pool)),
        service_account: Some(service_account(pool)),
        authority: certificates.authority,
        certificate: certificates.leaf,
        peer_certificate: certificates.peers,
        claim,
        ..Desired::default()
    };
    blockers.extend(back_end(pool, observed, entropy, &mut desired)?);
    let configs =
        config::server_config(pool, reach).and_then(|server| Ok((config::replicator_config(pool, &server)?, server)));
    match configs {
        Ok((replicator, server)) => {
            let hash = config::restart_hash(&server, &keys)?;
            desired.config = Some(config::secret(pool, &server, replicator.as_ref())?);
            desired.front_end = Some(front_end::workload(pool, &hash, certificate_secret(pool)));
        }
        Err(invalid) => blockers.push(invalid.into()),
    }
    desired.keys = Some(keys);
    Ok(Built { desired, blockers, certificate: certificates.state })
}

/// What Enterprise Edition has beside front ends; what is missing for it.
fn back_end(
    pool: &ValidatedPool,
    observed: &Observed,
    entropy: &mut dyn Entropy,
    desired: &mut Desired,
) -> Result<Option<Blocker>, Error> {
    let Some(of) = &pool.database else { return Ok(None) };
    desired.peers = Some(service::peers(pool));
    // one that is not needed any more stays: it lets the only front end be taken away
    desired.disruption_budget =
        (pool.replicas() > 1 || observed.disruption_budget.is_some()).then(|| front_end::disruption_budget(pool));
    let (logins, blocker) = match of {
        Database::Embedded { image, spec } => {
            let credentials = credentials::secret(pool, observed.credentials.as_ref(), entropy)?;
            let hash = credentials::hash(&credentials);
            desired.credentials = Some(credentials);
            desired.database_service = Some(database::service(pool));
            desired.database = Some(database::stateful_set(pool, image, spec, &hash));
            (Some(hash), None)
        }
        Database::External(external) => (None, missing(external, observed)),
    };
    desired.replicator = pool.spec.directory_sync.as_ref().map(|spec| {
        let halted = spec.suspend || directory::missing(pool, observed).is_some();
        replicator::cron_job(pool, spec, halted)
    });
    desired.migration = Some(migration::job(pool, migration::name(pool, logins.as_deref())));
    Ok(blocker)
}

/// What is missing of that which somebody else keeps: without it no pod would start.
fn missing(external: &ExternalSpec, observed: &Observed) -> Option<Blocker> {
    let logins = Given {
        field: "spec.database.external.credentialsSecret",
        name: &external.credentials_secret,
        secret: observed.logins.as_ref(),
        keys: &["owner-username", "owner-password", "server-username", "server-password"],
    };
    let authority = external.tls.ca_secret.as_ref().map(|name| Given {
        field: "spec.database.external.tls.caSecret",
        name,
        secret: observed.database_authority.as_ref(),
        keys: &[tls::TRUST],
    });
    let message = logins.lack().or_else(|| authority?.lack());
    message.map(|message| Blocker::new(Reason::CredentialsMissing, message))
}

/// Octets as text, no more than `most` of them.
fn hex(octets: &[u8], most: usize) -> String {
    octets.iter().take(most).map(|octet| format!("{octet:02x}")).collect()
}

/// The Secret whose certificate the front ends show.
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
