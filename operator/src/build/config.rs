//! What the server is told: its configuration file, and the hash of the part that it does not reload.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use commpool_model::config::{
    Authentication, DigestAlgorithm, Drain, Edition, HostPort, Listeners, LogConfig, LogFormat, OfflinePolicy, Outward,
    Peers, Policy, PoolConfig, PostgresStore, PostgresTls, PostgresTlsMode, PresencePolicy, SourceAddress, SqliteStore,
    StoreConfig, TlsFiles,
};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{database, directory, keys::POOL_KEY, metadata};
use crate::crd::database::{ExternalSpec, ExternalTlsMode};
use crate::crd::{Transport, v1alpha1};
use crate::error::Error;
use crate::names::Component;
use crate::observed::{Reach, data};
use crate::validate::{Database, Invalid, TlsSource, ValidatedPool};

/// Folder of all files the server is given.
pub const FOLDER: &str = "/etc/commpool";
/// Key of the Secret, and name of the file in [`FOLDER`].
pub const CONFIG_KEY: &str = "config.yaml";
/// Key of the Secret with the replicator's configuration, and name of its file in [`FOLDER`].
pub const REPLICATOR_KEY: &str = "replicator.yaml";
/// Where the volume is.
pub const DATA_FOLDER: &str = "/data";
/// Port of health, readiness and metrics.
pub const MANAGEMENT_PORT: u16 = 9090;
/// Port that front ends of a pool reach each other at.
pub const PEERS_PORT: u16 = 5070;

/// The port a front end listens on for `transport`; the Service maps the pool's own port to it.
pub fn container_port(transport: Transport) -> u16 {
    match transport {
        Transport::Tls => 5061,
        Transport::Tcp | Transport::Udp => 5060,
    }
}

/// The server's configuration.
///
/// # Errors
/// If the server would refuse it: the field and what mends it.
pub fn server_config(pool: &ValidatedPool, reach: &Reach) -> Result<PoolConfig, Invalid> {
    let folder = PathBuf::from(FOLDER);
    let config = PoolConfig {
        pool: pool.names.pool().to_owned(),
        edition: match pool.spec.edition {
            v1alpha1::Edition::Standard => Edition::Standard,
            v1alpha1::Edition::Enterprise => Edition::Enterprise,
        },
        sip_domains: pool.spec.sip_domains.clone(),
        listeners: listeners(pool),
        outward: outward(pool, reach),
        tls: (pool.tls != TlsSource::NoListener)
            .then(|| TlsFiles { certificate_file: folder.join("tls/tls.crt"), key_file: folder.join("tls/tls.key") }),
        key_file: folder.join("keys").join(POOL_KEY),
        store: store(pool),
        peers: pool.is_enterprise().then(|| peers(pool)),
        directory: pool
            .spec
            .directory_sync
            .as_ref()
            .filter(|_| !pool.is_enterprise())
            .map(|it| directory::section(it, true)),
        drain: drain(pool),
        authentication: authentication(&pool.spec.authentication),
        policy: policy(&pool.spec.policy),
        management: Some(any(MANAGEMENT_PORT)),
        log: LogConfig { format: LogFormat::Json, level: String::new() },
    };
    checked(config, "server")
}

/// The configuration of the replicator that runs beside the servers, if there is one: theirs, and the directory.
///
/// # Errors
/// If the replicator would refuse it: the field and what mends it.
pub fn replicator_config(pool: &ValidatedPool, server: &PoolConfig) -> Result<Option<PoolConfig>, Invalid> {
    let Some(spec) = pool.spec.directory_sync.as_ref().filter(|_| pool.is_enterprise()) else { return Ok(None) };
    let directory = Some(directory::section(spec, false));
    let config = PoolConfig { outward: Outward::default(), directory, ..server.clone() };
    checked(config, "replicator").map(Some)
}

fn checked(config: PoolConfig, by: &str) -> Result<PoolConfig, Invalid> {
    config.checked().map_err(|error| Invalid { field: "spec".into(), problem: format!("the {by} refuses it: {error}") })
}

fn any(port: u16) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, port).into()
}

fn listeners(pool: &ValidatedPool) -> Listeners {
    let mut listeners = Listeners::default();
    for (transport, _) in pool.listeners() {
        let sockets = match transport {
            Transport::Tls => &mut listeners.tls,
            Transport::Tcp => &mut listeners.tcp,
            Transport::Udp => &mut listeners.udp,
        };
        sockets.push(any(container_port(transport)));
    }
    listeners
}

fn outward(pool: &ValidatedPool, reach: &Reach) -> Outward {
    let of = |transport| reach.of(transport).map(|address| HostPort { host: address.host.clone(), port: address.port });
    Outward {
        udp: of(Transport::Udp),
        tcp: of(Transport::Tcp),
        tls: of(Transport::Tls),
        source_address: if pool.sees_clients() { SourceAddress::Trusted } else { SourceAddress::Untrusted },
    }
}

fn store(pool: &ValidatedPool) -> StoreConfig {
    match &pool.database {
        None => StoreConfig { sqlite: Some(SqliteStore { folder: DATA_FOLDER.into() }), postgres: None },
        Some(database) => StoreConfig { sqlite: None, postgres: Some(postgres(pool, database)) },
    }
}

/// Login and password are files, the same for every reader of the configuration; which ones they are, each pod says.
fn postgres(pool: &ValidatedPool, of: &Database) -> PostgresStore {
    let folder = PathBuf::from(FOLDER).join("database");
    let (host, port, database, tls) = match of {
        Database::Embedded { .. } => (
            database::host(pool),
            database::PORT,
            database::NAME.to_owned(),
            PostgresTls { mode: PostgresTlsMode::Off, ca_file: None },
        ),
        Database::External(ExternalSpec { host, port, name, tls, .. }) => {
            let tls = match tls.mode {
                ExternalTlsMode::VerifyFull => {
                    PostgresTls { mode: PostgresTlsMode::VerifyFull, ca_file: Some(folder.join("ca.crt")) }
                }
                ExternalTlsMode::Disable => PostgresTls { mode: PostgresTlsMode::Off, ca_file: None },
            };
            (host.clone(), *port, name.clone(), tls)
        }
    };
    let (user_file, password_file) = (folder.join("username"), folder.join("password"));
    PostgresStore { host, port, database, user_file, password_file, tls }
}

fn peers(pool: &ValidatedPool) -> Peers {
    let folder = PathBuf::from(FOLDER).join("peers");
    Peers {
        listen: any(PEERS_PORT),
        advertise: String::new(),
        server_name: pool.peers_name(),
        certificate_file: folder.join("tls.crt"),
        key_file: folder.join("tls.key"),
        ca_file: folder.join("ca.crt"),
    }
}

fn drain(pool: &ValidatedPool) -> Drain {
    let drain = pool.drain();
    Drain { timeout_seconds: drain.timeout_seconds, flows_per_second: drain.flows_per_second }
}

fn authentication(spec: &v1alpha1::AuthenticationSpec) -> Authentication {
    let digest = spec.digest.iter().map(|algorithm| match algorithm {
        v1alpha1::DigestAlgorithm::Sha256 => DigestAlgorithm::Sha256,
        v1alpha1::DigestAlgorithm::Md5 => DigestAlgorithm::Md5,
    });
    Authentication { digest: digest.collect() }
}

fn policy(spec: &v1alpha1::PolicySpec) -> Policy {
    Policy {
        presence: match spec.presence {
            v1alpha1::PresencePolicy::Domain => PresencePolicy::Domain,
        },
        offline: match spec.offline {
            v1alpha1::OfflinePolicy::Refuse => OfflinePolicy::Refuse,
        },
        max_message_bytes: spec.max_message_bytes,
    }
}

/// The Secret with the configuration files.
///
/// # Errors
/// If it cannot be written as YAML.
pub fn secret(pool: &ValidatedPool, server: &PoolConfig, replicator: Option<&PoolConfig>) -> Result<Secret, Error> {
    let mut files = BTreeMap::from([(CONFIG_KEY.to_owned(), ByteString(yaml(server)?.into_bytes()))]);
    if let Some(config) = replicator {
        files.insert(REPLICATOR_KEY.to_owned(), ByteString(yaml(config)?.into_bytes()));
    }
    Ok(Secret {
        metadata: metadata::owned(pool, pool.names.config(), Component::FrontEnd),
        data: Some(files),
        type_: Some("Opaque".into()),
        ..Secret::default()
    })
}

/// Hash of all that a running server does not take up by itself: the configuration without `outward` and `directory`, and
/// the key.
///
/// # Errors
/// If the configuration cannot be written as YAML.
pub fn restart_hash(config: &PoolConfig, keys: &Secret) -> Result<String, Error> {
    let fixed = PoolConfig { outward: Outward::default(), directory: None, ..config.clone() };
    let mut hash = Sha256::new();
    hash.update(yaml(&fixed)?);
    hash.update([0]);
    hash.update(data(keys, POOL_KEY).unwrap_or_default());
    Ok(super::hex(&hash.finalize(), 16))
}

/// What the resource states is written even where it is the server's default too, which may change.
///
/// Fields that come later do not join: they are written only where a pool makes use of them, since an older server does
/// not know them, and a key that is new to all pools would restart all pools.
const STATED: &[&str] = &["authentication.digest", "policy.presence", "policy.offline", "policy.maxMessageBytes"];

/// The configuration without what is default anyway, apart from [`STATED`].
fn yaml(config: &PoolConfig) -> Result<String, Error> {
    let bare: PoolConfig = serde_json::from_value(json!({"pool": "", "sipDomains": [], "keyFile": "", "store": {}}))?;
    let mut config = serde_json::to_value(config)?;
    strip(&mut config, &serde_json::to_value(bare)?, "");
    serde_yaml::to_string(&config).map_err(|error| Error::Config(error.to_string()))
}

fn strip(value: &mut Value, default: &Value, path: &str) {
    let (Value::Object(value), Value::Object(default)) = (value, default) else { return };
    value.retain(|key, value| {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let same = default.get(key) == Some(value);
        strip(value, default.get(key).unwrap_or(&Value::Null), &path);
        STATED.contains(&path.as_str()) || !same || value.as_object().is_some_and(|below| !below.is_empty())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> PoolConfig {
        let text = "{pool: a, sipDomains: [example.com], keyFile: /k, store: {sqlite: {folder: /d}}, listeners: {tcp: ['0.0.0.0:5060']}}";
        PoolConfig::from_yaml(text).unwrap()
    }

    #[test]
    fn the_server_reads_what_was_written() {
        let mut config = config();
        assert_eq!(PoolConfig::from_yaml(&yaml(&config).unwrap()).unwrap(), config);
        config.outward.source_address = SourceAddress::Untrusted;
        config.policy.max_message_bytes = 4096;
        config.log.format = LogFormat::Json;
        config.authentication.digest = vec![DigestAlgorithm::Md5];
        assert_eq!(PoolConfig::from_yaml(&yaml(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn what_is_default_is_written_only_if_the_resource_states_it() {
        let text = yaml(&config()).unwrap();
        assert!(!text.contains("udp") && !text.contains("edition") && !text.contains("level"), "{text}");
        assert!(text.contains("maxMessageBytes: 65536") && text.contains("- SHA-256"), "{text}");
    }
}
