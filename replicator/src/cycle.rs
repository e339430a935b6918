//! One run: read, compare, decide, write. The order is such that whatever happens before the last call changes nobody.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use commpool_model::config::Directory;
use commpool_model::directory::{Outcome, RunResult};
use commpool_model::ids::{Key128, Micros};
use commpool_store::Store;
use commpool_store::ops::directory::Change;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::catalogue::{Catalogue, Shared};
use crate::fault::{Fault, Kind};
use crate::ldap::Ldap;
use crate::mapping::Mapper;
use crate::plan::{Case, Policy, Step, Tally, decide};
use crate::records::{ROWS, Records, Written};
use crate::report;
use crate::source::{Intake, Source, Survey};

/// What a run works by.
#[derive(Clone)]
pub struct Job {
    /// The store.
    pub store: Store,
    /// Mapping and what may be taken away.
    pub config: Directory,
    /// Canonical domains of the pool.
    pub domains: Vec<String>,
    /// Where the temporary file goes; `None`: where the environment's TMPDIR says, else `/tmp`.
    pub folder: Option<PathBuf>,
}

/// A plan, made and counted.
#[derive(Clone, Debug)]
pub struct Planned {
    /// What was seen of the directory.
    pub survey: Survey,
    /// What is done, counted.
    pub tally: Tally,
    /// Whether it is held.
    pub held: bool,
}

impl Planned {
    /// What a run with this plan says. `finished`: it was applied, if there was anything to apply.
    fn outcome(&self, started: String, message: String) -> Outcome {
        let tally = &self.tally;
        report::fitted(Outcome {
            result: if self.held { RunResult::DeletionHeld } else { RunResult::Synced },
            message,
            started,
            finished: report::moment(),
            found: self.survey.found,
            counts: tally.counts,
            conflicts: tally.conflicts.clone(),
            plan_digest: if self.held { tally.digest() } else { String::new() },
        })
    }

    /// Why it is held and what to do, for people.
    pub fn why_held(&self) -> String {
        let Tally { losing, users, .. } = self.tally;
        format!(
            "{losing} of {users} users would lose the service without the directory saying so of each, or their passwords \
             by another address: nothing was changed; if it is meant, set removal.releaseDigest to {}",
            self.tally.digest()
        )
    }
}

/// One run over LDAP; never panics, and ends soon after `stop` unless rows are being written. `holder`: who runs, for
/// people, 1–253 octets.
pub async fn run(job: Job, holder: &str, stop: &CancellationToken) -> Outcome {
    let (holder, stop) = (holder.to_owned(), stop.clone());
    contained(move |started| async move {
        let mapper = Mapper::new(&job.config.mapping, &job.domains);
        let source = Ldap::new(&job.config, &mapper)?;
        leased(&source, &job, &holder, &stop, started).await
    })
    .await
}

/// As [`run`], from any source.
pub async fn run_from(source: impl Source, job: Job, holder: &str, stop: &CancellationToken) -> Outcome {
    let (holder, stop) = (holder.to_owned(), stop.clone());
    contained(move |started| async move { leased(&source, &job, &holder, &stop, started).await }).await
}

/// In a task of its own, so that a panic is an outcome and not the end of the server.
async fn contained<F>(work: impl FnOnce(String) -> F) -> Outcome
where
    F: Future<Output = Result<Outcome, Fault>> + Send + 'static,
{
    let started = report::moment();
    match AbortOnDropHandle::new(tokio::spawn(work(started.clone()))).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(fault)) => report::failed(&fault, started),
        Err(_) => report::failed(&Fault::new(Kind::Internal, "the run has panicked: see the log"), started),
    }
}

async fn leased(
    source: &impl Source,
    job: &Job,
    holder: &str,
    stop: &CancellationToken,
    started: String,
) -> Result<Outcome, Fault> {
    let records = Records::new(job.store.clone());
    let lease = unless(stop, records.lease(holder)).await?;
    let (token, lost) = (lease.token, lease.lost.clone());
    let outcome = async {
        let comparison = tokio::select! {
            comparison = unless(stop, Comparison::make(source, job, &records)) => comparison?,
            () = lost.cancelled() => return Err(Fault::new(Kind::Busy, "another run took over: nothing was changed")),
        };
        let planned = unless(stop, comparison.plan(|_, _| ())).await?;
        comparison.carry_out(planned, &records, token, stop, started).await
    };
    let outcome = outcome.await;
    records.give_back(lease).await;
    outcome
}

async fn unless<T>(stop: &CancellationToken, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    tokio::select! {
        done = work => done,
        () = stop.cancelled() => Err(Fault::new(Kind::Stopped, "was asked to stop before anything was changed")),
    }
}

/// Makes a plan and changes nothing; each step is shown to `visit`.
///
/// # Errors
/// Directory, store or configuration.
pub async fn plan(job: Job, visit: impl FnMut(&Case, &Step)) -> Result<Planned, Fault> {
    let mapper = Mapper::new(&job.config.mapping, &job.domains);
    let ldap = Ldap::new(&job.config, &mapper)?;
    plan_from(&ldap, &job, visit).await
}

/// As [`plan`], from any source.
///
/// # Errors
/// As [`plan`].
pub async fn plan_from(source: &impl Source, job: &Job, visit: impl FnMut(&Case, &Step)) -> Result<Planned, Fault> {
    let records = Records::new(job.store.clone());
    Comparison::make(source, job, &records).await?.plan(visit).await
}

/// Directory and store side by side.
struct Comparison {
    catalogue: Shared,
    survey: Survey,
    policy: Policy,
    grouped: bool,
    version: u64,
    now: Micros,
}

impl Comparison {
    async fn make(source: &impl Source, job: &Job, records: &Records) -> Result<Self, Fault> {
        let grouped = !job.config.mapping.enabled.group.is_empty();
        let catalogue = open(job.folder.as_deref(), grouped).await?;
        let mapper = Arc::new(Mapper::new(&job.config.mapping, &job.domains));
        let mut intake = Intake::new(catalogue.clone(), mapper);
        source.read(&mut intake).await?;
        let survey = intake.survey;
        let known = records.known(&catalogue).await?;
        catalogue.with(|catalogue| catalogue.settle()).await?;
        records.strangers(&catalogue).await?;
        let policy = Policy::from(&job.config.removal);
        Ok(Self { catalogue, survey, policy, grouped, version: known.version, now: known.now })
    }

    /// Decides about everybody.
    async fn plan(&self, mut visit: impl FnMut(&Case, &Step)) -> Result<Planned, Fault> {
        let mut tally = Tally::new(self.version);
        self.survey.named.iter().for_each(|line| tally.conflict(line.clone()));
        tally.counts.conflicts = self.survey.conflicts;
        let mut after = None;
        while let Some((cases, last)) = self.cases(after).await? {
            after = Some(last);
            for case in &cases {
                let step = decide(case, &self.policy, self.now);
                tally.add(case, &step);
                visit(case, &step);
            }
        }
        self.believable(&tally)?;
        let held = tally.held(&self.policy);
        Ok(Planned { survey: self.survey.clone(), tally, held })
    }

    /// Refuses an answer that would take the service from everybody, or that could bring nobody to a pool without users.
    fn believable(&self, tally: &Tally) -> Result<(), Fault> {
        let incomplete = |text: String| Err(Fault::new(Kind::Incomplete, text));
        let users = tally.users;
        let Survey { found, keyless, addressed, unusable, enabled, disabled, members, .. } = self.survey;
        let at_stake = if users == 0 { String::new() } else { format!(", and there are {users} users") };
        if found > 0 && keyless == found {
            return incomplete(format!(
                "none of {found} entries has a key: the account may not read it, or mapping.key is wrong"
            ));
        }
        if found == 0 {
            return incomplete(format!("the filter finds nobody{at_stake}: nothing was changed"));
        }
        // An account that may not read people still sees what everybody sees.
        if addressed + unusable == 0 {
            return incomplete(format!(
                "none of {found} entries has an address{at_stake}: the account may not read them, or \
                 mapping.sipAddress is wrong; nothing was changed"
            ));
        }
        if users == 0 && enabled + disabled == 0 {
            return incomplete(format!(
                "none of {found} entries says whether it may sign in: the account may not read that, or mapping.enabled \
                 is wrong; nothing was changed"
            ));
        }
        if self.grouped && members == 0 && (users == 0 || tally.losing > 0) {
            return incomplete(format!(
                "nobody whom the filter finds is in the group{at_stake}: nothing was changed; a primary group, such as \
                 Domain Users, does not name its members"
            ));
        }
        Ok(())
    }

    async fn cases(&self, after: Option<Key128>) -> Result<Option<(Vec<Case>, Key128)>, Fault> {
        let cases = self.catalogue.with(move |catalogue| catalogue.cases(after, ROWS)).await?;
        let last = cases.last().map(|case| case.key);
        Ok(last.map(|last| (cases, last)))
    }

    /// Writes what was planned.
    async fn carry_out(
        &self,
        planned: Planned,
        records: &Records,
        token: u64,
        stop: &CancellationToken,
        started: String,
    ) -> Result<Outcome, Fault> {
        if planned.held {
            let message = planned.why_held();
            return Ok(planned.outcome(started, message));
        }
        let mut message = report::summary(&planned.tally.counts);
        if planned.tally.counts.any() {
            let rows = unless(stop, self.stage(records, token)).await?;
            // From here on it is done to its end, whatever comes.
            match records.apply(token, self.version, rows).await? {
                Written::Done(0) | Written::Surely => {}
                Written::Done(refused) => {
                    message =
                        format!("{message}; {refused} addresses were taken by others meanwhile, see the next run");
                }
            }
        }
        Ok(planned.outcome(started, message))
    }

    /// Puts all rows aside; returns how many.
    async fn stage(&self, records: &Records, token: u64) -> Result<u32, Fault> {
        let mut rows: Vec<Change> = Vec::new();
        let (mut after, mut staged) = (None, 0);
        while let Some((cases, last)) = self.cases(after).await? {
            after = Some(last);
            rows.extend(cases.iter().filter_map(|case| decide(case, &self.policy, self.now).change));
            while rows.len() >= ROWS as usize {
                let rest = rows.split_off(ROWS as usize);
                staged += send(records, token, staged, std::mem::replace(&mut rows, rest)).await?;
            }
        }
        if !rows.is_empty() {
            staged += send(records, token, staged, rows).await?;
        }
        Ok(staged)
    }
}

async fn send(records: &Records, token: u64, first: u32, rows: Vec<Change>) -> Result<u32, Fault> {
    let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    records.stage(token, first, rows).await?;
    Ok(count)
}

async fn open(folder: Option<&Path>, grouped: bool) -> Result<Shared, Fault> {
    let folder = folder.map(Path::to_owned);
    let opened = tokio::task::spawn_blocking(move || Catalogue::new(folder.as_deref(), grouped)).await;
    opened.unwrap_or_else(|_| Err(Fault::new(Kind::Internal, "a thread has panicked"))).map(Shared::new)
}
