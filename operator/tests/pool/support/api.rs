//! An API server in the process: objects with versions, server-side apply, watches, and a log of every request.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::records::{Records, Writer, recorded};
use super::refusals::{Refusal, refusal};
use super::request::{Selector, Target, pairs, shown};

/// Everybody but the operator and the cluster's own parts.
const STRANGER: &str = "stranger";

/// Where an object is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// A request that came in, as roles see it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) verb: &'static str,
    pub(crate) group: String,
    /// With the subresource behind a slash.
    pub(crate) resource: String,
    pub(crate) name: String,
}

impl Seen {
    pub(crate) fn is_write(&self) -> bool {
        matches!(self.verb, "create" | "patch" | "delete")
    }
}

#[derive(Clone)]
struct Change {
    version: u64,
    key: Key,
    before: Option<Value>,
    after: Option<Value>,
}

#[derive(Clone, Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    version: u64,
    changes: Vec<Change>,
    log: Vec<Seen>,
    writes_left: Option<usize>,
    deaf_to: BTreeSet<String>,
    refusals: BTreeMap<(String, String), (u16, Value)>,
    now: Timestamp,
}

/// The API server; clones share one state.
#[derive(Clone)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

impl FakeApi {
    pub(crate) fn new(now: Timestamp) -> Self {
        let state = State { now, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), changed: watch::channel(0).0 }
    }

    /// Another one with the same objects.
    pub(crate) fn fork(&self) -> Self {
        let state = self.state().clone();
        let version = state.version;
        Self { state: Arc::new(Mutex::new(state)), changed: watch::channel(version).0 }
    }

    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        Client::new(
            tower::service_fn(move |request| {
                let api = api.clone();
                async move { Ok::<_, Infallible>(api.answer(request).await) }
            }),
            "chat",
        )
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the state")
    }

    /// Sets the clock for creation times.
    pub(crate) fn set_time(&self, now: Timestamp) {
        self.state().now = now;
    }

    /// The clock for creation times.
    pub(crate) fn time(&self) -> Timestamp {
        self.state().now
    }

    /// After `writes` more writes every request fails.
    pub(crate) fn break_after(&self, writes: Option<usize>) {
        self.state().writes_left = writes;
    }

    /// Watches of `resource` get no more events.
    pub(crate) fn lose_events_of(&self, resource: &str) {
        self.state().deaf_to.insert(resource.to_owned());
    }

    /// Requests with `verb` on `resource` are answered by this status from now on.
    pub(crate) fn refuse(&self, verb: &str, resource: &str, code: u16, status: Value) {
        self.state().refusals.insert((verb.to_owned(), resource.to_owned()), (code, status));
    }

    pub(crate) fn stop_refusing(&self) {
        self.state().refusals.clear();
    }

    /// All requests since the last call.
    pub(crate) fn take_log(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state().log)
    }

    pub(crate) fn all(&self) -> BTreeMap<Key, Value> {
        self.state().objects.clone()
    }

    pub(crate) fn find(&self, resource: &str, name: &str) -> Option<Value> {
        let state = self.state();
        let mut found = state.objects.iter().filter(|(key, _)| key.resource == resource && key.name == name);
        found.next().map(|(_, object)| object.clone())
    }

    pub(crate) fn get(&self, resource: &str, name: &str) -> Value {
        self.find(resource, name).unwrap_or_else(|| panic!("there is no {resource} {name}"))
    }

    /// Makes an object as somebody else would.
    pub(crate) fn put(&self, group: &str, resource: &str, object: Value) -> Key {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let key = Key {
            group: group.to_owned(),
            resource: resource.to_owned(),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
        };
        self.store(&key, Some(object), Some(Writer::updates(STRANGER))).unwrap();
        key
    }

    /// Changes an object as somebody else would, who is refused nothing here that he would be there.
    pub(crate) fn edit(&self, resource: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let key = self.key(resource, name);
        let mut object = self.state().objects[&key].clone();
        change(&mut object);
        self.store(&key, Some(object), Some(Writer::updates(STRANGER))).unwrap();
    }

    pub(crate) fn delete(&self, resource: &str, name: &str) {
        let key = self.key(resource, name);
        self.store(&key, None, None).unwrap();
    }

    fn key(&self, resource: &str, name: &str) -> Key {
        let state = self.state();
        let mut keys = state.objects.keys().filter(|key| key.resource == resource && key.name == name);
        keys.next().cloned().unwrap_or_else(|| panic!("there is no {resource} {name}"))
    }

    /// Stores what differs from what is there, if it may be; gives identity, generation, version and record.
    fn store(&self, key: &Key, after: Option<Value>, writer: Option<Writer>) -> Result<Value, Refusal> {
        let mut state = self.state();
        let before = state.objects.get(key).cloned();
        let after = after.map(|object| state.complete(key, before.as_ref(), object, writer));
        if before == after {
            return Ok(after.unwrap_or_default());
        }
        let refused = after.as_ref().and_then(|after| refusal(&key.resource, before.as_ref(), after, &state.objects));
        if let Some(refused) = refused {
            return Err(refused);
        }
        state.version += 1;
        let version = state.version;
        let after = after.map(|mut object| {
            object["metadata"]["resourceVersion"] = json!(version.to_string());
            object
        });
        match &after {
            Some(object) => state.objects.insert(key.clone(), object.clone()),
            None => state.objects.remove(key),
        };
        let stored = after.clone().unwrap_or_default();
        state.changes.push(Change { version, key: key.clone(), before, after });
        drop(state);
        self.changed.send_replace(version);
        Ok(stored)
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let Some(target) = Target::parse(parts.uri.path()) else { return error(404, "NotFound", "no such path") };
        let query: BTreeMap<String, String> = parts.uri.query().map(pairs).unwrap_or_default();
        let metadata_only = parts
            .headers
            .get("accept")
            .is_some_and(|accept| accept.to_str().unwrap().contains("PartialObjectMetadata"));
        let body = body.collect_bytes().await.expect("a body of our own client");
        let verb = target.verb(&parts.method, query.contains_key("watch"));
        if let Some(failure) = self.admit(&target, verb) {
            return failure;
        }
        match verb {
            "watch" => self.watch(target, query, metadata_only),
            "list" => self.list(&target, &query, metadata_only),
            "get" => match self.state().objects.get(&target.key) {
                Some(object) => ok(shown(object, metadata_only)),
                None => error(404, "NotFound", &format!("{} not found", target.key.name)),
            },
            "delete" => self.remove(&target, &body),
            "create" => self.create(&target, &body, query.get("fieldManager")),
            _ => match parts.headers["content-type"].to_str().unwrap() {
                "application/apply-patch+yaml" => self.apply(&target, &body, &query["fieldManager"]),
                "application/json-patch+json" => self.patch(&target, &body, &query["fieldManager"]),
                _ => self.merge(&target, &body),
            },
        }
    }

    /// Logs the request; the answer if a test wants it to fail.
    fn admit(&self, target: &Target, verb: &'static str) -> Option<Answer> {
        let mut state = self.state();
        let seen = target.seen(verb);
        if state.writes_left == Some(0) {
            return Some(error(500, "InternalError", "broken off"));
        }
        if let Some((code, status)) = state.refusals.get(&(verb.to_owned(), seen.resource.clone())) {
            return Some(answer(*code, status.clone()));
        }
        if seen.is_write() {
            state.writes_left = state.writes_left.map(|left| left - 1);
        }
        state.log.push(seen);
        None
    }

    fn list(&self, target: &Target, query: &BTreeMap<String, String>, metadata_only: bool) -> Answer {
        let state = self.state();
        let selector = Selector::parse(query);
        let found = state.objects.iter().filter(|(key, object)| target.holds(key) && selector.matches(object));
        let items: Vec<Value> = found.map(|(_, object)| shown(object, metadata_only)).collect();
        let kind = if metadata_only { "PartialObjectMetadataList" } else { "List" };
        ok(
            json!({"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": state.version.to_string()}, "items": items}),
        )
    }

    fn watch(&self, target: Target, query: BTreeMap<String, String>, metadata_only: bool) -> Answer {
        let from: u64 = query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
        let selector = Selector::parse(&query);
        let events = stream::unfold((self.clone(), from, self.changed.subscribe()), move |(api, from, mut changed)| {
            let (target, selector) = (target.clone(), selector.clone());
            async move {
                loop {
                    let (lines, now) = api.events_since(from, &target, &selector, metadata_only);
                    if now > from && !lines.is_empty() {
                        return Some((Ok(http_body::Frame::data(Bytes::from(lines))), (api, now, changed)));
                    }
                    changed.changed().await.ok()?;
                }
            }
        });
        Response::new(StreamBody::new(events.boxed()).boxed_unsync())
    }

    fn events_since(&self, from: u64, target: &Target, selector: &Selector, metadata_only: bool) -> (String, u64) {
        let state = self.state();
        let mut lines = String::new();
        let deaf = state.deaf_to.contains(&target.key.resource);
        for change in state.changes.iter().filter(|change| change.version > from && target.holds(&change.key) && !deaf)
        {
            let selected = |object: &&Value| selector.matches(object);
            let (before, after) = (change.before.as_ref().filter(selected), change.after.as_ref().filter(selected));
            let (type_, object) = match (before, after) {
                (None, None) => continue,
                (None, Some(after)) => ("ADDED", after.clone()),
                (Some(_), Some(after)) => ("MODIFIED", after.clone()),
                (Some(before), None) => {
                    let mut last = before.clone();
                    last["metadata"]["resourceVersion"] = json!(change.version.to_string());
                    ("DELETED", last)
                }
            };
            lines += &format!("{}\n", json!({"type": type_, "object": shown(&object, metadata_only)}));
        }
        (lines, state.version)
    }

    fn create(&self, target: &Target, body: &[u8], manager: Option<&String>) -> Answer {
        let mut object: Value = serde_json::from_slice(body).expect("JSON");
        let mut key = target.key.clone();
        key.name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        if self.state().objects.contains_key(&key) {
            return error(409, "AlreadyExists", "already exists");
        }
        object["metadata"]["namespace"] = json!(key.namespace);
        stored(self.store(&key, Some(object), manager.map(|manager| Writer::updates(manager))))
    }

    fn apply(&self, target: &Target, body: &[u8], manager: &str) -> Answer {
        let patch: Value = serde_json::from_slice(body).expect("JSON");
        let status = target.subresource.as_deref() == Some("status");
        let live = self.state().objects.get(&target.key).cloned();
        if status && live.is_none() {
            return error(404, "NotFound", "not found");
        }
        if let (Some(uid), Some(live)) = (patch["metadata"].get("uid"), &live)
            && live["metadata"]["uid"] != *uid
        {
            return error(409, "Conflict", "another uid");
        }
        if live.is_none() {
            self.state().log.push(Seen { verb: "create", ..target.seen("patch") });
        }
        let mut object = live.unwrap_or_else(|| {
            json!({"apiVersion": patch["apiVersion"], "kind": patch["kind"],
            "metadata": {"name": target.key.name, "namespace": target.key.namespace}})
        });
        let mut records = Records::read(&object["metadata"]["managedFields"]);
        records.apply(&mut object, &recorded(&patch, status), Writer::applies(manager, status));
        object["metadata"]["managedFields"] = records.shown();
        stored(self.store(&target.key, Some(object), None))
    }

    /// A JSON patch; one that names another version than the present one meets a conflict.
    fn patch(&self, target: &Target, body: &[u8], manager: &str) -> Answer {
        let Some(live) = self.state().objects.get(&target.key).cloned() else {
            return error(404, "NotFound", "not found");
        };
        let patch: json_patch::Patch = serde_json::from_slice(body).expect("a JSON patch");
        let mut object = live.clone();
        if let Err(problem) = json_patch::patch(&mut object, &patch) {
            return error(422, "Invalid", &problem.to_string());
        }
        if object["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"] {
            return error(409, "Conflict", "the object has been modified");
        }
        stored(self.store(&target.key, Some(object), Some(Writer::updates(manager))))
    }

    /// Deletes an object and, later, what it owns; a conflict if it is another by now.
    fn remove(&self, target: &Target, body: &[u8]) -> Answer {
        let Some(live) = self.state().objects.get(&target.key).cloned() else {
            return error(404, "NotFound", "not found");
        };
        let options: Value = serde_json::from_slice(body).expect("JSON");
        assert_eq!(options["propagationPolicy"], "Background");
        let seen = &options["preconditions"];
        if ["uid", "resourceVersion"].iter().any(|field| seen[field] != live["metadata"][field]) {
            return error(409, "Conflict", "the object has been modified");
        }
        super::cluster::Cluster::delete(self, &target.key.resource, &target.key.name);
        ok(json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
    }

    /// A merge patch, which only the recorder of events sends.
    fn merge(&self, target: &Target, body: &[u8]) -> Answer {
        let patch: Value = serde_json::from_slice(body).expect("JSON");
        let Some(mut object) = self.state().objects.get(&target.key).cloned() else {
            return error(404, "NotFound", "not found");
        };
        json_patch::merge(&mut object, &patch);
        stored(self.store(&target.key, Some(object), None))
    }
}

impl State {
    fn complete(&self, key: &Key, before: Option<&Value>, mut object: Value, writer: Option<Writer>) -> Value {
        let shown = |object: &Value| object["metadata"].get("managedFields").cloned();
        let mut records = Records::read(&shown(&object).or_else(|| before.and_then(shown)).unwrap_or_default());
        if let Some(writer) = writer {
            let before = before.map_or_else(|| json!({}), |before| recorded(before, false));
            records.update(&before, &recorded(&object, false), writer);
        }
        let metadata = &mut object["metadata"];
        metadata["managedFields"] = records.shown();
        if metadata.get("uid").is_none() {
            metadata["uid"] = json!(format!("uid-{}", self.version + 1));
        }
        if metadata.get("creationTimestamp").is_none() {
            metadata["creationTimestamp"] = json!(Timestamp::from_second(self.now.as_second()).unwrap().to_string());
        }
        let changed = before.is_none_or(|before| before["spec"] != object["spec"]);
        let generation = before.and_then(|before| before["metadata"]["generation"].as_i64()).unwrap_or(0);
        object["metadata"]["generation"] = json!(generation + i64::from(changed));
        match key.resource.as_str() {
            "services" => super::cluster::give_ports(&mut object, before),
            "jobs" if before.is_none() => super::cluster::complete_job(&mut object),
            _ => {}
        }
        object
    }
}

fn stored(result: Result<Value, Refusal>) -> Answer {
    match result {
        Ok(object) => ok(object),
        Err((code, reason, message)) => error(code, reason, &message),
    }
}

fn ok(value: Value) -> Answer {
    answer(200, value)
}

fn error(code: u16, reason: &str, message: &str) -> Answer {
    answer(code, status(code, reason, message))
}

/// A `Status` as the API server sends it.
pub(crate) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message})
}

fn answer(code: u16, value: Value) -> Answer {
    let body = Full::new(Bytes::from(value.to_string())).boxed_unsync();
    Response::builder().status(StatusCode::from_u16(code).unwrap()).body(body).unwrap()
}
