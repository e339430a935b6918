//! Keys and certificates of the cluster, made by openssl, and the files by which its programs sign in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::network;
use crate::command::output;

/// Days that certificates are good for; the cluster does not live that long.
const DAYS: &str = "365";

/// Who signs.
#[derive(Clone, Copy)]
enum Authority {
    /// For everything of the cluster.
    Cluster,
    /// For the API server when it forwards to another API server, which must not take the cluster's own clients.
    Front,
}

impl Authority {
    fn name(self) -> &'static str {
        match self {
            Self::Cluster => "ca",
            Self::Front => "front-ca",
        }
    }
}

/// Those who sign in at the API server: file name and subject of each.
const CLIENTS: &[(&str, &str)] = &[
    ("admin", "/O=system:masters/CN=admin"),
    ("controller-manager", "/CN=system:kube-controller-manager"),
    ("coredns", "/CN=commpool:coredns"),
    ("kubelet", "/O=system:nodes/CN=system:node:node"),
    ("proxy", "/CN=system:kube-proxy"),
    ("scheduler", "/CN=system:kube-scheduler"),
];

/// Makes all keys, certificates and kubeconfig files in a folder.
pub(super) fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let pki = Pki { folder };
    for authority in [Authority::Cluster, Authority::Front] {
        pki.authority(authority)?;
    }
    pki.openssl(&["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "accounts.key"])?;
    pki.openssl(&["ec", "-in", "accounts.key", "-pubout", "-out", "accounts.pub"])?;
    let (node, service) = (network::NODE, network::API_SERVICE);
    let names = format!(
        "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,\
         IP:127.0.0.1,IP:{node},IP:{service}"
    );
    pki.issue(Authority::Cluster, "apiserver", "/CN=kube-apiserver", Some(&names))?;
    pki.issue(Authority::Front, "front", "/CN=front-proxy", None)?;
    for (name, subject) in CLIENTS {
        let names = (*name == "kubelet").then(|| format!("DNS:node,IP:{node}"));
        pki.issue(Authority::Cluster, name, subject, names.as_deref())?;
        fs::write(folder.join(format!("{name}.conf")), pki.kubeconfig(name))?;
    }
    Ok(())
}

/// The folder being filled.
struct Pki<'a> {
    folder: &'a Path,
}

impl Pki<'_> {
    /// Runs openssl in the folder.
    fn openssl(&self, arguments: &[&str]) -> Result<()> {
        output(Command::new("openssl").current_dir(self.folder).args(arguments)).map(drop)
    }

    /// Makes a key and the certificate of an authority.
    fn authority(&self, authority: Authority) -> Result<()> {
        let name = authority.name();
        let (key, certificate, subject) = (format!("{name}.key"), format!("{name}.crt"), format!("/CN={name}"));
        let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", DAYS];
        self.openssl(&[&new[..], &["-subj", &subject, "-keyout", &key, "-out", &certificate]].concat())
    }

    /// Makes a key and a certificate, good as server and as client, with these alternative names.
    fn issue(&self, authority: Authority, name: &str, subject: &str, names: Option<&str>) -> Result<()> {
        let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
        let new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject];
        self.openssl(&[&new[..], &["-keyout", &key, "-out", &request]].concat())?;
        let names = names.map_or_else(String::new, |names| format!("subjectAltName={names}\n"));
        let extensions = format!("{name}.ext");
        fs::write(self.folder.join(&extensions), format!("extendedKeyUsage=clientAuth,serverAuth\n{names}"))?;
        let (ca, ca_key) = (format!("{}.crt", authority.name()), format!("{}.key", authority.name()));
        let sign = ["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial", "-days", DAYS];
        self.openssl(&[&sign[..], &["-extfile", &extensions, "-out", &certificate]].concat())
            .with_context(|| format!("no certificate for {name}"))
    }

    /// A kubeconfig with the certificate of `name`. JSON is YAML.
    fn kubeconfig(&self, name: &str) -> String {
        let path = |file: &str| -> PathBuf { self.folder.join(file) };
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
}

#[cfg(test)]
mod tests {
    use super::*;

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
