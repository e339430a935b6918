//! Who wrote which field of an object, and what follows from it: server-side apply and the record it keeps.

use std::collections::{BTreeMap, BTreeSet};

use commpool_operator::diff::keyed_list;
use serde_json::{Map, Value, json};

/// One that writes, in one of two ways: by server-side apply, or as it likes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Writer {
    pub(crate) manager: String,
    pub(crate) applies: bool,
    pub(crate) status: bool,
}

impl Writer {
    pub(crate) fn applies(manager: &str, status: bool) -> Self {
        Self { manager: manager.into(), applies: true, status }
    }

    pub(crate) fn updates(manager: &str) -> Self {
        Self { manager: manager.into(), applies: false, status: false }
    }

    fn operation(&self) -> &'static str {
        if self.applies { "Apply" } else { "Update" }
    }
}

/// The way to a field, in the words of `FieldsV1`: `f:NAME`, `k:{KEYS}`, and `.` for an item itself.
type Path = Vec<String>;

/// The record of one object.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records(BTreeMap<Writer, BTreeSet<Path>>);

impl Records {
    /// Server-side apply with force: what `writer` applies is so, what it applied before and nobody else wrote goes.
    pub(crate) fn apply(&mut self, live: &mut Value, wanted: &Value, writer: Writer) {
        let wanted = leaves(wanted);
        let before = leaves(live);
        let old = self.0.remove(&writer).unwrap_or_default();
        for path in old.iter().filter(|path| !wanted.contains_key(*path)) {
            if !self.0.values().any(|others| others.contains(path)) {
                remove(live, path);
            }
        }
        for (path, value) in &wanted {
            set(live, path, value);
        }
        let forced = |path: &Path| wanted.get(path).is_some_and(|value| before.get(path).is_some_and(|it| it != value));
        self.0.values_mut().for_each(|others| others.retain(|path| !forced(path)));
        self.0.insert(writer, wanted.into_keys().collect());
    }

    /// A write of any other kind: what it changes is its writer's and nobody else's.
    pub(crate) fn update(&mut self, before: &Value, after: &Value, writer: Writer) {
        let (before, after) = (leaves(before), leaves(after));
        let changed: BTreeSet<Path> = after
            .iter()
            .filter(|(path, value)| before.get(*path) != Some(value))
            .map(|(path, _)| path.clone())
            .collect();
        let gone = |path: &Path| changed.contains(path) || (before.contains_key(path) && !after.contains_key(path));
        self.0.values_mut().for_each(|fields| fields.retain(|path| !gone(path)));
        self.0.entry(writer).or_default().extend(changed);
        self.0.retain(|_, fields| !fields.is_empty());
    }

    /// As objects show it.
    pub(crate) fn shown(&self) -> Value {
        let entry = |(writer, fields): (&Writer, &BTreeSet<Path>)| {
            let mut record = json!({"manager": writer.manager, "operation": writer.operation(), "fieldsType": "FieldsV1",
                "fieldsV1": tree(fields)});
            if writer.status {
                record["subresource"] = json!("status");
            }
            record
        };
        self.0.iter().map(entry).collect()
    }

    /// From what an object shows.
    pub(crate) fn read(shown: &Value) -> Self {
        let writer = |entry: &Value| Writer {
            manager: entry["manager"].as_str().unwrap().into(),
            applies: entry["operation"] == "Apply",
            status: entry["subresource"] == "status",
        };
        let entries = shown.as_array().into_iter().flatten();
        Self(entries.map(|entry| (writer(entry), paths(&entry["fieldsV1"]))).collect())
    }
}

/// What of an object is recorded: not its identity, and the status apart from the rest.
pub(crate) fn recorded(object: &Value, status: bool) -> Value {
    if status {
        return json!({"status": object["status"]});
    }
    let mut object = object.clone();
    let map = object.as_object_mut().expect("an object");
    map.retain(|key, _| !["apiVersion", "kind", "status"].contains(&key.as_str()));
    if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|key, _| ["labels", "annotations", "ownerReferences"].contains(&key.as_str()));
    }
    object
}

fn leaves(value: &Value) -> BTreeMap<Path, Value> {
    let mut found = BTreeMap::new();
    walk(value, "", &mut Vec::new(), &mut found);
    found
}

fn walk(value: &Value, field: &str, path: &mut Path, found: &mut BTreeMap<Path, Value>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                path.push(format!("f:{name}"));
                walk(value, name, path, found);
                path.pop();
            }
        }
        Value::Array(items) if items.first().is_some_and(|item| keyed_list(field, item).is_some()) => {
            for item in items {
                let keys = keyed_list(field, item).expect("all items of a list have its keys").keys;
                let keys: Map<String, Value> = keys.iter().map(|key| ((*key).to_owned(), item[*key].clone())).collect();
                path.push(format!("k:{}", Value::Object(keys)));
                path.push(".".into());
                found.insert(path.clone(), Value::Null);
                path.pop();
                walk(item, "", path, found);
                path.pop();
            }
        }
        leaf => drop(found.insert(path.clone(), leaf.clone())),
    }
}

/// Sets a leaf; items come into being by their keys.
fn set(object: &mut Value, path: &[String], value: &Value) {
    match path {
        [] => *object = value.clone(),
        [itself] if itself == "." => {}
        [first, rest @ ..] => match first.split_once(':') {
            Some(("k", keys)) => set(item(object, keys), rest, value),
            Some((_, name)) => set(&mut object[name], rest, value),
            None => unreachable!("{first}"),
        },
    }
}

fn item<'a>(list: &'a mut Value, keys: &str) -> &'a mut Value {
    let at = position(list, keys).unwrap_or_else(|| {
        if !list.is_array() {
            *list = json!([]);
        }
        let items = list.as_array_mut().expect("a list");
        items.push(serde_json::from_str(keys).expect("keys"));
        items.len() - 1
    });
    &mut list[at]
}

fn position(list: &Value, keys: &str) -> Option<usize> {
    let keys: Map<String, Value> = serde_json::from_str(keys).expect("keys");
    list.as_array()?.iter().position(|item| keys.iter().all(|(key, value)| item.get(key) == Some(value)))
}

/// Removes a leaf or a whole item, and what is empty without it.
fn remove(object: &mut Value, path: &[String]) {
    let Some((first, rest)) = path.split_first() else { return };
    let empty =
        |value: &Value| value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty);
    match first.split_once(':') {
        Some(("k", keys)) => {
            let Some(at) = position(object, keys) else { return };
            if rest == ["."] {
                object.as_array_mut().expect("a list").remove(at);
            } else {
                remove(&mut object[at], rest);
            }
        }
        Some((_, name)) => {
            let Some(map) = object.as_object_mut() else { return };
            let Some(below) = map.get_mut(name) else { return };
            remove(below, rest);
            if rest.is_empty() || empty(below) {
                map.remove(name);
            }
        }
        None => {}
    }
}

fn tree(fields: &BTreeSet<Path>) -> Value {
    let mut root = json!({});
    for path in fields {
        path.iter()
            .fold(&mut root, |at, part| at.as_object_mut().expect("a tree").entry(part).or_insert_with(|| json!({})));
    }
    root
}

fn paths(tree: &Value) -> BTreeSet<Path> {
    let Some(map) = tree.as_object().filter(|map| !map.is_empty()) else { return BTreeSet::from([Path::new()]) };
    let below = |(part, tree): (&String, &Value)| -> Vec<Path> {
        paths(tree).into_iter().map(|path| [vec![part.clone()], path].concat()).collect()
    };
    map.iter().flat_map(below).collect()
}
