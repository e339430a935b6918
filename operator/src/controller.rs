//! One pass over a pool: look, check, build, plan, write, report; and what happens when it fails.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use commpool_model::directory::Outcome as DirectoryOutcome;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource, ResourceExt};
use sha2::{Digest, Sha256};

use crate::build::Blocker;
use crate::crd::{CommunicationsPool, ConditionType, PoolStatus, Reason};
use crate::dereference::{self, Read};
use crate::error::{Class, Error, namespace_ends};
use crate::metrics::{self, Metrics, PoolState};
use crate::names::MANAGER;
use crate::pki::SystemEntropy;
use crate::plan::{Decision, Op, Why, decide};
use crate::report::Ask;
use crate::status::{Change, Outcome, changes, of_pool, of_refusal, same};
use crate::validate::{Environment, ValidatedPool, validate};
use crate::{apply, observed::Observed};

/// A pool as the watch sees it: only its metadata.
pub type PoolMeta = PartialObjectMeta<CommunicationsPool>;

/// Every pool is looked at this often even if nothing happens; a tenth more or less, so that pools spread out.
const RESYNC: Duration = Duration::from_secs(600);
/// A server of Standard Edition is asked this often what its last run over the directory came to.
const ASKING: Duration = Duration::from_secs(30);
/// A server that was asked in vain so many times in a row is said not to answer.
const VAIN: u32 = 3;
/// A pass that takes longer hangs on a dead connection; it can be broken off anywhere, as a crash could.
const PASS_LIMIT: Duration = Duration::from_secs(60);
/// Longest pause between two tries.
const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What a pass meets beside the API server.
#[derive(Clone)]
pub struct World {
    /// What the operator knows about itself.
    pub environment: Environment,
    /// The time.
    pub clock: Clock,
    /// The servers.
    pub ask: Ask,
}

/// What all passes share.
pub struct Context {
    client: Client,
    world: World,
    recorder: Recorder,
    metrics: Arc<Metrics>,
    memory: Mutex<HashMap<ObjectRef<PoolMeta>, Memory>>,
}

/// What is remembered of a pool between passes; nothing that a restart of the operator would miss.
#[derive(Clone, Debug, Default)]
struct Memory {
    failures: u32,
    vain: u32,
    given: Vec<String>,
}

impl Context {
    /// Shared state; `instance` is the name of this process in events, such as its pod's.
    pub fn new(client: Client, world: World, metrics: Arc<Metrics>, instance: Option<String>) -> Self {
        let reporter = Reporter { controller: MANAGER.into(), instance };
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client, world, recorder, metrics, memory: Mutex::default() }
    }

    /// Pools of `namespace` that read the Secret `name`, which somebody else keeps.
    pub fn pools_given(&self, namespace: &str, name: &str) -> Vec<ObjectRef<PoolMeta>> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let given = memory.iter().filter(|(pool, memory)| {
            pool.namespace.as_deref() == Some(namespace) && memory.given.iter().any(|given| given == name)
        });
        given.map(|(pool, _)| pool.clone()).collect()
    }

    /// Forgets a pool that is gone.
    pub fn forget(&self, pool: &ObjectRef<PoolMeta>) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).remove(pool);
        self.metrics.forget(pool.namespace.as_deref().unwrap_or_default(), &pool.name);
    }

    fn remember<T>(&self, pool: &ObjectRef<PoolMeta>, change: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        change(memory.entry(pool.clone()).or_default())
    }
}

/// One pass over the pool that `seen` names.
///
/// # Errors
/// If the pass could not be ended; it is repeated.
pub async fn reconcile(seen: Arc<PoolMeta>, context: Arc<Context>) -> Result<Action, Error> {
    let (namespace, name) = (seen.namespace().unwrap_or_default(), seen.name_any());
    let started = Instant::now();
    // in a box: with all that a pass reads at once it is too much for the stack of a thread
    let passed = tokio::time::timeout(PASS_LIMIT, Box::pin(pass(&context, &namespace, &name))).await;
    let result = passed.unwrap_or(Err(Error::Late(PASS_LIMIT)));
    let (label, action) = match result {
        Ok(Done { changed: true, action }) => (metrics::Result::Changed, Ok(action)),
        Ok(Done { changed: false, action }) => (metrics::Result::Unchanged, Ok(action)),
        Err(error) => (metrics::Result::Failed, Err(error)),
    };
    context.metrics.pass(label, started.elapsed());
    action
}

/// What to do after a failed pass: try again, each time later.
pub fn after_failure(seen: Arc<PoolMeta>, error: &Error, context: Arc<Context>) -> Action {
    context.metrics.failure(error.category());
    let reference = ObjectRef::from_obj(&*seen);
    tracing::warn!(pool = %reference, %error, "pass failed");
    Action::requeue(pause(&context, &reference))
}

struct Done {
    changed: bool,
    action: Action,
}

impl Done {
    fn nothing() -> Self {
        Self { changed: false, action: Action::await_change() }
    }
}

async fn pass(context: &Context, namespace: &str, name: &str) -> Result<Done, Error> {
    let reference = ObjectRef::new(name).within(namespace);
    let Some(read) = dereference::pool(&context.client, namespace, name).await? else {
        context.forget(&reference);
        return Ok(Done::nothing());
    };
    if read.metadata.deletion_timestamp.is_some() {
        return Ok(Done::nothing());
    }
    let pool = match readable(&read, &context.world.environment) {
        Ok(pool) => pool,
        Err(refusal) => return refuse(context, &read, &reference, refusal).await,
    };
    context.remember(&reference, |memory| memory.given = pool.given_secrets());
    let mut observed = match dereference::objects(&context.client, &pool).await {
        Ok(observed) => observed,
        Err(error) => match error.class() {
            Class::Person(reason) => {
                return refuse(context, &read, &reference, Blocker::new(reason, error.message())).await;
            }
            Class::Retry => return Err(error.into()),
        },
    };
    if let Some(place) = observed.asked(&pool) {
        observed.report = ask(context, &read, &reference, place).await;
    }
    carry_out(context, &read, &reference, &pool, &observed).await
}

/// Asks a server what its last run over the directory came to; nothing: it has not run yet, or does not answer now.
async fn ask(
    context: &Context,
    read: &Read,
    reference: &ObjectRef<PoolMeta>,
    (pod, address): (String, SocketAddr),
) -> Option<Result<Box<DirectoryOutcome>, String>> {
    let answer = (context.world.ask)(address).await;
    let vain = context.remember(reference, |memory| {
        memory.vain = if answer.is_err() { memory.vain.saturating_add(1) } else { 0 };
        memory.vain
    });
    match answer {
        Ok(outcome) => outcome.map(|outcome| Ok(Box::new(outcome))),
        Err(error) => {
            let said = says(&read.status, Reason::NotAnswering);
            (vain >= VAIN || said).then(|| Err(format!("pod {pod}, asked at {address}: {error}")))
        }
    }
}

/// Whether a condition has this reason.
fn says(status: &PoolStatus, reason: Reason) -> bool {
    status.conditions.iter().any(|condition| condition.reason == reason.as_str())
}

fn readable(read: &Read, environment: &Environment) -> Result<ValidatedPool, Blocker> {
    let spec = read.spec.clone().map_err(|problem| {
        Blocker::new(Reason::Invalid, format!("{problem}; this operator and its CRD may be of different versions"))
    })?;
    let pool = CommunicationsPool { metadata: read.metadata.clone(), spec, status: Some(read.status.clone()) };
    Ok(validate(&pool, environment)?)
}

async fn carry_out(
    context: &Context,
    read: &Read,
    reference: &ObjectRef<PoolMeta>,
    pool: &ValidatedPool,
    observed: &Observed,
) -> Result<Done, Error> {
    let now = (context.world.clock)();
    let mut decision = decide(pool, observed, now, &mut SystemEntropy)?;
    let mut ops = std::mem::take(&mut decision.ops);
    if pool.spec.operations.paused {
        ops.clear();
    }
    let outcome = apply::run(&context.client, &pool.namespace, ops).await?;
    let status = of_pool(pool, &decision, observed, &outcome, &read.status, read.metadata.generation, now);
    let reported = report(context, read, reference, &status, &outcome).await?;
    let state = PoolState { certificate_end: decision.certificate.not_after, ..state(&status) };
    context.metrics.pool(&pool.namespace, pool.names.pool(), &state);
    let asks = observed.asked(pool).is_some();
    let next = next_look(context, reference, &decision, &outcome).min(if asks { ASKING } else { RESYNC });
    Ok(Done { changed: reported || !outcome.wrote.is_empty(), action: Action::requeue(next) })
}

/// What metrics tell of a status.
fn state(status: &PoolStatus) -> PoolState {
    let is = |type_: ConditionType| {
        let condition = status.conditions.iter().find(|condition| condition.type_ == type_.as_str());
        condition.map(|condition| condition.status == "True")
    };
    let success = status.directory_sync.as_ref().and_then(|directory| directory.last_success.as_ref());
    PoolState {
        ready: is(ConditionType::Ready).unwrap_or(false),
        certificate_end: None,
        directory_synced: is(ConditionType::DirectorySynced),
        directory_success: success.map(|time| time.0.as_second()),
    }
}

async fn refuse(
    context: &Context,
    read: &Read,
    reference: &ObjectRef<PoolMeta>,
    refusal: Blocker,
) -> Result<Done, Error> {
    let status = of_refusal(&refusal, &read.status, read.metadata.generation, (context.world.clock)());
    let outcome = Outcome::refused(refusal);
    let changed = report(context, read, reference, &status, &outcome).await?;
    let (namespace, name) = (reference.namespace.as_deref().unwrap_or_default(), &reference.name);
    context.metrics.pool(namespace, name, &PoolState { ready: false, ..state(&status) });
    Ok(Done { changed, action: Action::requeue(pause(context, reference)) })
}

/// Writes the status if it changed, and tells of changes by events. Whether there was anything to write.
async fn report(
    context: &Context,
    read: &Read,
    reference: &ObjectRef<PoolMeta>,
    status: &PoolStatus,
    outcome: &Outcome,
) -> Result<bool, Error> {
    let namespace = reference.namespace.as_deref().unwrap_or_default();
    for op in &outcome.wrote {
        context.metrics.write(op.kind.as_str());
    }
    let changed = !same(status, &read.status);
    if changed {
        let uid = read.metadata.uid.as_deref().unwrap_or_default();
        apply::status(&context.client, namespace, &reference.name, uid, status).await?;
        context.metrics.write("CommunicationsPool");
    }
    let told = changes(&read.status, status).into_iter().map(condition_event);
    for event in outcome.wrote.iter().filter_map(|op| write_event(op, namespace)).chain(told) {
        tell(context, read, &event).await;
    }
    Ok(changed)
}

/// An event that cannot be written is no reason to stop: the status says the same.
async fn tell(context: &Context, read: &Read, event: &Event) {
    let regarding = ObjectReference {
        api_version: Some(CommunicationsPool::api_version(&()).into_owned()),
        kind: Some(CommunicationsPool::kind(&()).into_owned()),
        name: read.metadata.name.clone(),
        namespace: read.metadata.namespace.clone(),
        uid: read.metadata.uid.clone(),
        ..ObjectReference::default()
    };
    match context.recorder.publish(event, &regarding).await {
        Ok(()) => {}
        Err(kube::Error::Api(status)) if namespace_ends(&status) => {}
        Err(kube::Error::Api(status)) => {
            tracing::warn!(error = status.message, event.reason, "failed to write an event")
        }
        Err(error) => tracing::warn!(%error, event.reason, "failed to write an event"),
    }
}

fn condition_event(change: Change) -> Event {
    let value = if change.now { "True" } else { "False" };
    Event {
        type_: if change.is_warning() { EventType::Warning } else { EventType::Normal },
        note: Some(format!("{} is {value}: {}", change.type_, change.message)),
        action: change.type_.as_str().into(),
        reason: change.reason,
        secondary: None,
    }
}

/// What was there and was changed, or is gone; what was made is told by the conditions. The field is part of the reference, because
/// the recorder counts events with equal references as one.
fn write_event(op: &Op, namespace: &str) -> Option<Event> {
    let (reason, action, path) = match &op.why {
        Why::Changed(path) => ("Updated", "Update", path.as_str()),
        Why::Unwanted => ("Deleted", "Delete", ""),
        Why::Absent | Why::Record => return None,
    };
    let changed = ObjectReference {
        api_version: Some(op.kind.resource().api_version),
        kind: Some(op.kind.as_str().into()),
        name: Some(op.name.clone()),
        namespace: Some(namespace.to_owned()),
        field_path: Some(path.to_owned()).filter(|path| !path.is_empty()),
        ..ObjectReference::default()
    };
    Some(Event {
        type_: EventType::Normal,
        reason: reason.into(),
        note: Some(format!(
            "{} {}: {}",
            op.kind.as_str(),
            op.name,
            if path.is_empty() { "not wanted any more" } else { path }
        )),
        action: action.into(),
        secondary: Some(changed),
    })
}

fn next_look(context: &Context, reference: &ObjectRef<PoolMeta>, decision: &Decision, outcome: &Outcome) -> Duration {
    if outcome.refusal.is_some() {
        return pause(context, reference);
    }
    context.remember(reference, |memory| memory.failures = 0);
    let resync = RESYNC.mul_f64(0.9 + 0.2 * fraction(reference, 0));
    decision.wake.unwrap_or(resync).min(resync)
}

/// The pause after one more failure: 1 s, doubled each time, a quarter more or less.
fn pause(context: &Context, reference: &ObjectRef<PoolMeta>) -> Duration {
    let failures = context.remember(reference, |memory| {
        memory.failures = memory.failures.saturating_add(1);
        memory.failures
    });
    let base = Duration::from_secs(1).saturating_mul(1 << (failures - 1).min(9)).min(MAX_BACKOFF);
    base.mul_f64(0.75 + 0.5 * fraction(reference, failures))
}

/// A number in 0..1 that differs from pool to pool and from try to try.
fn fraction(reference: &ObjectRef<PoolMeta>, attempt: u32) -> f64 {
    let digest = Sha256::digest(format!("{reference}{attempt}"));
    f64::from(digest.first().copied().unwrap_or_default()) / 256.0
}
