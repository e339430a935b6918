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
}

impl Default for Cluster {
    fn default() -> Self {
        Self { balances: true, binds: true, serves: true }
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
                "statefulsets" => self.run(api, &object),
                _ => {}
            }
        }
    }

    /// One pod of the template, with its status.
    fn run(self, api: &FakeApi, workload: &Value) {
        let name = workload["metadata"]["name"].as_str().unwrap().to_owned();
        let pod = format!("{name}-0");
        let revision = format!("{name}-{}", hash(&workload["spec"]["template"]));
        let stale = api
            .find("pods", &pod)
            .is_some_and(|pod| pod["metadata"]["labels"]["controller-revision-hash"] != json!(revision));
        if stale {
            api.delete("pods", &pod);
        }
        if api.find("pods", &pod).is_none() {
            let mut metadata = workload["spec"]["template"]["metadata"].clone();
            metadata["name"] = json!(pod);
            metadata["namespace"] = workload["metadata"]["namespace"].clone();
            metadata["labels"]["controller-revision-hash"] = json!(revision);
            metadata["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name,
                "uid": workload["metadata"]["uid"], "controller": true}]);
            let spec = workload["spec"]["template"]["spec"].clone();
            api.put("", "pods", json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}));
        }
        if self.serves {
            api.edit("pods", &pod, |pod| {
                pod["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
            });
        }
        let ready = i32::from(self.serves);
        api.edit("statefulsets", &name, |workload| {
            workload["status"] = json!({"replicas": 1, "readyReplicas": ready, "updatedReplicas": 1,
                "currentRevision": revision, "updateRevision": revision,
                "observedGeneration": workload["metadata"]["generation"]});
        });
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

fn hash(value: &Value) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hasher = std::hash::DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    hasher.finish() % 1_000_000
}
