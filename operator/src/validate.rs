//! From the resource as the API server has it to a pool whose parts fit together. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};

use crate::crd::quantity::Quantity;
use crate::crd::v1alpha1::{CommunicationsPool, PoolSpec, ServiceType, TrafficPolicy};
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
    /// Where its certificate comes from.
    pub tls: TlsSource,
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

/// A field that says what cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// Path of the field.
    pub field: &'static str,
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
    let version = spec.version.clone().or(status.version).unwrap_or_else(|| environment.version.clone());
    let registry = spec.image.registry.as_deref().unwrap_or("localhost");
    let tls = match (&spec.service.listeners.tls, &spec.tls.secret_name) {
        (None, _) => TlsSource::NoListener,
        (Some(_), Some(name)) => TlsSource::Secret(name.clone()),
        (Some(_), None) => TlsSource::SelfManaged,
    };
    Ok(ValidatedPool {
        names: Names::new(pool.name_any()),
        namespace: pool.namespace().unwrap_or_default(),
        uid: pool.uid().unwrap_or_default(),
        image: format!("{registry}/commpool-server:{version}"),
        version,
        tls,
        told: status.addresses,
        spec,
    })
}

/// An empty text says the same as none.
fn normalised(spec: &PoolSpec) -> PoolSpec {
    let mut spec = spec.clone();
    for text in [
        &mut spec.version,
        &mut spec.image.registry,
        &mut spec.front_end.storage.storage_class_name,
        &mut spec.service.load_balancer_class,
        &mut spec.service.hostname,
        &mut spec.tls.secret_name,
    ] {
        text.take_if(|text| text.is_empty());
    }
    spec
}

fn amounts(spec: &PoolSpec) -> Result<(), Invalid> {
    let resources = &spec.front_end.resources;
    let (requests, limits) = (&resources.requests, &resources.limits);
    amount("spec.frontEnd.storage.size", &spec.front_end.storage.size)?;
    let cpu = amount("spec.frontEnd.resources.requests.cpu", &requests.cpu)?;
    let memory = amount("spec.frontEnd.resources.requests.memory", &requests.memory)?;
    if let Some(limit) = &limits.cpu {
        within("spec.frontEnd.resources.requests.cpu", cpu, amount("spec.frontEnd.resources.limits.cpu", limit)?)?;
    }
    let limit = amount("spec.frontEnd.resources.limits.memory", &limits.memory)?;
    within("spec.frontEnd.resources.requests.memory", memory, limit)
}

fn amount(field: &'static str, quantity: &Quantity) -> Result<i128, Invalid> {
    quantity
        .nanos()
        .ok_or_else(|| Invalid { field, problem: format!("{quantity:?} is no amount; write one such as 500m or 5Gi") })
}

fn within(field: &'static str, request: i128, limit: i128) -> Result<(), Invalid> {
    if request <= limit {
        return Ok(());
    }
    Err(Invalid { field, problem: "is more than the limit; lower it or raise spec.frontEnd.resources.limits".into() })
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
