//! The front end of Standard Edition: a StatefulSet of one pod on one volume.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, ContainerPort, HTTPGetAction, KeyToPath, LocalObjectReference,
    PersistentVolumeClaimVolumeSource, PodAffinityTerm, PodAntiAffinity, PodSecurityContext, PodSpec, PodTemplateSpec,
    Probe, ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecretProjection, SecurityContext, Toleration,
    Volume, VolumeMount, VolumeProjection, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::config::{CONFIG_KEY, DATA_FOLDER, FOLDER, MANAGEMENT_PORT, container_port};
use super::keys::POOL_KEY;
use super::{metadata, tls};
use crate::crd::v1alpha1::{Spread, TaintEffect, TolerationOperator, TolerationSpec};
use crate::names::{CONFIG_HASH, Component, PRODUCT, VIP, VIP_IN};
use crate::validate::ValidatedPool;

/// Name of the server's container.
pub const CONTAINER: &str = "server";
/// User and group of all our images.
pub const USER: i64 = 65_532;
/// Seconds between SIGTERM and the end of all patience; the server needs at most 5.
const GRACE_SECONDS: i64 = 30;
/// Owner and group may read; the group is the pod's `fsGroup`.
const FILE_MODE: i32 = 0o440;

/// The workload. `hash` changes with what the server does not reload, so that a change of it replaces the pod;
/// `certificate` is the Secret with the certificate to show.
///
/// The pod mounts its claim by name instead of a claim template, which could never grow; `Parallel`, because otherwise
/// a pod that waits for an image that does not exist would not be replaced when the image is put right.
pub fn stateful_set(pool: &ValidatedPool, hash: &str, certificate: Option<String>) -> StatefulSet {
    StatefulSet {
        metadata: metadata::owned(pool, pool.names.front_end(), Component::FrontEnd),
        spec: Some(StatefulSetSpec {
            replicas: Some(1),
            pod_management_policy: Some("Parallel".into()),
            selector: LabelSelector {
                match_labels: Some(pool.names.selector(Component::FrontEnd)),
                ..LabelSelector::default()
            },
            template: PodTemplateSpec { metadata: Some(pod_metadata(pool, hash)), spec: Some(pod(pool, certificate)) },
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}

fn pod_metadata(pool: &ValidatedPool, hash: &str) -> ObjectMeta {
    let mut labels = pool.names.labels(Component::FrontEnd, &pool.version);
    labels.insert(VIP.into(), VIP_IN.into());
    let mut annotations = pool.spec.front_end.pod_annotations.clone();
    annotations.insert(CONFIG_HASH.into(), hash.into());
    ObjectMeta { labels: Some(labels), annotations: Some(annotations), ..ObjectMeta::default() }
}

fn pod(pool: &ValidatedPool, certificate: Option<String>) -> PodSpec {
    let placement = &pool.spec.front_end.placement;
    let secrets = &pool.spec.image.pull_secrets;
    PodSpec {
        service_account_name: Some(pool.names.front_end()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".into()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        image_pull_secrets: some(secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect()),
        node_selector: Some(placement.node_selector.clone()).filter(|labels| !labels.is_empty()),
        tolerations: some(placement.tolerations.iter().map(toleration).collect()),
        affinity: match placement.spread {
            Spread::Preferred => Some(apart()),
            Spread::None => None,
        },
        containers: vec![container(pool)],
        volumes: Some(vec![files(pool, certificate), data(pool)]),
        ..PodSpec::default()
    }
}

fn container(pool: &ValidatedPool) -> Container {
    let mut ports: Vec<ContainerPort> = pool
        .listeners()
        .map(|(transport, _)| port(transport.as_str(), container_port(transport), transport.protocol()))
        .collect();
    ports.push(port("management", MANAGEMENT_PORT, "TCP"));
    let mount = |name: &str, path: &str, read_only: Option<bool>| VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only,
        ..VolumeMount::default()
    };
    Container {
        name: CONTAINER.into(),
        image: Some(pool.image.clone()),
        image_pull_policy: Some(pool.spec.image.pull_policy.as_str().into()),
        args: Some(["serve", "--config", &format!("{FOLDER}/{CONFIG_KEY}")].map(str::to_owned).into()),
        ports: Some(ports),
        volume_mounts: Some(vec![mount("files", FOLDER, Some(true)), mount("data", DATA_FOLDER, None)]),
        resources: Some(resources(pool)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            ..SecurityContext::default()
        }),
        startup_probe: Some(probe("/healthz", 2, 60, 2)),
        readiness_probe: Some(probe("/readyz", 2, 2, 1)),
        liveness_probe: Some(probe("/healthz", 20, 3, 5)),
        ..Container::default()
    }
}

fn port(name: &str, port: u16, protocol: &str) -> ContainerPort {
    ContainerPort {
        name: Some(name.into()),
        container_port: port.into(),
        protocol: Some(protocol.into()),
        ..ContainerPort::default()
    }
}

/// A probe every `period` seconds that gives up after `failures` answers that were late by `timeout` seconds or wrong.
fn probe(path: &str, period: i32, failures: i32, timeout: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String("management".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        timeout_seconds: Some(timeout),
        ..Probe::default()
    }
}

fn resources(pool: &ValidatedPool) -> ResourceRequirements {
    let resources = &pool.spec.front_end.resources;
    let (requests, limits) = (&resources.requests, &resources.limits);
    let quantity =
        |name: &str, amount: &crate::crd::quantity::Quantity| (name.to_owned(), Quantity(amount.to_string()));
    let mut bounds = BTreeMap::from([quantity("memory", &limits.memory)]);
    bounds.extend(limits.cpu.as_ref().map(|cpu| quantity("cpu", cpu)));
    ResourceRequirements {
        requests: Some([quantity("cpu", &requests.cpu), quantity("memory", &requests.memory)].into()),
        limits: Some(bounds),
        claims: None,
    }
}

/// All files of the server in one volume, so that they change together and no mount lies inside another.
fn files(pool: &ValidatedPool, certificate: Option<String>) -> Volume {
    let from = |secret: String, files: &[(&str, &str)]| VolumeProjection {
        secret: Some(SecretProjection {
            name: secret,
            items: Some(files.iter().map(|(key, path)| item(key, path)).collect()),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    let mut sources = vec![
        from(pool.names.config(), &[(CONFIG_KEY, CONFIG_KEY)]),
        from(pool.names.keys(), &[(POOL_KEY, "keys/pool.key")]),
    ];
    sources.extend(
        certificate.map(|secret| from(secret, &[(tls::CERTIFICATE, "tls/tls.crt"), (tls::KEY, "tls/tls.key")])),
    );
    Volume {
        name: "files".into(),
        projected: Some(ProjectedVolumeSource { default_mode: Some(FILE_MODE), sources: Some(sources) }),
        ..Volume::default()
    }
}

fn item(key: &str, path: &str) -> KeyToPath {
    KeyToPath { key: key.into(), path: path.into(), mode: None }
}

fn data(pool: &ValidatedPool) -> Volume {
    Volume {
        name: "data".into(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: pool.names.data(),
            read_only: None,
        }),
        ..Volume::default()
    }
}

/// A node without a front end of any pool of the namespace is liked better.
fn apart() -> Affinity {
    let front_ends = [("app.kubernetes.io/name", PRODUCT), ("app.kubernetes.io/component", "front-end")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 100,
                pod_affinity_term: PodAffinityTerm {
                    label_selector: Some(LabelSelector {
                        match_labels: Some(front_ends.into()),
                        ..LabelSelector::default()
                    }),
                    topology_key: "kubernetes.io/hostname".into(),
                    ..PodAffinityTerm::default()
                },
            }]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
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
