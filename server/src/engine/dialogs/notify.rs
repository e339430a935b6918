//! NOTIFY: what a dialog is told, one at a time, and what its client says to it.

use std::time::Duration;

use commpool_model::ids::Key128;
use commpool_sip::otid::Otid;
use commpool_sip::subscription::{After, Reason, SubState};
use commpool_sip::time::Moment;

use crate::engine::Engine;
use crate::engine::flow::Flow;
use crate::engine::holder::Sent;
use crate::engine::upkeep::Due;
use crate::engine::watched::Edition;
use crate::services::presence::{self, PIDF};
use crate::services::subscribe;

/// A NOTIFY without an answer ends the subscription after Timer F.
const TIMER_F: Duration = Duration::from_secs(32);
/// A NOTIFY over UDP that nobody answered is tried again after this.
const TRY_AGAIN: Duration = Duration::from_secs(20);

impl Engine {
    /// Whatever a dialog was told, it must be told anew.
    pub(in crate::engine) fn tell_again(&mut self, now: Moment, id: Key128) {
        if let Some(own) = self.dialogs.all.get_mut(&id) {
            own.told = None;
            self.notify(now, id);
        }
    }

    /// Sends what a dialog has not been told yet, if it may go now.
    pub(in crate::engine) fn notify(&mut self, now: Moment, id: Key128) {
        let Some(own) = self.dialogs.all.get_mut(&id) else { return };
        let edition = match own.presentity {
            Some(user) => match self.watched.get(user) {
                Some(target) => target.edition,
                None => return,
            },
            None => Edition::default(),
        };
        let news = own.told != Some(edition) || own.ending.is_some();
        let Some(flow) = own.flow.filter(|_| news) else { return };
        if own.under_way {
            own.again = true;
            return;
        }
        if own.presentity.is_some() && !self.lease.holds(now) {
            // Somebody else may have taken the dialog over.
            self.timers.set(Due::Notify(id), now + Duration::from_secs(1));
            return;
        }
        if let Err(when) = own.dialog.ready(now)
            && own.ending.is_none()
        {
            self.timers.set(Due::Notify(id), when);
            return;
        }
        let Some((branch, octets)) = self.notification(now, id, flow, edition) else { return };
        if !self.start_sent(now, flow, &branch, octets, now + TIMER_F, Sent::Notify(id)) {
            self.notify_lost(id);
            self.timers.set(Due::Notify(id), now + Duration::from_secs(1));
        }
    }

    /// The NOTIFY itself: the state the watcher may see.
    fn notification(
        &mut self,
        now: Moment,
        id: Key128,
        flow: Flow,
        edition: Edition,
    ) -> Option<(String, bytes::Bytes)> {
        let name = self.name_towards(flow)?;
        let own = self.dialogs.all.get_mut(&id)?;
        let target = own.presentity.and_then(|user| self.watched.get(user));
        let visible = target
            .filter(|t| t.address == own.address)
            .filter(|t| subscribe::visible(&self.settings, &own.watcher_address, &t.address, t.state, &t.aces))
            .map(|t| t.shown());
        let hidden;
        let body = match &visible {
            Some(shown) if flow.reliable() || shown.full.len() <= presence::UDP_BODY => shown.full.as_slice(),
            Some(shown) => shown.short.as_slice(),
            None => {
                hidden = presence::offline(&own.address);
                hidden.as_slice()
            }
        };
        let state = match (own.ending, own.presentity) {
            (Some(reason), _) => SubState::Terminated(reason),
            (None, Some(_)) => SubState::Active,
            (None, None) => SubState::Pending,
        };
        // CSeq never repeats in a dialog, not even where it is made anew while an old transaction lingers.
        let branch = self.key.branch(self.fe.0, &Otid(id.0), u64::from(own.dialog.local_cseq()), 0);
        let octets = own.dialog.notify(now, &name.via(&branch), &name.contact(), state, Some((PIDF, body)));
        (own.told, own.under_way, own.again) = (Some(edition), true, false);
        Some((branch, octets))
    }

    /// A client answered a NOTIFY.
    pub(in crate::engine) fn notify_answered(&mut self, now: Moment, id: Key128, status: u16) {
        let Some(own) = self.dialogs.all.get_mut(&id) else { return };
        own.under_way = false;
        // What was answered may be a NOTIFY from before the end was decided: then the last one is still to go.
        if own.ending.is_some() && !own.again {
            return self.close_dialog(now, id);
        }
        match own.dialog.answer(status) {
            After::End => {
                tracing::debug!(watcher = own.watcher_address, status, "subscription ended by its client");
                return self.close_dialog(now, id);
            }
            After::RetryHigherCSeq if !own.raised => {
                (own.raised, own.again, own.told, own.changed) = (true, true, None, true);
                // Whoever carries it on must begin above the leap.
                self.timers.set_no_later(Due::FlushDialogs, now);
            }
            After::Keep | After::RetryHigherCSeq => {}
        }
        if std::mem::take(&mut own.again) {
            self.notify(now, id);
        }
    }

    /// Timer F on a live flow ends the subscription (RFC 6665 §4.2.2).
    /// Over UDP silence means that the path broke, which the client does not know either: it is told again later.
    pub(in crate::engine) fn notify_unanswered(&mut self, now: Moment, id: Key128) {
        let Some(own) = self.dialogs.all.get_mut(&id) else { return };
        if own.ending.is_none() && own.flow.is_some_and(|flow| !flow.reliable()) {
            (own.under_way, own.told) = (false, None);
            return self.timers.set(Due::Notify(id), now + TRY_AGAIN);
        }
        self.close_dialog(now, id);
    }

    /// The flow went while a NOTIFY was under way: its version counts as untold.
    pub(in crate::engine) fn notify_lost(&mut self, id: Key128) {
        if let Some(own) = self.dialogs.all.get_mut(&id) {
            (own.under_way, own.told) = (false, None);
        }
    }

    pub(in crate::engine) fn dialog_expired(&mut self, now: Moment, id: Key128) {
        self.end_dialog(now, id, Reason::Timeout);
    }

    /// Ends a dialog with a last NOTIFY, where there is a flow for it.
    pub(in crate::engine) fn end_dialog(&mut self, now: Moment, id: Key128, reason: Reason) {
        let Some(own) = self.dialogs.all.get_mut(&id) else { return };
        if own.flow.is_none() {
            return self.close_dialog(now, id);
        }
        own.ending = Some(reason);
        self.timers.clear(&Due::Subscription(id));
        self.notify(now, id);
    }
}
