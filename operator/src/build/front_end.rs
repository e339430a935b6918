//! The front ends: a StatefulSet of one pod on one volume in Standard Edition, a Deployment in Enterprise Edition.

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment, StatefulSet, StatefulSetSpec,
};
use k8s_openapi::api::core::v1::{
    Affinity, Container, ContainerPort, EnvVar, EnvVarSource, ObjectFieldSelector, PodAffinityTerm, PodAntiAffinity,
    PodSpec, PodTemplateSpec, TopologySpreadConstraint, VolumeProjection, WeightedPodAffinityTerm,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::config::{CONFIG_KEY, DATA_FOLDER, FOLDER, MANAGEMENT_PORT, PEERS_PORT, container_port};
use super::keys::POOL_KEY;
use super::pod::{self, Rhythm, USER, asks, from_secret, mount, port};
use super::{database, directory, metadata, tls};
use crate::crd::front_end::Spread;
use crate::names::{COMPONENT, CONFIG_HASH, Component, PRODUCT, VIP, VIP_IN};
use crate::observed::Workload;
use crate::validate::ValidatedPool;

/// Name of the server's container.
pub const CONTAINER: &str = "server";
/// Seconds between SIGTERM and the end of all patience in Standard Edition; the server needs at most 5.
const GRACE_SECONDS: i64 = 30;
/// As many seconds more than a drain may take.
const GRACE_BEYOND_DRAIN_SECONDS: i64 = 30;
/// Former templates that are kept to go back to by hand.
const REVISIONS: i32 = 2;

/// The workload. `hash` changes with what the server does not reload, so that a change of it replaces the pods;
/// `certificate` is the Secret with the certificate to show.
pub fn workload(pool: &ValidatedPool, hash: &str, certificate: Option<String>) -> Workload {
    let template = PodTemplateSpec {
        metadata: Some(pod_metadata(pool, hash)),
        spec: Some(if pool.is_enterprise() { one_of_many(pool, certificate) } else { alone(pool, certificate) }),
    };
    if pool.is_enterprise() {
        Workload::Deployment(deployment(pool, template))
    } else {
        Workload::Set(stateful_set(pool, template))
    }
}

/// The pod mounts its claim by name instead of a claim template, which could never grow; `Parallel`, because otherwise
/// a pod that waits for an image that does not exist would not be replaced when the image is put right.
fn stateful_set(pool: &ValidatedPool, template: PodTemplateSpec) -> StatefulSet {
    StatefulSet {
        metadata: metadata::owned(pool, pool.names.front_end(), Component::FrontEnd),
        spec: Some(StatefulSetSpec {
            replicas: Some(pool.replicas()),
            pod_management_policy: Some("Parallel".into()),
            selector: selector(pool),
            template,
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}

/// No front end goes before its successor takes clients. By default all successors come at once: with fewer, a client
/// that connects anew may meet a front end that is yet to go.
fn deployment(pool: &ValidatedPool, template: PodTemplateSpec) -> Deployment {
    let surge = pool.spec.front_end.max_surge.clone().unwrap_or_default();
    Deployment {
        metadata: metadata::owned(pool, pool.names.front_end(), Component::FrontEnd),
        spec: Some(DeploymentSpec {
            replicas: Some(pool.replicas()),
            revision_history_limit: Some(REVISIONS),
            selector: selector(pool),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_unavailable: Some(IntOrString::Int(0)),
                    max_surge: Some(surge.to_kube()),
                }),
            }),
            template,
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// Keeps an emptying node from taking more than one front end at a time; one that serves nobody never holds it up.
pub fn disruption_budget(pool: &ValidatedPool) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata::owned(pool, pool.names.front_end(), Component::FrontEnd),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selector(pool)),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

fn selector(pool: &ValidatedPool) -> LabelSelector {
    LabelSelector { match_labels: Some(pool.names.selector(Component::FrontEnd)), ..LabelSelector::default() }
}

fn pod_metadata(pool: &ValidatedPool, hash: &str) -> ObjectMeta {
    let mut labels = pool.names.labels(Component::FrontEnd, &pool.version);
    labels.insert(VIP.into(), VIP_IN.into());
    let mut annotations = pool.spec.front_end.pod_annotations.clone();
    annotations.insert(CONFIG_HASH.into(), hash.into());
    ObjectMeta { labels: Some(labels), annotations: Some(annotations), ..ObjectMeta::default() }
}

/// The pod of Standard Edition.
fn alone(pool: &ValidatedPool, certificate: Option<String>) -> PodSpec {
    let mut container = container(pool);
    container.volume_mounts.get_or_insert_default().push(mount("data", DATA_FOLDER, None));
    let mut files = sources(pool, certificate);
    files.extend(pool.spec.directory_sync.iter().flat_map(|spec| directory::files(&spec.ldap)));
    let mut volumes = vec![pod::files(files), pod::data(pool.names.data())];
    if pool.spec.directory_sync.is_some() {
        directory::give_room(&mut container, &mut volumes);
    }
    PodSpec {
        affinity: match pool.spec.front_end.placement.spread {
            Spread::Preferred => Some(apart()),
            Spread::None => None,
        },
        containers: vec![container],
        volumes: Some(volumes),
        ..pod::placed(pool, pod::base(pool, USER, GRACE_SECONDS))
    }
}

/// A pod of Enterprise Edition: it keeps nothing, and knows its own address.
fn one_of_many(pool: &ValidatedPool, certificate: Option<String>) -> PodSpec {
    let mut container = container(pool);
    container.ports.get_or_insert_default().push(port("peers", PEERS_PORT, "TCP"));
    container.env = Some(vec![EnvVar {
        name: "POD_IP".into(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path: "status.podIP".into(), api_version: None }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }]);
    container.termination_message_policy = Some("FallbackToLogsOnError".into());
    let mut files = sources(pool, certificate);
    let peers = [(tls::CERTIFICATE, "peers/tls.crt"), (tls::KEY, "peers/tls.key"), (tls::TRUST, "peers/ca.crt")];
    files.push(from_secret(pool.names.peer_certificate(), &peers));
    files.extend(database::login_files(pool, database::Login::Server));
    let grace = i64::from(pool.drain().timeout_seconds) + GRACE_BEYOND_DRAIN_SECONDS;
    PodSpec {
        topology_spread_constraints: match pool.spec.front_end.placement.spread {
            Spread::Preferred => {
                Some(["kubernetes.io/hostname", "topology.kubernetes.io/zone"].map(|it| even(pool, it)).into())
            }
            Spread::None => None,
        },
        containers: vec![container],
        volumes: Some(vec![pod::files(files)]),
        ..pod::placed(pool, pod::base(pool, USER, grace))
    }
}

fn container(pool: &ValidatedPool) -> Container {
    let mut ports: Vec<ContainerPort> = pool
        .listeners()
        .map(|(transport, _)| port(transport.as_str(), container_port(transport), transport.protocol()))
        .collect();
    ports.push(port(pod::MANAGEMENT, MANAGEMENT_PORT, "TCP"));
    Container {
        name: CONTAINER.into(),
        image: Some(pool.image.clone()),
        image_pull_policy: Some(pool.spec.image.pull_policy.as_str().into()),
        args: Some(["serve", "--config", &format!("{FOLDER}/{CONFIG_KEY}")].map(str::to_owned).into()),
        ports: Some(ports),
        volume_mounts: Some(vec![mount("files", FOLDER, Some(true))]),
        resources: Some(pod::resources(pool.spec.front_end.resources.amounts())),
        security_context: Some(pod::confined()),
        startup_probe: Some(asks("/healthz", Rhythm { period: 2, failures: 60, timeout: 2 })),
        readiness_probe: Some(asks("/readyz", Rhythm { period: 2, failures: 2, timeout: 1 })),
        liveness_probe: Some(asks("/healthz", Rhythm { period: 20, failures: 3, timeout: 5 })),
        ..Container::default()
    }
}

/// The files of every server.
fn sources(pool: &ValidatedPool, certificate: Option<String>) -> Vec<VolumeProjection> {
    let shown = [(tls::CERTIFICATE, "tls/tls.crt"), (tls::KEY, "tls/tls.key")];
    let mut sources = vec![
        from_secret(pool.names.config(), &[(CONFIG_KEY, CONFIG_KEY)]),
        from_secret(pool.names.keys(), &[(POOL_KEY, "keys/pool.key")]),
    ];
    sources.extend(certificate.map(|secret| from_secret(secret, &shown)));
    sources
}

/// A node without a front end of any pool of the namespace is liked better.
fn apart() -> Affinity {
    let front_ends = [("app.kubernetes.io/name", PRODUCT), (COMPONENT, Component::FrontEnd.as_str())]
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

/// The front ends of one template are spread over places, as far as there is room. Those of the template before do not
/// count, or their successors would be driven to where they are not.
fn even(pool: &ValidatedPool, place: &str) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: place.into(),
        when_unsatisfiable: "ScheduleAnyway".into(),
        label_selector: Some(selector(pool)),
        match_label_keys: Some(vec!["pod-template-hash".into()]),
        ..TopologySpreadConstraint::default()
    }
}
