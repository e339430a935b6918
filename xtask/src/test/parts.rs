//! The list of real parts at the end of a test run.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use commpool_harness::Workspace;
use commpool_harness::cluster::{CONTAINERD, COREDNS, ETCD, HELM, KUBERNETES, RUNC};
use commpool_harness::command::output;
use commpool_harness::packages;

use super::groups::{Group, Part};
/// The parts of the groups that ran, with their versions, one a line.
pub(crate) fn list(workspace: &Workspace, ran: &[&Group]) -> String {
    let parts: BTreeSet<Part> = ran.iter().flat_map(|group| group.parts).copied().collect();
    let mut text = "\nreal parts in this run (no stand-ins):\n".to_owned();
    if parts.is_empty() {
        text.push_str("  none: these groups test pure code\n");
    }
    for part in parts {
        let (name, version) = match part {
            Part::Package(name, package) => (name, packages::version(package).context("it is not installed")),
            Part::Sqlite => ("SQLite", sqlite(workspace)),
            Part::ApiServer => ("Kubernetes API server", Ok(format!("{KUBERNETES}, etcd {ETCD}, helm {HELM}"))),
            Part::Kubernetes => ("Kubernetes", Ok(kubernetes())),
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {name} {}", version.unwrap_or_else(|error| format!("(version unknown: {error:#})")));
    }
    text
}

/// Versions of everything the cluster is made of.
fn kubernetes() -> String {
    format!(
        "{KUBERNETES} (API server, controller manager, scheduler, kubelet, kube-proxy), etcd {ETCD}, \
         containerd {CONTAINERD}, runc {RUNC}, CoreDNS {COREDNS}, helm {HELM}"
    )
}

/// Version of the SQLite that the build compiles in, read from the source it compiles.
fn sqlite(workspace: &Workspace) -> Result<String> {
    let metadata = output(workspace.cargo().args(["metadata", "--locked", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let package = packages.iter().find(|package| package["name"] == "libsqlite3-sys");
    let manifest = package.and_then(|package| package["manifest_path"].as_str()).context("it is not built in")?;
    let header = Path::new(manifest).with_file_name("sqlite3").join("sqlite3.h");
    let text = std::fs::read_to_string(&header).with_context(|| format!("cannot read {}", header.display()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("#define SQLITE_VERSION ")).context("it names none")?;
    Ok(line.trim().trim_matches('"').to_owned())
}
