//! One engine, one memory store, one clock that only moves when told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commpool_model::acl::Ace;
use commpool_model::config::{
    Authentication, Edition, Listeners, LogConfig, Outward, Policy, PoolConfig, SqliteStore, StoreConfig,
};
use commpool_model::ids::Micros;
use commpool_server::engine::flow::{Flow, FlowInfo};
use commpool_server::engine::{Engine, Input, Output, Pace, Start};
use commpool_server::metrics::Metrics;
use commpool_server::settings::Settings;
use commpool_sip::digest::{Algorithm, ha1};
use commpool_sip::limits::Limits;
use commpool_sip::message::Message;
use commpool_sip::otid::PoolKey;
use commpool_sip::time::Moment;
use commpool_store::ops::accounts::{ChangedSince, Put, State};
use commpool_store::ops::credentials::{self, Verifier};
use commpool_store::ops::directory::{Applied, Apply, Change, LeaseKeep, LeaseTake, LeaseTaken, SourceGet, Stage};
use commpool_store::ops::{Operation, Outcome, Transport, front_ends};
use commpool_store::{Memory, StoreError};

/// 2026-11-24, so that CSeq numbers from pool time are what they will be.
const EPOCH: u64 = 1_795_500_000;
pub(crate) const DOMAIN: &str = "example.com";

/// Everything but the network.
pub(crate) struct Pool {
    engine: Engine,
    store: Memory,
    now: Moment,
    inbox: HashMap<Flow, Vec<Message>>,
    pub(crate) closed: Vec<Flow>,
    pub(crate) calls: Vec<&'static str>,
    /// Store calls wait here while set: an absent database.
    pub(crate) hold_store: bool,
    /// Store calls of these names fail while set.
    pub(crate) fail: Vec<&'static str>,
    /// How they fail.
    pub(crate) failure: StoreError,
    held: Vec<(u64, Operation)>,
    /// Store calls of these names are carried out, and their answers are on the way until told otherwise.
    pub(crate) slow: Vec<&'static str>,
    on_the_way: Vec<(u64, Outcome)>,
    next_serial: u32,
    /// Whether there may be other front ends.
    shared: bool,
}

fn config() -> PoolConfig {
    PoolConfig {
        pool: "test".to_owned(),
        edition: Edition::Standard,
        sip_domains: vec![DOMAIN.to_owned()],
        listeners: Listeners { udp: vec![listen()], tcp: vec![listen()], tls: Vec::new(), shared: false },
        outward: Outward::default(),
        tls: None,
        key_file: "/nowhere".into(),
        store: StoreConfig { sqlite: Some(SqliteStore { folder: "/nowhere".into() }), ..StoreConfig::default() },
        peers: None,
        directory: None,
        drain: commpool_model::config::Drain::default(),
        authentication: Authentication::default(),
        policy: Policy::default(),
        management: None,
        log: LogConfig::default(),
    }
}

fn listen() -> SocketAddr {
    "192.0.2.1:5060".parse().unwrap()
}

impl Pool {
    pub(crate) fn new() -> Self {
        Self::with(false, Duration::from_secs(60))
    }

    /// A front end of a pool in which it is the only one, and which has so much time to leave.
    pub(crate) fn shared(timeout: Duration) -> Self {
        Self::with(true, timeout)
    }

    fn with(shared: bool, timeout: Duration) -> Self {
        let now = Moment::from_micros(1_000_000);
        let mut store = Memory::new();
        let start = front_ends::Start {
            pod: "test".to_owned(),
            start_id: [1; 16],
            address: String::new(),
            build: "test".to_owned(),
            alone: !shared,
        };
        let started = store.execute(Micros(EPOCH * 1_000_000), &[start.into()]);
        let Some(Outcome::FrontEndStart(started)) = started.into_iter().next() else { panic!("no incarnation") };
        let marked = store.execute(Micros(EPOCH * 1_000_000), &[ChangedSince { cursor: None }.into()]);
        let Some(Outcome::AccountsChanged(accounts)) = marked.into_iter().next() else { panic!("no mark") };
        let settings = Arc::new(Settings::new(&config(), &[listen()]));
        let engine = Engine::new(Start {
            fe: started.fe,
            key: PoolKey::from_octets(&[7; 32]).unwrap(),
            settings,
            pool_seconds: EPOCH,
            now,
            accounts: accounts.cursor,
            metrics: Arc::new(Metrics::default()),
            build: "test".to_owned(),
            epoch: shared.then_some(started.epoch),
            pace: Pace { timeout, flows_per_second: 50 },
        });
        let mut pool = Self {
            engine,
            store,
            now,
            inbox: HashMap::new(),
            closed: Vec::new(),
            calls: Vec::new(),
            hold_store: false,
            fail: Vec::new(),
            failure: StoreError::Unavailable("a test".to_owned()),
            held: Vec::new(),
            slow: Vec::new(),
            on_the_way: Vec::new(),
            next_serial: 0,
            shared,
        };
        pool.settle();
        pool
    }

    pub(crate) fn add_user(&mut self, name: &str, password: &str) {
        let address = format!("{name}@{DOMAIN}");
        self.execute(Put::Add { address, display_name: String::new() }.into());
        self.set_password(name, password);
    }

    pub(crate) fn set_password(&mut self, name: &str, password: &str) {
        let verifier = |stored, algorithm| Verifier {
            algorithm: stored,
            realm: DOMAIN.to_owned(),
            ha1: ha1(algorithm, name, DOMAIN, password),
        };
        use commpool_model::config::DigestAlgorithm as Stored;
        let verifiers = vec![verifier(Stored::Sha256, Algorithm::Sha256), verifier(Stored::Md5, Algorithm::Md5)];
        let address = format!("{name}@{DOMAIN}");
        self.execute(credentials::Put { address, label: "main".to_owned(), verifiers }.into());
    }

    pub(crate) fn set_state(&mut self, name: &str, state: State) {
        let address = format!("{name}@{DOMAIN}");
        self.execute(Put::Change { address, state: Some(state), display_name: None }.into());
    }

    /// Replaces the access control entries of a user.
    pub(crate) fn set_aces(&mut self, name: &str, aces: Vec<Ace>) {
        let read = credentials::Request { address: format!("{name}@{DOMAIN}") };
        let Outcome::Credentials(credentials::Reply { found: Some(login) }) = self.execute(read.into()) else {
            panic!("no such user")
        };
        self.store.set_aces(login.user.id, aces);
    }

    /// A run of the replicator with these changes.
    pub(crate) fn replicate(&mut self, rows: Vec<Change>) {
        let source = || "directory".to_owned();
        let take = LeaseTake { name: source(), holder: "test".to_owned(), ttl_ms: 60_000 };
        let Outcome::LeaseTake(LeaseTaken::Taken(token)) = self.execute(take.into()) else { panic!("held") };
        let Outcome::SourceGet(known) = self.execute(SourceGet { source: source() }.into()) else { panic!("none") };
        let count = u32::try_from(rows.len()).unwrap();
        self.execute(Stage { source: source(), token, first: 0, rows }.into());
        let apply = Apply { source: source(), token, version: known.version, rows: count, state: Vec::new() };
        let applied = self.execute(apply.into());
        assert!(matches!(&applied, Outcome::Apply(Applied::Done { refused, .. }) if refused.is_empty()), "{applied:?}");
        self.execute(LeaseKeep { name: source(), token, ttl_ms: 0 }.into());
    }

    pub(crate) fn execute(&mut self, operation: Operation) -> Outcome {
        let now = self.store_time();
        self.store.execute(now, &[operation]).into_iter().next().unwrap()
    }

    fn store_time(&self) -> Micros {
        Micros(EPOCH * 1_000_000 + self.now.as_micros() - 1_000_000)
    }

    /// A new connection from this address.
    pub(crate) fn connect(&mut self, remote: &str) -> Flow {
        self.connect_over(Transport::Tcp, remote)
    }

    /// A new connection of this kind.
    pub(crate) fn connect_over(&mut self, transport: Transport, remote: &str) -> Flow {
        self.next_serial += 1;
        let info = FlowInfo { transport, local: listen(), remote: remote.parse().unwrap(), server_name: None };
        self.engine.handle(self.now, Input::Opened { serial: self.next_serial, info });
        self.settle();
        Flow::Stream(self.next_serial)
    }

    /// A UDP flow from this address.
    pub(crate) fn udp(&self, remote: &str) -> Flow {
        Flow::Udp { socket: 0, local: listen(), remote: remote.parse().unwrap() }
    }

    pub(crate) fn disconnect(&mut self, flow: Flow) {
        self.engine.handle(self.now, Input::Closed { flow });
        self.settle();
    }

    pub(crate) fn send(&mut self, flow: Flow, text: &str) {
        let octets = Bytes::copy_from_slice(text.as_bytes());
        let input = match Message::parse_datagram(octets, &Limits::default()) {
            Ok(message) => Input::Message { flow, message },
            Err(malformed) => Input::Malformed { flow, malformed },
        };
        self.engine.handle(self.now, input);
        self.settle();
    }

    /// What came out on a flow since it was last asked.
    pub(crate) fn received(&mut self, flow: Flow) -> Vec<Message> {
        self.inbox.remove(&flow).unwrap_or_default()
    }

    /// Gives back what came out and was not looked at.
    pub(crate) fn put_back(&mut self, flow: Flow, messages: Vec<Message>) {
        self.inbox.entry(flow).or_default().extend(messages);
    }

    /// The one message that came out on a flow.
    pub(crate) fn one(&mut self, flow: Flow) -> Message {
        let mut messages = self.received(flow);
        assert_eq!(messages.len(), 1, "{messages:#?}");
        messages.remove(0)
    }

    /// How many rows a table of the store has.
    pub(crate) fn rows(&self, table: &str) -> usize {
        self.store.soft_rows().iter().find(|(name, _)| *name == table).unwrap().1
    }

    /// Connections, UDP flows, endpoints, dialogs.
    pub(crate) fn gauges(&self) -> [usize; 4] {
        self.engine.gauges()
    }

    /// Whether new clients are welcome, and why nobody is served.
    pub(crate) fn ready(&self) -> (bool, Option<String>) {
        (self.engine.ready(self.now), self.engine.unfit().map(ToString::to_string))
    }

    /// Tells it to end.
    pub(crate) fn drain(&mut self) {
        self.engine.drain(self.now);
        self.settle();
    }

    /// Whether it has finished leaving.
    pub(crate) fn drained(&self) -> bool {
        self.engine.drained()
    }

    /// Lets time pass, with everything that falls due in it.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.engine.next_due().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.engine.tick(self.now);
            self.settle();
        }
        self.now = until;
    }

    /// Store calls that were held are carried out now.
    pub(crate) fn release_store(&mut self) {
        self.hold_store = false;
        for (token, operation) in std::mem::take(&mut self.held) {
            self.answer(token, operation);
        }
        self.settle();
    }

    /// Answers that were on the way arrive; how many.
    pub(crate) fn arrive(&mut self) -> usize {
        let arriving = std::mem::take(&mut self.on_the_way);
        let count = arriving.len();
        for (token, outcome) in arriving {
            self.engine.handle(self.now, Input::Store { token, outcome: Ok(outcome) });
        }
        self.settle();
        count
    }

    fn answer(&mut self, token: u64, operation: Operation) {
        let outcome = self.execute(operation);
        self.engine.handle(self.now, Input::Store { token, outcome: Ok(outcome) });
    }

    fn settle(&mut self) {
        while let Some(output) = self.engine.poll() {
            match output {
                Output::Send { flow, octets } if octets.iter().all(|o| matches!(o, b'\r' | b'\n')) => {
                    drop((flow, octets))
                }
                Output::Send { flow, octets } => {
                    let message = Message::parse_datagram(octets, &Limits::default()).unwrap();
                    message.validate().unwrap();
                    self.inbox.entry(flow).or_default().push(message);
                }
                Output::Close { flow } => {
                    self.closed.push(flow);
                    self.engine.handle(self.now, Input::Closed { flow });
                }
                Output::Directory(others) if self.shared => assert!(others.is_empty()),
                Output::Frame { .. } | Output::Directory(_) | Output::Restart => {
                    panic!("a lone front end has no peers")
                }
                Output::Store { token, operation } => {
                    self.calls.push(operation.name());
                    if self.fail.contains(&operation.name()) {
                        let outcome = Err(self.failure.clone());
                        self.engine.handle(self.now, Input::Store { token, outcome });
                        continue;
                    }
                    if self.slow.contains(&operation.name()) {
                        let outcome = self.execute(*operation);
                        self.on_the_way.push((token, outcome));
                        continue;
                    }
                    if self.hold_store { self.held.push((token, *operation)) } else { self.answer(token, *operation) }
                }
            }
        }
    }
}
