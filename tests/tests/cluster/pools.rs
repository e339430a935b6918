//! Every sample becomes what it says, and a pool that cannot says why.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use commpool_harness::Workspace;
use commpool_harness::command::output;
use serde_json::{Value, json};

use crate::lab::{ENTERPRISE_TO_READY, Pool, TO_READY, cluster, condition};

/// Applies a file of `samples/` in a namespace of its own; gives the namespace and the sample's pool.
fn sample(name: &str) -> Result<Option<(Pool, String)>> {
    let Some(cluster) = cluster() else { return Ok(None) };
    let pool = Pool::prepare(cluster, &format!("sample-{name}"))?;
    let file = Workspace::find()?.root().join("samples").join(format!("{name}.yaml"));
    let path = file.to_str().context("a path in UTF-8")?;
    pool.kubectl(&["apply", "--validate=strict", "-f", path])?;
    let applied = pool.kubectl(&["get", "-f", path, "-o", "name"])?;
    let (_, applied) = applied.split_once('/').context("kubectl names kind and name")?;
    Ok(Some((pool, applied.to_owned())))
}

fn is_ready(pool: &Value) -> bool {
    condition(pool, "Ready").is_some_and(|ready| ready["status"] == "True")
}

#[test]
fn there_is_a_test_of_every_sample() -> Result<()> {
    let folder = Workspace::find()?.root().join("samples");
    let mut names: Vec<String> =
        std::fs::read_dir(folder)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    ensure!(
        names
            == [
                "all-transports.yaml",
                "directory.yaml",
                "enterprise-directory.yaml",
                "enterprise.yaml",
                "external-database.yaml",
                "given-certificate.yaml",
                "node-port.yaml",
                "standard.yaml"
            ],
        "a sample without a test here: {names:?}"
    );
    Ok(())
}

#[test]
fn sample_standard() -> Result<()> {
    let Some((pool, name)) = sample("standard")? else { return Ok(()) };
    let ready = pool.until_object("communicationspool", &name, "Ready", TO_READY, is_ready)?;
    ensure!(ready["status"]["addresses"][0]["transport"] == "tls", "addresses: {}", ready["status"]["addresses"]);
    pool.finish()
}

#[test]
fn sample_all_transports() -> Result<()> {
    let Some((pool, name)) = sample("all-transports")? else { return Ok(()) };
    let ready = pool.until_object("communicationspool", &name, "Ready", TO_READY, is_ready)?;
    ensure!(ready["status"]["addresses"].as_array().is_some_and(|all| all.len() == 3), "{}", ready["status"]);
    pool.finish()
}

#[test]
fn sample_enterprise() -> Result<()> {
    let Some((pool, name)) = sample("enterprise")? else { return Ok(()) };
    let ready = pool.until_object("communicationspool", &name, "Ready", ENTERPRISE_TO_READY, is_ready)?;
    ensure!(ready["status"]["frontEnd"]["readyReplicas"] == 2, "{}", ready["status"]);
    pool.finish()
}

/// A sample with a directory that nobody here has: it names the Secrets it waits for, and serves without its users.
fn without_its_directory(sample_name: &str, limit: Duration) -> Result<()> {
    let Some((pool, name)) = sample(sample_name)? else { return Ok(()) };
    let waits = |it: &Value, secret: &str| {
        condition(it, "DirectorySynced")
            .is_some_and(|synced| synced["reason"] == "SecretMissing" && synced["message"].to_string().contains(secret))
    };
    pool.until_object("communicationspool", &name, "ldap-bind", limit, |it| waits(it, "ldap-bind"))?;
    pool.kubectl(&[
        "create",
        "secret",
        "generic",
        "ldap-bind",
        "--from-literal=bindDN=a",
        "--from-literal=password=b",
    ])?;
    pool.until_object("communicationspool", &name, "ldap-ca", limit, |it| waits(it, "ldap-ca"))?;
    pool.until_object("communicationspool", &name, "Ready", limit, is_ready)?;
    pool.finish()
}

#[test]
fn sample_directory() -> Result<()> {
    without_its_directory("directory", TO_READY)
}

#[test]
fn sample_enterprise_directory() -> Result<()> {
    without_its_directory("enterprise-directory", ENTERPRISE_TO_READY)
}

#[test]
fn sample_external_database() -> Result<()> {
    let Some((pool, name)) = sample("external-database")? else { return Ok(()) };
    for (secret, entries) in [
        ("chat-database", &["owner-username=a", "owner-password=b", "server-username=c", "server-password=d"][..]),
        ("chat-database-ca", &["ca.crt=none"]),
    ] {
        pool.until_object("communicationspool", &name, secret, TO_READY, |it| {
            condition(it, "Stalled").is_some_and(|stalled| {
                stalled["reason"] == "CredentialsMissing" && stalled["message"].to_string().contains(secret)
            })
        })?;
        let entries = entries.iter().map(|entry| format!("--from-literal={entry}"));
        let entries: Vec<String> = entries.collect();
        let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
        pool.kubectl(&[&["create", "secret", "generic", secret][..], &entries].concat())?;
    }
    // there is no such database, and the migration says so
    pool.until_object("communicationspool", &name, "words of the migration", ENTERPRISE_TO_READY, |it| {
        condition(it, "SchemaCurrent").is_some_and(|schema| schema["reason"] == "MigrationFailed")
    })?;
    pool.finish()
}

#[test]
fn sample_node_port() -> Result<()> {
    let Some((pool, name)) = sample("node-port")? else { return Ok(()) };
    let ready = pool.until_object("communicationspool", &name, "Ready", TO_READY, is_ready)?;
    ensure!(ready["status"]["addresses"][0]["host"] == "sip.example.com", "{}", ready["status"]);
    ensure!(ready["status"]["addresses"][0]["port"].as_u64().is_some_and(|port| port >= 30_000), "{}", ready["status"]);
    pool.finish()
}

#[test]
fn sample_given_certificate() -> Result<()> {
    let Some((pool, name)) = sample("given-certificate")? else { return Ok(()) };
    let waits = pool.until_object("communicationspool", &name, "waiting for its Secret", TO_READY, |it| {
        condition(it, "CertificatesValid").is_some_and(|valid| valid["status"] == "False")
    })?;
    let message = condition(&waits, "CertificatesValid").map(|it| it["message"].to_string()).unwrap_or_default();
    ensure!(message.contains("sip-example-com"), "the message does not name the Secret: {message}");
    let folder = tempfile::tempdir()?;
    certificate(folder.path())?;
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (certificate, key) = (format!("--cert={}", file("tls.crt")), format!("--key={}", file("tls.key")));
    pool.kubectl(&["create", "secret", "tls", "sip-example-com", &certificate, &key])?;
    pool.until_object("communicationspool", &name, "Ready", TO_READY, is_ready)?;
    pool.finish()
}

/// A certificate for the sample's names, by openssl.
fn certificate(folder: &Path) -> Result<()> {
    let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"];
    let names = ["-subj", "/CN=sip.example.com", "-addext", "subjectAltName=DNS:sip.example.com,DNS:example.com"];
    let files = ["-keyout", "tls.key", "-out", "tls.crt"];
    output(Command::new("openssl").current_dir(folder).args(new).args(names).args(files)).map(drop)
}

#[test]
fn a_missing_image_is_named() -> Result<()> {
    let Some(cluster) = cluster() else { return Ok(()) };
    let pool = Pool::prepare(cluster, "no-image")?;
    let image = json!({"image": {"registry": "localhost/nowhere", "pullPolicy": "Never"}});
    pool.apply(&pool.resource(&image))?;
    let image = "localhost/nowhere/commpool-server";
    pool.until("a condition that names the image", Duration::from_secs(60), |it| {
        condition(it, "Ready").is_some_and(|ready| {
            ready["status"] == "False" && ready["message"].as_str().is_some_and(|message| message.contains(image))
        })
    })?;
    pool.apply(&pool.resource(&json!({})))?;
    pool.ready(TO_READY)?;
    pool.finish()
}

#[test]
fn a_wrong_field_is_refused_by_name() -> Result<()> {
    let Some(cluster) = cluster() else { return Ok(()) };
    let pool = Pool::prepare(cluster, "refused")?;
    for (more, named) in [
        (json!({"sipDomain": "example.com"}), "sipDomain"),
        (json!({"edition": "Premium"}), "edition"),
        (json!({"frontEnd": {"replicas": 2}}), "replicas"),
        (json!({"service": {"listeners": {"udp": 5060}, "externalTrafficPolicy": "Cluster"}}), "externalTrafficPolicy"),
    ] {
        let error = pool.apply(&pool.resource(&more)).expect_err("this must be refused");
        ensure!(format!("{error:#}").contains(named), "{named} is not named: {error:#}");
    }
    pool.finish()
}
