//! The Back-End Database of a `CommunicationsPool`: one of our own, or one that somebody else keeps.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::quantity::{Amounts, Quantity};

/// The Back-End Database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DatabaseSpec {
    /// A PostgreSQL of the pool's own, one pod on one volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedded: Option<EmbeddedSpec>,
    /// A PostgreSQL (15 or newer) that somebody else keeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalSpec>,
}

/// A PostgreSQL of the pool's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EmbeddedSpec {
    /// The volume with all users and lists. It is kept when the pool is deleted, and so is the Secret that opens it.
    pub storage: DatabaseStorageSpec,
    /// CPU and memory of the database's container. A change restarts the database.
    pub resources: DatabaseResourcesSpec,
}

/// The database's volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DatabaseStorageSpec {
    /// Size in octets, at least 2Gi; it can only grow. Default: 20Gi.
    pub size: Quantity,
    /// Storage class. Default: the cluster's default class. Cannot change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,
}

impl Default for DatabaseStorageSpec {
    fn default() -> Self {
        Self { size: Quantity::new("20Gi"), storage_class_name: None }
    }
}

/// CPU and memory of the database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DatabaseResourcesSpec {
    /// What the scheduler reserves.
    pub requests: DatabaseRequests,
    /// What the container may not exceed.
    pub limits: DatabaseLimits,
}

impl DatabaseResourcesSpec {
    /// All amounts together.
    pub fn amounts(&self) -> Amounts<'_> {
        let Self { requests, limits } = self;
        Amounts {
            cpu: &requests.cpu,
            memory: &requests.memory,
            cpu_limit: limits.cpu.as_ref(),
            memory_limit: &limits.memory,
        }
    }
}

/// What the scheduler reserves for the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DatabaseRequests {
    /// CPUs. Default: 100m.
    pub cpu: Quantity,
    /// Octets of memory. Default: 256Mi.
    pub memory: Quantity,
}

impl Default for DatabaseRequests {
    fn default() -> Self {
        Self { cpu: Quantity::new("100m"), memory: Quantity::new("256Mi") }
    }
}

/// What the database may not exceed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DatabaseLimits {
    /// CPUs. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// Octets of memory, at least 256Mi; a quarter of it is the database's cache. Default: 1Gi.
    pub memory: Quantity,
}

impl Default for DatabaseLimits {
    fn default() -> Self {
        Self { cpu: None, memory: Quantity::new("1Gi") }
    }
}

/// A PostgreSQL that somebody else keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalSpec {
    /// Host name or IP address; with TLS the name in the database's certificate.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// Port, 1–65535. Default: 5432.
    #[serde(default = "ExternalSpec::default_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Name of the database. Default: commpool.
    #[serde(default = "ExternalSpec::default_name")]
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Secret of the namespace with the logins: keys owner-username and owner-password (migrations), server-username
    /// and server-password (front ends).
    #[schemars(length(min = 1, max = 253))]
    pub credentials_secret: String,
    /// How connections to the database are protected: caSecret with a Secret's name, or mode disable.
    pub tls: ExternalTlsSpec,
}

impl ExternalSpec {
    fn default_port() -> u16 {
        5432
    }

    fn default_name() -> String {
        "commpool".into()
    }
}

/// TLS towards an external database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalTlsSpec {
    /// verify-full (default): only with a certificate for the host's name by the CA of caSecret. disable: not at all,
    /// for a network that nobody else reaches.
    pub mode: ExternalTlsMode,
    /// Secret of the namespace with key ca.crt, the CA of the database's certificate. Required with verify-full.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub ca_secret: Option<String>,
}

/// Whether connections are protected, in the words of PostgreSQL's own clients. (`off` would be a boolean in YAML.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ExternalTlsMode {
    /// Encrypted, to the host that was meant.
    #[default]
    VerifyFull,
    /// Neither.
    Disable,
}
