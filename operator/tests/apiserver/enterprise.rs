//! Enterprise Edition: objects that a real API server takes, in their order; scale; an upgrade.

use std::time::Duration;

use commpool_operator::crd::CommunicationsPool;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::{NAMESPACE, address, reaches, until};

const POOL: &str = "office";
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn api<K>(admin: &Client) -> Api<K>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    Api::namespaced(admin.clone(), NAMESPACE)
}

fn labels(pool: &str, component: &str) -> ListParams {
    ListParams::default().labels(&format!("app.kubernetes.io/instance={pool},app.kubernetes.io/component={component}"))
}

/// Specs of either edition that the API server refuses, and its words.
pub(super) fn refused() -> Vec<(Value, &'static str)> {
    let domains = json!(["example.com"]);
    let enterprise = |more: Value| {
        let mut spec = json!({"sipDomains": domains, "edition": "Enterprise"});
        more.as_object().unwrap().iter().for_each(|(key, value)| spec[key] = value.clone());
        spec
    };
    vec![
        (json!({"sipDomains": domains, "edition": "Premium"}), "supported values: \"Standard\", \"Enterprise\""),
        (json!({"sipDomains": domains, "frontEnd": {"replicas": 2}}), "more need edition Enterprise"),
        (json!({"sipDomains": domains, "database": {"embedded": {}}}), "goes with edition Enterprise only"),
        (enterprise(json!({"frontEnd": {"replicas": 65}})), "less than or equal to 64"),
        (enterprise(json!({"frontEnd": {"maxSurge": 0}})), "greater than or equal to 1"),
        (enterprise(json!({"frontEnd": {"maxSurge": "101%"}})), "should match"),
        (enterprise(json!({"frontEnd": {"storage": {"size": "9Gi"}}})), "the volume is the database's"),
        (enterprise(json!({"database": {"embedded": {"storage": {"size": "1Gi"}}}})), "must be at least 2Gi"),
        (enterprise(json!({"database": {}})), "exactly one of embedded and external"),
        (
            enterprise(json!({"database": {"external": {"host": "db", "credentialsSecret": "db"}}})),
            "spec.database.external.tls: Required value",
        ),
        (
            enterprise(json!({"database": {"external": {"host": "db", "credentialsSecret": "db", "tls": {}}}})),
            "caSecret goes with mode verify-full",
        ),
    ]
}

/// Each step is there only after the one before it, and the last makes the pool ready.
pub(super) async fn becomes_ready(admin: &Client) {
    reaches(admin, POOL, "VipServing", "False", "AddressPending").await;
    raise(admin, POOL).await;
    reaches(admin, POOL, "Ready", "True", "Serving").await;
    reaches(admin, POOL, "DatabaseAvailable", "True", "Available").await;
    reaches(admin, POOL, "SchemaCurrent", "True", "Migrated").await;

    reaches(admin, "external-database", "Stalled", "True", "CredentialsMissing").await;
    let pools: Api<CommunicationsPool> = api(admin);
    let other = json!({"spec": {"edition": "Standard"}});
    let refused = pools.patch(POOL, &PatchParams::default(), &Patch::Merge(&other)).await;
    assert!(refused.unwrap_err().to_string().contains("the edition cannot change"));
}

/// What the rest of a cluster would do with a new pool, step by step.
pub(crate) async fn raise(admin: &Client, pool: &str) {
    address(admin, pool).await;
    reaches(admin, pool, "SchemaCurrent", "False", "AwaitingDatabase").await;
    store(admin, pool).await;
    migrate(admin, pool).await;
    serve(admin, pool).await;
}

/// The database takes connections.
async fn store(admin: &Client, pool: &str) {
    let sets: Api<StatefulSet> = api(admin);
    let name = format!("{pool}-database");
    let set = until("the database", PATIENCE, || async { sets.get_opt(&name).await.unwrap() }).await;
    passes_restricted(admin, set.spec.unwrap().template).await;
    let status = json!({"status": {"replicas": 1, "readyReplicas": 1, "updatedReplicas": 1, "currentRevision": "a",
        "updateRevision": "a", "observedGeneration": set.metadata.generation}});
    sets.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
}

/// The newest migration completes; gives its name.
async fn migrate(admin: &Client, pool: &str) -> String {
    let jobs: Api<Job> = api(admin);
    let open = until("a migration", PATIENCE, || async {
        let all = jobs.list(&labels(pool, "migration")).await.unwrap();
        all.into_iter().find(|job| job.status.as_ref().is_none_or(|status| status.conditions.is_none()))
    })
    .await;
    passes_restricted(admin, open.spec.clone().unwrap().template).await;
    let now = open.metadata.creation_timestamp.clone().unwrap();
    let done = |type_: &str| json!({"type": type_, "status": "True", "lastTransitionTime": now, "lastProbeTime": now});
    let status = json!({"status": {"startTime": now, "completionTime": now, "succeeded": 1,
        "conditions": [done("SuccessCriteriaMet"), done("Complete")]}});
    jobs.patch_status(&open.name_any(), &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    open.name_any()
}

/// All front ends of the newest template take clients.
async fn serve(admin: &Client, pool: &str) {
    let (deployments, pods): (Api<Deployment>, Api<Pod>) = (api(admin), api(admin));
    let name = format!("{pool}-front-end");
    let it = until("the front ends", PATIENCE, || async { deployments.get_opt(&name).await.unwrap() }).await;
    let spec = it.spec.unwrap();
    passes_restricted(admin, spec.template.clone()).await;
    let pod_name = format!("{name}-trial");
    if pods.get_opt(&pod_name).await.unwrap().is_none() {
        let pod = pod(&pod_name, spec.template);
        pods.create(&PostParams::default(), &pod).await.unwrap();
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        pods.patch_status(&pod_name, &PatchParams::default(), &Patch::Merge(&ready)).await.unwrap();
    }
    let all = spec.replicas;
    let status = json!({"status": {"replicas": all, "readyReplicas": all, "updatedReplicas": all,
        "availableReplicas": all, "observedGeneration": it.metadata.generation}});
    deployments.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
}

pub(crate) fn pod(name: &str, template: PodTemplateSpec) -> Pod {
    let mut metadata = template.metadata.unwrap_or_default();
    metadata.name = Some(name.to_owned());
    Pod { metadata, spec: template.spec, status: None }
}

/// The namespace enforces the standard `restricted`, and refuses a pod that does not keep to it.
async fn passes_restricted(admin: &Client, template: PodTemplateSpec) {
    let pods: Api<Pod> = api(admin);
    let trial = PostParams { dry_run: true, ..PostParams::default() };
    pods.create(&trial, &pod("trial-of-template", template)).await.unwrap();
}

/// `kubectl scale` reads and writes the subresource.
pub(super) async fn scales(admin: &Client) {
    let (pools, deployments): (Api<CommunicationsPool>, Api<Deployment>) = (api(admin), api(admin));
    let scaled = |replicas: i32| Patch::Merge(json!({"spec": {"replicas": replicas}}));
    let scale: Scale = pools.patch_scale(POOL, &PatchParams::default(), &scaled(5)).await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(5));
    let status = scale.status.unwrap();
    assert_eq!(status.replicas, 2);
    assert!(status.selector.unwrap().contains("app.kubernetes.io/component=front-end"));
    until("five front ends", PATIENCE, || async {
        let it = deployments.get(&format!("{POOL}-front-end")).await.unwrap();
        (it.spec.unwrap().replicas == Some(5)).then_some(())
    })
    .await;
    reaches(admin, POOL, "FrontEndAvailable", "False", "RollingOut").await;
    serve(admin, POOL).await;
    reaches(admin, POOL, "Ready", "True", "Serving").await;
    let refused = pools.patch_scale("demo", &PatchParams::default(), &scaled(2)).await;
    assert!(refused.unwrap_err().to_string().contains("Standard Edition has one front end"));
}

/// A new version, step by step; the migration of the one before is left to be forgotten.
pub(super) async fn upgrades(admin: &Client) {
    let (pools, jobs, deployments): (Api<CommunicationsPool>, Api<Job>, Api<Deployment>) =
        (api(admin), api(admin), api(admin));
    let image = || async {
        let it = serde_json::to_value(deployments.get(&format!("{POOL}-front-end")).await.unwrap()).unwrap();
        it["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
    };
    let before = jobs.list(&labels(POOL, "migration")).await.unwrap().items.remove(0).name_any();
    let newer = json!({"spec": {"version": "0.2.0"}});
    pools.patch(POOL, &PatchParams::default(), &Patch::Merge(&newer)).await.unwrap();
    reaches(admin, POOL, "FrontEndAvailable", "False", "Held").await;
    reaches(admin, POOL, "SchemaCurrent", "False", "AwaitingDatabase").await;
    store(admin, POOL).await;
    reaches(admin, POOL, "Reconciling", "True", "Migrating").await;
    assert_eq!(image().await, "localhost/commpool-server:0.1.0");
    let after = migrate(admin, POOL).await;
    assert_ne!(before, after);
    until("the new image", PATIENCE, || async { (image().await == "localhost/commpool-server:0.2.0").then_some(()) })
        .await;
    serve(admin, POOL).await;
    reaches(admin, POOL, "Ready", "True", "Serving").await;
    // the Job's controller, which is not here, would delete it then
    assert_eq!(jobs.get(&before).await.unwrap().spec.unwrap().ttl_seconds_after_finished, Some(3_600));
    assert_eq!(jobs.get(&after).await.unwrap().spec.unwrap().ttl_seconds_after_finished, None);
}
