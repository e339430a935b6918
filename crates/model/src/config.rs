//! The one typed configuration: written by the operator or an administrator, read by server and replicator.

mod check;
mod directory;
mod yaml;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::directory::{Directory, Enabled, Ldap, LdapServer, Mapping, Removal, Schedule};

/// Everything a front end is told. YAML, camelCase keys, unknown keys are errors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolConfig {
    /// Name of the pool; 1–40 characters of `a-z0-9-`.
    pub pool: String,
    /// What kind of pool this front end belongs to.
    #[serde(default)]
    pub edition: Edition,
    /// Domains the pool serves, 1–32; the first is the primary and the realm of last resort.
    pub sip_domains: Vec<String>,
    /// Socket addresses to listen on.
    #[serde(default)]
    pub listeners: Listeners,
    /// How clients reach the pool, if that differs from the sockets' own addresses.
    #[serde(default)]
    pub outward: Outward,
    /// Certificate towards clients; required when there is a TLS listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFiles>,
    /// File with the pool's secret key: at least 32 octets, or 64 hexadecimal digits.
    pub key_file: PathBuf,
    /// Where the data is.
    pub store: StoreConfig,
    /// Links between the front ends of a pool; required in Enterprise Edition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<Peers>,
    /// The directory that users come from; absent: users are added by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<Directory>,
    /// How a front end takes its leave.
    #[serde(default, skip_serializing_if = "Drain::is_default")]
    pub drain: Drain,
    /// How users prove who they are.
    #[serde(default)]
    pub authentication: Authentication,
    /// What is allowed.
    #[serde(default)]
    pub policy: Policy,
    /// Health, readiness and metrics by HTTP; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management: Option<SocketAddr>,
    /// Logs.
    #[serde(default)]
    pub log: LogConfig,
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Not YAML, an unknown or missing key, or a value of the wrong kind.
    #[error("{field}: {problem}")]
    Form {
        /// Path of the field, `configuration` for the whole document.
        field: String,
        /// What is wrong, with the place in the text where that is known.
        problem: String,
    },
    /// A value that is not allowed.
    #[error("{field}: {problem}; {mend}")]
    Value {
        /// Path of the field.
        field: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        mend: String,
    },
}

/// Kind of pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Edition {
    /// One front end with an embedded store.
    #[default]
    Standard,
    /// Many front ends with one Back-End Database.
    Enterprise,
}

/// Socket addresses per transport; an empty list switches the transport off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Listeners {
    /// SIP over UDP (RFC 3261 §18).
    pub udp: Vec<SocketAddr>,
    /// SIP over TCP.
    pub tcp: Vec<SocketAddr>,
    /// SIP over TLS.
    pub tls: Vec<SocketAddr>,
    /// Whether several front ends on one machine listen on these addresses at once (SO_REUSEPORT): the kernel deals
    /// clients out to them. Enterprise Edition only; without it a second server is told that its port is taken.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

/// The pool as clients see it. Reloaded while the server runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Outward {
    /// Host and port that clients use over UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<HostPort>,
    /// Host and port that clients use over TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<HostPort>,
    /// Host and port that clients use over TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<HostPort>,
    /// Whether the source address seen is the client's own.
    pub source_address: SourceAddress,
}

/// A host name or address (IPv6 without brackets) and a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostPort {
    /// Host name or IP address.
    pub host: String,
    /// Port, 1–65535.
    pub port: u16,
}

/// Whether nonces and limits may rely on the source address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SourceAddress {
    /// The client's own address reaches the server.
    #[default]
    Trusted,
    /// A node or proxy stands between and replaces it.
    Untrusted,
}

/// PEM files of the certificate towards clients; watched and reloaded by content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificate chain, leaf first.
    pub certificate_file: PathBuf,
    /// Private key.
    pub key_file: PathBuf,
}

/// Which store, and where; exactly one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StoreConfig {
    /// SQLite in a folder of its own (Standard Edition).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlite: Option<SqliteStore>,
    /// PostgreSQL (Enterprise Edition).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresStore>,
}

/// The embedded store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SqliteStore {
    /// Folder of the database file; created with mode 0700 when absent.
    pub folder: PathBuf,
}

/// The Back-End Database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PostgresStore {
    /// Host name or IP address (IPv6 without brackets); with TLS the name in the server's certificate.
    pub host: String,
    /// Port, 1–65535.
    #[serde(default = "PostgresStore::default_port")]
    pub port: u16,
    /// Name of the database.
    pub database: String,
    /// File with the name of the login; read anew at each connection.
    pub user_file: PathBuf,
    /// File with its password; read anew at each connection.
    pub password_file: PathBuf,
    /// How the connection is protected.
    #[serde(default)]
    pub tls: PostgresTls,
}

impl PostgresStore {
    /// The port that PostgreSQL listens on unless told otherwise.
    pub const fn default_port() -> u16 {
        5432
    }
}

/// TLS towards the Back-End Database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PostgresTls {
    /// Whether and how.
    pub mode: PostgresTlsMode,
    /// PEM file of the CA that signed the database's certificate; required unless the mode is `off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// Whether the connection to the Back-End Database is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PostgresTlsMode {
    /// Only with a certificate of the CA given and for the host's name.
    #[default]
    VerifyFull,
    /// Not at all: for one machine, or a network that nobody else reaches.
    Off,
}

/// Links between the front ends of one pool: mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Peers {
    /// Socket address to listen on.
    pub listen: SocketAddr,
    /// Address and port that other front ends dial; empty: the environment's `POD_IP` and the port of `listen`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub advertise: String,
    /// The one name that every front end's certificate carries, and that both sides of a link check.
    pub server_name: String,
    /// Certificate chain, leaf first, for server and client.
    pub certificate_file: PathBuf,
    /// Private key.
    pub key_file: PathBuf,
    /// CA that signs the certificates of front ends, and of nobody else.
    pub ca_file: PathBuf,
}

/// How a front end takes its leave: flows are closed at an even rate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Drain {
    /// It has ended after so many seconds; 5–3600.
    pub timeout_seconds: u32,
    /// Flows closed in one second, more where they would not all be closed in time; 1–10000.
    pub flows_per_second: u32,
}

impl Drain {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { timeout_seconds: 60, flows_per_second: 50 }
    }
}

/// Digest settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Authentication {
    /// Algorithms offered, strongest first; 1–2, no repeats.
    pub digest: Vec<DigestAlgorithm>,
}

impl Default for Authentication {
    fn default() -> Self {
        Self { digest: vec![DigestAlgorithm::Sha256, DigestAlgorithm::Md5] }
    }
}

/// A Digest algorithm (RFC 8760).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DigestAlgorithm {
    /// SHA-256.
    #[serde(rename = "SHA-256")]
    Sha256,
    /// MD5, for clients that know nothing better.
    #[serde(rename = "MD5")]
    Md5,
}

/// Rules of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Policy {
    /// Who sees whom without an ACE that says otherwise.
    pub presence: PresencePolicy,
    /// What happens to a message for somebody who is not signed in.
    pub offline: OfflinePolicy,
    /// Largest body of a MESSAGE, octets; 256–65536.
    pub max_message_bytes: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { presence: PresencePolicy::Domain, offline: OfflinePolicy::Refuse, max_message_bytes: 65_536 }
    }
}

/// Default rights where no ACE matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PresencePolicy {
    /// Members of the pool's domains see each other.
    #[default]
    Domain,
}

/// What happens to a message for somebody who is not signed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OfflinePolicy {
    /// The sender is told at once.
    #[default]
    Refuse,
}

/// Log output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LogConfig {
    /// Form of a line.
    pub format: LogFormat,
    /// Filter in the syntax of `tracing_subscriber::EnvFilter`; empty: `info`.
    pub level: String,
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}
