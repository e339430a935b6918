//! Users from a directory: the CronJob of Enterprise Edition, the server's own runs in Standard Edition, and what is said
//! of both.

use std::time::Duration;

use commpool_model::config::PoolConfig;
use commpool_operator::report::AskError;
use k8s_openapi::ByteString;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::api::Seen;
use crate::support::{NAMESPACE, World, directory, enterprise, enterprise_with, minimal, spec};

/// A Secret as somebody else makes it.
fn secret(world: &World, name: &str, keys: &[&str]) {
    let data: serde_json::Map<String, Value> = keys.iter().map(|key| ((*key).to_owned(), json!("eA=="))).collect();
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE}, "data": data});
    world.api.put("", "secrets", secret);
}

pub(crate) fn secrets(world: &World) {
    secret(world, "ldap-bind", &["bindDN", "password"]);
    secret(world, "ldap-ca", &["ca.crt"]);
}

/// The shortest directory, changed at one place.
fn directory_with(path: &str, value: Value) -> Value {
    let mut directory = directory();
    *path.split('.').fold(&mut directory, |place, part| &mut place[part]) = value;
    directory
}

fn synced(directory: Value) -> Value {
    enterprise_with(json!({"directorySync": directory}))
}

/// An Enterprise Edition pool with a directory, at rest.
async fn world() -> World {
    let world = World::with(synced(directory()));
    secrets(&world);
    world.settle().await;
    assert!(world.is_ready(), "{:#}", world.pool()["status"]);
    world
}

fn cron_job(world: &World) -> Value {
    world.api.get("cronjobs", "demo-replicator")["spec"].clone()
}

/// What a run came to, as it says it.
pub(crate) fn outcome(result: &str, minute: u32) -> Value {
    json!({"result": result, "message": format!("{result} in words"), "started": "2027-01-15T08:00:00Z",
        "finished": format!("2027-01-15T08:{minute:02}:01.25Z"), "found": 7,
        "counts": {"added": 2, "changed": 1, "conflicts": 1, "unchanged": 4},
        "conflicts": ["alice@example.com: CN=Alice wins, CN=Alice2 gets none"],
        "planDigest": if result == "DeletionHeld" { "0123456789abcdef" } else { "" }})
}

/// A pod of the CronJob with this status.
pub(crate) fn pod(world: &World, name: &str, status: Value) {
    let job = world.api.get("cronjobs", "demo-replicator");
    let template = &job["spec"]["jobTemplate"]["spec"]["template"];
    let mut metadata = template["metadata"].clone();
    (metadata["name"], metadata["namespace"]) = (json!(name), json!(NAMESPACE));
    metadata["ownerReferences"] = json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": "demo-replicator", "uid": job["metadata"]["uid"]}]);
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"], "status": status});
    world.api.put("", "pods", pod);
}

/// The status of a pod that ended.
pub(crate) fn ended(message: &str, code: u32, reason: &str) -> Value {
    let end = json!({"exitCode": code, "reason": reason, "message": message, "finishedAt": "2027-01-15T09:00:00Z"});
    json!({"phase": if code == 0 { "Succeeded" } else { "Failed" }, "containerStatuses": [{"name": "replicator",
        "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": end}}]})
}

fn ran(world: &World, name: &str, outcome: &Value, code: u32) {
    pod(world, name, ended(&outcome.to_string(), code, if code == 0 { "Completed" } else { "Error" }));
}

#[track_caller]
fn says(world: &World, status: &str, reason: &str, words: &str) {
    let (is, because, message) = world.condition("DirectorySynced").expect("the condition");
    assert_eq!((is.as_str(), because.as_str()), (status, reason), "{message}");
    assert!(message.contains(words), "{message:?} does not say {words:?}");
}

fn is_still(seen: &[Seen]) -> bool {
    seen.iter().all(|seen| !seen.is_write())
}

#[tokio::test]
async fn the_replicator_comes_after_the_schema() {
    let mut world = World::with(synced(directory()));
    secrets(&world);
    world.cluster.migrates = false;
    world.settle().await;
    assert!(world.api.find("cronjobs", "demo-replicator").is_none());
    says(&world, "False", "NotRunYet", "kubectl create job --from=cronjob/demo-replicator");
    world.cluster.migrates = true;
    world.settle().await;
    assert!(world.is_ready());
    let job = cron_job(&world);
    assert_eq!((&job["suspend"], &job["concurrencyPolicy"]), (&json!(false), &json!("Forbid")));
    let image =
        |world: &World| cron_job(world)["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    assert_eq!(image(&world), "localhost/commpool-replicator:0.1.0");

    // its pods wait for the schema of their version, its schedule does not
    world.cluster.migrates = false;
    let mut newer = synced(directory_with("schedule", json!("@daily")));
    newer["version"] = json!("0.2.0");
    world.set_spec(newer);
    world.settle().await;
    assert_eq!(
        (image(&world), &cron_job(&world)["schedule"]),
        (json!("localhost/commpool-replicator:0.1.0"), &json!("@daily"))
    );
    assert!(is_still(&world.pass().await));
    world.cluster.migrates = true;
    world.settle().await;
    assert_eq!(image(&world), "localhost/commpool-replicator:0.2.0");
}

#[tokio::test]
async fn runs_that_do_not_come_are_missed() {
    let world = world().await;
    ran(&world, "run", &outcome("Synced", 1), 0);
    world.settle().await;
    says(&world, "True", "Synced", "7 entries found");
    // every half hour: due again at 9:00, and the longest run takes an hour
    let ten: Timestamp = "2027-01-15T10:00:00Z".parse().unwrap();
    world.advance(ten.duration_since(world.api.time()).unsigned_abs());
    world.settle().await;
    says(&world, "True", "Synced", "");
    world.advance(Duration::from_secs(1));
    world.settle().await;
    says(
        &world,
        "False",
        "Overdue",
        "since 2027-01-15T08:01:01Z, though two were due; see the events of CronJob demo-replicator",
    );
    assert!(world.is_ready(), "the pool serves whom it has");
    assert!(is_still(&world.pass().await));
    let mut daily = directory();
    daily["schedule"] = json!("0 3 * * *");
    world.set_spec(synced(daily));
    world.settle().await;
    says(&world, "True", "Synced", "");
}

#[tokio::test]
async fn nothing_is_started_before_account_and_authorities_are_there() {
    let world = World::with(synced(directory_with("ldap.bindDNKey", json!("username"))));
    world.settle().await;
    assert!(world.is_ready(), "the pool serves whom it has");
    for (words, name, keys) in [
        (
            "bindSecret: there is no Secret ldap-bind; make it with keys username, password",
            "ldap-bind",
            &["bindDN"][..],
        ),
        ("bindSecret: Secret ldap-bind has no key username", "ldap-bind", &["username", "password"]),
        ("caSecret: there is no Secret ldap-ca; make it with keys ca.crt", "ldap-ca", &["ca.crt"]),
    ] {
        says(&world, "False", "SecretMissing", words);
        assert_eq!(cron_job(&world)["suspend"], true);
        secret(&world, name, keys);
        world.settle().await;
    }
    says(&world, "False", "NotRunYet", "");
    assert_eq!(cron_job(&world)["suspend"], false);
    world.api.delete("secrets", "ldap-ca");
    world.settle().await;
    assert_eq!(cron_job(&world)["suspend"], true);
    assert!(world.is_ready());
}

#[tokio::test]
async fn an_external_database_needs_the_replicators_login_for_it_only() {
    let external = json!({"external": {"host": "db", "credentialsSecret": "db", "tls": {"mode": "disable"}}});
    let world = World::with(enterprise_with(json!({"database": external, "directorySync": directory()})));
    secrets(&world);
    let keys = ["owner-username", "owner-password", "server-username", "server-password"];
    secret(&world, "db", &keys);
    world.settle().await;
    assert!(world.is_ready());
    says(&world, "False", "SecretMissing", "credentialsSecret: Secret db has no key replicator-username");
    secret(&world, "db", &[&keys[..], &["replicator-username", "replicator-password"]].concat());
    world.settle().await;
    says(&world, "False", "NotRunYet", "");
    assert_eq!(cron_job(&world)["suspend"], false);
}

#[tokio::test]
async fn the_newest_run_is_told_and_outlives_its_pod() {
    let mut world = world().await;
    ran(&world, "a", &outcome("Synced", 1), 0);
    world.settle().await;
    says(&world, "True", "Synced", "7 entries found; users: 2 added, 1 changed, 0 disabled");
    says(&world, "True", "Synced", "1 in conflict: alice@example.com: CN=Alice wins");
    let status = world.pool()["status"]["directorySync"].clone();
    assert_eq!(
        (&status["lastSuccess"], &status["lastAttempt"]),
        (&json!("2027-01-15T08:01:01Z"), &json!("2027-01-15T08:01:01Z"))
    );
    assert_eq!((&status["found"], &status["added"], &status["held"]), (&json!(7), &json!(2), &json!(false)));

    ran(&world, "b", &outcome("DirectoryUnavailable", 31), 1);
    // made later, ended before
    ran(&world, "c", &outcome("Busy", 2), 12);
    world.settle().await;
    says(&world, "False", "DirectoryUnavailable", "DirectoryUnavailable in words");
    assert!(world.is_ready(), "users stay");
    let status = world.pool()["status"]["directorySync"].clone();
    assert_eq!(
        (&status["lastSuccess"], &status["lastAttempt"]),
        (&json!("2027-01-15T08:01:01Z"), &json!("2027-01-15T08:31:01Z"))
    );
    assert_eq!((&status["found"], &status["lastError"]), (&json!(7), &json!("DirectoryUnavailable in words")));

    // a pod of the same template that somebody made to look at a plan is no run
    pod(&world, "d", ended("", 10, "Error"));
    world.api.edit("pods", "d", |pod| pod["spec"]["containers"][0]["args"][0] = json!("plan"));
    // the newest goes first: the one before does not come back
    let before = world.pool();
    for pod in ["b", "a", "c"] {
        world.api.delete("pods", pod);
        world.restart_operator();
        assert!(is_still(&world.pass().await));
        assert_eq!(world.pool(), before);
    }
}

#[tokio::test]
async fn a_held_plan_shows_the_digest_that_releases_it() {
    let world = world().await;
    ran(&world, "a", &outcome("DeletionHeld", 1), 11);
    world.settle().await;
    says(&world, "False", "DeletionHeld", "in words (status.directorySync.planDigest: 0123456789abcdef)");
    let status = |world: &World| world.pool()["status"]["directorySync"].clone();
    assert_eq!((&status(&world)["held"], &status(&world)["planDigest"]), (&json!(true), &json!("0123456789abcdef")));
    ran(&world, "b", &outcome("StoreUnavailable", 2), 1);
    world.settle().await;
    assert_eq!(status(&world)["held"], true, "nothing was decided since");

    let replicas = |world: &World| world.api.get("deployments", "demo-front-end")["metadata"]["generation"].clone();
    let generation = replicas(&world);
    world.set_spec(synced(directory_with("removal", json!({"releaseDigest": "0123456789abcdef"}))));
    world.settle().await;
    assert_eq!(replicas(&world), generation, "no front end reads that");
    assert!(replicator_config(&world).directory.unwrap().removal.release_digest == "0123456789abcdef");
    ran(&world, "c", &outcome("Synced", 3), 0);
    world.settle().await;
    says(&world, "True", "Synced", "");
    assert_eq!((&status(&world)["held"], status(&world).get("planDigest")), (&json!(false), None));
}

/// A run that says nothing, and one that does not come so far.
#[tokio::test]
async fn what_keeps_a_run_from_its_work_is_told() {
    let world = world().await;
    pod(&world, "a", ended("", 137, "OOMKilled"));
    world.settle().await;
    says(&world, "False", "RunFailed", "pod a ended with exit code 137 (OOMKilled)");
    world.advance(Duration::from_secs(60));
    pod(&world, "b", json!({"phase": "Failed", "reason": "Evicted"}));
    world.settle().await;
    says(&world, "False", "RunFailed", "pod a ended");

    world.advance(Duration::from_secs(7_200));
    pod(&world, "c", json!({"phase": "Failed", "reason": "Evicted"}));
    world.settle().await;
    says(&world, "False", "RunFailed", "pod c ended (Evicted)");
    let waiting = json!({"phase": "Pending", "containerStatuses": [{"name": "replicator", "image": "x:1", "imageID": "",
        "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff"}}}]});
    world.advance(Duration::from_secs(60));
    pod(&world, "d", waiting);
    world.settle().await;
    says(&world, "False", "ImageMissing", "pod d: its node cannot get image x:1");
    let unscheduled = json!({"phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]});
    world.api.edit("pods", "d", |pod| pod["status"] = unscheduled);
    world.settle().await;
    says(&world, "False", "Unschedulable", "0/1 nodes");
    world.api.edit("pods", "d", |pod| pod["status"] = json!({"phase": "Running"}));
    world.settle().await;
    says(&world, "False", "RunFailed", "pod c ended");
    assert!(world.is_ready());
}

#[tokio::test]
async fn a_schedule_is_changed_suspended_and_taken_away() {
    let mut world = world().await;
    ran(&world, "a", &outcome("Synced", 1), 0);
    world.set_spec(synced(directory_with("schedule", json!("0 6 * * MON-FRI"))));
    world.settle().await;
    assert_eq!(
        (&cron_job(&world)["schedule"], &cron_job(&world)["timeZone"]),
        (&json!("0 6 * * MON-FRI"), &json!("UTC"))
    );
    world.set_spec(synced(directory_with("timeZone", json!("Europe/Berlin"))));
    world.settle().await;
    assert_eq!(cron_job(&world)["timeZone"], "Europe/Berlin");
    world.set_spec(synced(directory_with("suspend", json!(true))));
    world.settle().await;
    assert_eq!(cron_job(&world)["suspend"], true);
    says(&world, "False", "Suspended", "before: 7 entries found");
    assert!(world.is_ready());
    world.set_spec(synced(directory()));
    world.settle().await;
    says(&world, "True", "Synced", "");

    // paused: it stays, though nobody wants it
    world.set_spec(enterprise_with(json!({"operations": {"paused": true}})));
    world.settle().await;
    assert!(world.api.find("cronjobs", "demo-replicator").is_some());
    world.set_spec(enterprise());
    world.restart_operator();
    world.settle().await;
    assert!(world.api.find("cronjobs", "demo-replicator").is_none() && world.api.find("pods", "a").is_none());
    assert!(world.condition("DirectorySynced").is_none() && world.pool()["status"].get("directorySync").is_none());
    assert!(!world.api.get("secrets", "demo-config")["data"].as_object().unwrap().contains_key("replicator.yaml"));
    assert!(world.is_ready() && is_still(&world.pass().await));
}

#[tokio::test]
async fn a_cron_job_of_somebody_else_is_neither_taken_nor_deleted() {
    let world = World::with(enterprise());
    let stranger = json!({"apiVersion": "batch/v1", "kind": "CronJob", "spec": {"schedule": "@daily"},
        "metadata": {"name": "demo-replicator", "namespace": NAMESPACE}});
    world.api.put("batch", "cronjobs", stranger);
    world.settle().await;
    assert!(world.is_ready());
    world.set_spec(synced(directory()));
    world.settle().await;
    let (_, reason, message) = world.condition("Stalled").unwrap();
    assert!(reason == "NameTaken" && message.contains("CronJob demo-replicator"), "{reason}: {message}");
    world.set_spec(enterprise());
    world.settle().await;
    assert!(world.is_ready());
    assert_eq!(world.api.get("cronjobs", "demo-replicator")["spec"], json!({"schedule": "@daily"}));
}

#[tokio::test]
async fn what_no_server_would_take_is_refused_by_its_field() {
    for (path, value, field) in [
        ("timeZone", json!("Mars/Base"), "spec.directorySync.timeZone: `Mars/Base`"),
        ("schedule", json!("61 * * * *"), "spec.directorySync.schedule: `61"),
        ("ldap.urls", json!(["ldaps://dc1:0"]), "spec.directorySync.ldap.urls[0]"),
        ("mapping", json!({"sipAddress": ["{uid}"]}), "spec.directorySync.mapping.sipAddress[0]"),
    ] {
        for world in [
            World::with(synced(directory_with(path, value.clone()))),
            World::with(spec(json!({"directorySync": directory_with(path, value.clone())}))),
        ] {
            world.settle().await;
            let (_, reason, message) = world.condition("Stalled").unwrap();
            assert!(reason == "Invalid" && message.starts_with(field), "{reason}: {message}");
        }
    }
}

fn config(world: &World, key: &str) -> PoolConfig {
    let octets = world.api.get("secrets", "demo-config")["data"][key].clone();
    let octets: ByteString = serde_json::from_value(octets).unwrap();
    PoolConfig::from_yaml(std::str::from_utf8(&octets.0).unwrap()).unwrap()
}

fn replicator_config(world: &World) -> PoolConfig {
    config(world, "replicator.yaml")
}

#[tokio::test]
async fn the_replicator_is_told_what_the_servers_are_and_the_directory() {
    let world = world().await;
    let (server, replicator) = (config(&world, "config.yaml"), replicator_config(&world));
    assert_eq!(server.directory, None);
    let directory = replicator.directory.unwrap();
    assert_eq!((directory.schedule, directory.ldap.base_dn.as_str()), (None, "DC=example,DC=com"));
    assert_eq!(replicator.store, server.store);
}

fn standard(directory: Value) -> Value {
    spec(json!({"directorySync": directory}))
}

fn generation(world: &World) -> Value {
    world.api.get("statefulsets", "demo-front-end")["metadata"]["generation"].clone()
}

#[tokio::test]
async fn the_server_of_standard_edition_is_told_the_directory_without_a_restart() {
    let world = World::with(standard(directory()));
    world.settle().await;
    assert!(world.is_ready(), "a pod starts without the account, too");
    says(&world, "False", "SecretMissing", "ldap-bind");
    secrets(&world);
    world.settle().await;
    says(&world, "False", "NotRunYet", "");
    assert!(world.api.find("cronjobs", "demo-replicator").is_none());
    let before = generation(&world);
    for (path, value) in [
        ("schedule", json!("@hourly")),
        ("suspend", json!(true)),
        ("ldap.filter", json!("(uid=*)")),
        ("removal", json!({"releaseDigest": "0123456789abcdef"})),
    ] {
        world.set_spec(standard(directory_with(path, value)));
        world.settle().await;
        assert!(world.is_ready());
        assert_eq!(generation(&world), before, "{path} restarts nobody");
    }
    let told = config(&world, "config.yaml").directory.unwrap();
    assert_eq!(told.removal.release_digest, "0123456789abcdef");
    assert_eq!(told.schedule.unwrap().cron, "*/30 * * * *");
    world.set_spec(standard(directory_with("ldap.bindSecret", json!("other"))));
    world.settle().await;
    assert_ne!(generation(&world), before, "another Secret is another file");
}

fn answers(world: &World, outcome: &Value) {
    world.server().answer = Ok(Some(serde_json::from_value(outcome.clone()).unwrap()));
}

#[tokio::test]
async fn the_server_of_standard_edition_is_asked_what_its_runs_came_to() {
    let mut world = World::with(standard(directory()));
    secrets(&world);
    world.settle().await;
    says(&world, "False", "NotRunYet", "no run of the server is known yet");
    answers(&world, &outcome("Synced", 1));
    world.settle().await;
    says(&world, "True", "Synced", "7 entries found");
    for _ in 0..3 {
        world.restart_operator();
        assert!(is_still(&world.pass().await));
    }

    // a server that starts again has forgotten, the pool has not
    let before = world.pool();
    world.server().answer = Ok(None);
    assert!(is_still(&world.pass().await));
    assert_eq!(world.pool(), before);
    answers(&world, &outcome("DeletionHeld", 2));
    world.settle().await;
    says(&world, "False", "DeletionHeld", "0123456789abcdef");
    assert!(world.is_ready());

    // it may be slow for once
    world.server().answer = Err(AskError::Late);
    for _ in 0..2 {
        assert!(is_still(&world.pass().await));
    }
    world.settle().await;
    says(
        &world,
        "False",
        "NotAnswering",
        "pod demo-front-end-0, asked at 10.0.0.9:9090: it does not answer within 3 s",
    );
    assert!(world.is_ready());
    world.restart_operator();
    assert!(is_still(&world.pass().await));
    answers(&world, &outcome("Synced", 3));
    world.settle().await;
    says(&world, "True", "Synced", "");

    // nobody is asked who does not serve
    world.cluster.serves = false;
    world.api.edit("pods", "demo-front-end-0", |pod| pod["status"]["conditions"][0]["status"] = json!("False"));
    let asked = world.server().asked;
    world.pass().await;
    assert_eq!(world.server().asked, asked);
    says(&world, "True", "Synced", "");
}

#[tokio::test]
async fn nobody_is_asked_without_a_directory() {
    for spec in [minimal(), synced(directory())] {
        let world = World::with(spec);
        world.settle().await;
        assert_eq!(world.server().asked, 0);
    }
}
