//! The API server's record of who wrote which field (`managedFields`, form `FieldsV1`). Pure.

use serde_json::{Map, Value, json};

/// Fields of one entry of the record: `f:NAME`, `k:{KEYS}` or `v:VALUE` to what lies below, `.` for the thing itself.
pub type Fields = Map<String, Value>;

/// Fields that `manager` wrote in either way, those of the status apart.
pub fn ours<'a>(live: &'a Value, manager: &str) -> Vec<&'a Fields> {
    entries(live).iter().filter(|entry| is_of(entry, manager)).filter_map(fields).collect()
}

/// Fields that others wrote, those of the status apart.
pub fn strangers<'a>(live: &'a Value, manager: &str) -> Vec<&'a Fields> {
    let stranger = |entry: &&Value| !is_of(entry, manager) && text(entry, "subresource").is_empty();
    entries(live).iter().filter(stranger).filter_map(fields).collect()
}

/// The whole record with all that is ours in one entry of server-side apply; `None` if it is so already.
///
/// What an object was created with, or patched with, stands in an entry of its own (operation `Update`), and no later
/// apply takes it away again.
pub fn gathered(live: &Value, manager: &str) -> Option<Value> {
    let applied = |entry: &&Value| text(entry, "operation") == "Apply";
    let (ours, mut record): (Vec<&Value>, Vec<&Value>) = entries(live).iter().partition(|entry| is_of(entry, manager));
    if ours.iter().all(applied) {
        return None;
    }
    let mut one = ours.iter().copied().find(applied).or(ours.first().copied())?.clone();
    let mut all = Fields::new();
    ours.into_iter().filter_map(fields).for_each(|fields| unite(&mut all, fields));
    let entry = one.as_object_mut()?;
    entry.insert("operation".into(), json!("Apply"));
    entry.insert("fieldsV1".into(), Value::Object(all));
    record.push(&one);
    Some(json!(record))
}

/// What of `live` we wrote, in either way: applied once more, it would change nothing.
pub fn written(live: &Value, manager: &str) -> Value {
    let mut all = Fields::new();
    ours(live, manager).into_iter().for_each(|fields| unite(&mut all, fields));
    part(&all, live)
}

/// The part of `live` that `fields` names. What is named without anything below it is taken whole; items of a list are
/// taken with the keys that tell them apart.
fn part(fields: &Fields, live: &Value) -> Value {
    if !fields.keys().any(|key| key != ".") {
        return live.clone();
    }
    let below = |fields: &Value, live: &Value| fields.as_object().map_or(Value::Null, |fields| part(fields, live));
    if let Value::Array(items) = live {
        let chosen = items.iter().filter_map(|item| {
            fields.iter().find_map(|(key, fields)| match key.split_once(':') {
                Some(("k", keys)) if has_keys(item, keys) => {
                    let mut chosen = below(fields, item);
                    chosen.as_object_mut()?.extend(serde_json::from_str::<Fields>(keys).ok()?);
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

/// What lies below the field `name`, in those entries that have it.
pub fn below_field<'a>(entries: &[&'a Fields], name: &str) -> Vec<&'a Fields> {
    let key = format!("f:{name}");
    entries.iter().filter_map(|fields| fields.get(&key)?.as_object()).collect()
}

/// What lies below the list item with the keys that `item` has, in those entries that have it.
pub fn below_item<'a>(entries: &[&'a Fields], item: &Value) -> Vec<&'a Fields> {
    let found = |fields: &&'a Fields| {
        let (_, below) =
            fields.iter().find(|(key, _)| key.strip_prefix("k:").is_some_and(|keys| has_keys(item, keys)))?;
        below.as_object()
    };
    entries.iter().filter_map(found).collect()
}

/// Whether `item` has these keys, written as the record does.
pub fn has_keys(item: &Value, keys: &str) -> bool {
    let keys: Option<Fields> = serde_json::from_str(keys).ok();
    keys.is_some_and(|keys| keys.iter().all(|(key, value)| item.get(key) == Some(value)))
}

fn entries(live: &Value) -> &[Value] {
    live.pointer("/metadata/managedFields").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn is_of(entry: &Value, manager: &str) -> bool {
    text(entry, "manager") == manager && text(entry, "subresource").is_empty()
}

fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn fields(entry: &Value) -> Option<&Fields> {
    entry.get("fieldsV1").and_then(Value::as_object)
}

fn unite(all: &mut Fields, more: &Fields) {
    for (key, below) in more {
        match (all.get_mut(key), below) {
            (Some(Value::Object(all)), Value::Object(more)) => unite(all, more),
            _ => drop(all.insert(key.clone(), below.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(manager: &str, operation: &str, fields: Value) -> Value {
        json!({"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsV1": fields})
    }

    fn status(mut entry: Value) -> Value {
        entry["subresource"] = json!("status");
        entry
    }

    fn live(record: Value) -> Value {
        json!({"metadata": {"managedFields": record}})
    }

    #[test]
    fn a_record_tells_ours_from_strangers_and_leaves_the_status_out() {
        let live = live(json!([
            entry("us", "Apply", json!({"f:a": {}})),
            entry("us", "Update", json!({"f:b": {}})),
            status(entry("us", "Apply", json!({"f:status": {}}))),
            entry("them", "Update", json!({"f:c": {}})),
            status(entry("them", "Update", json!({"f:status": {}}))),
        ]));
        let names = |fields: Vec<&Fields>| fields.iter().flat_map(|it| it.keys().cloned()).collect::<Vec<_>>();
        assert_eq!(names(ours(&live, "us")), ["f:a", "f:b"]);
        assert_eq!(names(strangers(&live, "us")), ["f:c"]);
        assert!(ours(&json!({"metadata": {}}), "us").is_empty());
    }

    #[test]
    fn what_we_wrote_in_two_ways_is_gathered_once() {
        let theirs = entry("them", "Update", json!({"f:spec": {"f:c": {}}}));
        let ours_of_status = status(entry("us", "Update", json!({"f:status": {}})));
        let applied = entry("us", "Apply", json!({"f:spec": {".": {}, "f:a": {}}}));
        let updated = entry("us", "Update", json!({"f:data": {}, "f:spec": {"f:b": {"f:d": {}}}}));
        let united = entry("us", "Apply", json!({"f:data": {}, "f:spec": {".": {}, "f:a": {}, "f:b": {"f:d": {}}}}));
        let record = gathered(&live(json!([updated, theirs, ours_of_status, applied])), "us").unwrap();
        assert_eq!(record, json!([theirs, ours_of_status, united]));
        assert_eq!(gathered(&live(record), "us"), None);
    }

    #[test]
    fn what_we_created_becomes_what_we_apply() {
        let record = gathered(&live(json!([entry("us", "Update", json!({"f:data": {}}))])), "us");
        assert_eq!(record, Some(json!([entry("us", "Apply", json!({"f:data": {}}))])));
        assert_eq!(gathered(&live(json!([entry("them", "Update", json!({"f:data": {}}))])), "us"), None);
        assert_eq!(gathered(&json!({"metadata": {}}), "us"), None);
    }

    #[test]
    fn of_an_object_only_what_we_wrote_is_taken() {
        let applied = json!({"f:spec": {"f:replicas": {}, "f:tags": {"v:\"a\"": {}},
            "f:containers": {"k:{\"name\":\"server\"}": {".": {}, "f:name": {}, "f:args": {}}}}});
        let updated = json!({"f:spec": {"f:containers": {"k:{\"name\":\"server\"}": {"f:image": {}}}}});
        let mut live = live(json!([entry("us", "Apply", applied), entry("us", "Update", updated)]));
        live["spec"] = json!({"replicas": 2, "theirs": 1, "tags": ["a"], "containers": [
            {"name": "server", "image": "x", "args": ["a", "b"], "tty": true}, {"name": "sidecar", "image": "mesh"}]});
        let ours = json!({"spec": {"replicas": 2, "tags": ["a"],
            "containers": [{"name": "server", "image": "x", "args": ["a", "b"]}]}});
        assert_eq!(written(&live, "us"), ours);
        assert_eq!(crate::diff::difference(&ours, &live, "us"), None);
    }

    #[test]
    fn one_finds_ones_way_down() {
        let record = json!({"f:ports": {"k:{\"port\":1,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}}}});
        let top = [record.as_object().unwrap()];
        let ports = below_field(&top, "ports");
        assert_eq!(ports.len(), 1);
        assert_eq!(below_item(&ports, &json!({"protocol": "TCP", "port": 1, "name": "x"})).len(), 1);
        assert_eq!(below_item(&ports, &json!({"protocol": "UDP", "port": 1})).len(), 0);
        assert_eq!(below_field(&top, "other").len(), 0);
    }
}
