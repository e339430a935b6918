//! The resource `CommunicationsPool` and its definition for the API server.

pub mod conditions;
pub mod database;
pub mod directory;
pub mod front_end;
pub mod quantity;
pub mod rules;
pub mod status;
pub mod surge;
pub mod v1alpha1;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use rules::{COLUMNS, Column, LISTS, ListKind, RULES};

pub use conditions::{ConditionType, Reason};
pub use status::{DirectorySyncStatus, FrontEndStatus, PoolAddress, PoolStatus, Transport};
pub use v1alpha1::{CommunicationsPool, PoolSpec};

/// Most octets of the definition as YAML; client-side apply could carry 262,144.
pub const MAX_DEFINITION_OCTETS: usize = 65_536;

/// The definition as the API server gets it: derived from the types, with the tables of [`rules`].
///
/// # Errors
/// If a path in the tables of [`rules`] does not exist in the schema.
pub fn definition() -> Result<CustomResourceDefinition, DefinitionError> {
    let mut crd = serde_json::to_value(CommunicationsPool::crd())?;
    let schema =
        crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema").ok_or(DefinitionError::Path("openAPIV3Schema"))?;
    plain(schema);
    for rule in RULES {
        let rules = at(schema, rule.path)?.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
        if let Value::Array(rules) = rules {
            rules.push(serde_json::to_value(rule.to_kube())?);
        }
    }
    for (path, kind) in LISTS {
        let list = at(schema, path)?;
        match kind {
            ListKind::Set => list.insert("x-kubernetes-list-type".into(), json!("set")),
            ListKind::Atomic => list.insert("x-kubernetes-list-type".into(), json!("atomic")),
            ListKind::Map(keys) => {
                list.insert("x-kubernetes-list-map-keys".into(), json!(keys));
                list.insert("x-kubernetes-list-type".into(), json!("map"))
            }
        };
    }
    if let Some(Value::Object(version)) = crd.pointer_mut("/spec/versions/0") {
        version.insert("additionalPrinterColumns".into(), COLUMNS.iter().map(printed).collect());
    }
    Ok(serde_json::from_value(crd)?)
}

fn printed(column: &Column) -> Value {
    let mut printed = json!({"name": column.name, "type": column.type_, "jsonPath": column.path});
    if column.wide {
        printed["priority"] = json!(1);
    }
    printed
}

/// Why there is no definition.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// A table names a place that the schema does not have.
    #[error("the schema has no {0:?}: mend the tables in crd/rules.rs")]
    Path(&'static str),
    /// The derived definition is not what its type says.
    #[error("the definition cannot be converted: {0}")]
    Json(#[from] serde_json::Error),
}

/// Takes away what the API server has no use for: `nullable` (null is absence everywhere), formats it does not know and
/// line breaks of our source.
fn plain(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.remove("nullable");
            if let Some(Value::String(description)) = map.get_mut("description") {
                *description = description.replace('\n', " ");
            }
            if map.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
                map.remove("format");
            }
            map.values_mut().for_each(plain);
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        _ => {}
    }
}

fn at<'a>(schema: &'a mut Value, path: &'static str) -> Result<&'a mut Map<String, Value>, DefinitionError> {
    let mut here = schema;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (property, items) = match part.strip_suffix("[]") {
            Some(property) => (property, true),
            None => (part, false),
        };
        here = here.get_mut("properties").and_then(|all| all.get_mut(property)).ok_or(DefinitionError::Path(path))?;
        if items {
            here = here.get_mut("items").ok_or(DefinitionError::Path(path))?;
        }
    }
    here.as_object_mut().ok_or(DefinitionError::Path(path))
}
