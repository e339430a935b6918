//! What keeps pods from doing their work, in words that do not change from try to try. Pure.

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, PersistentVolumeClaim, Pod,
};

use crate::build::storage::is_bound;
use crate::crd::Reason;
use crate::front_end_state::Finding;

/// A part of the pool that pods do the work of.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// Name of the workload.
    pub name: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// The container that does the work.
    pub container: &'a str,
    /// The claim that its pods mount.
    pub claim: Option<&'a PersistentVolumeClaim>,
    /// Its pods.
    pub pods: Vec<&'a Pod>,
}

impl Part<'_> {
    /// There is no workload.
    pub fn absent(&self) -> Finding {
        (Reason::NotCreated, format!("there is no {} {} yet", self.kind, self.name))
    }

    /// What keeps a pod from its work, if anything does; pods that are ending do not count.
    pub fn trouble(&self) -> Option<Finding> {
        self.standing()
            .find_map(|pod| self.unscheduled(pod).or_else(|| container_trouble(pod, status(pod, self.container)?)))
    }

    /// Nothing is wrong, and it is not there yet.
    pub fn on_its_way(&self, up_to_date: bool) -> Finding {
        let Self { name, kind, .. } = self;
        if !up_to_date {
            return (Reason::RollingOut, format!("{kind} {name} is replacing its pods"));
        }
        let waiting = self.standing().find(|pod| !is_ready(pod));
        let message = match waiting {
            Some(pod) => format!("pod {} is not ready yet", pod_name(pod)),
            None => {
                let kind_name = format!("{} {name}", kind.to_ascii_lowercase());
                format!("{kind} {name} has no pod yet; if it lasts, kubectl describe {kind_name} says why")
            }
        };
        (Reason::NotReady, message)
    }

    fn standing(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().copied().filter(|pod| pod.metadata.deletion_timestamp.is_none())
    }

    fn unscheduled(&self, pod: &Pod) -> Option<Finding> {
        let (status, message) = condition(pod, "PodScheduled")?;
        if status != "False" {
            return None;
        }
        Some(match self.claim.filter(|claim| !is_bound(claim)) {
            Some(claim) => {
                let name = claim.metadata.name.as_deref().unwrap_or_default();
                (Reason::VolumePending, format!("claim {name} is not bound: {message}"))
            }
            None => (Reason::Unschedulable, format!("pod {}: {message}", pod_name(pod))),
        })
    }
}

/// Whether a pod does its work and is not about to end.
pub fn is_ready(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && condition(pod, "Ready").is_some_and(|(status, _)| status == "True")
}

/// How a container ended that is not started again.
pub fn end<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStateTerminated> {
    status(pod, container)?.state.as_ref()?.terminated.as_ref()
}

/// How the last run of a container ended, if it ended in failure.
pub fn last_words(pod: &Pod, container: &str) -> Option<String> {
    let status = status(pod, container)?;
    terminated(status).filter(|end| end.exit_code != 0).map(|_| last_end(status))
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<(&'a str, &'a str)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((condition.status.as_str(), condition.message.as_deref().unwrap_or_default()))
}

fn pod_name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

fn status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.iter().find(|status| status.name == container)
}

/// The kubelet's own words are left out where they change from try to try: each would be a write of the status.
fn container_trouble(pod: &Pod, status: &ContainerStatus) -> Option<Finding> {
    let name = pod_name(pod);
    let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
    let why = waiting.and_then(|waiting| waiting.reason.as_deref());
    match why {
        Some("ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" | "ImageInspectError") => {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("its node");
            let image = image(pod, status);
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

fn image<'a>(pod: &'a Pod, status: &'a ContainerStatus) -> &'a str {
    if !status.image.is_empty() {
        return &status.image;
    }
    let mut containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let declared = containers.find(|container| container.name == status.name);
    declared.and_then(|container| container.image.as_deref()).unwrap_or_default()
}

/// A container that ended and was not started again yet.
fn ended(status: &ContainerStatus) -> Option<String> {
    status.state.as_ref()?.terminated.as_ref().map(|_| last_end(status))
}

fn terminated(status: &ContainerStatus) -> Option<ContainerStateTerminated> {
    let of = |state: &Option<ContainerState>| state.as_ref()?.terminated.clone();
    of(&status.state).or_else(|| of(&status.last_state))
}

/// Exit code and last words; of a log, its last line.
fn last_end(status: &ContainerStatus) -> String {
    let Some(end) = terminated(status) else {
        return "the program ends soon after its start".into();
    };
    let words = end.message.as_deref().and_then(|text| text.lines().map(str::trim).rfind(|line| !line.is_empty()));
    let words = words.map_or_else(|| ": kubectl logs --previous says why".to_owned(), |words| format!(": {words}"));
    format!("it ended with exit code {}{words}", end.exit_code)
}
