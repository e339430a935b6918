//! The rest of the cluster: what controllers, scheduler and kubelet would do with the operator's objects.

use serde_json::{Value, json};

use super::api::FakeApi;

/// What the rest of the cluster does, and does not do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cluster {
    /// Load balancers get addresses.
    pub(crate) balances: bool,
    /// Claims get volumes.
    pub(crate) binds: bool,
    /// Nodes have the server's image, and it serves.
    pub(crate) serves: bool,
    /// Databases take connections.
    pub(crate) stores: bool,
    /// Migrations succeed.
    pub(crate) migrates: bool,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { balances: true, binds: true, serves: true, stores: true, migrates: true }
    }
}

impl Cluster {
    /// Does what is to be done now.
    pub(crate) fn step(self, api: &FakeApi) {
        for (key, object) in api.all() {
            match key.resource.as_str() {
                "services" if self.balances && object["spec"]["type"] == "LoadBalancer" => {
                    api.edit("services", &key.name, |service| {
                        service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}});
                    });
                }
                "services" if object["spec"]["type"] != "LoadBalancer" => {
                    api.edit("services", &key.name, |service| {
                        service.as_object_mut().expect("an object").remove("status");
                    });
                }
                "persistentvolumeclaims" if self.binds => api.edit("persistentvolumeclaims", &key.name, |claim| {
                    claim["status"] = json!({"phase": "Bound"});
                    if claim["spec"].get("storageClassName").is_none() {
                        claim["spec"]["storageClassName"] = json!("standard");
                    }
                }),
                "statefulsets" => self.run_set(api, &object),
                "deployments" => self.run_deployment(api, &object),
                "jobs" => self.run_job(api, &object),
                _ => {}
            }
        }
    }

    /// One pod of the template, with its status.
    fn run_set(self, api: &FakeApi, workload: &Value) {
        let name = text(&workload["metadata"]["name"]);
        let ready = if name.ends_with("-database") { self.stores } else { self.serves };
        let (pod, revision) = (format!("{name}-0"), revision(workload));
        let stale = api.find("pods", &pod).is_some_and(|pod| text(&pod["metadata"]["labels"][REVISION]) != revision);
        if stale {
            api.delete("pods", &pod);
        }
        ensure_pod(api, workload, "StatefulSet", &pod, &revision, ready);
        api.edit("statefulsets", &name, |workload| {
            workload["status"] = json!({"replicas": 1, "readyReplicas": i32::from(ready), "updatedReplicas": 1,
                "currentRevision": revision, "updateRevision": revision,
                "observedGeneration": workload["metadata"]["generation"]});
        });
    }

    /// As many pods of the template as there should be; those of an older one go when the new ones are ready.
    fn run_deployment(self, api: &FakeApi, workload: &Value) {
        let (name, revision) = (text(&workload["metadata"]["name"]), revision(workload));
        let wanted = workload["spec"]["replicas"].as_u64().unwrap_or(1);
        let pods = |api: &FakeApi| -> Vec<(String, bool)> {
            let owned = api.all().into_iter().filter(|(key, pod)| {
                key.resource == "pods" && pod["metadata"]["ownerReferences"][0]["uid"] == workload["metadata"]["uid"]
            });
            owned.map(|(key, pod)| (key.name, text(&pod["metadata"]["labels"][REVISION]) == revision)).collect()
        };
        let before = pods(api);
        let (new, old): (Vec<_>, Vec<_>) = before.into_iter().partition(|(_, new)| *new);
        let ready = if self.serves { new.len() } else { 0 } + old.len();
        for (pod, _) in new.iter().skip(usize::try_from(wanted).unwrap()) {
            api.delete("pods", pod);
        }
        if self.serves && new.len() as u64 >= wanted {
            old.iter().for_each(|(pod, _)| api.delete("pods", pod));
        }
        for index in 0..wanted {
            ensure_pod(api, workload, "Deployment", &format!("{revision}-{index}"), &revision, self.serves);
        }
        api.edit("deployments", &name, |workload| {
            workload["status"] = json!({"replicas": new.len() + old.len(), "readyReplicas": ready,
                "updatedReplicas": new.len(), "observedGeneration": workload["metadata"]["generation"]});
        });
    }

    /// A pod that completes or tries again and again; an end when its time is up, and oblivion after that.
    fn run_job(self, api: &FakeApi, job: &Value) {
        let name = text(&job["metadata"]["name"]);
        let ended = job["status"]["conditions"][0]["lastTransitionTime"].as_str().map(str::to_owned);
        if let Some(ended) = ended {
            let lives = job["spec"]["ttlSecondsAfterFinished"].as_i64();
            let ended: k8s_openapi::jiff::Timestamp = ended.parse().unwrap();
            if lives.is_some_and(|lives| api.time().as_second() >= ended.as_second() + lives) {
                Self::delete(api, "jobs", &name);
            }
            return;
        }
        ensure_pod(api, job, "Job", &format!("{name}-pod"), "", false);
        let end = |type_: &str, message: &str| json!({"conditions": [{"type": type_, "status": "True", "message": message, "lastTransitionTime": api.time().to_string()}]});
        let status = if job["spec"].get("activeDeadlineSeconds").is_some() {
            end("Failed", "Job was active longer than specified deadline")
        } else if self.migrates {
            end("Complete", "")
        } else {
            json!({})
        };
        api.edit("jobs", &name, |job| job["status"] = status);
    }

    /// Deletes an object and what it owns, as the garbage collector does.
    pub(crate) fn delete(api: &FakeApi, resource: &str, name: &str) {
        let uid = api.get(resource, name)["metadata"]["uid"].clone();
        api.delete(resource, name);
        for (key, object) in api.all() {
            let owners = object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
            if owners.iter().any(|owner| owner["uid"] == uid) {
                Self::delete(api, &key.resource, &key.name);
            }
        }
    }
}

/// What the API server itself gives a Service. A port that comes without a node port keeps that of its name.
pub(crate) fn give_ports(service: &mut Value, before: Option<&Value>) {
    if service["spec"].get("clusterIP").is_none() {
        service["spec"]["clusterIP"] = json!("10.96.0.10");
    }
    let opens = service["spec"]["type"] != "ClusterIP";
    let ports = |service: &Value| service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let mut taken: Vec<Value> = ports(service).iter().filter_map(|port| port.get("nodePort").cloned()).collect();
    let former = before.map(ports).unwrap_or_default();
    for port in service["spec"]["ports"].as_array_mut().into_iter().flatten() {
        if opens && port.get("nodePort").is_none() {
            let kept = former.iter().find(|it| it["name"] == port["name"]).and_then(|it| it.get("nodePort"));
            let kept = kept.filter(|it| !taken.contains(it)).cloned();
            let fresh = || (30_000..32_768).map(Value::from).find(|it| !taken.contains(it)).expect("a free port");
            let given = kept.unwrap_or_else(fresh);
            taken.push(given.clone());
            port["nodePort"] = given;
        }
        if !opens && let Some(port) = port.as_object_mut() {
            port.remove("nodePort");
        }
    }
}

const REVISION: &str = "controller-revision-hash";

fn revision(workload: &Value) -> String {
    format!("{}-{}", text(&workload["metadata"]["name"]), hash(&workload["spec"]["template"]))
}

fn ensure_pod(api: &FakeApi, workload: &Value, kind: &str, pod: &str, revision: &str, ready: bool) {
    if api.find("pods", pod).is_none() {
        let mut metadata = workload["spec"]["template"]["metadata"].clone();
        metadata["name"] = json!(pod);
        metadata["namespace"] = workload["metadata"]["namespace"].clone();
        metadata["labels"][REVISION] = json!(revision);
        metadata["ownerReferences"] = json!([{"apiVersion": workload["apiVersion"], "kind": kind,
            "name": workload["metadata"]["name"], "uid": workload["metadata"]["uid"], "controller": true}]);
        let spec = workload["spec"]["template"]["spec"].clone();
        api.put("", "pods", json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}));
    }
    if ready {
        api.edit("pods", pod, |pod| {
            pod["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}], "podIP": "10.0.0.9"});
        });
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What the API server itself adds to a Job at its making.
pub(crate) fn complete_job(job: &mut Value) {
    let (uid, name) = (job["metadata"]["uid"].clone(), job["metadata"]["name"].clone());
    let spec = &mut job["spec"];
    spec["suspend"] = json!(false);
    spec["completionMode"] = json!("NonIndexed");
    spec["template"]["spec"]["dnsPolicy"] = json!("ClusterFirst");
    let labels = &mut spec["template"]["metadata"]["labels"];
    labels["batch.kubernetes.io/controller-uid"] = uid;
    labels["batch.kubernetes.io/job-name"] = name;
}

fn hash(value: &Value) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hasher = std::hash::DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    hasher.finish() % 1_000_000
}
