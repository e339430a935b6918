//! Objects every cluster starts with: its name service, a storage class with volumes, and the rights of both.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::network;

/// Volumes of a node; each is given anew once it is released.
const VOLUMES: usize = 12;

/// The objects, as one list. Makes the folders of the volumes.
pub(super) fn list(state: &Path) -> Result<String> {
    let mut items = vec![
        dns_service(),
        dns_endpoint(),
        dns_role(),
        dns_binding(),
        json!({
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": "standard",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        }),
    ];
    for number in 0..VOLUMES {
        let name = format!("local-{number}");
        let folder = volume_folder(state, &name);
        fs::create_dir_all(&folder)?;
        items.push(volume(&name, &folder));
    }
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())
}

/// Folder of a volume.
pub(super) fn volume_folder(state: &Path, name: &str) -> std::path::PathBuf {
    state.join("volumes").join(name)
}

/// Ports of the name service.
fn dns_ports() -> Value {
    json!([{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}])
}

/// The name service runs beside the node, not in a pod: a Service without selector and its endpoint lead to it.
fn dns_service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {"clusterIP": network::DNS_SERVICE, "ports": dns_ports()},
    })
}

fn dns_endpoint() -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns-node",
            "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [network::NODE], "conditions": {"ready": true}}],
        "ports": dns_ports(),
    })
}

fn dns_role() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "commpool:coredns"},
        "rules": [
            {"apiGroups": [""], "resources": ["namespaces", "pods", "services"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ],
    })
}

fn dns_binding() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "commpool:coredns"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "commpool:coredns"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "commpool:coredns"}],
    })
}

/// A `local` volume: the kubelet gives it to the pod's group, as it would not with a `hostPath`.
fn volume(name: &str, folder: &Path) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "20Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "standard",
            "local": {"path": folder},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node"]},
            ]}]}},
        },
    })
}
