//! The engine: one front end's protocol as a state machine without I/O. Inputs carry the time; outputs are values.

mod adoption;
mod auth;
mod dialogs;
mod drain;
mod edge;
pub mod flow;
mod forks;
mod holder;
mod lease;
mod logins;
mod peers;
mod pending;
mod publications;
mod registrations;
mod timers;
mod upkeep;
mod watched;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use commpool_model::ids::{Incarnation, Key128, UserRef};
use commpool_sip::digest::{NonceCounts, Nonces};
use commpool_sip::frame::FrameError;
use commpool_sip::message::{Malformed, Message};
use commpool_sip::otid::PoolKey;
use commpool_sip::stun::BindingRequest;
use commpool_sip::time::Moment;
use commpool_sip::transaction::ServerTransactions;
use commpool_store::StoreError;
use commpool_store::ops::front_ends::FrontEnd;
use commpool_store::ops::{Operation, Outcome};

use self::adoption::OnTheWay;
use self::dialogs::{Asked, Dialogs};
use self::drain::Draining;
pub use self::drain::Pace;
use self::flow::{Flow, FlowInfo, Flows};
use self::forks::Forks;
use self::holder::Holder;
use self::lease::Lease;
use self::logins::Logins;
use self::peers::Peers;
use self::pending::Pendings;
use self::registrations::Registrations;
use self::timers::Timers;
use self::upkeep::Due;
use self::watched::Watched;
use crate::metrics::Metrics;
use crate::peers::frame::Frame;
use crate::settings::{PoolName, Settings, info_of};

/// Most server transactions: those that wait for an answer, and beside them as many answered ones as there is room for.
const MAX_TRANSACTIONS: usize = 100_000;
/// Most nonces whose use is remembered.
const MAX_NONCES: usize = 200_000;

/// Something that happened outside.
#[derive(Debug)]
pub enum Input {
    /// A connection is open (TLS: after the handshake).
    Opened {
        /// Its serial number, below 2³¹.
        serial: u32,
        /// What is known of it.
        info: FlowInfo,
    },
    /// A message came in.
    Message {
        /// On this flow.
        flow: Flow,
        /// The message.
        message: Message,
    },
    /// Octets came in that are no message.
    Malformed {
        /// On this flow.
        flow: Flow,
        /// What could be read.
        malformed: Malformed,
    },
    /// A stream cannot be framed any further; it is closed after the answer.
    Broken {
        /// That connection.
        flow: Flow,
        /// Why.
        error: FrameError,
    },
    /// A keep-alive came in (CRLFCRLF).
    Ping {
        /// On this flow.
        flow: Flow,
    },
    /// A keep-alive came in (a Binding request of STUN).
    Stun {
        /// On this flow, over UDP.
        flow: Flow,
        /// What it was.
        request: BindingRequest,
    },
    /// A connection is gone.
    Closed {
        /// Which.
        flow: Flow,
    },
    /// The store answered.
    Store {
        /// Token of the [`Output::Store`].
        token: u64,
        /// Its answer.
        outcome: Result<Outcome, StoreError>,
    },
    /// The configuration or the certificate changed.
    Settings(Arc<Settings>),
    /// A link to another front end works, or does not any more.
    Link {
        /// Which.
        fe: Incarnation,
        /// Whether it works.
        up: bool,
    },
    /// A front end that the directory does not name wants to talk: it has just started.
    Newcomer,
    /// Another front end says something.
    Frame {
        /// Who.
        from: Incarnation,
        /// What.
        frame: Frame,
    },
    /// A frame could not be sent: the link's queue is full.
    NotTold {
        /// To whom.
        fe: Incarnation,
        /// What.
        frame: Frame,
    },
}

/// Something to be done outside.
#[derive(Debug)]
pub enum Output {
    /// Send octets on a flow; dropped if it is gone.
    Send {
        /// Which flow.
        flow: Flow,
        /// The octets.
        octets: Bytes,
    },
    /// Close a connection after what was sent on it before.
    Close {
        /// Which.
        flow: Flow,
    },
    /// Call the store.
    Store {
        /// Comes back with the answer.
        token: u64,
        /// The call.
        operation: Box<Operation>,
    },
    /// Tell another front end something.
    Frame {
        /// Whom.
        fe: Incarnation,
        /// What.
        frame: Frame,
    },
    /// These are the other front ends now: keep links to them and to nobody else.
    Directory(Vec<FrontEnd>),
    /// This incarnation is over: close every flow without reading what is buffered, and start anew.
    Restart,
}

/// What an engine starts with.
#[derive(Debug)]
pub struct Start {
    /// Its incarnation.
    pub fe: Incarnation,
    /// The pool's secret.
    pub key: PoolKey,
    /// Settings.
    pub settings: Arc<Settings>,
    /// Seconds since 1970 by the store's clock at `now`.
    pub pool_seconds: u64,
    /// Time of the start.
    pub now: Moment,
    /// Mark of changed accounts, taken before the first credentials are read.
    pub accounts: u64,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Version and commit, as the others see it.
    pub build: String,
    /// Epoch of the soft data, where there are other front ends; `None`: this one is alone.
    pub epoch: Option<u64>,
    /// How it leaves.
    pub pace: Pace,
}

/// State of one front end.
#[derive(Debug)]
pub struct Engine {
    settings: Arc<Settings>,
    key: PoolKey,
    fe: Incarnation,
    started: (Moment, u64),
    nonces: Nonces,
    counts: NonceCounts,
    flows: Flows,
    registrations: Registrations,
    logins: Logins,
    transactions: ServerTransactions<Flow>,
    forks: Forks,
    holder: Holder,
    peers: Peers,
    lease: Lease,
    publications: publications::Held,
    build: String,
    pace: Pace,
    dialogs: Dialogs,
    undecided: HashMap<Key128, Asked>,
    on_the_way: OnTheWay,
    watched: Watched,
    pending: Pendings,
    timers: Timers<Due>,
    lost: Vec<(UserRef, u32)>,
    ended: Vec<(UserRef, Key128)>,
    due: upkeep::Expired,
    sweep_until: Moment,
    accounts_cursor: u64,
    draining: Draining,
    out: VecDeque<Output>,
    metrics: Arc<Metrics>,
}

impl Engine {
    /// A new engine; its first timers are set.
    pub fn new(start: Start) -> Self {
        let nonces = Nonces::new(&start.key);
        let mut engine = Self {
            settings: start.settings,
            key: start.key,
            fe: start.fe,
            started: (start.now, start.pool_seconds),
            nonces,
            counts: NonceCounts::new(MAX_NONCES),
            flows: Flows::default(),
            registrations: Registrations::default(),
            logins: Logins::default(),
            transactions: ServerTransactions::new(MAX_TRANSACTIONS),
            forks: Forks::default(),
            holder: Holder::default(),
            peers: Peers::default(),
            lease: start.epoch.map_or(Lease::Alone, |epoch| Lease::new(start.now, epoch)),
            publications: publications::Held::default(),
            build: start.build,
            pace: start.pace,
            dialogs: Dialogs::default(),
            undecided: HashMap::new(),
            on_the_way: OnTheWay::default(),
            watched: Watched::default(),
            pending: Pendings::default(),
            timers: Timers::default(),
            lost: Vec::new(),
            ended: Vec::new(),
            due: upkeep::Expired::default(),
            sweep_until: start.now,
            accounts_cursor: start.accounts,
            draining: Draining::default(),
            out: VecDeque::new(),
            metrics: start.metrics,
        };
        engine.start_upkeep(start.now);
        engine.start_lease(start.now);
        engine
    }

    /// Takes one input in; what follows from it waits in [`Engine::poll`].
    pub fn handle(&mut self, now: Moment, input: Input) {
        match input {
            Input::Opened { serial, info } => self.opened(now, serial, info),
            Input::Message { flow, message } => self.message(now, flow, message),
            Input::Malformed { flow, malformed } => self.malformed(now, flow, malformed),
            Input::Broken { flow, error } => self.broken(now, flow, error),
            Input::Ping { flow } => self.kept_alive(now, flow, Bytes::from_static(b"\r\n")),
            Input::Stun { flow, request } => {
                if let Some(info) = self.info(flow) {
                    self.kept_alive(now, flow, request.answer(info.remote));
                }
            }
            Input::Closed { flow } => self.flow_gone(now, flow),
            Input::Store { token, outcome } => self.store_answered(now, token, outcome),
            Input::Settings(settings) => self.settings = settings,
            Input::Link { fe, up } => self.link(now, fe, up),
            Input::Newcomer => self.newcomer(now),
            Input::Frame { from, frame } => self.told(now, from, frame),
            Input::NotTold { fe, frame } => self.not_told(now, fe, frame),
        }
    }

    /// The next output.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// Whether nothing is open: no request without its final answer, no store call under way.
    pub fn idle(&self) -> bool {
        self.transactions.open() == 0 && self.pending.is_empty()
    }

    /// The incarnation.
    pub const fn incarnation(&self) -> Incarnation {
        self.fe
    }

    /// Connections, UDP flows, endpoints, dialogs: gauges.
    pub fn gauges(&self) -> [usize; 4] {
        let (streams, udp) = self.flows.counts();
        [streams, udp, self.registrations.len(), self.dialogs.len()]
    }

    /// How the dialog of a Call-ID stands here, for people.
    pub fn describe_dialog(&self, call_id: &str) -> Option<String> {
        self.dialogs.describe(call_id)
    }

    /// Dialogs that this front end would send something in now.
    pub fn carried(&self, now: Moment) -> impl Iterator<Item = Key128> {
        self.dialogs.carried().filter(move |_| self.lease.holds(now))
    }

    /// Tables that must be empty some time after all traffic has ended.
    pub fn tables(&self) -> [(&'static str, usize); 10] {
        [
            ("server transactions", self.transactions.len()),
            ("forks", self.forks.len()),
            ("requests to clients", self.holder.open()),
            ("dialogs", self.dialogs.len()),
            ("endpoints", self.registrations.len()),
            ("store calls", self.pending.waiting()),
            ("registrations that wait", self.registrations.waiting()),
            ("subscriptions that wait", self.undecided.len()),
            ("adoptions that wait", self.on_the_way.waiting()),
            ("users watched", self.watched.users().len()),
        ]
    }

    fn pool_seconds(&self, now: Moment) -> u64 {
        let (moment, seconds) = self.started;
        seconds + now.since(moment).as_secs()
    }

    /// Sends on a flow; where another front end saw a UDP address last, through that one.
    fn send(&mut self, now: Moment, flow: Flow, octets: Bytes) {
        let through = self.flows.get(flow).and_then(|state| state.through);
        match (flow, through) {
            (Flow::Udp { remote, .. }, Some(fe)) if self.peers.is_live(fe) => {
                self.tell(fe, Frame::Emit { remote, octets });
            }
            _ => self.send_directly(now, flow, octets),
        }
    }

    fn send_directly(&mut self, now: Moment, flow: Flow, octets: Bytes) {
        if let Some(state) = self.flows.get_mut(flow) {
            state.last_traffic = now;
        }
        self.out.push_back(Output::Send { flow, octets });
    }

    fn info(&self, flow: Flow) -> Option<FlowInfo> {
        info_of(flow, self.flows.get(flow).map(|s| &s.info))
    }

    fn name_towards(&self, flow: Flow) -> Option<PoolName> {
        self.info(flow).map(|info| self.settings.reached_by(&info))
    }

    fn opened(&mut self, now: Moment, serial: u32, info: FlowInfo) {
        self.flows.open(serial, info, now);
        self.timers.set(Due::Unproven(Flow::Stream(serial)), now + upkeep::UNPROVEN);
    }

    fn kept_alive(&mut self, now: Moment, flow: Flow, pong: Bytes) {
        self.heard(now, flow);
        // An address without a flow gets no pong: its client shall notice and register anew (RFC 5626 §4.4).
        if self.flows.get(flow).is_some() {
            self.send(now, flow, pong);
        }
    }

    fn heard(&mut self, now: Moment, flow: Flow) {
        match self.flows.get_mut(flow) {
            Some(state) => (state.last_traffic, state.through) = (now, None),
            None => self.seen_here(now, flow),
        }
        self.timers.clear(&Due::Probe(flow));
    }
}

type ByUser<T> = HashMap<UserRef, T>;
