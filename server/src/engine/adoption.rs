//! Dialogs that follow their endpoint from front end to front end, and what a store that lost rows is told again.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use commpool_model::ids::{EndpointId, Key128, Origin, UserRef};
use commpool_sip::subscription::{Dialog, Subscribe};
use commpool_sip::time::Moment;
use commpool_store::ops::adopt::{Adopt, Adopted, AdoptedDialog, Flush, Flushed};
use commpool_store::ops::assert::{Assert, Asserted};
use commpool_store::ops::subscribe::{CSEQ_STEP, OUTLIVES};

use super::dialogs::Subscription;
use super::flow::Flow;
use super::pending::Pending;
use super::upkeep::Due;
use super::{Engine, watched::Edition};
use crate::peers::frame::{self, Disowned, Told};
use crate::services::Caller;

/// An adoption that the store did not take is tried again after this.
const ADOPT_AGAIN: Duration = Duration::from_secs(1);
/// NOTIFYs after an adoption go out at this pace.
const PACE: Duration = Duration::from_millis(40);
/// What an owner before told is remembered so long for a dialog that is not here yet.
const TOLD_FOR: Duration = Duration::from_secs(30);
/// Most of it.
const MAX_TOLD: usize = 20_000;
/// How often lifetimes and numbers are told to the store.
const FLUSH: Duration = Duration::from_secs(60);
/// Most rows in one call.
const ROWS: usize = 1000;

/// An adoption under way.
#[derive(Clone, Debug)]
pub(super) struct Adoption {
    endpoint: EndpointId,
    flow: Flow,
    caller: Caller,
    /// It is the client that made its dialogs, not one started anew.
    same_process: bool,
}

/// What is on its way here: what owners before have told dialogs, and adoptions that wait for the store.
#[derive(Debug, Default)]
pub(super) struct OnTheWay {
    told: HashMap<Key128, (Told, Moment)>,
    adoptions: HashMap<EndpointId, Adoption>,
}

impl OnTheWay {
    /// How many adoptions wait for the store.
    pub(super) fn waiting(&self) -> usize {
        self.adoptions.len()
    }
}

impl Engine {
    /// An endpoint came here with its dialogs at another front end: they are owned here from now on.
    pub(super) fn adopt(&mut self, now: Moment, endpoint: EndpointId, flow: Flow, caller: &Caller, same_process: bool) {
        self.adopt_page(now, Adoption { endpoint, flow, caller: caller.clone(), same_process }, None);
    }

    pub(super) fn adopt_later(&mut self, now: Moment, adoption: Adoption) {
        self.timers.set(Due::Adopt(adoption.endpoint), now + ADOPT_AGAIN);
        self.on_the_way.adoptions.insert(adoption.endpoint, adoption);
    }

    pub(super) fn adopt_again(&mut self, now: Moment, endpoint: EndpointId) {
        let here = |a: &Adoption| self.registrations.flow(endpoint) == Some(a.flow);
        if let Some(adoption) = self.on_the_way.adoptions.remove(&endpoint).filter(here) {
            self.adopt_page(now, adoption, None);
        }
    }

    fn adopt_page(&mut self, now: Moment, adoption: Adoption, after: Option<Key128>) {
        let seconds = u32::try_from(self.cseq_seconds(now)).unwrap_or(u32::MAX);
        let adopt = Adopt {
            fe: self.fe,
            endpoint: adoption.endpoint,
            first_cseq: seconds.saturating_add(CSEQ_STEP),
            held: self.watched.all_held(ROWS),
            after,
        };
        self.call(now, adopt, Pending::Adopt(Box::new(adoption)));
    }

    pub(super) fn adopted(&mut self, now: Moment, adoption: &Adoption, reply: Adopted) {
        let Adopted::Done { mut dialogs, watched, more } = reply else { return };
        let users: HashMap<String, UserRef> = watched
            .into_iter()
            .map(|(address, p)| {
                let user = self.learn(now, &address, p);
                self.keep_watching(now, user);
                (address, user)
            })
            .collect();
        tracing::debug!(user = adoption.caller.address, dialogs = dialogs.len(), "dialogs adopted");
        let last = dialogs.last().map(|d| d.sub_id);
        // Refreshed last, told first: what a client gave up long ago can wait.
        dialogs.sort_by_key(|d| Reverse(d.seconds_left));
        let mut turn = 0;
        for dialog in dialogs {
            let user = dialog.presentities.first().and_then(|address| users.get(address).copied());
            let Some(user) = user.filter(|_| !self.dialogs.is_current(dialog.sub_id, dialog.cseq)) else { continue };
            // What we have of it is from before somebody else carried it on, who need not be who held the endpoint.
            self.disowned_at(now, dialog.sub_id);
            if let Some(owner) = dialog.owner_before {
                self.tell_disowned(owner, Disowned { id: dialog.sub_id, cseq: dialog.cseq });
            }
            let at = now + PACE * turn;
            turn += u32::from(self.take_over(now, adoption, &dialog, user, at));
        }
        if more {
            return self.adopt_page(now, adoption.clone(), last);
        }
        if self.registrations.flow(adoption.endpoint) == Some(adoption.flow) {
            self.dialogs_follow(now, adoption.endpoint, adoption.flow, adoption.same_process);
        }
    }

    /// One dialog becomes ours. True: its watcher is told something at `at`.
    fn take_over(
        &mut self,
        now: Moment,
        adoption: &Adoption,
        row: &AdoptedDialog,
        presentity: UserRef,
        at: Moment,
    ) -> bool {
        let d = &row.dialog;
        let Some(address) = row.presentities.first() else { return false };
        let left = row.seconds_left / OUTLIVES;
        let dialog = Dialog::new(
            now,
            &Subscribe {
                call_id: &d.call_id,
                local_tag: &d.local_tag,
                remote_tag: &d.remote_tag,
                local_uri: &format!("<sip:{address}>"),
                remote_uri: &format!("<sip:{}>", adoption.caller.address),
                contact: &d.contact,
                route_set: d.route.iter().map(String::as_str).collect(),
                event_package: "presence",
                event_id: Some(d.event_id.as_str()).filter(|id| !id.is_empty()),
                cseq: d.remote_cseq,
                // Not more than was granted, not less than is left.
                expires: left,
                last_local_cseq: row.cseq.saturating_sub(CSEQ_STEP),
                pool_seconds: self.cseq_seconds(now),
            },
        );
        let Ok(dialog) = dialog else { return false };
        let id = row.sub_id;
        let mut own = Subscription::new(
            dialog,
            &adoption.caller,
            Some(adoption.endpoint),
            (Some(presentity), address),
            Origin(id.0),
        );
        own.told = self.told_before(id, presentity);
        let news = own.told.is_none() || own.told != self.watched.get(presentity).map(|t| t.edition);
        self.insert_dialog(now, id, own, adoption.flow, left);
        if news {
            self.timers.set(Due::Notify(id), at);
        }
        news
    }

    /// What the owner before told a dialog, as an edition of ours if it is what we would tell.
    fn told_before(&mut self, id: Key128, presentity: UserRef) -> Option<Edition> {
        let (told, _) = self.on_the_way.told.remove(&id)?;
        let target = self.watched.get(presentity)?;
        (told.document != 0 && told.document == target.hash()).then_some(target.edition)
    }

    /// The owner before says what it had told a dialog.
    pub(super) fn dialog_was_told(&mut self, now: Moment, told: Told) {
        if self.dialogs.raise(told.id, told.cseq) {
            return;
        }
        if self.on_the_way.told.len() >= MAX_TOLD {
            self.on_the_way.told.retain(|_, (_, until)| *until > now);
        }
        if self.on_the_way.told.len() < MAX_TOLD {
            self.on_the_way.told.insert(told.id, (told, now + TOLD_FOR));
        }
    }

    /// The dialogs of an endpoint that is at another front end now: what they were told, and forgotten here.
    pub(super) fn hand_over_dialogs(&mut self, now: Moment, endpoint: EndpointId) -> Vec<Told> {
        let mut told = Vec::new();
        for id in self.dialogs.of(endpoint) {
            if let Some((cseq, presentity, edition)) = self.dialogs.progress(id) {
                let target = presentity.and_then(|user| self.watched.get(user));
                let current = target.filter(|t| edition == Some(t.edition)).map_or(0, |t| t.hash());
                told.push(Told { id, cseq, document: current });
            }
            self.disowned_at(now, id);
        }
        told.truncate(frame::MOST);
        told
    }

    /// Another front end carries a dialog on, unless it has come back here since.
    pub(super) fn disowned(&mut self, now: Moment, disowned: Disowned) {
        if !self.dialogs.is_current(disowned.id, disowned.cseq) {
            self.disowned_at(now, disowned.id);
        }
    }

    /// Another front end carries this dialog on.
    pub(super) fn disowned_at(&mut self, now: Moment, id: Key128) {
        if let Some((_, presentity)) = self.forget_dialog(id)
            && let Some(presentity) = presentity
            && self.watched.leave(presentity, id)
        {
            self.unwatch_later(now, presentity);
        }
    }

    pub(super) fn start_flush(&mut self, now: Moment) {
        self.timers.set_if_absent(Due::FlushDialogs, now + FLUSH);
    }

    /// Lifetimes and numbers that changed since the last time.
    pub(super) fn flush_dialogs(&mut self, now: Moment) {
        let changed = self.dialogs.take_changed();
        for ids in changed.chunks(ROWS) {
            let row = |id: &Key128| {
                let own = self.dialogs.get(*id)?;
                let expires = u32::try_from(own.dialog.remaining(now)).unwrap_or(u32::MAX);
                Some(Flushed { watcher: own.watcher, sub_id: *id, expires, cseq: own.dialog.local_cseq() })
            };
            let dialogs: Vec<Flushed> = ids.iter().filter_map(row).collect();
            self.call(now, Flush { fe: self.fe, dialogs }, Pending::Done);
        }
    }

    /// The store lost soft rows: everything held here is said again.
    pub(super) fn assert_all(&mut self, now: Moment) {
        tracing::warn!("the store lost recent changes: what is held here is said again");
        let empty = Assert {
            fe: self.fe,
            endpoints: Vec::new(),
            publications: Vec::new(),
            interest: Vec::new(),
            subscriptions: Vec::new(),
        };
        let mut calls = Vec::new();
        for rows in self.registrations.assertions(now).chunks(ROWS) {
            calls.push(Assert { endpoints: rows.to_vec(), ..empty.clone() });
        }
        for rows in self.publications.assertions(now).chunks(ROWS) {
            calls.push(Assert { publications: rows.to_vec(), ..empty.clone() });
        }
        for rows in self.watched.users().chunks(ROWS) {
            calls.push(Assert { interest: rows.to_vec(), ..empty.clone() });
        }
        for rows in self.dialog_assertions(now).chunks(ROWS) {
            calls.push(Assert { subscriptions: rows.to_vec(), ..empty.clone() });
        }
        for call in calls {
            self.call(now, call, Pending::Assert);
        }
        self.sweep_from(now);
    }

    /// What is newer elsewhere is no longer ours.
    pub(super) fn asserted(&mut self, now: Moment, reply: Asserted) {
        let Asserted::Done(kept) = reply else { return };
        for endpoint in kept.lost_endpoints {
            self.release(endpoint);
        }
        for (user, id) in kept.lost_publications {
            self.publications.forget(user, id);
        }
        for (_, id) in kept.lost_subscriptions {
            self.disowned_at(now, id);
        }
    }
}
