//! What runs of the directory's replicator came to, read from their pods or told by the server. Pure.
//!
//! A run is known only as long as its pod, or the server's memory; the status keeps what it came to. So the condition
//! follows from the status, and the status from what was there before and the newest run.

use commpool_model::directory::{Counts, MAX_NAMED, Outcome, RunResult};
use commpool_model::ids::Micros;
use commpool_model::schedule::Timetable;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::build::directory::missing;
use crate::build::replicator::{CONTAINER, RUN, RUN_SECONDS};
use crate::crd::directory::DirectorySyncSpec;
use crate::crd::{DirectorySyncStatus, Reason};
use crate::front_end_state::Finding;
use crate::names::Component;
use crate::observed::Observed;
use crate::pod_state::{Part, end};
use crate::validate::ValidatedPool;

/// Most octets of an error in the status.
const MAX_ERROR: usize = 1_024;
/// Most octets of a conflict in the status.
const MAX_CONFLICT: usize = 256;
/// Most octets of a digest.
const MAX_DIGEST: usize = 64;

/// The directory's part of the status.
#[derive(Clone, Debug, PartialEq)]
pub struct DirectoryState {
    /// `Synced`, or why the users may not be those of the directory.
    pub finding: Finding,
    /// What runs came to.
    pub status: DirectorySyncStatus,
}

/// A run that ended.
struct Run {
    ended: Timestamp,
    said: Result<Outcome, String>,
}

/// The directory's part of the status, where there is a directory. `old`: what it was.
pub fn directory(
    pool: &ValidatedPool,
    observed: &Observed,
    old: Option<&DirectorySyncStatus>,
    now: Timestamp,
) -> Option<DirectoryState> {
    let spec = pool.spec.directory_sync.as_ref()?;
    let mut status = old.cloned().unwrap_or_default();
    if let Some(run) = newest(pool, observed) {
        take(&mut status, run);
    }
    let finding = if let Some(message) = missing(pool, observed) {
        (Reason::SecretMissing, message)
    } else if spec.suspend {
        let last = last(pool, &status).1;
        (Reason::Suspended, format!("directorySync.suspend is set; before: {last}"))
    } else {
        trouble(pool, observed).or_else(|| overdue(pool, spec, &status, now)).unwrap_or_else(|| last(pool, &status))
    };
    Some(DirectoryState { finding, status })
}

/// What keeps the newest run from coming to anything, if something does.
fn trouble(pool: &ValidatedPool, observed: &Observed) -> Option<Finding> {
    if !pool.is_enterprise() {
        let words = observed.report.as_ref()?.as_ref().err()?;
        return Some((Reason::NotAnswering, words.clone()));
    }
    let pod = pods(observed).max_by_key(|pod| (created(pod), pod.metadata.name.clone()))?;
    if run(pod).is_some() {
        return None;
    }
    let name = pool.names.replicator();
    Part { name: &name, kind: "CronJob", container: CONTAINER, claim: None, pods: vec![pod] }.trouble()
}

/// Two runs were due since the last one that is known, and even the longest would have ended since.
fn overdue(
    pool: &ValidatedPool,
    spec: &DirectorySyncSpec,
    status: &DirectorySyncStatus,
    now: Timestamp,
) -> Option<Finding> {
    let last = status.last_attempt.as_ref()?.0;
    let timetable = Timetable::new(&spec.schedule, spec.time_zone.as_deref()).ok()?;
    let due = timetable.next_after(Micros(u64::try_from(last.as_microsecond()).ok()?))?;
    let due_again = timetable.next_after(due)?;
    let late = Micros(due_again.0.checked_add(u64::try_from(RUN_SECONDS).ok()? * 1_000_000)?);
    if u64::try_from(now.as_microsecond()).ok()? <= late.0 {
        return None;
    }
    let look = if pool.is_enterprise() {
        format!("see the events of CronJob {} and of its Jobs", pool.names.replicator())
    } else {
        "see the log of the front end".into()
    };
    Some((Reason::Overdue, format!("no run has ended since {last:.0}, though two were due; {look}")))
}

fn newest(pool: &ValidatedPool, observed: &Observed) -> Option<Run> {
    if !pool.is_enterprise() {
        let outcome = observed.report.as_ref()?.as_ref().ok()?;
        let ended = outcome.finished.parse().ok()?;
        return Some(Run { ended, said: Ok((**outcome).clone()) });
    }
    let ended = pods(observed).filter_map(|pod| Some((run(pod)?, pod.metadata.name.clone())));
    ended.max_by_key(|(run, name)| (run.ended, name.clone())).map(|(run, _)| run)
}

/// The pods of runs: somebody may have made others of the same template, such as to look at a plan.
fn pods(observed: &Observed) -> impl Iterator<Item = &Pod> {
    observed.pods_of(Component::Replicator).filter(|pod| {
        let mut containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let arguments = containers.find(|it| it.name == CONTAINER).and_then(|it| it.args.as_ref());
        arguments.and_then(|arguments| arguments.first()).is_some_and(|verb| verb == RUN)
    })
}

/// The run of a pod that has ended.
fn run(pod: &Pod) -> Option<Run> {
    let status = pod.status.as_ref()?;
    let end = end(pod, CONTAINER);
    if end.is_none() && !matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
        return None;
    }
    let message = end.and_then(|end| end.message.as_deref()).unwrap_or_default();
    let outcome: Option<Outcome> = serde_json::from_str(message).ok();
    let told = outcome.as_ref().and_then(|outcome| outcome.finished.parse().ok());
    let seen = end.and_then(|end| end.finished_at.as_ref()).map(|time| time.0);
    let ended = told.or(seen).unwrap_or_else(|| created(pod));
    Some(Run { ended, said: outcome.ok_or_else(|| silence(pod)) })
}

/// How a pod ended that did not say what its run came to.
fn silence(pod: &Pod) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let of_pod = pod.status.as_ref().and_then(|status| status.reason.as_deref());
    let end = end(pod, CONTAINER);
    let why = of_pod.or_else(|| end.and_then(|end| end.reason.as_deref())).filter(|reason| !reason.is_empty());
    let code = end.map_or_else(String::new, |end| format!(" with exit code {}", end.exit_code));
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    format!("pod {name} ended{code}{why} and did not say what its run came to; kubectl logs {name} may")
}

fn created(pod: &Pod) -> Timestamp {
    pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// Takes up what a run came to, unless a later one is known.
fn take(status: &mut DirectorySyncStatus, run: Run) {
    // the API server keeps whole seconds only
    let ended = Timestamp::from_second(run.ended.as_second()).unwrap_or(run.ended);
    if status.last_attempt.as_ref().is_some_and(|last| ended < last.0) {
        return;
    }
    status.last_attempt = Some(Time(ended));
    let outcome = match run.said {
        Ok(outcome) => outcome,
        Err(words) => {
            status.last_result = Some(Reason::RunFailed.as_str().into());
            status.last_error = Some(clipped(words, MAX_ERROR));
            return;
        }
    };
    status.last_result = Some(reason(outcome.result).as_str().into());
    let synced = outcome.result == RunResult::Synced;
    status.last_error = (!synced).then(|| clipped(outcome.message.clone(), MAX_ERROR));
    if synced {
        status.last_success = Some(Time(ended));
    }
    if synced || outcome.result == RunResult::DeletionHeld {
        figures(status, outcome);
    }
}

fn figures(status: &mut DirectorySyncStatus, outcome: Outcome) {
    let Counts { added, changed, disabled, missing, removed, conflicts, unchanged: _, ignored: _ } = outcome.counts;
    let named = outcome.conflicts.into_iter().take(MAX_NAMED).map(|line| clipped(line, MAX_CONFLICT));
    let held = outcome.result == RunResult::DeletionHeld;
    let digest = Some(clipped(outcome.plan_digest, MAX_DIGEST)).filter(|digest| held && !digest.is_empty());
    *status = DirectorySyncStatus {
        found: outcome.found,
        added,
        changed,
        disabled,
        missing,
        removed,
        conflicts,
        named_conflicts: named.collect(),
        held,
        plan_digest: digest,
        ..std::mem::take(status)
    };
}

fn clipped(mut text: String, most: usize) -> String {
    text.truncate(text.floor_char_boundary(most));
    text
}

/// What the last run that is known of came to.
fn last(pool: &ValidatedPool, status: &DirectorySyncStatus) -> Finding {
    let name = status.last_result.as_deref().unwrap_or_default();
    let error = || status.last_error.clone().unwrap_or_default();
    match Reason::ALL.iter().copied().find(|reason| reason.as_str() == name) {
        None => (Reason::NotRunYet, not_yet(pool)),
        Some(Reason::Synced) => (Reason::Synced, summary(status)),
        Some(Reason::DeletionHeld) => {
            let digest = status.plan_digest.as_deref().unwrap_or_default();
            let message = format!("{} (status.directorySync.planDigest: {digest})", error());
            (Reason::DeletionHeld, if error().contains(digest) { error() } else { message })
        }
        Some(other) => (other, error()),
    }
}

fn not_yet(pool: &ValidatedPool) -> String {
    if pool.is_enterprise() {
        let name = pool.names.replicator();
        return format!("CronJob {name} has not run yet; kubectl create job --from=cronjob/{name} NAME runs it now");
    }
    "no run of the server is known yet".into()
}

fn summary(status: &DirectorySyncStatus) -> String {
    let DirectorySyncStatus { found, added, changed, disabled, missing, removed, conflicts, .. } = status;
    let mut text = format!(
        "{found} entries found; users: {added} added, {changed} changed, {disabled} disabled, {missing} missing, {removed} removed"
    );
    if *conflicts > 0 {
        text += &format!("; {conflicts} in conflict: {}", status.named_conflicts.join("; "));
    }
    text
}

/// The reason that says what a run came to.
pub fn reason(result: RunResult) -> Reason {
    match result {
        RunResult::Synced => Reason::Synced,
        RunResult::DeletionHeld => Reason::DeletionHeld,
        RunResult::Busy => Reason::Busy,
        RunResult::DirectoryUnavailable => Reason::DirectoryUnavailable,
        RunResult::DirectoryRefused => Reason::DirectoryRefused,
        RunResult::ReadIncomplete => Reason::ReadIncomplete,
        RunResult::StoreUnavailable => Reason::StoreUnavailable,
        RunResult::ConfigurationInvalid => Reason::ConfigurationInvalid,
        RunResult::InternalError => Reason::InternalError,
    }
}
