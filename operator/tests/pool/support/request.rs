//! What a request asks for: object or list, verb, selection, form of the answer.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};

use super::api::{Key, Seen};

#[derive(Clone)]
pub(super) struct Target {
    pub(super) key: Key,
    pub(super) subresource: Option<String>,
}

impl Target {
    pub(super) fn parse(path: &str) -> Option<Self> {
        let mut parts = path.trim_matches('/').split('/').map(str::to_owned);
        let group = if parts.next()? == "api" { String::new() } else { parts.next()? };
        parts.next()?;
        let mut next = parts.next()?;
        let mut namespace = String::new();
        if next == "namespaces" {
            namespace = parts.next()?;
            next = parts.next()?;
        }
        let name = parts.next().unwrap_or_default();
        Some(Self { key: Key { group, resource: next, namespace, name }, subresource: parts.next() })
    }

    pub(super) fn verb(&self, method: &Method, watch: bool) -> &'static str {
        match (method.as_str(), self.key.name.is_empty()) {
            ("GET", true) if watch => "watch",
            ("GET", true) => "list",
            ("GET", false) => "get",
            ("POST", _) => "create",
            ("PATCH", _) => "patch",
            ("DELETE", false) => "delete",
            (other, _) => panic!("the operator must not send {other}"),
        }
    }

    pub(super) fn seen(&self, verb: &'static str) -> Seen {
        let Key { group, resource, name, .. } = self.key.clone();
        let resource = self.subresource.iter().fold(resource, |resource, sub| format!("{resource}/{sub}"));
        Seen { verb, group, resource, name }
    }

    pub(super) fn holds(&self, key: &Key) -> bool {
        key.group == self.key.group
            && key.resource == self.key.resource
            && (self.key.namespace.is_empty() || key.namespace == self.key.namespace)
    }
}

#[derive(Clone)]
pub(super) struct Selector(Vec<(String, String)>);

impl Selector {
    pub(super) fn parse(query: &BTreeMap<String, String>) -> Self {
        let text = query.get("labelSelector").cloned().unwrap_or_default();
        Self(
            text.split(',')
                .filter_map(|pair| pair.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(key, value)| object["metadata"]["labels"][key] == json!(value))
    }
}

pub(super) fn pairs(query: &str) -> BTreeMap<String, String> {
    let decoded = |text: &str| text.replace("%2F", "/").replace("%3D", "=").replace("%2C", ",").replace('+', " ");
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), decoded(value)))
        .collect()
}

pub(super) fn shown(object: &Value, metadata_only: bool) -> Value {
    if metadata_only {
        return json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"]});
    }
    object.clone()
}
