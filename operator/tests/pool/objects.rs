//! The objects themselves: pinned, so that a change of what pods get is seen in review, and fit for restricted namespaces.

use commpool_operator::build::{Built, build};
use commpool_operator::crd::CommunicationsPool;
use commpool_operator::observed::{Observed, Reach};
use commpool_operator::pki::{Entropy, PkiError};
use commpool_operator::validate::{Environment, validate};
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::support::{minimal, spec};

/// Always the same octets; keys of certificates are chance all the same, and are not shown.
struct Fixed;

impl Entropy for Fixed {
    fn fill(&mut self, octets: &mut [u8]) -> Result<(), PkiError> {
        octets.fill(7);
        Ok(())
    }

    fn key_pair(&mut self) -> Result<KeyPair, PkiError> {
        Ok(KeyPair::generate()?)
    }
}

fn built(spec: Value) -> Built {
    let pool: CommunicationsPool = serde_json::from_value(json!({
        "apiVersion": "commpool.dev/v1alpha1", "kind": "CommunicationsPool", "spec": spec,
        "metadata": {"name": "demo", "namespace": "chat", "uid": "7"},
    }))
    .unwrap();
    let pool = validate(&pool, &Environment { version: "1.2.3".into() }).unwrap();
    let observed = Observed::default();
    let reach = Reach::find(&pool, None);
    build(&pool, &observed, &reach, 1_800_000_000, &mut Fixed).unwrap()
}

fn varied() -> Value {
    spec(json!({
        "sipDomains": ["example.com", "example.org"],
        "image": {"registry": "r.example.com/chat", "pullPolicy": "Always", "pullSecrets": ["registry"]},
        "frontEnd": {
            "resources": {"requests": {"cpu": 1}, "limits": {"cpu": 2, "memory": "1Gi"}},
            "storage": {"size": "20Gi", "storageClassName": "fast"},
            "placement": {"spread": "None", "nodeSelector": {"zone": "a"}, "tolerations": [{"key": "chat", "operator": "Exists", "effect": "NoSchedule"}]},
            "podAnnotations": {"example.com/note": "x"},
        },
        "service": {
            "listeners": {"tls": 443, "tcp": 5060, "udp": 5060}, "hostname": "sip.example.com",
            "loadBalancerClass": "example.com/lb", "loadBalancerSourceRanges": ["192.0.2.0/24"],
            "annotations": {"example.com/pool": "edge"},
        },
        "tls": {"secretName": "own"},
        "authentication": {"digest": ["MD5"]},
        "policy": {"maxMessageBytes": 4096},
    }))
}

/// All objects as YAML; of Secrets, the configuration in clear and of the rest only the keys.
fn shown(built: &Built) -> String {
    let desired = &built.desired;
    let mut objects = vec![json!(desired.service), json!(desired.service_account)];
    for secret in [&desired.keys, &desired.authority, &desired.certificate, &desired.config].into_iter().flatten() {
        let mut object = json!(secret);
        for (key, octets) in secret.data.iter().flatten() {
            let text =
                if key == "config.yaml" { String::from_utf8(octets.0.clone()).unwrap() } else { "(chance)".into() };
            object["data"][key] = json!(text);
        }
        objects.push(object);
    }
    objects.extend([json!(desired.claim), json!(desired.front_end)]);
    let documents: Vec<String> = objects.iter().map(|object| serde_yaml::to_string(object).unwrap()).collect();
    documents.join("---\n")
}

#[test]
fn objects_of_the_shortest_pool() {
    insta::assert_snapshot!(shown(&built(minimal())));
}

#[test]
fn objects_of_a_pool_with_everything_set() {
    insta::assert_snapshot!(shown(&built(varied())));
}

/// What the Pod Security Standard `restricted` asks of a pod, as far as our pods could break it.
#[test]
fn pods_pass_the_restricted_standard() {
    for spec in [minimal(), varied()] {
        let pod = json!(built(spec).desired.front_end)["spec"]["template"]["spec"].clone();
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(pod["automountServiceAccountToken"], false);
        for forbidden in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pod.get(forbidden).is_none(), "{forbidden}");
        }
        for container in pod["containers"].as_array().unwrap() {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
            assert!(
                container["resources"]["requests"]["cpu"].is_string()
                    && container["resources"]["limits"]["memory"].is_string()
            );
            let ports = container["ports"].as_array().unwrap();
            assert!(ports.iter().all(|port| port.get("hostPort").is_none()));
        }
        let kinds =
            pod["volumes"].as_array().unwrap().iter().flat_map(|volume| volume.as_object().unwrap().keys().cloned());
        assert!(kinds.filter(|kind| kind != "name").all(|kind| kind == "projected" || kind == "persistentVolumeClaim"));
    }
}

#[test]
fn only_what_a_server_does_not_reload_restarts_it() {
    let hash = |spec: Value| {
        json!(built(spec).desired.front_end)["spec"]["template"]["metadata"]["annotations"]["commpool.dev/config-hash"]
            .clone()
    };
    let first = hash(minimal());
    assert_eq!(hash(spec(json!({"service": {"hostname": "sip.example.com"}}))), first);
    assert_eq!(hash(spec(json!({"service": {"externalTrafficPolicy": "Cluster"}}))), first);
    assert_eq!(hash(spec(json!({"service": {"listeners": {"tls": 443}}}))), first);
    assert_ne!(hash(spec(json!({"policy": {"maxMessageBytes": 4096}}))), first);
    assert_ne!(hash(spec(json!({"service": {"listeners": {"tls": 443, "tcp": 80}}}))), first);
}
