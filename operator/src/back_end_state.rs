//! What database and migration do, and what keeps them from it, read from their workload, Job and pods. Pure.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

use crate::build::database::{self, place};
use crate::build::migration::{self, Ending, ending};
use crate::crd::Reason;
use crate::front_end_state::Finding;
use crate::names::Component;
use crate::observed::{Observed, Workload};
use crate::pod_state::{Part, last_words};
use crate::validate::ValidatedPool;

/// Whether the database of the pool's own takes connections (`Available`), or why not.
pub fn database(pool: &ValidatedPool, observed: &Observed) -> Finding {
    let name = pool.names.database();
    let part = Part {
        name: &name,
        kind: "StatefulSet",
        container: database::CONTAINER,
        claim: observed.claim.as_ref(),
        pods: observed.pods_of(Component::Database).collect(),
    };
    let Some(set) = &observed.database else { return part.absent() };
    let progress = Workload::Set(set.clone()).progress();
    if progress.up_to_date && progress.ready >= 1 {
        return (Reason::Available, format!("{name} takes connections"));
    }
    part.trouble().unwrap_or_else(|| part.on_its_way(progress.up_to_date))
}

/// Of a database that somebody else keeps is known what its migration shows.
pub fn external(pool: &ValidatedPool, job: &str, schema: &Finding) -> Finding {
    let place = place(pool);
    match schema.0 {
        Reason::Migrated => (Reason::Available, format!("Job {job} reached {place}, which somebody else keeps")),
        _ => (Reason::NotReached, format!("Job {job} has not reached {place} yet")),
    }
}

/// Whether the schema is that of the Job `name` (`Migrated`), or why not. `may_start`: whether the Job is made if it is
/// not there yet.
pub fn schema(observed: &Observed, name: &str, may_start: bool) -> Finding {
    let job = observed.migrations.iter().find(|job| job.metadata.name.as_deref() == Some(name));
    let Some(job) = job else {
        return match may_start {
            true => (Reason::Migrating, format!("Job {name} is being made")),
            false => (Reason::AwaitingDatabase, format!("Job {name} is made when the database is there")),
        };
    };
    match ending(job) {
        Some(Ending::Complete) => (Reason::Migrated, format!("Job {name} has brought the schema up to date")),
        Some(Ending::Failed(message)) => (Reason::MigrationFailed, format!("Job {name} failed: {message}")),
        None => under_way(observed, job, name),
    }
}

fn under_way(observed: &Observed, job: &Job, name: &str) -> Finding {
    if job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true) {
        return (Reason::Migrating, format!("Job {name} is suspended: set its spec.suspend to false"));
    }
    let pods: Vec<&Pod> = observed.pods_of(Component::Migration).filter(|pod| is_of(pod, job)).collect();
    if let Some(words) = pods.iter().find_map(|pod| last_words(pod, migration::CONTAINER)) {
        return (Reason::MigrationFailed, format!("Job {name} tries again: {words}"));
    }
    let part = Part { name, kind: "Job", container: migration::CONTAINER, claim: None, pods };
    part.trouble().unwrap_or_else(|| (Reason::Migrating, format!("Job {name} is at work")))
}

fn is_of(pod: &Pod, job: &Job) -> bool {
    pod.metadata.owner_references.iter().flatten().any(|owner| Some(&owner.uid) == job.metadata.uid.as_ref())
}
