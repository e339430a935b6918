//! The status of a `CommunicationsPool`: what was seen, never a live counter.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was seen of the pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Version of the server that runs, or is being brought up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Conditions by type; their types and reasons are listed in docs/operations-kubernetes.md.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// The front ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub front_end: Option<FrontEndStatus>,
    /// What a client is told to use, one entry per transport. An address once told stays until another is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub addresses: Vec<PoolAddress>,
    /// What runs of the directory's replicator came to; there only with spec.directorySync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory_sync: Option<DirectorySyncStatus>,
}

/// What runs of the directory's replicator came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DirectorySyncStatus {
    /// When the last run ended after which the pool had the directory's users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Time>,
    /// When the last run ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<Time>,
    /// What the last run came to: the reason of condition DirectorySynced that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_result: Option<String>,
    /// Entries found by the last run that read the directory to its end; figures below are of the same run.
    pub found: u64,
    /// Users added, or found again.
    pub added: u64,
    /// Users whose name, address or card changed.
    pub changed: u64,
    /// Users who may no longer sign in because the directory says so.
    pub disabled: u64,
    /// Users who may no longer sign in because they were not found any more.
    pub missing: u64,
    /// Users removed after their grace.
    pub removed: u64,
    /// Entries that are no user, or not as they say.
    pub conflicts: u64,
    /// The first conflicts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub named_conflicts: Vec<String>,
    /// Whether changes are held because too many users would lose the service; figures are of what would be done.
    pub held: bool,
    /// Digest that lets the held changes through: spec.directorySync.removal.releaseDigest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan_digest: Option<String>,
    /// Why the last run did not succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// The front ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FrontEndStatus {
    /// Front ends there are, ready or not; those that take their leave do not count.
    pub replicas: i32,
    /// Front ends that take clients.
    pub ready_replicas: i32,
    /// Front ends of the current version and configuration.
    pub updated_replicas: i32,
    /// Label selector of their pods.
    pub selector: String,
}

/// An address of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolAddress {
    /// Host name or IP address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Transport.
    pub transport: Transport,
}

/// A transport of SIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// SIP over TLS.
    Tls,
    /// SIP over TCP.
    Tcp,
    /// SIP over UDP.
    Udp,
}

impl Transport {
    /// All transports, in the order in which clients should prefer them.
    pub const ALL: [Self; 3] = [Self::Tls, Self::Tcp, Self::Udp];

    /// Its name in the resource, and of its port.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// The protocol below it, as the Kubernetes API writes it.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Tls | Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}
