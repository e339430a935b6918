//! What an administrator installs: the operator's rights, in one table, and its own objects for `kubectl apply`.

use serde_json::{Value, json};

use crate::build::pod::USER;
use crate::names::MANAGER;

/// Namespace of the operator in `deploy/install.yaml`.
pub const NAMESPACE: &str = "commpool-system";

/// One right: verbs on a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// API group, empty for the core one.
    pub group: &'static str,
    /// Resource, with its subresource behind a slash.
    pub resource: &'static str,
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// Whether the resource belongs to no namespace.
    pub cluster: bool,
}

const fn right(group: &'static str, resource: &'static str, verbs: &'static [&'static str]) -> Right {
    Right { group, resource, verbs, cluster: false }
}

const WATCHED: &[&str] = &["get", "list", "watch", "create", "patch"];

/// All rights of the operator. There is no `update`, and `delete` only for what would go on doing something that nobody
/// wants any more.
pub const RIGHTS: &[Right] = &[
    right("commpool.dev", "communicationspools", &["get", "list", "watch"]),
    right("commpool.dev", "communicationspools/status", &["patch"]),
    right("", "services", WATCHED),
    right("", "serviceaccounts", WATCHED),
    right("", "persistentvolumeclaims", WATCHED),
    right("", "secrets", WATCHED),
    right("", "pods", &["list", "watch"]),
    right("apps", "statefulsets", WATCHED),
    right("apps", "deployments", WATCHED),
    right("batch", "jobs", &["list", "watch", "create", "patch"]),
    right("batch", "cronjobs", &["get", "list", "watch", "create", "patch", "delete"]),
    right("policy", "poddisruptionbudgets", WATCHED),
    right("events.k8s.io", "events", &["create", "patch"]),
    Right { cluster: true, ..right("storage.k8s.io", "storageclasses", &["list"]) },
    Right { cluster: true, ..right("storage.k8s.io", "csidrivers", &["get"]) },
];

/// Rules of a role, as the API writes them: those on resources of namespaces, or those on the cluster's own.
pub fn rules(cluster: bool) -> Vec<Value> {
    let chosen = RIGHTS.iter().filter(|right| right.cluster == cluster);
    chosen
        .map(|right| json!({"apiGroups": [right.group], "resources": [right.resource], "verbs": right.verbs}))
        .collect()
}

/// Roles that give people rights on pools: added to the cluster's own `view`, `edit` and `admin`.
pub fn people() -> Vec<(&'static str, Vec<&'static str>, Value)> {
    let rule =
        |verbs: &[&str]| json!([{"apiGroups": ["commpool.dev"], "resources": ["communicationspools"], "verbs": verbs}]);
    vec![
        ("view", vec!["view", "edit", "admin"], rule(&["get", "list", "watch"])),
        ("edit", vec!["edit", "admin"], rule(&["create", "update", "patch", "delete", "deletecollection"])),
    ]
}

/// The operator's objects for all namespaces, with the image of `version`.
pub fn objects(version: &str) -> Vec<Value> {
    let cluster_role = |name: &str, labels: Value, rules: Value| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name, "labels": labels}, "rules": rules})
    };
    let mut rights = rules(false);
    rights.extend(rules(true));
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": namespace_labels()}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": MANAGER, "namespace": NAMESPACE, "labels": labels(version)}}),
        cluster_role(MANAGER, labels(version), json!(rights)),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": MANAGER, "labels": labels(version)},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": MANAGER},
            "subjects": [{"kind": "ServiceAccount", "name": MANAGER, "namespace": NAMESPACE}]}),
    ];
    for (name, into, rules) in people() {
        let mut labels = labels(version);
        for role in into {
            labels[format!("rbac.authorization.k8s.io/aggregate-to-{role}")] = json!("true");
        }
        objects.push(cluster_role(&format!("commpool-pools-{name}"), labels, rules));
    }
    objects.push(deployment(version));
    objects
}

fn namespace_labels() -> Value {
    json!({
        "app.kubernetes.io/name": "commpool",
        "pod-security.kubernetes.io/enforce": "restricted",
    })
}

fn labels(version: &str) -> Value {
    json!({
        "app.kubernetes.io/name": MANAGER,
        "app.kubernetes.io/instance": MANAGER,
        "app.kubernetes.io/component": "operator",
        "app.kubernetes.io/part-of": "commpool",
        "app.kubernetes.io/version": version,
    })
}

/// One replica and `Recreate`: there is no lease, so two operators must not run side by side.
fn deployment(version: &str) -> Value {
    let selector = json!({"app.kubernetes.io/name": MANAGER, "app.kubernetes.io/instance": MANAGER});
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": "management"}, "periodSeconds": 10});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": MANAGER, "namespace": NAMESPACE, "labels": labels(version)},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {"labels": labels(version)},
                "spec": {
                    "serviceAccountName": MANAGER,
                    "securityContext": {"runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER,
                        "seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [{
                        "name": "operator",
                        "image": format!("localhost/commpool-operator:{version}"),
                        "imagePullPolicy": "IfNotPresent",
                        "args": ["--instance=$(POD_NAME)"],
                        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                        "ports": [{"name": "management", "containerPort": 9090, "protocol": "TCP"}],
                        "readinessProbe": probe("/readyz"),
                        "livenessProbe": probe("/healthz"),
                        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
                        "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                            "capabilities": {"drop": ["ALL"]}},
                    }],
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_right_is_wider_than_its_use() {
        for right in RIGHTS {
            assert!(!right.group.contains('*') && !right.resource.contains('*'), "{right:?}");
            for verb in right.verbs {
                let plain = ["get", "list", "watch", "create", "patch"].contains(verb);
                assert!(plain || (*verb == "delete" && right.resource == "cronjobs"), "{right:?}");
            }
        }
    }
}
