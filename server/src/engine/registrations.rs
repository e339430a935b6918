//! Endpoints of this front end: REGISTER carried out, and where each endpoint's flow is.

use std::collections::HashMap;
use std::time::Duration;

use commpool_model::ids::{EndpointId, Incarnation, Key128, Origin, UserRef};
use commpool_sip::otid::Otid;
use commpool_sip::time::Moment;
use commpool_store::ops::assert::HeldEndpoint;
use commpool_store::ops::register::{self as ops, Change, Contacts, Done, Reply, Touched, Unregister, Unregistered};
use commpool_store::ops::{Endpoint, FlowRef, PresenceChange};

use super::flow::Flow;
use super::holder::Fate;
use super::pending::Pending;
use super::upkeep::Due;
use super::{Engine, Output};
use crate::peers::frame::{Frame, HandOver, Moved};
use crate::services::{Caller, Refusal, Request, register};

/// A first REGISTER waits so long for a store that is away.
pub(super) const HOLD: Duration = Duration::from_secs(6);
/// And asks it again after this.
pub(super) const HOLD_AGAIN: Duration = Duration::from_millis(300);
/// A refresh without the store is answered with what is left, if it is at least this.
const LEAST_LEFT: Duration = Duration::from_secs(30);
/// What is left of an endpoint whose flow is gone stays so long: longer than the longest grace and its sweep.
const STUB: Duration = Duration::from_secs(60);
/// Most REGISTERs that wait for the store.
const MAX_HELD: usize = 20_000;

/// An endpoint whose flow we hold.
#[derive(Clone, Debug)]
struct Held {
    user: UserRef,
    flow: Flow,
    key: Key128,
    origin: Origin,
    cseq: u32,
    refreshed: Moment,
    expires: Moment,
    /// Since when its flow counts as lost, or from when on.
    lost: Option<Moment>,
    row: Endpoint,
}

/// A REGISTER that waits for the store.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request: Request,
    caller: Caller,
    write: ops::Request,
}

/// Endpoints by id, and REGISTERs that wait.
#[derive(Debug, Default)]
pub(super) struct Registrations {
    held: HashMap<EndpointId, Held>,
    waiting: HashMap<Otid, Waiting>,
}

impl Registrations {
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// How many REGISTERs wait for the store.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn flow(&self, endpoint: EndpointId) -> Option<Flow> {
        self.held.get(&endpoint).map(|h| h.flow)
    }

    /// The REGISTER that brought an endpoint here, as it is told to where it was.
    pub(super) fn moved(&self, endpoint: EndpointId) -> Option<Moved> {
        let held = self.held.get(&endpoint)?;
        Some(Moved { endpoint, call_id: held.row.call_id.clone(), cseq: held.cseq })
    }

    /// Whether an endpoint has come back here since it moved there.
    fn is_newer(&self, moved: &Moved) -> bool {
        let held = self.held.get(&moved.endpoint);
        held.is_some_and(|held| held.row.call_id == moved.call_id && held.cseq >= moved.cseq)
    }

    pub(super) fn user(&self, endpoint: EndpointId) -> Option<UserRef> {
        self.held.get(&endpoint).map(|h| h.user)
    }

    /// What is held, to be said again to a store that lost it.
    pub(super) fn assertions(&self, now: Moment) -> Vec<HeldEndpoint> {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        // The store may have lost the loss too: an endpoint without a flow must not come to life there.
        let lost = |held: &Held| held.lost.filter(|at| *at <= now).map(|at| ms(now.since(at)));
        let assertion = |held: &Held| HeldEndpoint {
            key: held.key,
            origin: held.origin,
            cseq: held.cseq,
            refreshed_ms: ms(now.since(held.refreshed)),
            endpoint: Endpoint { expires_ms: ms(held.expires.since(now)), lost_ms: lost(held), ..held.row.clone() },
        };
        let mut rows: Vec<_> = self.held.values().filter(|held| held.expires > now).map(assertion).collect();
        rows.sort_unstable_by_key(|row| row.endpoint.id);
        rows
    }
}

impl Engine {
    pub(super) fn register(&mut self, now: Moment, request: &Request, caller: &Caller) -> Result<(), Refusal> {
        let flow = self.flow_ref(request)?;
        let write = register::plan(&self.settings, &self.key, request, caller, flow, self.peers.forsaken(now))?;
        self.write_registration(now, Waiting { request: request.clone(), caller: caller.clone(), write });
        Ok(())
    }

    fn write_registration(&mut self, now: Moment, waiting: Waiting) {
        if !self.lease.holds(now) {
            return self.not_registered(now, waiting);
        }
        self.call(now, waiting.write.clone(), Pending::Register(Box::new(waiting)));
    }

    /// The flow of a request as the store names it.
    pub(super) fn flow_ref(&self, request: &Request) -> Result<FlowRef, Refusal> {
        let state = self.flows.get(request.flow).ok_or(Refusal::later("Flow Gone"))?;
        Ok(FlowRef {
            fe: self.fe,
            serial: state.serial,
            transport: state.info.transport,
            remote: state.info.remote.to_string(),
        })
    }

    pub(super) fn registered(&mut self, now: Moment, waiting: Waiting, reply: Reply) {
        let request = &waiting.request;
        let done = match reply {
            Reply::Done(done) => done,
            Reply::Stale => return self.refuse(now, request, &Refusal::later("CSeq Out Of Order")),
            Reply::TooMany => return self.refuse(now, request, &Refusal::because(403, "Too Many Devices")),
            Reply::NoAccount => return self.refuse(now, request, &Refusal::status(403)),
            Reply::Gone => return self.refuse(now, request, &Refusal::later("Front End Restarting")),
        };
        let octets = register::answer(request, &done.bindings, &self.key.to_tag(&request.otid));
        self.metrics.response(200);
        self.respond(now, request, octets, true);
        self.take_in(now, &waiting, *done);
    }

    /// The store did not take a REGISTER. A refresh on its own flow is answered with what is left, which is true; a
    /// first one waits for the store to come back.
    pub(super) fn not_registered(&mut self, now: Moment, waiting: Waiting) {
        if !self.unanswered(&waiting.request.otid) {
            return;
        }
        if let Some(bindings) = self.still_bound(now, &waiting) {
            let octets = register::answer(&waiting.request, &bindings, &self.key.to_tag(&waiting.request.otid));
            self.metrics.response(200);
            return self.respond(now, &waiting.request, octets, true);
        }
        let over = now.since(waiting.request.received) >= HOLD;
        if !self.lease.shared() || over || self.registrations.waiting.len() >= MAX_HELD {
            let refusal =
                if self.lease.shared() { Refusal::unavailable() } else { Refusal::later("Store Not Available") };
            return self.refuse(now, &waiting.request, &refusal);
        }
        let otid = waiting.request.otid;
        self.registrations.waiting.insert(otid, waiting);
        self.timers.set(Due::Held(otid), now + HOLD_AGAIN);
    }

    pub(super) fn held_due(&mut self, now: Moment, otid: Otid) {
        if let Some(waiting) = self.registrations.waiting.remove(&otid)
            && self.unanswered(&otid)
        {
            self.write_registration(now, waiting);
        }
    }

    /// The bindings a REGISTER refreshes, if all of them were made on its own flow and have enough life left.
    fn still_bound(&self, now: Moment, waiting: &Waiting) -> Option<Vec<Endpoint>> {
        let Contacts::Each(bindings) = &waiting.write.contacts else { return None };
        let own = |key: Key128| {
            let fits = |h: &&Held| h.key == key && h.user == waiting.caller.user && h.flow == waiting.request.flow;
            let held = self.registrations.held.values().find(fits)?;
            let left = held.expires.since(now);
            let expires_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            (left >= LEAST_LEFT).then(|| Endpoint { expires_ms, ..held.row.clone() })
        };
        bindings.iter().map(|b| if b.expires == 0 { None } else { own(b.key) }).collect()
    }

    /// What a REGISTER brought about, into memory: timers, flows, dialogs, watchers, other front ends.
    fn take_in(&mut self, now: Moment, waiting: &Waiting, done: Done) {
        let keys: Vec<Key128> = match &waiting.write.contacts {
            Contacts::Each(bindings) => bindings.iter().map(|b| b.key).collect(),
            Contacts::Query | Contacts::RemoveAll => Vec::new(),
        };
        for (n, touched) in done.touched.iter().enumerate() {
            let Some(id) = touched.endpoint else { continue };
            self.tell_holder(now, waiting, touched, id);
            let row = done.bindings.iter().find(|b| b.id == id);
            match (touched.how, row, keys.get(n)) {
                (Change::Removed, _, _) => {
                    self.release(id);
                    self.drop_dialogs_of(now, id);
                    tracing::info!(user = waiting.caller.address, endpoint = id.0, "signed out");
                }
                (Change::Created | Change::Refreshed, Some(row), Some(key)) => {
                    self.hold(now, waiting, *key, row, touched, done.adoptable > 0);
                }
                _ => {}
            }
        }
        if let Some(change) = done.change {
            self.spread(now, change);
        }
    }

    /// Whether the front end that held an endpoint before is asked for what belongs to it.
    fn awaits_hand_over(&self, touched: &Touched) -> bool {
        touched.previous.as_ref().is_some_and(|p| p.fe != self.fe && self.peers.is_linked(p.fe))
    }

    /// The front end that held an endpoint before is told where it is now.
    fn tell_holder(&mut self, now: Moment, waiting: &Waiting, touched: &Touched, endpoint: EndpointId) {
        let Some(previous) = touched.previous.as_ref().filter(|p| p.fe != self.fe) else { return };
        if touched.how == Change::Removed {
            self.tell(previous.fe, Frame::Unbound(endpoint));
            return;
        }
        let moved = Moved { endpoint, call_id: waiting.write.call_id.clone(), cseq: waiting.write.cseq };
        if self.tell_moved(previous.fe, moved) {
            self.await_hand_over(now, endpoint);
        }
    }

    fn hold(
        &mut self,
        now: Moment,
        waiting: &Waiting,
        key: Key128,
        row: &Endpoint,
        touched: &Touched,
        adoptable: bool,
    ) {
        let (request, caller) = (&waiting.request, &waiting.caller);
        // The connection may have closed while the store worked: then the row must be marked, it was not ours yet.
        if self.flows.get(request.flow).is_none() {
            if let Flow::Stream(serial) = request.flow {
                self.note_lost(now, caller.user, serial);
            }
            return;
        }
        let id = row.id;
        let expires = now + Duration::from_millis(row.expires_ms);
        let held = Held {
            user: caller.user,
            flow: request.flow,
            key,
            origin: waiting.write.origin,
            cseq: waiting.write.cseq,
            refreshed: now,
            expires,
            lost: None,
            row: row.clone(),
        };
        let before = self.registrations.held.insert(id, held);
        self.timers.set(Due::Endpoint(id), expires + Duration::from_millis(100));
        if let Some(state) = self.flows.get_mut(request.flow) {
            state.endpoints.insert(id);
        }
        // An address over UDP that was given up and came back is the same flow by name and another by number.
        if before.as_ref().is_some_and(|b| b.flow == request.flow && b.row.flow.serial == row.flow.serial) {
            return;
        }
        tracing::info!(user = caller.address, endpoint = id.0, remote = %request.info.remote, adoptable, "signed in");
        let same_process = before.as_ref().is_none_or(|b| b.row.call_id == row.call_id);
        if let Some(before) = before.filter(|before| before.flow != request.flow) {
            self.leave_flow(before.flow, id);
        }
        self.close_replaced(now, touched);
        if !self.awaits_hand_over(touched) {
            self.back_here(now, id);
        }
        if adoptable {
            // Dialogs still here follow after that: others may have carried them on meanwhile.
            self.adopt(now, id, request.flow, caller, same_process);
        } else {
            self.dialogs_follow(now, id, request.flow, same_process);
        }
    }

    /// The old connection of an outbound binding that came anew is closed (RFC 5626 §6); others may live on.
    fn close_replaced(&mut self, now: Moment, touched: &Touched) {
        let Some(previous) = touched.previous.as_ref().filter(|p| p.fe == self.fe) else { return };
        if let Some(old) = self.flows.by_serial(previous.serial) {
            self.close_if_unused(now, old);
        }
    }

    fn close_if_unused(&mut self, now: Moment, flow: Flow) {
        let unused = self.flows.get(flow).is_some_and(|s| s.endpoints.is_empty() && s.dialogs == 0);
        if unused && flow.reliable() {
            self.timers.set(Due::CloseReplaced(flow), now + Duration::from_secs(2));
        }
    }

    /// An endpoint is no longer ours.
    pub(super) fn release(&mut self, id: EndpointId) {
        self.not_taken(id);
        self.timers.clear(&Due::Endpoint(id));
        if let Some(held) = self.registrations.held.remove(&id) {
            self.leave_flow(held.flow, id);
        }
    }

    fn leave_flow(&mut self, flow: Flow, id: EndpointId) {
        if let Some(state) = self.flows.get_mut(flow) {
            state.endpoints.remove(&id);
        }
        self.close_idle_udp(flow);
    }

    /// A UDP flow with nothing on it is forgotten.
    pub(super) fn close_idle_udp(&mut self, flow: Flow) {
        let idle = self.flows.get(flow).is_some_and(|s| s.endpoints.is_empty() && s.dialogs == 0);
        if idle && !flow.reliable() {
            self.flows.close(flow);
            self.timers.clear(&Due::Ping(flow));
        }
    }

    /// An endpoint of ours has registered at another front end.
    pub(super) fn moved_away(&mut self, now: Moment, to: Incarnation, moved: &Moved) {
        let endpoint = moved.endpoint;
        if self.registrations.is_newer(moved) {
            return;
        }
        let flow = self.registrations.flow(endpoint);
        let dialogs = self.hand_over_dialogs(now, endpoint);
        let delivered = self.holder.delivered_to(endpoint);
        self.tell(to, Frame::HandOver(HandOver { endpoint, dialogs, delivered }));
        self.release(endpoint);
        self.holder.note_moved(now, endpoint, to);
        self.stub_ended(now, endpoint, Fate::Moved(to));
        if let Some(flow) = flow {
            self.close_if_unused(now, flow);
        }
    }

    /// An endpoint of ours has signed out at another front end.
    pub(super) fn unbound(&mut self, now: Moment, endpoint: EndpointId) {
        self.release(endpoint);
        self.drop_dialogs_of(now, endpoint);
        self.stub_ended(now, endpoint, Fate::Gone);
    }

    /// A flow is gone: endpoints on it are unroutable at once, presence has its grace. If we closed it because we leave,
    /// its endpoints stay ours until they are back somewhere or the wait for them ends.
    pub(super) fn flow_gone(&mut self, now: Moment, flow: Flow) {
        let Some(state) = self.flows.close(flow) else { return };
        for due in [Due::Ping(flow), Due::Probe(flow), Due::Unproven(flow), Due::CloseReplaced(flow)] {
            self.timers.clear(&due);
        }
        self.transactions.flow_closed(flow);
        self.sent_lost(now, flow);
        self.dialogs_wait(flow);
        let mut lost = now;
        for user in state.users.keys() {
            if state.shed {
                lost = self.lose_later(now, *user, state.serial);
            } else {
                self.note_lost(now, *user, state.serial);
            }
        }
        for endpoint in state.endpoints {
            self.timers.set(Due::Endpoint(endpoint), now + STUB);
            if let Some(held) = self.registrations.held.get_mut(&endpoint).filter(|held| held.flow == flow) {
                held.lost = Some(lost);
            }
        }
    }

    /// All devices of a user are signed out by the server: his account changed.
    pub(super) fn sign_out(&mut self, now: Moment, user: UserRef) {
        self.call(now, Unregister { fe: self.fe, user, endpoints: None }, Pending::Unregister(user));
        self.drop_dialogs_of_watcher(now, user);
        for flow in self.flows.of_user(user) {
            let alone = self.flows.sign_out(flow, user);
            if alone && flow.reliable() {
                self.out.push_back(Output::Close { flow });
            }
        }
    }

    pub(super) fn unregistered(&mut self, now: Moment, user: UserRef, reply: Unregistered) {
        let Unregistered::Done { removed, change } = reply else { return };
        tracing::info!(user = user.id.0, devices = removed.len(), "signed out by the server");
        for (id, flow) in removed {
            if flow.fe != self.fe {
                self.tell(flow.fe, Frame::Unbound(id));
            }
            self.release(id);
            self.drop_dialogs_of(now, id);
        }
        if let Some(change) = change {
            self.spread(now, change);
        }
    }

    /// Endpoints that the store has removed for good. Their dialogs wait there, should the client come back and know them.
    pub(super) fn removed(&mut self, now: Moment, endpoints: Vec<EndpointId>, changes: Vec<PresenceChange>) {
        for id in endpoints {
            self.release(id);
            self.forget_dialogs_of(now, id);
        }
        for change in changes {
            self.spread(now, change);
        }
    }

    /// The endpoint that a request's flow belongs to, if one has registered on it.
    pub(super) fn endpoint_of(&self, request: &Request, caller: &Caller) -> Option<EndpointId> {
        let state = self.flows.get(request.flow)?;
        state.endpoints.iter().find(|id| self.registrations.user(**id) == Some(caller.user)).copied()
    }

    /// An endpoint's timer rang. Without a flow it has long been swept or is at home elsewhere: what is left of it here
    /// goes. With one the store decides whether it is really past.
    pub(super) fn endpoint_due(&mut self, now: Moment, id: EndpointId) {
        let stub = self.registrations.flow(id).is_some_and(|flow| self.flows.get(flow).is_none());
        if stub && self.lease.age(now) > STUB {
            // The store is away: nobody has swept.
            return self.timers.set(Due::Endpoint(id), now + STUB);
        }
        if stub {
            self.release(id);
            return self.forget_dialogs_of(now, id);
        }
        self.due.endpoints.push(id);
        self.timers.set_if_absent(Due::Flush, now);
    }

    /// An endpoint that should have expired by now and was not refreshed here.
    pub(super) fn past_here(&mut self, now: Moment, id: EndpointId) {
        if self.registrations.held.get(&id).is_some_and(|held| held.expires <= now) {
            self.release(id);
            self.forget_dialogs_of(now, id);
        }
    }
}
