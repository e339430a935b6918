//! Keys and certificates of the cluster, and the files by which its programs sign in.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::network;
use crate::pki::{Authority, openssl};

/// Those who sign in at the API server: file name and subject of each.
const CLIENTS: &[(&str, &str)] = &[
    ("admin", "/O=system:masters/CN=admin"),
    ("controller-manager", "/CN=system:kube-controller-manager"),
    ("coredns", "/CN=commpool:coredns"),
    ("kubelet", "/O=system:nodes/CN=system:node:node"),
    ("proxy", "/CN=system:kube-proxy"),
    ("scheduler", "/CN=system:kube-scheduler"),
];

/// What certificates of the cluster are good for: most of its programs are servers and clients.
const USAGES: &str = "clientAuth,serverAuth";

/// Makes all keys, certificates and kubeconfig files in a folder.
pub(super) fn make(folder: &Path) -> Result<()> {
    let cluster = Authority::make(folder, "ca")?;
    // For the API server when it forwards to another API server, which must not take the cluster's own clients.
    let front = Authority::make(folder, "front-ca")?;
    openssl(folder, &["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "accounts.key"])?;
    openssl(folder, &["ec", "-in", "accounts.key", "-pubout", "-out", "accounts.pub"])?;
    let (node, service) = (network::NODE, network::API_SERVICE);
    let names = format!(
        "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,\
         IP:127.0.0.1,IP:{node},IP:{service}"
    );
    cluster.issue("apiserver", "/CN=kube-apiserver", USAGES, Some(&names))?;
    front.issue("front", "/CN=front-proxy", USAGES, None)?;
    for (name, subject) in CLIENTS {
        let names = (*name == "kubelet").then(|| format!("DNS:node,IP:{node}"));
        cluster.issue(name, subject, USAGES, names.as_deref())?;
        fs::write(folder.join(format!("{name}.conf")), kubeconfig(folder, name))?;
    }
    Ok(())
}

/// A kubeconfig with the certificate of `name`. JSON is YAML.
fn kubeconfig(folder: &Path, name: &str) -> String {
    let path = |file: &str| -> PathBuf { folder.join(file) };
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": super::CONTEXT,
        "clusters": [{"name": "commpool", "cluster": {
            "server": format!("https://{}:6443", network::NODE),
            "certificate-authority": path("ca.crt"),
        }}],
        "users": [{"name": name, "user": {
            "client-certificate": path(&format!("{name}.crt")),
            "client-key": path(&format!("{name}.key")),
        }}],
        "contexts": [{"name": super::CONTEXT, "context": {"cluster": "commpool", "user": name}}],
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::command::output;

    #[test]
    fn the_api_server_is_trusted_under_its_addresses() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path()).unwrap();
        for address in [network::NODE, network::API_SERVICE, "127.0.0.1"] {
            let verify = ["verify", "-CAfile", "ca.crt", "-verify_ip", address, "apiserver.crt"];
            output(Command::new("openssl").current_dir(folder.path()).args(verify)).unwrap();
        }
        let other = ["verify", "-CAfile", "front-ca.crt", "apiserver.crt"];
        assert!(output(Command::new("openssl").current_dir(folder.path()).args(other)).is_err());
    }
}
