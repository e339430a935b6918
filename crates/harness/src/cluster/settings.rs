//! Configuration files of the cluster's programs.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::network;

/// Folder of the container network plugins of Debian.
pub(super) const CNI_PLUGINS: &str = "/usr/lib/cni";

/// Image of the process that holds a pod's namespaces.
pub(crate) const PAUSE_IMAGE: &str = "localhost/commpool-pause:1";

/// Writes all files into the state folder of a cluster.
pub(super) fn write(state: &Path, cgroup: &str) -> Result<()> {
    for folder in ["cni/net.d", "cni/state", "containerd", "kubelet", "volumes", "etcd", "log/pods", "log/containers"] {
        fs::create_dir_all(state.join(folder))?;
    }
    let file = |name: &str, text: String| fs::write(state.join(name), text);
    file("cni/net.d/commpool.conflist", cni(state))?;
    file("containerd.toml", containerd(state))?;
    file("kubelet.json", kubelet(state, cgroup))?;
    file("proxy.json", proxy(state))?;
    file("Corefile", coredns(state))?;
    file("resolv.conf", format!("nameserver {}\n", network::DNS_SERVICE))?;
    Ok(())
}

/// A cable of its own for every pod, routed by the node: traffic between two pods passes the node's rules, which a
/// bridge would keep from it on kernels without bridge filtering.
fn cni(state: &Path) -> String {
    json!({
        "cniVersion": "1.0.0",
        "name": "commpool",
        "plugins": [
            {"type": "ptp", "ipMasq": true, "ipam": {
                "type": "host-local",
                "dataDir": state.join("cni/addresses"),
                "ranges": [[{"subnet": network::PODS}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            }},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
    .to_string()
}

/// containerd. A host may withhold CAP_SYS_RESOURCE, and runc then dies setting the out-of-memory score: hence
/// `restrict_oom_score_adj`.
fn containerd(state: &Path) -> String {
    let state = state.display();
    format!(
        r#"version = 3
root = "{state}/containerd"
state = "/run/containerd"
[grpc]
address = "/run/containerd/containerd.sock"
[plugins.'io.containerd.internal.v1.opt']
path = "{state}/opt"
[plugins.'io.containerd.nri.v1.nri']
disable = true
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{PAUSE_IMAGE}"
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
conf_dir = "{state}/cni/net.d"
bin_dirs = ["{CNI_PLUGINS}"]
"#
    )
}

/// The kubelet. From 1.35 on it refuses hosts with version 1 of control groups unless told otherwise.
fn kubelet(state: &Path, cgroup: &str) -> String {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "x509": {"clientCAFile": state.join("pki/ca.crt")},
            "webhook": {"enabled": true},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": state.join("pki/kubelet.crt"),
        "tlsPrivateKeyFile": state.join("pki/kubelet.key"),
        "clusterDomain": "cluster.local",
        "clusterDNS": [network::DNS_SERVICE],
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{cgroup}"),
        "failCgroupV1": false,
        "failSwapOn": false,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "resolvConf": state.join("resolv.conf"),
        // A developer's disk may be nearly full, and images cannot be pulled again from anywhere.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "podLogsDir": state.join("log/pods"),
        "volumePluginDir": state.join("kubelet/exec"),
    })
    .to_string()
}

/// kube-proxy. It cannot write the limits of connection tracking where only the host may.
fn proxy(state: &Path) -> String {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": state.join("pki/proxy.conf")},
        "clusterCIDR": network::PODS,
        "hostnameOverride": "node",
        "conntrack": {"maxPerCore": 0, "min": 0},
    })
    .to_string()
}

/// CoreDNS, on the node itself.
fn coredns(state: &Path) -> String {
    let (node, context) = (network::NODE, super::CONTEXT);
    let kubeconfig = state.join("pki/coredns.conf");
    format!(
        ". {{\n    bind {node}\n    errors\n    kubernetes cluster.local in-addr.arpa {{\n        \
         kubeconfig {} {context}\n    }}\n    cache 5\n}}\n",
        kubeconfig.display()
    )
}
