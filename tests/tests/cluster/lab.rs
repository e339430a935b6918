//! A pool of a test's own, in a namespace and with a domain of its own, and the clients around it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use commpool_harness::Workspace;
use commpool_harness::cluster::{Client, Cluster};
use commpool_harness::command::{output, output_of, succeeds};
use commpool_harness::skip::not_run;
use commpool_harness::wait;
use commpool_tests::client::Identity;
use commpool_tests::link::{Target, Transport};
use commpool_tests::linphone::{Account, Linphone};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Time that `kubectl apply` to Ready may take with the images present.
pub(crate) const TO_READY: Duration = Duration::from_secs(60);

/// The same for a pool of Enterprise Edition with a database of its own.
pub(crate) const ENTERPRISE_TO_READY: Duration = Duration::from_secs(120);

/// The cluster that was brought up for the tests; none where none was.
///
/// # Panics
/// Under CI without a cluster.
pub(crate) fn cluster() -> Option<Cluster> {
    let Some(name) = std::env::var("COMMPOOL_CLUSTER").ok().filter(|name| !name.is_empty()) else {
        not_run("tests of the cluster", "COMMPOOL_CLUSTER names none; `cargo xtask test --only cluster` brings one up");
        return None;
    };
    Some(Cluster::new(&Workspace::find().unwrap(), &name).unwrap())
}

const fn port(transport: Transport) -> u16 {
    if matches!(transport, Transport::Tls) { 5061 } else { 5060 }
}

/// A pool in a namespace of its own.
pub(crate) struct Pool {
    cluster: Cluster,
    /// Namespace, also the pool's name and the label of its domain.
    pub(crate) name: String,
    folder: TempDir,
}

impl Pool {
    /// Makes the namespace, under the strictest Pod Security; the pool is not applied yet.
    pub(crate) fn prepare(cluster: Cluster, name: &str) -> Result<Self> {
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        let pool = Self { cluster, name: name.to_owned(), folder: tempfile::tempdir()? };
        pool.apply(&namespace)?;
        Ok(pool)
    }

    /// The domain of the pool's users.
    pub(crate) fn domain(&self) -> String {
        format!("{}.example", self.name)
    }

    /// Address of record of a user.
    pub(crate) fn aor(&self, user: &str) -> String {
        format!("sip:{user}@{}", self.domain())
    }

    /// The pool as a resource, with more fields of `spec`.
    pub(crate) fn resource(&self, more: &Value) -> Value {
        let mut spec = json!({"sipDomains": [self.domain()]});
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        let metadata = json!({"name": self.name, "namespace": self.name});
        json!({"apiVersion": "commpool.dev/v1alpha1", "kind": "CommunicationsPool", "metadata": metadata, "spec": spec})
    }

    /// Applies an object to the pool's namespace; unknown fields are refused.
    pub(crate) fn apply(&self, object: &Value) -> Result<()> {
        let apply = ["apply", "--validate=strict", "-f", "-"];
        output_of(&mut self.cluster.kubectl(&apply)?, object.to_string().as_bytes()).map(drop)
    }

    /// Applies the pool, waits until it is ready, and gives how long that took.
    pub(crate) fn start(&self, more: &Value) -> Result<Duration> {
        let start = Instant::now();
        self.apply(&self.resource(more))?;
        self.ready(TO_READY)?;
        Ok(start.elapsed())
    }

    /// Waits until the pool is ready.
    pub(crate) fn ready(&self, limit: Duration) -> Result<()> {
        self.until("Ready", limit, |pool| condition(pool, "Ready").is_some_and(|ready| ready["status"] == "True"))
            .map(drop)
    }

    /// Waits until the pool looks as wanted, and gives it.
    pub(crate) fn until(&self, what: &str, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        self.until_object("communicationspool", &self.name, what, limit, wanted)
    }

    /// Waits until an object of the pool's namespace looks as wanted, and gives it.
    pub(crate) fn until_object(
        &self,
        kind: &str,
        name: &str,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = Value::Null;
        wait::until(&format!("{kind} {name}: {what}"), limit, || {
            last = self.get(kind, name).unwrap_or(Value::Null);
            Ok(wanted(&last).then(|| last.clone()))
        })
        .with_context(|| format!("{kind} {name} is {last:#}"))
    }

    /// An object of the pool's namespace.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&["get", kind, name, "-o", "json"])?)?)
    }

    /// What kubectl says in the pool's namespace.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        output(self.cluster.kubectl(&["-n", &self.name])?.args(arguments))
    }

    /// What the server's own program says in one of the pool's front ends.
    pub(crate) fn server(&self, arguments: &[&str]) -> Result<String> {
        let front_ends = ["-l", "app.kubernetes.io/component=front-end", "--field-selector=status.phase=Running"];
        let pods = self.kubectl(&[&["get", "pods", "-o", "name"][..], &front_ends].concat())?;
        let pod = pods.lines().next().context("no front end runs")?.to_owned();
        self.kubectl(&[&["exec", &pod, "--", "/commpool-server"][..], arguments].concat())
    }

    /// What the server's own program says in JSON, one object a line.
    pub(crate) fn server_json(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let said = self.server(&[arguments, &["--json"]].concat())?;
        said.lines().map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))).collect()
    }

    /// Front ends that serve, as the database has them.
    pub(crate) fn front_ends(&self) -> Result<Vec<u64>> {
        let all = self.server_json(&["pool", "status"])?;
        let serving = all.iter().filter(|one| one["state"] == "serving");
        serving.map(|one| one["frontEnd"].as_u64().context("a front end without number")).collect()
    }

    /// Front end of each user's one connected device, as the database has them.
    pub(crate) fn places(&self) -> Result<BTreeMap<String, u64>> {
        let mut places = BTreeMap::new();
        for row in self.server_json(&["endpoints", "list"])? {
            let (Some(address), Some(front_end)) = (row["address"].as_str(), row["frontEnd"].as_u64()) else {
                bail!("a row without address or front end: {row}");
            };
            if row["lostSeconds"].is_null() {
                let before = places.insert(format!("sip:{address}"), front_end);
                ensure!(before.is_none(), "{address} has two devices");
            }
        }
        Ok(places)
    }

    /// Where a client on a machine of its own finds the pool.
    pub(crate) fn target(&self, machine: &Client, transport: Transport) -> Result<Target> {
        let service = self.get("service", &self.name)?;
        let vip = service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().context("the VIP has no address")?;
        Ok(Target {
            transport,
            address: SocketAddr::new(vip.parse()?, port(transport)),
            server_name: self.domain(),
            ca: Some(self.ca()?),
            network: Some(machine.namespace().path()),
        })
    }

    /// Adds a user with a password of the server's making.
    pub(crate) fn add_user(&self, user: &str) -> Result<Identity> {
        let said = self.server(&["user", "add", user])?;
        let password = said.rsplit_once("password ").map(|(_, password)| password.trim().to_owned());
        let password = password.with_context(|| format!("no password in: {said}"))?;
        Ok(Identity { user: user.to_owned(), password, domain: self.domain() })
    }

    /// The authority that clients of the pool trust, as a file.
    pub(crate) fn ca(&self) -> Result<PathBuf> {
        let file = self.folder.path().join("ca.crt");
        let secret = format!("{}-tls", self.name);
        let encoded = self.kubectl(&["get", "secret", &secret, "-o", r"jsonpath={.data.ca\.crt}"])?;
        let decoded = output_of(std::process::Command::new("base64").arg("-d"), encoded.as_bytes())?;
        std::fs::write(&file, decoded + "\n")?;
        Ok(file)
    }

    /// A client's own machine.
    pub(crate) fn machine(&self, name: &str) -> Result<Client> {
        self.cluster.client(&format!("{}-{name}", self.name))
    }

    /// A Linphone on a machine of its own, set up by what an administrator would say: domain, transport, authority.
    pub(crate) async fn phone(&self, identity: &Identity, transport: Transport) -> Result<Linphone> {
        let machine = self.machine(&identity.user)?;
        if transport != Transport::Udp {
            self.leads_here(&machine, transport)?;
        }
        let account = Account {
            identity: identity.clone(),
            server: format!("{}:{}", self.domain(), port(transport)),
            transport,
            ca: (transport == Transport::Tls).then(|| self.ca()).transpose()?,
            hosts: None,
            folder: self.folder.path().join(format!("{}-{transport}", identity.user)),
        };
        Linphone::start(&account, &machine.prefix()).await
    }

    /// Waits until the VIP lets a machine in: node and load balancer follow a Service a moment after it has its address,
    /// and a phone that is refused tries again only after a minute.
    fn leads_here(&self, machine: &Client, transport: Transport) -> Result<()> {
        let open = format!("exec 3<>/dev/tcp/{}/{}", self.domain(), port(transport));
        wait::until("the VIP that lets clients in", TO_READY, || {
            Ok(succeeds(machine.command("bash").args(["-c", &open])).then_some(()))
        })
    }

    /// Removes the namespace with everything in it.
    pub(crate) fn finish(self) -> Result<()> {
        ensure!(!self.name.is_empty(), "a pool has a name");
        output(&mut self.cluster.kubectl(&["delete", "namespace", &self.name, "--wait=false"])?).map(drop)
    }
}

/// Whether a pool of Enterprise Edition is ready with so many front ends and no others.
pub(crate) fn ready_with(replicas: u64) -> impl Fn(&Value) -> bool {
    move |pool| {
        let is_ready = condition(pool, "Ready").is_some_and(|ready| ready["status"] == "True");
        let front_end = &pool["status"]["frontEnd"];
        is_ready && front_end["readyReplicas"] == replicas && front_end["replicas"] == replicas
    }
}

/// A condition of a pool or a pod.
pub(crate) fn condition<'a>(pool: &'a Value, kind: &str) -> Option<&'a Value> {
    pool["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}
