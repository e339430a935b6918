//! The charts by the real helm: they render, hold the operator's rights and refuse values that nobody reads.
//!
//! Run when COMMPOOL_KUBE_BIN names a folder with `helm`; required where CI=true.

use std::path::PathBuf;
use std::process::{Command, Output};

use commpool_operator::install::{objects, rules};
use serde_json::{Value, json};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// helm with these arguments; `None` where there is none and none is required.
fn helm(args: &[&str]) -> Option<Output> {
    let bin = std::env::var_os("COMMPOOL_KUBE_BIN");
    assert!(
        bin.is_some() || std::env::var("CI").as_deref() != Ok("true"),
        "CI=true: COMMPOOL_KUBE_BIN must name the folder of helm"
    );
    let program = PathBuf::from(bin?).join("helm");
    let output = Command::new(&program).args(args).current_dir(root().join("charts")).output();
    Some(output.unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display())))
}

fn rendered(args: &[&str]) -> Option<Vec<Value>> {
    let output = helm(
        &[&["template", "commpool-operator", "commpool-operator", "--namespace", "commpool-system"], args].concat(),
    )?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let documents = serde_yaml::Deserializer::from_str(&text).map(|it| serde::Deserialize::deserialize(it).unwrap());
    Some(documents.filter(|document: &Value| !document.is_null()).collect())
}

fn find<'a>(documents: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found = documents.iter().filter(|it| it["kind"] == json!(kind) && it["metadata"]["name"] == json!(name));
    found.next().unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn helm_lints_both_charts() {
    let Some(output) = helm(&["lint", "--strict", "commpool-operator", "commpool-crds"]) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_roles_are_the_operators_rights_in_one_namespace_or_in_all() {
    let Some(all) = rendered(&[]) else { return };
    let name = "commpool-system-commpool-operator";
    assert_eq!(find(&all, "ClusterRole", name)["rules"], json!([rules(false), rules(true)].concat()));
    assert!(all.iter().all(|it| it["kind"] != "Role"));
    let one = rendered(&["--set", "watchNamespace=chat"]).unwrap();
    assert_eq!(find(&one, "ClusterRole", name)["rules"], json!(rules(true)));
    let role = find(&one, "Role", "commpool-operator");
    assert_eq!((&role["metadata"]["namespace"], &role["rules"]), (&json!("chat"), &json!(rules(false))));
    let args =
        find(&one, "Deployment", "commpool-operator")["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    assert!(args.contains("--namespace=chat"), "{args}");
}

/// Chart and install.yaml say the same of the operator's pod.
#[test]
fn the_chart_and_install_yaml_make_the_same_operator() {
    let Some(chart) = rendered(&[]) else { return };
    let installed = objects(env!("CARGO_PKG_VERSION"));
    let of = |documents: &[Value]| find(documents, "Deployment", "commpool-operator")["spec"].clone();
    let (mut chart, mut installed) = (of(&chart), of(&installed));
    for spec in [&mut chart, &mut installed] {
        let template = &mut spec["template"];
        template["metadata"].take();
        let args = &mut template["spec"]["containers"][0]["args"];
        args.as_array_mut().unwrap().retain(|arg| !arg.as_str().unwrap().starts_with("--log-"));
    }
    assert_eq!(chart, installed);
}

#[test]
fn values_that_nobody_reads_are_refused() {
    for wrong in ["replicas=2", "image.name=x", "image.pullPolicy=Sometimes", "resources.limits.disk=1", "log.level="] {
        let Some(output) = helm(&["template", "x", "commpool-operator", "--set", wrong]) else { return };
        assert!(!output.status.success(), "{wrong} is accepted");
    }
    let all = "image.tag=1.2.3,image.pullSecrets={a},watchNamespace=chat,log.format=text,aggregateRoles=false,\
               resources.limits.cpu=1,nodeSelector.a=b,tolerations[0].key=x,podAnnotations.c=d";
    let documents = rendered(&["--set", all]).unwrap();
    let pod = &find(&documents, "Deployment", "commpool-operator")["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], "localhost/commpool-operator:1.2.3");
    assert_eq!((&pod["nodeSelector"], &pod["tolerations"]), (&json!({"a": "b"}), &json!([{"key": "x"}])));
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "a"}]));
}

#[test]
fn the_definition_outlives_its_chart() {
    let Some(output) = helm(&["template", "x", "commpool-crds"]) else { return };
    let crd: Value = serde_yaml::from_slice(&output.stdout).unwrap();
    assert_eq!(crd["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    assert_eq!(crd["metadata"]["name"], "communicationspools.commpool.dev");
}
