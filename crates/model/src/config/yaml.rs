//! The configuration as YAML text.

use super::{ConfigError, PoolConfig};

/// Longest configuration read, octets.
const MAX_LENGTH: usize = 1 << 20;

impl PoolConfig {
    /// Reads and checks a configuration; domains come out in their canonical form.
    ///
    /// # Errors
    /// The first thing that is wrong, with the path of its field and what to do.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        if text.len() > MAX_LENGTH {
            return Err(form(None, "is longer than 1 MiB"));
        }
        let yaml = serde_yaml::Deserializer::from_str(text);
        let config: Self = serde_path_to_error::deserialize(yaml).map_err(|error| {
            let path = error.path().to_string();
            let problem = error.into_inner().to_string();
            form(Some(&path), problem.strip_prefix(&format!("{path}: ")).unwrap_or(&problem))
        })?;
        config.checked()
    }

    /// Writes the configuration; [`PoolConfig::from_yaml`] reads it back.
    ///
    /// # Errors
    /// A path is not UTF-8.
    pub fn to_yaml(&self) -> Result<String, ConfigError> {
        serde_yaml::to_string(self).map_err(|error| form(None, &error.to_string()))
    }
}

fn form(path: Option<&str>, problem: &str) -> ConfigError {
    let field = path.filter(|path| !matches!(*path, "" | "." | "?")).unwrap_or("configuration");
    ConfigError::Form { field: field.to_owned(), problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DigestAlgorithm, Edition, HostPort, PostgresTlsMode, PresencePolicy, SourceAddress, TlsFiles};

    const MINIMAL: &str = "
pool: demo
sipDomains: [Example.COM]
listeners: {udp: ['127.0.0.1:5060']}
keyFile: /data/key
store: {sqlite: {folder: /data}}
";

    const ENTERPRISE: &str = "
  postgres:
    host: demo-database
    database: commpool
    userFile: /database/username
    passwordFile: /database/password
    tls: {mode: off}
edition: Enterprise
peers:
  listen: 0.0.0.0:5070
  serverName: demo-peers.default.svc
  certificateFile: /peers/tls.crt
  keyFile: /peers/tls.key
  caFile: /peers/ca.crt
drain: {timeoutSeconds: 90}
";

    fn refused(change: impl FnOnce(&str) -> String) -> String {
        PoolConfig::from_yaml(&change(MINIMAL)).unwrap_err().to_string()
    }

    #[test]
    fn minimal_has_the_defaults() {
        let config = PoolConfig::from_yaml(MINIMAL).unwrap();
        assert_eq!(config.sip_domains, ["example.com"]);
        assert_eq!(config.authentication.digest, [DigestAlgorithm::Sha256, DigestAlgorithm::Md5]);
        assert_eq!((config.policy.presence, config.policy.max_message_bytes), (PresencePolicy::Domain, 65_536));
        assert_eq!(
            (config.management, config.tls, config.outward.source_address),
            (None, None, SourceAddress::Trusted)
        );
    }

    #[test]
    fn written_and_read_back() {
        let mut config = PoolConfig::from_yaml(MINIMAL).unwrap();
        config.listeners.tls = vec!["[::1]:5061".parse().unwrap()];
        config.tls = Some(TlsFiles { certificate_file: "/tls/tls.crt".into(), key_file: "/tls/tls.key".into() });
        config.outward.tls = Some(HostPort { host: "fe80::1".to_owned(), port: 5061 });
        config.outward.source_address = SourceAddress::Untrusted;
        config.management = Some("127.0.0.1:9090".parse().unwrap());
        assert_eq!(PoolConfig::from_yaml(&config.to_yaml().unwrap()).unwrap(), config);
    }

    #[test]
    fn enterprise_as_an_operator_writes_it() {
        let text = MINIMAL.replace("{sqlite: {folder: /data}}", ENTERPRISE);
        let config = PoolConfig::from_yaml(&text).unwrap();
        let postgres = config.store.postgres.as_ref().unwrap();
        assert_eq!(
            (config.edition, postgres.port, postgres.tls.mode),
            (Edition::Enterprise, 5432, PostgresTlsMode::Off)
        );
        let peers = config.peers.as_ref().unwrap();
        assert_eq!((peers.listen.port(), peers.advertise.as_str()), (5070, ""));
        assert_eq!((config.drain.timeout_seconds, config.drain.flows_per_second), (90, 50));
        assert_eq!(PoolConfig::from_yaml(&config.to_yaml().unwrap()).unwrap(), config);
        let open = PoolConfig::from_yaml(&text.replace("tls: {mode: off}", "")).unwrap_err().to_string();
        assert!(open.starts_with("store.postgres.tls.caFile: is missing"), "{open}");
    }

    #[test]
    fn form_errors_name_the_field() {
        assert!(refused(|text| format!("{text}colour: red\n")).contains("unknown field `colour`"));
        let inner = refused(|text| text.replace("folder: /data", "folder: /data, mode: 7"));
        assert!(inner.starts_with("store.sqlite") && inner.contains("unknown field `mode`"), "{inner}");
        assert!(refused(|text| text.replace("keyFile: /data/key", "")).contains("missing field `keyFile`"));
        let listener = refused(|text| text.replace("127.0.0.1:5060", "nonsense"));
        assert!(listener.starts_with("listeners.udp[0]: "), "{listener}");
        let edition = refused(|text| format!("{text}edition: Premium\n"));
        assert!(edition.starts_with("edition: ") && edition.contains("Standard"), "{edition}");
        assert!(refused(|_| String::new()).starts_with("configuration: "));
        assert!(refused(|_| "listeners: [".to_owned()).contains("line 1"));
        assert!(refused(|_| "x".repeat(MAX_LENGTH + 1)).contains("1 MiB"));
    }
}
