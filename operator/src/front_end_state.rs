//! What the front end does, and what keeps it from serving, read from its workload, volume claim and pods. Pure.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::build::front_end::CONTAINER;
use crate::build::storage::is_bound;
use crate::crd::{FrontEndStatus, Reason, Transport};
use crate::names::{Component, VIP, VIP_IN, selector_text};
use crate::observed::{Observed, Reach};
use crate::validate::ValidatedPool;

/// A finding: its reason and a sentence for people.
pub type Finding = (Reason, String);

/// Whether a front end of the declared version and configuration takes clients (`Available`), or why not.
pub fn front_end(pool: &ValidatedPool, observed: &Observed) -> Finding {
    let name = pool.names.front_end();
    let Some(workload) = &observed.front_end else {
        return (Reason::NotCreated, format!("there is no StatefulSet {name} yet"));
    };
    let up_to_date = is_up_to_date(workload);
    if up_to_date && ready_replicas(workload) >= 1 {
        return (Reason::Available, format!("{} of version {} takes clients", name, pool.version));
    }
    let pods = observed.pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    if let Some(trouble) = pods.clone().find_map(|pod| trouble(pool, observed, pod)) {
        return trouble;
    }
    if !up_to_date {
        return (Reason::RollingOut, format!("StatefulSet {name} is replacing its pod"));
    }
    let message = match pods.clone().next() {
        Some(pod) => format!("pod {} is not ready yet", pod_name(pod)),
        None => format!("StatefulSet {name} has no pod yet; if it lasts, kubectl describe statefulset {name} says why"),
    };
    (Reason::NotReady, message)
}

/// Whether the pool's address is known and leads to a front end (`Reachable`), or why not.
pub fn vip(pool: &ValidatedPool, observed: &Observed, reach: &Reach) -> Finding {
    let name = pool.names.service();
    if !reach.complete {
        return (Reason::AddressPending, format!("Service {name} has no address yet"));
    }
    let ready: Vec<&Pod> = observed.pods.iter().filter(|pod| is_ready(pod)).collect();
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
    let status = observed.front_end.as_ref().and_then(|workload| workload.status.as_ref());
    FrontEndStatus {
        replicas: 1,
        ready_replicas: status.and_then(|status| status.ready_replicas).unwrap_or(0),
        updated_replicas: status.and_then(|status| status.updated_replicas).unwrap_or(0),
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

fn is_up_to_date(workload: &StatefulSet) -> bool {
    let Some(status) = &workload.status else { return false };
    status.observed_generation >= workload.metadata.generation
        && status.updated_replicas.unwrap_or(0) >= 1
        && status.current_revision == status.update_revision
}

fn ready_replicas(workload: &StatefulSet) -> i32 {
    workload.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<(&'a str, &'a str)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((condition.status.as_str(), condition.message.as_deref().unwrap_or_default()))
}

fn is_ready(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && condition(pod, "Ready").is_some_and(|(status, _)| status == "True")
}

fn pod_name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

fn trouble(pool: &ValidatedPool, observed: &Observed, pod: &Pod) -> Option<Finding> {
    unscheduled(pool, observed, pod).or_else(|| {
        let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
        container_trouble(pool, pod, statuses.iter().find(|status| status.name == CONTAINER)?)
    })
}

fn unscheduled(pool: &ValidatedPool, observed: &Observed, pod: &Pod) -> Option<Finding> {
    let (status, message) = condition(pod, "PodScheduled")?;
    if status != "False" {
        return None;
    }
    if observed.claim.as_ref().is_some_and(|claim| !is_bound(claim)) {
        return Some((Reason::VolumePending, format!("claim {} is not bound: {message}", pool.names.data())));
    }
    Some((Reason::Unschedulable, format!("pod {}: {message}", pod_name(pod))))
}

/// The kubelet's own words are left out where they change from try to try: each would be a write of the status.
fn container_trouble(pool: &ValidatedPool, pod: &Pod, status: &ContainerStatus) -> Option<Finding> {
    let name = pod_name(pod);
    let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
    let why = waiting.and_then(|waiting| waiting.reason.as_deref());
    match why {
        Some("ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" | "ImageInspectError") => {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("its node");
            let image = if status.image.is_empty() { &pool.image } else { &status.image };
            let mend = "load it into the node, or set spec.image";
            Some((Reason::ImageMissing, format!("pod {name}: {node} cannot get image {image}; {mend}")))
        }
        Some("CrashLoopBackOff") => Some((Reason::Crashing, format!("pod {name}: {}", last_end(status)))),
        Some("ContainerCreating" | "PodInitializing") | None => {
            ended(status).map(|end| (Reason::Crashing, format!("pod {name}: {end}")))
        }
        Some(other) => {
            let message = waiting.and_then(|waiting| waiting.message.as_deref()).unwrap_or_default();
            Some((Reason::NotReady, format!("pod {name}: {other}: {message}")))
        }
    }
}

/// A container that ended and was not started again yet.
fn ended(status: &ContainerStatus) -> Option<String> {
    status.state.as_ref()?.terminated.as_ref().map(|_| last_end(status))
}

fn last_end(status: &ContainerStatus) -> String {
    let terminated = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| state.as_ref()?.terminated.clone();
    let Some(end) = terminated(&status.state).or_else(|| terminated(&status.last_state)) else {
        return "the server ends soon after its start".into();
    };
    let words = end.message.as_deref().map(str::trim).filter(|words| !words.is_empty());
    let words = words.map_or_else(|| ": kubectl logs --previous says why".to_owned(), |words| format!(": {words}"));
    format!("the server ended with exit code {}{words}", end.exit_code)
}
