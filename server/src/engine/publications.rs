//! PUBLISH carried out: one write, watchers told.

use std::time::Duration;

use commpool_sip::time::Moment;
use commpool_store::ops::presence::{Action, Publish, Published};

use super::Engine;
use super::pending::Pending;
use super::upkeep::Due;
use crate::services::{Caller, Refusal, Request, publish};

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
                self.timers.set(due, now + Duration::from_secs(u64::from(expires)) + Duration::from_millis(100));
            }
            Action::Remove => self.timers.clear(&due),
        }
        self.presence_changed(now, *change);
    }
}
