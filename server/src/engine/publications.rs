//! PUBLISH carried out: one write, watchers told; what was published here is remembered for a store that lost it.

use std::collections::HashMap;
use std::time::Duration;

use commpool_model::ids::{Key128, UserRef};
use commpool_model::presence::Publication;
use commpool_sip::time::Moment;
use commpool_store::ops::assert::HeldPublication;
use commpool_store::ops::presence::{Action, Publish, Published};

use super::Engine;
use super::pending::Pending;
use super::upkeep::Due;
use crate::services::{Caller, Refusal, Request, publish};

/// Most publications remembered; beyond, the oldest knowledge is the store's alone.
const MAX_HELD: usize = 200_000;

/// A publication last written through this front end.
#[derive(Debug)]
struct Written {
    tag: Key128,
    serial: u32,
    publication: Publication,
    since: Moment,
    updated: Moment,
    expires: Moment,
}

/// Publications of this front end.
#[derive(Debug, Default)]
pub(super) struct Held(HashMap<(UserRef, Key128), Written>);

impl Held {
    /// What is held, to be said again to a store that lost it.
    pub(super) fn assertions(&self, now: Moment) -> Vec<HeldPublication> {
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let assertion = |((user, id), w): (&(UserRef, Key128), &Written)| HeldPublication {
            user: *user,
            id: *id,
            tag: w.tag,
            serial: w.serial,
            endpoint: w.publication.endpoint,
            state: w.publication.state.clone(),
            document: w.publication.document.clone(),
            since_ms: ms(now.since(w.since)),
            updated_ms: ms(now.since(w.updated)),
            expires_ms: ms(w.expires.since(now)),
        };
        let mut rows: Vec<_> = self.0.iter().filter(|(_, w)| w.expires > now).map(assertion).collect();
        rows.sort_unstable_by_key(|row| (row.user, row.id));
        rows
    }

    pub(super) fn forget(&mut self, user: UserRef, id: Key128) {
        self.0.remove(&(user, id));
    }
}

impl Engine {
    pub(super) fn publish(&mut self, now: Moment, request: &Request, caller: &Caller) -> Result<(), Refusal> {
        let flow = self.flow_ref(request)?;
        let endpoint = self.endpoint_of(request, caller);
        let write = publish::plan(&self.settings, &self.key, request, caller, flow, endpoint)?;
        self.call(now, write.clone(), Pending::Publish(Box::new(request.clone()), Box::new(write)));
        Ok(())
    }

    pub(super) fn published(&mut self, now: Moment, request: &Request, write: &Publish, reply: Published) {
        let (id, change) = match reply {
            Published::Done { id, change, .. } => (id, change),
            Published::Precondition => return self.refuse(now, request, &Refusal::status(412)),
            Published::TooMany => return self.refuse(now, request, &Refusal::because(403, "Too Many Publications")),
            Published::NoAccount => return self.refuse(now, request, &Refusal::status(403)),
            Published::Gone => return self.refuse(now, request, &Refusal::later("Front End Restarting")),
        };
        let octets = publish::answer(request, write, &self.key.to_tag(&request.otid));
        self.metrics.response(200);
        self.respond(now, request, octets, true);
        let due = Due::Publication(write.user, id);
        match write.action {
            Action::Set { expires, .. } | Action::Refresh { expires } => {
                let expires = now + Duration::from_secs(u64::from(expires));
                self.timers.set(due, expires + Duration::from_millis(100));
                let publication = change.state.publications.iter().find(|p| p.id == id).cloned();
                self.remember_publication(now, write, id, publication, expires);
            }
            Action::Remove => {
                self.timers.clear(&due);
                self.publications.forget(write.user, id);
            }
        }
        self.spread(now, *change);
    }

    fn remember_publication(
        &mut self,
        now: Moment,
        write: &Publish,
        id: Key128,
        publication: Option<Publication>,
        expires: Moment,
    ) {
        let key = (write.user, id);
        let before = self.publications.0.remove(&key);
        let Some(publication) = publication else { return };
        if !self.lease.shared() || self.publications.0.len() >= MAX_HELD {
            return;
        }
        let same = before.filter(|b| b.publication.state == publication.state);
        let since = same.map_or(now, |b| b.since);
        let written = Written { tag: write.tag, serial: write.flow.serial, publication, since, updated: now, expires };
        self.publications.0.insert(key, written);
    }

    pub(super) fn publication_due(&mut self, now: Moment, user: UserRef, id: Key128) {
        self.publications.forget(user, id);
        self.due.publications.push((user, id));
        self.timers.set_if_absent(Due::Flush, now);
    }
}
