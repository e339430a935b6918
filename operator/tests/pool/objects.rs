//! The objects themselves: pinned, so that a change of what pods get is seen in review, and fit for restricted namespaces.

use commpool_operator::build::{Built, build};
use commpool_operator::crd::CommunicationsPool;
use commpool_operator::observed::{Observed, Reach};
use commpool_operator::pki::{Entropy, PkiError};
use commpool_operator::validate::{Environment, validate};
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::support::{directory, enterprise, enterprise_with, minimal, spec};

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
        "directorySync": varied_directory(),
    }))
}

fn varied_directory() -> Value {
    let mut directory = directory();
    directory["schedule"] = json!("0 6 * * 1-5");
    directory["timeZone"] = json!("Europe/Berlin");
    directory["suspend"] = json!(true);
    let ldap = json!({"urls": ["ldaps://dc1.example.com", "ldap://[2001:db8::1]"], "filter": "(objectClass=user)",
        "bindDNKey": "username", "passwordKey": "word", "caKey": "tls.crt", "pageSize": 1000, "timeoutSeconds": 5});
    directory["ldap"].as_object_mut().unwrap().extend(ldap.as_object().unwrap().clone());
    directory["mapping"] = json!({"key": "employeeNumber", "sipAddress": ["{uid}@example.com"], "phone": "",
        "enabled": {"attribute": "msRTCSIP-UserEnabled", "accountControl": false, "group": "CN=chat", "nested": true}});
    directory["removal"] =
        json!({"maxPercent": 0, "maxCount": 9, "graceDays": 30, "releaseDigest": "0123456789abcdef"});
    directory
}

/// Everything of Enterprise Edition set, with a database that somebody else keeps.
fn varied_enterprise() -> Value {
    let mut spec = varied();
    spec["edition"] = json!("Enterprise");
    let front_end = &mut spec["frontEnd"];
    front_end.as_object_mut().unwrap().remove("storage");
    front_end["replicas"] = json!(1);
    front_end["drain"] = json!({"timeoutSeconds": 300, "flowsPerSecond": 7});
    front_end["maxSurge"] = json!("25%");
    let limits = json!({"startingDeadlineSeconds": 60, "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 9});
    spec["directorySync"].as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
    spec["database"] = json!({"external": {"host": "2001:db8::7", "port": 6432, "name": "chat", "credentialsSecret": "logins",
        "tls": {"caSecret": "trust"}}});
    spec
}

/// All objects as YAML; of Secrets, the configuration in clear and of the rest only the keys.
fn shown(built: &Built) -> String {
    let desired = &built.desired;
    let mut objects = vec![json!(desired.service), json!(desired.peers), json!(desired.service_account)];
    let secrets = [
        &desired.keys,
        &desired.credentials,
        &desired.authority,
        &desired.certificate,
        &desired.peer_certificate,
        &desired.config,
    ];
    for secret in secrets.into_iter().flatten() {
        let mut object = json!(secret);
        for (key, octets) in secret.data.iter().flatten() {
            let is_plain = key.ends_with(".yaml") || key.ends_with("-username");
            let text = if is_plain { String::from_utf8(octets.0.clone()).unwrap() } else { "(chance)".into() };
            object["data"][key] = json!(text);
        }
        objects.push(object);
    }
    objects.extend([json!(desired.claim), json!(desired.database_service), json!(desired.database)]);
    objects.extend([json!(desired.migration), json!(desired.front_end), json!(desired.disruption_budget)]);
    objects.push(json!(desired.replicator));
    let documents = objects.iter().filter(|object| !object.is_null());
    let documents: Vec<String> = documents.map(|object| serde_yaml::to_string(object).unwrap()).collect();
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

#[test]
fn objects_of_the_shortest_enterprise_pool() {
    insta::assert_snapshot!(shown(&built(enterprise())));
}

#[test]
fn objects_of_an_enterprise_pool_with_everything_set() {
    insta::assert_snapshot!(shown(&built(varied_enterprise())));
}

/// All pods that the objects of a pool make.
fn pods(built: &Built) -> Vec<Value> {
    let desired = &built.desired;
    let makers = [json!(desired.front_end), json!(desired.database), json!(desired.migration)];
    let replicator = json!(desired.replicator)["spec"]["jobTemplate"].clone();
    let makers = makers.into_iter().chain([replicator]).filter(|maker| !maker.is_null());
    makers.map(|maker| maker["spec"]["template"]["spec"].clone()).collect()
}

/// What the Pod Security Standard `restricted` asks of a pod, as far as our pods could break it.
#[test]
fn pods_pass_the_restricted_standard() {
    let all: Vec<Value> = [minimal(), varied(), enterprise(), varied_enterprise()]
        .into_iter()
        .flat_map(|spec| pods(&built(spec)))
        .collect();
    assert_eq!(all.len(), 8);
    for pod in all {
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
            let ports = container["ports"].as_array().into_iter().flatten();
            assert!(ports.into_iter().all(|port| port.get("hostPort").is_none()));
        }
        let kinds =
            pod["volumes"].as_array().unwrap().iter().flat_map(|volume| volume.as_object().unwrap().keys().cloned());
        let allowed = ["name", "projected", "persistentVolumeClaim", "emptyDir"];
        assert!(kinds.into_iter().all(|kind| allowed.contains(&kind.as_str())));
    }
}

/// What makes a migration another one, and what does not.
#[test]
fn a_migration_is_named_by_all_that_it_is_made_of() {
    let name = |more: Value| json!(built(enterprise_with(more)).desired.migration)["metadata"]["name"].clone();
    let first = name(json!({}));
    for same in [
        json!({"frontEnd": {"replicas": 5, "maxSurge": 1}}),
        json!({"policy": {"maxMessageBytes": 4096}}),
        json!({"database": {"embedded": {"resources": {"limits": {"memory": "2Gi"}}}}}),
    ] {
        assert_eq!(name(same.clone()), first, "{same}");
    }
    for other in [
        json!({"version": "2.0.0"}),
        json!({"image": {"registry": "r.example.com"}}),
        json!({"image": {"pullSecrets": ["r"]}}),
        json!({"frontEnd": {"placement": {"nodeSelector": {"a": "b"}}}}),
        json!({"database": {"external": {"host": "db", "credentialsSecret": "db", "tls": {"mode": "disable"}}}}),
    ] {
        assert_ne!(name(other.clone()), first, "{other}");
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
