//! Rules of the configuration that its types cannot tell.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::{ConfigError, DigestAlgorithm, Edition, HostPort, PoolConfig, PostgresStore, PostgresTlsMode};
use crate::address::canonical_domain;

mod directory;

const MAX_DOMAINS: usize = 32;
const MAX_SOCKETS: usize = 16;
const MAX_LOG_LEVEL: usize = 1024;

impl PoolConfig {
    /// Checks every rule of the fields and brings domains into their canonical form.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn checked(mut self) -> Result<Self, ConfigError> {
        pool_name(&self.pool)?;
        domains(&mut self.sip_domains)?;
        listeners(&self)?;
        outward(&self)?;
        store(&self)?;
        peers(&self)?;
        files(&self)?;
        if let Some(given) = &self.directory {
            given.check(self.edition)?;
        }
        digest(&self.authentication.digest)?;
        within("policy.maxMessageBytes", self.policy.max_message_bytes, 256, 65_536)?;
        within("drain.timeoutSeconds", self.drain.timeout_seconds, 5, 3600)?;
        within("drain.flowsPerSecond", self.drain.flows_per_second, 1, 10_000)?;
        if self.log.level.len() > MAX_LOG_LEVEL || self.log.level.contains(char::is_control) {
            return Err(value("log.level", "is too long or has control characters", "use a filter such as `info`"));
        }
        Ok(self)
    }
}

fn value(field: impl Into<String>, problem: impl Into<String>, mend: impl Into<String>) -> ConfigError {
    ConfigError::Value { field: field.into(), problem: problem.into(), mend: mend.into() }
}

fn pool_name(name: &str) -> Result<(), ConfigError> {
    let allowed = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-';
    if (1..=40).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(value("pool", format!("`{name}` is no pool name"), "use 1–40 characters of a-z, 0-9 and -"))
}

fn domains(domains: &mut [String]) -> Result<(), ConfigError> {
    if !(1..=MAX_DOMAINS).contains(&domains.len()) {
        return Err(value(
            "sipDomains",
            format!("has {} entries", domains.len()),
            "list 1–32 domains, the primary first",
        ));
    }
    let mut seen = BTreeSet::new();
    for (n, domain) in domains.iter_mut().enumerate() {
        let field = || format!("sipDomains[{n}]");
        *domain = canonical_domain(domain)
            .map_err(|error| value(field(), format!("`{domain}`: {error}"), "use a name such as example.com"))?;
        if !seen.insert(domain.as_str()) {
            return Err(value(field(), format!("`{domain}` stands there twice"), "remove one"));
        }
    }
    Ok(())
}

fn listeners(config: &PoolConfig) -> Result<(), ConfigError> {
    let lists = [("udp", &config.listeners.udp), ("tcp", &config.listeners.tcp), ("tls", &config.listeners.tls)];
    if lists.iter().all(|(_, sockets)| sockets.is_empty()) {
        return Err(value("listeners", "there is none", "give at least one address under udp, tcp or tls"));
    }
    // Port 0 is a port of the system's choice: no two of them collide.
    let others = config.management.into_iter().chain(config.peers.as_ref().map(|peers| peers.listen));
    let mut streams: BTreeSet<SocketAddr> = others.filter(|socket| socket.port() != 0).collect();
    let mut datagrams = BTreeSet::new();
    for (name, sockets) in lists {
        if sockets.len() > MAX_SOCKETS {
            return Err(value(format!("listeners.{name}"), "has too many addresses", "list at most 16"));
        }
        let taken = if name == "udp" { &mut datagrams } else { &mut streams };
        for (n, socket) in sockets.iter().enumerate() {
            if socket.port() != 0 && !taken.insert(*socket) {
                let field = format!("listeners.{name}[{n}]");
                return Err(value(field, format!("{socket} is used twice"), "give each listener a port of its own"));
            }
        }
    }
    if config.listeners.shared && config.edition == Edition::Standard {
        let mend = "remove it or set edition: Enterprise";
        return Err(value("listeners.shared", "belongs to Enterprise Edition", mend));
    }
    match (&config.tls, config.listeners.tls.is_empty()) {
        (None, false) => Err(value("tls", "is missing", "give certificateFile and keyFile, or no listeners.tls")),
        _ => Ok(()),
    }
}

fn outward(config: &PoolConfig) -> Result<(), ConfigError> {
    let (outward, listeners) = (&config.outward, &config.listeners);
    let pairs = [
        ("udp", &outward.udp, &listeners.udp),
        ("tcp", &outward.tcp, &listeners.tcp),
        ("tls", &outward.tls, &listeners.tls),
    ];
    for (name, host_port, sockets) in pairs {
        let Some(HostPort { host, port }) = host_port else { continue };
        if sockets.is_empty() {
            let mend = format!("remove it or add listeners.{name}");
            return Err(value(format!("outward.{name}"), "nothing listens there", mend));
        }
        host_and_port(&format!("outward.{name}"), host, *port)?;
    }
    Ok(())
}

fn within(field: &str, number: u32, least: u32, most: u32) -> Result<(), ConfigError> {
    if (least..=most).contains(&number) {
        return Ok(());
    }
    Err(value(field, "is out of bounds", format!("use {least}–{most}")))
}

fn host_and_port(field: &str, host: &str, port: u16) -> Result<(), ConfigError> {
    if host.parse::<IpAddr>().is_err() && canonical_domain(host).is_err() {
        let mend = "use a host name or an IP address (IPv6 without brackets)";
        return Err(value(format!("{field}.host"), format!("`{host}` is no host"), mend));
    }
    if port == 0 { Err(value(format!("{field}.port"), "is 0", "use 1–65535")) } else { Ok(()) }
}

/// Each edition has its store and no other.
fn store(config: &PoolConfig) -> Result<(), ConfigError> {
    let store = &config.store;
    match config.edition {
        Edition::Standard if store.sqlite.is_none() => {
            Err(value("store.sqlite", "is missing", "Standard Edition needs store.sqlite.folder"))
        }
        Edition::Standard if store.postgres.is_some() => {
            Err(value("store.postgres", "belongs to Enterprise Edition", "remove it or set edition: Enterprise"))
        }
        Edition::Enterprise if store.sqlite.is_some() => {
            Err(value("store.sqlite", "belongs to Standard Edition", "remove it or set edition: Standard"))
        }
        Edition::Standard => Ok(()),
        Edition::Enterprise => match &store.postgres {
            Some(postgres) => database(postgres),
            None => Err(value("store.postgres", "is missing", "Enterprise Edition needs its Back-End Database")),
        },
    }
}

fn database(postgres: &PostgresStore) -> Result<(), ConfigError> {
    host_and_port("store.postgres", &postgres.host, postgres.port)?;
    let name = &postgres.database;
    if !(1..=63).contains(&name.len()) || name.contains(char::is_control) {
        return Err(value("store.postgres.database", format!("`{name}` is no name"), "use 1–63 octets"));
    }
    match (postgres.tls.mode, &postgres.tls.ca_file) {
        (PostgresTlsMode::VerifyFull, None) => {
            let mend = "give the CA of the database's certificate, or tls.mode: off on a network of your own";
            Err(value("store.postgres.tls.caFile", "is missing", mend))
        }
        (PostgresTlsMode::Off, Some(_)) => {
            Err(value("store.postgres.tls.caFile", "has no use", "remove it or set tls.mode: verify-full"))
        }
        _ => Ok(()),
    }
}

fn peers(config: &PoolConfig) -> Result<(), ConfigError> {
    let peers = match (config.edition, &config.peers) {
        (Edition::Enterprise, None) => {
            return Err(value("peers", "is missing", "the front ends of Enterprise Edition need links"));
        }
        (Edition::Standard, Some(_)) => {
            return Err(value("peers", "belongs to Enterprise Edition", "remove it or set edition: Enterprise"));
        }
        (_, None) => return Ok(()),
        (_, Some(peers)) => peers,
    };
    let dialled = || peers.advertise.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0);
    if !peers.advertise.is_empty() && !dialled() {
        let mend = "use address:port, [address]:port, or nothing";
        return Err(value("peers.advertise", format!("`{}` cannot be dialled", peers.advertise), mend));
    }
    match canonical_domain(&peers.server_name) {
        Ok(_) => Ok(()),
        Err(error) => {
            let problem = format!("`{}`: {error}", peers.server_name);
            Err(value("peers.serverName", problem, "use a name such as demo-peers.default.svc"))
        }
    }
}

fn files(config: &PoolConfig) -> Result<(), ConfigError> {
    let mut paths: Vec<(&str, &Path)> = vec![("keyFile", &config.key_file)];
    if let Some(sqlite) = &config.store.sqlite {
        paths.push(("store.sqlite.folder", &sqlite.folder));
    }
    if let Some(postgres) = &config.store.postgres {
        let tls = postgres.tls.ca_file.iter().map(|file| ("store.postgres.tls.caFile", file.as_path()));
        let login = [
            ("store.postgres.userFile", postgres.user_file.as_path()),
            ("store.postgres.passwordFile", postgres.password_file.as_path()),
        ];
        paths.extend(login.into_iter().chain(tls));
    }
    if let Some(peers) = &config.peers {
        paths.extend([
            ("peers.certificateFile", peers.certificate_file.as_path()),
            ("peers.keyFile", peers.key_file.as_path()),
            ("peers.caFile", peers.ca_file.as_path()),
        ]);
    }
    if let Some(tls) = &config.tls {
        paths
            .extend([("tls.certificateFile", tls.certificate_file.as_path()), ("tls.keyFile", tls.key_file.as_path())]);
    }
    match paths.iter().find(|(_, path)| path.as_os_str().is_empty()) {
        Some((field, _)) => Err(value(*field, "is empty", "give a path")),
        None => Ok(()),
    }
}

fn digest(algorithms: &[DigestAlgorithm]) -> Result<(), ConfigError> {
    let mend = "list SHA-256, MD5, or SHA-256 and then MD5";
    if algorithms.is_empty() {
        return Err(value("authentication.digest", "is empty", mend));
    }
    // The order of the type is by strength, so one comparison finds repeats and a weaker one in front.
    match algorithms.windows(2).all(|pair| pair.first() < pair.last()) {
        true => Ok(()),
        false => Err(value("authentication.digest", "repeats one or has the weaker first", mend)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        Authentication, Drain, Listeners, LogConfig, Outward, Peers, Policy, PostgresTls, SqliteStore, StoreConfig,
        TlsFiles,
    };

    fn good() -> PoolConfig {
        PoolConfig {
            pool: "demo".to_owned(),
            edition: Edition::Standard,
            sip_domains: vec!["example.com".to_owned()],
            listeners: Listeners { udp: vec!["127.0.0.1:5060".parse().unwrap()], ..Listeners::default() },
            outward: Outward::default(),
            tls: None,
            key_file: "/data/key".into(),
            store: StoreConfig { sqlite: Some(SqliteStore { folder: "/data".into() }), postgres: None },
            peers: None,
            directory: None,
            drain: Drain::default(),
            authentication: Authentication::default(),
            policy: Policy::default(),
            management: None,
            log: LogConfig::default(),
        }
    }

    fn enterprise() -> PoolConfig {
        let postgres = PostgresStore {
            host: "demo-database".to_owned(),
            port: PostgresStore::default_port(),
            database: "commpool".to_owned(),
            user_file: "/db/user".into(),
            password_file: "/db/password".into(),
            tls: PostgresTls { mode: PostgresTlsMode::VerifyFull, ca_file: Some("/db/ca".into()) },
        };
        let peers = Peers {
            listen: "0.0.0.0:5070".parse().unwrap(),
            advertise: String::new(),
            server_name: "demo-peers.default.svc".to_owned(),
            certificate_file: "/peers/tls.crt".into(),
            key_file: "/peers/tls.key".into(),
            ca_file: "/peers/ca.crt".into(),
        };
        let store = StoreConfig { sqlite: None, postgres: Some(postgres) };
        PoolConfig { edition: Edition::Enterprise, store, peers: Some(peers), ..good() }
    }

    fn field(change: impl FnOnce(&mut PoolConfig)) -> Option<String> {
        field_of(good(), change)
    }

    fn field_of(mut config: PoolConfig, change: impl FnOnce(&mut PoolConfig)) -> Option<String> {
        change(&mut config);
        config.checked().err().map(|error| match error {
            ConfigError::Value { field, mend, .. } if !mend.is_empty() => field,
            other => panic!("{other}"),
        })
    }

    #[test]
    fn every_rule_names_its_field() {
        let socket = || "127.0.0.1:5060".parse().unwrap();
        let outside = |host: &str, port| Some(HostPort { host: host.to_owned(), port });
        let named = |expected: &str, change: fn(&mut PoolConfig)| {
            assert_eq!(field(change).as_deref(), Some(expected));
        };
        assert_eq!(field(|_| ()), None);
        named("pool", |c| c.pool = String::new());
        named("pool", |c| c.pool = "Demo".to_owned());
        named("pool", |c| c.pool = "a".repeat(41));
        named("sipDomains", |c| c.sip_domains.clear());
        named("sipDomains", |c| c.sip_domains = (0..33).map(|n| format!("d{n}.example")).collect());
        named("sipDomains[1]", |c| c.sip_domains.push("EXAMPLE.com".to_owned()));
        named("sipDomains[0]", |c| c.sip_domains = vec!["exa mple".to_owned()]);
        named("listeners", |c| c.listeners = Listeners::default());
        named("listeners.udp", |c| c.listeners.udp = (1..18).map(|p| SocketAddr::from(([127, 0, 0, 1], p))).collect());
        assert_eq!(field(|c| c.listeners.udp.push(socket())).as_deref(), Some("listeners.udp[1]"));
        assert_eq!(field(|c| c.listeners.tcp.push(socket())), None, "UDP and TCP share a port number");
        let both = |c: &mut PoolConfig| (c.listeners.tcp, c.management) = (vec![socket()], Some(socket()));
        assert_eq!(field(both).as_deref(), Some("listeners.tcp[0]"));
        let free = |c: &mut PoolConfig| c.listeners.udp = vec!["127.0.0.1:0".parse().unwrap(); 2];
        assert_eq!(field(free), None, "ports of the system's choice do not collide");
        assert_eq!(field(|c| c.listeners.tls.push(socket())).as_deref(), Some("tls"));
        assert_eq!(field(|c| c.listeners.shared = true).as_deref(), Some("listeners.shared"));
        assert_eq!(field_of(enterprise(), |c| c.listeners.shared = true), None);
        assert_eq!(field(|c| c.outward.tcp = outside("a.example", 1)).as_deref(), Some("outward.tcp"));
        assert_eq!(field(|c| c.outward.udp = outside("[::1]", 1)).as_deref(), Some("outward.udp.host"));
        assert_eq!(field(|c| c.outward.udp = outside("::1", 0)).as_deref(), Some("outward.udp.port"));
        assert_eq!(field(|c| c.outward.udp = outside("::1", 5060)), None);
        named("store.sqlite", |c| c.store.sqlite = None);
        named("store.sqlite.folder", |c| c.store.sqlite = Some(SqliteStore { folder: "".into() }));
        named("keyFile", |c| c.key_file = "".into());
        named("tls.keyFile", |c| c.tls = Some(TlsFiles { certificate_file: "a".into(), key_file: "".into() }));
        named("authentication.digest", |c| c.authentication.digest = vec![]);
        named("authentication.digest", |c| c.authentication.digest = vec![DigestAlgorithm::Md5; 2]);
        named("authentication.digest", |c| c.authentication.digest.reverse());
        named("policy.maxMessageBytes", |c| c.policy.max_message_bytes = 255);
        named("policy.maxMessageBytes", |c| c.policy.max_message_bytes = 65_537);
        named("log.level", |c| c.log.level = "info\n".to_owned());
        named("drain.timeoutSeconds", |c| c.drain.timeout_seconds = 4);
        named("drain.flowsPerSecond", |c| c.drain.flows_per_second = 0);
        named("peers", |c| c.peers = enterprise().peers);
        named("store.postgres", |c| c.store.postgres = enterprise().store.postgres);
    }

    #[test]
    fn every_rule_of_enterprise_names_its_field() {
        let named = |expected: &str, change: fn(&mut PoolConfig)| {
            assert_eq!(field_of(enterprise(), change).as_deref(), Some(expected));
        };
        fn postgres(config: &mut PoolConfig) -> &mut PostgresStore {
            config.store.postgres.as_mut().unwrap()
        }
        fn links(config: &mut PoolConfig) -> &mut Peers {
            config.peers.as_mut().unwrap()
        }
        assert_eq!(field_of(enterprise(), |_| ()), None);
        named("store.postgres", |c| c.store.postgres = None);
        named("store.sqlite", |c| c.store.sqlite = good().store.sqlite);
        named("store.sqlite", |c| c.edition = Edition::Standard);
        named("store.postgres.host", |c| postgres(c).host = "[::1]".to_owned());
        named("store.postgres.port", |c| postgres(c).port = 0);
        named("store.postgres.database", |c| postgres(c).database = String::new());
        named("store.postgres.userFile", |c| postgres(c).user_file = "".into());
        named("store.postgres.passwordFile", |c| postgres(c).password_file = "".into());
        named("store.postgres.tls.caFile", |c| postgres(c).tls.ca_file = None);
        named("store.postgres.tls.caFile", |c| postgres(c).tls.ca_file = Some("".into()));
        named("store.postgres.tls.caFile", |c| postgres(c).tls.mode = PostgresTlsMode::Off);
        let off = PostgresTls { mode: PostgresTlsMode::Off, ca_file: None };
        assert_eq!(field_of(enterprise(), |c| postgres(c).tls = off), None);
        named("peers", |c| c.peers = None);
        named("peers.advertise", |c| links(c).advertise = "10.0.0.1".to_owned());
        named("peers.advertise", |c| links(c).advertise = "10.0.0.1:0".to_owned());
        assert_eq!(field_of(enterprise(), |c| links(c).advertise = "[fd00::1]:5070".to_owned()), None);
        named("peers.serverName", |c| links(c).server_name = "demo peers".to_owned());
        named("peers.certificateFile", |c| links(c).certificate_file = "".into());
        named("peers.keyFile", |c| links(c).key_file = "".into());
        named("peers.caFile", |c| links(c).ca_file = "".into());
        named("listeners.tcp[0]", |c| c.listeners.tcp = vec!["0.0.0.0:5070".parse().unwrap()]);
    }
}
