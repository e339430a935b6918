//! What the engine needs of the configuration, and the names by which clients reach the pool.

use std::net::{IpAddr, SocketAddr};

use commpool_model::config::{HostPort, Outward, PoolConfig, SourceAddress};
use commpool_sip::digest::Algorithm;
use commpool_store::ops::Transport;

use crate::engine::flow::{Flow, FlowInfo};

/// Settings of a running engine. Only `outward` and `certificate_names` change while it runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Domains served, lower case; the first is the primary.
    pub domains: Vec<String>,
    /// Digest algorithms offered, strongest first.
    pub digest: Vec<Algorithm>,
    /// Default rights where no ACE matches.
    pub presence: commpool_model::config::PresencePolicy,
    /// Largest body of a MESSAGE, octets.
    pub max_message: usize,
    /// The pool as clients see it.
    pub outward: Outward,
    /// Names in our certificate, lower case.
    pub certificate_names: Vec<String>,
    /// Ports of our listeners: a Contact at one of our names with one of them would be a loop.
    pub ports: Vec<u16>,
    /// Addresses of our listeners that are no wildcard.
    pub addresses: Vec<IpAddr>,
}

impl Settings {
    /// Settings from the configuration and the sockets actually bound.
    pub fn new(config: &PoolConfig, bound: &[SocketAddr]) -> Self {
        let digest = config.authentication.digest.iter().map(|a| algorithm(*a)).collect();
        Self {
            domains: config.sip_domains.iter().map(|d| d.to_ascii_lowercase()).collect(),
            digest,
            presence: config.policy.presence,
            max_message: config.policy.max_message_bytes as usize,
            outward: config.outward.clone(),
            certificate_names: Vec::new(),
            ports: bound.iter().map(SocketAddr::port).collect(),
            addresses: bound.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()).collect(),
        }
    }

    /// Whether a host names a domain we serve.
    pub fn serves(&self, host: &str) -> bool {
        self.domains.iter().any(|d| d.eq_ignore_ascii_case(host))
    }

    /// The primary domain.
    pub fn primary(&self) -> &str {
        self.domains.first().map_or("", String::as_str)
    }

    /// The realm for a host of a From URI: that domain if it is ours, else the primary.
    pub fn realm(&self, host: &str) -> &str {
        self.domains.iter().find(|d| d.eq_ignore_ascii_case(host)).map_or(self.primary(), String::as_str)
    }

    /// The client's address for nonces, where it can be trusted.
    pub fn nonce_address(&self, remote: SocketAddr) -> Option<IpAddr> {
        (self.outward.source_address == SourceAddress::Trusted).then(|| remote.ip().to_canonical())
    }

    /// Whether `host[:port]` of a URI leads to the pool itself.
    pub fn is_self(&self, host: &str, port: Option<u16>) -> bool {
        let outward = self.outward_all();
        let host_is_ours = self.serves(host)
            || outward.iter().any(|o| o.host.eq_ignore_ascii_case(host))
            || bare_ip(host).is_some_and(|ip| self.addresses.contains(&ip));
        let port_is_ours = port.is_none_or(|p| self.ports.contains(&p) || outward.iter().any(|o| o.port == p));
        host_is_ours && port_is_ours
    }

    fn outward_all(&self) -> Vec<&HostPort> {
        [&self.outward.udp, &self.outward.tcp, &self.outward.tls].into_iter().flatten().collect()
    }

    /// How the client of a flow reaches the pool: the name it asked for in TLS, else the configured one, else the
    /// socket's own address.
    pub fn reached_by(&self, info: &FlowInfo) -> PoolName {
        let outward = match info.transport {
            Transport::Udp => &self.outward.udp,
            Transport::Tcp => &self.outward.tcp,
            Transport::Tls => &self.outward.tls,
        };
        let asked = info.server_name.as_ref().filter(|n| self.certificate_names.contains(n));
        let port = outward.as_ref().map_or(info.local.port(), |o| o.port);
        let host = match (asked, outward) {
            (Some(name), _) => name.clone(),
            (None, Some(o)) => bracketed(&o.host),
            (None, None) => bracketed(&info.local.ip().to_canonical().to_string()),
        };
        PoolName { host, port, transport: info.transport }
    }
}

/// Host, port and transport by which one client reaches the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolName {
    host: String,
    port: u16,
    transport: Transport,
}

impl PoolName {
    /// Via value for a request to that client.
    pub fn via(&self, branch: &str) -> String {
        let transport = match self.transport {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
        };
        format!("SIP/2.0/{transport} {}:{};rport;branch={branch}", self.host, self.port)
    }

    /// Contact URI of the pool towards that client.
    pub fn contact(&self) -> String {
        let transport = match self.transport {
            Transport::Udp => "",
            Transport::Tcp => ";transport=tcp",
            Transport::Tls => ";transport=tls",
        };
        format!("sip:{}:{}{transport}", self.host, self.port)
    }
}

fn algorithm(a: commpool_model::config::DigestAlgorithm) -> Algorithm {
    match a {
        commpool_model::config::DigestAlgorithm::Sha256 => Algorithm::Sha256,
        commpool_model::config::DigestAlgorithm::Md5 => Algorithm::Md5,
    }
}

fn bare_ip(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

/// Source facts of a flow, whether or not it has a state.
pub fn info_of(flow: Flow, known: Option<&FlowInfo>) -> Option<FlowInfo> {
    match (flow, known) {
        (_, Some(info)) => Some(info.clone()),
        (Flow::Udp { local, remote, .. }, None) => {
            Some(FlowInfo { transport: Transport::Udp, local, remote, server_name: None })
        }
        (Flow::Stream(_), None) => None,
    }
}
