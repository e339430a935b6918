//! A store of any backend with a clock that the test sets, and short ways to say what it should do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use commpool_model::acl::{Ace, Right};
use commpool_model::ids::{EndpointId, Incarnation, Key128, Micros, Origin, UserRef};
use commpool_model::presence::{Availability, State};
use commpool_store::ops::accounts::{self, PutReply};
use commpool_store::ops::presence::{Action, Publish, Published};
use commpool_store::ops::register::{Binding, Contacts, Done, Reply, Request};
use commpool_store::ops::{Ask, Endpoint, FlowRef, Operation, Outcome, PresenceChange, Transport, front_ends, route};
use commpool_store::{DATABASE_FILE, SqliteOptions, Store, StoreError};
use tempfile::TempDir;

use crate::database::Database;

/// A lane is connected within this, on any machine.
const CONNECTED: Duration = Duration::from_secs(60);

/// Makes tests of functions: each runs on all backends.
macro_rules! contract {
    ($($name:ident)*) => { $(
        mod $name {
            #[test]
            fn memory() {
                super::$name(&$crate::bench::Bench::memory());
            }

            #[test]
            fn sqlite() {
                super::$name(&$crate::bench::Bench::sqlite());
            }

            #[test]
            fn postgres() {
                if let Some(bench) = $crate::bench::Bench::postgres() {
                    super::$name(&bench);
                }
            }
        }
    )* };
}
pub(crate) use contract;

const START: u64 = 1_800_000_000_000_000;

/// A store and its clock.
pub(crate) struct Bench {
    pub(crate) store: Store,
    clock: Arc<AtomicU64>,
    place: Place,
}

/// Where its rows are.
enum Place {
    Memory,
    Folder(TempDir),
    Database(Database),
}

impl Bench {
    pub(crate) fn memory() -> Self {
        let clock = Arc::new(AtomicU64::new(START));
        let tell = Arc::clone(&clock);
        let store = Store::memory(Arc::new(move || Micros(tell.load(Ordering::SeqCst))));
        Self { store, clock, place: Place::Memory }
    }

    pub(crate) fn sqlite() -> Self {
        let clock = Arc::new(AtomicU64::new(START));
        let folder = tempfile::tempdir().unwrap();
        let tell = Arc::clone(&clock);
        let told = Arc::new(move || Micros(tell.load(Ordering::SeqCst)));
        let store = Store::open_sqlite(folder.path(), &SqliteOptions::default(), told).unwrap();
        Self { store, clock, place: Place::Folder(folder) }
    }

    /// `None`: there is no PostgreSQL here.
    pub(crate) fn postgres() -> Option<Self> {
        let database = Database::new()?;
        database.set_clock(Micros(START));
        let store = database.store();
        Some(Self { store, clock: Arc::new(AtomicU64::new(START)), place: Place::Database(database) })
    }

    /// Lets time go by.
    pub(crate) fn pass(&self, seconds: u64) {
        self.set_clock(self.now().0 + seconds * 1_000_000);
    }

    /// Sets the clock back.
    pub(crate) fn back(&self, seconds: u64) {
        self.set_clock(self.now().0 - seconds * 1_000_000);
    }

    fn set_clock(&self, micros: u64) {
        self.clock.store(micros, Ordering::SeqCst);
        if let Place::Database(database) = &self.place {
            database.set_clock(Micros(micros));
        }
    }

    pub(crate) fn now(&self) -> Micros {
        Micros(self.clock.load(Ordering::SeqCst))
    }

    pub(crate) fn ask<R: Ask>(&self, request: R) -> R::Reply {
        let (operation, start): (Operation, _) = (request.into(), Instant::now());
        let outcome = loop {
            match self.try_ask(operation.clone()) {
                // A lane's first connection may take longer than a request waits, on a machine that does much else.
                Err(StoreError::Unavailable(why)) if why.ends_with(" yet") && start.elapsed() < CONNECTED => {}
                answer => break answer.unwrap(),
            }
        };
        R::reply(outcome).expect("the answer of the operation asked")
    }

    pub(crate) fn try_ask(&self, operation: Operation) -> Result<Outcome, StoreError> {
        self.many(vec![operation]).pop().unwrap()
    }

    /// Hands over several operations at once.
    pub(crate) fn many(&self, operations: Vec<Operation>) -> Vec<Result<Outcome, StoreError>> {
        let (answer, answers) = mpsc::channel();
        let count = operations.len();
        let jobs = operations.into_iter().enumerate().map(|(n, operation)| {
            let answer = answer.clone();
            let reply: commpool_store::Reply = Box::new(move |outcome| answer.send((n, outcome)).unwrap());
            (operation, reply)
        });
        self.store.submit_many(jobs.collect());
        let mut outcomes: Vec<_> = answers.iter().take(count).collect();
        outcomes.sort_by_key(|(n, _)| *n);
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    /// A front end that starts; in Standard Edition it is alone.
    pub(crate) fn start(&self, alone: bool) -> Incarnation {
        self.set_clock(self.now().0 + 1);
        let started = self.ask(front_ends::Start {
            pod: "pod-0".to_owned(),
            start_id: u128::from(self.now().0).to_be_bytes(),
            address: String::new(),
            build: "0.1.0".to_owned(),
            alone,
        });
        started.fe
    }

    pub(crate) fn add(&self, name: &str) -> UserRef {
        let address = format!("{name}@example.com");
        match self.ask(accounts::Put::Add { address, display_name: name.to_uppercase() }) {
            PutReply::Done(user) => user,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn set_state(&self, name: &str, state: accounts::State) {
        let address = format!("{name}@example.com");
        let changed = self.ask(accounts::Put::Change { address, state: Some(state), display_name: None });
        assert!(matches!(changed, PutReply::Done(_)));
    }

    /// Writes access control entries: no operation does so yet.
    pub(crate) fn set_aces(&self, user: UserRef, aces: Vec<Ace>) {
        match (&self.store, &self.place) {
            (Store::Memory(store), _) => store.with(|memory| memory.set_aces(user.id, aces)),
            (_, Place::Folder(folder)) => {
                let database = rusqlite::Connection::open(folder.path().join(DATABASE_FILE)).unwrap();
                database.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
                for ace in aces {
                    let row = (user.id.0 as i64, ace.mask, ace.presence as u8, ace.communication as u8);
                    database.execute("insert into ace values (?1, ?2, ?3, ?4)", row).unwrap();
                }
            }
            (_, Place::Database(database)) => {
                for Ace { mask, presence, communication } in aces {
                    let (id, presence, communication) = (user.id.0, presence as u8, communication as u8);
                    database
                        .run(&format!("insert into commpool.ace values ({id}, '{mask}', {presence}, {communication})"));
                }
            }
            (_, Place::Memory) => panic!("another store in memory"),
        }
    }

    /// REGISTER that must be carried out.
    pub(crate) fn register(&self, request: &Registration) -> Done {
        match self.ask(request.0.clone()) {
            Reply::Done(done) => *done,
            other => panic!("{other:?}"),
        }
    }

    /// PUBLISH that must be carried out: the publication's id and the change.
    pub(crate) fn publish(&self, request: &Publish) -> (Key128, PresenceChange) {
        match self.ask(request.clone()) {
            Published::Done { replay: false, id, change } => (id, *change),
            other => panic!("{other:?}"),
        }
    }

    /// Endpoints of a user as routing sees them.
    pub(crate) fn endpoints(&self, name: &str) -> Vec<Endpoint> {
        let target = format!("{name}@example.com");
        self.ask(route::Request { target, sender: "bob@example.com".to_owned() }).found.unwrap().endpoints
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Before its database goes.
        self.store.close();
    }
}

/// A REGISTER, by default of one Contact for an hour.
#[derive(Clone)]
pub(crate) struct Registration(pub(crate) Request);

impl Registration {
    /// `n` tells the binding, the Contact and the flow's serial number.
    pub(crate) fn new(user: UserRef, fe: Incarnation, n: u8) -> Self {
        Self(Request {
            user,
            origin: Origin([n; 16]),
            call_id: format!("call-{n}"),
            cseq: 1,
            flow: flow(fe, u32::from(n)),
            agent: "Client/1.0".to_owned(),
            contacts: Contacts::Each(vec![binding(n)]),
            unreachable: Vec::new(),
        })
    }

    pub(crate) fn cseq(mut self, cseq: u32) -> Self {
        self.0.cseq = cseq;
        self.0.origin.0[15] = self.0.origin.0[15].wrapping_add(cseq as u8).wrapping_mul(31);
        self
    }

    pub(crate) fn call(mut self, call_id: &str) -> Self {
        self.0.call_id = call_id.to_owned();
        self.0.origin.0[14] ^= call_id.len() as u8 ^ 0x80;
        self
    }

    pub(crate) fn on(mut self, flow: FlowRef) -> Self {
        self.0.flow = flow;
        self
    }

    pub(crate) fn contacts(mut self, contacts: Contacts) -> Self {
        self.0.contacts = contacts;
        self
    }

    /// Changes every Contact.
    pub(crate) fn with(mut self, change: impl Fn(&mut Binding)) -> Self {
        if let Contacts::Each(bindings) = &mut self.0.contacts {
            bindings.iter_mut().for_each(change);
        }
        self
    }

    pub(crate) fn expires(self, seconds: u32) -> Self {
        self.with(|binding| binding.expires = seconds)
    }

    pub(crate) fn instance(self, instance: &str, reg_id: Option<u32>) -> Self {
        self.with(|binding| {
            binding.instance = Some(instance.to_owned());
            binding.reg_id = reg_id;
        })
    }
}

pub(crate) fn binding(n: u8) -> Binding {
    Binding {
        key: Key128([n; 16]),
        contact: format!("sip:device@192.0.2.{n}:5060"),
        contact_value: format!("<sip:device@192.0.2.{n}:5060>"),
        q: 1000,
        path: Vec::new(),
        instance: None,
        reg_id: None,
        expires: 3600,
    }
}

pub(crate) fn flow(fe: Incarnation, serial: u32) -> FlowRef {
    FlowRef { fe, serial, transport: Transport::Tls, remote: format!("192.0.2.{serial}:40000") }
}

/// An initial PUBLISH; `n` makes the tag.
pub(crate) fn publication(user: UserRef, flow: FlowRef, n: u8, availability: Availability) -> Publish {
    let state = State { availability, note: Some(format!("note {n}")), ..State::default() };
    let action = Action::Set { expires: 600, state: Box::new(state), document: format!("<doc {n}/>").into_bytes() };
    Publish { user, origin: Origin([n; 16]), flow, endpoint: None, if_match: None, tag: Key128([n; 16]), action }
}

/// A later PUBLISH of the publication with this tag.
pub(crate) fn again(first: &Publish, tag: u8, if_match: Key128, action: Action) -> Publish {
    Publish { origin: Origin([tag; 16]), if_match: Some(if_match), tag: Key128([tag; 16]), action, ..first.clone() }
}

pub(crate) fn ace(mask: &str, presence: Right, communication: Right) -> Ace {
    Ace { mask: mask.to_owned(), presence, communication }
}

pub(crate) fn ids(endpoints: &[Endpoint]) -> Vec<EndpointId> {
    endpoints.iter().map(|endpoint| endpoint.id).collect()
}
