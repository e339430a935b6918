//! Requests towards endpoints: forked by the edge, carried out by the holder of the flow, at most once each.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use commpool_model::ids::{EndpointId, Key128};
use commpool_sip::build::Response;
use commpool_sip::header::HeaderName;
use commpool_sip::message::Message;
use commpool_sip::otid::Otid;
use commpool_sip::time::Moment;
use commpool_sip::transaction::{ClientDue, ClientTransactions, Outcome as Answered};
use commpool_store::ops::{Endpoint, route};

use super::Engine;
use super::flow::Flow;
use crate::services::{Caller, RETRY_AFTER, Refusal, Request, message};

/// Most requests towards clients under way.
const MAX_SENT: usize = 100_000;
/// An endpoint's own answer is awaited so long; the sender's patience is a second longer.
const ANSWER: Duration = Duration::from_secs(7);
/// How long a delivery is remembered: longer than 64·T1 and than the life of a nonce.
const MEMORY: Duration = Duration::from_secs(65);
/// Most deliveries remembered.
const MAX_REMEMBERED: usize = 400_000;
/// Largest request proxied over UDP, octets.
const MAX_UDP: usize = 8 * 1024;

/// What a request towards a client belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// A MESSAGE to an endpoint.
    Delivery(Otid, EndpointId),
    /// A NOTIFY in a dialog.
    Notify(Key128),
}

/// A request that was forked, at its edge.
#[derive(Debug)]
struct Fork {
    request: Request,
    open: usize,
    best: Best,
}

/// The best failure so far.
#[derive(Debug)]
enum Best {
    None,
    Own(u16),
    Theirs(Box<Message>),
}

impl Best {
    fn status(&self) -> Option<u16> {
        match self {
            Self::None => None,
            Self::Own(status) => Some(*status),
            Self::Theirs(answer) => answer.status().map(message::mapped),
        }
    }
}

/// How one delivery went.
#[derive(Debug)]
enum Outcome {
    Answer(Box<Message>),
    /// This status, without an answer at hand: the same request was delivered before, or cannot be carried.
    Status(u16),
    /// The flow is gone, or nobody answered.
    Gone,
}

/// What became of handing a request to a holder.
enum Handed {
    /// On its way, now or since before: an answer or a time-out follows.
    Written,
    /// Ended at once.
    Ended(Outcome),
}

/// A delivery remembered.
#[derive(Clone, Copy, Debug)]
struct Delivered {
    until: Moment,
    /// Status of the endpoint's answer, if there was one.
    status: Option<u16>,
}

/// Open forks, requests under way, and what was delivered lately.
#[derive(Debug)]
pub(super) struct Deliveries {
    sent: ClientTransactions<Flow, Sent>,
    forks: HashMap<Otid, Fork>,
    delivered: HashMap<(Otid, EndpointId), Delivered>,
    order: VecDeque<(Moment, (Otid, EndpointId))>,
}

impl Default for Deliveries {
    fn default() -> Self {
        Self {
            sent: ClientTransactions::new(MAX_SENT),
            forks: HashMap::new(),
            delivered: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl Deliveries {
    pub(super) fn next_due(&self) -> Option<Moment> {
        self.sent.next_due()
    }

    /// Notes a delivery; the one made before, if there was one.
    fn note(&mut self, now: Moment, key: (Otid, EndpointId)) -> Option<Delivered> {
        while let Some((at, oldest)) = self.order.front().copied() {
            if at > now && self.order.len() < MAX_REMEMBERED {
                break;
            }
            self.order.pop_front();
            if self.delivered.get(&oldest).is_some_and(|d| d.until == at) {
                self.delivered.remove(&oldest);
            }
        }
        if let Some(before) = self.delivered.get(&key) {
            return Some(*before);
        }
        self.delivered.insert(key, Delivered { until: now + MEMORY, status: None });
        self.order.push_back((now + MEMORY, key));
        None
    }
}

impl Engine {
    /// The routing read answered: the request goes to every endpoint, or its sender is told at once.
    pub(super) fn routed(&mut self, now: Moment, request: Request, caller: Caller, reply: route::Reply) {
        if !self.unanswered(&request.otid) {
            return;
        }
        let endpoints = match message::recipients(&self.settings, &caller, reply) {
            Ok(endpoints) => endpoints,
            Err(refusal) => return self.refuse(now, &request, &refusal),
        };
        let otid = request.otid;
        let fork = Fork { request, open: endpoints.len(), best: Best::None };
        let requests: Vec<_> = endpoints.iter().map(|e| (e.id, self.deliver(now, &fork.request, &caller, e))).collect();
        self.deliveries.forks.insert(otid, fork);
        for (endpoint, handed) in requests {
            if let Handed::Ended(outcome) = handed {
                self.delivery_ended(now, otid, endpoint, outcome);
            }
        }
    }

    /// The holder's part: at most once per (transaction, endpoint), over the flow the endpoint has now.
    fn deliver(&mut self, now: Moment, request: &Request, caller: &Caller, endpoint: &Endpoint) -> Handed {
        let held_here = endpoint.flow.fe == self.fe;
        let flow = self.registrations.flow(endpoint.id).filter(|f| held_here && self.flows.get(*f).is_some());
        let Some((flow, name)) = flow.and_then(|f| Some((f, self.name_towards(f)?))) else {
            return Handed::Ended(Outcome::Gone);
        };
        match self.deliveries.note(now, (request.otid, endpoint.id)) {
            Some(Delivered { status: Some(status), .. }) => return Handed::Ended(Outcome::Status(status)),
            Some(Delivered { status: None, .. }) => return Handed::Written,
            None => {}
        }
        let loop_hash = self.loop_hash(&request.message);
        let branch = self.key.branch(self.fe.0, &request.otid, endpoint.id.0, loop_hash);
        let octets = message::towards(request, caller, endpoint, &name.via(&branch));
        if !flow.reliable() && octets.len() > MAX_UDP {
            return Handed::Ended(Outcome::Status(513));
        }
        let sent = Sent::Delivery(request.otid, endpoint.id);
        if self.start_sent(now, flow, &branch, octets, now + ANSWER, sent) {
            Handed::Written
        } else {
            Handed::Ended(Outcome::Gone)
        }
    }

    /// Sends a request towards a client. False: no room.
    pub(super) fn start_sent(
        &mut self,
        now: Moment,
        flow: Flow,
        branch: &str,
        octets: Bytes,
        deadline: Moment,
        sent: Sent,
    ) -> bool {
        let started = self.deliveries.sent.start(now, branch, flow, flow.reliable(), octets.clone(), deadline, sent);
        if started.is_err() {
            return false;
        }
        self.send(now, flow, octets);
        true
    }

    /// A response came in: it counts only on the flow its request went out on, matched by our branch.
    pub(super) fn response(&mut self, now: Moment, flow: Flow, answer: &Message) {
        let Ok(via) = answer.top_via() else { return self.metrics.malformed() };
        let (Some(branch), Ok((_, method)), Some(status)) = (via.branch(), answer.cseq(), answer.status()) else {
            return self.metrics.malformed();
        };
        if answer.validate().is_err() {
            return self.metrics.malformed();
        }
        match self.deliveries.sent.receive(now, branch, method.as_str(), flow, status) {
            Some(Answered::Final(Sent::Delivery(otid, endpoint))) => {
                self.delivery_ended(now, otid, endpoint, Outcome::Answer(Box::new(answer.clone())));
            }
            Some(Answered::Final(Sent::Notify(id))) => self.notify_answered(now, id, status),
            Some(Answered::Provisional(_)) | None => {}
        }
    }

    fn delivery_ended(&mut self, now: Moment, otid: Otid, endpoint: EndpointId, outcome: Outcome) {
        if let (Outcome::Answer(answer), Some(delivered)) =
            (&outcome, self.deliveries.delivered.get_mut(&(otid, endpoint)))
        {
            delivered.status = answer.status();
        }
        let Some(fork) = self.deliveries.forks.get_mut(&otid) else { return };
        fork.open = fork.open.saturating_sub(1);
        let (status, best) = match outcome {
            Outcome::Answer(answer) => (answer.status().map_or(500, message::mapped), Best::Theirs(answer)),
            Outcome::Status(status) => (message::mapped(status), Best::Own(message::mapped(status))),
            Outcome::Gone => (480, Best::Own(480)),
        };
        tracing::debug!(endpoint = endpoint.0, status, "delivery ended");
        let success = status / 100 == 2;
        if success || fork.best.status().is_none_or(|b| message::better(b, status) != b) {
            fork.best = best;
        }
        if success || fork.open == 0 {
            self.finish_fork(now, &otid);
        }
    }

    /// The one final answer of a forked request goes up.
    fn finish_fork(&mut self, now: Moment, otid: &Otid) {
        let Some(fork) = self.deliveries.forks.remove(otid) else { return };
        match &fork.best {
            Best::Theirs(answer) => {
                let octets = message::relayed(&fork.request, answer, &self.key.to_tag(otid));
                self.metrics.response(answer.status().map_or(500, message::mapped));
                self.respond(now, &fork.request, octets, true);
            }
            Best::Own(status) => self.refuse(now, &fork.request, &unavailable(*status)),
            Best::None => self.refuse(now, &fork.request, &unavailable(480)),
        }
    }

    pub(super) fn deliveries_due(&mut self, now: Moment) {
        for due in self.deliveries.sent.due(now) {
            match due {
                ClientDue::Retransmit { flow, octets } => self.send(now, flow, octets),
                ClientDue::TimedOut(Sent::Delivery(otid, endpoint)) => {
                    if let Some(flow) = self.registrations.flow(endpoint) {
                        self.probe(now, flow);
                    }
                    self.delivery_ended(now, otid, endpoint, Outcome::Gone);
                }
                ClientDue::TimedOut(Sent::Notify(id)) => self.notify_unanswered(now, id),
            }
        }
    }

    /// A flow is gone, and the answers that should have come on it.
    pub(super) fn deliveries_lost(&mut self, now: Moment, flow: Flow) {
        for sent in self.deliveries.sent.flow_closed(flow) {
            match sent {
                Sent::Delivery(otid, endpoint) => self.delivery_ended(now, otid, endpoint, Outcome::Gone),
                Sent::Notify(id) => self.notify_lost(id),
            }
        }
    }

    /// 3.5 s without a final answer (RFC 4320 §4.1).
    pub(super) fn trying(&mut self, now: Moment, otid: &Otid) {
        let Some(fork) = self.deliveries.forks.get(otid) else { return };
        let request = fork.request.clone();
        let octets = Response::to(&request.message, 100).source(request.info.remote).build();
        self.respond(now, &request, octets, false);
    }

    /// The sender's patience is over: never 408 (RFC 4320 §4.2).
    pub(super) fn overdue(&mut self, now: Moment, otid: &Otid) {
        if let Some(fork) = self.deliveries.forks.remove(otid) {
            self.refuse(now, &fork.request, &unavailable(480));
        }
    }
}

fn unavailable(status: u16) -> Refusal {
    let refusal = Refusal::status(status);
    if status == 480 || status / 100 == 5 { refusal.with(HeaderName::RetryAfter, RETRY_AFTER) } else { refusal }
}
