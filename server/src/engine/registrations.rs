//! Endpoints of this front end: REGISTER carried out, and where each endpoint's flow is.

use std::collections::HashMap;
use std::time::Duration;

use commpool_model::ids::{EndpointId, UserRef};
use commpool_sip::time::Moment;
use commpool_store::ops::register::{Change, Done, Reply, Touched, Unregister, Unregistered};
use commpool_store::ops::{Endpoint, FlowRef, PresenceChange};

use super::flow::Flow;
use super::pending::Pending;
use super::upkeep::Due;
use super::{Engine, Output};
use crate::services::{Caller, Refusal, Request, register};

/// An endpoint whose flow we hold.
#[derive(Clone, Debug)]
struct Held {
    user: UserRef,
    flow: Flow,
    call_id: String,
}

/// Endpoints by id.
#[derive(Debug, Default)]
pub(super) struct Registrations {
    held: HashMap<EndpointId, Held>,
}

impl Registrations {
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn flow(&self, endpoint: EndpointId) -> Option<Flow> {
        self.held.get(&endpoint).map(|h| h.flow)
    }
}

impl Engine {
    pub(super) fn register(&mut self, now: Moment, request: &Request, caller: &Caller) -> Result<(), Refusal> {
        let flow = self.flow_ref(request)?;
        let write = register::plan(&self.settings, &self.key, request, caller, flow)?;
        self.call(now, write, Pending::Register(Box::new(request.clone()), caller.clone()));
        Ok(())
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

    pub(super) fn registered(&mut self, now: Moment, request: &Request, caller: &Caller, reply: Reply) {
        let done = match reply {
            Reply::Done(done) => done,
            Reply::Stale => return self.refuse(now, request, &Refusal::later("CSeq Out Of Order")),
            Reply::TooMany => return self.refuse(now, request, &Refusal::because(403, "Too Many Devices")),
            Reply::NoAccount => return self.refuse(now, request, &Refusal::status(403)),
            Reply::Gone => return self.refuse(now, request, &Refusal::later("Front End Restarting")),
        };
        let octets = register::answer(request, &done, &self.key.to_tag(&request.otid));
        self.metrics.response(200);
        self.respond(now, request, octets, true);
        self.take_in(now, request, caller, *done);
    }

    /// What a REGISTER brought about, into memory: timers, flows, dialogs, watchers.
    fn take_in(&mut self, now: Moment, request: &Request, caller: &Caller, done: Done) {
        for touched in &done.touched {
            let Some(id) = touched.endpoint else { continue };
            match touched.how {
                Change::Removed => {
                    self.release(id);
                    self.drop_dialogs_of(now, id);
                    tracing::info!(user = caller.address, endpoint = id.0, "signed out");
                }
                Change::Created | Change::Refreshed => self.hold(now, request, caller, id, touched),
            }
        }
        for Endpoint { id, expires_ms, .. } in &done.bindings {
            if self.registrations.held.contains_key(id) {
                self.timers.set(Due::Endpoint(*id), now + Duration::from_millis(*expires_ms + 100));
            }
        }
        if let Some(change) = done.change {
            self.presence_changed(now, change);
        }
    }

    fn hold(&mut self, now: Moment, request: &Request, caller: &Caller, id: EndpointId, touched: &Touched) {
        // The connection may have closed while the store worked: then the row must be marked, it was not ours yet.
        if self.flows.get(request.flow).is_none() {
            return self.mark_lost_again(now, request, caller, touched);
        }
        let call_id = request.message.call_id().unwrap_or_default().to_owned();
        let held = Held { user: caller.user, flow: request.flow, call_id: call_id.clone() };
        let before = self.registrations.held.insert(id, held);
        let moved = before.as_ref().is_none_or(|b| b.flow != request.flow);
        if let Some(before) = &before
            && moved
        {
            self.leave_flow(before.flow, id);
        }
        if let Some(state) = self.flows.get_mut(request.flow) {
            state.endpoints.insert(id);
        }
        if moved {
            tracing::info!(user = caller.address, endpoint = id.0, remote = %request.info.remote, "signed in");
            let same_process = before.as_ref().is_none_or(|b| b.call_id == call_id);
            self.dialogs_follow(now, id, request.flow, same_process);
            self.close_replaced(now, touched);
        }
    }

    fn mark_lost_again(&mut self, now: Moment, request: &Request, caller: &Caller, touched: &Touched) {
        if touched.how == Change::Created || touched.previous.is_some() {
            tracing::debug!(user = caller.address, "flow closed during REGISTER");
        }
        if let Flow::Stream(serial) = request.flow {
            self.note_lost(now, caller.user, serial);
        }
    }

    /// The old connection of an outbound binding that came anew is closed (RFC 5626 §6); others may live on.
    fn close_replaced(&mut self, now: Moment, touched: &Touched) {
        let Some(previous) = touched.previous.as_ref().filter(|p| p.fe == self.fe) else { return };
        let Some(old) = self.flows.by_serial(previous.serial).filter(|f| f.reliable()) else { return };
        if self.flows.get(old).is_some_and(|s| s.endpoints.is_empty() && s.dialogs == 0) {
            self.timers.set(Due::CloseReplaced(old), now + Duration::from_secs(2));
        }
    }

    /// An endpoint is no longer ours.
    pub(super) fn release(&mut self, id: EndpointId) {
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

    /// A flow is gone: endpoints on it are unroutable at once, presence has its grace.
    pub(super) fn flow_gone(&mut self, now: Moment, flow: Flow) {
        let Some(state) = self.flows.close(flow) else { return };
        tracing::debug!(serial = state.serial, endpoints = state.endpoints.len(), "flow gone");
        for due in [Due::Ping(flow), Due::Probe(flow), Due::Unproven(flow), Due::CloseReplaced(flow)] {
            self.timers.clear(&due);
        }
        self.transactions.flow_closed(flow);
        self.deliveries_lost(now, flow);
        self.dialogs_wait(flow);
        for user in state.users.keys() {
            self.note_lost(now, *user, state.serial);
        }
        for endpoint in state.endpoints {
            self.timers.clear(&Due::Endpoint(endpoint));
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
        for (id, _) in removed {
            self.release(id);
            self.drop_dialogs_of(now, id);
        }
        if let Some(change) = change {
            self.presence_changed(now, change);
        }
    }

    /// Endpoints that the store has removed for good.
    pub(super) fn removed(&mut self, now: Moment, endpoints: Vec<EndpointId>, changes: Vec<PresenceChange>) {
        for id in endpoints {
            self.release(id);
            self.drop_dialogs_of(now, id);
        }
        for change in changes {
            self.presence_changed(now, change);
        }
    }

    /// The endpoint that a request's flow belongs to, if one has registered on it.
    pub(super) fn endpoint_of(&self, request: &Request, caller: &Caller) -> Option<EndpointId> {
        let state = self.flows.get(request.flow)?;
        let own = |id: &&EndpointId| self.registrations.held.get(id).is_some_and(|h| h.user == caller.user);
        state.endpoints.iter().find(own).copied()
    }

    /// An endpoint's timer rang: the store decides whether it is really past.
    pub(super) fn endpoint_due(&mut self, now: Moment, id: EndpointId) {
        self.expired.endpoints.push(id);
        self.timers.set_if_absent(Due::Flush, now);
    }
}
