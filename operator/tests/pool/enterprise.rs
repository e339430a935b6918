//! Enterprise Edition: database, schema and front ends in their order, and what holds them up.

use std::time::Duration;

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::{NAMESPACE, World, assert_same, enterprise, enterprise_with};

fn image(world: &World, resource: &str, name: &str) -> String {
    let workload = world.api.get(resource, name);
    workload["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
}

fn front_ends(world: &World) -> Value {
    world.api.get("deployments", "demo-front-end")
}

fn is(world: &World, type_: &str, reason: &str) -> bool {
    world.reason(type_).as_deref() == Some(reason)
}

/// One pass, and the cluster's answer to it.
async fn turn(world: &World) {
    world.pass().await;
    world.cluster.step(&world.api);
}

#[tokio::test]
async fn the_first_front_end_comes_after_database_and_schema() {
    let mut world = World::with(enterprise());
    world.cluster.stores = false;
    world.settle().await;
    assert!(world.api.find("statefulsets", "demo-database").is_some());
    assert!(world.migrations().is_empty() && world.api.find("deployments", "demo-front-end").is_none());
    assert!(is(&world, "DatabaseAvailable", "NotReady") && is(&world, "SchemaCurrent", "AwaitingDatabase"));
    assert!(is(&world, "Reconciling", "NotReady"), "{:#}", world.pool()["status"]);

    (world.cluster.stores, world.cluster.migrates) = (true, false);
    world.settle().await;
    assert_eq!(world.migrations().len(), 1);
    assert!(world.api.find("deployments", "demo-front-end").is_none());
    assert!(is(&world, "DatabaseAvailable", "Available") && is(&world, "Reconciling", "Migrating"));

    world.cluster.migrates = true;
    world.settle().await;
    assert!(world.is_ready(), "{:#}", world.pool()["status"]);
    let status = &world.pool()["status"]["frontEnd"];
    assert_eq!((&status["replicas"], &status["readyReplicas"]), (&json!(2), &json!(2)));
    assert!(world.condition("Ready").unwrap().2.contains("2 front ends of version 0.1.0 take clients"));
}

/// A changed version stops at each gate until the step before is seen done, and says where it is.
#[tokio::test]
async fn an_upgrade_takes_one_step_after_the_other() {
    let mut world = World::with(enterprise());
    world.settle().await;
    let (first, before) = (world.migrations(), front_ends(&world));
    world.set_spec(enterprise_with(json!({"version": "0.2.0"})));
    (world.cluster.stores, world.cluster.migrates, world.cluster.serves) = (false, false, false);

    world.pass().await;
    assert_eq!(image(&world, "statefulsets", "demo-database"), "localhost/commpool-database:0.2.0");
    assert!(is(&world, "Reconciling", "RollingOut"));
    world.settle().await;
    assert!(is(&world, "Reconciling", "NotReady") && is(&world, "FrontEndAvailable", "Held"));
    assert_eq!(front_ends(&world)["spec"], before["spec"]);

    world.cluster.stores = true;
    world.settle().await;
    let second = world.migrations();
    assert_eq!(second.len(), 1, "the one of the version before is told to end");
    assert_ne!(second[0]["metadata"]["name"], first[0]["metadata"]["name"]);
    assert!(is(&world, "Reconciling", "Migrating") && is(&world, "FrontEndAvailable", "Held"));
    let message = world.condition("FrontEndAvailable").unwrap().2;
    assert!(message.contains("version 0.1.0"), "{message}");
    assert_eq!(front_ends(&world)["spec"], before["spec"]);

    world.cluster.migrates = true;
    world.settle().await;
    assert_eq!(image(&world, "deployments", "demo-front-end"), "localhost/commpool-server:0.2.0");
    assert!(is(&world, "Reconciling", "RollingOut"), "{:#}", world.pool()["status"]);

    world.cluster.serves = true;
    world.settle().await;
    assert!(world.is_ready());
    let fresh = World::with(enterprise_with(json!({"version": "0.2.0"})));
    fresh.settle().await;
    assert_same(&world.objects(), &fresh.objects(), "upgraded and fresh");
}

/// The number of front ends can change while their template waits, and what others added to them stays.
#[tokio::test]
async fn front_ends_scale_while_a_new_version_waits() {
    let mut world = World::with(enterprise());
    world.settle().await;
    world.api.edit("deployments", "demo-front-end", |it| {
        let containers = it["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap();
        containers.push(json!({"name": "sidecar", "image": "mesh"}));
    });
    world.settle().await;
    let template = front_ends(&world)["spec"]["template"].clone();
    world.cluster.migrates = false;
    world.set_spec(enterprise_with(json!({"version": "0.2.0", "frontEnd": {"replicas": 4}})));
    world.settle().await;
    assert_eq!(front_ends(&world)["spec"]["replicas"], 4);
    assert_eq!(front_ends(&world)["spec"]["template"], template);
    assert!(world.pass().await.iter().all(|seen| !seen.is_write()));
    world.cluster.migrates = true;
    world.settle().await;
    assert!(world.is_ready());
    assert_eq!(image(&world, "deployments", "demo-front-end"), "localhost/commpool-server:0.2.0");
    assert_eq!(front_ends(&world)["spec"]["template"]["spec"]["containers"][1]["name"], "sidecar");
}

/// While the database is away front ends are not touched, and nothing is written again and again.
#[tokio::test]
async fn a_database_that_is_away_costs_no_front_end() {
    let mut world = World::with(enterprise());
    world.settle().await;
    let (before, jobs) = (front_ends(&world)["metadata"]["generation"].clone(), world.migrations());
    world.cluster.stores = false;
    world.api.edit("pods", "demo-database-0", |pod| pod["status"] = json!({}));
    world.settle().await;
    assert!(is(&world, "DatabaseAvailable", "NotReady") && is(&world, "SchemaCurrent", "Migrated"));
    assert!(is(&world, "FrontEndAvailable", "Available"), "they serve as declared");
    assert!(world.pass().await.iter().all(|seen| !seen.is_write()));
    world.cluster.stores = true;
    world.settle().await;
    assert!(world.is_ready());
    assert_eq!((&front_ends(&world)["metadata"]["generation"], world.migrations()), (&before, jobs));
}

#[tokio::test]
async fn a_migration_that_failed_for_good_is_made_anew_and_one_without_use_is_forgotten() {
    let mut world = World::with(enterprise());
    world.cluster.migrates = false;
    world.settle().await;
    let name = world.migrations()[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let failed = json!({"conditions": [{"type": "Failed", "status": "True", "message": "no room",
        "lastTransitionTime": world.api.time().to_string()}]});
    world.api.edit("jobs", &name, |job| job["status"] = failed);
    world.settle().await;
    assert!(world.condition("SchemaCurrent").unwrap().2.contains("no room"));
    world.cluster.migrates = true;
    world.advance(Duration::from_secs(11));
    world.settle().await;
    world.settle().await;
    assert!(world.is_ready(), "{:#}", world.pool()["status"]);
    assert_eq!(world.migrations()[0]["metadata"]["name"], json!(name));

    // there and back: the first one is still known, and not repeated
    let uid = world.migrations()[0]["metadata"]["uid"].clone();
    world.set_spec(enterprise_with(json!({"version": "0.2.0"})));
    world.settle().await;
    world.set_spec(enterprise_with(json!({"version": "0.1.0"})));
    world.settle().await;
    assert_eq!(world.migrations()[0]["metadata"]["uid"], uid);
    let jobs = |world: &World| world.api.all().into_keys().filter(|key| key.resource == "jobs").count();
    assert_eq!(jobs(&world), 2);
    world.advance(Duration::from_secs(3_601));
    world.cluster.step(&world.api);
    assert_eq!(jobs(&world), 1);
}

/// A migration that is at work when another version is asked for ends, and the other one is not kept waiting.
#[tokio::test]
async fn a_migration_under_way_ends_when_another_version_is_asked_for() {
    let mut world = World::with(enterprise());
    world.settle().await;
    world.cluster.migrates = false;
    world.set_spec(enterprise_with(json!({"version": "0.2.0"})));
    world.settle().await;
    let name = world.migrations()[0]["metadata"]["name"].as_str().unwrap().to_owned();
    world.set_spec(enterprise_with(json!({"version": "0.3.0"})));
    for _ in 0..6 {
        turn(&world).await;
    }
    assert_eq!(world.api.get("jobs", &name)["status"]["conditions"][0]["type"], "Failed");
    world.cluster.migrates = true;
    world.settle().await;
    assert!(world.is_ready());
    assert_eq!(world.pool()["status"]["version"], "0.3.0");
}

/// A Secret that went while its volume stayed is made anew; the database takes up the one and the migration sets the
/// others.
#[tokio::test]
async fn lost_logins_are_made_anew_and_set() {
    let world = World::with(enterprise());
    world.settle().await;
    let hash = |world: &World| {
        let database = world.api.get("statefulsets", "demo-database");
        database["spec"]["template"]["metadata"]["annotations"]["commpool.dev/credentials-hash"].clone()
    };
    let (before, job) = (hash(&world), world.migrations()[0]["metadata"]["name"].clone());
    let generation = front_ends(&world)["metadata"]["generation"].clone();
    Cluster::delete(&world.api, "secrets", "demo-database-credentials");
    world.settle().await;
    assert!(world.is_ready());
    assert_ne!(hash(&world), before, "the database starts again");
    assert_ne!(world.migrations()[0]["metadata"]["name"], job, "the passwords are set again");
    assert_eq!(front_ends(&world)["metadata"]["generation"], generation, "front ends read the new ones by themselves");
}

#[tokio::test]
async fn the_last_front_end_can_be_taken_from_its_node() {
    let world = World::with(enterprise_with(json!({"frontEnd": {"replicas": 1}})));
    world.settle().await;
    assert!(world.api.find("poddisruptionbudgets", "demo-front-end").is_none());
    world.set_spec(enterprise_with(json!({"frontEnd": {"replicas": 3}})));
    world.settle().await;
    let budget = world.api.get("poddisruptionbudgets", "demo-front-end")["spec"].clone();
    assert_eq!((&budget["maxUnavailable"], &budget["unhealthyPodEvictionPolicy"]), (&json!(1), &json!("AlwaysAllow")));
    // the operator deletes nothing: this budget never keeps a single front end on its node
    world.set_spec(enterprise_with(json!({"frontEnd": {"replicas": 1}})));
    world.settle().await;
    assert_eq!(world.api.get("poddisruptionbudgets", "demo-front-end")["spec"], budget);
    assert!(world.pass().await.iter().all(|seen| !seen.is_write()));
}

fn secret(name: &str, entries: &[(&str, &str)]) -> Value {
    let octets = |text: &str| json!(ByteString(text.as_bytes().to_vec()));
    let data: serde_json::Map<String, Value> =
        entries.iter().map(|(key, value)| ((*key).to_owned(), octets(value))).collect();
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE}, "data": data})
}

/// The logins of an external database, without those of `left_out`.
fn logins(left_out: &str) -> Value {
    let all = ["owner-username", "owner-password", "server-username", "server-password"];
    let entries: Vec<(&str, &str)> = all.into_iter().filter(|key| *key != left_out).map(|key| (key, "x")).collect();
    secret("db", &entries)
}

fn external() -> Value {
    enterprise_with(json!({"database": {"external":
        {"host": "db.example.com", "credentialsSecret": "db", "tls": {"caSecret": "db-ca"}}}}))
}

#[tokio::test]
async fn an_external_database_is_reached_by_what_somebody_else_keeps() {
    let mut world = World::with(external());
    world.settle().await;
    let stalled = |world: &World, words: &str| {
        let (_, reason, message) = world.condition("Stalled").expect("a Stalled condition");
        assert!(reason == "CredentialsMissing" && message.contains(words), "{reason}: {message}");
        assert!(world.migrations().is_empty() && world.api.find("deployments", "demo-front-end").is_none());
    };
    stalled(
        &world,
        "spec.database.external.credentialsSecret: there is no Secret db; make it with keys owner-username",
    );
    world.api.put("", "secrets", logins("server-password"));
    world.settle().await;
    stalled(&world, "Secret db has no key server-password");
    world.api.put("", "secrets", logins(""));
    world.settle().await;
    stalled(&world, "spec.database.external.tls.caSecret: there is no Secret db-ca; make it with keys ca.crt");
    world.api.put("", "secrets", secret("db-ca", &[("ca.crt", "x")]));
    world.cluster.migrates = false;
    world.settle().await;
    assert!(is(&world, "DatabaseAvailable", "NotReached") && is(&world, "SchemaCurrent", "Migrating"));
    world.cluster.migrates = true;
    world.settle().await;
    assert!(world.is_ready(), "{:#}", world.pool()["status"]);
    assert!(world.condition("DatabaseAvailable").unwrap().2.contains("reached db.example.com:5432"));
    for (resource, name) in [
        ("statefulsets", "demo-database"),
        ("services", "demo-database"),
        ("secrets", "demo-database-credentials"),
        ("persistentvolumeclaims", "demo-database"),
    ] {
        assert!(world.api.find(resource, name).is_none(), "{resource} {name}");
    }

    // a Secret that goes later takes nothing from those who are served
    let before = front_ends(&world)["spec"].clone();
    Cluster::delete(&world.api, "secrets", "db");
    world.set_spec({
        let mut spec = external();
        spec["version"] = json!("0.2.0");
        spec
    });
    world.settle().await;
    assert!(is(&world, "Stalled", "CredentialsMissing") && is(&world, "FrontEndAvailable", "Held"));
    assert_eq!(front_ends(&world)["spec"], before);
}
