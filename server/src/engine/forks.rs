//! Forked requests at their edge: one leg per endpoint, wherever its flow is, and one final answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use commpool_model::ids::{EndpointId, Incarnation};
use commpool_sip::build::Response;
use commpool_sip::header::HeaderName;
use commpool_sip::message::Message;
use commpool_sip::otid::Otid;
use commpool_sip::time::Moment;
use commpool_store::ops::{Endpoint, route};

use super::Engine;
use super::holder::{Asker, Delivery, Fate};
use super::upkeep::Due;
use crate::peers::frame::{self, Frame, Said};
use crate::services::{Caller, RETRY_AFTER, Refusal, Request, message};

/// A holder says within this what became of a delivery.
const ACK: Duration = Duration::from_secs(1);
/// A parked delivery is awaited for so long.
const PARKED: Duration = Duration::from_millis(4_500);
/// A delivery follows its endpoint from front end to front end at most so often.
const MOST_MOVES: u8 = 2;

/// A request that was forked.
#[derive(Debug)]
struct Fork {
    request: Request,
    caller: Caller,
    legs: BTreeMap<EndpointId, Leg>,
    best: Best,
}

/// One endpoint's part of a fork.
#[derive(Debug)]
struct Leg {
    fe: Incarnation,
    moves: u8,
    contact: String,
    path: Vec<String>,
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

/// How one leg ended.
#[derive(Debug)]
pub(super) enum End {
    /// With the endpoint's answer.
    Answer(Box<Message>),
    /// With this status, without an answer at hand.
    Status(u16),
}

/// Open forks.
#[derive(Debug, Default)]
pub(super) struct Forks {
    open: HashMap<Otid, Fork>,
    /// Legs at other front ends, so that the end of one ends them.
    at_peer: HashMap<Incarnation, BTreeSet<(Otid, EndpointId)>>,
}

impl Forks {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    fn leg(&self, otid: &Otid, endpoint: EndpointId, fe: Incarnation) -> Option<&Leg> {
        self.open.get(otid)?.legs.get(&endpoint).filter(|leg| leg.fe == fe)
    }

    fn leave(&mut self, fe: Incarnation, otid: Otid, endpoint: EndpointId) {
        if let Some(legs) = self.at_peer.get_mut(&fe) {
            legs.remove(&(otid, endpoint));
            if legs.is_empty() {
                self.at_peer.remove(&fe);
            }
        }
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
        let leg = |e: Endpoint| (e.id, Leg { fe: e.flow.fe, moves: 0, contact: e.contact, path: e.path });
        let legs: BTreeMap<_, _> = endpoints.into_iter().map(leg).collect();
        let to: Vec<_> = legs.iter().map(|(id, leg)| (*id, leg.fe)).collect();
        self.forks.open.insert(otid, Fork { request, caller, legs, best: Best::None });
        for (endpoint, fe) in to {
            self.hand(now, otid, endpoint, fe);
        }
    }

    /// Hands a leg to the holder of its flow: here, or another front end.
    fn hand(&mut self, now: Moment, otid: Otid, endpoint: EndpointId, fe: Incarnation) {
        let Some(fork) = self.forks.open.get(&otid) else { return };
        let Some(leg) = fork.legs.get(&endpoint) else { return };
        let delivery = Delivery {
            otid,
            endpoint,
            caller: fork.caller.address.clone(),
            source: fork.request.info.remote,
            contact: leg.contact.clone(),
            path: leg.path.clone(),
            request: fork.request.message.clone(),
        };
        let patience = self.patience(now, fork.request.received);
        if fe == self.fe {
            let fate = self.take(now, Asker::Here, delivery, patience);
            return self.leg_fate(now, otid, endpoint, fate);
        }
        let deliver = frame::Deliver {
            otid,
            endpoint,
            caller: delivery.caller,
            source: delivery.source,
            contact: delivery.contact,
            path: delivery.path,
            patience: u32::try_from(patience.as_millis()).unwrap_or(0),
            request: delivery.request.octets().clone(),
        };
        if !self.tell(fe, Frame::Deliver(Box::new(deliver))) {
            return self.leg_ended(now, otid, endpoint, End::Status(480));
        }
        self.forks.at_peer.entry(fe).or_default().insert((otid, endpoint));
        self.timers.set(Due::Ack(otid, endpoint), now + ACK);
    }

    /// What is left of the time an endpoint has for its answer.
    fn patience(&self, now: Moment, received: Moment) -> Duration {
        super::holder::ANSWER.saturating_sub(now.since(received))
    }

    /// A holder says what became of a delivery.
    pub(super) fn acknowledged(&mut self, now: Moment, from: Incarnation, ack: frame::Ack) {
        if self.forks.leg(&ack.otid, ack.endpoint, from).is_some() {
            self.timers.clear(&Due::Ack(ack.otid, ack.endpoint));
            self.leg_fate(now, ack.otid, ack.endpoint, ack.fate);
        }
    }

    pub(super) fn leg_fate(&mut self, now: Moment, otid: Otid, endpoint: EndpointId, fate: Fate) {
        let status = match fate {
            Fate::Written => return,
            Fate::Parked => return self.timers.set(Due::Ack(otid, endpoint), now + PARKED),
            Fate::Moved(fe) => return self.leg_moved(now, otid, endpoint, fe),
            Fate::Gone => 480,
            Fate::Busy => 500,
            Fate::TooLarge => 513,
        };
        self.leg_ended(now, otid, endpoint, End::Status(status));
    }

    /// The endpoint is signed in elsewhere by now: the same delivery goes there.
    fn leg_moved(&mut self, now: Moment, otid: Otid, endpoint: EndpointId, to: Incarnation) {
        let Some(fork) = self.forks.open.get_mut(&otid) else { return };
        let Some(leg) = fork.legs.get_mut(&endpoint) else { return };
        let before = std::mem::replace(&mut leg.fe, to);
        leg.moves += 1;
        let lost = leg.moves > MOST_MOVES || before == to;
        self.forks.leave(before, otid, endpoint);
        if lost {
            self.leg_ended(now, otid, endpoint, End::Status(480));
        } else {
            self.hand(now, otid, endpoint, to);
        }
    }

    /// An endpoint's answer came from another front end.
    pub(super) fn peer_answered(&mut self, now: Moment, from: Incarnation, answer: frame::Answer) {
        let frame::Answer { otid, endpoint, said } = answer;
        if self.forks.leg(&otid, endpoint, from).is_none() {
            return;
        }
        let end = match said {
            Said::Response(octets) => match self.parse_peer(octets) {
                Some(message) if !message.is_request() => End::Answer(Box::new(message)),
                _ => End::Status(500),
            },
            Said::Before(status) => End::Status(message::mapped(status)),
            Said::Nothing => End::Status(480),
        };
        self.leg_ended(now, otid, endpoint, end);
    }

    /// No acknowledgement in time: it may or may not have been shown, so it is not tried elsewhere.
    pub(super) fn unacknowledged(&mut self, now: Moment, otid: Otid, endpoint: EndpointId) {
        self.leg_ended(now, otid, endpoint, End::Status(480));
    }

    /// A front end is gone, and all it was to deliver.
    pub(super) fn legs_lost(&mut self, now: Moment, fe: Incarnation) {
        for (otid, endpoint) in self.forks.at_peer.remove(&fe).unwrap_or_default() {
            self.leg_ended(now, otid, endpoint, End::Status(480));
        }
    }

    pub(super) fn leg_ended(&mut self, now: Moment, otid: Otid, endpoint: EndpointId, end: End) {
        let Some(fork) = self.forks.open.get_mut(&otid) else { return };
        let Some(leg) = fork.legs.remove(&endpoint) else { return };
        let (status, best) = match end {
            End::Answer(answer) => (answer.status().map_or(500, message::mapped), Best::Theirs(answer)),
            End::Status(status) => (status, Best::Own(status)),
        };
        tracing::debug!(endpoint = endpoint.0, status, "delivery ended");
        let success = status / 100 == 2;
        if success || fork.best.status().is_none_or(|b| message::better(b, status) != b) {
            fork.best = best;
        }
        let done = success || fork.legs.is_empty();
        self.forks.leave(leg.fe, otid, endpoint);
        self.timers.clear(&Due::Ack(otid, endpoint));
        if done {
            self.finish_fork(now, &otid);
        }
    }

    fn close_fork(&mut self, otid: &Otid) -> Option<Fork> {
        let fork = self.forks.open.remove(otid)?;
        for (endpoint, leg) in &fork.legs {
            self.forks.leave(leg.fe, *otid, *endpoint);
            self.timers.clear(&Due::Ack(*otid, *endpoint));
        }
        Some(fork)
    }

    /// The one final answer of a forked request goes up.
    fn finish_fork(&mut self, now: Moment, otid: &Otid) {
        let Some(fork) = self.close_fork(otid) else { return };
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

    /// 3.5 s without a final answer (RFC 4320 §4.1).
    pub(super) fn trying(&mut self, now: Moment, otid: &Otid) {
        let Some(fork) = self.forks.open.get(otid) else { return };
        let request = fork.request.clone();
        let octets: Bytes = Response::to(&request.message, 100).source(request.info.remote).build();
        self.respond(now, &request, octets, false);
    }

    /// The sender's patience is over: never 408 (RFC 4320 §4.2).
    pub(super) fn overdue(&mut self, now: Moment, otid: &Otid) {
        if let Some(fork) = self.close_fork(otid) {
            self.refuse(now, &fork.request, &unavailable(480));
        }
    }
}

fn unavailable(status: u16) -> Refusal {
    let refusal = Refusal::status(status);
    if status == 480 || status / 100 == 5 { refusal.with(HeaderName::RetryAfter, RETRY_AFTER) } else { refusal }
}
