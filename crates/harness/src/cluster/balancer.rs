//! What a cloud does for a cluster: gives Services of type LoadBalancer an address, and takes released volumes back.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Cluster, network, objects};
use crate::command::{output, say, succeeds};

/// A watch that ended sooner than this is opened again only after a pause of the same length.
const CALM: Duration = Duration::from_secs(1);

/// Does both until the process is killed.
///
/// # Errors
/// Never in an orderly way: a watch that ends is opened again.
pub fn balance(cluster: &Cluster) -> Result<()> {
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut addresses = Addresses::read(cluster.state.join("addresses.json"));
            keep_watching(cluster, "/api/v1/services?watch=1", |event| on_service(cluster, &mut addresses, event));
        });
        scope.spawn(|| {
            keep_watching(cluster, "/api/v1/persistentvolumes?watch=1", |event| on_volume(cluster, event));
        });
    });
    Ok(())
}

/// Follows a watch for ever. A new watch begins with everything there is, so nothing is missed.
fn keep_watching(cluster: &Cluster, path: &str, mut on_event: impl FnMut(&Value) -> Result<()>) {
    loop {
        let start = Instant::now();
        if let Err(error) = watch(cluster, path, &mut on_event) {
            say(&format!("watch of {path}: {error:#}"));
        }
        if start.elapsed() < CALM {
            thread::sleep(CALM);
        }
    }
}

/// Follows one watch to its end. What one event fails with is told, and the next ones are followed all the same.
fn watch(cluster: &Cluster, path: &str, on_event: &mut impl FnMut(&Value) -> Result<()>) -> Result<()> {
    let mut child = cluster.kubectl(&["get", "--raw", path])?.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let stream = child.stdout.take().context("the watch has no output")?;
    for event in serde_json::Deserializer::from_reader(BufReader::new(stream)).into_iter::<Value>() {
        if let Err(error) = on_event(&event?) {
            say(&format!("{error:#}"));
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("kubectl ended: {status}");
    }
    Ok(())
}

/// Gives a Service its address, or takes it away from the node when the Service is gone or of another type.
fn on_service(cluster: &Cluster, addresses: &mut Addresses, event: &Value) -> Result<()> {
    let service = &event["object"];
    let (Some(namespace), Some(name)) =
        (service["metadata"]["namespace"].as_str(), service["metadata"]["name"].as_str())
    else {
        return Ok(());
    };
    let key = format!("{namespace}/{name}");
    let ours = service["spec"]["type"] == "LoadBalancer" && service["spec"].get("loadBalancerClass").is_none();
    if event["type"] == "DELETED" || !ours {
        if let Some(number) = addresses.of(&key) {
            // It may have been taken away already.
            let _ = succeeds(ip(cluster, "del", number)?.stderr(Stdio::null()));
        }
        return Ok(());
    }
    let number = addresses.give(&key)?;
    let address = network::balanced(number);
    // It may be there already.
    let _ = succeeds(ip(cluster, "add", number)?.stderr(Stdio::null()));
    if service["status"]["loadBalancer"]["ingress"][0]["ip"] == address.as_str() {
        return Ok(());
    }
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}).to_string();
    let patch = ["-n", namespace, "patch", "service", name, "--subresource=status", "--type=merge", "-p", &status];
    output(&mut cluster.kubectl(&patch)?).map(drop)
}

/// `ip` with an address of the load balancer on the node.
fn ip(cluster: &Cluster, verb: &str, number: u8) -> Result<std::process::Command> {
    let mut command = cluster.command("ip")?;
    command.args(["addr", verb, &format!("{}/32", network::balanced(number)), "dev", network::NODE_DEVICE]);
    Ok(command)
}

/// Empties a released volume and offers it again.
fn on_volume(cluster: &Cluster, event: &Value) -> Result<()> {
    let released = |volume: &Value| volume["status"]["phase"] == "Released";
    if event["type"] == "DELETED" || !released(&event["object"]) {
        return Ok(());
    }
    let name = event["object"]["metadata"]["name"].as_str().context("a volume without a name")?;
    // The event may be old and the volume in use again; while it is released nobody but us can give it away.
    let volume: Value = serde_json::from_str(&output(&mut cluster.kubectl(&["get", "pv", name, "-o", "json"])?)?)?;
    if !released(&volume) {
        return Ok(());
    }
    let folder = objects::volume_folder(&cluster.state, name);
    if volume["spec"]["local"]["path"].as_str().map(Path::new) != Some(&folder) {
        return Ok(());
    }
    fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    fs::create_dir(&folder)?;
    let patch = json!([{"op": "remove", "path": "/spec/claimRef"}]).to_string();
    output(&mut cluster.kubectl(&["patch", "persistentvolume", name, "--type=json", "-p", &patch])?).map(drop)
}

/// Addresses by Service: a Service that is deleted and made again gets the one it had.
struct Addresses {
    file: PathBuf,
    given: BTreeMap<String, u8>,
}

impl Addresses {
    /// What was given before; nothing when there is no file.
    fn read(file: PathBuf) -> Self {
        let given = fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { file, given }
    }

    /// Number of a Service's address, if it ever had one.
    fn of(&self, service: &str) -> Option<u8> {
        self.given.get(service).copied()
    }

    /// Number of a Service's address; a free one for a new Service.
    fn give(&mut self, service: &str) -> Result<u8> {
        if let Some(number) = self.of(service) {
            return Ok(number);
        }
        let free = network::BALANCED.into_iter().find(|number| !self.given.values().any(|taken| taken == number));
        let number = free.context("all addresses of the load balancer are given")?;
        self.given.insert(service.to_owned(), number);
        fs::write(&self.file, serde_json::to_vec(&self.given)?)?;
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_made_again_gets_the_address_it_had() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("addresses.json");
        let mut addresses = Addresses::read(file.clone());
        let first = addresses.give("default/a").unwrap();
        let second = addresses.give("default/b").unwrap();
        assert_ne!(first, second);
        assert_eq!(Addresses::read(file).give("default/b").unwrap(), second);
    }

    #[test]
    fn there_is_an_end_of_addresses() {
        let folder = tempfile::tempdir().unwrap();
        let mut addresses = Addresses::read(folder.path().join("addresses.json"));
        for number in network::BALANCED {
            addresses.give(&format!("default/{number}")).unwrap();
        }
        assert!(addresses.give("default/one-more").is_err());
    }
}
