//! The front ends of a `CommunicationsPool`: how many, with how much, where, and how they take their leave.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::quantity::{Amounts, Quantity};
use super::surge::Surge;

/// The front ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FrontEndSpec {
    /// Front ends, 1–64; kubectl scale sets it. Default: 2 in Enterprise Edition; Standard Edition has 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub replicas: Option<i32>,
    /// CPU and memory of the server's container.
    pub resources: ResourcesSpec,
    /// The volume with the data of a Standard Edition pool. It is kept when the pool is deleted.
    pub storage: StorageSpec,
    /// How a front end of Enterprise Edition takes its leave: its connections are closed at an even rate. Default: 60
    /// seconds, 50 connections a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainSpec>,
    /// Front ends beyond replicas while they are replaced, in Enterprise Edition: a number, 1–64, or a share, 1%–100%.
    /// Default: 100%, so that a client connects anew once; with less it may have to more often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_surge: Option<Surge>,
    /// Which nodes may run front ends.
    pub placement: PlacementSpec,
    /// Annotations for the pods, at most 32. Default: none. A change replaces the front ends.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    pub pod_annotations: BTreeMap<String, String>,
}

/// How a front end takes its leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DrainSpec {
    /// Seconds after which a front end that was told to end has ended, 5–3600. Default: 60.
    #[schemars(range(min = 5, max = 3600))]
    pub timeout_seconds: u32,
    /// Connections closed in one second, more where timeoutSeconds would end first, 1–10000. Default: 50.
    #[schemars(range(min = 1, max = 10_000))]
    pub flows_per_second: u32,
}

impl Default for DrainSpec {
    fn default() -> Self {
        Self { timeout_seconds: 60, flows_per_second: 50 }
    }
}

/// CPU and memory of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourcesSpec {
    /// What the scheduler reserves.
    pub requests: ResourceRequests,
    /// What the container may not exceed.
    pub limits: ResourceLimits,
}

impl ResourcesSpec {
    /// All amounts together.
    pub fn amounts(&self) -> Amounts<'_> {
        let Self { requests, limits } = self;
        Amounts {
            cpu: &requests.cpu,
            memory: &requests.memory,
            cpu_limit: limits.cpu.as_ref(),
            memory_limit: &limits.memory,
        }
    }
}

/// What the scheduler reserves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceRequests {
    /// CPUs. Default: 100m.
    pub cpu: Quantity,
    /// Octets of memory. Default: 128Mi.
    pub memory: Quantity,
}

impl Default for ResourceRequests {
    fn default() -> Self {
        Self { cpu: Quantity::new("100m"), memory: Quantity::new("128Mi") }
    }
}

/// What a container may not exceed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceLimits {
    /// CPUs. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// Octets of memory. Default: 512Mi.
    pub memory: Quantity,
}

impl Default for ResourceLimits {
    fn default() -> Self {
        Self { cpu: None, memory: Quantity::new("512Mi") }
    }
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageSpec {
    /// Size in octets, at least 64Mi; it can only grow. Default: 5Gi.
    pub size: Quantity,
    /// Storage class. Default: the cluster's default class. Cannot change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,
}

impl Default for StorageSpec {
    fn default() -> Self {
        Self { size: Quantity::new("5Gi"), storage_class_name: None }
    }
}

/// Which nodes may run front ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PlacementSpec {
    /// Labels a node must have, at most 16. Default: none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that are accepted, at most 16. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<TolerationSpec>,
    /// Whether front ends of the namespace keep to different nodes: Preferred (default), if there is room, or None.
    pub spread: Spread,
}

/// A taint that is accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TolerationSpec {
    /// Key of the taint. Default: every key (with operator Exists).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 316))]
    pub key: Option<String>,
    /// Exists, or Equal: the value must match too. Default: Equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<TolerationOperator>,
    /// Value of the taint. Default: the empty one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// Effect of the taint. Default: every effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
    /// Seconds that a NoExecute taint is borne. Default: for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub toleration_seconds: Option<i64>,
}

/// Exists: the key is enough. Equal (default): the value must match too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    /// The key is enough.
    Exists,
    /// Key and value.
    Equal,
}

/// Effect of the taint: NoSchedule, PreferNoSchedule or NoExecute. Default: every effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    /// No new pods.
    NoSchedule,
    /// New pods elsewhere if possible.
    PreferNoSchedule,
    /// Running pods leave too.
    NoExecute,
}

/// Whether front ends keep apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Spread {
    /// On different nodes if there is room.
    #[default]
    Preferred,
    /// Wherever the scheduler likes.
    None,
}
