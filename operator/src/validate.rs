//! From the resource as the API server has it to a pool whose parts fit together. Pure.

use commpool_model::config::{self, ConfigError};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};

use crate::build::directory::section;
use crate::crd::database::{DatabaseSpec, EmbeddedSpec, ExternalSpec};
use crate::crd::directory::DirectorySyncSpec;
use crate::crd::front_end::DrainSpec;
use crate::crd::quantity::{Amounts, Quantity};
use crate::crd::v1alpha1::{CommunicationsPool, Edition, PoolSpec, ServiceType, TrafficPolicy};
use crate::crd::{PoolAddress, Transport};
use crate::names::Names;
use crate::version;

/// What the operator knows about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Its own version, given to pools that ask for none.
    pub version: String,
}

impl Default for Environment {
    fn default() -> Self {
        Self { version: version::SHORT.to_owned() }
    }
}

/// A pool that can be built.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedPool {
    /// Names of its objects.
    pub names: Names,
    /// Its namespace.
    pub namespace: String,
    /// Its identity; a pool of the same name made later has another.
    pub uid: String,
    /// Version of the server it runs.
    pub version: String,
    /// Reference of the server's image.
    pub image: String,
    /// Reference of the replicator's image.
    pub replicator_image: String,
    /// Where its certificate comes from.
    pub tls: TlsSource,
    /// Its Back-End Database; none in Standard Edition.
    pub database: Option<Database>,
    /// What was told to clients so far.
    pub told: Vec<PoolAddress>,
    /// The rest of the spec, without empty texts.
    pub spec: PoolSpec,
}

/// Where the certificate towards clients comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsSource {
    /// No listener needs one.
    NoListener,
    /// The pool's own authority.
    SelfManaged,
    /// A Secret of that name that somebody else keeps.
    Secret(String),
}

/// The Back-End Database.
#[derive(Clone, Debug, PartialEq)]
pub enum Database {
    /// One of the pool's own.
    Embedded {
        /// Reference of its image.
        image: String,
        /// Volume and resources.
        spec: EmbeddedSpec,
    },
    /// One that somebody else keeps.
    External(ExternalSpec),
}

impl Database {
    /// What is asked of a database of the pool's own.
    pub fn embedded(&self) -> Option<&EmbeddedSpec> {
        match self {
            Self::Embedded { spec, .. } => Some(spec),
            Self::External(_) => None,
        }
    }

    /// Where a database of somebody else is.
    pub fn external(&self) -> Option<&ExternalSpec> {
        match self {
            Self::Embedded { .. } => None,
            Self::External(spec) => Some(spec),
        }
    }
}

/// Front ends of an Enterprise Edition pool that does not say how many.
const DEFAULT_FRONT_ENDS: i32 = 2;

/// A field that says what cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// Path of the field.
    pub field: String,
    /// What is wrong and what mends it.
    pub problem: String,
}

impl ValidatedPool {
    /// The reference that makes an object go when the pool goes.
    pub fn owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: CommunicationsPool::api_version(&()).into_owned(),
            kind: CommunicationsPool::kind(&()).into_owned(),
            name: self.names.pool().to_owned(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        }
    }

    /// Whether there can be many front ends.
    pub fn is_enterprise(&self) -> bool {
        self.spec.edition == Edition::Enterprise
    }

    /// Front ends asked for.
    pub fn replicas(&self) -> i32 {
        match self.spec.edition {
            Edition::Standard => 1,
            Edition::Enterprise => self.spec.front_end.replicas.unwrap_or(DEFAULT_FRONT_ENDS),
        }
    }

    /// The one name that all front ends have for each other.
    pub fn peers_name(&self) -> String {
        format!("{}.{}.svc", self.names.peers(), self.namespace)
    }

    /// How a front end of Enterprise Edition takes its leave.
    pub fn drain(&self) -> DrainSpec {
        self.spec.front_end.drain.unwrap_or_default()
    }

    /// What is asked of a database of the pool's own.
    pub fn embedded(&self) -> Option<&EmbeddedSpec> {
        self.database.as_ref().and_then(Database::embedded)
    }

    /// Where a database of somebody else is.
    pub fn external(&self) -> Option<&ExternalSpec> {
        self.database.as_ref().and_then(Database::external)
    }

    /// Names of the Secrets that somebody else keeps and the pool reads.
    pub fn given_secrets(&self) -> Vec<String> {
        let certificate = match &self.tls {
            TlsSource::Secret(name) => Some(name.clone()),
            TlsSource::NoListener | TlsSource::SelfManaged => None,
        };
        let database = self.external().into_iter();
        let database = database.flat_map(|it| [Some(it.credentials_secret.clone()), it.tls.ca_secret.clone()]);
        let directory = self.spec.directory_sync.iter();
        let directory = directory.flat_map(|it| [it.ldap.bind_secret.clone(), it.ldap.ca_secret.clone()]);
        certificate.into_iter().chain(database.flatten()).chain(directory).collect()
    }

    /// Transports that are switched on, with the ports of the pool's address.
    pub fn listeners(&self) -> impl Iterator<Item = (Transport, u16)> {
        let listeners = &self.spec.service.listeners;
        [(Transport::Tls, listeners.tls), (Transport::Tcp, listeners.tcp), (Transport::Udp, listeners.udp)]
            .into_iter()
            .filter_map(|(transport, port)| port.map(|port| (transport, port)))
    }

    /// Whether front ends see clients' own addresses.
    pub fn sees_clients(&self) -> bool {
        let service = &self.spec.service;
        service.type_ != ServiceType::ClusterIp && service.external_traffic_policy == TrafficPolicy::Local
    }
}

/// Checks what the schema cannot tell, and derives version and image.
///
/// # Errors
/// The first field that says what cannot be carried out.
pub fn validate(pool: &CommunicationsPool, environment: &Environment) -> Result<ValidatedPool, Invalid> {
    let status = pool.status.clone().unwrap_or_default();
    let spec = normalised(&pool.spec);
    amounts(&spec)?;
    spec.directory_sync.as_ref().map_or(Ok(()), directory)?;
    let version = spec.version.clone().or(status.version).unwrap_or_else(|| environment.version.clone());
    let registry = spec.image.registry.as_deref().unwrap_or("localhost");
    let image = |part: &str| format!("{registry}/commpool-{part}:{version}");
    let database = match (spec.edition, spec.database.clone()) {
        (Edition::Standard, _) => None,
        (Edition::Enterprise, Some(DatabaseSpec { external: Some(external), .. })) => {
            Some(Database::External(external))
        }
        (Edition::Enterprise, database) => Some(Database::Embedded {
            image: image("database"),
            spec: database.and_then(|database| database.embedded).unwrap_or_default(),
        }),
    };
    let tls = match (&spec.service.listeners.tls, &spec.tls.secret_name) {
        (None, _) => TlsSource::NoListener,
        (Some(_), Some(name)) => TlsSource::Secret(name.clone()),
        (Some(_), None) => TlsSource::SelfManaged,
    };
    Ok(ValidatedPool {
        names: Names::new(pool.name_any()),
        namespace: pool.namespace().unwrap_or_default(),
        uid: pool.uid().unwrap_or_default(),
        image: image("server"),
        replicator_image: image("replicator"),
        database,
        version,
        tls,
        told: status.addresses,
        spec,
    })
}

/// An empty text says the same as none.
fn normalised(spec: &PoolSpec) -> PoolSpec {
    let mut spec = spec.clone();
    let database = spec.database.as_mut();
    let (embedded, external) = match database {
        Some(DatabaseSpec { embedded, external }) => (embedded.as_mut(), external.as_mut()),
        None => (None, None),
    };
    let of_database = [
        embedded.map(|embedded| &mut embedded.storage.storage_class_name),
        external.map(|external| &mut external.tls.ca_secret),
    ];
    let texts = [
        &mut spec.version,
        &mut spec.image.registry,
        &mut spec.front_end.storage.storage_class_name,
        &mut spec.service.load_balancer_class,
        &mut spec.service.hostname,
        &mut spec.tls.secret_name,
    ];
    let zone = spec.directory_sync.as_mut().map(|sync| &mut sync.time_zone);
    for text in of_database.into_iter().flatten().chain(zone).chain(texts) {
        text.take_if(|text| text.is_empty());
    }
    spec
}

/// What the server itself would refuse of it, under the name that the field has here.
fn directory(spec: &DirectorySyncSpec) -> Result<(), Invalid> {
    section(spec, true).check(config::Edition::Standard).map_err(|error| {
        let (field, problem) = match error {
            ConfigError::Form { field, problem } => (field, problem),
            ConfigError::Value { field, problem, mend } => (field, format!("{problem}; {mend}")),
        };
        let inner = field.strip_prefix("directory.").unwrap_or(&field);
        let inner = match inner {
            "schedule.cron" => "schedule",
            "schedule.timeZone" => "timeZone",
            other => other,
        };
        Invalid { field: format!("spec.directorySync.{inner}"), problem }
    })
}

fn amounts(spec: &PoolSpec) -> Result<(), Invalid> {
    let front_end = &spec.front_end;
    amounts_at("spec.frontEnd", &front_end.storage.size, front_end.resources.amounts())?;
    match spec.database.as_ref().and_then(|database| database.embedded.as_ref()) {
        Some(it) => amounts_at("spec.database.embedded", &it.storage.size, it.resources.amounts()),
        None => Ok(()),
    }
}

fn amounts_at(path: &str, size: &Quantity, of: Amounts<'_>) -> Result<(), Invalid> {
    let requests = |what: &str| format!("{path}.resources.requests.{what}");
    let limits = |what: &str| format!("{path}.resources.limits.{what}");
    amount(format!("{path}.storage.size"), size)?;
    let (cpu, memory) = (amount(requests("cpu"), of.cpu)?, amount(requests("memory"), of.memory)?);
    if let Some(limit) = of.cpu_limit {
        within(requests("cpu"), cpu, amount(limits("cpu"), limit)?)?;
    }
    within(requests("memory"), memory, amount(limits("memory"), of.memory_limit)?)
}

fn amount(field: String, quantity: &Quantity) -> Result<i128, Invalid> {
    quantity
        .nanos()
        .ok_or_else(|| Invalid { field, problem: format!("{quantity:?} is no amount; write one such as 500m or 5Gi") })
}

fn within(field: String, request: i128, limit: i128) -> Result<(), Invalid> {
    if request <= limit {
        return Ok(());
    }
    Err(Invalid { field, problem: "is more than the limit; lower it or raise the limit beside it".into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pool(spec: serde_json::Value) -> CommunicationsPool {
        let mut spec = spec;
        spec["sipDomains"] = json!(["example.com"]);
        serde_json::from_value(json!({
            "apiVersion": "commpool.dev/v1alpha1", "kind": "CommunicationsPool",
            "metadata": {"name": "demo", "namespace": "chat", "uid": "1"}, "spec": spec,
        }))
        .unwrap()
    }

    fn valid(spec: serde_json::Value) -> ValidatedPool {
        validate(&pool(spec), &Environment { version: "9.9".into() }).unwrap()
    }

    #[test]
    fn the_version_is_the_specs_then_the_statuss_then_our_own() {
        assert_eq!(valid(json!({})).image, "localhost/commpool-server:9.9");
        let mut created_earlier = pool(json!({}));
        created_earlier.status = serde_json::from_value(json!({"version": "0.1.0"})).unwrap();
        let environment = Environment { version: "9.9".into() };
        assert_eq!(validate(&created_earlier, &environment).unwrap().version, "0.1.0");
        created_earlier.spec.version = Some("0.2.0".into());
        assert_eq!(validate(&created_earlier, &environment).unwrap().version, "0.2.0");
    }

    #[test]
    fn empty_texts_count_as_absent() {
        let pool = valid(json!({"version": "", "image": {"registry": ""}, "service": {"hostname": ""}}));
        assert_eq!(pool.image, "localhost/commpool-server:9.9");
        assert_eq!(pool.spec.service.hostname, None);
        assert_eq!(valid(json!({"image": {"registry": "r.example/x"}})).image, "r.example/x/commpool-server:9.9");
    }

    #[test]
    fn the_certificates_source_follows_listener_and_secret() {
        assert_eq!(valid(json!({})).tls, TlsSource::SelfManaged);
        assert_eq!(valid(json!({"tls": {"secretName": "own"}})).tls, TlsSource::Secret("own".into()));
        assert_eq!(valid(json!({"service": {"listeners": {"tcp": 5060}}})).tls, TlsSource::NoListener);
    }

    #[test]
    fn a_request_above_its_limit_is_refused_by_name() {
        for (resources, field) in [
            (json!({"requests": {"memory": "1Gi"}}), "spec.frontEnd.resources.requests.memory"),
            (json!({"requests": {"cpu": 2}, "limits": {"cpu": "1500m"}}), "spec.frontEnd.resources.requests.cpu"),
            (json!({"limits": {"memory": "much"}}), "spec.frontEnd.resources.limits.memory"),
        ] {
            let refused = validate(&pool(json!({"frontEnd": {"resources": resources}})), &Environment::default());
            assert_eq!(refused.unwrap_err().field, field);
        }
    }

    #[test]
    fn only_local_traffic_shows_clients() {
        assert!(valid(json!({})).sees_clients());
        assert!(!valid(json!({"service": {"externalTrafficPolicy": "Cluster"}})).sees_clients());
        assert!(!valid(json!({"service": {"type": "ClusterIP"}})).sees_clients());
    }
}
