//! What all pods of a pool have in common: no rights, no way to write to their own root, files from Secrets.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ContainerPort, EmptyDirVolumeSource, ExecAction, HTTPGetAction, KeyToPath, LocalObjectReference,
    PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, Probe, ProjectedVolumeSource, ResourceRequirements,
    SeccompProfile, SecretProjection, SecurityContext, Toleration, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::crd::front_end::{TaintEffect, TolerationOperator, TolerationSpec};
use crate::crd::quantity::Amounts;
use crate::validate::ValidatedPool;

/// User and group of our static programs.
pub const USER: i64 = 65_532;
/// Name of the port of health, readiness and metrics.
pub const MANAGEMENT: &str = "management";
/// Owner and group may read; the group is the pod's `fsGroup`.
const FILE_MODE: i32 = 0o440;

/// A pod whose processes are `user` and may nothing at the API server.
pub(super) fn base(pool: &ValidatedPool, user: i64, grace_seconds: i64) -> PodSpec {
    let secrets = &pool.spec.image.pull_secrets;
    PodSpec {
        service_account_name: Some(pool.names.front_end()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(grace_seconds),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(user),
            run_as_group: Some(user),
            fs_group: Some(user),
            fs_group_change_policy: Some("OnRootMismatch".into()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        image_pull_secrets: some(secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect()),
        ..PodSpec::default()
    }
}

/// Puts a pod onto the nodes that may run front ends.
pub(super) fn placed(pool: &ValidatedPool, pod: PodSpec) -> PodSpec {
    let placement = &pool.spec.front_end.placement;
    PodSpec {
        node_selector: Some(placement.node_selector.clone()).filter(|labels| !labels.is_empty()),
        tolerations: some(placement.tolerations.iter().map(toleration).collect()),
        ..pod
    }
}

/// A container without privileges and with a root that it cannot write to.
pub(super) fn confined() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
        ..SecurityContext::default()
    }
}

pub(super) fn mount(name: &str, path: &str, read_only: Option<bool>) -> VolumeMount {
    VolumeMount { name: name.into(), mount_path: path.into(), read_only, ..VolumeMount::default() }
}

pub(super) fn port(name: &str, port: u16, protocol: &str) -> ContainerPort {
    ContainerPort {
        name: Some(name.into()),
        container_port: port.into(),
        protocol: Some(protocol.into()),
        ..ContainerPort::default()
    }
}

/// How often a probe is made, in seconds, after how many answers that were wrong or late it gives up, and what is late.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rhythm {
    pub(super) period: i32,
    pub(super) failures: i32,
    pub(super) timeout: i32,
}

/// Asks the management port for `path`.
pub(super) fn asks(path: &str, rhythm: Rhythm) -> Probe {
    let http_get = HTTPGetAction {
        path: Some(path.into()),
        port: IntOrString::String(MANAGEMENT.into()),
        ..HTTPGetAction::default()
    };
    Probe { http_get: Some(http_get), ..probe(rhythm) }
}

/// Runs a command in the container.
pub(super) fn runs(command: &[&str], rhythm: Rhythm) -> Probe {
    let command = command.iter().map(|&word| word.to_owned()).collect();
    Probe { exec: Some(ExecAction { command: Some(command) }), ..probe(rhythm) }
}

fn probe(rhythm: Rhythm) -> Probe {
    Probe {
        period_seconds: Some(rhythm.period),
        failure_threshold: Some(rhythm.failures),
        timeout_seconds: Some(rhythm.timeout),
        ..Probe::default()
    }
}

pub(super) fn resources(of: Amounts<'_>) -> ResourceRequirements {
    let quantity =
        |name: &str, amount: &crate::crd::quantity::Quantity| (name.to_owned(), Quantity(amount.to_string()));
    let mut limits = BTreeMap::from([quantity("memory", of.memory_limit)]);
    limits.extend(of.cpu_limit.map(|cpu| quantity("cpu", cpu)));
    ResourceRequirements {
        requests: Some([quantity("cpu", of.cpu), quantity("memory", of.memory)].into()),
        limits: Some(limits),
        claims: None,
    }
}

/// Files from Secrets in one volume, so that they change together and no mount lies inside another.
pub(super) fn files(sources: Vec<VolumeProjection>) -> Volume {
    Volume {
        name: "files".into(),
        projected: Some(ProjectedVolumeSource { default_mode: Some(FILE_MODE), sources: Some(sources) }),
        ..Volume::default()
    }
}

/// Keys of a Secret as files: pairs of key and path.
pub(super) fn from_secret(secret: String, files: &[(&str, &str)]) -> VolumeProjection {
    let item = |(key, path): &(&str, &str)| KeyToPath { key: (*key).into(), path: (*path).into(), mode: None };
    VolumeProjection {
        secret: Some(SecretProjection { name: secret, items: Some(files.iter().map(item).collect()), optional: None }),
        ..VolumeProjection::default()
    }
}

/// The same, whether or not Secret and keys are there.
pub(super) fn perhaps(mut projection: VolumeProjection) -> VolumeProjection {
    if let Some(secret) = &mut projection.secret {
        secret.optional = Some(true);
    }
    projection
}

/// The volume of a claim, under the name `data`.
pub(super) fn data(claim: String) -> Volume {
    Volume {
        name: "data".into(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource { claim_name: claim, read_only: None }),
        ..Volume::default()
    }
}

/// A folder that is empty at the pod's start and goes with it.
pub(super) fn scratch(name: &str) -> Volume {
    Volume { name: name.into(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }
}

/// The same with a bound; a pod that puts more into it is ended.
pub(super) fn bounded(name: &str, most: &str) -> Volume {
    let source = EmptyDirVolumeSource { size_limit: Some(Quantity(most.into())), ..EmptyDirVolumeSource::default() };
    Volume { name: name.into(), empty_dir: Some(source), ..Volume::default() }
}

fn toleration(spec: &TolerationSpec) -> Toleration {
    let operator = spec.operator.map(|operator| match operator {
        TolerationOperator::Exists => "Exists",
        TolerationOperator::Equal => "Equal",
    });
    let effect = spec.effect.map(|effect| match effect {
        TaintEffect::NoSchedule => "NoSchedule",
        TaintEffect::PreferNoSchedule => "PreferNoSchedule",
        TaintEffect::NoExecute => "NoExecute",
    });
    Toleration {
        key: spec.key.clone(),
        operator: operator.map(str::to_owned),
        value: spec.value.clone(),
        effect: effect.map(str::to_owned),
        toleration_seconds: spec.toleration_seconds,
    }
}

fn some<T>(items: Vec<T>) -> Option<Vec<T>> {
    Some(items).filter(|items| !items.is_empty())
}
