//! Whether an object is already as we would write it. Pure.
//!
//! Two questions: does the live object contain all we want, and does it still hold something that we wrote once and no
//! longer want? The second is answered by the server's record of our fields (`managedFields`, form `FieldsV1`).
//! What others added is not looked at.

use serde_json::{Map, Value};

use crate::crd::quantity::nanos;
use crate::record;

/// A list whose items are told apart by keys; all other lists are one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyedList {
    /// The field that holds it.
    pub field: &'static str,
    /// Fields of an item that tell it apart.
    pub keys: &'static [&'static str],
    /// What is demanded of the items' names beside the keys.
    pub names: Names,
}

/// What the API server demands of the field `name` of a list's items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Nothing.
    Free,
    /// No two items have the same.
    Unique,
    /// Every item of several has one, and no two the same.
    Demanded,
}

const fn keyed(field: &'static str, keys: &'static [&'static str]) -> KeyedList {
    KeyedList { field, keys, names: Names::Free }
}

const KEYED_LISTS: &[KeyedList] = &[
    keyed("containers", &["name"]),
    keyed("initContainers", &["name"]),
    keyed("volumes", &["name"]),
    keyed("env", &["name"]),
    keyed("imagePullSecrets", &["name"]),
    KeyedList { names: Names::Unique, ..keyed("ports", &["containerPort", "protocol"]) },
    KeyedList { names: Names::Demanded, ..keyed("ports", &["port", "protocol"]) },
    keyed("volumeMounts", &["mountPath"]),
    keyed("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    keyed("ownerReferences", &["uid"]),
    keyed("conditions", &["type"]),
    keyed("addresses", &["transport"]),
];

impl KeyedList {
    /// Whether two items have the same keys.
    pub fn same(&self, left: &Value, right: &Value) -> bool {
        self.keys.iter().all(|key| left.get(key) == right.get(key))
    }
}

/// The kind of the list `field`, seen at one of its items; `None` if the list is one value.
pub fn keyed_list(field: &str, item: &Value) -> Option<&'static KeyedList> {
    KEYED_LISTS.iter().find(|list| list.field == field && list.keys.iter().all(|key| item.get(key).is_some()))
}

/// The first field in which `live` is not what `desired` says, as a path for people; `None` if nothing need be written.
pub fn difference(desired: &Value, live: &Value, manager: &str) -> Option<String> {
    let owned = record::ours(live, manager);
    if owned.is_empty() {
        return Some("metadata.managedFields".into());
    }
    missing(desired, live, &mut Vec::new())
        .or_else(|| owned.into_iter().find_map(|fields| surplus(fields, desired, &mut Vec::new())))
}

/// Whether `live` does not hold all of `desired`.
pub fn lacks(live: &Value, desired: &Value) -> bool {
    missing(desired, live, &mut Vec::new()).is_some()
}

fn missing(desired: &Value, live: &Value, path: &mut Vec<String>) -> Option<String> {
    match (desired, live) {
        (Value::Object(desired), Value::Object(live)) => desired.iter().find_map(|(key, value)| {
            inside(path, key, |path| match live.get(key) {
                Some(live) => missing(value, live, path),
                None => Some(path.join(".")),
            })
        }),
        (Value::Array(desired), Value::Array(live)) => missing_items(desired, live, path),
        _ => (!equal(desired, live, path)).then(|| path.join(".")),
    }
}

fn missing_items(desired: &[Value], live: &[Value], path: &mut Vec<String>) -> Option<String> {
    let field = path.last().cloned().unwrap_or_default();
    let Some(list) = desired.first().and_then(|first| keyed_list(&field, first)) else {
        let pairs = || desired.iter().zip(live);
        let differs =
            desired.len() != live.len() || pairs().any(|(desired, live)| missing(desired, live, path).is_some());
        return differs.then(|| path.join("."));
    };
    desired.iter().find_map(|item| {
        let name = list.keys.iter().filter_map(|key| item.get(key)).map(plain).collect::<Vec<_>>().join("/");
        let found = live.iter().find(|live| list.same(item, live));
        inside(path, &name, |path| match found {
            Some(live) => missing(item, live, path),
            None => Some(path.join(".")),
        })
    })
}

/// Equal values; amounts of resources are equal in any writing.
fn equal(desired: &Value, live: &Value, path: &[String]) -> bool {
    if desired == live {
        return true;
    }
    let amount = path.iter().rev().nth(1).is_some_and(|parent| parent == "requests" || parent == "limits");
    match (desired.as_str(), live.as_str()) {
        (Some(desired), Some(live)) if amount => nanos(desired).is_some() && nanos(desired) == nanos(live),
        _ => false,
    }
}

fn surplus(fields: &Map<String, Value>, desired: &Value, path: &mut Vec<String>) -> Option<String> {
    fields.iter().find_map(|(key, below)| {
        let (name, found) = match key.split_once(':') {
            Some(("f", name)) => (name.to_owned(), desired.get(name)),
            Some(("k", keys)) => (keys.to_owned(), item_with(desired, keys)),
            Some(("v", value)) => (value.to_owned(), item_equal(desired, value)),
            _ => return None,
        };
        inside(path, &name, |path| match (found, below.as_object()) {
            (None, _) => Some(path.join(".")),
            (Some(found), Some(below)) => surplus(below, found, path),
            (Some(_), None) => None,
        })
    })
}

fn item_with<'a>(list: &'a Value, keys: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|item| record::has_keys(item, keys))
}

fn item_equal<'a>(list: &'a Value, value: &str) -> Option<&'a Value> {
    let value: Value = serde_json::from_str(value).ok()?;
    list.as_array()?.iter().find(|item| **item == value)
}

fn inside(path: &mut Vec<String>, part: &str, look: impl FnOnce(&mut Vec<String>) -> Option<String>) -> Option<String> {
    path.push(part.to_owned());
    let found = look(path);
    path.pop();
    found
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn live(mut object: Value, fields: Value) -> Value {
        object["metadata"]["managedFields"] = json!([
            {"manager": "us", "operation": "Apply", "fieldsV1": fields},
            {"manager": "us", "operation": "Apply", "subresource": "status", "fieldsV1": {"f:status": {"f:x": {}}}},
            {"manager": "them", "operation": "Update", "fieldsV1": {"f:spec": {"f:theirs": {}}}},
        ]);
        object
    }

    fn changed(desired: Value, live: &Value) -> Option<String> {
        difference(&desired, live, "us")
    }

    #[test]
    fn what_others_add_and_the_server_completes_is_no_difference() {
        let live = live(
            json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1",
                "ports": [{"port": 9, "protocol": "TCP"}, {"port": 5061, "protocol": "TCP", "nodePort": 30000}]}}),
            json!({"f:spec": {"f:ports": {"k:{\"port\":5061,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}}),
        );
        assert_eq!(changed(json!({"spec": {"ports": [{"port": 5061, "protocol": "TCP"}]}}), &live), None);
    }

    #[test]
    fn a_changed_or_missing_field_is_named() {
        let live = live(
            json!({"spec": {"containers": [{"name": "server", "image": "x:2", "args": ["a"]}]}}),
            json!({"f:spec": {}}),
        );
        let with = |container: Value| json!({"spec": {"containers": [container]}});
        assert_eq!(
            changed(with(json!({"name": "server", "image": "x:1"})), &live).as_deref(),
            Some("spec.containers.server.image")
        );
        assert_eq!(changed(with(json!({"name": "other"})), &live).as_deref(), Some("spec.containers.other"));
        assert_eq!(
            changed(with(json!({"name": "server", "args": ["a", "b"]})), &live).as_deref(),
            Some("spec.containers.server.args")
        );
        assert_eq!(
            changed(with(json!({"name": "server", "tty": true})), &live).as_deref(),
            Some("spec.containers.server.tty")
        );
    }

    #[test]
    fn what_we_wrote_and_no_longer_want_is_named() {
        let live = live(
            json!({"metadata": {"annotations": {"old": "1", "theirs": "2"}}, "spec": {"ports": [{"port": 1, "protocol": "UDP"}]}}),
            json!({"f:metadata": {"f:annotations": {".": {}, "f:old": {}}},
                   "f:spec": {"f:ports": {"k:{\"port\":1,\"protocol\":\"UDP\"}": {".": {}, "f:port": {}}}}}),
        );
        let port = json!([{"port": 1, "protocol": "UDP"}]);
        let old = |annotations: Value, ports: &Value| json!({"metadata": {"annotations": annotations}, "spec": {"ports": ports}});
        assert_eq!(changed(old(json!({"old": "1"}), &port), &live), None);
        assert_eq!(changed(old(json!({}), &port), &live).as_deref(), Some("metadata.annotations.old"));
        assert!(changed(old(json!({"old": "1"}), &json!([])), &live).is_some());
    }

    #[test]
    fn an_object_that_we_never_wrote_is_written() {
        assert_eq!(changed(json!({}), &json!({"metadata": {}})).as_deref(), Some("metadata.managedFields"));
    }

    #[test]
    fn amounts_are_equal_in_any_writing_elsewhere_texts_are_not() {
        let live = live(json!({"limits": {"cpu": "1"}, "version": "1"}), json!({"f:limits": {}}));
        assert_eq!(changed(json!({"limits": {"cpu": "1000m"}}), &live), None);
        assert!(changed(json!({"limits": {"cpu": "1001m"}}), &live).is_some());
        assert!(changed(json!({"version": "1000m"}), &live).is_some());
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<bool>().prop_map(Value::from), "[a-c]{0,2}".prop_map(Value::from)];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::btree_map("[a-d]", inner.clone(), 0..4).prop_map(|map| json!(map)),
                proptest::collection::vec(inner, 0..3).prop_map(Value::from),
            ]
        })
    }

    proptest! {
        #[test]
        fn an_object_does_not_differ_from_itself(object in tree()) {
            prop_assert_eq!(missing(&object, &object, &mut Vec::new()), None);
        }

        #[test]
        fn differing_trees_differ_in_one_direction_at_least(left in tree(), right in tree()) {
            let same = missing(&left, &right, &mut Vec::new()).is_none() && missing(&right, &left, &mut Vec::new()).is_none();
            prop_assert_eq!(same, left == right);
        }
    }
}
