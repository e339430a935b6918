//! A cluster that is there already, and a registry: the images are pushed, pulled by the node, and serve.

use std::time::Duration;

use anyhow::{Result, ensure};
use commpool_harness::Workspace;
use commpool_harness::cluster::Cluster;
use commpool_harness::command::{output, succeeds};
use commpool_harness::process::Process;
use commpool_harness::wait;
use serde_json::json;

use crate::lab::cluster;

/// Where the registry listens, in the cluster's own network.
const REGISTRY: &str = "127.0.0.1:5000";

#[test]
fn images_come_from_a_registry() -> Result<()> {
    if cluster().is_none() {
        return Ok(());
    }
    let workspace = Workspace::find()?;
    let other = Cluster::new(&workspace, "registry")?;
    other.down()?;
    other.up()?;
    let done = by_context(&workspace, &other);
    other.down()?;
    done
}

/// Puts the product on a cluster as the user of a kubeconfig would.
fn by_context(workspace: &Workspace, other: &Cluster) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let settings = json!({
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": folder.path().join("registry")}},
        "http": {"addr": REGISTRY},
    });
    let file = folder.path().join("registry.yml");
    std::fs::write(&file, settings.to_string())?;
    let mut registry = other.command("docker-registry")?;
    registry.arg("serve").arg(&file);
    let _registry = Process::start("registry", folder.path(), &mut registry)?;
    wait::until("the registry", Duration::from_secs(20), || {
        let mut open = other.command("bash")?;
        Ok(succeeds(open.args(["-c", "exec 3<>/dev/tcp/127.0.0.1/5000"])).then_some(()))
    })?;

    let xtask = workspace.binary("xtask")?;
    let mut up = other.command(&xtask.display().to_string())?;
    up.current_dir(workspace.root()).env_remove("CARGO_MANIFEST_DIR");
    output(up.args(["cluster", "up", "--context", "commpool", "--registry", REGISTRY]))?;

    let image = "-o=jsonpath={.items[*].status.containerStatuses[*].image}";
    let images = output(&mut other.kubectl(&["get", "pods", "-A", image])?)?;
    for part in ["commpool-operator", "commpool-server"] {
        ensure!(images.contains(&format!("{REGISTRY}/{part}:")), "{part} does not come from the registry: {images}");
    }
    let ready = "-o=jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}";
    let ready = output(&mut other.kubectl(&["get", "communicationspools", "-A", ready])?)?;
    ensure!(ready == "True", "the sample's pool is not ready: {ready}");
    Ok(())
}
