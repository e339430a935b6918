//! What the cluster has of a pool at one moment, and what can be read from it. Pure.

use std::net::{IpAddr, SocketAddr};

use commpool_model::directory::Outcome;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::build::pod::MANAGEMENT;
use crate::crd::v1alpha1::ServiceType;
use crate::crd::{PoolAddress, Transport};
use crate::names::{COMPONENT, Component};
use crate::pod_state::is_ready;
use crate::validate::ValidatedPool;

/// Live objects of a pool, read in one go.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The pods' service account.
    pub service_account: Option<ServiceAccount>,
    /// The VIP.
    pub service: Option<Service>,
    /// The Service that names each front end.
    pub peers: Option<Service>,
    /// The pool's key.
    pub keys: Option<Secret>,
    /// The logins of a database of the pool's own.
    pub credentials: Option<Secret>,
    /// The pool's authority.
    pub authority: Option<Secret>,
    /// The certificate of the pool's own authority.
    pub certificate: Option<Secret>,
    /// The certificate between front ends.
    pub peer_certificate: Option<Secret>,
    /// The Secret that `tls.secretName` names.
    pub given: Option<Secret>,
    /// The Secret with the logins of an external database.
    pub logins: Option<Secret>,
    /// The Secret with the authority of an external database.
    pub database_authority: Option<Secret>,
    /// The Secret with the account to read the directory by.
    pub bind: Option<Secret>,
    /// The Secret with the authorities of the directory's certificates.
    pub directory_authority: Option<Secret>,
    /// The server's configuration.
    pub config: Option<Secret>,
    /// The volume claim.
    pub claim: Option<PersistentVolumeClaim>,
    /// The way to a database of the pool's own.
    pub database_service: Option<Service>,
    /// The database of the pool's own.
    pub database: Option<StatefulSet>,
    /// Migrations of this version and of earlier ones.
    pub migrations: Vec<Job>,
    /// The front ends' workload.
    pub front_end: Option<Workload>,
    /// What protects them from being taken away at once.
    pub disruption_budget: Option<PodDisruptionBudget>,
    /// What brings users from a directory, in Enterprise Edition.
    pub replicator: Option<CronJob>,
    /// What the server of Standard Edition says of its last run over the directory, or why it does not say it.
    pub report: Option<Result<Box<Outcome>, String>>,
    /// All pods of the pool.
    pub pods: Vec<Pod>,
    /// The storage class of the claim; read only when a decision hangs on it.
    pub class: Option<ClassFacts>,
}

impl Observed {
    /// The pods of one part of the pool.
    pub fn pods_of(&self, component: Component) -> impl Iterator<Item = &Pod> {
        let of = move |pod: &&Pod| {
            let labels = pod.metadata.labels.as_ref();
            labels.and_then(|labels| labels.get(COMPONENT)).is_some_and(|label| label == component.as_str())
        };
        self.pods.iter().filter(of)
    }
}

impl Observed {
    /// The front end of Standard Edition that can be asked what its last run over the directory came to: its pod's name,
    /// and address and port of its management.
    pub fn asked(&self, pool: &ValidatedPool) -> Option<(String, SocketAddr)> {
        if pool.is_enterprise() || pool.spec.directory_sync.is_none() {
            return None;
        }
        self.pods_of(Component::FrontEnd).filter(|pod| is_ready(pod)).find_map(|pod| {
            let address: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
            let port = ports.find(|port| port.name.as_deref() == Some(MANAGEMENT))?;
            let port = u16::try_from(port.container_port).ok()?;
            Some((pod.metadata.name.clone()?, SocketAddr::new(address, port)))
        })
    }
}

/// What runs the front ends, or the database.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Workload {
    /// The only pod on its volume.
    Set(StatefulSet),
    /// Pods that keep nothing.
    Deployment(Deployment),
}

/// How far a workload is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Pods there are; those that are ending do not count.
    pub pods: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods of the newest template.
    pub updated: i32,
    /// Whether all pods there are, one at least, are of the template that is wanted now.
    pub up_to_date: bool,
}

impl Workload {
    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Set(set) => &set.metadata,
            Self::Deployment(deployment) => &deployment.metadata,
        }
    }

    /// Its pods' template.
    pub fn template(&self) -> Option<&PodTemplateSpec> {
        match self {
            Self::Set(set) => set.spec.as_ref().map(|spec| &spec.template),
            Self::Deployment(deployment) => deployment.spec.as_ref().map(|spec| &spec.template),
        }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        match self {
            Self::Set(set) => progress_of_set(set),
            Self::Deployment(deployment) => progress_of_deployment(deployment),
        }
    }
}

/// How far a StatefulSet is.
pub fn progress_of_set(set: &StatefulSet) -> Progress {
    let Some(status) = &set.status else { return Progress::default() };
    let updated = status.updated_replicas.unwrap_or(0);
    Progress {
        pods: status.replicas,
        ready: status.ready_replicas.unwrap_or(0),
        updated,
        up_to_date: status.observed_generation >= set.metadata.generation
            && updated >= 1
            && status.current_revision == status.update_revision,
    }
}

fn progress_of_deployment(deployment: &Deployment) -> Progress {
    let Some(status) = &deployment.status else { return Progress::default() };
    let (pods, updated) = (status.replicas.unwrap_or(0), status.updated_replicas.unwrap_or(0));
    Progress {
        pods,
        ready: status.ready_replicas.unwrap_or(0),
        updated,
        up_to_date: status.observed_generation >= deployment.metadata.generation && updated >= 1 && updated == pods,
    }
}

/// What matters of a storage class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassFacts {
    /// Its name.
    pub name: String,
    /// Whether its volumes can grow.
    pub expandable: bool,
    /// Whether its driver can keep a volume to one pod (`ReadWriteOncePod` needs CSI).
    pub single_pod: bool,
}

/// How clients reach the pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// What clients are told, by transport; of a Service that has no address now, what was told before.
    pub addresses: Vec<PoolAddress>,
    /// Whether the Service has all it needs.
    pub complete: bool,
}

impl Reach {
    /// Finds host and ports of the pool's address.
    pub fn find(pool: &ValidatedPool, service: Option<&Service>) -> Self {
        let spec = &pool.spec.service;
        let host = spec.hostname.clone().or_else(|| service.and_then(|service| own_host(spec.type_, service)));
        let mut complete = has_address(spec.type_, service);
        let mut addresses = Vec::new();
        for (transport, port) in pool.listeners() {
            let port = match spec.type_ {
                ServiceType::NodePort => service.and_then(|service| node_port(service, transport)),
                ServiceType::LoadBalancer | ServiceType::ClusterIp => Some(port),
            };
            let known = host.clone().zip(port).map(|(host, port)| PoolAddress { host, port, transport });
            complete &= known.is_some();
            let told = || pool.told.iter().find(|told| told.transport == transport).cloned();
            addresses.extend(known.or_else(told));
        }
        Self { addresses, complete }
    }

    /// The address for `transport`.
    pub fn of(&self, transport: Transport) -> Option<&PoolAddress> {
        self.addresses.iter().find(|address| address.transport == transport)
    }

    /// All hosts, for the certificate.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.addresses.iter().map(|address| address.host.as_str())
    }
}

/// The address that the Service itself has.
pub fn own_host(type_: ServiceType, service: &Service) -> Option<String> {
    match type_ {
        ServiceType::LoadBalancer => {
            let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?.first()?;
            ingress.ip.clone().or_else(|| ingress.hostname.clone())
        }
        ServiceType::ClusterIp => {
            service.spec.as_ref()?.cluster_ip.clone().filter(|address| address != "None" && !address.is_empty())
        }
        ServiceType::NodePort => None,
    }
}

fn has_address(type_: ServiceType, service: Option<&Service>) -> bool {
    service.is_some_and(|service| type_ == ServiceType::NodePort || own_host(type_, service).is_some())
}

fn node_port(service: &Service, transport: Transport) -> Option<u16> {
    let ports = service.spec.as_ref()?.ports.as_ref()?;
    let port = ports.iter().find(|port| port.name.as_deref() == Some(transport.as_str()))?;
    port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)
}

/// The second of an object's creation, since 1970.
pub fn created(metadata: &ObjectMeta) -> Option<i64> {
    metadata.creation_timestamp.as_ref().map(|time| time.0).map(Timestamp::as_second)
}

/// The octets under `key` in a Secret.
pub fn data<'a>(secret: &'a Secret, key: &str) -> Option<&'a [u8]> {
    secret.data.as_ref()?.get(key).map(|octets| octets.0.as_slice())
}

/// The text under `key` in a Secret; empty if there is none or it is no text.
pub fn text(secret: &Secret, key: &str) -> String {
    data(secret, key).and_then(|octets| std::str::from_utf8(octets).ok()).unwrap_or_default().to_owned()
}
