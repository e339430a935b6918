//! Server-side apply as far as the operator can tell: merge by field, a record of who wrote what.

use commpool_operator::diff::list_keys;
use serde_json::{Map, Value, json};

/// Puts `new` into `live`, after taking out what `old` (this manager's last word) held and `new` and `others` do not.
pub(crate) fn apply(live: &mut Value, old: Option<&Value>, new: &Value, others: &[Value]) {
    if let Some(old) = old {
        prune(live, old, new, others, "");
    }
    merge(live, new, "");
}

fn prune(live: &mut Value, old: &Value, new: &Value, others: &[Value], field: &str) {
    match (live, old) {
        (Value::Object(live), Value::Object(old)) => {
            for (key, old) in old {
                let below: Vec<Value> = others.iter().filter_map(|other| other.get(key).cloned()).collect();
                match (live.get_mut(key), new.get(key)) {
                    (Some(live), Some(new)) => prune(live, old, new, &below, key),
                    (Some(_), None) if below.is_empty() => {
                        live.remove(key);
                    }
                    _ => {}
                }
            }
        }
        (Value::Array(live), Value::Array(old)) => {
            for item in old {
                let Some(keys) = list_keys(field, item) else { return };
                let same = |other: &Value| keys.iter().all(|key| other.get(key) == item.get(key));
                let wanted = new.as_array().and_then(|new| new.iter().find(|new| same(new)));
                match (live.iter().position(&same), wanted) {
                    (Some(at), Some(wanted)) => prune(&mut live[at], item, wanted, &[], field),
                    (Some(at), None) => {
                        live.remove(at);
                    }
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

fn merge(live: &mut Value, new: &Value, field: &str) {
    match (live, new) {
        (Value::Object(live), Value::Object(new)) => {
            for (key, value) in new {
                merge(live.entry(key).or_insert(Value::Null), value, key);
            }
        }
        (Value::Array(live), Value::Array(new)) if new.first().is_some_and(|item| list_keys(field, item).is_some()) => {
            for item in new {
                let keys = list_keys(field, item).expect("all items of a list have its keys");
                match live.iter_mut().find(|live| keys.iter().all(|key| live.get(key) == item.get(key))) {
                    Some(live) => merge(live, item, field),
                    None => live.push(item.clone()),
                }
            }
        }
        (live, new) => *live = new.clone(),
    }
}

/// The record of fields for what a manager wrote (`FieldsV1`).
pub(crate) fn fields(value: &Value, field: &str) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, value)| (format!("f:{key}"), fields(value, key))).collect())
        }
        Value::Array(items) => {
            let mut record = Map::new();
            for item in items {
                let Some(keys) = list_keys(field, item) else { return json!({}) };
                let key: Map<String, Value> = keys.iter().map(|key| ((*key).to_owned(), item[*key].clone())).collect();
                let mut below = fields(item, "");
                below["."] = json!({});
                record.insert(format!("k:{}", Value::Object(key)), below);
            }
            Value::Object(record)
        }
        _ => json!({}),
    }
}
