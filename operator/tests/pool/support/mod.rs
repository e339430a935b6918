//! A whole world in the process: API server, the rest of the cluster, clock, operator.

pub(crate) mod api;
pub(crate) mod cluster;
mod records;
mod refusals;
mod request;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use commpool_model::directory::Outcome;
use commpool_operator::controller::{self, Context, PoolMeta, reconcile};
use commpool_operator::metrics::Metrics;
use commpool_operator::report::{Ask, AskError};
use commpool_operator::validate::Environment;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::core::ObjectMeta;
use serde_json::{Value, json};

use api::{FakeApi, Key, Seen};
use cluster::Cluster;

pub(crate) const NAMESPACE: &str = "chat";
pub(crate) const POOL: &str = "demo";

/// Objects by place.
pub(crate) type Objects = BTreeMap<Key, Value>;

/// The world.
pub(crate) struct World {
    pub(crate) api: FakeApi,
    pub(crate) cluster: Cluster,
    now: Arc<Mutex<Timestamp>>,
    server: Arc<Mutex<Server>>,
    context: Arc<Context>,
}

/// The server of Standard Edition, as it answers at its management port.
#[derive(Debug)]
pub(crate) struct Server {
    /// What its last run came to.
    pub(crate) answer: Result<Option<Outcome>, AskError>,
    /// How often it was asked.
    pub(crate) asked: usize,
}

impl World {
    /// A cluster with a default storage class and one pool with this spec.
    pub(crate) fn with(spec: Value) -> Self {
        let world = Self::empty();
        world.create_pool(spec);
        world
    }

    pub(crate) fn empty() -> Self {
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        let api = FakeApi::new(start);
        let now = Arc::new(Mutex::new(start));
        let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "csi.example.com",
            "allowVolumeExpansion": true,
            "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}});
        api.put("storage.k8s.io", "storageclasses", class);
        let server = Arc::new(Mutex::new(Server { answer: Ok(None), asked: 0 }));
        let context = context(&api, &now, &server);
        Self { api, cluster: Cluster::default(), now, server, context }
    }

    /// Another one that is the same so far, with an operator that remembers nothing.
    pub(crate) fn fork(&self) -> Self {
        let api = self.api.fork();
        let now = Arc::new(Mutex::new(*self.now.lock().unwrap()));
        let answer = self.server().answer.clone();
        let server = Arc::new(Mutex::new(Server { answer, asked: 0 }));
        let context = context(&api, &now, &server);
        Self { api, cluster: self.cluster, now, server, context }
    }

    pub(crate) fn create_pool(&self, spec: Value) {
        self.api.put(
            "commpool.dev",
            "communicationspools",
            json!({
                "apiVersion": "commpool.dev/v1alpha1", "kind": "CommunicationsPool",
                "metadata": {"name": POOL, "namespace": NAMESPACE}, "spec": spec,
            }),
        );
    }

    pub(crate) fn set_spec(&self, spec: Value) {
        self.api.edit("communicationspools", POOL, |pool| pool["spec"] = spec);
    }

    pub(crate) fn pool(&self) -> Value {
        self.api.get("communicationspools", POOL)
    }

    /// Status, reason and message of a condition; `None` if it is absent.
    pub(crate) fn condition(&self, type_: &str) -> Option<(String, String, String)> {
        let pool = self.pool();
        let condition = pool["status"]["conditions"]
            .as_array()?
            .iter()
            .find(|condition| condition["type"] == json!(type_))?
            .clone();
        let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
        Some((text("status"), text("reason"), text("message")))
    }

    pub(crate) fn reason(&self, type_: &str) -> Option<String> {
        self.condition(type_).map(|(_, reason, _)| reason)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(|(status, ..)| status == "True")
    }

    pub(crate) fn advance(&self, by: Duration) {
        let mut now = self.now.lock().unwrap();
        *now += SignedDuration::try_from(by).unwrap();
        self.api.set_time(*now);
    }

    /// A new process of the operator: nothing is remembered.
    pub(crate) fn restart_operator(&mut self) {
        self.context = context(&self.api, &self.now, &self.server);
    }

    /// The server of Standard Edition.
    pub(crate) fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().expect("no test panics while it holds the server")
    }

    pub(crate) fn context(&self) -> Arc<Context> {
        self.context.clone()
    }

    /// One pass; the requests it sent.
    pub(crate) async fn pass(&self) -> Vec<Seen> {
        self.api.take_log();
        let metadata =
            ObjectMeta { name: Some(POOL.into()), namespace: Some(NAMESPACE.into()), ..ObjectMeta::default() };
        let seen = PoolMeta { types: None, metadata, _phantom: std::marker::PhantomData };
        let _ = reconcile(Arc::new(seen), self.context.clone()).await;
        self.api.take_log()
    }

    /// Passes, with the cluster at work between them, until nothing is written; how many writes it took.
    pub(crate) async fn settle(&self) -> usize {
        let mut writes = 0;
        for _ in 0..40 {
            let wrote = self.pass().await.iter().filter(|seen| seen.is_write()).count();
            let before = self.api.all();
            self.cluster.step(&self.api);
            if wrote == 0 && self.api.all() == before {
                return writes;
            }
            writes += wrote;
        }
        panic!("no rest after 40 passes: {:#}", self.pool()["status"]);
    }

    /// All objects but events and what they run, without what differs from run to run.
    pub(crate) fn objects(&self) -> Objects {
        let all =
            self.api.all().into_iter().filter(|(key, object)| key.resource != "events" && !is_passing(key, object));
        all.map(|(key, object)| (nameless(&key), comparable(&key, object))).collect()
    }

    /// The migration Jobs that are wanted or still at work.
    pub(crate) fn migrations(&self) -> Vec<Value> {
        let jobs =
            self.api.all().into_iter().filter(|(key, object)| key.resource == "jobs" && !is_passing(key, object));
        jobs.map(|(_, job)| job).collect()
    }
}

/// Pods of workloads that name them by chance, and Jobs that were told to end.
fn is_passing(key: &Key, object: &Value) -> bool {
    match key.resource.as_str() {
        "pods" => object["metadata"]["ownerReferences"][0]["kind"] != "StatefulSet",
        "jobs" => object["spec"].get("ttlSecondsAfterFinished").is_some(),
        _ => false,
    }
}

/// A migration's name has a hash of what was made by chance.
fn nameless(key: &Key) -> Key {
    Key { name: plain(&key.name), ..key.clone() }
}

fn plain(text: &str) -> String {
    const BEGIN: &str = "demo-migrate-";
    let mut parts = text.split(BEGIN);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + BEGIN + part.get(10..).unwrap_or_default())
}

fn context(api: &FakeApi, now: &Arc<Mutex<Timestamp>>, server: &Arc<Mutex<Server>>) -> Arc<Context> {
    let (now, server) = (now.clone(), server.clone());
    let clock = Arc::new(move || *now.lock().unwrap());
    let environment = Environment { version: "0.1.0".into() };
    let ask: Ask = Arc::new(move |address| {
        assert_eq!(address.to_string(), "10.0.0.9:9090");
        let mut server = server.lock().unwrap();
        server.asked += 1;
        futures::FutureExt::boxed(std::future::ready(server.answer.clone()))
    });
    let world = controller::World { environment, clock, ask };
    Arc::new(Context::new(api.client(), world, Arc::new(Metrics::new("0.1.0")), Some("test".into())))
}

/// Fails with the names of the objects that differ, and how.
#[track_caller]
pub(crate) fn assert_same(left: &Objects, right: &Objects, what: &str) {
    let keys: std::collections::BTreeSet<&Key> = left.keys().chain(right.keys()).collect();
    let mut differences = String::new();
    for key in keys.into_iter().filter(|key| left.get(key) != right.get(key)) {
        let text = |objects: &Objects| objects.get(key).map_or_else(String::new, |object| format!("{object:#}"));
        let (left, right) = (text(left), text(right));
        let lines = |from: &str, of: &str, sign: &str| -> String {
            from.lines().filter(|line| !of.contains(line)).map(|line| format!("  {sign} {line}\n")).collect()
        };
        differences +=
            &format!("{} {}\n{}{}", key.resource, key.name, lines(&left, &right, "-"), lines(&right, &left, "+"));
    }
    assert!(differences.is_empty(), "{what}:\n{differences}");
}

/// Identities, versions and times differ from run to run, and so do keys and what hangs on them.
fn comparable(key: &Key, mut object: Value) -> Value {
    blank(&mut object, "");
    object = serde_json::from_str(&plain(&object.to_string())).expect("JSON as before");
    if key.resource == "secrets" && key.name != format!("{POOL}-config") {
        for value in object["data"].as_object_mut().into_iter().flat_map(|data| data.values_mut()) {
            *value = json!("random");
        }
    }
    object
}

fn blank(value: &mut Value, field: &str) {
    const VARYING: [&str; 13] = [
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "observedGeneration",
        "lastTransitionTime",
        "managedFields",
        "commpool.dev/config-hash",
        "commpool.dev/credentials-hash",
        "batch.kubernetes.io/controller-uid",
        "controller-revision-hash",
        "currentRevision",
        "updateRevision",
    ];
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !VARYING.contains(&key.as_str()) && key != "nodePort");
            map.iter_mut().for_each(|(key, value)| blank(value, key));
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| blank(item, ""));
            // the order of items that have keys is the server's
            if items.first().is_some_and(|item| commpool_operator::diff::keyed_list(field, item).is_some()) {
                items.sort_by_key(Value::to_string);
            }
        }
        _ => {}
    }
}

/// The shortest spec.
pub(crate) fn minimal() -> Value {
    json!({"sipDomains": ["example.com"]})
}

/// The shortest spec of Enterprise Edition.
pub(crate) fn enterprise() -> Value {
    json!({"sipDomains": ["example.com"], "edition": "Enterprise"})
}

/// The shortest spec of Enterprise Edition with some fields more.
pub(crate) fn enterprise_with(more: Value) -> Value {
    with(enterprise(), more)
}

/// The shortest directory.
pub(crate) fn directory() -> Value {
    let ldap = json!({"urls": ["ldaps://dc1.example.com"], "baseDN": "DC=example,DC=com", "bindSecret": "ldap-bind",
        "caSecret": "ldap-ca"});
    json!({"ldap": ldap})
}

/// The shortest spec with some fields more.
pub(crate) fn spec(more: Value) -> Value {
    with(minimal(), more)
}

fn with(mut spec: Value, more: Value) -> Value {
    for (key, value) in more.as_object().expect("fields") {
        spec[key] = value.clone();
    }
    spec
}
