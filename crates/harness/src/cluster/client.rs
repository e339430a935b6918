//! A client's own network beside a cluster: an address outside the pods' range, a route, and names for the pools.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Cluster, network};
use crate::command::output;
use crate::netns::Namespace;

/// A network namespace routed to a cluster. It stays until the cluster ends or [`Client::remove`] is called.
#[derive(Debug)]
pub struct Client {
    namespace: Namespace,
    hosts: PathBuf,
    resolver: PathBuf,
    address: String,
}

impl Client {
    /// The client's network, made if need be.
    pub(super) fn open(cluster: &Cluster, name: &str) -> Result<Self> {
        let fits = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-';
        if name.is_empty() || name.len() > super::NAME_LENGTH || !name.bytes().all(fits) {
            bail!("`{name}` cannot name a client: use 1 to {} characters of a-z, 0-9 and -", super::NAME_LENGTH);
        }
        let node = Namespace::attach(&cluster.namespace()).with_context(|| cluster.not_up())?;
        let folder = cluster.state.join("clients");
        fs::create_dir_all(&folder)?;
        // Clients may be made side by side by tests.
        let lock = fs::File::create(folder.join("lock"))?;
        lock.lock()?;
        let full_name = format!("{}.{name}", cluster.namespace());
        let number = number(&folder, name)?;
        let (gateway, address) = network::client(number);
        let namespace = if Namespace::exists(&full_name) {
            Namespace::attach(&full_name)?
        } else {
            let mut namespace = Namespace::create(&full_name)?;
            let (near, far) = (format!("{address}/30"), format!("{gateway}/30"));
            namespace.connect(("eth0", &near), &node, (&format!("client{number}"), &far))?;
            namespace.ip(&["route", "add", "default", "via", &gateway])?;
            namespace.keep();
            namespace
        };
        let (hosts, resolver) = (folder.join(format!("{name}.hosts")), folder.join(format!("{name}.resolv")));
        // Without a name server every name that is not in the hosts file is refused at once.
        fs::write(&resolver, "# no name server\n")?;
        fs::write(&hosts, "127.0.0.1 localhost\n")?;
        let client = Self { namespace, hosts, resolver, address };
        client.refresh_names(cluster)?;
        Ok(client)
    }

    /// Writes the client's `/etc/hosts` anew: every domain and host name of every pool with the pool's address. Programs
    /// that run in the client's network see the change.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub fn refresh_names(&self, cluster: &Cluster) -> Result<()> {
        let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
        for (name, address) in pool_names(cluster)? {
            text.push_str(&format!("{address} {name}\n"));
        }
        // Written in place: the file is mounted over /etc/hosts, and a new file would not be seen there.
        fs::write(&self.hosts, text).with_context(|| format!("cannot write {}", self.hosts.display()))
    }

    /// The client's `/etc/hosts`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn names(&self) -> Result<String> {
        fs::read_to_string(&self.hosts).with_context(|| format!("cannot read {}", self.hosts.display()))
    }

    /// A command that runs `program` as on the client's machine: its network and its names.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let files = [(self.hosts.clone(), "/etc/hosts"), (self.resolver.clone(), "/etc/resolv.conf")];
        self.namespace.command_with_files(&files, program)
    }

    /// Words to put in front of a command so that it runs as [`Client::command`] would.
    #[must_use]
    pub fn prefix(&self) -> Vec<String> {
        let command = self.command("env");
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy().into_owned()).collect()
    }

    /// The client's address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its network namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Ends the client's network.
    ///
    /// # Errors
    /// When the namespace cannot be removed.
    pub fn remove(self) -> Result<()> {
        self.namespace.remove()
    }
}

/// Number of a client, the same whenever it is asked for: kept in one file per name.
fn number(folder: &std::path::Path, name: &str) -> Result<u8> {
    let mut taken: BTreeMap<u8, String> = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "number") {
            let owner = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            taken.insert(fs::read_to_string(&path)?.trim().parse()?, owner);
        }
    }
    if let Some((number, _)) = taken.iter().find(|(_, owner)| *owner == name) {
        return Ok(*number);
    }
    let free = (0..network::CLIENTS).find(|number| !taken.contains_key(number));
    let number = free.with_context(|| format!("a cluster has at most {} clients", network::CLIENTS))?;
    fs::write(folder.join(format!("{name}.number")), number.to_string())?;
    Ok(number)
}

/// Names by which clients look for the pools, with the pools' addresses.
fn pool_names(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    let kinds = output(&mut cluster.kubectl(&["get", "crd", "-o", "name"])?)?;
    if !kinds.contains("communicationspools.commpool.dev") {
        return Ok(Vec::new());
    }
    let get =
        |arguments: &[&str]| -> Result<Value> { Ok(serde_json::from_str(&output(&mut cluster.kubectl(arguments)?)?)?) };
    let pools = get(&["get", "communicationspools", "-A", "-o", "json"])?;
    let services = get(&["get", "services", "-A", "-o", "json"])?;
    Ok(names_of(&pools, &services))
}

/// Pairs of (name, address) from the pools and the Services of their names.
fn names_of(pools: &Value, services: &Value) -> Vec<(String, String)> {
    let empty = Vec::new();
    let items = |list: &'_ Value| -> Vec<Value> { list["items"].as_array().unwrap_or(&empty).clone() };
    let services = items(services);
    let mut names = Vec::new();
    for pool in items(pools) {
        let key = |object: &Value| (object["metadata"]["namespace"].clone(), object["metadata"]["name"].clone());
        let Some(service) = services.iter().find(|service| key(service) == key(&pool)) else { continue };
        let balanced = &service["status"]["loadBalancer"]["ingress"][0]["ip"];
        let Some(address) = balanced.as_str().or_else(|| service["spec"]["clusterIP"].as_str()) else { continue };
        let domains = pool["spec"]["sipDomains"].as_array().unwrap_or(&empty).iter();
        let hostname = std::iter::once(&pool["spec"]["service"]["hostname"]);
        names.extend(
            domains.chain(hostname).filter_map(Value::as_str).map(|name| (name.to_owned(), address.to_owned())),
        );
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_and_do_not_repeat() {
        let folder = tempfile::tempdir().unwrap();
        let first = number(folder.path(), "alice").unwrap();
        let second = number(folder.path(), "bob").unwrap();
        assert_ne!(first, second);
        assert_eq!(number(folder.path(), "alice").unwrap(), first);
    }

    #[test]
    fn domains_and_host_names_lead_to_the_pools_address() {
        let meta = serde_json::json!({"namespace": "a", "name": "main"});
        let pools = serde_json::json!({"items": [
            {"metadata": meta, "spec": {"sipDomains": ["example.com", "example.org"], "service": {"hostname": "sip.example.com"}}},
            {"metadata": {"namespace": "b", "name": "main"}, "spec": {"sipDomains": ["example.net"]}},
        ]});
        let services = serde_json::json!({"items": [
            {"metadata": meta, "spec": {"clusterIP": "10.0.0.1"},
             "status": {"loadBalancer": {"ingress": [{"ip": "198.18.0.100"}]}}},
            {"metadata": {"namespace": "b", "name": "main"}, "spec": {"clusterIP": "10.0.0.2"}},
        ]});
        let names = names_of(&pools, &services);
        let of = |name: &str| names.iter().find(|pair| pair.0 == name).map(|pair| pair.1.as_str());
        assert_eq!(of("example.org"), Some("198.18.0.100"));
        assert_eq!(of("sip.example.com"), Some("198.18.0.100"));
        assert_eq!(of("example.net"), Some("10.0.0.2"));
    }
}
