//! The replicator of Enterprise Edition: a CronJob whose pods bring users from a directory into the database.
//!
//! A pod says what its run came to in its termination message, so that it needs no rights at the API server. It is never
//! repeated: the next run begins anew in any case.

use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, JobSpec, JobTemplateSpec};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::config::{FOLDER, REPLICATOR_KEY};
use super::database::{Login, login_files};
use super::pod::{self, USER, from_secret, mount};
use super::{directory, metadata};
use crate::crd::directory::DirectorySyncSpec;
use crate::crd::quantity::{Amounts, Quantity};
use crate::names::Component;
use crate::validate::ValidatedPool;

/// Name of the replicator's container.
pub const CONTAINER: &str = "replicator";
/// What it is told to do: one run.
pub const RUN: &str = "run";
/// Where its message is put: the kubelet's own default.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// A run can be ended at any moment; this is for its last words.
const GRACE_SECONDS: i64 = 30;
/// Longest run, in seconds; the kubelet ends it, and its pod stays to be looked at.
pub const RUN_SECONDS: i64 = 3_600;
/// When a run ends that has not begun by then, together with its pod: no other could begin while it is there.
const JOB_SECONDS: i64 = RUN_SECONDS + 120;
/// How late a run may begin, unless the pool says so.
const LATE_SECONDS: i64 = 600;
/// Jobs of runs that are kept, unless the pool says so.
const KEPT: i32 = 3;

/// The CronJob; while `halted` it starts nothing.
pub fn cron_job(pool: &ValidatedPool, spec: &DirectorySyncSpec, halted: bool) -> CronJob {
    let labels =
        ObjectMeta { labels: Some(pool.names.labels(Component::Replicator, &pool.version)), ..ObjectMeta::default() };
    let job = JobSpec {
        backoff_limit: Some(0),
        active_deadline_seconds: Some(JOB_SECONDS),
        template: PodTemplateSpec { metadata: Some(labels.clone()), spec: Some(pod(pool, spec)) },
        ..JobSpec::default()
    };
    CronJob {
        metadata: metadata::owned(pool, pool.names.replicator(), Component::Replicator),
        spec: Some(CronJobSpec {
            schedule: spec.schedule.clone(),
            time_zone: Some(spec.time_zone.clone().unwrap_or_else(|| "UTC".into())),
            suspend: Some(halted),
            concurrency_policy: Some("Forbid".into()),
            starting_deadline_seconds: Some(spec.starting_deadline_seconds.unwrap_or(LATE_SECONDS)),
            successful_jobs_history_limit: Some(spec.successful_jobs_history_limit.unwrap_or(KEPT)),
            failed_jobs_history_limit: Some(spec.failed_jobs_history_limit.unwrap_or(KEPT)),
            job_template: JobTemplateSpec { metadata: Some(labels), spec: Some(job) },
        }),
        status: None,
    }
}

fn pod(pool: &ValidatedPool, spec: &DirectorySyncSpec) -> PodSpec {
    let mut files = vec![from_secret(pool.names.config(), &[(REPLICATOR_KEY, REPLICATOR_KEY)])];
    files.extend(login_files(pool, Login::Replicator));
    files.extend(directory::files(&spec.ldap));
    let (mut container, mut volumes) = (container(pool), vec![pod::files(files)]);
    directory::give_room(&mut container, &mut volumes);
    PodSpec {
        restart_policy: Some("Never".into()),
        active_deadline_seconds: Some(RUN_SECONDS),
        containers: vec![container],
        volumes: Some(volumes),
        ..pod::placed(pool, pod::base(pool, USER, GRACE_SECONDS))
    }
}

fn container(pool: &ValidatedPool) -> Container {
    let config = format!("{FOLDER}/{REPLICATOR_KEY}");
    let args = [RUN, "--config", &config, "--termination-log", TERMINATION_LOG];
    let amount = Quantity::new;
    let (cpu, memory, limit) = (amount("50m"), amount("64Mi"), amount("256Mi"));
    let amounts = Amounts { cpu: &cpu, memory: &memory, cpu_limit: None, memory_limit: &limit };
    Container {
        name: CONTAINER.into(),
        image: Some(pool.replicator_image.clone()),
        image_pull_policy: Some(pool.spec.image.pull_policy.as_str().into()),
        args: Some(args.map(str::to_owned).into()),
        volume_mounts: Some(vec![mount("files", FOLDER, Some(true))]),
        resources: Some(pod::resources(amounts)),
        security_context: Some(pod::confined()),
        termination_message_path: Some(TERMINATION_LOG.into()),
        termination_message_policy: Some("File".into()),
        ..Container::default()
    }
}
