//! Whatever happens on the way, the pool comes out the same, and then nothing more is written.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::{Objects, POOL, World, assert_same, directory, enterprise, enterprise_with, minimal, spec};

#[tokio::test]
async fn a_short_resource_becomes_a_serving_pool() {
    let world = World::with(minimal());
    let writes = world.settle().await;
    assert!(world.is_ready(), "{:#}", world.pool()["status"]);
    assert!(writes < 30, "{writes} writes");
    let status = &world.pool()["status"];
    assert!(world.condition("DatabaseAvailable").is_none() && world.condition("SchemaCurrent").is_none());
    assert_eq!(status["addresses"], json!([{"host": "198.51.100.7", "port": 5061, "transport": "tls"}]));
    assert_eq!(status["version"], "0.1.0");
    assert_eq!(status["observedGeneration"], world.pool()["metadata"]["generation"]);
    assert_eq!(status["frontEnd"]["readyReplicas"], 1);
}

#[tokio::test]
async fn at_rest_nothing_is_written_not_even_by_a_new_operator() {
    for spec in [minimal(), enterprise()] {
        let mut world = World::with(spec);
        world.settle().await;
        for round in 0..5 {
            world.advance(Duration::from_secs(600));
            if round == 2 {
                world.restart_operator();
            }
            let writes: Vec<_> = world.pass().await.into_iter().filter(|seen| seen.is_write()).collect();
            assert_eq!(writes, [], "round {round}");
        }
    }
}

#[tokio::test]
async fn a_crash_after_any_write_ends_in_the_same_pool() {
    for spec in [minimal(), enterprise()] {
        crashes_after_each_write(&World::with(spec)).await;
    }
}

/// The same for an upgrade: wherever the operator was when it ended, no step is left out.
#[tokio::test]
async fn a_crash_in_an_upgrade_ends_in_the_same_pool() {
    let world = World::with(enterprise());
    world.settle().await;
    world.set_spec(enterprise_with(json!({"version": "0.2.0"})));
    crashes_after_each_write(&world).await;
}

async fn crashes_after_each_write(begun: &World) {
    let smooth = begun.fork();
    let writes = smooth.settle().await;
    for survived in 0..=writes {
        let mut world = begun.fork();
        world.api.break_after(Some(survived));
        for _ in 0..10 {
            // it can do nothing more
            if world.pass().await.is_empty() {
                break;
            }
            world.cluster.step(&world.api);
        }
        world.api.break_after(None);
        world.restart_operator();
        world.settle().await;
        assert!(world.is_ready(), "crash after write {survived}: {:#}", world.pool()["status"]);
        assert_same(&world.objects(), &smooth.objects(), &format!("crash after write {survived}"));
    }
}

#[tokio::test]
async fn keys_made_by_chance_are_never_made_again() {
    const CHANCE: [&str; 5] = ["demo-keys", "demo-ca", "demo-tls", "demo-peer-tls", "demo-database-credentials"];
    let mut world = World::with(enterprise());
    world.settle().await;
    let secrets = CHANCE.map(|name| world.api.get("secrets", name)["data"].clone());
    world.restart_operator();
    world.api.edit("secrets", "demo-keys", |secret| secret["metadata"]["labels"] = json!({}));
    for kept in ["demo-ca", "demo-database-credentials"] {
        world.api.edit("secrets", kept, |secret| secret["metadata"]["labels"] = json!({"commpool.dev/kept-for": POOL}));
    }
    world.settle().await;
    assert_eq!(secrets, CHANCE.map(|name| world.api.get("secrets", name)["data"].clone()));
}

/// Variations of each field that has an effect.
fn variations() -> Vec<(&'static str, Value)> {
    vec![
        ("version", json!({"version": "0.2.0"})),
        ("domains", json!({"sipDomains": ["example.com", "example.org"]})),
        ("image", json!({"image": {"registry": "r.example.com/x", "pullPolicy": "Never", "pullSecrets": ["r"]}})),
        ("resources", json!({"frontEnd": {"resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}})),
        (
            "placement",
            json!({"frontEnd": {"placement": {"nodeSelector": {"a": "b"}, "spread": "None",
            "tolerations": [{"key": "chat", "operator": "Exists"}]}}}),
        ),
        ("pod annotations", json!({"frontEnd": {"podAnnotations": {"example.com/a": "b"}}})),
        ("cluster IP", json!({"service": {"type": "ClusterIP"}})),
        ("node port", json!({"service": {"type": "NodePort", "hostname": "sip.example.com"}})),
        ("all transports", json!({"service": {"listeners": {"tls": 443, "tcp": 5060, "udp": 5060}}})),
        ("no TLS", json!({"service": {"listeners": {"tcp": 5060}}})),
        (
            "balancer",
            json!({"service": {"externalTrafficPolicy": "Cluster", "loadBalancerClass": "x",
            "loadBalancerSourceRanges": ["192.0.2.0/24"], "annotations": {"example.com/c": "d"}}}),
        ),
        ("host name", json!({"service": {"hostname": "sip.example.com"}})),
        ("digest", json!({"authentication": {"digest": ["MD5"]}})),
        ("policy", json!({"policy": {"maxMessageBytes": 4096}})),
        ("directory", json!({"directorySync": directory()})),
    ]
}

/// Those of Enterprise Edition alone.
fn variations_of_enterprise() -> Vec<(&'static str, Value)> {
    vec![
        ("front ends", json!({"frontEnd": {"replicas": 5}})),
        ("drain", json!({"frontEnd": {"drain": {"timeoutSeconds": 300, "flowsPerSecond": 7}}})),
        ("surge", json!({"frontEnd": {"maxSurge": 1}})),
        (
            "database's resources",
            json!({"database": {"embedded": {"resources": {"requests": {"cpu": 1}, "limits": {"memory": "2Gi"}}}}}),
        ),
    ]
}

#[tokio::test]
async fn every_field_has_an_effect_and_leaves_no_trace_when_taken_back() {
    let of = |first: Value, variations: Vec<(&'static str, Value)>| {
        variations.into_iter().map(move |(name, more)| (name, first.clone(), with(first.clone(), more)))
    };
    let enterprise_too = variations().into_iter().chain(variations_of_enterprise()).collect();
    for (name, basis, other) in of(minimal(), variations()).chain(of(enterprise(), enterprise_too)) {
        let world = World::with(basis.clone());
        world.settle().await;
        let first = world.objects();

        world.set_spec(other.clone());
        world.settle().await;
        assert!(world.is_ready(), "{name}: {:#}", world.pool()["status"]);
        let varied = world.objects();
        assert_ne!(without_pool(&first), without_pool(&varied), "{name} has no effect");
        let fresh = World::with(other);
        fresh.settle().await;
        let way = format!("{name} depends on the way");
        assert_same(&without_leftovers(&varied), &without_leftovers(&fresh.objects()), &way);

        world.set_spec(basis);
        world.settle().await;
        if name == "version" {
            // what was asked for once stays: a version is never chosen for the user a second time
            assert_eq!(world.pool()["status"]["version"], "0.2.0");
            continue;
        }
        assert_same(&world.objects(), &first, &format!("{name} leaves traces"));
    }
}

fn with(mut spec: Value, more: Value) -> Value {
    for (key, value) in more.as_object().expect("fields") {
        spec[key] = value.clone();
    }
    spec
}

fn without_pool(objects: &Objects) -> Objects {
    let objects = objects.iter().filter(|(key, _)| key.resource != "communicationspools");
    objects.map(|(key, object)| (key.clone(), object.clone())).collect()
}

/// The pool's own authority stays when it is not needed any more: clients trust it.
fn without_leftovers(objects: &Objects) -> Objects {
    let leftovers = ["demo-ca", "demo-tls"];
    objects
        .iter()
        .filter(|(key, _)| !leftovers.contains(&key.name.as_str()))
        .map(|(key, object)| (key.clone(), object.clone()))
        .collect()
}

type Edit = fn(&mut Value);

#[tokio::test]
async fn what_was_deleted_by_hand_is_repaired() {
    let of_all = [
        ("services", "demo"),
        ("serviceaccounts", "demo-front-end"),
        ("secrets", "demo-config"),
        ("secrets", "demo-tls"),
    ];
    let of_enterprise = [
        ("services", "demo-peers"),
        ("services", "demo-database"),
        ("secrets", "demo-peer-tls"),
        ("statefulsets", "demo-database"),
        ("deployments", "demo-front-end"),
        ("poddisruptionbudgets", "demo-front-end"),
    ];
    for (spec, more) in [(minimal(), &[("statefulsets", "demo-front-end")][..]), (enterprise(), &of_enterprise)] {
        let world = World::with(spec);
        world.settle().await;
        let whole = world.objects();
        for (resource, name) in of_all.iter().chain(more) {
            Cluster::delete(&world.api, resource, name);
            world.settle().await;
            assert_same(&world.objects(), &whole, &format!("{resource} {name} deleted"));
        }
    }
}

#[tokio::test]
async fn what_was_changed_by_hand_is_repaired() {
    let world = World::with(minimal());
    world.settle().await;
    let whole = world.objects();
    let changes: [(&str, &str, Edit); 6] = [
        ("statefulsets", "demo-front-end", |it| {
            it["spec"]["template"]["spec"]["containers"][0]["image"] = json!("other")
        }),
        ("statefulsets", "demo-front-end", |it| it["spec"]["replicas"] = json!(2)),
        ("services", "demo", |it| it["spec"]["selector"]["commpool.dev/vip"] = json!("out")),
        ("services", "demo", |it| it["metadata"]["labels"] = json!({})),
        ("secrets", "demo-config", |it| it["data"]["config.yaml"] = json!("b3RoZXI=")),
        ("serviceaccounts", "demo-front-end", |it| it["automountServiceAccountToken"] = json!(true)),
    ];
    for (resource, name, change) in changes {
        world.api.edit(resource, name, change);
        world.settle().await;
        assert_same(&world.objects(), &whole, &format!("{resource} {name} changed"));
    }
    let world = World::with(enterprise());
    world.settle().await;
    let whole = world.objects();
    let changes: [(&str, &str, Edit); 5] = [
        ("deployments", "demo-front-end", |it| it["spec"]["replicas"] = json!(7)),
        ("deployments", "demo-front-end", |it| it["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] = json!(1)),
        ("statefulsets", "demo-database", |it| {
            it["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["postgres"])
        }),
        ("services", "demo-peers", |it| it["spec"]["publishNotReadyAddresses"] = json!(false)),
        ("poddisruptionbudgets", "demo-front-end", |it| it["spec"]["maxUnavailable"] = json!(0)),
    ];
    for (resource, name, change) in changes {
        world.api.edit(resource, name, change);
        world.settle().await;
        assert_same(&world.objects(), &whole, &format!("{resource} {name} changed"));
    }
}

#[tokio::test]
async fn what_others_add_is_left_alone() {
    let world = World::with(minimal());
    world.settle().await;
    world.api.edit("statefulsets", "demo-front-end", |workload| {
        workload["metadata"]["labels"]["team"] = json!("chat");
        workload["metadata"]["annotations"]["note"] = json!("x");
        let containers = workload["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap();
        containers.push(json!({"name": "sidecar", "image": "mesh"}));
    });
    world.api.edit("services", "demo", |service| service["spec"]["ports"][0]["nodePort"] = json!(31_000));
    let whole =
        |world: &World| ["spec", "metadata"].map(|part| world.api.get("statefulsets", "demo-front-end")[part].clone());
    let (workload, service) = (whole(&world), world.api.get("services", "demo"));
    world.settle().await;
    assert!(world.is_ready());
    assert_eq!(world.api.get("services", "demo"), service);
    let after = whole(&world);
    assert_eq!(
        (&after[0], &after[1]["labels"], &after[1]["annotations"]),
        (&workload[0], &workload[1]["labels"], &workload[1]["annotations"])
    );
}

#[tokio::test]
async fn deletion_leaves_data_and_authority_and_the_next_pool_takes_them_up() {
    let world = World::with(minimal());
    world.settle().await;
    let authority = world.api.get("secrets", "demo-ca")["data"].clone();
    let claim = world.api.get("persistentvolumeclaims", "demo-data")["metadata"]["uid"].clone();
    Cluster::delete(&world.api, "communicationspools", POOL);
    let left: Vec<_> = world.objects().into_keys().map(|key| key.name).collect();
    assert_eq!(left, ["demo-data", "demo-ca", "standard"]);
    world.create_pool(minimal());
    world.settle().await;
    assert!(world.is_ready());
    assert_eq!(world.api.get("secrets", "demo-ca")["data"], authority);
    assert_eq!(world.api.get("persistentvolumeclaims", "demo-data")["metadata"]["uid"], claim);
}

#[tokio::test]
async fn deletion_leaves_the_database_and_what_opens_it() {
    let world = World::with(enterprise());
    world.settle().await;
    let logins = world.api.get("secrets", "demo-database-credentials")["data"].clone();
    let claim = world.api.get("persistentvolumeclaims", "demo-database")["metadata"]["uid"].clone();
    Cluster::delete(&world.api, "communicationspools", POOL);
    let left: Vec<_> = world.objects().into_keys().map(|key| key.name).collect();
    assert_eq!(left, ["demo-database", "demo-ca", "demo-database-credentials", "standard"]);
    world.create_pool(enterprise());
    world.settle().await;
    assert!(world.is_ready());
    assert_eq!(world.api.get("secrets", "demo-database-credentials")["data"], logins);
    assert_eq!(world.api.get("persistentvolumeclaims", "demo-database")["metadata"]["uid"], claim);
}

#[tokio::test]
async fn a_paused_pool_is_watched_but_not_touched() {
    let world = World::with(minimal());
    world.settle().await;
    world.set_spec(spec(json!({"operations": {"paused": true}, "policy": {"maxMessageBytes": 1000}})));
    Cluster::delete(&world.api, "services", "demo");
    world.settle().await;
    assert!(world.api.find("services", "demo").is_none());
    assert_eq!(world.reason("Paused").as_deref(), Some("Paused"));
    assert_eq!(world.reason("Ready").as_deref(), Some("AddressPending"));
    world.set_spec(spec(json!({"policy": {"maxMessageBytes": 1000}})));
    world.settle().await;
    assert!(world.is_ready());
    assert_eq!(world.reason("Paused"), None);
}

#[tokio::test]
async fn an_operator_of_a_newer_version_changes_no_pod() {
    let world = World::with(minimal());
    world.settle().await;
    let template = world.api.get("statefulsets", "demo-front-end")["spec"]["template"].clone();
    let environment = commpool_operator::validate::Environment { version: "7.0.0".into() };
    let pool: commpool_operator::crd::CommunicationsPool = serde_json::from_value(world.pool()).unwrap();
    assert_eq!(commpool_operator::validate::validate(&pool, &environment).unwrap().version, "0.1.0");
    assert_eq!(template["spec"]["containers"][0]["image"], "localhost/commpool-server:0.1.0");
}

#[tokio::test]
async fn certificates_are_renewed_in_time_without_a_restart() {
    let world = World::with(enterprise());
    world.settle().await;
    let template = world.api.get("deployments", "demo-front-end")["spec"]["template"].clone();
    let leaves = || ["demo-tls", "demo-peer-tls"].map(|name| world.api.get("secrets", name)["data"]["tls.crt"].clone());
    let before = leaves();
    world.advance(Duration::from_secs(59 * 86_400));
    world.settle().await;
    assert_eq!(leaves(), before);
    world.advance(Duration::from_secs(2 * 86_400));
    world.settle().await;
    assert!(leaves().iter().zip(&before).all(|(after, before)| after != before));
    assert_eq!(world.api.get("deployments", "demo-front-end")["spec"]["template"], template);
    assert!(world.is_ready());
}
