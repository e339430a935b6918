//! Every reason of the documentation is reached, and says what it should.

use std::collections::BTreeSet;
use std::time::Duration;

use commpool_operator::crd::Reason;
use commpool_operator::pki::SystemEntropy;
use commpool_operator::pki::authority::advance;
use commpool_operator::pki::leaf::{Subject, issue};
use commpool_operator::report::AskError;
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::directory::{ended, outcome, pod, secrets};
use crate::support::api::status;
use crate::support::{self, NAMESPACE, POOL, World, enterprise, enterprise_with, minimal, spec};

/// Reasons that were seen in the status of a pool.
#[derive(Default)]
struct Seen(BTreeSet<String>);

impl Seen {
    /// Notes all reasons of the pool, and expects one condition with these words.
    #[track_caller]
    fn expect(&mut self, world: &World, type_: &str, status: &str, reason: Reason, words: &str) {
        let pool = world.pool();
        let conditions = pool["status"]["conditions"].as_array().cloned().unwrap_or_default();
        self.0.extend(conditions.iter().map(|condition| condition["reason"].as_str().unwrap().to_owned()));
        let (is, because, message) = world.condition(type_).unwrap_or_else(|| panic!("no {type_}: {conditions:#?}"));
        assert_eq!((is.as_str(), because.as_str()), (status, reason.as_str()), "{type_}: {message}");
        assert!(message.contains(words), "{message:?} does not say {words:?}");
        let generation = &pool["metadata"]["generation"];
        assert!(
            conditions
                .iter()
                .all(|condition| condition["observedGeneration"] == *generation || reason == Reason::Invalid)
        );
    }
}

fn with_pod_status(world: &World, pod_status: Value) {
    world.api.edit("pods", "demo-front-end-0", |pod| pod["status"] = pod_status);
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({"conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [{
        "name": "server", "image": "localhost/commpool-server:0.1.0", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": reason, "message": message}},
        "lastState": {"terminated": {"exitCode": 3, "message": "the folder /data is locked"}},
    }]})
}

#[tokio::test]
async fn every_reason_is_reached() {
    let mut seen = Seen::default();
    bring_up(&mut seen).await;
    front_end_troubles(&mut seen).await;
    refusals(&mut seen).await;
    certificates(&mut seen).await;
    volume(&mut seen).await;
    back_end(&mut seen).await;
    external_database(&mut seen).await;
    directory(&mut seen).await;
    let all: BTreeSet<String> = Reason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
    assert_eq!(seen.0, all);
}

async fn bring_up(seen: &mut Seen) {
    let mut world = World::with(minimal());
    world.cluster.balances = false;
    world.pass().await;
    seen.expect(&world, "FrontEndAvailable", "False", Reason::NotCreated, "no StatefulSet demo-front-end");
    seen.expect(&world, "CertificatesValid", "False", Reason::NotIssued, "demo-tls");
    seen.expect(&world, "VipServing", "False", Reason::AddressPending, "Service demo");
    // the first start waits for the address, but not for ever
    world.settle().await;
    assert!(world.api.find("statefulsets", "demo-front-end").is_none());
    world.advance(Duration::from_secs(6));
    world.settle().await;
    seen.expect(&world, "FrontEndAvailable", "True", Reason::Available, "takes clients");
    seen.expect(&world, "Ready", "False", Reason::AddressPending, "no address yet");
    seen.expect(&world, "Reconciling", "True", Reason::AddressPending, "");
    world.cluster.balances = true;
    world.settle().await;
    seen.expect(&world, "Ready", "True", Reason::Serving, "198.51.100.7:5061 (tls)");
    seen.expect(&world, "VipServing", "True", Reason::Reachable, "198.51.100.7");
    assert!(world.condition("Reconciling").is_none() && world.condition("Stalled").is_none());
    world.api.edit("pods", "demo-front-end-0", |pod| pod["metadata"]["labels"]["commpool.dev/vip"] = json!("out"));
    world.pass().await;
    seen.expect(&world, "VipServing", "False", Reason::OutOfVip, "commpool.dev/vip=in");
    world.set_spec(spec(json!({"version": "0.2.0", "operations": {"paused": true}})));
    world.pass().await;
    seen.expect(&world, "Paused", "True", Reason::Paused, "only the status");
    world.set_spec(spec(json!({"version": "0.2.0"})));
    world.pass().await;
    seen.expect(&world, "Reconciling", "True", Reason::OutOfVip, "");
    world.settle().await;
    world.set_spec(spec(json!({"version": "0.3.0"})));
    world.pass().await;
    seen.expect(&world, "Ready", "False", Reason::Applying, "StatefulSet demo-front-end");
    world.pass().await;
    seen.expect(&world, "FrontEndAvailable", "False", Reason::RollingOut, "replacing");
}

async fn front_end_troubles(seen: &mut Seen) {
    let mut world = World::with(minimal());
    world.cluster.serves = false;
    world.settle().await;
    seen.expect(&world, "FrontEndAvailable", "False", Reason::NotReady, "pod demo-front-end-0 is not ready");
    seen.expect(&world, "VipServing", "False", Reason::NoReadyFrontEnd, "Service demo");
    for why in ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"] {
        with_pod_status(&world, waiting(why, "changes from try to try"));
        world.pass().await;
        seen.expect(&world, "Ready", "False", Reason::ImageMissing, "image localhost/commpool-server:0.1.0; load it");
    }
    with_pod_status(&world, waiting("CrashLoopBackOff", "back-off"));
    world.pass().await;
    seen.expect(&world, "FrontEndAvailable", "False", Reason::Crashing, "exit code 3: the folder /data is locked");
    with_pod_status(&world, waiting("CreateContainerConfigError", "secret \"x\" not found"));
    world.pass().await;
    seen.expect(&world, "FrontEndAvailable", "False", Reason::NotReady, "secret \"x\" not found");
    let unscheduled =
        json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]});
    with_pod_status(&world, unscheduled.clone());
    world.pass().await;
    seen.expect(&world, "FrontEndAvailable", "False", Reason::Unschedulable, "0/1 nodes");
    world.api.edit("persistentvolumeclaims", "demo-data", |claim| claim["status"]["phase"] = json!("Pending"));
    world.pass().await;
    seen.expect(&world, "FrontEndAvailable", "False", Reason::VolumePending, "claim demo-data is not bound");
}

async fn refusals(seen: &mut Seen) {
    let world = World::with(spec(json!({"frontEnd": {"resources": {"requests": {"memory": "1Gi"}}}})));
    world.settle().await;
    seen.expect(&world, "Stalled", "True", Reason::Invalid, "spec.frontEnd.resources.requests.memory");
    world.set_spec(spec(json!({"service": {"type": "Pigeon"}})));
    world.settle().await;
    seen.expect(&world, "Stalled", "True", Reason::Invalid, "spec.service.type");
    world.set_spec(minimal());
    world.settle().await;
    assert!(world.is_ready());

    let world = World::with(minimal());
    let stranger = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": POOL, "namespace": NAMESPACE}, "spec": {"type": "ClusterIP"}});
    world.api.put("", "services", stranger);
    world.settle().await;
    seen.expect(&world, "Stalled", "True", Reason::NameTaken, "Service demo exists and was not made by this operator");
    world.api.edit("services", POOL, |service| {
        service["metadata"]["ownerReferences"] = json!([{"apiVersion": "commpool.dev/v1alpha1", "kind": "CommunicationsPool",
            "name": POOL, "uid": "an earlier one", "controller": true}]);
    });
    world.settle().await;
    seen.expect(&world, "Reconciling", "True", Reason::Deleting, "earlier pool");
    world.api.delete("services", POOL);
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "demo-data", "namespace": NAMESPACE}, "spec": {}});
    world.api.put("", "persistentvolumeclaims", claim);
    world.settle().await;
    seen.expect(&world, "Stalled", "True", Reason::NameTaken, "commpool.dev/kept-for=demo");

    let world = World::with(minimal());
    world.api.refuse("patch", "services", 403, status(403, "Forbidden", "services is forbidden: cannot patch"));
    world.settle().await;
    seen.expect(&world, "Stalled", "True", Reason::Forbidden, "patch Service demo: services is forbidden");
    world.api.stop_refusing();
    world.api.refuse("list", "pods", 403, status(403, "Forbidden", "cannot list pods"));
    world.pass().await;
    seen.expect(&world, "Stalled", "True", Reason::Forbidden, "list Pod demo: cannot list pods");
    world.api.stop_refusing();
    world.api.refuse("patch", "services", 422, status(422, "Invalid", "spec.ports[0].port: Invalid value"));
    world.settle().await;
    seen.expect(&world, "Stalled", "True", Reason::Refused, "spec.ports[0].port");
    world.api.stop_refusing();
    let mut ending = status(403, "Forbidden", "namespace chat is being terminated");
    ending["details"] = json!({"causes": [{"reason": "NamespaceTerminating"}]});
    world.api.refuse("patch", "services", 403, ending);
    let before = world.pool();
    world.pass().await;
    assert_eq!(world.pool(), before, "the end of a namespace is nobody's fault");
    world.api.stop_refusing();
    world.settle().await;
    assert!(world.is_ready());
}

fn secret(name: &str, certificate: &str, key: &str) -> Value {
    let octets = |text: &str| json!(ByteString(text.as_bytes().to_vec()));
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE},
        "data": {"tls.crt": octets(certificate), "tls.key": octets(key)}})
}

async fn certificates(seen: &mut Seen) {
    let world = World::with(spec(json!({"tls": {"secretName": "own"}})));
    world.settle().await;
    seen.expect(&world, "Stalled", "True", Reason::SecretMissing, "there is no Secret own");
    assert!(world.api.find("statefulsets", "demo-front-end").is_none(), "a pod could not start");
    let now = 1_800_000_000;
    let authority = advance(None, "x", "y", now, &mut SystemEntropy).unwrap();
    let leaf = issue(&Subject::new("x", ["example.com".into()]), &authority, now, &mut SystemEntropy).unwrap();
    world.api.put("", "secrets", secret("own", "nonsense", &leaf.key));
    world.settle().await;
    seen.expect(&world, "CertificatesValid", "False", Reason::SecretMalformed, "Secret own, key tls.crt");
    world.api.put("", "secrets", secret("own", &leaf.certificate, &authority.current.key));
    world.settle().await;
    seen.expect(&world, "Stalled", "True", Reason::SecretMalformed, "Secret own, key tls.key");
    world.api.edit("secrets", "own", |secret| drop(secret["data"].as_object_mut().unwrap().remove("tls.key")));
    world.settle().await;
    seen.expect(&world, "Stalled", "True", Reason::SecretMissing, "Secret own has no key tls.key");
    world.api.put("", "secrets", secret("own", &leaf.certificate, &leaf.key));
    world.settle().await;
    seen.expect(&world, "CertificatesValid", "True", Reason::GivenSecret, "will refuse it: 198.51.100.7");
    assert!(world.is_ready());
    // a Secret that breaks later takes nothing from those who are served
    let workload = world.api.get("statefulsets", "demo-front-end")["spec"].clone();
    world.set_spec(spec(json!({"tls": {"secretName": "other"}, "policy": {"maxMessageBytes": 1000}})));
    world.settle().await;
    seen.expect(&world, "Stalled", "True", Reason::SecretMissing, "other");
    assert_eq!(world.api.get("statefulsets", "demo-front-end")["spec"], workload);
    world.set_spec(spec(json!({"tls": {"secretName": "own"}})));
    world.advance(Duration::from_secs(100 * 86_400));
    world.settle().await;
    seen.expect(&world, "Stalled", "True", Reason::Expired, "key tls.crt of Secret own is valid from");

    world.set_spec(spec(json!({"service": {"listeners": {"tcp": 5060}}})));
    world.settle().await;
    seen.expect(&world, "CertificatesValid", "True", Reason::NoTlsListener, "");
    world.set_spec(minimal());
    world.settle().await;
    seen.expect(&world, "CertificatesValid", "True", Reason::SelfManaged, "demo-tls");
    world.api.edit("secrets", "demo-ca", |secret| secret["data"]["ca.key"] = json!("eA=="));
    world.settle().await;
    seen.expect(&world, "Stalled", "True", Reason::AuthorityMalformed, "Secret demo-ca, keys ca.crt and ca.key");
}

async fn volume(seen: &mut Seen) {
    let world = World::with(minimal());
    world.settle().await;
    let requested = |world: &World| {
        world.api.get("persistentvolumeclaims", "demo-data")["spec"]["resources"]["requests"]["storage"].clone()
    };
    world.set_spec(spec(json!({"frontEnd": {"storage": {"size": "6Gi"}}})));
    world.settle().await;
    assert!(world.is_ready());
    assert_eq!(requested(&world), "6Gi");
    world.api.edit("storageclasses", "standard", |class| class["allowVolumeExpansion"] = json!(false));
    world.set_spec(spec(json!({"frontEnd": {"storage": {"size": "7Gi"}}, "policy": {"maxMessageBytes": 1000}})));
    world.settle().await;
    seen.expect(
        &world,
        "Stalled",
        "True",
        Reason::CannotGrow,
        "demo-data cannot grow from 6Gi to 7Gi: storage class standard",
    );
    seen.expect(&world, "FrontEndAvailable", "True", Reason::Available, "");
    assert_eq!(requested(&world), "6Gi");
    // all else goes on, and nothing is tried again and again
    let config = world.api.get("secrets", "demo-config")["data"]["config.yaml"].clone();
    let text: ByteString = serde_json::from_value(config).unwrap();
    assert!(String::from_utf8(text.0).unwrap().contains("maxMessageBytes: 1000"));
    assert!(world.pass().await.iter().all(|seen| !seen.is_write()));
}

fn told(world: &World, resource: &str, name: &str, status: Value) {
    world.api.edit(resource, name, |object| object["status"] = status);
}

async fn back_end(seen: &mut Seen) {
    let mut world = World::with(enterprise());
    (world.cluster.stores, world.cluster.migrates) = (false, false);
    world.pass().await;
    seen.expect(&world, "DatabaseAvailable", "False", Reason::RollingOut, "StatefulSet demo-database");
    seen.expect(&world, "SchemaCurrent", "False", Reason::AwaitingDatabase, "demo-migrate-");
    world.settle().await;
    seen.expect(&world, "DatabaseAvailable", "False", Reason::NotReady, "pod demo-database-0 is not ready");
    let crashed = json!({"containerStatuses": [{"name": "postgres", "image": "x", "imageID": "", "ready": false, "restartCount": 1,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1, "message": "the volume is full\n"}}}]});
    told(&world, "pods", "demo-database-0", crashed);
    world.pass().await;
    seen.expect(&world, "DatabaseAvailable", "False", Reason::Crashing, "exit code 1: the volume is full");
    world.cluster.stores = true;
    world.settle().await;
    seen.expect(&world, "DatabaseAvailable", "True", Reason::Available, "demo-database takes connections");
    seen.expect(&world, "SchemaCurrent", "False", Reason::Migrating, "is at work");

    let job = world.migrations()[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let failed = json!({"containerStatuses": [{"name": "migrate", "image": "x", "imageID": "", "ready": false, "restartCount": 2,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1, "message": "first words\nthe disk is full\n"}}}]});
    told(&world, "pods", &format!("{job}-pod"), failed);
    world.pass().await;
    seen.expect(&world, "SchemaCurrent", "False", Reason::MigrationFailed, "exit code 1: the disk is full");
    seen.expect(&world, "Ready", "False", Reason::MigrationFailed, &job);
    told(&world, "pods", &format!("{job}-pod"), json!({}));
    world.api.edit("jobs", &job, |job| job["spec"]["suspend"] = json!(true));
    world.pass().await;
    seen.expect(&world, "SchemaCurrent", "False", Reason::Migrating, "spec.suspend");
    world.cluster.migrates = true;
    world.settle().await;
    seen.expect(&world, "SchemaCurrent", "True", Reason::Migrated, &job);
    seen.expect(&world, "FrontEndAvailable", "True", Reason::Available, "2 front ends");

    let few = json!({"replicas": 2, "readyReplicas": 1, "updatedReplicas": 2, "observedGeneration": 99});
    told(&world, "deployments", "demo-front-end", few);
    world.pass().await;
    seen.expect(&world, "FrontEndAvailable", "True", Reason::TooFew, "1 of 2 front ends");
    seen.expect(&world, "Reconciling", "True", Reason::TooFew, "");
    world.settle().await;
    world.cluster.stores = false;
    world.set_spec(enterprise_with(json!({"version": "0.2.0"})));
    world.settle().await;
    seen.expect(&world, "FrontEndAvailable", "False", Reason::Held, "stays at version 0.1.0");
}

async fn external_database(seen: &mut Seen) {
    let database =
        json!({"external": {"host": "db.example.com", "credentialsSecret": "db", "tls": {"mode": "disable"}}});
    let mut world = World::with(enterprise_with(json!({"database": database})));
    world.cluster.migrates = false;
    world.settle().await;
    seen.expect(&world, "Stalled", "True", Reason::CredentialsMissing, "there is no Secret db");
    let keys = ["owner-username", "owner-password", "server-username", "server-password"];
    let data: serde_json::Map<String, Value> = keys.map(|key| (key.to_owned(), json!("eA=="))).into_iter().collect();
    let logins =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "namespace": NAMESPACE}, "data": data});
    world.api.put("", "secrets", logins);
    world.settle().await;
    seen.expect(&world, "DatabaseAvailable", "False", Reason::NotReached, "has not reached db.example.com:5432");
    world.cluster.migrates = true;
    world.settle().await;
    seen.expect(&world, "DatabaseAvailable", "True", Reason::Available, "somebody else keeps");
}

async fn directory(seen: &mut Seen) {
    let world = World::with(enterprise_with(json!({"directorySync": support::directory()})));
    world.settle().await;
    seen.expect(&world, "DirectorySynced", "False", Reason::SecretMissing, "ldap-bind");
    secrets(&world);
    world.settle().await;
    seen.expect(&world, "DirectorySynced", "False", Reason::NotRunYet, "demo-replicator");
    let results = [
        Reason::Synced,
        Reason::DeletionHeld,
        Reason::Busy,
        Reason::DirectoryUnavailable,
        Reason::DirectoryRefused,
        Reason::ReadIncomplete,
        Reason::StoreUnavailable,
        Reason::ConfigurationInvalid,
        Reason::InternalError,
    ];
    for (minute, reason) in (1..).zip(results) {
        pod(&world, &format!("run-{minute}"), ended(&outcome(reason.as_str(), minute).to_string(), 1, "Error"));
        world.settle().await;
        let status = if reason == Reason::Synced { "True" } else { "False" };
        seen.expect(&world, "DirectorySynced", status, reason, "");
        seen.expect(&world, "Ready", "True", Reason::Serving, "");
    }
    pod(&world, "run", ended("", 137, "OOMKilled"));
    world.settle().await;
    seen.expect(&world, "DirectorySynced", "False", Reason::RunFailed, "OOMKilled");
    world.advance(Duration::from_secs(86_400));
    world.settle().await;
    seen.expect(&world, "DirectorySynced", "False", Reason::Overdue, "demo-replicator");
    let mut suspended = support::directory();
    suspended["suspend"] = json!(true);
    world.set_spec(enterprise_with(json!({"directorySync": suspended})));
    world.settle().await;
    seen.expect(&world, "DirectorySynced", "False", Reason::Suspended, "OOMKilled");

    let world = World::with(spec(json!({"directorySync": support::directory()})));
    secrets(&world);
    world.server().answer = Err(AskError::Status(404));
    for _ in 0..2 {
        world.settle().await;
    }
    seen.expect(&world, "DirectorySynced", "False", Reason::NotAnswering, "status 404");
}

#[tokio::test]
async fn a_volume_is_for_one_pod_where_its_driver_can_see_to_that() {
    let mode = |world: &World| world.api.get("persistentvolumeclaims", "demo-data")["spec"]["accessModes"].clone();
    let world = World::with(minimal());
    world.settle().await;
    assert_eq!(mode(&world), json!(["ReadWriteOnce"]), "no CSI driver of that name");
    let world = World::with(minimal());
    let driver = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": "csi.example.com"}, "spec": {}});
    world.api.put("storage.k8s.io", "csidrivers", driver);
    world.settle().await;
    assert_eq!(mode(&world), json!(["ReadWriteOncePod"]));
    let world = World::with(minimal());
    world.api.edit("storageclasses", "standard", |class| class["provisioner"] = json!("kubernetes.io/no-provisioner"));
    world.settle().await;
    assert_eq!(mode(&world), json!(["ReadWriteOnce"]));
    assert!(world.is_ready());
}
