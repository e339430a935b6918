//! Rules of the definition on the directory.

use serde_json::{Value, json};

use crate::definition::{Case, always};
use crate::support::directory;

/// A spec with a directory in which the part at `path` is `value`.
fn with(path: &str, value: Value) -> Value {
    let mut directory = directory();
    let parts: Vec<&str> = path.split('.').collect();
    let place = parts.iter().fold(&mut directory, |place, part| &mut place[*part]);
    *place = value;
    json!({"directorySync": directory})
}

fn of_enterprise(path: &str, value: Value) -> Value {
    let mut spec = with(path, value);
    spec["edition"] = json!("Enterprise");
    spec
}

fn all(path: &str, values: &[&str]) -> Vec<Value> {
    values.iter().map(|value| with(path, json!(value))).collect()
}

/// One case for each rule.
pub(crate) fn cases() -> Vec<Case> {
    let limits = ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"];
    let texts = |path: &str, words: &str, good: &[&str], bad: &[&str]| {
        always(path, words, all(&path[19..], good), all(&path[19..], bad))
    };
    vec![
        always(
            "spec",
            "the server itself reads",
            limits.iter().map(|limit| of_enterprise(limit, json!(20))).chain([with("suspend", json!(true))]).collect(),
            limits.iter().map(|limit| with(limit, json!(20))).collect(),
        ),
        texts(
            "spec.directorySync.schedule",
            "five fields",
            &["@hourly", "*/5 8-18 1,15 * MON-FRI", "0 0 * * 0"],
            &["@every 5m", "* * * *", "TZ=UTC * * * * *", "0 0 * * 5#2", "* * * * * *"],
        ),
        texts(
            "spec.directorySync.timeZone",
            "IANA",
            &["", "UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+1"],
            &["Local", "../etc/passwd", "Europe/", "UTC 0"],
        ),
        always(
            "spec.directorySync.ldap.urls[]",
            "StartTLS",
            ["ldaps://dc1", "ldap://dc1.example.com:3268/", "ldaps://[2001:db8::1]:636"]
                .map(|url| with("ldap.urls", json!([url])))
                .into(),
            ["dc1", "https://dc1", "ldaps://dc1/dc=x", "ldaps://user@dc1", "ldaps://", "ldaps://dc1:port"]
                .map(|url| with("ldap.urls", json!([url])))
                .into(),
        ),
        texts("spec.directorySync.ldap.filter", "parentheses", &["(uid=*)"], &["uid=*", "(uid=*"]),
        texts("spec.directorySync.ldap.bindSecret", "account", &["a.b"], &["a/b", "A"]),
        texts("spec.directorySync.ldap.caSecret", "CAs", &["a.b"], &["a/b", "A"]),
        always(
            "spec.directorySync.ldap",
            "keys of Secrets",
            vec![with("ldap.bindDNKey", json!("user_name")), with("ldap.caKey", json!("ca-1.crt"))],
            ["bindDNKey", "passwordKey", "caKey"].map(|key| with(&format!("ldap.{key}"), json!("../x"))).into(),
        ),
        always(
            "spec.directorySync.mapping.enabled",
            "group",
            vec![with("mapping", json!({"enabled": {"nested": true, "group": "CN=chat"}}))],
            vec![with("mapping", json!({"enabled": {"nested": true}}))],
        ),
        always(
            "spec.directorySync.removal.releaseDigest",
            "planDigest",
            vec![with("removal", json!({"releaseDigest": "0123456789abcdef"})), with("removal", json!({}))],
            vec![with("removal", json!({"releaseDigest": "all"}))],
        ),
    ]
}
