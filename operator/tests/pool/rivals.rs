//! What strangers write that cannot stand beside what is ours: an apply alone would be refused for ever.

use serde_json::{Value, json};

use crate::support::api::status;
use crate::support::{Objects, World, assert_same, minimal, spec};

type Edit = fn(&mut Value);

fn push(list: &mut Value, item: Value) {
    list.as_array_mut().unwrap().push(item);
}

fn named<'a>(list: &'a mut Value, name: &str) -> &'a mut Value {
    list.as_array_mut().unwrap().iter_mut().find(|item| item["name"] == name).unwrap()
}

fn all_transports() -> Value {
    spec(json!({"service": {"listeners": {"tls": 5061, "tcp": 5060, "udp": 5060}}}))
}

/// Ports of the Service as names, ports, node ports.
fn ports(world: &World) -> Vec<(String, u64, u64)> {
    let service = world.api.get("services", "demo");
    let of = |port: &Value| {
        (port["name"].as_str().unwrap().to_owned(), port["port"].as_u64().unwrap(), port["nodePort"].as_u64().unwrap())
    };
    let mut ports: Vec<_> = service["spec"]["ports"].as_array().unwrap().iter().map(of).collect();
    ports.sort();
    ports
}

#[tokio::test]
async fn ports_altered_by_hand_are_put_right_and_keep_their_node_ports() {
    let edits: &[(&str, Edit)] = &[
        ("a port moved", |ports| named(ports, "tls")["port"] = json!(9_999)),
        ("another protocol", |ports| named(ports, "tls")["protocol"] = json!("UDP")),
        ("all in another place", |ports| {
            named(ports, "tls")["port"] = json!(1);
            named(ports, "tcp")["port"] = json!(2);
            named(ports, "udp")["port"] = json!(2);
        }),
        ("the target too", |ports| {
            named(ports, "tcp")["port"] = json!(9_999);
            named(ports, "tcp")["targetPort"] = json!("other");
        }),
        ("a name moved to another port", |ports| {
            named(ports, "tls")["name"] = json!("old");
            push(ports, json!({"name": "tls", "port": 9_999, "protocol": "TCP"}));
        }),
    ];
    for (what, edit) in edits {
        let world = World::with(all_transports());
        world.settle().await;
        let (whole, before) = (world.objects(), ports(&world));
        world.api.edit("services", "demo", |service| edit(&mut service["spec"]["ports"]));
        let writes = world.settle().await;
        assert_same(&world.objects(), &whole, what);
        assert_eq!(ports(&world), before, "{what}");
        assert!(writes <= 5, "{what}: {writes} writes");
        assert!(world.is_ready(), "{what}");
    }
}

#[tokio::test]
async fn ports_are_put_right_though_node_ports_go() {
    let edits: &[(&str, Edit)] = &[
        ("two ports exchanged", |ports| {
            named(ports, "tls")["port"] = json!(5_060);
            named(ports, "tcp")["port"] = json!(5_061);
        }),
        ("a port in the place of another", |ports| {
            named(ports, "tcp")["port"] = json!(9_999);
            named(ports, "tls")["port"] = json!(5_060);
        }),
    ];
    for (what, edit) in edits {
        let world = World::with(all_transports());
        world.settle().await;
        let whole = world.objects();
        world.api.edit("services", "demo", |service| edit(&mut service["spec"]["ports"]));
        world.settle().await;
        assert_same(&world.objects(), &whole, what);
    }
}

#[tokio::test]
async fn a_port_that_lost_its_name_is_ours() {
    let world = World::with(minimal());
    world.settle().await;
    let (whole, before) = (world.objects(), ports(&world));
    world.api.edit("services", "demo", |service| {
        let node_port = service["spec"]["ports"][0]["nodePort"].clone();
        service["spec"]["ports"] = json!([{"port": 9_999, "protocol": "TCP", "nodePort": node_port}]);
    });
    world.settle().await;
    assert_same(&world.objects(), &whole, "a nameless port");
    assert_eq!(ports(&world), before);
}

#[tokio::test]
async fn a_port_of_its_own_name_is_left_alone() {
    let world = World::with(minimal());
    world.settle().await;
    let before = ports(&world);
    world.api.edit("services", "demo", |service| {
        named(&mut service["spec"]["ports"], "tls")["port"] = json!(9_999);
        push(&mut service["spec"]["ports"], json!({"name": "extra", "port": 7, "protocol": "TCP", "nodePort": 32_000}));
    });
    world.settle().await;
    let with_extra = [vec![("extra".to_owned(), 7, 32_000)], before].concat();
    assert_eq!(ports(&world), with_extra);
    assert!(world.is_ready());
    // and it goes on to be left alone when ours move by our own wish
    world.set_spec(spec(json!({"service": {"listeners": {"tls": 443}}})));
    world.settle().await;
    let tls = (with_extra[1].0.clone(), 443, with_extra[1].2);
    assert_eq!(ports(&world), [with_extra[0].clone(), tls]);
}

/// What was put right is ours as if it had never been touched: it goes when the spec no longer asks for it.
#[tokio::test]
async fn a_port_that_was_put_right_goes_with_its_listener() {
    let world = World::with(all_transports());
    world.settle().await;
    for name in ["tls", "tcp"] {
        world.api.edit("services", "demo", |service| named(&mut service["spec"]["ports"], name)["port"] = json!(9_999));
        world.settle().await;
    }
    world.set_spec(spec(json!({"service": {"listeners": {"udp": 5060}}})));
    world.settle().await;
    let fresh = World::with(spec(json!({"service": {"listeners": {"udp": 5060}}})));
    fresh.settle().await;
    let service = |world: &World| -> Objects {
        world.objects().into_iter().filter(|(key, _)| key.resource == "services").collect()
    };
    assert_same(&service(&world), &service(&fresh), "ports that were put right");
}

#[tokio::test]
async fn what_we_move_by_our_own_wish_is_one_write() {
    let world = World::with(minimal());
    world.settle().await;
    let before = ports(&world);
    world.set_spec(spec(json!({"service": {"listeners": {"tls": 443}}})));
    let mut writes = world.pass().await;
    writes.extend(world.pass().await);
    assert_eq!(writes.iter().filter(|seen| seen.is_write() && seen.resource == "services").count(), 1);
    assert_eq!(ports(&world), [("tls".to_owned(), 443, before[0].2)]);
}

/// Somebody else was quicker: the next pass decides on what is there then.
#[tokio::test]
async fn a_conflict_is_no_refusal() {
    let world = World::with(minimal());
    world.settle().await;
    let whole = world.objects();
    world.api.edit("services", "demo", |service| named(&mut service["spec"]["ports"], "tls")["port"] = json!(9_999));
    world.api.refuse("patch", "services", 409, status(409, "Conflict", "the object has been modified"));
    world.pass().await;
    assert_eq!(world.condition("Stalled"), None);
    world.api.stop_refusing();
    world.settle().await;
    assert_same(&world.objects(), &whole, "a conflict");
}

#[tokio::test]
async fn pods_altered_by_hand_are_put_right() {
    let edits: &[(&str, Edit)] = &[
        ("a port moved", |pod| named(&mut pod["containers"][0]["ports"], "tls")["containerPort"] = json!(9_999)),
        ("another protocol", |pod| named(&mut pod["containers"][0]["ports"], "tls")["protocol"] = json!("UDP")),
        ("another kind of volume", |pod| *named(&mut pod["volumes"], "data") = json!({"name": "data", "emptyDir": {}})),
        ("another kind of probe", |pod| {
            for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                pod["containers"][0][probe] = json!({"tcpSocket": {"port": "management"}});
            }
        }),
        ("a privileged container", |pod| {
            let context = &mut pod["containers"][0]["securityContext"];
            context["privileged"] = json!(true);
            context["allowPrivilegeEscalation"] = json!(true);
        }),
        ("another profile", |pod| {
            pod["securityContext"]["seccompProfile"] = json!({"type": "Localhost", "localhostProfile": "x.json"});
        }),
        ("a limit below what is reserved", |pod| {
            let resources = &mut pod["containers"][0]["resources"];
            resources["limits"]["cpu"] = json!("50m");
            resources["requests"]["cpu"] = json!("50m");
        }),
    ];
    for (what, edit) in edits {
        let world = World::with(minimal());
        world.settle().await;
        let whole = world.objects();
        world.api.edit("statefulsets", "demo-front-end", |set| edit(&mut set["spec"]["template"]["spec"]));
        world.settle().await;
        assert!(world.is_ready(), "{what}: {:#}", world.pool()["status"]);
        assert_same(&world.objects(), &whole, what);
    }
}
