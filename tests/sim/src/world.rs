//! The world of one run: front ends, store, network, clients, faults, and the order of everything.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commpool_model::config::{Outward, PoolConfig};
use commpool_model::ids::{Incarnation, Micros};
use commpool_server::engine::flow::{Flow, FlowInfo};
use commpool_server::engine::{Engine, Input, Output, Pace, Start};
use commpool_server::metrics::Metrics;
use commpool_server::settings::Settings;
use commpool_sip::digest::{Algorithm, ha1};
use commpool_sip::limits::Limits;
use commpool_sip::message::Message;
use commpool_sip::otid::PoolKey;
use commpool_sip::time::Moment;
use commpool_store::ops::accounts::{ChangedSince, Put};
use commpool_store::ops::credentials::{self, Verifier};
use commpool_store::ops::{Class, Operation, Outcome, Transport, front_ends};
use commpool_store::{Memory, StoreError};

use crate::check::Check;
use crate::client::{Client, Timer, Want};
use crate::rng::Rng;
use crate::sip::{DOMAIN, password};

/// Seconds since 1970 at the beginning of a run: 2026-11-24.
const EPOCH: u64 = 1_795_500_000;
/// A path through the VIP to a UDP client lives so long after its last packet.
const PATH: Duration = Duration::from_secs(30);
/// A front end that stood still for longer starts anew.
const STOOD_STILL: Duration = Duration::from_secs(5);
/// Silence on a link is noticed after this.
const SILENCE: Duration = Duration::from_secs(3);

/// Something that happens at a time.
#[derive(Debug)]
enum Event {
    Input { fe: usize, inc: Incarnation, input: Box<Input> },
    Tick { fe: usize, inc: Incarnation },
    Store { fe: usize, inc: Incarnation, token: u64, operation: Box<Operation> },
    Connect { client: usize },
    ToClient { client: usize, life: u64, octets: Bytes },
    Closed { client: usize, life: u64 },
    Wake { client: usize, timer: Timer },
    StartFrontEnd { fe: usize },
    LinkUp { from: usize, inc: Incarnation, to: Incarnation },
    LinkDown { from: usize, inc: Incarnation, to: Incarnation },
    Thaw { fe: usize },
    Heal { a: usize, b: usize },
    Fault,
}

/// One front end's place; whoever runs in it has an incarnation.
struct Place {
    engine: Option<Engine>,
    inc: Incarnation,
    frozen: Option<Moment>,
    backlog: Vec<Event>,
    tick: Option<Moment>,
    serial: u32,
    /// When the store's lanes are free: reads, soft writes, durable writes. What one lane carries stays in order.
    lanes: [Moment; 3],
    /// Connections by serial number: device and its life.
    connections: BTreeMap<u32, (usize, u64)>,
    directory: BTreeSet<Incarnation>,
    linked: BTreeSet<Incarnation>,
}

/// Where a client's octets go.
#[derive(Clone, Copy, Debug)]
struct Path {
    fe: usize,
    inc: Incarnation,
    flow: Flow,
    /// Number of this connection; what belongs to an older one is dropped.
    life: u64,
    /// Last packet (UDP).
    last: Moment,
}

/// How wild a run is.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Front ends.
    pub front_ends: usize,
    /// Users.
    pub users: usize,
    /// Time with faults.
    pub faulty: Duration,
}

/// Everything.
pub struct World {
    now: Moment,
    rng: Rng,
    store: Memory,
    store_away: Moment,
    places: Vec<Place>,
    clients: Vec<Client>,
    paths: Vec<Option<Path>>,
    lives: u64,
    cut: BTreeSet<(usize, usize)>,
    queue: BinaryHeap<Reverse<(Moment, u64)>>,
    events: HashMap<u64, Event>,
    sequence: u64,
    faults_until: Moment,
    settings: Arc<Settings>,
    /// What must hold.
    pub check: Check,
}

fn address(fe: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, u8::try_from(fe + 1).unwrap_or(1)], 5060))
}

fn remote(client: usize) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, u8::try_from(client % 250 + 1).unwrap_or(1)], 40_000))
}

impl World {
    /// A world from a seed.
    pub fn new(seed: u64, shape: Shape) -> anyhow::Result<Self> {
        let mut rng = Rng::new(seed);
        let mut world = Self {
            now: Moment::from_micros(1_000_000),
            store: Memory::new(),
            store_away: Moment::ZERO,
            places: Vec::new(),
            clients: Vec::new(),
            paths: Vec::new(),
            lives: 0,
            cut: BTreeSet::new(),
            queue: BinaryHeap::new(),
            events: HashMap::new(),
            sequence: 0,
            faults_until: Moment::from_micros(1_000_000) + shape.faulty,
            settings: settings()?,
            check: Check::default(),
            rng: rng.clone(),
        };
        for fe in 0..shape.front_ends {
            world.places.push(Place::empty());
            world.start_front_end(fe);
        }
        let users: Vec<String> = (0..shape.users).map(|n| format!("user{n}")).collect();
        for (n, user) in users.iter().enumerate() {
            world.add_user(user);
            let others: Vec<String> = users.iter().filter(|u| *u != user).cloned().collect();
            for device in 0..=usize::from(n % 3 == 0) {
                let udp = n % 4 == 3 && device == 0;
                let index = world.clients.len();
                world.clients.push(Client::new(index, user, udp, others.clone()));
                world.paths.push(None);
                if udp {
                    world.check.has_udp(user);
                }
                let at = world.now + rng.between(Duration::from_millis(100), Duration::from_secs(4));
                world.at(at, Event::Connect { client: index });
            }
        }
        let first = world.now + rng.between(Duration::from_secs(8), Duration::from_secs(15));
        world.at(first, Event::Fault);
        world.rng = rng;
        Ok(world)
    }

    fn add_user(&mut self, user: &str) {
        let address = format!("{user}@{DOMAIN}");
        let verifier = Verifier {
            algorithm: commpool_model::config::DigestAlgorithm::Sha256,
            realm: DOMAIN.to_owned(),
            ha1: ha1(Algorithm::Sha256, user, DOMAIN, &password(user)),
        };
        self.execute(Put::Add { address: address.clone(), display_name: String::new() }.into());
        self.execute(credentials::Put { address, label: "main".to_owned(), verifiers: vec![verifier] }.into());
    }

    fn store_time(&self) -> Micros {
        Micros(EPOCH * 1_000_000 + self.now.as_micros())
    }

    /// Carries out an operation at once.
    pub fn execute(&mut self, operation: Operation) -> Option<Outcome> {
        let now = self.store_time();
        self.store.execute(now, &[operation]).into_iter().next()
    }

    fn at(&mut self, at: Moment, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((at.max(self.now), self.sequence)));
        self.events.insert(self.sequence, event);
    }

    fn after(&mut self, least: u64, most: u64, event: Event) {
        let wait = self.rng.between(Duration::from_micros(least), Duration::from_micros(most));
        self.at(self.now + wait, event);
    }

    /// Runs until a moment.
    pub fn run_until(&mut self, until: Moment) {
        while let Some(Reverse((at, number))) = self.queue.peek().copied() {
            if at > until || self.check.broken.len() > 20 {
                break;
            }
            self.queue.pop();
            self.now = at;
            if let Some(event) = self.events.remove(&number) {
                tracing::trace!(ms = at.as_micros() / 1000, ?event, "event");
                self.happen(event);
            }
        }
        self.now = self.now.max(until);
    }

    /// The time.
    pub const fn now(&self) -> Moment {
        self.now
    }

    /// When faults end.
    pub const fn faults_until(&self) -> Moment {
        self.faults_until
    }

    /// The devices.
    pub fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// Engines that run.
    pub fn engines(&self) -> impl Iterator<Item = &Engine> {
        self.places.iter().filter_map(|place| place.engine.as_ref())
    }

    /// All devices sign out and do nothing any more.
    pub fn everybody_leaves(&mut self) {
        for client in 0..self.clients.len() {
            let wants = self.clients.get_mut(client).map(|c| c.leave(self.now)).unwrap_or_default();
            self.fulfil(client, wants);
        }
    }

    /// Nobody does anything by himself any more.
    pub fn calm(&mut self) {
        self.clients.iter_mut().for_each(|c| c.active = false);
        self.cut.clear();
        self.store_away = Moment::ZERO;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Input { fe, inc, input } => self.input(fe, inc, *input),
            Event::Tick { fe, inc } => self.tick(fe, inc),
            Event::Store { fe, inc, token, operation } => self.store_call(fe, inc, token, *operation),
            Event::Connect { client } => self.connect(client),
            Event::ToClient { client, life, octets } => self.to_client(client, life, octets),
            Event::Closed { client, life } => self.closed(client, life),
            Event::Wake { client, timer } => {
                let (now, rng, check) = (self.now, &mut self.rng, &mut self.check);
                let wants = self.clients.get_mut(client).map(|c| c.woken(now, &timer, rng, check)).unwrap_or_default();
                self.fulfil(client, wants);
            }
            Event::StartFrontEnd { fe } => self.start_front_end(fe),
            Event::LinkUp { from, inc, to } => self.link_up(from, inc, to),
            Event::LinkDown { from, inc, to } => self.link_down(from, inc, to),
            Event::Thaw { fe } => self.thaw(fe),
            Event::Heal { a, b } => self.heal(a, b),
            Event::Fault => self.fault(),
        }
    }

    // ---- front ends

    fn start_front_end(&mut self, fe: usize) {
        if self.now < self.store_away {
            return self.after(1_000_000, 2_000_000, Event::StartFrontEnd { fe });
        }
        let mut start_id = [0; 16];
        start_id[..8].copy_from_slice(&self.rng.next().to_be_bytes());
        let start = front_ends::Start {
            pod: format!("fe-{fe}"),
            start_id,
            address: format!("fe-{fe}"),
            build: "sim".to_owned(),
            alone: false,
        };
        let Some(Outcome::FrontEndStart(started)) = self.execute(start.into()) else { return };
        let Some(Outcome::AccountsChanged(accounts)) = self.execute(ChangedSince { cursor: None }.into()) else {
            return;
        };
        let Ok(key) = PoolKey::from_octets(&[7; 32]) else { return };
        let engine = Engine::new(Start {
            fe: started.fe,
            key,
            settings: Arc::clone(&self.settings),
            pool_seconds: self.store_time().0 / 1_000_000,
            now: self.now,
            accounts: accounts.cursor,
            metrics: Arc::new(Metrics::default()),
            build: "sim".to_owned(),
            epoch: Some(started.epoch),
            pace: Pace { timeout: Duration::from_secs(60), flows_per_second: 50 },
        });
        let Some(place) = self.places.get_mut(fe) else { return };
        *place = Place { engine: Some(engine), inc: started.fe, ..Place::empty() };
        self.settle(fe);
    }

    fn running(&mut self, fe: usize, inc: Incarnation) -> Option<&mut Place> {
        self.places.get_mut(fe).filter(|p| p.inc == inc && p.engine.is_some())
    }

    fn input(&mut self, fe: usize, inc: Incarnation, input: Input) {
        let now = self.now;
        let Some(place) = self.running(fe, inc) else { return };
        if place.frozen.is_some() {
            return place.backlog.push(Event::Input { fe, inc, input: Box::new(input) });
        }
        if let Some(engine) = &mut place.engine {
            engine.handle(now, input);
        }
        self.settle(fe);
    }

    fn tick(&mut self, fe: usize, inc: Incarnation) {
        let now = self.now;
        let Some(place) = self.running(fe, inc) else { return };
        if place.frozen.is_some() {
            return;
        }
        place.tick = None;
        if let Some(engine) = place.engine.as_mut().filter(|e| e.next_due().is_some_and(|due| due <= now)) {
            engine.tick(now);
        }
        self.settle(fe);
    }

    /// Carries out what an engine wants, and sets its next tick.
    fn settle(&mut self, fe: usize) {
        let mut restart = false;
        while let Some(output) = self.places.get_mut(fe).and_then(|p| p.engine.as_mut()?.poll()) {
            restart |= matches!(output, Output::Restart);
            self.output(fe, output);
        }
        if restart {
            self.end_front_end(fe);
            return self.after(10_000, 200_000, Event::StartFrontEnd { fe });
        }
        let Some(place) = self.places.get_mut(fe) else { return };
        let Some(due) = place.engine.as_ref().and_then(Engine::next_due) else { return };
        if place.tick.is_none_or(|at| due < at) {
            place.tick = Some(due);
            let inc = place.inc;
            self.at(due, Event::Tick { fe, inc });
        }
    }

    fn output(&mut self, fe: usize, output: Output) {
        let Some(inc) = self.places.get(fe).map(|p| p.inc) else { return };
        match output {
            Output::Send { flow: Flow::Stream(serial), octets } => {
                let to = self.places.get(fe).and_then(|p| p.connections.get(&serial).copied());
                if let Some((client, life)) = to {
                    self.after(200, 2_000, Event::ToClient { client, life, octets });
                }
            }
            Output::Send { flow: Flow::Udp { remote, .. }, octets } => self.udp_to_client(fe, inc, remote, octets),
            Output::Close { flow } => self.close(fe, flow),
            Output::Store { token, operation } => {
                let at = self.lane(fe, operation.class());
                self.at(at, Event::Store { fe, inc, token, operation });
            }
            Output::Frame { fe: to, frame } => {
                let there = self.places.iter().position(|p| p.inc == to && p.engine.is_some());
                if let Some(there) = there.filter(|t| !self.is_cut(fe, *t)) {
                    let input = Box::new(Input::Frame { from: inc, frame });
                    self.after(100, 1_500, Event::Input { fe: there, inc: to, input });
                }
            }
            Output::Directory(directory) => {
                let listed: BTreeSet<Incarnation> = directory.iter().map(|f| f.fe).collect();
                let Some(place) = self.places.get_mut(fe) else { return };
                let new: Vec<Incarnation> = listed.difference(&place.directory).copied().collect();
                place.linked.retain(|to| listed.contains(to));
                place.directory = listed;
                for to in new {
                    self.after(1_000, 20_000, Event::LinkUp { from: fe, inc, to });
                }
            }
            Output::Restart => {}
        }
    }

    /// When a lane of the store gets to a call.
    fn lane(&mut self, fe: usize, class: Class) -> Moment {
        let arrives = self.now + self.rng.between(Duration::from_micros(200), Duration::from_millis(3));
        let Some(lane) = self.places.get_mut(fe).and_then(|p| p.lanes.get_mut(class as usize)) else { return arrives };
        *lane = arrives.max(*lane + Duration::from_micros(1));
        *lane
    }

    fn close(&mut self, fe: usize, flow: Flow) {
        let now = self.now;
        let Some(place) = self.places.get_mut(fe) else { return };
        if let Flow::Stream(serial) = flow
            && let Some((client, life)) = place.connections.remove(&serial)
        {
            if let Some(engine) = &mut place.engine {
                engine.handle(now, Input::Closed { flow });
            }
            self.after(200, 2_000, Event::Closed { client, life });
        }
    }

    /// A front end is gone: its clients' connections break, its links too.
    fn end_front_end(&mut self, fe: usize) {
        let Some(place) = self.places.get_mut(fe) else { return };
        let gone = std::mem::replace(place, Place::empty());
        self.check.dead.insert(gone.inc.0);
        for (client, life) in gone.connections.into_values() {
            self.after(200, 5_000, Event::Closed { client, life });
        }
        for other in 0..self.places.len() {
            let inc = self.places.get(other).map(|p| p.inc).unwrap_or(Incarnation(0));
            self.after(500, 50_000, Event::LinkDown { from: other, inc, to: gone.inc });
        }
    }

    fn link_up(&mut self, from: usize, inc: Incarnation, to: Incarnation) {
        let there = self.places.iter().position(|p| p.inc == to && p.engine.is_some() && p.frozen.is_none());
        let Some(place) = self.running(from, inc) else { return };
        if !place.directory.contains(&to) || place.linked.contains(&to) {
            return;
        }
        let Some(_) = there.filter(|t| !self.is_cut(from, *t)) else {
            return self.after(400_000, 600_000, Event::LinkUp { from, inc, to });
        };
        if let Some(place) = self.running(from, inc) {
            place.linked.insert(to);
        }
        self.input(from, inc, Input::Link { fe: to, up: true });
    }

    fn link_down(&mut self, from: usize, inc: Incarnation, to: Incarnation) {
        let Some(place) = self.running(from, inc) else { return };
        if place.linked.remove(&to) {
            self.input(from, inc, Input::Link { fe: to, up: false });
            self.after(400_000, 600_000, Event::LinkUp { from, inc, to });
        }
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    fn heal(&mut self, a: usize, b: usize) {
        self.cut.remove(&(a.min(b), a.max(b)));
    }

    // ---- store

    fn store_call(&mut self, fe: usize, inc: Incarnation, token: u64, operation: Operation) {
        let outcome = if self.now < self.store_away {
            Err(StoreError::Unavailable("it is away".to_owned()))
        } else {
            let now = self.store_time();
            match self.store.execute(now, &[operation]).into_iter().next() {
                Some(outcome) => Ok(outcome),
                None => return,
            }
        };
        self.after(200, 200, Event::Input { fe, inc, input: Box::new(Input::Store { token, outcome }) });
    }

    // ---- clients

    fn connect(&mut self, client: usize) {
        let now = self.now;
        let serving: Vec<usize> = (0..self.places.len())
            .filter(|fe| {
                let place = self.places.get(*fe);
                place.is_some_and(|p| p.frozen.is_some() || p.engine.as_ref().is_some_and(|e| e.ready(now)))
            })
            .collect();
        let Some(fe) = self.rng.choose(&serving).copied() else {
            return self.after(300_000, 1_000_000, Event::Connect { client });
        };
        self.lives += 1;
        let life = self.lives;
        let Some(place) = self.places.get_mut(fe) else { return };
        let inc = place.inc;
        let udp = self.clients.get(client).is_some_and(|c| c.udp);
        let flow = if udp {
            Flow::Udp { socket: 0, local: address(fe), remote: remote(client) }
        } else {
            place.serial += 1;
            place.connections.insert(place.serial, (client, life));
            Flow::Stream(place.serial)
        };
        if let Flow::Stream(serial) = flow {
            let info =
                FlowInfo { transport: Transport::Tcp, local: address(fe), remote: remote(client), server_name: None };
            self.input(fe, inc, Input::Opened { serial, info });
        }
        if let Some(path) = self.paths.get_mut(client) {
            *path = Some(Path { fe, inc, flow, life, last: now });
        }
        let wants = self.clients.get_mut(client).map(|c| c.connected(now)).unwrap_or_default();
        self.fulfil(client, wants);
    }

    fn fulfil(&mut self, client: usize, wants: Vec<Want>) {
        for want in wants {
            match want {
                Want::Send(octets) => self.from_client(client, octets),
                Want::Wake(wait, timer) => self.at(self.now + wait, Event::Wake { client, timer }),
                Want::Reconnect => self.reconnect(client),
            }
        }
    }

    /// A client gives its connection up.
    fn reconnect(&mut self, client: usize) {
        let Some(path) = self.paths.get_mut(client).and_then(Option::take) else { return };
        if let Flow::Stream(serial) = path.flow
            && let Some(place) = self.running(path.fe, path.inc)
        {
            place.connections.remove(&serial);
            let input = Box::new(Input::Closed { flow: path.flow });
            self.after(200, 2_000, Event::Input { fe: path.fe, inc: path.inc, input });
        }
        self.gone(client);
    }

    fn gone(&mut self, client: usize) {
        let now = self.now;
        if let Some(c) = self.clients.get_mut(client) {
            c.disconnected();
            self.check.disconnected(now, client, &c.user);
        }
        self.after(20_000, 2_000_000, Event::Connect { client });
    }

    fn closed(&mut self, client: usize, life: u64) {
        if self.paths.get(client).copied().flatten().is_some_and(|p| p.life == life) {
            if let Some(path) = self.paths.get_mut(client) {
                *path = None;
            }
            self.gone(client);
        }
    }

    fn from_client(&mut self, client: usize, octets: Bytes) {
        let Some(mut path) = self.paths.get(client).copied().flatten() else { return };
        if matches!(path.flow, Flow::Udp { .. }) {
            if self.rng.one_in(33) {
                return self.check.count("datagrams lost");
            }
            self.choose_path(client, &mut path);
        }
        let copies = 1 + u32::from(matches!(path.flow, Flow::Udp { .. }) && self.rng.one_in(50));
        let Ok(message) = Message::parse_datagram(octets, &Limits::default()) else { return };
        for _ in 0..copies {
            let input = Box::new(Input::Message { flow: path.flow, message: message.clone() });
            self.after(200, 2_000, Event::Input { fe: path.fe, inc: path.inc, input });
        }
    }

    /// The VIP sends a client's datagrams to another front end when the path was silent too long or is broken; and now
    /// and then for no reason at all.
    fn choose_path(&mut self, client: usize, path: &mut Path) {
        let now = self.now;
        let alive = self.running(path.fe, path.inc).is_some();
        if !alive || now.since(path.last) > PATH || self.rng.one_in(200) {
            let ready: Vec<usize> = (0..self.places.len())
                .filter(|fe| self.places.get(*fe).and_then(|p| p.engine.as_ref()).is_some_and(|e| e.ready(now)))
                .collect();
            if let Some(fe) = self.rng.choose(&ready).copied() {
                let inc = self.places.get(fe).map_or(path.inc, |p| p.inc);
                *path = Path {
                    fe,
                    inc,
                    flow: Flow::Udp { socket: 0, local: address(fe), remote: remote(client) },
                    ..*path
                };
            }
        }
        path.last = now;
        if let Some(known) = self.paths.get_mut(client) {
            *known = Some(*path);
        }
    }

    /// Only the front end that got a client's last datagram reaches it.
    fn udp_to_client(&mut self, fe: usize, inc: Incarnation, to: SocketAddr, octets: Bytes) {
        let Some(client) = (0..self.clients.len()).find(|c| remote(*c) == to) else { return };
        let Some(path) = self.paths.get(client).copied().flatten() else { return };
        let reaches = path.fe == fe && path.inc == inc && self.now.since(path.last) <= PATH;
        if !reaches || self.rng.one_in(33) {
            return self.check.count("datagrams lost");
        }
        if let Some(Some(path)) = self.paths.get_mut(client) {
            path.last = self.now;
        }
        self.after(200, 2_000, Event::ToClient { client, life: path.life, octets });
    }

    fn to_client(&mut self, client: usize, life: u64, octets: Bytes) {
        if self.paths.get(client).copied().flatten().is_none_or(|p| p.life != life) {
            return;
        }
        if octets.iter().all(|o| matches!(o, b'\r' | b'\n')) {
            if octets.len() == 4 {
                self.pong(client);
            }
            return;
        }
        let now = self.now;
        match Message::parse_datagram(octets, &Limits::default()) {
            Ok(message) if message.validate().is_ok() => {
                let (rng, check) = (&mut self.rng, &mut self.check);
                let wants =
                    self.clients.get_mut(client).map(|c| c.received(now, &message, rng, check)).unwrap_or_default();
                self.fulfil(client, wants);
            }
            _ => self.check.broke(now, "syntax", format!("device {client} got something that is no SIP message")),
        }
    }

    /// A client over a connection answers a ping; over UDP real ones are silent.
    fn pong(&mut self, client: usize) {
        let Some(path) = self.paths.get(client).copied().flatten() else { return };
        if let Flow::Stream(_) = path.flow {
            let input = Box::new(Input::Ping { flow: path.flow });
            self.after(200, 2_000, Event::Input { fe: path.fe, inc: path.inc, input });
        }
    }

    // ---- faults

    fn fault(&mut self) {
        if self.now >= self.faults_until {
            return;
        }
        let places = self.places.len() as u64;
        let fe = usize::try_from(self.rng.below(places)).unwrap_or(0);
        let other = usize::try_from(self.rng.below(places)).unwrap_or(0);
        match self.rng.below(6) {
            0 | 1 => self.kill(fe),
            2 => self.freeze(fe),
            3 if fe != other => self.cut_link(fe, other),
            4 => {
                self.check.count("store outages");
                self.store_away = self.now + self.rng.between(Duration::from_millis(300), Duration::from_secs(12));
            }
            _ => {
                // A client's own network breaks.
                let client = usize::try_from(self.rng.below(self.clients.len() as u64)).unwrap_or(0);
                self.reconnect(client);
            }
        }
        self.after(3_000_000, 14_000_000, Event::Fault);
    }

    fn kill(&mut self, fe: usize) {
        let alive = self.places.iter().filter(|p| p.engine.is_some() && p.frozen.is_none()).count();
        if alive > 1 && self.places.get(fe).is_some_and(|p| p.engine.is_some()) {
            self.check.count("front ends killed");
            self.end_front_end(fe);
            self.after(500_000, 6_000_000, Event::StartFrontEnd { fe });
        }
    }

    fn freeze(&mut self, fe: usize) {
        let now = self.now;
        let Some(place) = self.places.get_mut(fe).filter(|p| p.engine.is_some() && p.frozen.is_none()) else { return };
        place.frozen = Some(now);
        let inc = place.inc;
        let devices: Vec<usize> = place.connections.values().map(|(device, _)| *device).collect();
        self.check.count("front ends frozen");
        let wait = self.rng.between(Duration::from_millis(200), Duration::from_secs(25));
        self.at(now + wait, Event::Thaw { fe });
        if wait > STOOD_STILL {
            // Its devices are lost to the pool from now, though they find out only when it goes on.
            for device in devices {
                if let Some(client) = self.clients.get(device) {
                    self.check.disconnected(now, device, &client.user);
                }
            }
        }
        // The others notice by its silence.
        for other in 0..self.places.len() {
            let from = self.places.get(other).map(|p| p.inc).unwrap_or(Incarnation(0));
            if wait > SILENCE && other != fe {
                self.at(now + SILENCE, Event::LinkDown { from: other, inc: from, to: inc });
            }
        }
    }

    fn thaw(&mut self, fe: usize) {
        let now = self.now;
        let Some(place) = self.places.get_mut(fe) else { return };
        let Some(since) = place.frozen.take() else { return };
        if now.since(since) > STOOD_STILL {
            self.end_front_end(fe);
            return self.start_front_end(fe);
        }
        let backlog = std::mem::take(&mut place.backlog);
        place.tick = None;
        let inc = place.inc;
        for event in backlog {
            self.happen(event);
        }
        self.tick(fe, inc);
    }

    fn cut_link(&mut self, a: usize, b: usize) {
        self.check.count("links cut");
        self.cut.insert((a.min(b), a.max(b)));
        let wait = self.rng.between(Duration::from_millis(500), Duration::from_secs(20));
        self.at(self.now + wait, Event::Heal { a, b });
        let incs: Vec<Incarnation> = self.places.iter().map(|p| p.inc).collect();
        for (from, to) in [(a, b), (b, a)] {
            let (Some(inc), Some(to)) = (incs.get(from), incs.get(to)) else { continue };
            let at = self.now + SILENCE.min(wait);
            self.at(at, Event::LinkDown { from, inc: *inc, to: *to });
        }
    }
}

impl Place {
    const fn empty() -> Self {
        Self {
            engine: None,
            inc: Incarnation(0),
            frozen: None,
            backlog: Vec::new(),
            tick: None,
            serial: 0,
            lanes: [Moment::ZERO; 3],
            connections: BTreeMap::new(),
            directory: BTreeSet::new(),
            linked: BTreeSet::new(),
        }
    }
}

fn settings() -> anyhow::Result<Arc<Settings>> {
    let yaml = format!(
        "pool: sim\nsipDomains: [{DOMAIN}]\nlisteners: {{tcp: ['192.0.2.1:5060']}}\nkeyFile: /none\nstore: {{sqlite: {{folder: /none}}}}\n\
         authentication: {{digest: [SHA-256]}}\n"
    );
    let config = PoolConfig::from_yaml(&yaml)?;
    let mut settings = Settings::new(&config, &[]);
    settings.outward = Outward::default();
    Ok(Arc::new(settings))
}
