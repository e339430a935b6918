//! `commpool.dev/v1alpha1`: the spec of a `CommunicationsPool`.
//!
//! Only what is reconciled has a field. Defaults of the schema are the `Default`s here; rules over several fields stand
//! in [`super::rules`].

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::database::DatabaseSpec;
use super::directory::DirectorySyncSpec;
use super::front_end::FrontEndSpec;
use super::status::PoolStatus;

/// What the user asks for.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "commpool.dev",
    version = "v1alpha1",
    kind = "CommunicationsPool",
    namespaced,
    status = "PoolStatus",
    derive = "PartialEq",
    shortname = "cpool",
    category = "communications",
    scale(
        spec_replicas_path = ".spec.frontEnd.replicas",
        status_replicas_path = ".status.frontEnd.replicas",
        label_selector_path = ".status.frontEnd.selector"
    ),
    doc = "A pool of front ends for presence and instant messaging, reached at one address."
)]
#[serde(rename_all = "camelCase")]
pub struct PoolSpec {
    /// Kind of pool; it cannot change. Standard (default): one self-contained front end with an embedded store on a
    /// volume. Enterprise: many front ends and one Back-End Database.
    #[serde(default)]
    pub edition: Edition,
    /// Version of the server to run, a tag of its image. Default: the operator's own version at the pool's creation,
    /// kept in status.version; a newer operator alone restarts nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub version: Option<String>,
    /// SIP domains the pool serves, 1–32, lower case; users are NAME@DOMAIN. The first is the primary and cannot change.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 253)))]
    pub sip_domains: Vec<String>,
    /// Where the images come from.
    #[serde(default)]
    pub image: ImageSpec,
    /// The front ends: how many, resources, volume, placement.
    #[serde(default)]
    pub front_end: FrontEndSpec,
    /// How clients reach the pool.
    #[serde(default)]
    pub service: ServiceSpec,
    /// Certificate towards clients: exactly one of selfManaged (default) and secretName.
    #[serde(default)]
    pub tls: TlsSpec,
    /// How users prove who they are.
    #[serde(default)]
    pub authentication: AuthenticationSpec,
    /// What is allowed in the pool.
    #[serde(default)]
    pub policy: PolicySpec,
    /// The Back-End Database of Enterprise Edition: exactly one of embedded and external. Default: embedded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseSpec>,
    /// Users from a directory: Active Directory or any other LDAP server. Default: users are added by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory_sync: Option<DirectorySyncSpec>,
    /// Switches of day-to-day operation.
    #[serde(default)]
    pub operations: OperationsSpec,
}

/// Kind of pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Edition {
    /// One front end, embedded store.
    #[default]
    Standard,
    /// Many front ends, one Back-End Database.
    Enterprise,
}

/// Where the images come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageSpec {
    /// Registry and path in front of commpool-server, commpool-database and commpool-replicator, such as
    /// registry.example.com/chat. Default: localhost, for images loaded into the nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub registry: Option<String>,
    /// When a node fetches the image: Always, IfNotPresent (default) or Never.
    pub pull_policy: PullPolicy,
    /// Names of Secrets with the registry's credentials, at most 8. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 253)))]
    pub pull_secrets: Vec<String>,
}

/// When a node fetches an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// When the node has none of that name.
    #[default]
    IfNotPresent,
    /// Never.
    Never,
}

impl PullPolicy {
    /// The name the Kubernetes API knows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// How clients reach the pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// Type of the Service: LoadBalancer (default), NodePort (demands hostname) or ClusterIP.
    #[serde(rename = "type")]
    pub type_: ServiceType,
    /// Ports of the pool's address, one per transport; a transport without port is off. Default: tls 5061.
    pub listeners: ListenersSpec,
    /// Local (default): clients' addresses stay visible, and a node without front end takes none. Cluster: every node
    /// takes clients, and their addresses are replaced. Without effect on a ClusterIP.
    pub external_traffic_policy: TrafficPolicy,
    /// Implementation of load balancers to use. Default: the cluster's. Cannot change while the type is LoadBalancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub load_balancer_class: Option<String>,
    /// Networks (CIDR) from which clients may come, at most 64. Default: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 49)))]
    pub load_balancer_source_ranges: Vec<String>,
    /// Annotations for the Service, at most 32. Default: none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    pub annotations: BTreeMap<String, String>,
    /// Public name by which clients reach the pool. Default: the address of the Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub hostname: Option<String>,
}

/// Type of the Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// An address of a load balancer.
    #[default]
    LoadBalancer,
    /// A port of every node.
    NodePort,
    /// An address inside the cluster.
    #[serde(rename = "ClusterIP")]
    ClusterIp,
}

impl ServiceType {
    /// The name the Kubernetes API knows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LoadBalancer => "LoadBalancer",
            Self::NodePort => "NodePort",
            Self::ClusterIp => "ClusterIP",
        }
    }
}

/// Whether a node passes clients on to other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TrafficPolicy {
    /// Only to front ends of its own.
    #[default]
    Local,
    /// To all front ends, from an address of the node.
    Cluster,
}

impl TrafficPolicy {
    /// The name the Kubernetes API knows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "Local",
            Self::Cluster => "Cluster",
        }
    }
}

/// Ports of the pool's address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenersSpec {
    /// Port for SIP over TLS, 1–65535. Default: off where listeners are given; 5061 where they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub tls: Option<u16>,
    /// Port for SIP over TCP, 1–65535, unencrypted. Default: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub tcp: Option<u16>,
    /// Port for SIP over UDP, 1–65535, unencrypted. Default: off. Demands externalTrafficPolicy Local.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub udp: Option<u16>,
}

impl Default for ListenersSpec {
    fn default() -> Self {
        Self { tls: Some(5061), tcp: None, udp: None }
    }
}

/// Certificate towards clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsSpec {
    /// The operator runs a certificate authority for the pool and renews the certificate in time. Clients are given
    /// key ca.crt of Secret POOL-tls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_managed: Option<SelfManagedSpec>,
    /// Secret of the namespace with keys tls.crt (chain, leaf first) and tls.key, kept up to date by somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
}

impl Default for TlsSpec {
    fn default() -> Self {
        Self { self_managed: Some(SelfManagedSpec {}), secret_name: None }
    }
}

/// A certificate authority of the pool's own; nothing to set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SelfManagedSpec {}

/// How users prove who they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthenticationSpec {
    /// Digest algorithms offered, strongest first. Default: SHA-256, MD5. MD5 alone for pools of old clients.
    #[schemars(length(min = 1, max = 2))]
    pub digest: Vec<DigestAlgorithm>,
}

impl Default for AuthenticationSpec {
    fn default() -> Self {
        Self { digest: vec![DigestAlgorithm::Sha256, DigestAlgorithm::Md5] }
    }
}

/// A Digest algorithm (RFC 8760).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DigestAlgorithm {
    /// SHA-256.
    #[serde(rename = "SHA-256")]
    Sha256,
    /// MD5.
    #[serde(rename = "MD5")]
    Md5,
}

/// What is allowed in the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicySpec {
    /// A message for somebody who is not signed in. Refuse (default): its sender is told at once.
    pub offline: OfflinePolicy,
    /// Who sees whom unless a user's list says otherwise. Domain (default): members of the pool's domains.
    pub presence: PresencePolicy,
    /// Largest body of a message in octets, 256–65536. Default: 65536.
    #[schemars(range(min = 256, max = 65536))]
    pub max_message_bytes: u32,
}

impl Default for PolicySpec {
    fn default() -> Self {
        Self { offline: OfflinePolicy::Refuse, presence: PresencePolicy::Domain, max_message_bytes: 65_536 }
    }
}

/// What happens to a message for somebody who is not signed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OfflinePolicy {
    /// The sender is told at once.
    #[default]
    Refuse,
}

/// Who sees whom by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PresencePolicy {
    /// Members of the pool's domains see each other.
    #[default]
    Domain,
}

/// Switches of day-to-day operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OperationsSpec {
    /// While true the operator changes nothing but the status. Default: false.
    pub paused: bool,
}
