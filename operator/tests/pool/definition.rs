//! The definition: its rules by kube's own evaluator, its defaults, its bounds; the samples.

use std::collections::BTreeSet;
use std::path::PathBuf;

use commpool_operator::crd::rules::{RULES, SchemaRule};
use commpool_operator::crd::{CommunicationsPool, MAX_DEFINITION_OCTETS, PoolSpec, definition};
use commpool_operator::generate::files;
use commpool_operator::validate::{Environment, validate};
use kube::core::cel::{Validator, apply_defaults};
use serde_json::{Value, json};

use crate::directory_rules;
use crate::support::{directory, minimal, spec};

fn schema() -> Value {
    let crd = serde_json::to_value(definition().unwrap()).unwrap();
    crd.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap().clone()
}

fn pool(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "commpool.dev/v1alpha1", "kind": "CommunicationsPool", "metadata": {"name": name}, "spec": spec})
}

fn violations(new: &Value, old: Option<&Value>) -> Vec<String> {
    match Validator::new().validate(&schema(), new, old) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.iter().map(|error| error.message.clone()).collect(),
    }
}

/// For a rule: specs it accepts, specs it refuses; with what was before where the rule is about changes.
pub(crate) struct Case {
    rule: &'static SchemaRule,
    accepts: Vec<(Value, Option<Value>)>,
    refuses: Vec<(Value, Option<Value>)>,
}

fn find(path: &str, words: &str) -> &'static SchemaRule {
    let mut found = RULES.iter().filter(|rule| rule.path == path && rule.message.contains(words));
    let rule = found.next().unwrap_or_else(|| panic!("no rule at {path} says {words:?}"));
    assert!(found.next().is_none(), "several rules at {path} say {words:?}");
    rule
}

pub(crate) fn always(path: &str, words: &str, accepts: Vec<Value>, refuses: Vec<Value>) -> Case {
    let alone = |specs: Vec<Value>| specs.into_iter().map(|more| (spec(more), None)).collect();
    Case { rule: find(path, words), accepts: alone(accepts), refuses: alone(refuses) }
}

fn change(path: &str, words: &str, accepts: Vec<(Value, Value)>, refuses: Vec<(Value, Value)>) -> Case {
    let pairs = |pairs: Vec<(Value, Value)>| pairs.into_iter().map(|(old, new)| (spec(new), Some(spec(old)))).collect();
    Case { rule: find(path, words), accepts: pairs(accepts), refuses: pairs(refuses) }
}

fn size(size: Value) -> Value {
    json!({"frontEnd": {"storage": {"size": size}}})
}

fn service(service: Value) -> Value {
    json!({"service": service})
}

fn cases() -> Vec<Case> {
    let class = |name: Value| json!({"frontEnd": {"storage": {"storageClassName": name}}});
    let annotations = |key: &str| json!({"podAnnotations": {key: "x"}});
    vec![
        always(
            "spec.version",
            "tag",
            vec![json!({"version": "0.1.0-rc.1"})],
            vec![json!({"version": "a/b"}), json!({"version": ""})],
        ),
        always(
            "spec.sipDomains[]",
            "lower case",
            vec![json!({"sipDomains": ["a.example", "localhost"]})],
            vec![
                json!({"sipDomains": ["Example.com"]}),
                json!({"sipDomains": ["a..b"]}),
                json!({"sipDomains": ["-a.b"]}),
            ],
        ),
        change(
            "spec.sipDomains",
            "first domain",
            vec![(minimal(), json!({"sipDomains": ["example.com", "example.org"]}))],
            vec![(minimal(), json!({"sipDomains": ["example.org", "example.com"]}))],
        ),
        always(
            "spec.image.registry",
            "HOST",
            vec![json!({"image": {"registry": "r.example.com:5000/chat"}}), json!({"image": {"registry": ""}})],
            vec![json!({"image": {"registry": "https://r.example.com/"}})],
        ),
        always(
            "spec.image.pullSecrets[]",
            "Secret",
            vec![json!({"image": {"pullSecrets": ["a.b"]}})],
            vec![json!({"image": {"pullSecrets": ["A"]}})],
        ),
        always(
            "spec.frontEnd.storage",
            "64Mi",
            vec![size(json!("64Mi")), size(json!(100_000_000))],
            vec![size(json!("63Mi")), size(json!(1))],
        ),
        change(
            "",
            "a volume cannot",
            vec![(size(json!("5Gi")), size(json!("6Gi"))), (size(json!("5Gi")), size(json!("5120Mi")))],
            vec![(size(json!("5Gi")), size(json!("5G"))), (minimal(), size(json!("4Gi")))],
        ),
        change(
            "spec.frontEnd.storage",
            "there already",
            vec![(class(json!("fast")), class(json!("fast"))), (minimal(), class(json!("")))],
            vec![(minimal(), class(json!("fast"))), (class(json!("fast")), minimal())],
        ),
        always(
            "spec.frontEnd.podAnnotations",
            "operator's own",
            vec![json!({"frontEnd": annotations("example.com/x")})],
            vec![json!({"frontEnd": annotations("commpool.dev/config-hash")})],
        ),
        always(
            "spec.service",
            "NodePort needs hostname",
            vec![service(json!({"type": "NodePort", "hostname": "sip.example.com"}))],
            vec![service(json!({"type": "NodePort"})), service(json!({"type": "NodePort", "hostname": ""}))],
        ),
        always(
            "spec.service",
            "udp needs",
            vec![service(json!({"listeners": {"udp": 5060}}))],
            vec![
                service(json!({"listeners": {"udp": 5060}, "externalTrafficPolicy": "Cluster"})),
                service(json!({"listeners": {"udp": 5060}, "type": "ClusterIP"})),
            ],
        ),
        always(
            "spec.service",
            "loadBalancerClass and",
            vec![service(json!({"loadBalancerClass": "x", "loadBalancerSourceRanges": ["192.0.2.0/24"]}))],
            vec![
                service(json!({"type": "ClusterIP", "loadBalancerClass": "x"})),
                service(json!({"type": "ClusterIP", "loadBalancerSourceRanges": ["192.0.2.0/24"]})),
            ],
        ),
        change(
            "spec.service",
            "another type first",
            vec![(service(json!({"type": "ClusterIP"})), service(json!({"loadBalancerClass": "x"})))],
            vec![(minimal(), service(json!({"loadBalancerClass": "x"})))],
        ),
        always(
            "spec.service.listeners",
            "at least one",
            vec![service(json!({"listeners": {"tcp": 5060}}))],
            vec![service(json!({"listeners": {}}))],
        ),
        always(
            "spec.service.listeners",
            "different ports",
            vec![service(json!({"listeners": {"tls": 5061, "tcp": 5060, "udp": 5060}}))],
            vec![service(json!({"listeners": {"tls": 5060, "tcp": 5060}}))],
        ),
        always(
            "spec.service.loadBalancerSourceRanges[]",
            "network",
            vec![service(json!({"loadBalancerSourceRanges": ["2001:db8::/32"]}))],
            vec![service(json!({"loadBalancerSourceRanges": ["192.0.2.1"]}))],
        ),
        always(
            "spec.service.annotations",
            "operator's own",
            vec![service(json!({"annotations": {"example.com/x": "y"}}))],
            vec![service(json!({"annotations": {"commpool.dev/x": "y"}}))],
        ),
        always(
            "spec.service.hostname",
            "host name",
            vec![service(json!({"hostname": "192.0.2.1"})), service(json!({"hostname": ""}))],
            vec![service(json!({"hostname": "sip.example.com:5061"}))],
        ),
        always(
            "spec.tls",
            "exactly one",
            vec![json!({"tls": {"selfManaged": {}}}), json!({"tls": {"secretName": "x"}})],
            vec![json!({"tls": {}}), json!({"tls": {"selfManaged": {}, "secretName": "x"}})],
        ),
        always(
            "spec.tls.secretName",
            "Secret",
            vec![json!({"tls": {"secretName": "a.b"}})],
            vec![json!({"tls": {"secretName": "a/b"}})],
        ),
        always(
            "spec.authentication.digest",
            "strongest",
            vec![json!({"authentication": {"digest": ["MD5"]}})],
            vec![json!({"authentication": {"digest": ["MD5", "SHA-256"]}})],
        ),
    ]
}

/// A spec of Enterprise Edition with a database of the pool's own.
fn embedded(database: Value) -> Value {
    json!({"edition": "Enterprise", "database": {"embedded": database}})
}

fn of_size(size: &str) -> Value {
    embedded(json!({"storage": {"size": size}}))
}

/// The same with one that somebody else keeps.
fn external(more: Value) -> Value {
    let mut database = json!({"host": "db.example.com", "credentialsSecret": "db", "tls": {"caSecret": "ca"}});
    for (key, value) in more.as_object().expect("fields") {
        database[key] = value.clone();
    }
    json!({"edition": "Enterprise", "database": {"external": database}})
}

fn enterprise() -> Value {
    json!({"edition": "Enterprise"})
}

/// Rules that tell the editions apart.
fn cases_of_editions() -> Vec<Case> {
    let front_end = |front_end: Value| json!({"edition": "Enterprise", "frontEnd": front_end});
    vec![
        change(
            "spec.edition",
            "edition cannot change",
            vec![(minimal(), json!({"edition": "Standard"})), (enterprise(), enterprise())],
            vec![(minimal(), enterprise()), (enterprise(), minimal())],
        ),
        always(
            "spec",
            "has one front end",
            vec![json!({"frontEnd": {"replicas": 1}}), front_end(json!({"replicas": 64}))],
            vec![json!({"frontEnd": {"replicas": 2}})],
        ),
        always(
            "spec",
            "drain and maxSurge",
            vec![
                front_end(json!({"drain": {"timeoutSeconds": 300}, "maxSurge": 2})),
                front_end(json!({"maxSurge": "25%"})),
            ],
            vec![json!({"frontEnd": {"drain": {}}}), json!({"frontEnd": {"maxSurge": "100%"}})],
        ),
        always(
            "spec",
            "Standard Edition has its store",
            vec![of_size("20Gi"), external(json!({}))],
            vec![json!({"database": {"embedded": {}}})],
        ),
        always(
            "spec",
            "in Enterprise Edition the volume",
            vec![front_end(json!({"storage": {"size": "5120Mi", "storageClassName": ""}}))],
            vec![
                front_end(json!({"storage": {"size": "6Gi"}})),
                front_end(json!({"storage": {"storageClassName": "fast"}})),
            ],
        ),
    ]
}

/// Rules on the Back-End Database.
fn cases_of_the_database() -> Vec<Case> {
    let class = |name: &str| embedded(json!({"storage": {"storageClassName": name}}));
    let memory =
        |amount: Value| embedded(json!({"resources": {"requests": {"memory": "1"}, "limits": {"memory": amount}}}));
    vec![
        change(
            "",
            "the database's volume",
            vec![
                (enterprise(), of_size("20Gi")),
                (of_size("20Gi"), enterprise()),
                (of_size("8Gi"), of_size("9Gi")),
                (external(json!({})), external(json!({"port": 5433}))),
            ],
            vec![(enterprise(), of_size("19Gi")), (of_size("21Gi"), enterprise()), (of_size("9Gi"), of_size("8Gi"))],
        ),
        change(
            "spec",
            "between embedded and external",
            vec![(enterprise(), of_size("20Gi")), (external(json!({})), external(json!({"host": "192.0.2.1"})))],
            vec![(enterprise(), external(json!({}))), (external(json!({})), enterprise())],
        ),
        change(
            "spec",
            "database's volume is there already",
            vec![(enterprise(), class("")), (class("fast"), class("fast"))],
            vec![(enterprise(), class("fast")), (class("fast"), enterprise())],
        ),
        always(
            "spec.database",
            "exactly one of embedded and external",
            vec![embedded(json!({}))],
            vec![json!({"edition": "Enterprise", "database": {}}), {
                let mut both = external(json!({}));
                both["database"]["embedded"] = json!({});
                both
            }],
        ),
        always("spec.database.embedded.storage", "2Gi", vec![of_size("2Gi")], vec![of_size("2047Mi")]),
        always(
            "spec.database.embedded.resources.limits",
            "256Mi",
            vec![memory(json!("256Mi")), memory(json!(268_435_456))],
            vec![memory(json!("255Mi"))],
        ),
        always(
            "spec.database.external.host",
            "host name",
            vec![external(json!({"host": "2001:db8::1"})), external(json!({"host": "db.chat.svc"}))],
            vec![external(json!({"host": "db.example.com:5432"})), external(json!({"host": "DB"}))],
        ),
        always(
            "spec.database.external.credentialsSecret",
            "logins",
            vec![external(json!({"credentialsSecret": "a.b"}))],
            vec![external(json!({"credentialsSecret": "a/b"}))],
        ),
        always(
            "spec.database.external.tls",
            "goes with mode",
            vec![
                external(json!({"tls": {"mode": "disable"}})),
                external(json!({"tls": {"mode": "disable", "caSecret": ""}})),
            ],
            vec![external(json!({"tls": {}})), external(json!({"tls": {"mode": "disable", "caSecret": "ca"}}))],
        ),
        always(
            "spec.database.external.tls.caSecret",
            "key ca.crt",
            vec![external(json!({"tls": {"caSecret": "a.b"}}))],
            vec![external(json!({"tls": {"caSecret": "A"}}))],
        ),
    ]
}

#[test]
fn each_rule_accepts_what_is_right_and_refuses_what_is_not() {
    let mut tried = BTreeSet::new();
    let of_parts = cases_of_editions().into_iter().chain(cases_of_the_database()).chain(directory_rules::cases());
    for Case { rule, accepts, refuses } in cases().into_iter().chain(of_parts) {
        for (new, old) in accepts {
            let (new, old) = (pool("demo", new), old.map(|old| pool("demo", old)));
            assert_eq!(violations(&new, old.as_ref()), Vec::<String>::new(), "{new}");
        }
        for (new, old) in refuses {
            let (new, old) = (pool("demo", new), old.map(|old| pool("demo", old)));
            assert_eq!(violations(&new, old.as_ref()), [rule.message], "{new}");
        }
        tried.insert((rule.path, rule.message));
    }
    let name = find("", "metadata.name");
    for good in ["a", "demo", "a-1", &"a".repeat(40)] {
        assert_eq!(violations(&pool(good, minimal()), None), Vec::<String>::new(), "{good}");
    }
    for bad in ["1a", "a-", "a.b", &"a".repeat(41)] {
        assert_eq!(violations(&pool(bad, minimal()), None), [name.message], "{bad}");
    }
    tried.insert((name.path, name.message));
    let all: BTreeSet<_> = RULES.iter().map(|rule| (rule.path, rule.message)).collect();
    assert_eq!(tried, all, "every rule is tried");
}

/// A size that the storage class refused can be taken back; it had no effect.
#[test]
fn a_size_that_was_refused_can_be_set_back() {
    let with = |amount: &str| pool("demo", spec(size(json!(amount))));
    let (old, mut new) = (with("12Gi"), with("10Gi"));
    let condition =
        |type_: &str, reason: &str| json!({"conditions": [{"type": type_, "status": "True", "reason": reason}]});
    new["status"] = condition("Stalled", "NameTaken");
    assert_eq!(violations(&new, Some(&old)), [find("", "a volume cannot").message]);
    new["status"] = condition("Stalled", "CannotGrow");
    assert_eq!(violations(&new, Some(&old)), Vec::<String>::new());
}

#[test]
fn defaults_of_the_schema_are_those_of_the_types() {
    let defaulted = apply_defaults(&schema(), &pool("demo", minimal()));
    let types: PoolSpec = serde_json::from_value(minimal()).unwrap();
    assert_eq!(defaulted["spec"], serde_json::to_value(types).unwrap());
    // and where a user wrote some fields of a group, the others still get theirs
    let some = spec(json!({"frontEnd": {"resources": {"limits": {"memory": "1Gi"}}}, "service": {"type": "ClusterIP"},
            "directorySync": directory()}));
    let defaulted = apply_defaults(&schema(), &pool("demo", some.clone()));
    let types: PoolSpec = serde_json::from_value(some).unwrap();
    assert_eq!(defaulted["spec"], serde_json::to_value(types).unwrap());
}

#[test]
fn every_field_is_described_and_bounded() {
    fn walk(schema: &Value, path: &str, faults: &mut Vec<String>) {
        let has = |key: &str| schema.get(key).is_some();
        let bounded = match schema["type"].as_str() {
            Some("string") => has("maxLength") || has("enum") || has("format"),
            Some("array") => has("maxItems"),
            Some("integer") => has("minimum") && has("maximum"),
            Some("object") if has("additionalProperties") => has("maxProperties"),
            _ => true,
        };
        if !bounded {
            faults.push(format!("{path} has no bound"));
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if property.get("description").is_none() {
                faults.push(format!("{path} is not described"));
            }
            walk(property, &path, faults);
        }
        for below in ["items", "additionalProperties"] {
            if let Some(below) = schema.get(below) {
                walk(below, &format!("{path}[]"), faults);
            }
        }
    }
    let mut faults = Vec::new();
    walk(&schema()["properties"]["spec"], "spec", &mut faults);
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn the_definition_stays_small() {
    let crd = serde_yaml::to_string(&definition().unwrap()).unwrap();
    assert!(crd.len() <= MAX_DEFINITION_OCTETS, "{} octets", crd.len());
}

#[test]
fn an_edition_that_there_is_not_is_refused_by_name() {
    let premium: Result<PoolSpec, _> = serde_json::from_value(spec(json!({"edition": "Premium"})));
    assert!(premium.unwrap_err().to_string().contains("expected `Standard` or `Enterprise`"));
    let editions = json!(["Standard", "Enterprise"]);
    assert_eq!(schema().pointer("/properties/spec/properties/edition/enum"), Some(&editions));
}

#[test]
fn a_surge_is_a_number_or_a_share() {
    let surge = |surge: Value| {
        let spec = spec(json!({"edition": "Enterprise", "frontEnd": {"maxSurge": surge}}));
        let read: PoolSpec = serde_json::from_value(spec.clone()).unwrap();
        assert_eq!(serde_json::to_value(read.front_end.max_surge).unwrap(), spec["frontEnd"]["maxSurge"]);
    };
    for good in [json!(1), json!(64), json!("1%"), json!("100%")] {
        surge(good);
    }
    let there = schema().pointer("/properties/spec/properties/frontEnd/properties/maxSurge").unwrap().clone();
    assert_eq!(there["x-kubernetes-int-or-string"], true);
    assert_eq!((there["minimum"].as_f64(), there["maximum"].as_f64()), (Some(1.0), Some(64.0)));
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn generated_files_are_up_to_date() {
    for file in files(&root()).unwrap() {
        let present = std::fs::read_to_string(root().join(&file.path)).unwrap_or_default();
        assert!(present == file.content, "{} differs: run crdgen --write", file.path.display());
    }
}

#[test]
fn the_samples_are_valid_pools_and_the_first_is_short() {
    let mut samples = 0;
    for entry in std::fs::read_dir(root().join("samples")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for document in serde_yaml::Deserializer::from_str(&text) {
            let value: Value = serde::Deserialize::deserialize(document).unwrap();
            if value["kind"] != "CommunicationsPool" {
                continue;
            }
            samples += 1;
            assert_eq!(violations(&value, None), Vec::<String>::new(), "{}", path.display());
            let pool: CommunicationsPool = serde_json::from_value(value).unwrap();
            validate(&pool, &Environment::default()).unwrap();
        }
        if path.ends_with("standard.yaml") || path.ends_with("enterprise.yaml") {
            assert!(text.lines().count() <= 12, "{} lines", text.lines().count());
        }
    }
    assert!(samples >= 6, "{samples} samples");
}
