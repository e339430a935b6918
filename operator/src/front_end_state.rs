//! What the front ends do, and what keeps them from serving, read from their workload and pods. Pure.

use k8s_openapi::api::core::v1::Pod;

use crate::build::front_end::CONTAINER;
use crate::crd::{FrontEndStatus, Reason, Transport};
use crate::names::{Component, VIP, VIP_IN, selector_text};
use crate::observed::{Observed, Reach, Workload};
use crate::plan::Kind;
use crate::pod_state::{Part, is_ready};
use crate::validate::ValidatedPool;

/// A finding: its reason and a sentence for people.
pub type Finding = (Reason, String);

/// Whether front ends of the declared version and configuration take clients (`Available`, or `TooFew` of them), or why
/// not. `held`: whether they stay as they are for the time being.
pub fn front_end(pool: &ValidatedPool, observed: &Observed, held: bool) -> Finding {
    let name = pool.names.front_end();
    let kind = if pool.is_enterprise() { Kind::Deployment } else { Kind::StatefulSet };
    let part = Part {
        name: &name,
        kind: kind.as_str(),
        container: CONTAINER,
        claim: observed.claim.as_ref().filter(|_| !pool.is_enterprise()),
        pods: observed.pods_of(Component::FrontEnd).collect(),
    };
    let Some(workload) = &observed.front_end else { return part.absent() };
    let (progress, wanted) = (workload.progress(), pool.replicas());
    let version = version(workload);
    if held {
        return (Reason::Held, format!("{name} stays at version {version} and its configuration for the time being"));
    }
    let trouble = part.trouble();
    if progress.up_to_date && progress.ready >= wanted {
        let many = if wanted == 1 {
            format!("{name} of version {version} takes clients")
        } else {
            format!("{wanted} front ends of version {version} take clients")
        };
        return (Reason::Available, many);
    }
    if progress.up_to_date && progress.ready >= 1 {
        let why = trouble.map(|(_, why)| format!("; {why}")).unwrap_or_default();
        let message = format!("{} of {wanted} front ends of version {version} take clients{why}", progress.ready);
        return (Reason::TooFew, message);
    }
    trouble.unwrap_or_else(|| part.on_its_way(progress.up_to_date))
}

/// Whether clients are served by front ends as declared.
pub fn serves(finding: &Finding) -> bool {
    matches!(finding.0, Reason::Available | Reason::TooFew)
}

/// The version that the workload's pods are labelled with.
fn version(workload: &Workload) -> &str {
    let labels = workload.template().and_then(|template| template.metadata.as_ref()?.labels.as_ref());
    labels.and_then(|labels| labels.get("app.kubernetes.io/version")).map_or("unknown", String::as_str)
}

/// Whether the pool's address is known and leads to a front end (`Reachable`), or why not.
pub fn vip(pool: &ValidatedPool, observed: &Observed, reach: &Reach) -> Finding {
    let name = pool.names.service();
    if !reach.complete {
        return (Reason::AddressPending, format!("Service {name} has no address yet"));
    }
    let ready: Vec<&Pod> = observed.pods_of(Component::FrontEnd).filter(|pod| is_ready(pod)).collect();
    let in_vip = |pod: &&Pod| {
        pod.metadata.labels.as_ref().and_then(|labels| labels.get(VIP)).is_some_and(|value| value == VIP_IN)
    };
    if ready.is_empty() {
        (Reason::NoReadyFrontEnd, format!("Service {name} leads to no ready front end"))
    } else if !ready.iter().any(in_vip) {
        (Reason::OutOfVip, format!("no ready front end has the label {VIP}={VIP_IN}"))
    } else {
        (Reason::Reachable, format!("clients reach the pool at {}", addresses(reach)))
    }
}

/// Figures for the status.
pub fn figures(pool: &ValidatedPool, observed: &Observed) -> FrontEndStatus {
    let progress = observed.front_end.as_ref().map(Workload::progress).unwrap_or_default();
    FrontEndStatus {
        replicas: progress.pods,
        ready_replicas: progress.ready,
        updated_replicas: progress.updated,
        selector: selector_text(&pool.names.selector(Component::FrontEnd)),
    }
}

fn addresses(reach: &Reach) -> String {
    let one = |transport: Transport| {
        let address = reach.of(transport)?;
        let host = if address.host.contains(':') { format!("[{}]", address.host) } else { address.host.clone() };
        Some(format!("{host}:{} ({})", address.port, transport.as_str()))
    };
    Transport::ALL.into_iter().filter_map(one).collect::<Vec<_>>().join(", ")
}
