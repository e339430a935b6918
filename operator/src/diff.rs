//! Whether an object is already as we would write it. Pure.
//!
//! Two questions: does the live object contain all we want, and does it still hold something that we wrote once and no
//! longer want? The second is answered by the server's record of our fields (`managedFields`, form `FieldsV1`).
//! What others added is not looked at.

use serde_json::{Map, Value};

use crate::crd::quantity::nanos;

/// Lists whose items are told apart by keys, by the name of their field; all other lists are one value.
const KEYED_LISTS: &[(&str, &[&[&str]])] = &[
    ("containers", &[&["name"]]),
    ("initContainers", &[&["name"]]),
    ("volumes", &[&["name"]]),
    ("env", &[&["name"]]),
    ("imagePullSecrets", &[&["name"]]),
    ("ports", &[&["containerPort", "protocol"], &["port", "protocol"]]),
    ("volumeMounts", &[&["mountPath"]]),
    ("topologySpreadConstraints", &[&["topologyKey", "whenUnsatisfiable"]]),
    ("ownerReferences", &[&["uid"]]),
    ("conditions", &[&["type"]]),
    ("addresses", &[&["transport"]]),
];

/// The keys that tell apart the items of the list `field`, seen at one of them; `None` if the list is one value.
pub fn list_keys(field: &str, item: &Value) -> Option<&'static [&'static str]> {
    let (_, alternatives) = KEYED_LISTS.iter().find(|(name, _)| *name == field)?;
    alternatives.iter().copied().find(|keys| keys.iter().all(|key| item.get(key).is_some()))
}

/// The first field in which `live` is not what `desired` says, as a path for people; `None` if nothing need be written.
pub fn difference(desired: &Value, live: &Value, manager: &str) -> Option<String> {
    let owned = owned_fields(live, manager);
    if owned.is_empty() {
        return Some("metadata.managedFields".into());
    }
    missing(desired, live, &mut Vec::new())
        .or_else(|| owned.into_iter().find_map(|fields| surplus(fields, desired, &mut Vec::new())))
}

/// Whether `live` says all that `desired` says.
pub fn contains(desired: &Value, live: &Value) -> bool {
    missing(desired, live, &mut Vec::new()).is_none()
}

/// What of `live` the server's record says that we wrote: written once more, it would change nothing.
pub fn ours(live: &Value, manager: &str) -> Value {
    let mut record = Value::Object(Map::new());
    for fields in owned_fields(live, manager) {
        join(&mut record, fields);
    }
    record.as_object().map_or(Value::Null, |record| part(record, live))
}

/// Adds the fields of another record.
fn join(record: &mut Value, more: &Map<String, Value>) {
    let Value::Object(record) = record else { return };
    for (key, below) in more {
        let entry = record.entry(key).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(below) = below {
            join(entry, below);
        }
    }
}

/// The part of `live` that `fields` names. What is named without anything below it is taken whole; items of a list are
/// taken with the keys that tell them apart.
fn part(fields: &Map<String, Value>, live: &Value) -> Value {
    if !fields.keys().any(|key| key != ".") {
        return live.clone();
    }
    let below = |fields: &Value, live: &Value| fields.as_object().map_or(Value::Null, |fields| part(fields, live));
    if let Value::Array(items) = live {
        let chosen = items.iter().filter_map(|item| {
            fields.iter().find_map(|(key, fields)| match key.split_once(':') {
                Some(("k", keys)) if is_item_with(item, keys) => {
                    let mut chosen = below(fields, item);
                    let keys: Map<String, Value> = serde_json::from_str(keys).ok()?;
                    chosen.as_object_mut()?.extend(keys);
                    Some(chosen)
                }
                Some(("v", value)) if serde_json::from_str::<Value>(value).is_ok_and(|value| value == *item) => {
                    Some(item.clone())
                }
                _ => None,
            })
        });
        return Value::Array(chosen.collect());
    }
    let named = fields.iter().filter_map(|(key, fields)| {
        let name = key.strip_prefix("f:")?;
        Some((name.to_owned(), below(fields, live.get(name)?)))
    });
    Value::Object(named.collect())
}

/// Our entries of the record, that of the status apart.
fn owned_fields<'a>(live: &'a Value, manager: &str) -> Vec<&'a Map<String, Value>> {
    let entries = live.pointer("/metadata/managedFields").and_then(Value::as_array);
    let of = |entry: &&Value, key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    entries
        .into_iter()
        .flatten()
        .filter(|entry| of(entry, "manager") == manager && of(entry, "subresource").is_empty())
        .filter_map(|entry| entry.get("fieldsV1").and_then(Value::as_object))
        .collect()
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
    let keys = desired.first().and_then(|first| list_keys(&field, first));
    let Some(keys) = keys else {
        let pairs = || desired.iter().zip(live);
        let differs =
            desired.len() != live.len() || pairs().any(|(desired, live)| missing(desired, live, path).is_some());
        return differs.then(|| path.join("."));
    };
    desired.iter().find_map(|item| {
        let name = keys.iter().filter_map(|key| item.get(key)).map(plain).collect::<Vec<_>>().join("/");
        let found = live.iter().find(|live| keys.iter().all(|key| live.get(key) == item.get(key)));
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
    list.as_array()?.iter().find(|item| is_item_with(item, keys))
}

fn is_item_with(item: &Value, keys: &str) -> bool {
    let keys: Option<Map<String, Value>> = serde_json::from_str(keys).ok();
    keys.is_some_and(|keys| keys.iter().all(|(key, value)| item.get(key) == Some(value)))
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
    fn of_an_object_only_what_we_wrote_is_ours() {
        let mut live = live(
            json!({"spec": {"replicas": 2, "theirs": 1, "containers": [
                {"name": "server", "image": "x", "args": ["a", "b"], "tty": true}, {"name": "sidecar", "image": "mesh"}]}}),
            json!({"f:spec": {"f:replicas": {}, "f:containers": {"k:{\"name\":\"server\"}": {".": {}, "f:name": {}, "f:args": {}}}}}),
        );
        let image = json!({"manager": "us", "operation": "Update",
            "fieldsV1": {"f:spec": {"f:containers": {"k:{\"name\":\"server\"}": {"f:image": {}}}}}});
        live["metadata"]["managedFields"].as_array_mut().unwrap().push(image);
        let ours = ours(&live, "us");
        assert_eq!(
            ours,
            json!({"spec": {"replicas": 2, "containers": [{"name": "server", "image": "x", "args": ["a", "b"]}]}})
        );
        assert_eq!(changed(ours, &live), None);
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
