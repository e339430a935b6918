//! Random histories: all backends answer alike, and what they answer keeps to the invariants.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use commpool_model::ids::{Incarnation, Micros, UserId, Version};
use commpool_model::presence::Facts;
use commpool_store::ops::register::Reply as Registered;
use commpool_store::ops::{Class, Operation, Outcome, PresenceChange, accounts, directory, front_ends, pull, register};
use commpool_store::{Memory, SqliteOptions, Store, StoreError};
use proptest::prelude::*;

#[allow(dead_code, reason = "each program of tests uses its part")]
#[path = "../support/database.rs"]
mod database;
mod steps;

use database::Database;
use steps::{SOURCE, Step, step};

const START: u64 = 1_800_000_000_000_000;

/// Every history begins with users and a front end, so that most of it is carried out.
fn beginning() -> Vec<Operation> {
    let add = |name: &str| accounts::Put::Add { address: format!("{name}@example.com"), display_name: String::new() };
    let start = |n| {
        let text = String::new;
        front_ends::Start { pod: "pod-1".to_owned(), start_id: [n; 16], address: text(), build: text(), alone: false }
    };
    vec![start(100).into(), start(101).into(), add("alice").into(), add("bob").into()]
}

/// Memory, and another backend that must answer like it.
struct Pair {
    /// Where each front end has pulled up to.
    cursors: BTreeMap<Incarnation, pull::Cursor>,
    memory: Memory,
    other: Store,
    now: Micros,
    /// Sets the clock of the other one.
    tell: Box<dyn Fn(Micros)>,
    /// Whether different kinds of writes go to different lanes of the other one, so that only what is of one kind has an
    /// order.
    lanes: bool,
    versions: BTreeMap<UserId, Version>,
    /// Token of the last lease, and version of the source.
    token: u64,
    version: u64,
}

impl Pair {
    fn new(other: Store, lanes: bool, tell: impl Fn(Micros) + 'static) -> Self {
        let (cursors, versions) = (BTreeMap::new(), BTreeMap::new());
        let mut pair = Self {
            cursors,
            memory: Memory::new(),
            other,
            now: Micros(0),
            tell: Box::new(tell),
            lanes,
            versions,
            token: 0,
            version: 0,
        };
        pair.set_clock(START);
        pair
    }

    fn set_clock(&mut self, micros: u64) {
        self.now = Micros(micros);
        (self.tell)(self.now);
    }

    fn history(&mut self, steps: Vec<Step>) -> Result<(), TestCaseError> {
        self.run(beginning())?;
        for step in steps {
            match step {
                Step::Pass(seconds) => self.set_clock(self.now.0 + seconds * 1_000_000),
                Step::Back(micros) => self.set_clock(self.now.0 - micros),
                Step::Batch(batch) => {
                    prop_assert!(batch.iter().all(|operation| operation.class() != Class::Read));
                    self.run(batch)?;
                }
                Step::Read(operation) => self.run(vec![*operation])?,
                Step::Run(rows) => self.replicate(rows)?,
            }
        }
        Ok(())
    }

    /// Takes the lease, waiting until it is free, puts the rows aside in two parts, applies them, and looks.
    fn replicate(&mut self, rows: Vec<directory::Change>) -> Result<(), TestCaseError> {
        let (source, name) = (|| SOURCE.to_owned(), SOURCE.to_owned());
        self.set_clock(self.now.0 + 40_000_000);
        self.run(vec![directory::LeaseTake { name, holder: "a run".to_owned(), ttl_ms: 1000 }.into()])?;
        self.run(vec![directory::SourceGet { source: source() }.into()])?;
        let count = u32::try_from(rows.len()).unwrap();
        let (first, second) = rows.split_at(rows.len() / 2);
        let middle = u32::try_from(first.len()).unwrap();
        for (number, rows) in [(0, first), (middle, second)] {
            if number > 0 || middle > 0 || !rows.is_empty() {
                let rows = rows.to_vec();
                self.run(vec![directory::Stage { source: source(), token: self.token, first: number, rows }.into()])?;
            }
        }
        let (token, version) = (self.token, self.version);
        self.run(vec![
            directory::Apply { source: source(), token, version, rows: count, state: b"state".to_vec() }.into(),
        ])?;
        let after = |after| directory::SourceUsers { source: source(), after, limit: 1000 };
        self.run(vec![after(None).into()])?;
        self.run(vec![accounts::ChangedSince { cursor: Some(0) }.into()])?;
        self.run(vec![accounts::Find { limit: 1000, ..accounts::Find::default() }.into()])?;
        self.run(vec![directory::SourceGet { source: source() }.into()])
    }

    fn run(&mut self, batch: Vec<Operation>) -> Result<(), TestCaseError> {
        let together = |a: &Operation, b: &Operation| !self.lanes || a.index() == b.index();
        let parts: Vec<Vec<Operation>> = batch.chunk_by(together).map(<[_]>::to_vec).collect();
        parts.into_iter().try_for_each(|part| self.hand_over(part))
    }

    fn hand_over(&mut self, mut batch: Vec<Operation>) -> Result<(), TestCaseError> {
        for operation in &mut batch {
            if let Operation::Pull(pull) = operation {
                pull.cursor = self.cursors.get(&pull.fe).copied();
            }
        }
        let (answer, answers) = mpsc::channel();
        let jobs = batch.iter().enumerate().map(|(n, operation)| {
            let answer = answer.clone();
            let reply: commpool_store::Reply = Box::new(move |outcome| answer.send((n, outcome)).unwrap());
            (operation.clone(), reply)
        });
        self.other.submit_many(jobs.collect());
        drop(answer);
        let mut theirs: Vec<_> = answers.iter().collect();
        theirs.sort_by_key(|(n, _)| *n);
        let ours = self.memory.execute(self.now, &batch);
        for ((operation, ours), (_, theirs)) in batch.iter().zip(ours).zip(theirs) {
            if let (true, Err(StoreError::Unavailable(cause) | StoreError::Unknown(cause))) = (self.lanes, &theirs) {
                // A machine that does much else may be too slow for the lanes; what was to be compared is not there.
                return Err(TestCaseError::reject(cause.clone()));
            }
            prop_assert_eq!(&Ok(with_schema(ours.clone(), &self.other)), &theirs, "{:?}", operation);
            self.check(operation, &ours)?;
        }
        Ok(())
    }

    fn check(&mut self, operation: &Operation, outcome: &Outcome) -> Result<(), TestCaseError> {
        let mut changes: Vec<&PresenceChange> = Vec::new();
        match outcome {
            Outcome::Register(Registered::Done(done)) => {
                prop_assert!(done.bindings.len() <= 10);
                prop_assert!(!done.replay || done.change.is_none());
                changes.extend(&done.change);
            }
            Outcome::LeaseTake(directory::LeaseTaken::Taken(token)) => {
                prop_assert!(*token > self.token);
                self.token = *token;
            }
            Outcome::SourceGet(source) => {
                prop_assert!(source.version >= self.version);
                self.version = source.version;
            }
            Outcome::SourceUsers(page) => {
                let addresses: Vec<_> = page.users.iter().filter_map(|known| known.address.as_ref()).collect();
                prop_assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), addresses.len());
            }
            Outcome::AccountsChanged(changed) => {
                let stamps: BTreeSet<_> = changed.accounts.iter().map(|(_, _, _, stamp)| *stamp).collect();
                prop_assert_eq!(stamps.len(), changed.accounts.len());
            }
            Outcome::Pull(pulled) => {
                let Operation::Pull(pull) = operation else { unreachable!() };
                self.cursors.insert(pull.fe, pulled.cursor);
                for change in &pulled.changes {
                    counted(&change.state)?;
                }
            }
            Outcome::Unregister(register::Unregistered::Done { change, .. }) => changes.extend(change),
            Outcome::Expire(swept) | Outcome::SweepLost(swept) => changes.extend(&swept.changes),
            Outcome::PresenceOf(states) => {
                for (_, facts, _) in &states.states {
                    counted(facts)?;
                }
            }
            _ => {}
        }
        for change in changes {
            counted(&change.state)?;
            let user = change.user.expect("a change names its user").id;
            let before = self.versions.insert(user, change.version);
            prop_assert!(before.is_none_or(|before| before < change.version), "{:?}", operation);
        }
        Ok(())
    }
}

/// No endpoint is counted twice, and none that is not there.
fn counted(facts: &Facts) -> Result<(), TestCaseError> {
    let devices: BTreeSet<_> = facts.devices.iter().map(|device| device.id).collect();
    let owned: Vec<_> = facts.publications.iter().filter_map(|publication| publication.endpoint).collect();
    prop_assert!(owned.iter().all(|endpoint| devices.contains(endpoint)));
    prop_assert_eq!(owned.iter().collect::<BTreeSet<_>>().len(), owned.len());
    Ok(())
}

/// An outcome of Memory as the other backend tells it, whose schema has another number.
fn with_schema(mut outcome: Outcome, other: &Store) -> Outcome {
    if let Outcome::FrontEndStart(started) = &mut outcome {
        started.schema = other.schema();
    }
    outcome
}

proptest! {
    #[test]
    fn memory_and_sqlite_answer_alike(steps in proptest::collection::vec(step(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&clock);
        let told: commpool_store::Clock = Arc::new(move || Micros(told.load(Ordering::SeqCst)));
        let options = SqliteOptions { readers: 1, check: false, ..SqliteOptions::default() };
        let sqlite = Store::open_sqlite(folder.path(), &options, told).unwrap();
        Pair::new(sqlite, false, move |now| clock.store(now.0, Ordering::SeqCst)).history(steps)?;
    }
}

#[test]
fn memory_and_postgres_answer_alike() {
    let Some(database) = Database::new().map(Rc::new) else { return };
    let store = database.store();
    let usual = ProptestConfig::default();
    // One history takes as long as a dozen of SQLite's.
    let config = ProptestConfig { cases: usual.cases.div_ceil(4), source_file: Some(file!()), ..usual };
    let histories = proptest::collection::vec(step(), 1..60);
    let run = |steps| {
        database.reset();
        let clock = Rc::clone(&database);
        Pair::new(store.clone(), true, move |now| clock.set_clock(now)).history(steps)
    };
    let outcome = proptest::test_runner::TestRunner::new(config).run(&histories, run);
    store.close();
    outcome.unwrap();
}
