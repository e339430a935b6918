//! An image of ours goes into a real registry and comes back the same. Needs skopeo and Docker's registry of Debian.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use commpool_harness::Workspace;
use commpool_harness::command::output;
use commpool_harness::images;
use commpool_harness::process::Process;
use commpool_harness::skip::{Need, can_run};
use commpool_harness::wait;
use serde_json::Value;

#[test]
fn an_image_is_pushed_and_comes_back_the_same() {
    if !can_run(
        "an_image_is_pushed_and_comes_back_the_same",
        &[Need::Program("skopeo"), Need::Program("docker-registry")],
    ) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, wait::free_port().unwrap()));
    let settings = serde_json::json!({
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": folder.path().join("registry")}},
        "http": {"addr": address.to_string()},
    });
    let file = folder.path().join("registry.yml");
    fs::write(&file, settings.to_string()).unwrap();
    let mut registry = Command::new("docker-registry");
    registry.arg("serve").arg(&file);
    let _registry = Process::start("registry", folder.path(), &mut registry).unwrap();
    wait::for_port(address, Duration::from_secs(20)).unwrap();

    let archive = images::pause(&Workspace::find().unwrap()).unwrap();
    let reference = images::push(&archive, &address.to_string(), "team/commpool-pause:1").unwrap();
    assert_eq!(reference, format!("{address}/team/commpool-pause:1"));

    let inspect = |what: &str, tls: &[&str]| -> Value {
        let text = output(Command::new("skopeo").arg("inspect").args(tls).args(["--raw", what])).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let there = inspect(&format!("docker://{reference}"), &["--tls-verify=false"]);
    let here = inspect(&format!("oci-archive:{}", archive.display()), &[]);
    assert_eq!(there["layers"], here["layers"]);
    assert_eq!(there["config"]["digest"], here["config"]["digest"]);
}

#[test]
fn a_registry_that_is_not_there_is_named() {
    if !can_run("a_registry_that_is_not_there_is_named", &[Need::Program("skopeo")]) {
        return;
    }
    let archive = images::pause(&Workspace::find().unwrap()).unwrap();
    let nowhere = format!("127.0.0.1:{}", wait::free_port().unwrap());
    let error = format!("{:#}", images::push(&archive, &nowhere, "commpool-pause:1").unwrap_err());
    assert!(error.contains(&nowhere) && error.contains("could not be pushed"), "{error}");
}
