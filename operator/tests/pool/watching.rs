//! The whole controller: watches, events, rights.

use std::collections::BTreeSet;
use std::time::Duration;

use commpool_operator::install::RIGHTS;
use commpool_operator::watch::{Scope, run};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::directory::secrets;
use crate::support::cluster::Cluster;
use crate::support::{NAMESPACE, World, directory, enterprise, enterprise_with, minimal, spec};

/// The operator's controller at work on a world, until dropped.
struct Running {
    _stop: oneshot::Sender<()>,
}

fn start(world: &World) -> Running {
    let (stop, stopped) = oneshot::channel::<()>();
    let (client, context) = (world.api.client(), world.context());
    let ended = async move { drop(stopped.await) };
    tokio::spawn(run(client, Scope::default(), context, futures::FutureExt::shared(futures::FutureExt::boxed(ended))));
    Running { _stop: stop }
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_never_saw_its_pools_ends_all_the_same() {
    let world = World::empty();
    world.api.break_after(Some(0));
    let began = tokio::time::Instant::now();
    run(world.api.client(), Scope::default(), world.context(), std::future::ready(())).await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

/// Lets the cluster work until `goal` is reached, for at most 20 minutes of the paused clock.
async fn until(world: &World, what: &str, goal: impl Fn(&World) -> bool) {
    let reached = timeout(Duration::from_secs(1_200), async {
        while !goal(world) {
            world.cluster.step(&world.api);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    reached.await.unwrap_or_else(|_| panic!("{what}: {:#}", world.pool()["status"]));
}

fn exists(world: &World, resource: &str, name: &str) -> bool {
    world.api.find(resource, name).is_some()
}

#[tokio::test(start_paused = true)]
async fn events_lead_to_ready_and_deletions_are_repaired_at_once() {
    let world = World::with(minimal());
    let _running = start(&world);
    until(&world, "ready", World::is_ready).await;
    for (resource, name) in [
        ("services", "demo"),
        ("secrets", "demo-tls"),
        ("secrets", "demo-config"),
        ("serviceaccounts", "demo-front-end"),
    ] {
        let began = tokio::time::Instant::now();
        Cluster::delete(&world.api, resource, name);
        until(&world, name, |world| exists(world, resource, name) && world.is_ready()).await;
        assert!(began.elapsed() < Duration::from_secs(10), "{name} took {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_given_secret_is_taken_up_when_it_comes() {
    let world = World::with(spec(json!({"tls": {"secretName": "own"}})));
    let _running = start(&world);
    let stalled = |world: &World| world.reason("Stalled").as_deref() == Some("SecretMissing");
    until(&world, "stalled", stalled).await;
    let other = World::with(minimal());
    other.settle().await;
    let data = other.api.get("secrets", "demo-tls")["data"].clone();
    let began = tokio::time::Instant::now();
    world.api.put("", "secrets", json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "own", "namespace": NAMESPACE}, "data": data}));
    until(&world, "ready", World::is_ready).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_lost_event_is_made_up_for() {
    let world = World::with(minimal());
    let _running = start(&world);
    until(&world, "ready", World::is_ready).await;
    for resource in ["services", "secrets", "statefulsets"] {
        world.api.lose_events_of(resource);
    }
    Cluster::delete(&world.api, "services", "demo");
    Cluster::delete(&world.api, "secrets", "demo-config");
    until(&world, "repaired", |world| exists(world, "services", "demo") && exists(world, "secrets", "demo-config"))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_api_server_is_asked_less_and_less_often() {
    let world = World::with(minimal());
    world.api.break_after(Some(3));
    let _running = start(&world);
    tokio::time::sleep(Duration::from_secs(1_800)).await;
    world.api.break_after(None);
    until(&world, "ready", World::is_ready).await;
}

#[tokio::test(start_paused = true)]
async fn each_change_of_a_condition_is_told_by_one_event() {
    let world = World::with(minimal());
    let _running = start(&world);
    until(&world, "ready", World::is_ready).await;
    let told = |world: &World| -> Vec<String> {
        let events = world.api.all().into_iter().filter(|(key, _)| key.resource == "events");
        events.map(|(_, event)| event["note"].as_str().unwrap_or_default().to_owned()).collect()
    };
    until(&world, "told", |world| told(world).iter().any(|note| note.starts_with("Ready is True"))).await;
    let before = told(&world);
    for change in [
        "FrontEndAvailable is True",
        "CertificatesValid is True",
        "VipServing is True",
        "Ready is True",
        "Reconciling is False",
    ] {
        let times = before.iter().filter(|note| note.starts_with(change)).count();
        assert_eq!(times, 1, "{change}: {before:#?}");
    }
    world.api.edit("statefulsets", "demo-front-end", |it| {
        it["spec"]["template"]["spec"]["containers"][0]["image"] = json!("other")
    });
    let repaired = |world: &World| {
        told(world).iter().any(|note| note == "StatefulSet demo-front-end: spec.template.spec.containers.server.image")
    };
    until(&world, "told of the repair", repaired).await;
}

/// Both ways: no request without a right, and no right without a request.
#[tokio::test(start_paused = true)]
async fn the_roles_hold_exactly_what_is_used() {
    let mut used = BTreeSet::new();
    for more in [json!({}), json!({"tls": {"secretName": "own"}})] {
        let world = World::with(spec(more.clone()));
        let _running = start(&world);
        if more == json!({}) {
            until(&world, "ready", World::is_ready).await;
            world.set_spec(spec(json!({"version": "0.2.0", "frontEnd": {"storage": {"size": "9Gi"}}})));
            until(&world, "grown", |world| world.pool()["status"]["version"] == "0.2.0" && world.is_ready()).await;
            // the same event again within minutes is patched
            for image in ["a", "b", "c"] {
                let image_of = |it: &Value| it["spec"]["template"]["spec"]["containers"][0]["image"].clone();
                world.api.edit("statefulsets", "demo-front-end", |it| {
                    it["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image)
                });
                until(&world, "repaired", |world| {
                    image_of(&world.api.get("statefulsets", "demo-front-end")) != image && world.is_ready()
                })
                .await;
            }
        } else {
            until(&world, "stalled", |world| world.condition("Stalled").is_some()).await;
        }
        used.extend(world.api.take_log().into_iter().map(|seen| (seen.group, seen.resource, seen.verb.to_owned())));
    }
    used.extend(used_by_enterprise().await);
    let granted: BTreeSet<_> = RIGHTS
        .iter()
        .flat_map(|right| {
            right.verbs.iter().map(|verb| (right.group.to_owned(), right.resource.to_owned(), (*verb).to_owned()))
        })
        .collect();
    let list = |set: &BTreeSet<(String, String, String)>, other: &BTreeSet<(String, String, String)>| {
        set.difference(other).cloned().collect::<Vec<_>>()
    };
    assert_eq!(list(&used, &granted), [], "used but not granted");
    assert_eq!(list(&granted, &used), [], "granted but not used");
}

/// Group, resource and verb of all that a pool of Enterprise Edition makes the operator ask for.
async fn used_by_enterprise() -> BTreeSet<(String, String, String)> {
    let world = World::with(enterprise());
    let _running = start(&world);
    until(&world, "ready", World::is_ready).await;
    world.set_spec(enterprise_with(json!({"version": "0.2.0"})));
    until(&world, "upgraded", |world| world.pool()["status"]["version"] == "0.2.0" && world.is_ready()).await;
    world.api.edit("poddisruptionbudgets", "demo-front-end", |budget| budget["spec"]["maxUnavailable"] = json!(0));
    let allowed =
        |world: &World| world.api.get("poddisruptionbudgets", "demo-front-end")["spec"]["maxUnavailable"].clone();
    until(&world, "repaired", |world| allowed(world) == 1).await;
    world.set_spec(enterprise_with(json!({"directorySync": directory()})));
    let halted =
        |world: &World| world.api.find("cronjobs", "demo-replicator").map(|job| job["spec"]["suspend"] == json!(true));
    until(&world, "halted", |world| halted(world) == Some(true)).await;
    secrets(&world);
    until(&world, "running", |world| halted(world) == Some(false)).await;
    world.set_spec(enterprise());
    until(&world, "deleted", |world| halted(world).is_none()).await;
    world.api.take_log().into_iter().map(|seen| (seen.group, seen.resource, seen.verb.to_owned())).collect()
}
