//! Other front ends as the engine sees them: who lives, what is told to whom, what they tell us.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use commpool_model::ids::{EndpointId, Incarnation, Key128};
use commpool_sip::limits::Limits;
use commpool_sip::message::Message;
use commpool_sip::otid::Branch;
use commpool_sip::time::Moment;
use commpool_store::ops::PresenceChange;
use commpool_store::ops::front_ends::{FrontEnd, State};

use super::flow::Flow;
use super::lease::CUT_OFF;
use super::upkeep::Due;
use super::{Engine, Output};
use crate::peers::frame::{self, Changed, Disowned, Frame, Moved, Ping};

/// Addresses without a flow are told to the others at most so often each.
const SEEN_AGAIN: Duration = Duration::from_secs(10);
/// Most addresses without a flow that are remembered.
const MAX_STRANGERS: usize = 10_000;
/// Most endpoints that are remembered until the front end before knows that they are here.
const MAX_TAKEN: usize = 50_000;
/// Addresses gather so long before they are told.
const SEEN_BATCH: Duration = Duration::from_millis(50);

/// What is known of the other front ends.
#[derive(Debug, Default)]
pub(super) struct Peers {
    /// Live ones by the last renewal, this one not among them.
    live: BTreeMap<Incarnation, FrontEnd>,
    /// Those with a working link from here.
    linked: BTreeSet<Incarnation>,
    /// Their renewals' ages, and when they said so.
    renewed: HashMap<Incarnation, (Moment, Duration)>,
    /// UDP addresses without a flow here: our handle to them, and when they were last told.
    strangers: HashMap<SocketAddr, (Flow, Moment)>,
    untold: Vec<SocketAddr>,
    /// Endpoints that came here, and where from, until that front end has handed over what belongs to them.
    taken: BTreeMap<EndpointId, Incarnation>,
    /// Dialogs that came here while the front end before could not be told.
    taken_dialogs: BTreeMap<Key128, (Incarnation, Disowned)>,
    /// Whether the directory has come.
    listed: bool,
    /// Whether everybody has had the time to link to here: till then nobody could reach our clients.
    joined: bool,
    /// When that counts as so.
    pub(super) join_by: Moment,
}

impl Peers {
    pub(super) fn live(&self) -> impl Iterator<Item = &FrontEnd> {
        self.live.values()
    }

    pub(super) fn is_linked(&self, fe: Incarnation) -> bool {
        self.linked.contains(&fe)
    }

    /// How many others can be sent to.
    pub(super) fn links(&self) -> usize {
        self.live.keys().filter(|fe| self.linked.contains(fe)).count()
    }

    pub(super) fn is_live(&self, fe: Incarnation) -> bool {
        self.live.contains_key(&fe)
    }

    /// Live ones whose flows count as dead when their client comes here: without a working link from here, so that most
    /// likely they are dead and nobody has noticed yet; leaving, or cut off from the store, so that they close them.
    pub(super) fn forsaken(&self, now: Moment) -> Vec<Incarnation> {
        let cut_off =
            |fe: &Incarnation| self.renewed.get(fe).is_some_and(|(said, at)| now.since(*said) + *at > CUT_OFF);
        let forsaken = |fe: &&FrontEnd| !self.linked.contains(&fe.fe) || fe.state == State::Draining || cut_off(&fe.fe);
        self.live.values().filter(forsaken).map(|fe| fe.fe).collect()
    }

    /// Looks whether everybody is linked with us, both ways: who has pinged has a link to here.
    pub(super) fn join(&mut self, now: Moment) {
        let known = |fe: &Incarnation| self.linked.contains(fe) && self.renewed.contains_key(fe);
        self.joined |= now >= self.join_by || self.listed && self.live.keys().all(known);
    }

    pub(super) const fn joined(&self) -> bool {
        self.joined
    }

    /// Whether some peer renewed its lease within this time.
    pub(super) fn some_renewed_within(&self, now: Moment, age: Duration) -> bool {
        self.renewed.iter().any(|(fe, (said, at))| self.live.contains_key(fe) && now.since(*said) + *at < age)
    }
}

impl Engine {
    /// The directory of front ends came with a renewal.
    pub(super) fn directory(&mut self, now: Moment, live: Vec<FrontEnd>) {
        let live: BTreeMap<_, _> = live.into_iter().filter(|f| f.fe != self.fe).map(|f| (f.fe, f)).collect();
        self.peers.listed = true;
        if live == self.peers.live {
            return self.peers.join(now);
        }
        let gone: Vec<_> = self.peers.live.keys().filter(|fe| !live.contains_key(fe)).copied().collect();
        self.peers.live = live;
        for fe in gone {
            self.peers.renewed.remove(&fe);
            self.peers.taken.retain(|_, from| *from != fe);
            self.peers.taken_dialogs.retain(|_, (from, _)| *from != fe);
            self.link(now, fe, false);
        }
        let peers = self.peers.live.values().cloned().collect();
        self.out.push_back(Output::Directory(peers));
    }

    /// A link to another front end works, or does not any more.
    pub(super) fn link(&mut self, now: Moment, fe: Incarnation, up: bool) {
        if up {
            if self.peers.linked.insert(fe) {
                self.ping_peer(now, fe);
                self.tell_taken(fe);
            }
            self.peers.join(now);
        } else if self.peers.linked.remove(&fe) {
            tracing::info!(fe = fe.0, "link to a front end ended");
            self.legs_lost(now, fe);
        }
    }

    /// Tells another front end something. False: it cannot be reached.
    pub(super) fn tell(&mut self, fe: Incarnation, frame: Frame) -> bool {
        let reachable = self.peers.linked.contains(&fe);
        if reachable {
            self.out.push_back(Output::Frame { fe, frame });
        }
        reachable
    }

    /// An endpoint came here from another front end, which must know. If it cannot be told now, it is as soon as there
    /// is a link again: until then both would tell its dialogs what is new. True: it has been told.
    pub(super) fn tell_moved(&mut self, from: Incarnation, moved: Moved) -> bool {
        if self.peers.is_live(from) && self.peers.taken.len() < MAX_TAKEN {
            self.peers.taken.insert(moved.endpoint, from);
        }
        self.tell(from, Frame::Moved(moved))
    }

    /// The same of a dialog that came here by a SUBSCRIBE.
    pub(super) fn tell_disowned(&mut self, owner: Incarnation, disowned: Disowned) {
        let told = self.tell(owner, Frame::Disowned(disowned));
        if !told && self.peers.is_live(owner) && self.peers.taken_dialogs.len() < MAX_TAKEN {
            self.peers.taken_dialogs.insert(disowned.id, (owner, disowned));
        }
    }

    fn tell_taken(&mut self, fe: Incarnation) {
        let dialogs = self.peers.taken_dialogs.extract_if(.., |_, (owner, _)| *owner == fe);
        for (_, (_, disowned)) in dialogs.collect::<Vec<_>>() {
            self.tell(fe, Frame::Disowned(disowned));
        }
        let from = self.peers.taken.iter().filter(|(_, from)| **from == fe);
        for endpoint in from.map(|(endpoint, _)| *endpoint).collect::<Vec<_>>() {
            match self.registrations.moved(endpoint) {
                Some(moved) => drop(self.tell(fe, Frame::Moved(moved))),
                None => self.not_taken(endpoint),
            }
        }
    }

    /// The front end before knows, or the endpoint is not here any more.
    pub(super) fn not_taken(&mut self, endpoint: EndpointId) {
        self.peers.taken.remove(&endpoint);
    }

    /// A frame was not taken by its link: what waits for an answer gets one.
    pub(super) fn not_told(&mut self, now: Moment, fe: Incarnation, frame: Frame) {
        if let Frame::Deliver(deliver) = frame {
            let ack = frame::Ack { otid: deliver.otid, endpoint: deliver.endpoint, fate: frame::Fate::Busy };
            self.acknowledged(now, fe, ack);
        }
    }

    /// Another front end tells us something.
    pub(super) fn told(&mut self, now: Moment, from: Incarnation, frame: Frame) {
        match frame {
            Frame::Deliver(deliver) => self.peer_asks(now, from, *deliver),
            Frame::Ack(ack) => self.acknowledged(now, from, ack),
            Frame::Answer(answer) => self.peer_answered(now, from, answer),
            Frame::Response { remote, octets } => self.response_passed(now, remote, octets),
            Frame::Presence(changes) => changes.into_iter().for_each(|c| self.presence_told(now, c)),
            Frame::Moved(moved) => self.moved_away(now, from, &moved),
            Frame::HandOver(hand_over) => self.handed_over(now, hand_over),
            Frame::Unbound(endpoint) => self.unbound(now, endpoint),
            Frame::Disowned(disowned) => self.disowned(now, disowned),
            Frame::SeenHere(addresses) => addresses.into_iter().for_each(|a| self.seen_at(from, a)),
            Frame::Emit { remote, octets } => self.emit(now, remote, octets),
            Frame::Ping(Ping { renewed }) => {
                self.peers.renewed.insert(from, (now, Duration::from_millis(renewed.into())));
                self.peers.join(now);
            }
            Frame::Hello(_) => {}
        }
    }

    /// A SIP message inside a frame. Peers are ours, but what is inside came from a client.
    pub(super) fn parse_peer(&self, octets: Bytes) -> Option<Message> {
        let message = Message::parse_framed(octets, &Limits::default()).ok()?;
        message.validate().is_ok().then_some(message)
    }

    /// A change of somebody's presence goes to every front end that watches him.
    pub(super) fn spread(&mut self, now: Moment, change: PresenceChange) {
        if let Some(user) = change.user {
            for fe in change.interest.iter().copied().filter(|fe| *fe != self.fe).collect::<Vec<_>>() {
                let changed = Changed { user, version: change.version, state: change.state.clone() };
                self.tell(fe, Frame::Presence(vec![changed]));
            }
        }
        self.presence_changed(now, change);
    }

    fn presence_told(&mut self, now: Moment, changed: Changed) {
        let Changed { user, version, state } = changed;
        self.presence_changed(now, PresenceChange { user: Some(user), state, version, interest: Vec::new() });
    }

    /// A response whose branch names another front end goes there (UDP: the client's datagrams changed sides). True: it
    /// is none of ours.
    pub(super) fn pass_on(&mut self, flow: Flow, answer: &Message) -> bool {
        let Flow::Udp { remote, .. } = flow else { return false };
        let branch = answer.top_via().ok().and_then(|v| v.branch()).and_then(Branch::parse);
        let Some(owner) = branch.map(|b| Incarnation(b.incarnation)).filter(|fe| *fe != self.fe) else {
            return false;
        };
        self.tell(owner, Frame::Response { remote, octets: answer.octets().clone() });
        true
    }

    fn response_passed(&mut self, now: Moment, remote: SocketAddr, octets: Bytes) {
        let Some(answer) = self.parse_peer(octets).filter(|m| !m.is_request()) else { return };
        if let Some(flow) = self.flows.udp_of(remote) {
            self.response_on(now, flow, &answer);
        }
    }

    /// Something came from a UDP address without a flow here: whoever has that flow must know that the path is ours now.
    pub(super) fn seen_here(&mut self, now: Moment, flow: Flow) {
        let Flow::Udp { remote, .. } = flow else { return };
        if self.peers.live.is_empty() || self.flows.get(flow).is_some() {
            return;
        }
        let told = self.peers.strangers.get(&remote).map(|(_, told)| *told);
        let again = told.is_none_or(|at| now.since(at) >= SEEN_AGAIN);
        if told.is_none() && self.peers.strangers.len() >= MAX_STRANGERS {
            self.peers.strangers.retain(|_, (_, at)| now.since(*at) < SEEN_AGAIN);
            if self.peers.strangers.len() >= MAX_STRANGERS {
                return;
            }
        }
        if again {
            self.peers.strangers.insert(remote, (flow, now));
            self.peers.untold.push(remote);
            self.timers.set_if_absent(Due::Seen, now + SEEN_BATCH);
        }
    }

    pub(super) fn tell_seen(&mut self) {
        let mut untold = std::mem::take(&mut self.peers.untold);
        untold.truncate(frame::MOST);
        for fe in self.peers.linked.clone() {
            self.tell(fe, Frame::SeenHere(untold.clone()));
        }
    }

    /// A client of ours was seen at another front end: only that one can reach it now.
    fn seen_at(&mut self, from: Incarnation, remote: SocketAddr) {
        if let Some(flow) = self.flows.udp_of(remote)
            && let Some(state) = self.flows.get_mut(flow)
        {
            state.through = Some(from);
        }
    }

    /// Another front end holds the flow of somebody whose datagrams come here.
    fn emit(&mut self, now: Moment, remote: SocketAddr, octets: Bytes) {
        let known = self.peers.strangers.get(&remote).map(|(flow, _)| *flow).or_else(|| self.flows.udp_of(remote));
        if let Some(flow) = known {
            self.send_directly(now, flow, octets);
        }
    }

    /// Pings to all, each second: that we live, and how old our lease is.
    pub(super) fn ping_peers(&mut self, now: Moment) {
        for fe in self.peers.linked.clone() {
            self.ping_peer(now, fe);
        }
    }

    fn ping_peer(&mut self, now: Moment, fe: Incarnation) {
        let renewed = u32::try_from(self.lease.age(now).as_millis()).unwrap_or(u32::MAX);
        self.tell(fe, Frame::Ping(Ping { renewed }));
    }
}
