//! Deliveries to endpoints whose flow is here: at most once per (transaction, endpoint), whichever edge asks.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use commpool_model::ids::{EndpointId, Incarnation, Key128, UserRef};
use commpool_sip::message::Message;
use commpool_sip::otid::Otid;
use commpool_sip::time::Moment;
use commpool_sip::transaction::{ClientDue, ClientTransactions, Outcome as Answered};
use commpool_store::ops::Transport;

use super::Engine;
use super::flow::Flow;
use super::forks::End;
use super::upkeep::Due;
pub(super) use crate::peers::frame::Fate;
use crate::peers::frame::{self, Frame, HandOver, Said};
use crate::services::message;

/// Most requests towards clients under way.
const MAX_SENT: usize = 100_000;
/// An endpoint's own answer is awaited so long; the sender's patience is a second longer.
pub(super) const ANSWER: Duration = Duration::from_secs(7);
/// How long a delivery is remembered: longer than 64·T1 and than the life of a nonce.
const MEMORY: Duration = Duration::from_secs(65);
/// Most deliveries remembered.
const MAX_REMEMBERED: usize = 400_000;
/// Largest request proxied over UDP, octets.
const MAX_UDP: usize = 8 * 1024;
/// A closed flow's endpoint is expected back for so long.
const STUB: Duration = Duration::from_secs(10);
/// A delivery waits for it so long.
const PARKED: Duration = Duration::from_secs(4);
/// What belongs to an endpoint that came here is awaited so long.
const HAND_OVER: Duration = Duration::from_secs(1);
/// Where an endpoint has gone is known for so long: a routing read may be as old as the patience with the store.
const FOLLOWED: Duration = Duration::from_secs(4);
/// Most endpoints of which that is known.
const MAX_MOVED: usize = 20_000;
/// Most deliveries that wait for one endpoint.
const MAX_PARKED: usize = 64;

/// Who asked for a delivery, and gets its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// This front end is the edge.
    Here,
    /// Another one is.
    Peer(Incarnation),
}

/// A request for an endpoint.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) otid: Otid,
    pub(super) endpoint: EndpointId,
    /// Proven sender.
    pub(super) caller: String,
    /// Where the request came from.
    pub(super) source: SocketAddr,
    pub(super) contact: String,
    pub(super) path: Vec<String>,
    pub(super) request: Message,
}

/// What a request towards a client belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// A request to an endpoint.
    Delivery(Otid, EndpointId),
    /// A NOTIFY in a dialog.
    Notify(Key128),
}

/// A delivery remembered.
#[derive(Debug)]
struct Delivered {
    until: Moment,
    /// Status of the endpoint's answer, if there was one.
    status: Option<u16>,
    /// Who waits for it.
    askers: Vec<Asker>,
}

/// A delivery for an endpoint whose flow has just closed.
#[derive(Debug)]
struct Parked {
    asker: Asker,
    delivery: Delivery,
    until: Moment,
}

/// Requests under way, what was delivered lately, and whom we expect back.
#[derive(Debug)]
pub(super) struct Holder {
    sent: ClientTransactions<Flow, Sent>,
    delivered: HashMap<(Otid, EndpointId), Delivered>,
    order: VecDeque<(Moment, (Otid, EndpointId))>,
    stubs: HashMap<EndpointId, Vec<Parked>>,
    /// Endpoints that were here and are elsewhere: who was routed by an older row is sent after them.
    moved: HashMap<EndpointId, Incarnation>,
    moved_order: VecDeque<(Moment, EndpointId, Incarnation)>,
    /// Flows we closed: not yet lost in the store, since their endpoints may be back somewhere.
    unlost: BTreeMap<(UserRef, u32), Moment>,
}

impl Default for Holder {
    fn default() -> Self {
        Self {
            sent: ClientTransactions::new(MAX_SENT),
            delivered: HashMap::new(),
            order: VecDeque::new(),
            stubs: HashMap::new(),
            moved: HashMap::new(),
            moved_order: VecDeque::new(),
            unlost: BTreeMap::new(),
        }
    }
}

impl Holder {
    pub(super) fn next_due(&self) -> Option<Moment> {
        self.sent.next_due()
    }

    /// Requests towards clients.
    pub(super) fn open(&self) -> usize {
        self.sent.len()
    }

    /// Endpoints that are expected back, and closed flows not yet lost.
    pub(super) fn stubs(&self) -> usize {
        self.stubs.len() + self.unlost.len()
    }

    /// Whether a request towards the client of a flow waits for its answer.
    pub(super) fn has_open(&self, flow: Flow) -> bool {
        self.sent.has_open(flow)
    }

    /// Notes where an endpoint of ours has gone.
    pub(super) fn note_moved(&mut self, now: Moment, endpoint: EndpointId, to: Incarnation) {
        while let Some((at, oldest, there)) = self.moved_order.front().copied() {
            if at > now && self.moved_order.len() < MAX_MOVED {
                break;
            }
            self.moved_order.pop_front();
            if self.moved.get(&oldest) == Some(&there) {
                self.moved.remove(&oldest);
            }
        }
        self.moved.insert(endpoint, to);
        self.moved_order.push_back((now + FOLLOWED, endpoint, to));
    }

    fn forget_old(&mut self, now: Moment) {
        while let Some((at, oldest)) = self.order.front().copied() {
            if at > now && self.order.len() < MAX_REMEMBERED {
                break;
            }
            self.order.pop_front();
            if self.delivered.get(&oldest).is_some_and(|d| d.until == at) {
                self.delivered.remove(&oldest);
            }
        }
    }

    /// What was delivered to an endpoint and is remembered, newest last; at most as much as a frame takes.
    pub(super) fn delivered_to(&self, endpoint: EndpointId) -> Vec<(Otid, u16)> {
        let of = self.order.iter().rev().map(|(_, key)| *key).filter(|(_, e)| *e == endpoint);
        let known = of.filter_map(|key| self.delivered.get(&key).map(|d| (key.0, d.status.unwrap_or(0))));
        known.take(frame::MOST).collect()
    }

    /// Notes a delivery. `Some`: it was made before; its status, if it is known already.
    fn note(&mut self, now: Moment, key: (Otid, EndpointId), asker: Asker) -> Option<Option<u16>> {
        self.forget_old(now);
        if let Some(before) = self.delivered.get_mut(&key) {
            if before.status.is_none() && !before.askers.contains(&asker) {
                before.askers.push(asker);
            }
            return Some(before.status);
        }
        let until = now + MEMORY;
        self.delivered.insert(key, Delivered { until, status: None, askers: vec![asker] });
        self.order.push_back((until, key));
        None
    }
}

impl Engine {
    /// Another front end asks for a delivery.
    pub(super) fn peer_asks(&mut self, now: Moment, from: Incarnation, deliver: frame::Deliver) {
        let (otid, endpoint) = (deliver.otid, deliver.endpoint);
        let fate = match self.parse_peer(deliver.request) {
            Some(request) if request.is_request() => {
                let patience = Duration::from_millis(deliver.patience.into()).min(ANSWER);
                let delivery = Delivery {
                    otid,
                    endpoint,
                    caller: deliver.caller,
                    source: deliver.source,
                    contact: deliver.contact,
                    path: deliver.path,
                    request,
                };
                self.take(now, Asker::Peer(from), delivery, patience)
            }
            _ => Fate::Gone,
        };
        self.tell(from, Frame::Ack(frame::Ack { otid, endpoint, fate }));
    }

    /// Takes a delivery in: over the flow the endpoint has now, once.
    pub(super) fn take(&mut self, now: Moment, asker: Asker, delivery: Delivery, patience: Duration) -> Fate {
        let flow = self.registrations.flow(delivery.endpoint).filter(|f| self.flows.get(*f).is_some());
        let Some(flow) = flow.filter(|_| !self.holder.stubs.contains_key(&delivery.endpoint)) else {
            return self.park(now, asker, delivery);
        };
        let Some(name) = self.name_towards(flow) else { return Fate::Gone };
        let key = (delivery.otid, delivery.endpoint);
        match self.holder.note(now, key, asker) {
            Some(Some(status)) => {
                match asker {
                    Asker::Here => self.leg_ended(now, key.0, key.1, End::Status(message::mapped(status))),
                    Asker::Peer(fe) => self.say(fe, key, Said::Before(status)),
                }
                return Fate::Written;
            }
            Some(None) => return Fate::Written,
            None => {}
        }
        if message::needs_tls(&delivery.request) && !self.is_tls(flow) {
            self.holder.delivered.remove(&key);
            return Fate::Gone;
        }
        let loop_hash = self.loop_hash(&delivery.request);
        let branch = self.key.branch(self.fe.0, &delivery.otid, delivery.endpoint.0, loop_hash);
        let octets = message::towards(
            &delivery.request,
            &message::Towards {
                source: delivery.source,
                caller: &delivery.caller,
                contact: &delivery.contact,
                path: &delivery.path,
                via: &name.via(&branch),
            },
        );
        if !flow.reliable() && octets.len() > MAX_UDP {
            self.holder.delivered.remove(&key);
            return Fate::TooLarge;
        }
        if self.start_sent(now, flow, &branch, octets, now + patience, Sent::Delivery(key.0, key.1)) {
            Fate::Written
        } else {
            self.holder.delivered.remove(&key);
            Fate::Busy
        }
    }

    fn is_tls(&self, flow: Flow) -> bool {
        self.flows.get(flow).is_some_and(|state| state.info.transport == Transport::Tls)
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
        let started = self.holder.sent.start(now, branch, flow, flow.reliable(), octets.clone(), deadline, sent);
        if started.is_err() {
            return false;
        }
        self.send(now, flow, octets);
        true
    }

    /// A response came in on one of our flows.
    pub(super) fn response(&mut self, now: Moment, flow: Flow, answer: &Message) {
        if answer.validate().is_err() {
            return self.metrics.malformed();
        }
        if !self.pass_on(flow, answer) {
            self.response_on(now, flow, answer);
        }
    }

    /// A response counts only on the flow its request went out on, matched by our branch.
    pub(super) fn response_on(&mut self, now: Moment, flow: Flow, answer: &Message) {
        let Ok(via) = answer.top_via() else { return };
        let (Some(branch), Ok((_, method)), Some(status)) = (via.branch(), answer.cseq(), answer.status()) else {
            return;
        };
        match self.holder.sent.receive(now, branch, method.as_str(), flow, status) {
            Some(Answered::Final(Sent::Delivery(otid, endpoint))) => {
                self.delivered(now, (otid, endpoint), Some(answer));
            }
            Some(Answered::Final(Sent::Notify(id))) => self.notify_answered(now, id, status),
            Some(Answered::Provisional(_)) | None => {}
        }
    }

    /// A delivery ended: whoever asked is told.
    fn delivered(&mut self, now: Moment, key: (Otid, EndpointId), answer: Option<&Message>) {
        let Some(delivered) = self.holder.delivered.get_mut(&key) else { return };
        delivered.status = answer.and_then(Message::status);
        for asker in std::mem::take(&mut delivered.askers) {
            match (asker, answer) {
                (Asker::Here, Some(answer)) => self.leg_ended(now, key.0, key.1, End::Answer(Box::new(answer.clone()))),
                (Asker::Here, None) => self.leg_ended(now, key.0, key.1, End::Status(480)),
                (Asker::Peer(fe), Some(answer)) => self.say(fe, key, Said::Response(answer.octets().clone())),
                (Asker::Peer(fe), None) => self.say(fe, key, Said::Nothing),
            }
        }
    }

    fn say(&mut self, fe: Incarnation, (otid, endpoint): (Otid, EndpointId), said: Said) {
        self.tell(fe, Frame::Answer(frame::Answer { otid, endpoint, said }));
    }

    pub(super) fn sent_due(&mut self, now: Moment) {
        for due in self.holder.sent.due(now) {
            match due {
                ClientDue::Retransmit { flow, octets } => self.send(now, flow, octets),
                ClientDue::TimedOut(Sent::Delivery(otid, endpoint)) => {
                    if let Some(flow) = self.registrations.flow(endpoint) {
                        self.probe(now, flow);
                    }
                    self.delivered(now, (otid, endpoint), None);
                }
                ClientDue::TimedOut(Sent::Notify(id)) => self.notify_unanswered(now, id),
            }
        }
    }

    /// A flow is gone, and the answers that should have come on it.
    pub(super) fn sent_lost(&mut self, now: Moment, flow: Flow) {
        for sent in self.holder.sent.flow_closed(flow) {
            match sent {
                Sent::Delivery(otid, endpoint) => self.delivered(now, (otid, endpoint), None),
                Sent::Notify(id) => self.notify_lost(id),
            }
        }
    }

    /// The flow of an endpoint was closed by us: it is expected back, here or elsewhere.
    pub(super) fn expect_back(&mut self, now: Moment, endpoint: EndpointId) {
        self.holder.stubs.entry(endpoint).or_default();
        self.timers.set(Due::Stub(endpoint), now + STUB);
    }

    /// A flow that we closed counts as lost only when the wait for its endpoints ends: then.
    pub(super) fn lose_later(&mut self, now: Moment, user: UserRef, serial: u32) -> Moment {
        self.holder.unlost.insert((user, serial), now + STUB);
        self.timers.set_if_absent(Due::Unlost, now + STUB);
        now + STUB
    }

    pub(super) fn unlost_due(&mut self, now: Moment) {
        let due: Vec<_> = self.holder.unlost.iter().filter(|(_, at)| **at <= now).map(|(flow, _)| *flow).collect();
        for (user, serial) in due {
            self.holder.unlost.remove(&(user, serial));
            self.note_lost(now, user, serial);
        }
        if let Some(next) = self.holder.unlost.values().min() {
            self.timers.set(Due::Unlost, *next);
        }
    }

    /// An endpoint came from another front end that is asked what it has delivered: nothing is delivered before that.
    pub(super) fn await_hand_over(&mut self, now: Moment, endpoint: EndpointId) {
        self.holder.stubs.entry(endpoint).or_default();
        self.timers.set(Due::HandOver(endpoint), now + HAND_OVER);
    }

    /// What belongs to an endpoint that came here.
    pub(super) fn handed_over(&mut self, now: Moment, hand_over: HandOver) {
        let until = now + MEMORY;
        self.not_taken(hand_over.endpoint);
        for (otid, status) in hand_over.delivered {
            let key = (otid, hand_over.endpoint);
            // Without an answer known by now it will not be known any more: its flow is gone.
            let status = Some(if status == 0 { 480 } else { status });
            self.holder.delivered.entry(key).or_insert(Delivered { until, status, askers: Vec::new() });
            self.holder.order.push_back((until, key));
        }
        for told in hand_over.dialogs {
            self.dialog_was_told(now, told);
        }
        self.back_here(now, hand_over.endpoint);
    }

    fn park(&mut self, now: Moment, asker: Asker, delivery: Delivery) -> Fate {
        let endpoint = delivery.endpoint;
        let Some(parked) = self.holder.stubs.get_mut(&endpoint) else {
            let moved = self.holder.moved.get(&endpoint).filter(|to| self.peers.is_live(**to));
            return moved.map_or(Fate::Gone, |to| Fate::Moved(*to));
        };
        if parked.len() >= MAX_PARKED {
            return Fate::Busy;
        }
        parked.push(Parked { asker, delivery, until: now + PARKED });
        self.timers.set_if_absent(Due::Parked(endpoint), now + PARKED);
        Fate::Parked
    }

    /// Deliveries that waited long enough are given up.
    pub(super) fn parked_due(&mut self, now: Moment, endpoint: EndpointId) {
        let Some(parked) = self.holder.stubs.get_mut(&endpoint) else { return };
        let due: Vec<Parked> = parked.extract_if(.., |p| p.until <= now).collect();
        if let Some(next) = parked.iter().map(|p| p.until).min() {
            self.timers.set(Due::Parked(endpoint), next);
        }
        for parked in due {
            self.unpark(now, &parked, Fate::Gone);
        }
    }

    /// An endpoint that was expected back is back here: what waited for it is delivered.
    pub(super) fn back_here(&mut self, now: Moment, endpoint: EndpointId) {
        self.timers.clear(&Due::HandOver(endpoint));
        self.timers.clear(&Due::Stub(endpoint));
        self.timers.clear(&Due::Parked(endpoint));
        self.holder.moved.remove(&endpoint);
        for Parked { asker, delivery, .. } in self.holder.stubs.remove(&endpoint).unwrap_or_default() {
            let otid = delivery.otid;
            let fate = self.take(now, asker, delivery, ANSWER.saturating_sub(PARKED));
            match asker {
                Asker::Here => self.leg_fate(now, otid, endpoint, fate),
                Asker::Peer(fe) => {
                    self.tell(fe, Frame::Ack(frame::Ack { otid, endpoint, fate }));
                }
            }
        }
    }

    /// An endpoint that was expected back is somewhere, or nowhere.
    pub(super) fn stub_ended(&mut self, now: Moment, endpoint: EndpointId, fate: Fate) {
        self.timers.clear(&Due::Stub(endpoint));
        self.timers.clear(&Due::Parked(endpoint));
        for parked in self.holder.stubs.remove(&endpoint).unwrap_or_default() {
            self.unpark(now, &parked, fate);
        }
    }

    fn unpark(&mut self, now: Moment, parked: &Parked, fate: Fate) {
        let (otid, endpoint) = (parked.delivery.otid, parked.delivery.endpoint);
        match parked.asker {
            Asker::Here => self.leg_fate(now, otid, endpoint, fate),
            Asker::Peer(fe) => {
                self.tell(fe, Frame::Ack(frame::Ack { otid, endpoint, fate }));
            }
        }
    }
}
