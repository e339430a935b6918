//! The migration of the database's schema: a Job for each version, run before the front ends of that version.
//!
//! A Job's pod cannot be changed, so all that it is made of is in its name. Jobs are never deleted by the operator: one
//! that another has taken the place of, or that has failed, is told to end and to be forgotten.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::config::{CONFIG_KEY, FOLDER};
use super::credentials::LOGINS;
use super::database::{Login, host, login_files};
use super::metadata;
use super::pod::{self, USER, from_secret, mount};
use crate::crd::quantity::{Amounts, Quantity};
use crate::names::Component;
use crate::validate::ValidatedPool;

/// Name of the migration's container.
pub const CONTAINER: &str = "migrate";
/// Folder of the logins to be made in a database of the pool's own.
const LOGINS_FOLDER: &str = "logins";
/// A migration can be ended at any statement; this is for its last words.
const GRACE_SECONDS: i64 = 10;
/// A failed try is repeated by the kubelet, each time later, for as long as the Job is wanted.
const TRIES: i32 = i32::MAX;
/// How long a Job can still be looked at when another has taken its place.
const REMEMBERED_SECONDS: i32 = 3_600;
/// How soon a Job that failed as a whole makes room for a new one of its name.
const REPEATED_SECONDS: i32 = 10;

/// Name of the Job. `logins`: hash of those in a database of the pool's own.
pub fn name(pool: &ValidatedPool, logins: Option<&str>) -> String {
    let place = &pool.spec.front_end.placement;
    let inputs = json!({
        "image": pool.image,
        "pull": [json!(pool.spec.image.pull_policy), json!(pool.spec.image.pull_secrets)],
        "place": [json!(place.node_selector), json!(place.tolerations)],
        "database": pool.external().map_or_else(|| json!(host(pool)), |external| json!(external)),
        "logins": logins,
    });
    pool.names.migration(&super::hex(&Sha256::digest(inputs.to_string()), 5))
}

/// The Job of this version.
pub fn job(pool: &ValidatedPool, name: String) -> Job {
    let labels = pool.names.labels(Component::Migration, &pool.version);
    Job {
        metadata: metadata::owned(pool, name, Component::Migration),
        spec: Some(JobSpec {
            backoff_limit: Some(TRIES),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
                spec: Some(pod(pool)),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// What a Job that is there should say: as it is, with an end if it is not `wanted` or has failed.
pub fn standing(pool: &ValidatedPool, live: &Job, wanted: bool) -> Job {
    let mut job = job(pool, live.metadata.name.clone().unwrap_or_default());
    let spec = job.spec.get_or_insert_default();
    if let Some(live) = &live.spec {
        spec.template = live.template.clone();
    }
    // its labels say which version it was for
    job.metadata.labels = live.metadata.labels.clone();
    let ended = ending(live).is_some();
    if !wanted && !ended {
        spec.active_deadline_seconds = Some(1);
    }
    spec.ttl_seconds_after_finished = match (wanted, ending(live)) {
        (true, Some(Ending::Failed(_))) => Some(REPEATED_SECONDS),
        (true, _) => None,
        (false, _) => Some(REMEMBERED_SECONDS),
    };
    job
}

fn pod(pool: &ValidatedPool) -> PodSpec {
    let mut files = vec![from_secret(pool.names.config(), &[(CONFIG_KEY, CONFIG_KEY)])];
    files.extend(login_files(pool, Login::Migration));
    let mut args = vec!["migrate".to_owned(), "--config".to_owned(), format!("{FOLDER}/{CONFIG_KEY}")];
    if pool.embedded().is_some() {
        args.extend(["--bootstrap".to_owned(), format!("{FOLDER}/{LOGINS_FOLDER}")]);
        let keys = LOGINS.iter().flat_map(|(who, _)| [format!("{who}-username"), format!("{who}-password")]);
        let pairs: Vec<(String, String)> = keys.map(|key| (key.clone(), format!("{LOGINS_FOLDER}/{key}"))).collect();
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(key, path)| (key.as_str(), path.as_str())).collect();
        files.push(from_secret(pool.names.credentials(), &pairs));
    }
    let amount = Quantity::new;
    let (cpu, memory, limit) = (amount("50m"), amount("64Mi"), amount("256Mi"));
    let amounts = Amounts { cpu: &cpu, memory: &memory, cpu_limit: None, memory_limit: &limit };
    let container = Container {
        name: CONTAINER.into(),
        image: Some(pool.image.clone()),
        image_pull_policy: Some(pool.spec.image.pull_policy.as_str().into()),
        args: Some(args),
        volume_mounts: Some(vec![mount("files", FOLDER, Some(true))]),
        resources: Some(pod::resources(amounts)),
        security_context: Some(pod::confined()),
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        ..Container::default()
    };
    PodSpec {
        restart_policy: Some("OnFailure".into()),
        containers: vec![container],
        volumes: Some(vec![pod::files(files)]),
        ..pod::placed(pool, pod::base(pool, USER, GRACE_SECONDS))
    }
}

/// How a Job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As it should.
    Complete,
    /// For good, in the words of its controller.
    Failed(String),
}

/// How a Job ended, if it has.
pub fn ending(job: &Job) -> Option<Ending> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().filter(|condition| condition.status == "True").find_map(|condition| {
        match condition.type_.as_str() {
            "Complete" => Some(Ending::Complete),
            "Failed" => Some(Ending::Failed(condition.message.clone().unwrap_or_default())),
            _ => None,
        }
    })
}
