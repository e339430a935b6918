//! The operator against a real API server, with no more rights than it is installed with.
//!
//! Started when COMMPOOL_KUBE_BIN names a folder with `etcd` and `kube-apiserver`; required where CI=true. There is no
//! kubelet and no controller manager: what they would do is written into the status of the objects.

mod directory;
mod enterprise;
mod repairs;
mod server;

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use commpool_operator::crd::CommunicationsPool;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use server::ApiServer;

const NAMESPACE: &str = "chat";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_serves_pools_of_a_real_api_server() {
    let Some(server) = ApiServer::start().await else { return };
    let admin = server.client("admin").await;
    install(&admin).await;
    refuses(&admin).await;
    let operator = Operator::start(&server).await;
    samples(&admin).await;
    becomes_ready(&admin).await;
    enterprise::becomes_ready(&admin).await;
    rests(&admin, &operator).await;
    enterprise::scales(&admin).await;
    enterprise::upgrades(&admin).await;
    repairs::deletions_and_edits(&admin).await;
    repairs::what_stands_in_the_way(&admin).await;
    rests(&admin, &operator).await;
    directory::replicates(&admin).await;
    directory::asks(&admin).await;
    let operator = directory::outlives(&admin, &server, operator).await;
    directory::goes(&admin).await;
    changes_its_kind_of_service(&admin).await;
    pods_pass_restricted(&admin).await;
    grows_or_says_why_not(&admin).await;
    operator.end().await;
}

/// The operator's process.
struct Operator {
    process: Child,
    management: u16,
}

impl Operator {
    /// Starts the binary as its Deployment does, with the rights of the installed role, and waits until it is ready.
    async fn start(server: &ApiServer) -> Self {
        let management = server::free_port();
        let process = Command::new(env!("CARGO_BIN_EXE_commpool-operator"))
            .args([format!("--management=127.0.0.1:{management}"), "--instance=test".into(), "--log-level=warn".into()])
            .env("KUBECONFIG", server.kubeconfig("operator"))
            .spawn()
            .unwrap();
        let operator = Self { process, management };
        until("the operator is ready", Duration::from_secs(20), || async {
            operator.ask("/readyz").await.filter(|answer| answer.starts_with("HTTP/1.0 200"))
        })
        .await;
        operator
    }

    async fn ask(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.management)).await.ok()?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }

    /// The sum of a metric over its labels.
    async fn count(&self, name: &str) -> u64 {
        let text = self.ask("/metrics").await.expect("metrics");
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    }

    /// Ends it as Kubernetes does; it goes at once and is content.
    async fn end(mut self) {
        let told = Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        assert!(told.success());
        let ended = until("the operator ends", Duration::from_secs(5), || {
            let ended = self.process.try_wait().unwrap();
            async move { ended }
        });
        assert!(ended.await.success());
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn documents(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(root().join(path)).unwrap();
    serde_yaml::Deserializer::from_str(&text)
        .map(|document| serde::Deserialize::deserialize(document).unwrap())
        .collect()
}

/// As `kubectl apply --server-side --validate=strict` does it.
async fn apply(client: &Client, object: &Value, namespace: &str) -> Result<DynamicObject, kube::Error> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, kind) = (text("/apiVersion"), text("/kind"));
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
    let api: Api<DynamicObject> = match kind.as_str() {
        "Namespace" | "CustomResourceDefinition" | "ClusterRole" | "ClusterRoleBinding" | "StorageClass" => {
            Api::all_with(client.clone(), &resource)
        }
        _ => {
            let own = text("/metadata/namespace");
            Api::namespaced_with(client.clone(), if own.is_empty() { namespace } else { &own }, &resource)
        }
    };
    api.patch(&text("/metadata/name"), &PatchParams::apply("kubectl").validation_strict(), &Patch::Apply(object)).await
}

/// Waits until `ask` has an answer that is right.
async fn until<T, F>(what: &str, within: Duration, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let end = Instant::now() + within;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// All of deploy/install.yaml, whose definition the server accepts with its cost budget.
async fn install(admin: &Client) {
    for document in documents("deploy/install.yaml") {
        apply(admin, &document, "").await.unwrap_or_else(|error| panic!("{}: {error}", document["kind"]));
    }
    let crds: Api<CustomResourceDefinition> = Api::all(admin.clone());
    until("the definition is established", Duration::from_secs(20), || async {
        let conditions = crds.get("communicationspools.commpool.dev").await.ok()?.status?.conditions?;
        let structural = conditions.iter().find(|condition| condition.type_ == "NonStructuralSchema");
        assert!(structural.is_none(), "{structural:?}");
        conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True").then_some(())
    })
    .await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE,
        "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    apply(admin, &namespace, "").await.unwrap();
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "kubernetes.io/no-provisioner",
        "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}});
    apply(admin, &class, "").await.unwrap();
}

fn pool(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "commpool.dev/v1alpha1", "kind": "CommunicationsPool", "metadata": {"name": name}, "spec": spec})
}

async fn refuses(admin: &Client) {
    let domains = json!(["example.com"]);
    let of_either_edition = [
        (json!({"sipDomains": domains, "replicas": 2}), "field not declared in schema"),
        (json!({}), "sipDomains: Required value"),
        (json!({"sipDomains": ["example.com", "example.com"]}), "duplicate"),
        (json!({"sipDomains": domains, "service": {"type": "NodePort"}}), "type NodePort needs hostname"),
        (json!({"sipDomains": domains, "frontEnd": {"storage": {"size": "1Mi"}}}), "must be at least 64Mi"),
        (json!({"sipDomains": domains, "service": {"loadBalancerSourceRanges": ["x"]}}), "must be a network"),
    ];
    for (spec, words) in of_either_edition.into_iter().chain(enterprise::refused()) {
        let error = apply(admin, &pool("wrong", spec.clone()), NAMESPACE)
            .await
            .err()
            .unwrap_or_else(|| panic!("accepted: {spec}"));
        assert!(error.to_string().contains(words), "{spec}: {error}");
    }
    let long = apply(admin, &pool(&"a".repeat(41), json!({"sipDomains": domains})), NAMESPACE).await;
    assert!(long.unwrap_err().to_string().contains("1-40 characters"));
}

async fn samples(admin: &Client) {
    for entry in std::fs::read_dir(root().join("samples")).unwrap() {
        let path = entry.unwrap().path();
        for document in documents(path.to_str().unwrap()) {
            apply(admin, &document, NAMESPACE).await.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
}

fn condition(pool: &CommunicationsPool, type_: &str) -> Option<(String, String)> {
    let condition = pool.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((condition.status.clone(), condition.reason.clone()))
}

async fn reaches(admin: &Client, name: &str, type_: &str, status: &str, reason: &str) -> CommunicationsPool {
    let pools: Api<CommunicationsPool> = Api::namespaced(admin.clone(), NAMESPACE);
    let wanted = Some((status.to_owned(), reason.to_owned()));
    until(&format!("{name}: {type_}={status}, {reason}"), Duration::from_secs(30), || async {
        let pool = pools.get(name).await.ok()?;
        let current = pool.status.as_ref()?.observed_generation == pool.metadata.generation;
        (current && condition(&pool, type_) == wanted).then_some(pool)
    })
    .await
}

/// What a load balancer would write.
async fn address(admin: &Client, name: &str) {
    let services: Api<Service> = Api::namespaced(admin.clone(), NAMESPACE);
    let address = json!({"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}}});
    if services.get(name).await.unwrap().spec.unwrap().type_.as_deref() == Some("LoadBalancer") {
        services.patch_status(name, &PatchParams::default(), &Patch::Merge(&address)).await.unwrap();
    }
}

/// What the rest of a cluster would write: an address, a ready pod.
async fn serve(admin: &Client, name: &str) {
    serve_at(admin, name, None).await;
}

/// The same with a pod on this machine whose management listens on another port.
async fn serve_at(admin: &Client, name: &str, management: Option<u16>) {
    address(admin, name).await;
    let workload = format!("{name}-front-end");
    let sets: Api<StatefulSet> = Api::namespaced(admin.clone(), NAMESPACE);
    let set = until("the workload", Duration::from_secs(30), || async { sets.get_opt(&workload).await.unwrap() }).await;
    let template = serde_json::to_value(set.spec.as_ref().unwrap().template.clone()).unwrap();
    let mut pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"]});
    pod["metadata"]["name"] = json!(format!("{workload}-0"));
    let ports = pod["spec"]["containers"][0]["ports"].as_array_mut().unwrap();
    for (port, at) in ports.iter_mut().filter(|port| port["name"] == "management").zip(management) {
        port["containerPort"] = json!(at);
    }
    let pods: Api<Pod> = Api::namespaced(admin.clone(), NAMESPACE);
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let mut ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    if management.is_some() {
        ready["status"]["podIP"] = json!("127.0.0.1");
        ready["status"]["podIPs"] = json!([{"ip": "127.0.0.1"}]);
    }
    pods.patch_status(&format!("{workload}-0"), &PatchParams::default(), &Patch::Merge(&ready)).await.unwrap();
    follow(admin, name).await;
}

/// The workload's controller reports its newest generation done.
async fn follow(admin: &Client, name: &str) {
    let sets: Api<StatefulSet> = Api::namespaced(admin.clone(), NAMESPACE);
    let workload = format!("{name}-front-end");
    let generation = sets.get(&workload).await.unwrap().metadata.generation;
    let status = json!({"status": {"replicas": 1, "readyReplicas": 1, "updatedReplicas": 1, "currentRevision": "a",
        "updateRevision": "a", "observedGeneration": generation}});
    sets.patch_status(&workload, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
}

async fn becomes_ready(admin: &Client) {
    reaches(admin, "demo", "VipServing", "False", "AddressPending").await;
    reaches(admin, "given-certificate", "Stalled", "True", "SecretMissing").await;
    for name in ["demo", "all-transports", "node-port"] {
        serve(admin, name).await;
        reaches(admin, name, "Ready", "True", "Serving").await;
    }
    let pools: Api<CommunicationsPool> = Api::namespaced(admin.clone(), NAMESPACE);
    let told = |pool: CommunicationsPool| pool.status.unwrap().addresses;
    let node_port = told(pools.get("node-port").await.unwrap());
    assert_eq!(node_port[0].host, "sip.example.com");
    assert!((30_000..32_768).contains(&node_port[0].port), "{node_port:?}");
    assert_eq!(told(pools.get("all-transports").await.unwrap()).len(), 3);

    let secrets: Api<Secret> = Api::namespaced(admin.clone(), NAMESPACE);
    let issued = secrets.get("demo-tls").await.unwrap();
    let given =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "sip-example-com"}, "data": issued.data});
    apply(admin, &given, NAMESPACE).await.unwrap();
    until("the workload with the given certificate", Duration::from_secs(30), || async {
        let sets: Api<StatefulSet> = Api::namespaced(admin.clone(), NAMESPACE);
        sets.get_opt("given-certificate-front-end").await.unwrap()
    })
    .await;
    serve(admin, "given-certificate").await;
    reaches(admin, "given-certificate", "Ready", "True", "Serving").await;
}

/// Passes over pools at rest write nothing: neither the operator counts a write nor does any object get a new version.
async fn rests(admin: &Client, operator: &Operator) {
    const ROUNDS: usize = 5;
    const POOLS: [&str; 5] = ["demo", "all-transports", "node-port", "given-certificate", "office"];
    settles(operator).await;
    let writes = operator.count("commpool_operator_writes_total").await;
    let versions = versions(admin).await;
    let pools: Api<CommunicationsPool> = Api::namespaced(admin.clone(), NAMESPACE);
    for round in 0..ROUNDS {
        let passes = operator.count("commpool_operator_passes_total").await;
        let touch = json!({"metadata": {"annotations": {"example.com/round": round.to_string()}}});
        for name in POOLS {
            pools.patch(name, &PatchParams::default(), &Patch::Merge(&touch)).await.unwrap();
        }
        until("a pass over each pool", Duration::from_secs(20), || async {
            (operator.count("commpool_operator_passes_total").await >= passes + POOLS.len() as u64).then_some(())
        })
        .await;
    }
    assert_eq!(operator.count("commpool_operator_writes_total").await, writes);
    assert_eq!(self::versions(admin).await, versions);
}

/// Waits until what was begun is over: a second without a pass.
async fn settles(operator: &Operator) {
    let passes = || operator.count("commpool_operator_passes_total");
    until("no more passes", Duration::from_secs(30), || async {
        let before = passes().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        (passes().await == before).then_some(())
    })
    .await;
}

async fn versions(admin: &Client) -> Vec<(String, Option<String>)> {
    let mut versions = Vec::new();
    for (group, version, kind) in [
        ("", "v1", "Service"),
        ("", "v1", "Secret"),
        ("", "v1", "ServiceAccount"),
        ("", "v1", "PersistentVolumeClaim"),
        ("apps", "v1", "StatefulSet"),
        ("apps", "v1", "Deployment"),
        ("batch", "v1", "Job"),
        ("batch", "v1", "CronJob"),
        ("policy", "v1", "PodDisruptionBudget"),
    ] {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::namespaced_with(admin.clone(), NAMESPACE, &resource);
        let list = api.list(&kube::api::ListParams::default()).await.unwrap();
        let twice: Vec<_> =
            list.iter().filter(|it| !repairs::is_recorded_once(it)).map(ResourceExt::name_any).collect();
        assert!(twice.is_empty(), "{kind}: {twice:?}");
        versions.extend(
            list.into_iter().map(|object| (format!("{kind} {}", object.name_any()), object.resource_version())),
        );
    }
    versions
}

/// The API server lets a Service become any type and back, though ports and policies hang on it.
async fn changes_its_kind_of_service(admin: &Client) {
    let pools: Api<CommunicationsPool> = Api::namespaced(admin.clone(), NAMESPACE);
    let services: Api<Service> = Api::namespaced(admin.clone(), NAMESPACE);
    let uid = services.get("demo").await.unwrap().uid();
    let kind = |type_: &str, more: Value| {
        let mut service = more;
        service["type"] = json!(type_);
        json!({"spec": {"service": service}})
    };
    for (change, type_) in [
        (kind("ClusterIP", json!({})), "ClusterIP"),
        (kind("NodePort", json!({"hostname": "192.0.2.9"})), "NodePort"),
        (
            kind("LoadBalancer", json!({"loadBalancerClass": "example.com/x", "externalTrafficPolicy": "Cluster"})),
            "LoadBalancer",
        ),
        (kind("ClusterIP", json!({"loadBalancerClass": null})), "ClusterIP"),
        (kind("LoadBalancer", json!({"hostname": null, "externalTrafficPolicy": "Local"})), "LoadBalancer"),
    ] {
        let changed = pools.patch("demo", &PatchParams::default(), &Patch::Merge(&change)).await.unwrap();
        until(type_, Duration::from_secs(10), || async {
            let is = services.get("demo").await.unwrap().spec.unwrap().type_;
            let current =
                pools.get("demo").await.unwrap().status.unwrap().observed_generation == changed.metadata.generation;
            (current && is.as_deref() == Some(type_)).then_some(())
        })
        .await;
        let stalled = condition(&pools.get("demo").await.unwrap(), "Stalled");
        assert_eq!(stalled, None, "{change}");
    }
    assert_eq!(services.get("demo").await.unwrap().uid(), uid, "the Service was never made anew");
}

/// The namespace enforces `restricted`: a pod of the template is accepted as it is, and one that is not, is refused.
async fn pods_pass_restricted(admin: &Client) {
    let pods: Api<Pod> = Api::namespaced(admin.clone(), NAMESPACE);
    let pod = pods.get("demo-front-end-0").await.unwrap();
    let mut loose = serde_json::to_value(&pod).unwrap();
    loose["metadata"] = json!({"name": "loose"});
    loose["spec"]["containers"][0]["securityContext"] = json!({});
    let refused = pods
        .create(&PostParams { dry_run: true, ..PostParams::default() }, &serde_json::from_value(loose).unwrap())
        .await;
    assert!(refused.unwrap_err().to_string().contains("restricted"));
}

async fn grows_or_says_why_not(admin: &Client) {
    let pools: Api<CommunicationsPool> = Api::namespaced(admin.clone(), NAMESPACE);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(admin.clone(), NAMESPACE);
    let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "10Gi"}}});
    claims.patch_status("all-transports-data", &PatchParams::default(), &Patch::Merge(&bound)).await.unwrap();
    let class = json!({"spec": {"storageClassName": "standard"}});
    claims.patch("all-transports-data", &PatchParams::default(), &Patch::Merge(&class)).await.ok();
    let size = |size: &str| json!({"spec": {"frontEnd": {"storage": {"size": size}}}});
    let smaller = pools.patch("all-transports", &PatchParams::default(), &Patch::Merge(&size("9Gi"))).await;
    assert!(smaller.unwrap_err().to_string().contains("can only grow"));
    pools.patch("all-transports", &PatchParams::default(), &Patch::Merge(&size("11Gi"))).await.unwrap();
    reaches(admin, "all-transports", "Stalled", "True", "CannotGrow").await;
    pools.patch("all-transports", &PatchParams::default(), &Patch::Merge(&size("10Gi"))).await.unwrap();
    reaches(admin, "all-transports", "Ready", "True", "Serving").await;
}
