//! The engine's task: sockets, store and timers around the engine, one wake-up for as much as there is.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use commpool_sip::time::Moment;
use commpool_store::ops::Operation;
use commpool_store::{Reply, Store, StoreError};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::engine::flow::Flow;
use crate::engine::{Engine, Input, Output};
use crate::management::Management;
use crate::metrics::Metrics;
use crate::peers::links::Links;
use crate::settings::Settings;
use crate::transport::stream::{Event, Sender};
use crate::transport::udp::UdpSockets;

/// Most inputs of one kind taken in before the others have their turn.
const BATCH: usize = 256;
/// A task that wakes this much later than it was to has stood still: what waits in its buffers is too old.
const STOOD_STILL: Duration = Duration::from_secs(5);
/// How often gauges are set.
const GAUGES: Duration = Duration::from_secs(1);

/// Everything around an engine.
pub struct FrontEnd {
    engine: Engine,
    udp: UdpSockets,
    store: Store,
    events: mpsc::Receiver<Event>,
    replies: mpsc::UnboundedReceiver<Input>,
    reply_to: mpsc::UnboundedSender<Input>,
    settings: tokio::sync::watch::Receiver<Arc<Settings>>,
    connections: HashMap<u32, Sender>,
    timer: Pin<Box<Sleep>>,
    armed: Option<Moment>,
    heartbeat: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
    gauges_at: Moment,
    management: Arc<Management>,
    /// Why it does not serve, as the management port says it.
    unfit: Option<StoreError>,
    finish: Duration,
    peers: mpsc::Receiver<Input>,
    links: Option<Links>,
    over: bool,
}

/// Why a front end has stopped serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to, and has finished.
    Finished,
    /// Its incarnation is over: it starts anew.
    Over,
}

/// What a [`FrontEnd`] is made of.
pub struct Parts {
    /// The engine.
    pub engine: Engine,
    /// UDP sockets.
    pub udp: UdpSockets,
    /// The store.
    pub store: Store,
    /// Events of connections.
    pub events: mpsc::Receiver<Event>,
    /// Settings as they change.
    pub settings: tokio::sync::watch::Receiver<Arc<Settings>>,
    /// Set to the boot-time clock (µs) at each turn: liveness.
    pub heartbeat: Arc<AtomicU64>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Is told whether new clients are welcome, and why not.
    pub management: Arc<Management>,
    /// Everything is finished within this after the signal to end.
    pub finish: Duration,
    /// What other front ends say.
    pub peers: mpsc::Receiver<Input>,
    /// Links to them.
    pub links: Option<Links>,
}

impl FrontEnd {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        let (reply_to, replies) = mpsc::unbounded_channel();
        // Who is told that it serves may ask at once whether it is ready.
        parts.management.ready.store(parts.engine.ready(clock::now()), Ordering::Relaxed);
        Self {
            engine: parts.engine,
            udp: parts.udp,
            store: parts.store,
            events: parts.events,
            replies,
            reply_to,
            settings: parts.settings,
            connections: HashMap::new(),
            timer: Box::pin(sleep(Duration::ZERO)),
            armed: None,
            heartbeat: parts.heartbeat,
            metrics: parts.metrics,
            gauges_at: Moment::ZERO,
            management: parts.management,
            unfit: None,
            finish: parts.finish,
            peers: parts.peers,
            links: parts.links,
            over: false,
        }
    }

    /// Goes on with a new incarnation, after [`Ended::Over`]: no flow, no call and no message of the old one survives.
    pub fn start_anew(&mut self, engine: Engine, links: Option<Links>) {
        self.connections.clear();
        while self.events.try_recv().is_ok() {}
        while self.replies.try_recv().is_ok() {}
        while self.peers.try_recv().is_ok() {}
        self.udp.discard();
        (self.engine, self.links, self.over, self.armed) = (engine, links, false, None);
        self.say_ready(clock::now());
    }

    /// Serves until `stop`, then finishes what is open and lets every flow go; or until its incarnation is over.
    /// `accepting` is cancelled once no new connections are wanted.
    pub async fn run(&mut self, stop: &CancellationToken, accepting: &CancellationToken) -> Ended {
        while !self.over && self.turn(stop).await {}
        if self.over {
            self.management.ready.store(false, Ordering::Relaxed);
            self.connections.clear();
            return Ended::Over;
        }
        let begun = clock::now();
        self.engine.drain(begun);
        let never = CancellationToken::new();
        while !self.over && !self.engine.drained() && clock::now() < begun + self.finish {
            if !self.engine.accepts() {
                accepting.cancel();
            }
            let _ = tokio::time::timeout(Duration::from_millis(100), self.turn(&never)).await;
        }
        accepting.cancel();
        // Clearing the senders closes the connections after what was queued.
        self.connections.clear();
        Ended::Finished
    }

    /// One turn: waits for something, takes it in, carries out what follows. False: told to stop.
    async fn turn(&mut self, stop: &CancellationToken) -> bool {
        let mut inputs = Vec::with_capacity(BATCH);
        let mut events = Vec::new();
        self.arm();
        let stopped = tokio::select! {
            biased;
            () = stop.cancelled() => true,
            Ok(()) = self.settings.changed() => {
                let settings = Arc::clone(&self.settings.borrow_and_update());
                inputs.push(Input::Settings(settings));
                false
            }
            () = std::future::poll_fn(|cx| {
                let sources = Sources {
                    events: &mut self.events,
                    replies: &mut self.replies,
                    peers: &mut self.peers,
                    udp: &mut self.udp,
                    timer: self.timer.as_mut(),
                };
                sources.poll(cx, &mut events, &mut inputs)
            }) => false,
        };
        let now = clock::now();
        if self.links.is_some() && self.armed.is_some_and(|at| now.since(at) > STOOD_STILL) {
            tracing::error!("stood still for seconds: all clients must sign in anew");
            self.over = true;
            return !stopped;
        }
        self.heartbeat.store(now.as_micros(), Ordering::Relaxed);
        for event in events {
            let input = self.event(event);
            self.engine.handle(now, input);
        }
        for input in inputs {
            self.engine.handle(now, input);
        }
        if self.engine.next_due().is_some_and(|at| at <= now) {
            self.engine.tick(now);
        }
        self.carry_out();
        self.say_ready(now);
        if now >= self.gauges_at {
            self.metrics.gauges(self.engine.gauges());
            self.gauges_at = now + GAUGES;
        }
        !stopped
    }

    /// Says whether new clients are welcome; the reason first, so that nobody is told no without it.
    fn say_ready(&mut self, now: Moment) {
        if self.engine.unfit() != self.unfit.as_ref() {
            self.unfit = self.engine.unfit().cloned();
            self.management.waits_for(self.unfit.as_ref().map(ToString::to_string));
        }
        self.management.ready.store(self.engine.ready(now), Ordering::Relaxed);
    }

    /// Moves the timer only when something is due earlier than it would ring, or it has rung.
    fn arm(&mut self) {
        let now = clock::now();
        let wanted = self.engine.next_due().unwrap_or(now + Duration::from_secs(1)).max(now);
        if self.armed.is_none_or(|at| wanted < at || at <= now) {
            self.timer.as_mut().reset(Instant::now() + wanted.since(now));
            self.armed = Some(wanted);
        }
    }

    fn event(&mut self, event: Event) -> Input {
        match event {
            Event::Opened { serial, info, sender } => {
                self.connections.insert(serial, sender);
                Input::Opened { serial, info }
            }
            Event::Input(input) => {
                if let Input::Closed { flow: Flow::Stream(serial) } = &input {
                    self.connections.remove(serial);
                }
                input
            }
        }
    }

    fn carry_out(&mut self) {
        let mut calls: Vec<(Operation, Reply)> = Vec::new();
        let mut refused = Vec::new();
        while let Some(output) = self.engine.poll() {
            match output {
                Output::Send { flow: flow @ Flow::Udp { .. }, octets } => self.udp.send(flow, &octets),
                Output::Send { flow: Flow::Stream(serial), octets } => {
                    let sent = self.connections.get(&serial).map(|c| c.send(octets));
                    if let Some(Err(_)) = sent {
                        self.connections.remove(&serial);
                    }
                }
                Output::Close { flow: Flow::Stream(serial) } => {
                    self.connections.remove(&serial);
                }
                Output::Close { flow: Flow::Udp { .. } } => {}
                Output::Store { token, operation } => {
                    let reply_to = self.reply_to.clone();
                    let reply: Reply = Box::new(move |outcome| {
                        let _ = reply_to.send(Input::Store { token, outcome });
                    });
                    calls.push((*operation, reply));
                }
                Output::Frame { fe, frame } => {
                    if let Some(Err(frame)) = self.links.as_ref().map(|links| links.send(fe, frame)) {
                        refused.push((fe, frame));
                    }
                }
                Output::Directory(directory) => {
                    if let Some(links) = &mut self.links {
                        links.set(&directory);
                    }
                }
                Output::Restart => self.over = true,
            }
        }
        if !calls.is_empty() {
            self.store.submit_many(calls);
        }
        for (fe, frame) in refused {
            self.engine.handle(clock::now(), Input::NotTold { fe, frame });
        }
    }
}

/// Everything that can wake a front end.
struct Sources<'a> {
    events: &'a mut mpsc::Receiver<Event>,
    replies: &'a mut mpsc::UnboundedReceiver<Input>,
    peers: &'a mut mpsc::Receiver<Input>,
    udp: &'a mut UdpSockets,
    timer: Pin<&'a mut Sleep>,
}

impl Sources<'_> {
    /// Takes in what is there, from every side; ready if there was anything.
    fn poll(self, cx: &mut Context<'_>, events: &mut Vec<Event>, inputs: &mut Vec<Input>) -> Poll<()> {
        let replied = self.replies.poll_recv_many(cx, inputs, BATCH).is_ready();
        let told = self.peers.poll_recv_many(cx, inputs, BATCH).is_ready();
        let happened = self.events.poll_recv_many(cx, events, BATCH).is_ready();
        let received = self.udp.poll_receive(cx, inputs).is_ready();
        let rang = self.timer.poll(cx).is_ready();
        if replied || told || happened || received || rang { Poll::Ready(()) } else { Poll::Pending }
    }
}
