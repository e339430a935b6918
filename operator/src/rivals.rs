//! What strangers wrote that cannot stand beside what is ours, and the edits that put ours back. Pure.
//!
//! Server-side apply sets our fields and leaves all others. Where the API server allows only one of two, such as one
//! port of a name or one source of a volume, an apply would be refused for ever after a stranger put the other there.
//! Then ours takes the other's place in one step, by a JSON patch (RFC 6902).

use serde_json::{Value, json};

use crate::diff::{KeyedList, Names, keyed_list, lacks};
use crate::record::{self, Fields};

/// Parts of a pod whose fields exclude or bound each other: where a stranger changed ours, ours stands alone again.
const WHOLE: &[&str] = &[
    "securityContext",
    "volumes[]",
    "containers[].resources",
    "containers[].securityContext",
    "containers[].startupProbe",
    "containers[].readinessProbe",
    "containers[].livenessProbe",
];

/// Operations of a JSON patch that put right what an apply of `desired` cannot; none if an apply can do all.
pub fn edits(desired: &Value, live: &Value, manager: &str) -> Vec<Value> {
    let written = Written { ours: record::ours(live, manager), strangers: record::strangers(live, manager) };
    let mut edits = Vec::new();
    look(desired, live, &written, &Place::default(), &mut edits);
    edits
}

/// Who wrote what at a place.
struct Written<'a> {
    ours: Vec<&'a Fields>,
    strangers: Vec<&'a Fields>,
}

impl Written<'_> {
    fn below_field(&self, name: &str) -> Self {
        let of = |entries| record::below_field(entries, name);
        Self { ours: of(&self.ours), strangers: of(&self.strangers) }
    }

    fn below_item(&self, item: &Value) -> Self {
        let of = |entries| record::below_item(entries, item);
        Self { ours: of(&self.ours), strangers: of(&self.strangers) }
    }

    /// Whether an apply that does not want it takes it away.
    fn is_ours_alone(&self) -> bool {
        !self.ours.is_empty() && self.strangers.is_empty()
    }
}

/// A place in an object.
#[derive(Clone, Debug, Default)]
struct Place {
    /// Where it is (RFC 6901).
    pointer: String,
    /// What it is: names of fields joined by dots, `[]` for an item.
    path: String,
}

impl Place {
    fn field(&self, name: &str) -> Self {
        let escaped = name.replace('~', "~0").replace('/', "~1");
        let dot = if self.path.is_empty() { "" } else { "." };
        Self { pointer: format!("{}/{escaped}", self.pointer), path: format!("{}{dot}{name}", self.path) }
    }

    fn item(&self, index: usize) -> Self {
        Self { pointer: format!("{}/{index}", self.pointer), path: format!("{}[]", self.path) }
    }

    fn is_whole(&self) -> bool {
        self.path.split_once("template.spec.").is_some_and(|(_, part)| WHOLE.contains(&part))
    }

    fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or_default()
    }
}

fn look(desired: &Value, live: &Value, written: &Written<'_>, at: &Place, edits: &mut Vec<Value>) {
    if at.is_whole() {
        if !written.strangers.is_empty() && lacks(live, desired) {
            edits.push(json!({"op": "replace", "path": at.pointer, "value": desired}));
        }
        return;
    }
    match (desired, live) {
        (Value::Object(desired), Value::Object(live)) => {
            for (name, desired) in desired {
                if let Some(live) = live.get(name) {
                    look(desired, live, &written.below_field(name), &at.field(name), edits);
                }
            }
        }
        (Value::Array(desired), Value::Array(live)) => items(desired, live, written, at, edits),
        _ => {}
    }
}

fn items(desired: &[Value], live: &[Value], written: &Written<'_>, at: &Place, edits: &mut Vec<Value>) {
    let Some(list) = desired.first().and_then(|first| keyed_list(at.name(), first)) else { return };
    let altered = altered(list, desired, live);
    let stays = |index: &usize| live.get(*index).is_some_and(|item| !written.below_item(item).is_ours_alone());
    if altered.iter().any(stays) {
        return names(list, desired, live, altered, at, edits);
    }
    for item in desired {
        if let Some((index, live)) = live.iter().enumerate().find(|(_, live)| list.same(item, live)) {
            look(item, live, &written.below_item(live), &at.item(index), edits);
        }
    }
}

/// Items that have a name of ours but not its keys, or lack the name that all must have: ours, altered. An item of
/// another name is somebody else's.
fn altered(list: &KeyedList, desired: &[Value], live: &[Value]) -> Vec<usize> {
    let is_altered = |item: &Value| match item.get("name") {
        _ if list.names == Names::Free || desired.iter().any(|desired| list.same(desired, item)) => false,
        Some(name) => desired.iter().any(|desired| desired.get("name") == Some(name)),
        None => list.names == Names::Demanded,
    };
    live.iter().enumerate().filter(|(_, item)| is_altered(item)).map(|(index, _)| index).collect()
}

/// Ours take the places of the altered ones, so that what the API server gave those, such as a node port, stays.
fn names(
    list: &KeyedList,
    desired: &[Value],
    live: &[Value],
    mut altered: Vec<usize>,
    at: &Place,
    edits: &mut Vec<Value>,
) {
    let mut added = Vec::new();
    for item in desired {
        let name_at = |index: &usize| live.get(*index).and_then(|live| live.get("name"));
        let present = live.iter().position(|live| list.same(item, live));
        let place = present.or_else(|| {
            let own = altered.iter().position(|index| name_at(index) == item.get("name"));
            let place = own.or_else(|| altered.iter().position(|index| name_at(index).is_none()))?;
            Some(altered.remove(place))
        });
        match place.and_then(|index| Some((index, live.get(index)?))) {
            Some((index, live)) => set(item, live, &at.item(index), edits),
            None => added.push(json!({"op": "add", "path": format!("{}/-", at.pointer), "value": item})),
        }
    }
    edits.extend(added);
    // from behind, so that the places of the others stay what they were
    edits.extend(altered.iter().rev().map(|index| json!({"op": "remove", "path": at.item(*index).pointer})));
}

fn set(desired: &Value, live: &Value, at: &Place, edits: &mut Vec<Value>) {
    for (name, value) in desired.as_object().into_iter().flatten() {
        if live.get(name) != Some(value) {
            edits.push(json!({"op": "add", "path": at.field(name).pointer, "value": value}));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn edits_of_ports(desired: &Value, live: &Value) -> Vec<Value> {
        edits(&json!({"spec": {"ports": desired}}), &json!({"spec": {"ports": live}}), "us")
    }

    #[test]
    fn a_moved_port_is_moved_back_and_keeps_what_it_was_given() {
        let ours = json!([{"name": "tls", "port": 5061, "protocol": "TCP", "targetPort": "tls"}]);
        let moved = json!([
            {"name": "extra", "port": 7, "protocol": "TCP"},
            {"name": "tls", "port": 9, "protocol": "TCP", "targetPort": "tls", "nodePort": 30_000},
        ]);
        assert_eq!(edits_of_ports(&ours, &moved), [json!({"op": "add", "path": "/spec/ports/1/port", "value": 5061})]);
    }

    #[test]
    fn a_name_that_moved_comes_back_to_its_port() {
        let ours = json!([{"name": "tls", "port": 5061, "protocol": "TCP"}]);
        let moved =
            json!([{"name": "tls", "port": 9, "protocol": "TCP"}, {"name": "old", "port": 5061, "protocol": "TCP"}]);
        assert_eq!(
            edits_of_ports(&ours, &moved),
            [
                json!({"op": "add", "path": "/spec/ports/1/name", "value": "tls"}),
                json!({"op": "remove", "path": "/spec/ports/0"}),
            ]
        );
    }

    #[test]
    fn only_a_list_that_demands_names_holds_a_nameless_item_for_ours() {
        let ours = json!([{"name": "tls", "port": 5061, "protocol": "TCP"}]);
        let named = json!({"op": "add", "path": "/spec/ports/0/name", "value": "tls"});
        let moved = json!({"op": "add", "path": "/spec/ports/0/port", "value": 5061});
        assert_eq!(edits_of_ports(&ours, &json!([{"port": 9, "protocol": "TCP"}])), [named, moved]);
        let ours = json!([{"name": "tls", "containerPort": 5061, "protocol": "TCP"}]);
        assert!(edits_of_ports(&ours, &json!([{"containerPort": 9, "protocol": "TCP"}])).is_empty());
    }

    #[test]
    fn a_port_that_we_move_ourselves_needs_an_apply_only() {
        let key = "k:{\"port\":5061,\"protocol\":\"TCP\"}";
        let entry = |manager: &str| json!({"manager": manager, "fieldsV1": {"f:spec": {"f:ports": {key: {".": {}}}}}});
        let live = |record: Value| json!({"metadata": {"managedFields": record}, "spec": {"ports": [{"name": "tls", "port": 5061, "protocol": "TCP"}]}});
        let wanted = json!({"spec": {"ports": [{"name": "tls", "port": 443, "protocol": "TCP"}]}});
        assert!(edits(&wanted, &live(json!([entry("us")])), "us").is_empty());
        assert_eq!(edits(&wanted, &live(json!([entry("us"), entry("them")])), "us").len(), 1);
    }

    /// A workload whose volume, by the record, is written by us and, if `stranger`, by somebody else too.
    fn workload(kind: &str, volume: &Value, stranger: bool) -> Value {
        let name = "k:{\"name\":\"data\"}";
        let fields = json!({"f:spec": {"f:template": {"f:spec": {"f:volumes": {name: {".": {}}}}}}});
        let other = json!({"f:spec": {"f:template": {"f:spec": {"f:hostNetwork": {}}}}});
        json!({
            "metadata": {"managedFields": [
                {"manager": "us", "operation": "Apply", "fieldsV1": fields},
                {"manager": "them", "operation": "Update", "fieldsV1": if stranger { &fields } else { &other }},
            ]},
            "spec": {kind: {"spec": {"volumes": [volume]}}},
        })
    }

    #[test]
    fn a_part_that_is_ours_whole_is_replaced_only_where_a_stranger_changed_it() {
        let ours = json!({"name": "data", "persistentVolumeClaim": {"claimName": "demo"}});
        let theirs = json!({"name": "data", "emptyDir": {}});
        let both = json!({"name": "data", "persistentVolumeClaim": {"claimName": "demo"}, "label": "x"});
        let of = |kind: &str, live: &Value, stranger: bool| {
            edits(&workload(kind, &ours, false), &workload(kind, live, stranger), "us")
        };
        let replaced = json!({"op": "replace", "path": "/spec/template/spec/volumes/0", "value": ours});
        assert_eq!(of("template", &theirs, true), [replaced]);
        assert!(of("template", &theirs, false).is_empty(), "a wish of our own is an apply");
        assert!(of("template", &both, true).is_empty(), "what stands beside ours is left alone");
        assert!(of("other", &theirs, true).is_empty(), "only pods have such parts");
    }

    #[test]
    fn names_of_fields_are_escaped() {
        let place = Place::default().field("example.com/a~b").item(3);
        assert_eq!(place.pointer, "/example.com~1a~0b/3");
    }

    /// A list of ports as the API server lets it be: keys, and names where there are several, are unique.
    fn ports(names: &'static [&'static str]) -> impl Strategy<Value = Vec<Value>> {
        let item = (proptest::sample::select(names), 1_u16..7, proptest::sample::select(&["TCP", "UDP"][..]));
        (proptest::collection::vec(item, 1..6), any::<bool>()).prop_map(|(items, nameless)| {
            let (mut keys, mut seen) = (BTreeSet::new(), BTreeSet::new());
            let distinct = items.into_iter().filter(|(name, port, protocol)| {
                !seen.contains(name) && keys.insert((*port, *protocol)) && seen.insert(*name)
            });
            let of = |(index, (name, port, protocol)): (usize, (&str, u16, &str))| {
                json!({"name": name, "port": port, "protocol": protocol, "nodePort": 30_000 + index})
            };
            let mut items: Vec<Value> = distinct.enumerate().map(of).collect();
            if nameless && let [only] = items.as_mut_slice() {
                only.as_object_mut().unwrap().remove("name");
            }
            items
        })
    }

    /// What an apply makes of `live`.
    fn applied(desired: &[Value], live: &[Value]) -> Vec<Value> {
        let mut live = live.to_vec();
        for item in desired {
            let same = |live: &&mut Value| live["port"] == item["port"] && live["protocol"] == item["protocol"];
            match live.iter_mut().find(same) {
                Some(live) => live["name"] = item["name"].clone(),
                None => live.push(item.clone()),
            }
        }
        live
    }

    fn is_valid(items: &[Value]) -> bool {
        let names: BTreeSet<_> = items.iter().filter_map(|item| item.get("name")?.as_str()).collect();
        names.len() == items.len() || items.len() == 1
    }

    proptest! {
        #[test]
        fn edits_are_made_where_an_apply_is_refused_and_then_none_is_needed(
            desired in ports(&["a", "b", "c"]), live in ports(&["a", "b", "c", "x", "y"]),
        ) {
            let desired: Vec<Value> = desired
                .iter()
                .map(|it| json!({"name": it.get("name").cloned().unwrap_or_else(|| json!("a")), "port": it["port"], "protocol": it["protocol"]}))
                .collect();
            let edits = edits_of_ports(&json!(desired), &json!(live));
            prop_assert_eq!(edits.is_empty(), is_valid(&applied(&desired, &live)));
            let mut object = json!({"spec": {"ports": live}});
            let patch: json_patch::Patch = serde_json::from_value(json!(edits)).unwrap();
            json_patch::patch(&mut object, &patch).unwrap();
            let after = object["spec"]["ports"].as_array().unwrap().clone();
            prop_assert!(is_valid(&applied(&desired, &after)), "{:?}", after);
            prop_assert!(edits_of_ports(&json!(desired), &json!(after)).is_empty());
            if !edits.is_empty() {
                prop_assert!(is_valid(&after), "{:?}", after);
                let lacks = lacks(&json!({"ports": after}), &json!({"ports": desired}));
                prop_assert!(!lacks, "{:?}", after);
            }
            let ours = |item: &Value, field: &str| desired.iter().any(|desired| desired[field] == item[field]);
            let strangers = live.iter().filter(|it| it.get("name").is_some() && !ours(it, "name") && !ours(it, "port"));
            for stranger in strangers {
                prop_assert!(after.contains(stranger), "{} is gone", stranger);
            }
        }
    }
}
