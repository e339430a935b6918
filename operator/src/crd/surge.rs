//! How many front ends there may be beyond those asked for while they are replaced: a number or a share.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A number of front ends, or a share of those asked for such as `100%`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Surge {
    /// So many.
    Number(i32),
    /// So many of a hundred, rounded up.
    Share(String),
}

impl Default for Surge {
    fn default() -> Self {
        Self::Share("100%".into())
    }
}

impl Surge {
    /// As the Kubernetes API writes it.
    pub fn to_kube(&self) -> IntOrString {
        match self {
            Self::Number(number) => IntOrString::Int(*number),
            Self::Share(share) => IntOrString::String(share.clone()),
        }
    }
}

impl JsonSchema for Surge {
    fn schema_name() -> Cow<'static, str> {
        "Surge".into()
    }

    fn inline_schema() -> bool {
        true
    }

    // bounds of a number bind numbers only, and the pattern texts only
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "pattern": "^([1-9][0-9]?|100)%$",
            "maxLength": 4,
            "minimum": 1,
            "maximum": 64,
        })
    }
}
