//! What the API server refuses to store, as far as the operator can meet it.

use std::collections::{BTreeMap, BTreeSet};

use commpool_operator::crd::quantity::nanos;
use serde_json::{Value, json};

use super::api::Key;

/// Code, reason and message of a refusal.
pub(crate) type Refusal = (u16, &'static str, String);

/// Why `after` cannot take the place of `before` in the world of `all`.
pub(crate) fn refusal(
    resource: &str,
    before: Option<&Value>,
    after: &Value,
    all: &BTreeMap<Key, Value>,
) -> Option<Refusal> {
    before.and_then(|before| immutable(resource, before, after, all)).or_else(|| invalid(resource, after))
}

fn unprocessable(message: impl Into<String>) -> Option<Refusal> {
    Some((422, "Invalid", message.into()))
}

fn immutable(resource: &str, before: &Value, after: &Value, all: &BTreeMap<Key, Value>) -> Option<Refusal> {
    let changed = |path: &str| before.pointer(path).is_some_and(|before| after.pointer(path) != Some(before));
    match resource {
        "statefulsets" if changed("/spec/selector") || changed("/spec/podManagementPolicy") => {
            unprocessable("updates to statefulset spec for these fields are forbidden")
        }
        "deployments" if changed("/spec/selector") => unprocessable("spec.selector: field is immutable"),
        "jobs" if changed("/spec/template") => unprocessable("spec.template: field is immutable"),
        "persistentvolumeclaims" if changed("/spec/accessModes") || changed("/spec/storageClassName") => {
            unprocessable("spec is immutable after creation")
        }
        "persistentvolumeclaims" if changed("/spec/resources/requests/storage") => {
            let class = before.pointer("/spec/storageClassName");
            let grows = all.iter().any(|(key, object)| {
                key.resource == "storageclasses"
                    && Some(&json!(key.name)) == class
                    && object["allowVolumeExpansion"] == json!(true)
            });
            (!grows).then(|| (403, "Forbidden", "the storageclass must support resize".into()))
        }
        _ => None,
    }
}

fn invalid(resource: &str, object: &Value) -> Option<Refusal> {
    let problem = match resource {
        "services" => service(&object["spec"]),
        "statefulsets" | "deployments" | "jobs" => pod(&object["spec"]["template"]["spec"]),
        "cronjobs" => pod(&object["spec"]["jobTemplate"]["spec"]["template"]["spec"]),
        _ => None,
    };
    problem.and_then(unprocessable)
}

fn service(spec: &Value) -> Option<String> {
    let ports = items(&spec["ports"]);
    if ports.len() > 1 && ports.iter().any(|port| port["name"].is_null()) {
        return Some("spec.ports.name: Required value".into());
    }
    twice(&ports, &["name"])
        .or_else(|| twice(&ports, &["port", "protocol"]))
        .or_else(|| twice(&ports, &["nodePort", "protocol"]))
        .map(|what| format!("spec.ports: Duplicate value: {what}"))
}

fn pod(spec: &Value) -> Option<String> {
    let volumes = items(&spec["volumes"]);
    let sources = volumes.iter().find(|volume| volume.as_object().is_some_and(|volume| volume.len() != 2));
    if let Some(volume) = sources {
        return Some(format!("spec.volumes: Forbidden: may not specify more than 1 volume type: {volume}"));
    }
    profile(&spec["securityContext"])
        .or_else(|| items(&spec["containers"]).iter().find_map(|it| container(it, &volumes)))
}

fn container(container: &Value, volumes: &[Value]) -> Option<String> {
    if let Some(name) = twice(&items(&container["ports"]), &["name"]) {
        return Some(format!("spec.containers.ports.name: Duplicate value: {name}"));
    }
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let handlers =
            ["exec", "grpc", "httpGet", "tcpSocket"].iter().filter(|it| container[probe].get(**it).is_some());
        if handlers.count() > 1 {
            return Some(format!("{probe}: Forbidden: may not specify more than 1 handler type"));
        }
    }
    let mounted = |mount: &Value| volumes.iter().any(|volume| volume["name"] == mount["name"]);
    if let Some(mount) = items(&container["volumeMounts"]).iter().find(|mount| !mounted(mount)) {
        return Some(format!("volumeMounts: Not found: {}", mount["name"]));
    }
    let context = &container["securityContext"];
    if context["privileged"] == true && context["allowPrivilegeEscalation"] == false {
        return Some("cannot set `allowPrivilegeEscalation` to false and `privileged` to true".into());
    }
    let amount = |of: &str, name: &str| container["resources"][of][name].as_str().and_then(nanos);
    let above = |name: &&&str| amount("limits", name).is_some_and(|limit| amount("requests", name) > Some(limit));
    let above = ["cpu", "memory"].iter().find(above);
    above.map(|name| format!("requests: must be less than or equal to {name} limit")).or_else(|| profile(context))
}

fn profile(context: &Value) -> Option<String> {
    let profile = &context["seccompProfile"];
    (profile["type"] != "Localhost" && profile.get("localhostProfile").is_some())
        .then(|| "localhostProfile: can only be set when seccomp type is Localhost".to_owned())
}

fn items(list: &Value) -> Vec<Value> {
    list.as_array().cloned().unwrap_or_default()
}

/// What two items have both in all of `fields`.
fn twice(items: &[Value], fields: &[&str]) -> Option<String> {
    let mut seen = BTreeSet::new();
    let of =
        |item: &Value| fields.iter().map(|field| item.get(*field).map(Value::to_string)).collect::<Option<Vec<_>>>();
    items.iter().filter_map(of).find(|it| !seen.insert(it.clone())).map(|it| it.join("/"))
}
