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
use commpool_store::{Reply, Store};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::engine::flow::Flow;
use crate::engine::{Engine, Input, Output};
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::transport::stream::{Event, Sender};
use crate::transport::udp::UdpSockets;

/// Most inputs of one kind taken in before the others have their turn.
const BATCH: usize = 256;
/// Open requests are finished within this after the signal to end.
const FINISH: Duration = Duration::from_secs(2);
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
}

impl FrontEnd {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        let (reply_to, replies) = mpsc::unbounded_channel();
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
        }
    }

    /// Serves until `stop`, then finishes what is open and closes every flow.
    pub async fn run(mut self, stop: CancellationToken) {
        while self.turn(&stop).await {}
        self.engine.drain();
        let deadline = clock::now() + FINISH;
        let never = CancellationToken::new();
        while !self.engine.idle() && clock::now() < deadline {
            let _ = tokio::time::timeout(Duration::from_millis(100), self.turn(&never)).await;
        }
        // Dropping the senders closes the connections after what was queued.
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
                poll(cx, &mut self.events, &mut self.replies, &mut self.udp, self.timer.as_mut(), &mut events, &mut inputs)
            }) => false,
        };
        let now = clock::now();
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
        if now >= self.gauges_at {
            self.metrics.gauges(self.engine.gauges());
            self.gauges_at = now + GAUGES;
        }
        !stopped
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
            }
        }
        if !calls.is_empty() {
            self.store.submit_many(calls);
        }
    }
}

/// Takes in what is there, from every side; ready if there was anything.
fn poll(
    cx: &mut Context<'_>,
    events_from: &mut mpsc::Receiver<Event>,
    replies: &mut mpsc::UnboundedReceiver<Input>,
    udp: &mut UdpSockets,
    timer: Pin<&mut Sleep>,
    events: &mut Vec<Event>,
    inputs: &mut Vec<Input>,
) -> Poll<()> {
    let replied = replies.poll_recv_many(cx, inputs, BATCH).is_ready();
    let happened = events_from.poll_recv_many(cx, events, BATCH).is_ready();
    let received = udp.poll_receive(cx, inputs).is_ready();
    let rang = timer.poll(cx).is_ready();
    if replied || happened || received || rang { Poll::Ready(()) } else { Poll::Pending }
}
