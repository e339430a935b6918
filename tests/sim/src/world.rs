//! The world of one run: front ends, store, network, clients, faults, and the order of everything.

mod faults;
mod network;
mod store;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commpool_model::config::{Outward, PoolConfig};
use commpool_model::ids::Incarnation;
use commpool_server::engine::flow::Flow;
use commpool_server::engine::{Engine, Input, Output, Pace, Start};
use commpool_server::metrics::Metrics;
use commpool_server::settings::Settings;
use commpool_sip::digest::{Algorithm, ha1};
use commpool_sip::otid::PoolKey;
use commpool_sip::time::Moment;
use commpool_store::ops::accounts::{ChangedSince, Put};
use commpool_store::ops::credentials::{self, Verifier};
use commpool_store::ops::{Class, Operation, Outcome, front_ends};
use commpool_store::{Memory, SoftRows};

use self::store::Outage;
use crate::check::Check;
use crate::client::{Client, Timer};
use crate::rng::Rng;
use crate::sip::{DOMAIN, password};

/// Seconds since 1970 at the beginning of a run: 2026-11-24.
const EPOCH: u64 = 1_795_500_000;

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
    Crash { kept: Box<SoftRows> },
    Heal { a: usize, b: usize },
    Fault,
    Look,
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
    outage: Outage,
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
            outage: Outage::NONE,
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
            // Each has its own rhythm of renewals; the first is there for the first clients.
            let at = world.now + rng.between(Duration::ZERO, Duration::from_secs(5)) * u32::from(fe > 0);
            world.at(at, Event::StartFrontEnd { fe });
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
                world.check.has_device(user, udp);
                let at = world.now + rng.between(Duration::from_millis(100), Duration::from_secs(4));
                world.at(at, Event::Connect { client: index });
            }
        }
        let first = world.now + rng.between(Duration::from_secs(8), Duration::from_secs(15));
        world.at(first, Event::Fault);
        world.at(first, Event::Look);
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

    /// How many devices have a connection to the front end in a place.
    pub fn connections(&self, fe: usize) -> usize {
        self.places.get(fe).map_or(0, |place| place.connections.len())
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
        self.outage = Outage::NONE;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Input { fe, inc, input } => self.input(fe, inc, *input),
            Event::Tick { fe, inc } => self.tick(fe, inc),
            Event::Store { fe, inc, token, operation } => self.store_call(fe, inc, token, *operation),
            Event::Connect { client } => self.connect(client),
            Event::ToClient { client, life, octets } => self.received(client, life, octets),
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
            Event::Crash { kept } => self.crash(*kept),
            Event::Heal { a, b } => self.heal(a, b),
            Event::Fault => self.fault(),
            Event::Look => self.look(),
        }
    }

    /// Once a second: who is dead, and who carries which dialog.
    fn look(&mut self) {
        if let Some(listed) = self.execute(front_ends::List.into()) {
            self.check.stored(self.now, Incarnation(0), Class::Read, &listed);
        }
        let now = self.now;
        if !self.cut.is_empty() {
            // Nobody can be told that his dialog is elsewhere; until then the client itself refuses old numbers.
            self.check.may_tell_again();
        }
        let engines = self.places.iter().filter_map(|place| place.engine.as_ref());
        self.check.owners(now, engines.flat_map(|engine| engine.carried(now)));
        self.at(now + Duration::from_secs(1), Event::Look);
    }

    // ---- front ends

    fn start_front_end(&mut self, fe: usize) {
        if self.store_is_away(fe) {
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
            Output::Send { flow: Flow::Udp { remote, .. }, octets } => self.datagram(fe, inc, remote, octets),
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

    fn close(&mut self, fe: usize, flow: Flow) {
        let now = self.now;
        let Some(place) = self.places.get_mut(fe) else { return };
        if let Flow::Stream(serial) = flow
            && let Some((client, life)) = place.connections.remove(&serial)
        {
            self.check.count("connections closed by front ends");
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
