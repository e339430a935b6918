//! What strangers do to a pool's objects on a real API server, and how it is put right.

use std::time::Duration;

use commpool_operator::crd::CommunicationsPool;
use commpool_operator::names::MANAGER;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::{NAMESPACE, until};

/// Time within which a change by a stranger is put right.
const REPAIRED: Duration = Duration::from_secs(10);

/// A Service, an image, a label, an annotation.
pub(crate) async fn deletions_and_edits(admin: &Client) {
    let services: Api<Service> = Api::namespaced(admin.clone(), NAMESPACE);
    let sets: Api<StatefulSet> = Api::namespaced(admin.clone(), NAMESPACE);
    let old = services.get("demo").await.unwrap();
    services.delete("demo", &kube::api::DeleteParams::default()).await.unwrap();
    until("the Service is back", REPAIRED, || async {
        services.get_opt("demo").await.unwrap().filter(|new| new.uid() != old.uid())
    })
    .await;

    let by_hand = json!({"spec": {"template": {"spec": {"containers": [{"name": "server", "image": "other"}]}}},
        "metadata": {"labels": {"team": "chat"}}});
    sets.patch("demo-front-end", &PatchParams::default(), &Patch::Strategic(&by_hand)).await.unwrap();
    until("the image is back", REPAIRED, || async {
        let set = serde_json::to_value(sets.get("demo-front-end").await.unwrap()).unwrap();
        let image = &set["spec"]["template"]["spec"]["containers"][0]["image"];
        (image == "localhost/commpool-server:0.1.0").then(|| assert_eq!(set["metadata"]["labels"]["team"], "chat"))
    })
    .await;

    // what was asked for once and is taken back goes, also where the API server keeps the record of fields
    let pools: Api<CommunicationsPool> = Api::namespaced(admin.clone(), NAMESPACE);
    let annotated = |value: Value| json!({"spec": {"service": {"annotations": value}}});
    let read = || async { services.get("demo").await.unwrap().annotations().get("example.com/a").cloned() };
    pools
        .patch("demo", &PatchParams::default(), &Patch::Merge(&annotated(json!({"example.com/a": "b"}))))
        .await
        .unwrap();
    until("the annotation is there", REPAIRED, || async { read().await.filter(|value| value == "b").map(drop) }).await;
    pools
        .patch("demo", &PatchParams::default(), &Patch::Merge(&annotated(json!({"example.com/a": null}))))
        .await
        .unwrap();
    until("the annotation is gone", REPAIRED, || async { read().await.is_none().then_some(()) }).await;
}

type Edit = fn(&mut Value);

/// What a stranger does to a part of an object, and what of it must be as it was afterwards.
struct Case {
    what: &'static str,
    edit: Edit,
    kept: fn(&Value) -> Value,
}

const fn case(what: &'static str, edit: Edit) -> Case {
    Case { what, edit, kept: Value::clone }
}

/// Ports without the node ports.
fn ports(spec: &Value) -> Value {
    let port = |port: &Value| json!([port["name"], port["port"], port["protocol"], port["targetPort"]]);
    let mut ports: Vec<Value> = spec["ports"].as_array().into_iter().flatten().map(port).collect();
    ports.sort_by_key(Value::to_string);
    json!([spec["type"], ports])
}

const PORT: &[Case] = &[
    case("port moved", |spec| spec["ports"][0]["port"] = json!(9_999)),
    case("port moved, name gone", |spec| {
        let node_port = spec["ports"][0]["nodePort"].clone();
        spec["ports"] = json!([{"port": 9_999, "protocol": "TCP", "nodePort": node_port}]);
    }),
    case("another protocol", |spec| spec["ports"][0]["protocol"] = json!("UDP")),
    case("name moved to another port", |spec| {
        spec["ports"][0]["name"] = json!("old");
        push(&mut spec["ports"], json!({"name": "tls", "port": 9_999, "protocol": "TCP"}));
    }),
    Case {
        kept: ports,
        ..case("another type", |spec| *spec = json!({"type": "ExternalName", "externalName": "example.com"}))
    },
];

const PORTS: &[Case] = &[
    case("one of two transports moved", |spec| named(&mut spec["ports"], "udp")["port"] = json!(9_999)),
    case("all moved", |spec| {
        for (index, name) in ["tls", "tcp", "udp"].into_iter().enumerate() {
            named(&mut spec["ports"], name)["port"] = json!(index + 1);
        }
    }),
    Case {
        kept: ports,
        ..case("two ports exchanged", |spec| {
            named(&mut spec["ports"], "tls")["port"] = json!(5_060);
            named(&mut spec["ports"], "tcp")["port"] = json!(5_061);
        })
    },
    Case {
        kept: ports,
        ..case("one port in the place of another", |spec| {
            named(&mut spec["ports"], "tcp")["port"] = json!(9_999);
            named(&mut spec["ports"], "tls")["port"] = json!(5_060);
        })
    },
];

const WORKLOAD: &[Case] = &[
    case("port moved", |pod| named(&mut pod["containers"][0]["ports"], "tls")["containerPort"] = json!(9_999)),
    case("another protocol", |pod| named(&mut pod["containers"][0]["ports"], "tls")["protocol"] = json!("UDP")),
    case("another kind of volume", |pod| {
        *named(&mut pod["volumes"], "data") = json!({"name": "data", "emptyDir": {}});
    }),
    case("another kind of probe", |pod| {
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            pod["containers"][0][probe] = json!({"tcpSocket": {"port": "management"}});
        }
    }),
    case("another profile", |pod| {
        pod["securityContext"]["seccompProfile"] = json!({"type": "Localhost", "localhostProfile": "x.json"});
    }),
    case("a limit below what is reserved", |pod| {
        let resources = &mut pod["containers"][0]["resources"];
        resources["limits"]["cpu"] = json!("50m");
        resources["requests"]["cpu"] = json!("50m");
    }),
    // two mounts of one volume can stand side by side
    Case {
        kept: |pod| {
            json!(pod["containers"][0]["volumeMounts"].as_array().unwrap().iter().any(|it| it["mountPath"] == "/data"))
        },
        ..case("mount moved", |pod| {
            named(&mut pod["containers"][0]["volumeMounts"], "data")["mountPath"] = json!("/mnt")
        })
    },
];

fn push(list: &mut Value, item: Value) {
    list.as_array_mut().unwrap().push(item);
}

fn named<'a>(list: &'a mut Value, name: &str) -> &'a mut Value {
    list.as_array_mut().unwrap().iter_mut().find(|item| item["name"] == name).unwrap()
}

/// Edits after which a mere apply is refused, because what the stranger wrote cannot stand beside what is ours.
pub(crate) async fn what_stands_in_the_way(admin: &Client) {
    for case in PORT {
        altered::<Service>(admin, "demo", "/spec", case).await;
    }
    for case in PORTS {
        altered::<Service>(admin, "all-transports", "/spec", case).await;
    }
    for case in WORKLOAD {
        altered::<StatefulSet>(admin, "demo-front-end", "/spec/template/spec", case).await;
    }
    a_strangers_port_stays(admin).await;
    what_was_put_right_goes_by_our_own_wish(admin).await;
}

async fn altered<K>(admin: &Client, name: &str, part: &str, case: &Case)
where
    K: kube::Resource<DynamicType = ()>,
{
    let api: Api<DynamicObject> = Api::namespaced_with(admin.clone(), NAMESPACE, &ApiResource::erase::<K>(&()));
    let read = || async { serde_json::to_value(api.get(name).await.unwrap()).unwrap() };
    let kept = |object: &Value| (case.kept)(object.pointer(part).unwrap());
    let mut object = read().await;
    let before = kept(&object);
    (case.edit)(object.pointer_mut(part).unwrap());
    let params = PostParams { field_manager: Some("stranger".into()), ..PostParams::default() };
    let edited = api.replace(name, &params, &serde_json::from_value(object).unwrap()).await.unwrap();
    assert_ne!(kept(&serde_json::to_value(edited).unwrap()), before, "{}", case.what);
    until(&format!("{name} is back after: {}", case.what), REPAIRED, || async {
        (kept(&read().await) == before).then_some(())
    })
    .await;
}

async fn a_strangers_port_stays(admin: &Client) {
    let services: Api<Service> = Api::namespaced(admin.clone(), NAMESPACE);
    let read = || async { serde_json::to_value(services.get("demo").await.unwrap()).unwrap() };
    let ours = read().await["spec"]["ports"][0].clone();
    let extra = json!([{"op": "add", "path": "/spec/ports/-", "value": {"name": "extra", "port": 7}},
        {"op": "replace", "path": "/spec/ports/0/port", "value": 9_999}]);
    let extra = Patch::Json::<()>(serde_json::from_value(extra).unwrap());
    services.patch("demo", &PatchParams::default(), &extra).await.unwrap();
    until("our port is back beside the stranger's", REPAIRED, || async {
        let ports = read().await["spec"]["ports"].as_array().unwrap().clone();
        (ports.contains(&ours)).then(|| {
            assert_eq!(ports.len(), 2, "{ports:?}");
            assert!(ports.iter().any(|port| port["name"] == "extra" && port["port"] == 7), "{ports:?}");
        })
    })
    .await;
}

/// Ports that were put right are ours as if they had never been touched.
async fn what_was_put_right_goes_by_our_own_wish(admin: &Client) {
    let pools: Api<CommunicationsPool> = Api::namespaced(admin.clone(), NAMESPACE);
    let services: Api<Service> = Api::namespaced(admin.clone(), NAMESPACE);
    for (listeners, names) in [
        (json!({"tls": 5061, "tcp": null, "udp": null}), &["tls"][..]),
        (json!({"tls": 5061, "tcp": 5060, "udp": 5060}), &["tls", "tcp", "udp"][..]),
    ] {
        let spec = json!({"spec": {"service": {"listeners": listeners}}});
        pools.patch("all-transports", &PatchParams::default(), &Patch::Merge(&spec)).await.unwrap();
        until(&format!("the Service has {names:?}"), REPAIRED, || async {
            let ports = services.get("all-transports").await.unwrap().spec.unwrap().ports.unwrap();
            let mut present: Vec<String> = ports.into_iter().filter_map(|port| port.name).collect();
            present.sort_by_key(|name| names.iter().position(|it| it == name));
            (present == names).then_some(())
        })
        .await;
    }
    let sets: Api<StatefulSet> = Api::namespaced(admin.clone(), NAMESPACE);
    until("the workload has all ports", REPAIRED, || async {
        let set = serde_json::to_value(sets.get("all-transports-front-end").await.unwrap()).unwrap();
        let ports = set.pointer("/spec/template/spec/containers/0/ports").unwrap();
        (ports.as_array().unwrap().len() == 4).then_some(())
    })
    .await;
    crate::follow(admin, "all-transports").await;
}

/// Everything of ours is recorded as applied: nothing that a later apply could not take back.
pub(crate) fn is_recorded_once(object: &DynamicObject) -> bool {
    let ours = object.managed_fields().iter().filter(|entry| entry.manager.as_deref() == Some(MANAGER));
    let mut operations = ours.filter(|entry| entry.subresource.is_none()).map(|entry| entry.operation.as_deref());
    operations.all(|operation| operation == Some("Apply"))
}
