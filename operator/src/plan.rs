//! From what is and what should be to the writes in between, in order; empty at rest. Pure.

use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;
use kube::core::ApiResource;
use serde::Serialize;
use serde_json::{Value, json};

use crate::back_end_state;
use crate::build::migration::standing;
use crate::build::tls::CertificateState;
use crate::build::{Blocker, Desired, build};
use crate::crd::Reason;
use crate::diff::{difference, lacks};
use crate::error::Error;
use crate::front_end_state::Finding;
use crate::names::MANAGER;
use crate::observed::{Observed, Reach, Workload, created};
use crate::owners::{is_owned, strangers};
use crate::pki::Entropy;
use crate::record::{gathered, written};
use crate::rivals::edits;
use crate::validate::ValidatedPool;

/// How long the first start waits for the Service's address, so that the server knows it from the beginning.
const ADDRESS_PATIENCE_SECONDS: i64 = 5;

/// Kinds of objects that the operator writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1` Service.
    Service,
    /// `v1` ServiceAccount.
    ServiceAccount,
    /// `v1` Secret.
    Secret,
    /// `v1` PersistentVolumeClaim.
    PersistentVolumeClaim,
    /// `apps/v1` StatefulSet.
    StatefulSet,
    /// `batch/v1` Job.
    Job,
    /// `apps/v1` Deployment.
    Deployment,
    /// `policy/v1` PodDisruptionBudget.
    PodDisruptionBudget,
    /// `batch/v1` CronJob.
    CronJob,
}

impl Kind {
    /// The kind's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::ServiceAccount => "ServiceAccount",
            Self::Secret => "Secret",
            Self::PersistentVolumeClaim => "PersistentVolumeClaim",
            Self::StatefulSet => "StatefulSet",
            Self::Job => "Job",
            Self::Deployment => "Deployment",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::CronJob => "CronJob",
        }
    }

    /// Where the API server keeps it.
    pub fn resource(self) -> ApiResource {
        use k8s_openapi::api::{apps::v1 as apps, batch::v1 as batch, core::v1 as core, policy::v1 as policy};
        match self {
            Self::Service => ApiResource::erase::<core::Service>(&()),
            Self::ServiceAccount => ApiResource::erase::<core::ServiceAccount>(&()),
            Self::Secret => ApiResource::erase::<core::Secret>(&()),
            Self::PersistentVolumeClaim => ApiResource::erase::<core::PersistentVolumeClaim>(&()),
            Self::StatefulSet => ApiResource::erase::<apps::StatefulSet>(&()),
            Self::Job => ApiResource::erase::<batch::Job>(&()),
            Self::Deployment => ApiResource::erase::<apps::Deployment>(&()),
            Self::PodDisruptionBudget => ApiResource::erase::<policy::PodDisruptionBudget>(&()),
            Self::CronJob => ApiResource::erase::<batch::CronJob>(&()),
        }
    }

    /// Whether it runs something, so that its effect is seen only later.
    pub fn runs(self) -> bool {
        matches!(self, Self::StatefulSet | Self::Job | Self::Deployment)
    }

    /// The kind of the front ends' workload.
    pub fn of(workload: &Workload) -> Self {
        match workload {
            Workload::Set(_) => Self::StatefulSet,
            Workload::Deployment(_) => Self::Deployment,
        }
    }
}

/// Why an object is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// There is none.
    Absent,
    /// This field is not as it should be.
    Changed(String),
    /// The object is as it should be, but some of it is recorded as ours in a way that no apply could take back.
    Record,
    /// Nobody wants it any more.
    Unwanted,
}

/// How an object is written.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Made; refused if it is there already: what was made by chance is never overwritten by other chance.
    Create(Value),
    /// Server-side apply.
    Apply(Value),
    /// JSON patch (RFC 6902) of the object as it was seen; a conflict if it is another by now.
    Patch(Value),
    /// Deleted with all that it owns, if it is still the object that was seen.
    Delete {
        /// Its identity.
        uid: Option<String>,
        /// Its version.
        version: Option<String>,
    },
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    /// Kind of the object.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What is written.
    pub write: Write,
    /// Why.
    pub why: Why,
}

/// What follows from one look at a pool.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What to write, in order.
    pub ops: Vec<Op>,
    /// How clients reach the pool.
    pub reach: Reach,
    /// The certificate that they are shown.
    pub certificate: CertificateState,
    /// Database and schema, in Enterprise Edition.
    pub back_end: Option<BackEnd>,
    /// Whether front ends stay as they are though they should be others.
    pub held: bool,
    /// What keeps the pool from being as declared.
    pub blockers: Vec<Blocker>,
    /// When to look again even if nothing happens.
    pub wake: Option<Duration>,
}

/// What front ends of Enterprise Edition wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackEnd {
    /// `Available`, or what keeps the database from it.
    pub database: Finding,
    /// `Migrated`, or what keeps the schema from it.
    pub schema: Finding,
}

/// Decides what to write.
///
/// # Errors
/// If something cannot be built; a retry can help.
pub fn decide(
    pool: &ValidatedPool,
    observed: &Observed,
    now: Timestamp,
    entropy: &mut dyn Entropy,
) -> Result<Decision, Error> {
    let reach = Reach::find(pool, observed.service.as_ref());
    let built = build(pool, observed, &reach, now.as_second(), entropy)?;
    let strangers = strangers(pool, observed, built.desired.migration.as_ref());
    let mut decision = Decision {
        ops: Vec::new(),
        reach,
        certificate: built.certificate,
        back_end: None,
        held: false,
        blockers: strangers,
        wake: None,
    };
    if !decision.blockers.is_empty() {
        let passing = decision.blockers.iter().all(|blocker| blocker.reason == Reason::Deleting);
        decision.wake = passing.then(|| Duration::from_secs(2));
        return Ok(decision);
    }
    decision.blockers = built.blockers;
    decision.wake = patience(observed, &decision.reach, now);
    let blocked = decision.blockers.iter().any(Blocker::holds_front_end);
    let mut desired = built.desired;
    let migration = desired.migration.take();
    let front_end = desired.front_end.take();
    let budget = desired.disruption_budget.take();
    let replicator = desired.replicator.take();

    decision.ops = ground(desired, observed)?;
    let mut turn = !blocked && decision.wake.is_none();
    if let Some(job) = migration {
        let step = BackEndStep { pool, observed, name: job.metadata.name.clone().unwrap_or_default(), blocked };
        let (ops, back_end) = step.take(job, decision.ops.iter().any(|op| op.kind == Kind::StatefulSet))?;
        decision.ops.extend(ops);
        turn &= back_end.is_done();
        decision.back_end = Some(back_end);
    }
    let (op, held) = front_ends(front_end, observed, turn)?;
    decision.held = held;
    decision.ops.extend(op);
    decision.ops.extend(op_of(Kind::PodDisruptionBudget, budget, observed.disruption_budget.as_ref(), false)?);
    let ready = decision.back_end.as_ref().is_some_and(BackEnd::is_done);
    decision.ops.extend(self::replicator(pool, replicator, observed.replicator.as_ref(), ready)?);
    Ok(decision)
}

impl BackEnd {
    fn is_done(&self) -> bool {
        self.database.0 == Reason::Available && self.schema.0 == Reason::Migrated
    }
}

/// The order of an upgrade: the database as declared, then its schema, then the front ends. Each step is begun when the
/// one before it was seen done, so that it holds whenever the operator is ended and started again.
struct BackEndStep<'a> {
    pool: &'a ValidatedPool,
    observed: &'a Observed,
    /// The migration that is wanted.
    name: String,
    /// Whether something is missing that its pod needs.
    blocked: bool,
}

impl BackEndStep<'_> {
    /// What is to be done about the migration, and how far database and schema are. `written`: the database is being
    /// changed, so that what was seen of it no longer counts.
    fn take(&self, job: Job, written: bool) -> Result<(Vec<Op>, BackEnd), Error> {
        let Self { pool, observed, name, blocked } = self;
        let database = match pool.embedded() {
            Some(_) if written => {
                let name = pool.names.database();
                Some((Reason::RollingOut, format!("StatefulSet {name} is not as declared yet")))
            }
            Some(_) => Some(back_end_state::database(pool, observed)),
            None => None,
        };
        let may_start = !blocked && database.as_ref().is_none_or(|(reason, _)| *reason == Reason::Available);
        let schema = back_end_state::schema(observed, name, may_start);
        let database = database.unwrap_or_else(|| back_end_state::external(pool, name, &schema));
        Ok((self.migrations(job, may_start)?, BackEnd { database, schema }))
    }

    fn migrations(&self, job: Job, may_start: bool) -> Result<Vec<Op>, Error> {
        let mut ops = Vec::new();
        let mut there = false;
        for live in self.observed.migrations.iter().filter(|live| live.metadata.deletion_timestamp.is_none()) {
            let wanted = live.metadata.name.as_ref() == Some(&self.name);
            there |= wanted;
            if is_owned(self.pool, &live.metadata) {
                ops.extend(op_of(Kind::Job, Some(standing(self.pool, live, wanted)), Some(live), false)?);
            }
        }
        if !there && may_start {
            ops.extend(op_of(Kind::Job, Some(job), None, false)?);
        }
        Ok(ops)
    }
}

/// The write to the front ends' workload, and whether they stay as they are though they should be others. While it is
/// not their turn their number can change, and nothing of their pods.
fn front_ends(desired: Option<Workload>, observed: &Observed, turn: bool) -> Result<(Option<Op>, bool), Error> {
    let Some(desired) = desired else { return Ok((None, false)) };
    let (kind, live) = (Kind::of(&desired), observed.front_end.as_ref());
    let mut object = serde_json::to_value(&desired)?;
    let live = live.map(serde_json::to_value).transpose()?;
    if turn {
        return Ok((op(kind, object, live.as_ref(), false), false));
    }
    let Some(live) = live else { return Ok((None, false)) };
    let template = |of: &Value| of.pointer("/spec/template").cloned().unwrap_or_default();
    let (wanted, ours) = (template(&object), template(&written(&live, MANAGER)));
    let held = lacks(&template(&live), &wanted) || lacks(&wanted, &ours);
    object["spec"]["template"] = ours;
    // in Standard Edition there is nothing else to change
    let op = if kind == Kind::Deployment { op(kind, object, Some(&live), false) } else { None };
    Ok((op, held))
}

/// The write to the replicator. Until its schema is there, it is not made, and its pods stay as they are. One that is
/// not wanted any more is deleted: it is the only thing of a pool that would go on doing something.
fn replicator(
    pool: &ValidatedPool,
    desired: Option<CronJob>,
    live: Option<&CronJob>,
    ready: bool,
) -> Result<Option<Op>, Error> {
    let Some(desired) = desired else { return Ok(live.and_then(|live| removal(pool, live))) };
    let mut object = serde_json::to_value(desired)?;
    let live = live.map(serde_json::to_value).transpose()?;
    if !ready {
        let Some(live) = &live else { return Ok(None) };
        object["spec"]["jobTemplate"] = written(live, MANAGER)["spec"]["jobTemplate"].clone();
    }
    Ok(op(Kind::CronJob, object, live.as_ref(), false))
}

fn removal(pool: &ValidatedPool, live: &CronJob) -> Option<Op> {
    let metadata = &live.metadata;
    let ours = is_owned(pool, metadata) && metadata.deletion_timestamp.is_none();
    ours.then(|| Op {
        kind: Kind::CronJob,
        name: metadata.name.clone().unwrap_or_default(),
        write: Write::Delete { uid: metadata.uid.clone(), version: metadata.resource_version.clone() },
        why: Why::Unwanted,
    })
}

/// How long the first start still waits for an address.
fn patience(observed: &Observed, reach: &Reach, now: Timestamp) -> Option<Duration> {
    if observed.front_end.is_some() || reach.complete {
        return None;
    }
    let age = match &observed.service {
        Some(Service { metadata, .. }) => now.as_second() - created(metadata)?,
        None => 0,
    };
    let rest = ADDRESS_PATIENCE_SECONDS - age;
    // an age below zero is another clock's; it must not make us wait for ever
    (rest > 0 && age >= -ADDRESS_PATIENCE_SECONDS).then(|| Duration::from_secs(rest.unsigned_abs()))
}

/// The writes that wait for nothing, in the order of [`Desired`]. Taken apart without `..`: a new object that nobody
/// writes does not compile.
fn ground(desired: Desired, observed: &Observed) -> Result<Vec<Op>, Error> {
    let Desired {
        service,
        peers,
        service_account,
        keys,
        credentials,
        authority,
        certificate,
        peer_certificate,
        config,
        claim,
        database_service,
        database,
        migration: _,
        front_end: _,
        disruption_budget: _,
        replicator: _,
    } = desired;
    let mut ops = Vec::new();
    let mut put = |op: Option<Op>| ops.extend(op);
    put(op_of(Kind::Service, service, observed.service.as_ref(), false)?);
    put(op_of(Kind::Service, peers, observed.peers.as_ref(), false)?);
    put(op_of(Kind::ServiceAccount, service_account, observed.service_account.as_ref(), false)?);
    put(op_of(Kind::Secret, keys, observed.keys.as_ref(), true)?);
    put(op_of(Kind::Secret, credentials, observed.credentials.as_ref(), true)?);
    put(op_of(Kind::Secret, authority, observed.authority.as_ref(), true)?);
    put(op_of(Kind::Secret, certificate, observed.certificate.as_ref(), false)?);
    put(op_of(Kind::Secret, peer_certificate, observed.peer_certificate.as_ref(), false)?);
    put(op_of(Kind::Secret, config, observed.config.as_ref(), false)?);
    put(op_of(Kind::PersistentVolumeClaim, claim, observed.claim.as_ref(), false)?);
    put(op_of(Kind::Service, database_service, observed.database_service.as_ref(), false)?);
    put(op_of(Kind::StatefulSet, database, observed.database.as_ref(), false)?);
    Ok(ops)
}

fn op_of<K: Serialize>(kind: Kind, desired: Option<K>, live: Option<&K>, chance: bool) -> Result<Option<Op>, Error> {
    let Some(desired) = desired else { return Ok(None) };
    let live = live.map(serde_json::to_value).transpose()?;
    Ok(op(kind, serde_json::to_value(desired)?, live.as_ref(), chance))
}

fn op(kind: Kind, object: Value, live: Option<&Value>, chance: bool) -> Option<Op> {
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let (write, why) = match live {
        None if chance => (Write::Create(object), Why::Absent),
        None => (Write::Apply(object), Why::Absent),
        Some(live) => change(object, live)?,
    };
    Some(Op { kind, name, write, why })
}

/// What makes `live` as desired, one step at a time: what stands in the way, then what an apply could not take back,
/// then the apply.
fn change(desired: Value, live: &Value) -> Option<(Write, Why)> {
    let changed = difference(&desired, live, MANAGER);
    if let Some(path) = &changed {
        let edits = edits(&desired, live, MANAGER);
        if !edits.is_empty() {
            return Some((patch(live, edits), Why::Changed(path.clone())));
        }
    }
    if let Some(record) = gathered(live, MANAGER) {
        let edit = json!({"op": "replace", "path": "/metadata/managedFields", "value": record});
        return Some((patch(live, vec![edit]), Why::Record));
    }
    changed.map(|path| (Write::Apply(desired), Why::Changed(path)))
}

/// A patch that sets the version it was made for: the API server answers one for another version with a conflict, where
/// a `test` that fails would look like a refusal.
fn patch(live: &Value, edits: Vec<Value>) -> Write {
    let version = json!({"op": "replace", "path": "/metadata/resourceVersion",
        "value": live.pointer("/metadata/resourceVersion")});
    Write::Patch(std::iter::once(version).chain(edits).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(port: u16, record: Value) -> Value {
        json!({"metadata": {"resourceVersion": "7", "managedFields": record},
            "spec": {"ports": [{"name": "tls", "port": port, "protocol": "TCP"}]}})
    }

    fn entry(manager: &str, operation: &str) -> Value {
        let fields =
            json!({"f:spec": {"f:ports": {"k:{\"port\":5061,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}}}}});
        json!({"manager": manager, "operation": operation, "fieldsV1": fields})
    }

    fn desired() -> Value {
        json!({"spec": service(5061, Value::Null)["spec"]})
    }

    #[test]
    fn a_patch_is_for_the_version_it_was_made_from() {
        let live = service(9, json!([entry(MANAGER, "Apply"), entry("them", "Update")]));
        let Some((Write::Patch(patch), Why::Changed(path))) = change(desired(), &live) else { panic!("no patch") };
        assert_eq!(patch[0], json!({"op": "replace", "path": "/metadata/resourceVersion", "value": "7"}));
        assert_eq!(patch[1], json!({"op": "add", "path": "/spec/ports/0/port", "value": 5061}));
        assert_eq!(path, "spec.ports.5061/TCP");
    }

    #[test]
    fn what_we_wrote_otherwise_is_made_an_applys_before_anything_is_applied() {
        let both = service(5061, json!([entry(MANAGER, "Apply"), entry(MANAGER, "Update")]));
        let Some((Write::Patch(patch), Why::Record)) = change(desired(), &both) else { panic!("no patch") };
        assert_eq!(patch[1]["path"], "/metadata/managedFields");
        assert_eq!(patch[1]["value"], json!([entry(MANAGER, "Apply")]));
        assert!(matches!(change(json!({}), &both), Some((Write::Patch(_), Why::Record))));
        let one = service(5061, json!([entry(MANAGER, "Apply")]));
        assert!(matches!(change(json!({}), &one), Some((Write::Apply(_), Why::Changed(_)))));
        assert_eq!(change(desired(), &one), None);
    }
}
