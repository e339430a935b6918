//! From what was decided, seen and done to the new status, and to the events that tell of its changes. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::build::Blocker;
use crate::crd::{ConditionType, PoolStatus, Reason};
use crate::directory_state::directory;
use crate::front_end_state::{Finding, figures, front_end, serves, vip};
use crate::observed::Observed;
use crate::plan::{Decision, Op, Why};
use crate::validate::ValidatedPool;

/// Most octets of a message: an Event carries no more than 1 kB, with the condition's name before it.
const MAX_MESSAGE: usize = 950;

/// What one pass did.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Writes that were carried out.
    pub wrote: Vec<Op>,
    /// A write that only a person can make succeed.
    pub refusal: Option<Blocker>,
}

impl Outcome {
    /// A pass that ended at once for this reason.
    pub fn refused(blocker: Blocker) -> Self {
        Self { wrote: Vec::new(), refusal: Some(blocker) }
    }
}

/// A condition whose status changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its type.
    pub type_: ConditionType,
    /// Whether it is true now.
    pub now: bool,
    /// Its reason.
    pub reason: String,
    /// Its message.
    pub message: String,
}

impl Change {
    /// Whether it is bad news.
    pub fn is_warning(&self) -> bool {
        match self.type_ {
            ConditionType::Stalled => self.now,
            ConditionType::Reconciling | ConditionType::Paused => false,
            _ => !self.now,
        }
    }
}

/// The status of a pool whose parts were looked at.
pub fn of_pool(
    pool: &ValidatedPool,
    decision: &Decision,
    observed: &Observed,
    outcome: &Outcome,
    old: &PoolStatus,
    generation: Option<i64>,
    now: Timestamp,
) -> PoolStatus {
    let certificate = (decision.certificate.reason, decision.certificate.message.clone());
    let front_end = front_end(pool, observed, decision.held);
    let vip = vip(pool, observed, &decision.reach);
    let mut problems: Vec<Finding> = outcome.refusal.iter().chain(&decision.blockers).map(finding).collect();
    problems.extend((!decision.certificate.is_good()).then(|| certificate.clone()));
    let (database, schema) = decision.back_end.clone().map(|back_end| (back_end.database, back_end.schema)).unzip();
    problems.extend(database.clone().filter(|(reason, _)| *reason != Reason::Available));
    problems.extend(schema.clone().filter(|(reason, _)| *reason != Reason::Migrated));
    problems.extend((front_end.0 != Reason::Available).then(|| front_end.clone()));
    problems.extend((vip.0 != Reason::Reachable).then(|| vip.clone()));
    problems.extend(unseen(outcome, old, generation));
    // no part of the verdict: who is in the pool is served, whatever becomes of the directory
    let directory = directory(pool, observed, old.directory_sync.as_ref(), now);
    let ready_message = format!("{}; {}", vip.1, front_end.1);
    let mut conditions = Conditions { old: &old.conditions, generation, now, new: Vec::new() };
    conditions.verdict(problems, ready_message);
    conditions.set(ConditionType::FrontEndAvailable, serves(&front_end), front_end);
    if let Some(database) = database {
        conditions.set(ConditionType::DatabaseAvailable, database.0 == Reason::Available, database);
    }
    if let Some(schema) = schema {
        conditions.set(ConditionType::SchemaCurrent, schema.0 == Reason::Migrated, schema);
    }
    conditions.set(ConditionType::CertificatesValid, decision.certificate.is_good(), certificate);
    conditions.set(ConditionType::VipServing, vip.0 == Reason::Reachable, vip);
    if let Some(directory) = &directory {
        let finding = directory.finding.clone();
        conditions.set(ConditionType::DirectorySynced, finding.0 == Reason::Synced, finding);
    }
    if pool.spec.operations.paused {
        let message = "operations.paused is set: only the status is written";
        conditions.set(ConditionType::Paused, true, (Reason::Paused, message.into()));
    }
    PoolStatus {
        observed_generation: generation,
        version: Some(pool.version.clone()),
        conditions: conditions.new,
        front_end: Some(figures(pool, observed)),
        addresses: decision.reach.addresses.clone(),
        directory_sync: directory.map(|directory| directory.status),
    }
}

/// The status of a pool that could not be looked at: its parts stay as they were last seen.
pub fn of_refusal(refusal: &Blocker, old: &PoolStatus, generation: Option<i64>, now: Timestamp) -> PoolStatus {
    let mut conditions = Conditions { old: &old.conditions, generation, now, new: Vec::new() };
    conditions.verdict(vec![finding(refusal)], String::new());
    let parts = [
        ConditionType::FrontEndAvailable,
        ConditionType::DatabaseAvailable,
        ConditionType::SchemaCurrent,
        ConditionType::CertificatesValid,
        ConditionType::VipServing,
        ConditionType::DirectorySynced,
    ];
    let kept = |condition: &&Condition| parts.iter().any(|part| part.as_str() == condition.type_);
    conditions.new.extend(old.conditions.iter().filter(kept).cloned());
    PoolStatus { observed_generation: generation, conditions: conditions.new, ..old.clone() }
}

/// Whether two statuses say the same; the order of conditions and addresses is the API server's.
pub fn same(left: &PoolStatus, right: &PoolStatus) -> bool {
    let ordered = |status: &PoolStatus| {
        let mut status = status.clone();
        status.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        status.addresses.sort_by_key(|address| address.transport);
        status
    };
    ordered(left) == ordered(right)
}

/// What changed between two statuses; a condition that is absent counts as false.
pub fn changes(old: &PoolStatus, new: &PoolStatus) -> Vec<Change> {
    let find = |status: &PoolStatus, type_: ConditionType| {
        status.conditions.iter().find(|condition| condition.type_ == type_.as_str()).cloned()
    };
    let is_true =
        |condition: &Option<Condition>| condition.as_ref().is_some_and(|condition| condition.status == "True");
    ConditionType::ALL
        .into_iter()
        .filter_map(|type_| {
            let (before, after) = (find(old, type_), find(new, type_));
            let now = is_true(&after);
            let teller = after.or_else(|| find(new, ConditionType::Ready))?;
            (is_true(&before) != now).then_some(Change { type_, now, reason: teller.reason, message: teller.message })
        })
        .collect()
}

fn finding(blocker: &Blocker) -> Finding {
    (blocker.reason, blocker.message.clone())
}

/// Writes whose effect this pass cannot have seen: a new workload, or all that belongs to a new spec.
fn unseen(outcome: &Outcome, old: &PoolStatus, generation: Option<i64>) -> Option<Finding> {
    let wrote = outcome.wrote.iter().filter(|op| !matches!(op.why, Why::Record | Why::Unwanted));
    let names: Vec<String> = wrote
        .filter(|op| op.kind.runs() || old.observed_generation != generation)
        .map(|op| format!("{} {}", op.kind.as_str(), op.name))
        .collect();
    (!names.is_empty()).then(|| (Reason::Applying, format!("wrote {}", names.join(", "))))
}

struct Conditions<'a> {
    old: &'a [Condition],
    generation: Option<i64>,
    now: Timestamp,
    new: Vec<Condition>,
}

impl Conditions<'_> {
    /// `Ready`, and one of `Reconciling` and `Stalled` if it is not true.
    fn verdict(&mut self, mut problems: Vec<Finding>, ready_message: String) {
        problems.sort_by_key(|(reason, _)| !reason.needs_person());
        let Some(first) = problems.into_iter().next() else {
            self.set(ConditionType::Ready, true, (Reason::Serving, ready_message));
            return;
        };
        let because = if first.0.needs_person() { ConditionType::Stalled } else { ConditionType::Reconciling };
        self.set(ConditionType::Ready, false, first.clone());
        self.set(because, true, first);
    }

    /// Times move only with the status.
    fn set(&mut self, type_: ConditionType, value: bool, (reason, message): Finding) {
        let status = if value { "True" } else { "False" };
        let before = self.old.iter().find(|old| old.type_ == type_.as_str() && old.status == status);
        self.new.push(Condition {
            type_: type_.as_str().into(),
            status: status.into(),
            reason: reason.as_str().into(),
            message: message[..message.floor_char_boundary(MAX_MESSAGE)].to_owned(),
            observed_generation: self.generation,
            last_transition_time: before
                .map_or_else(|| Time(whole(self.now)), |before| before.last_transition_time.clone()),
        });
    }
}

/// The API server keeps whole seconds only.
fn whole(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
