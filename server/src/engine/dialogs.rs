//! Subscription dialogs that this front end owns: made, refreshed, told, ended (RFC 6665).

mod notify;
mod table;

use std::time::Duration;

use commpool_model::ids::{EndpointId, Key128, Origin, UserRef};
use commpool_sip::header::HeaderName;
use commpool_sip::subscription::{Dialog, DialogError, Reason, Subscribe};
use commpool_sip::time::Moment;
use commpool_store::ops::assert::HeldSubscription;
use commpool_store::ops::subscribe::{self as store, CSEQ_STEP, Kind, Presentity, Reply};

pub(super) use self::table::{Dialogs, Subscription};
use self::table::{drop_from, ids};
use super::Engine;
use super::flow::Flow;
use super::pending::Pending;
use super::upkeep::Due;
use crate::peers::frame::Disowned;
use crate::services::subscribe::{self, Wanted};
use crate::services::{Caller, Refusal, Request};

/// Most dialogs of one flow.
const MAX_ON_FLOW: u32 = 1_000;
/// Seconds granted to a dialog that belongs to no endpoint: nobody carries it on when its front end dies.
const ALONE: u32 = 120;
/// A pending subscription asks the store again after this.
const DECIDE_AGAIN: Duration = Duration::from_secs(2);
/// Most pending subscriptions.
const MAX_UNDECIDED: usize = 20_000;
/// Seconds since 1970 of 2026-01-01, from which first CSeq numbers count.
const CSEQ_EPOCH: u64 = 1_767_225_600;

/// A SUBSCRIBE on its way to the store.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: Request,
    caller: Caller,
    wanted: Wanted,
}

fn unfit(error: DialogError) -> Refusal {
    match error {
        DialogError::OutOfOrder => Refusal::later("CSeq Out Of Order"),
        DialogError::TooManyRoutes => Refusal::because(403, "Too Many Routes"),
        DialogError::Unfit(_) => Refusal::because(400, "Not Fit For A Dialog"),
    }
}

impl Engine {
    pub(super) fn subscribe(&mut self, now: Moment, request: &Request, caller: &Caller) -> Result<(), Refusal> {
        let mut wanted =
            subscribe::understand(&self.settings, &self.key, request, caller, &self.key.to_tag(&request.otid))?;
        let endpoint = self.endpoint_of(request, caller);
        if endpoint.is_none() {
            wanted.expires = wanted.expires.min(ALONE);
        }
        if self.flows.get(request.flow).is_none_or(|s| s.dialogs >= MAX_ON_FLOW) {
            return Err(Refusal::later("Too Many Subscriptions"));
        }
        if let Some(own) = self.dialogs.all.get(&wanted.sub_id) {
            if wanted.initial && own.dialog.remote_cseq() == wanted.dialog.remote_cseq {
                return Err(Refusal::status(482));
            }
            // One who has another address now is not who is watched: the store says who is.
            let subject = own.presentity.and_then(|user| self.watched.get(user));
            let decided = subject.is_some_and(|target| target.address == own.address);
            // Where the endpoint is news the store must learn it. On another flow than the last one its client may have
            // been at another front end meanwhile, which the store knows.
            let learnt = own.endpoint.is_some() || endpoint.is_none();
            let settled = learnt && (own.flow == Some(request.flow) || !self.lease.shared());
            if decided && settled && !wanted.initial && own.dialog.local_tag() == wanted.dialog.local_tag {
                return self.refresh(now, request, &wanted);
            }
        }
        let held = self.watched.held(&wanted.presentity);
        if let Some((user, _)) = held {
            // What was named as held must still be there when the answer comes.
            self.keep_watching(now, user);
        }
        let write = subscribe::plan(&wanted, request, caller, self.fe, endpoint, held, self.cseq_seconds(now));
        let asked = Asked { request: request.clone(), caller: caller.clone(), wanted };
        if self.lease.holds(now) {
            self.call(now, write, Pending::Subscribe(Box::new(asked)));
        } else {
            self.not_subscribed(now, asked);
        }
        Ok(())
    }

    /// A SUBSCRIBE in a dialog that is ours: no store call.
    fn refresh(&mut self, now: Moment, request: &Request, wanted: &Wanted) -> Result<(), Refusal> {
        let id = wanted.sub_id;
        let Some(own) = self.dialogs.all.get_mut(&id) else { return Ok(()) };
        own.dialog
            .refresh(now, wanted.dialog.remote_cseq, Some(&wanted.dialog.contact), wanted.expires)
            .map_err(unfit)?;
        let tag = own.dialog.local_tag().to_owned();
        (own.told, own.changed, own.origin) = (None, true, Origin(request.otid.0));
        self.start_flush(now);
        self.answer_subscribe(now, request, &tag, wanted.expires);
        self.bind(id, request.flow);
        self.confirmed(now, id, wanted.expires);
        Ok(())
    }

    fn answer_subscribe(&mut self, now: Moment, request: &Request, tag: &str, expires: u32) {
        let name = self.settings.reached_by(&request.info);
        let octets = subscribe::answer(request, tag, expires, &name);
        self.metrics.response(200);
        self.respond(now, request, octets, true);
    }

    /// After any accepted SUBSCRIBE: its timer, and a NOTIFY at once (RFC 6665 §4.2.1.2).
    fn confirmed(&mut self, now: Moment, id: Key128, expires: u32) {
        if expires == 0 {
            self.end_dialog(now, id, Reason::Timeout);
        } else {
            self.timers.set(Due::Subscription(id), now + Duration::from_secs(expires.into()));
            self.notify(now, id);
        }
    }

    pub(super) fn subscribed(&mut self, now: Moment, asked: Asked, reply: Reply) {
        let request = &asked.request;
        let (cseq, owner_before, presentity) = match reply {
            Reply::Done { cseq, owner_before, mut presentities, .. } => {
                (cseq, owner_before, presentities.pop().flatten())
            }
            Reply::Merged => return self.refuse(now, request, &Refusal::status(482)),
            Reply::TooMany => return self.refuse(now, request, &Refusal::because(403, "Too Many Subscriptions")),
            Reply::Gone => return self.refuse(now, request, &Refusal::later("Front End Restarting")),
        };
        if let Some(owner) = owner_before {
            let seconds = u32::try_from(self.cseq_seconds(now)).unwrap_or(u32::MAX);
            let first = seconds.max(cseq).saturating_add(CSEQ_STEP);
            self.tell_disowned(owner, Disowned { id: asked.wanted.sub_id, cseq: first });
        }
        let decided = self.dialogs.get(asked.wanted.sub_id).is_some_and(|own| own.presentity.is_none());
        let Some(presentity) = presentity else {
            if decided {
                return self.end_dialog(now, asked.wanted.sub_id, Reason::Noresource);
            }
            return self.refuse(now, request, &Refusal::status(404));
        };
        if decided {
            return self.decided(now, &asked, presentity);
        }
        let dialog = match self.dialog(now, request, &asked.wanted, cseq) {
            Ok(dialog) => dialog,
            Err(error) => return self.refuse(now, request, &unfit(error)),
        };
        let expires = asked.wanted.expires;
        self.answer_subscribe(now, request, &asked.wanted.dialog.local_tag, expires);
        self.forget_dialog(asked.wanted.sub_id);
        let user = self.learn(now, &asked.wanted.presentity, presentity);
        self.make_dialog(now, &asked, dialog, Some(user));
        self.supersede(now, asked.wanted.sub_id);
        self.confirmed(now, asked.wanted.sub_id, expires);
    }

    /// The store did not answer a SUBSCRIBE. Where it is only away, the subscription is accepted as pending, which is
    /// true, and decided when the store is back: a refusal would blind some clients for a day.
    pub(super) fn not_subscribed(&mut self, now: Moment, asked: Asked) {
        let id = asked.wanted.sub_id;
        if self.dialogs.get(id).is_some_and(|own| own.presentity.is_none()) {
            self.undecided.insert(id, asked);
            return self.timers.set(Due::Decide(id), now + DECIDE_AGAIN);
        }
        if !self.unanswered(&asked.request.otid) {
            return;
        }
        let room = self.lease.shared() && self.undecided.len() < MAX_UNDECIDED;
        let dialog =
            self.dialog(now, &asked.request, &asked.wanted, 0).ok().filter(|_| room && asked.wanted.expires > 0);
        let Some(dialog) = dialog else {
            return self.refuse(now, &asked.request, &Refusal::later("Store Not Available"));
        };
        self.answer_subscribe(now, &asked.request, &asked.wanted.dialog.local_tag, asked.wanted.expires);
        self.forget_dialog(id);
        self.make_dialog(now, &asked, dialog, None);
        self.confirmed(now, id, asked.wanted.expires);
        self.undecided.insert(id, asked);
        self.timers.set(Due::Decide(id), now + DECIDE_AGAIN);
    }

    /// Asks the store again about a pending subscription.
    pub(super) fn decide(&mut self, now: Moment, id: Key128) {
        let Some(asked) = self.undecided.remove(&id) else { return };
        let Some(own) = self.dialogs.get(id).filter(|own| own.presentity.is_none()) else { return };
        if !self.lease.holds(now) {
            return self.not_subscribed(now, asked);
        }
        let (endpoint, held) = (own.endpoint, self.watched.held(&asked.wanted.presentity));
        let seconds = self.cseq_seconds(now);
        let write = subscribe::plan(&asked.wanted, &asked.request, &asked.caller, self.fe, endpoint, held, seconds);
        self.call(now, write, Pending::Subscribe(Box::new(asked)));
    }

    fn decided(&mut self, now: Moment, asked: &Asked, presentity: Presentity) {
        let id = asked.wanted.sub_id;
        let user = self.learn(now, &asked.wanted.presentity, presentity);
        self.watched.watch(user, id);
        self.timers.clear(&Due::Unwatch(user));
        if let Some(own) = self.dialogs.all.get_mut(&id) {
            (own.presentity, own.told, own.changed) = (Some(user), None, true);
        }
        self.start_flush(now);
        self.notify(now, id);
    }

    pub(super) fn cseq_seconds(&self, now: Moment) -> u64 {
        self.pool_seconds(now).saturating_sub(CSEQ_EPOCH)
    }

    /// The dialog a SUBSCRIBE makes, or stands in if another run of a front end made it.
    fn dialog(&self, now: Moment, request: &Request, wanted: &Wanted, cseq: u32) -> Result<Dialog, DialogError> {
        let d = &wanted.dialog;
        let address = |header| request.message.text(header).unwrap_or_default();
        Dialog::new(
            now,
            &Subscribe {
                call_id: &d.call_id,
                local_tag: &d.local_tag,
                remote_tag: &d.remote_tag,
                local_uri: &address(HeaderName::To),
                remote_uri: &address(HeaderName::From),
                contact: &d.contact,
                route_set: d.route.iter().map(String::as_str).collect(),
                event_package: "presence",
                event_id: Some(d.event_id.as_str()).filter(|id| !id.is_empty()),
                cseq: d.remote_cseq,
                expires: wanted.expires,
                last_local_cseq: cseq,
                pool_seconds: self.cseq_seconds(now),
            },
        )
    }

    fn make_dialog(&mut self, now: Moment, asked: &Asked, dialog: Dialog, presentity: Option<UserRef>) {
        let Asked { request, caller, wanted } = asked;
        let endpoint = self.endpoint_of(request, caller);
        let own = Subscription::new(dialog, caller, endpoint, (presentity, &wanted.presentity), Origin(request.otid.0));
        self.insert_dialog(now, wanted.sub_id, own, request.flow, wanted.expires);
    }

    pub(super) fn insert_dialog(&mut self, now: Moment, id: Key128, own: Subscription, flow: Flow, expires: u32) {
        if let Some(endpoint) = own.endpoint {
            self.dialogs.of_endpoint.entry(endpoint).or_default().insert(id);
        }
        self.dialogs.of_watcher.entry(own.watcher).or_default().insert(id);
        let presentity = own.presentity;
        self.dialogs.all.insert(id, own);
        if let Some(user) = presentity {
            self.watched.watch(user, id);
            self.timers.clear(&Due::Unwatch(user));
        }
        self.timers.set(Due::Subscription(id), now + Duration::from_secs(expires.into()));
        self.bind(id, flow);
    }

    /// A second dialog of one endpoint for one resource replaces those that have no flow any more.
    fn supersede(&mut self, now: Moment, id: Key128) {
        let Some(new) = self.dialogs.all.get(&id) else { return };
        let (Some(endpoint), presentity) = (new.endpoint, new.presentity) else { return };
        for other in ids(&self.dialogs.of_endpoint, &endpoint) {
            let stale = self.dialogs.all.get(&other).is_some_and(|s| s.presentity == presentity && s.flow.is_none());
            if other != id && stale {
                self.close_dialog(now, other);
            }
        }
    }

    /// NOTIFYs of a dialog leave on this flow from now on.
    fn bind(&mut self, id: Key128, flow: Flow) {
        let Some(own) = self.dialogs.all.get_mut(&id) else { return };
        if own.flow == Some(flow) || self.flows.get(flow).is_none() {
            return;
        }
        let before = own.flow.replace(flow);
        own.under_way = false;
        self.dialogs.on_flow.entry(flow).or_default().insert(id);
        if let Some(state) = self.flows.get_mut(flow) {
            state.dialogs += 1;
        }
        self.unbind(before, id);
    }

    fn unbind(&mut self, flow: Option<Flow>, id: Key128) {
        let Some(flow) = flow else { return };
        drop_from(&mut self.dialogs.on_flow, &flow, id);
        if let Some(state) = self.flows.get_mut(flow) {
            state.dialogs = state.dialogs.saturating_sub(1);
        }
        self.close_idle_udp(flow);
    }

    /// A flow is gone: its dialogs wait for their client, up to their expiry.
    pub(super) fn dialogs_wait(&mut self, flow: Flow) {
        for id in self.dialogs.on_flow.remove(&flow).unwrap_or_default() {
            if let Some(own) = self.dialogs.all.get_mut(&id) {
                (own.flow, own.under_way) = (None, false);
            }
        }
    }

    /// An endpoint came back on another flow: its dialogs go on there, or, if its client started anew, end silently.
    pub(super) fn dialogs_follow(&mut self, now: Moment, endpoint: EndpointId, flow: Flow, same_process: bool) {
        for id in ids(&self.dialogs.of_endpoint, &endpoint) {
            let waits = self.dialogs.all.get(&id).is_some_and(|s| s.flow.is_none());
            if !waits {
                continue;
            }
            if same_process {
                self.bind(id, flow);
                self.notify(now, id);
            } else {
                self.close_dialog(now, id);
            }
        }
    }

    /// What is owned here, to be said again to a store that lost it.
    pub(super) fn dialog_assertions(&self, now: Moment) -> Vec<HeldSubscription> {
        let assertion = |(id, own): (&Key128, &Subscription)| {
            own.presentity?;
            let d = &own.dialog;
            Some(HeldSubscription {
                watcher: own.watcher,
                sub_id: *id,
                origin: own.origin,
                endpoint: own.endpoint,
                kind: Kind::Presence,
                presentities: vec![own.address.clone()],
                expires: u32::try_from(d.remaining(now)).unwrap_or(u32::MAX),
                cseq: d.local_cseq(),
                dialog: store::Dialog {
                    call_id: d.call_id().to_owned(),
                    local_tag: d.local_tag().to_owned(),
                    remote_tag: d.remote_tag().to_owned(),
                    remote_cseq: d.remote_cseq(),
                    contact: d.remote_target().to_owned(),
                    route: d.route_set().to_vec(),
                    event_id: d.event_id().unwrap_or_default().to_owned(),
                },
            })
        };
        let mut rows: Vec<_> = self.dialogs.all.iter().filter_map(assertion).collect();
        rows.sort_unstable_by_key(|row| (row.watcher, row.sub_id));
        rows
    }

    /// Dialogs of an endpoint that has gone end without a word.
    pub(super) fn drop_dialogs_of(&mut self, now: Moment, endpoint: EndpointId) {
        for id in ids(&self.dialogs.of_endpoint, &endpoint) {
            self.close_dialog(now, id);
        }
    }

    /// The dialogs of an endpoint that has gone are not kept here; the store keeps them for as long as they live.
    pub(super) fn forget_dialogs_of(&mut self, now: Moment, endpoint: EndpointId) {
        for id in ids(&self.dialogs.of_endpoint, &endpoint) {
            self.disowned_at(now, id);
        }
    }

    /// All dialogs of a watcher end: he must not learn anything more.
    pub(super) fn drop_dialogs_of_watcher(&mut self, now: Moment, watcher: UserRef) {
        for id in ids(&self.dialogs.of_watcher, &watcher) {
            self.close_dialog(now, id);
        }
    }

    fn close_dialog(&mut self, now: Moment, id: Key128) {
        tracing::debug!(dialog = ?self.dialogs.all.get(&id).map(|d| d.dialog.call_id()), "dialog closed");
        let Some((watcher, presentity)) = self.forget_dialog(id) else { return };
        self.ended.push((watcher, id));
        self.timers.set_if_absent(Due::Flush, now);
        if let Some(presentity) = presentity
            && self.watched.leave(presentity, id)
        {
            self.unwatch_later(now, presentity);
        }
    }

    pub(super) fn forget_dialog(&mut self, id: Key128) -> Option<(UserRef, Option<UserRef>)> {
        let own = self.dialogs.all.remove(&id)?;
        self.timers.clear(&Due::Subscription(id));
        self.timers.clear(&Due::Notify(id));
        self.timers.clear(&Due::Decide(id));
        self.undecided.remove(&id);
        if let Some(endpoint) = own.endpoint {
            drop_from(&mut self.dialogs.of_endpoint, &endpoint, id);
        }
        drop_from(&mut self.dialogs.of_watcher, &own.watcher, id);
        self.unbind(own.flow, id);
        Some((own.watcher, own.presentity))
    }
}
