//! What time alone brings: expiry, pings, sweeps, changed accounts.

use std::time::Duration;

use commpool_model::ids::{EndpointId, Key128, UserRef};
use commpool_sip::otid::Otid;
use commpool_sip::time::Moment;
use commpool_sip::transaction::ServerDue;
use commpool_store::ops::accounts::{Changed, ChangedSince, State};
use commpool_store::ops::endpoints::{Expire, FlowsLost, SweepLost, Swept, TimerRows};
use commpool_store::ops::subscribe::End;

use super::flow::Flow;
use super::holder::Fate;
use super::pending::Pending;
use super::{Engine, Output};

/// A connection on which nobody has proven who he is by then is closed.
pub(super) const UNPROVEN: Duration = Duration::from_secs(30);
/// Pings on UDP flows: the path through a Kubernetes VIP lives 30 s after the last packet.
const UDP_PING: Duration = Duration::from_secs(20);
/// Idle connections with somebody signed in get a ping, below every load balancer's patience.
const STREAM_PING: Duration = Duration::from_secs(100);
/// A connection that left a request unanswered has so long to say anything at all.
const PROBE: Duration = Duration::from_secs(10);
/// After a flow was lost the store is asked for endpoints past their grace from the shorter grace (15 s) on, every
/// second, until the longer one (35 s, outbound) is over.
const GRACE: Duration = Duration::from_millis(15_050);
const SWEEP_FOR: Duration = Duration::from_secs(37);
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// And always so often: for what a dead front end held over UDP, which is lost only with its lifetime, where the one
/// that should have swept died too, and for what is past its time and nobody's any more.
const SWEEP_ALWAYS: Duration = Duration::from_secs(60);
/// How often accounts changed by others are asked for.
const ACCOUNTS: Duration = Duration::from_secs(1);
/// What the store did not take is tried again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// Most rows in one sweep.
const SWEEP: u32 = 500;
/// Most rows in one flush.
const FLUSH: usize = 1000;

/// Most ended dialogs that wait for the store; the rows of others end by their expiry.
const MAX_ENDED: usize = 100_000;

/// A thing that falls due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Due {
    /// Batches wait to be sent to the store.
    Flush,
    /// Lost endpoints may be past their grace.
    Sweep,
    /// Ask for changed accounts.
    Accounts,
    Endpoint(EndpointId),
    Publication(UserRef, Key128),
    Subscription(Key128),
    /// A paced NOTIFY may go.
    Notify(Key128),
    Unwatch(UserRef),
    /// A sign-out that the store did not take is tried again.
    SignOut(UserRef),
    Ping(Flow),
    Probe(Flow),
    Unproven(Flow),
    CloseReplaced(Flow),
    /// The lease is to be renewed.
    Renew,
    /// Changes of watched users are to be pulled.
    Pull,
    PingPeers,
    /// Addresses without a flow are to be told.
    Seen,
    /// A holder has not said in time what became of a delivery.
    Ack(Otid, EndpointId),
    /// Deliveries wait for an endpoint long enough.
    Parked(EndpointId),
    /// What belongs to an endpoint that came here has not come.
    HandOver(EndpointId),
    /// An endpoint that was expected back has not come.
    Stub(EndpointId),
    /// Flows we closed count as lost from now.
    Unlost,
    /// Moves on with leaving.
    Leave,
    /// Closes the next flows.
    Shed,
    /// A REGISTER waits for the store to come back.
    Held(Otid),
    /// Senders wait for the store to tell of them.
    Logins,
    /// An adoption that the store did not take is tried again.
    Adopt(EndpointId),
    /// What is held is said to the store again.
    Assert,
    /// A pending subscription asks the store again.
    Decide(Key128),
    /// Lifetimes and numbers of dialogs are told to the store.
    FlushDialogs,
}

/// Rows whose timers rang, on their way to the store.
#[derive(Clone, Debug, Default)]
pub(super) struct Expired {
    pub(super) endpoints: Vec<EndpointId>,
    pub(super) publications: Vec<(UserRef, Key128)>,
}

impl Engine {
    pub(super) fn start_upkeep(&mut self, now: Moment) {
        self.timers.set(Due::Accounts, now + ACCOUNTS);
        self.sweep_from(now);
    }

    pub(super) fn sweep_from(&mut self, now: Moment) {
        self.sweep_until = now + SWEEP_FOR;
        self.timers.set_no_later(Due::Sweep, now + GRACE);
    }

    /// Takes in what was live in the store when this front end started.
    pub fn preload(&mut self, now: Moment, rows: &TimerRows) {
        for (id, ms) in &rows.endpoints {
            self.timers.set(Due::Endpoint(*id), now + Duration::from_millis(*ms + 100));
        }
        for (user, id, ms) in &rows.publications {
            self.timers.set(Due::Publication(*user, *id), now + Duration::from_millis(*ms + 100));
        }
    }

    /// When [`Engine::tick`] is wanted next.
    pub fn next_due(&self) -> Option<Moment> {
        [self.timers.next(), self.transactions.next_due(), self.holder.next_due(), self.pending.next_due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Carries out what is due.
    pub fn tick(&mut self, now: Moment) {
        for due in self.transactions.due(now) {
            match due {
                ServerDue::Trying100(otid) => self.trying(now, &otid),
                ServerDue::Overdue(otid) => self.overdue(now, &otid),
            }
        }
        self.sent_due(now);
        self.check_patience(now);
        while let Some(due) = self.timers.pop_due(now) {
            self.fall_due(now, due);
        }
    }

    fn fall_due(&mut self, now: Moment, due: Due) {
        match due {
            Due::Flush => self.flush(now),
            Due::Sweep => self.sweep(now),
            Due::Accounts => {
                self.call(now, ChangedSince { cursor: Some(self.accounts_cursor) }, Pending::Accounts);
            }
            Due::Endpoint(id) => self.endpoint_due(now, id),
            Due::Publication(user, id) => self.publication_due(now, user, id),
            Due::Subscription(id) => self.dialog_expired(now, id),
            Due::Notify(id) => self.notify(now, id),
            Due::Unwatch(user) => self.unwatch(now, user),
            Due::SignOut(user) => self.sign_out(now, user),
            Due::Ping(flow) => self.ping(now, flow),
            Due::Probe(flow) | Due::Unproven(flow) | Due::CloseReplaced(flow) => {
                self.out.push_back(Output::Close { flow });
            }
            Due::Renew => self.renew(now),
            Due::Pull => self.pull(now),
            Due::PingPeers => self.peers_due(now),
            Due::Seen => self.tell_seen(),
            Due::Ack(otid, endpoint) => self.unacknowledged(now, otid, endpoint),
            Due::Parked(endpoint) => self.parked_due(now, endpoint),
            Due::HandOver(endpoint) => self.back_here(now, endpoint),
            Due::Stub(endpoint) => self.stub_ended(now, endpoint, Fate::Gone),
            Due::Unlost => self.unlost_due(now),
            Due::Leave => self.leave(now),
            Due::Shed => self.shed_due(now),
            Due::Held(otid) => self.held_due(now, otid),
            Due::Logins => self.logins_due(now),
            Due::Adopt(endpoint) => self.adopt_again(now, endpoint),
            Due::Assert => self.assert_all(now),
            Due::Decide(id) => self.decide(now, id),
            Due::FlushDialogs => self.flush_dialogs(now),
        }
    }

    /// Sends to the store what has gathered.
    pub(super) fn flush(&mut self, now: Moment) {
        self.flush_lost(now);
        while !self.ended.is_empty() {
            let dialogs = self.ended.drain(..self.ended.len().min(FLUSH)).collect();
            let end = End { fe: self.fe, dialogs: Vec::clone(&dialogs) };
            self.call(now, end, Pending::Ended(dialogs));
        }
        let expired = std::mem::take(&mut self.due);
        if !(expired.endpoints.is_empty() && expired.publications.is_empty()) {
            let Expired { endpoints, publications } = expired.clone();
            let expire = Expire { fe: self.fe, endpoints, publications, subscriptions: Vec::new() };
            self.call(now, expire, Pending::Expired(Box::new(expired)));
        }
    }

    /// What the store did not remove has a longer life elsewhere: it is not ours any more.
    pub(super) fn expired(&mut self, now: Moment, expired: Expired, swept: Swept) {
        self.swept(now, swept);
        for id in expired.endpoints {
            self.past_here(now, id);
        }
    }

    pub(super) fn expire_later(&mut self, now: Moment, expired: Expired) {
        self.due.endpoints.extend(expired.endpoints);
        self.due.publications.extend(expired.publications);
        self.timers.set_if_absent(Due::Flush, now + AGAIN);
    }

    pub(super) fn end_later(&mut self, now: Moment, dialogs: Vec<(UserRef, Key128)>) {
        if self.ended.len() < MAX_ENDED {
            self.ended.extend(dialogs);
        }
        self.timers.set_if_absent(Due::Flush, now + AGAIN);
    }

    pub(super) fn flush_lost(&mut self, now: Moment) {
        let mut lost = std::mem::take(&mut self.lost);
        while !lost.is_empty() {
            let flows: Vec<_> = lost.drain(..lost.len().min(FLUSH)).collect();
            self.call(now, FlowsLost { fe: self.fe, flows: flows.clone() }, Pending::Lost(flows));
        }
    }

    /// A flow with somebody signed in is gone.
    pub(super) fn note_lost(&mut self, now: Moment, user: UserRef, serial: u32) {
        self.lost.push((user, serial));
        self.timers.set_if_absent(Due::Flush, now);
        self.sweep_from(now);
    }

    fn sweep(&mut self, now: Moment) {
        self.call(now, SweepLost { fe: self.fe, limit: SWEEP }, Pending::Swept);
        let wait = if now < self.sweep_until { SWEEP_EVERY } else { SWEEP_ALWAYS };
        self.timers.set(Due::Sweep, now + wait);
    }

    pub(super) fn note_lost_later(&mut self, now: Moment, flows: Vec<(UserRef, u32)>) {
        self.lost.extend(flows);
        self.timers.set_if_absent(Due::Flush, now + AGAIN);
        self.sweep_from(now);
    }

    pub(super) fn sign_out_later(&mut self, now: Moment, user: UserRef) {
        self.timers.set(Due::SignOut(user), now + AGAIN);
    }

    pub(super) fn ask_accounts_later(&mut self, now: Moment) {
        self.timers.set(Due::Accounts, now + AGAIN);
    }

    pub(super) fn sweep_later(&mut self, now: Moment) {
        self.timers.set_no_later(Due::Sweep, now + SWEEP_EVERY);
    }

    pub(super) fn swept(&mut self, now: Moment, swept: Swept) {
        if swept.more {
            self.timers.set(Due::Sweep, now);
        }
        self.removed(now, swept.endpoints, swept.changes);
    }

    pub(super) fn accounts_changed(&mut self, now: Moment, changed: Changed) {
        self.accounts_cursor = changed.cursor;
        let wait = if changed.more { Duration::ZERO } else { ACCOUNTS };
        self.timers.set(Due::Accounts, now + wait);
        for (address, user, state, stamp) in changed.accounts {
            self.logins.forget(user, &address, stamp);
            let outdated = |flow: &Flow| {
                self.flows.get(*flow).and_then(|s| s.users.get(&user)).is_some_and(|known| *known != stamp)
            };
            if state != State::On || self.flows.of_user(user).iter().any(outdated) {
                tracing::info!(user = address, ?state, "account changed: its devices must sign in anew");
                self.sign_out(now, user);
            }
            self.account_renamed(now, user, &address);
            self.account_state(now, user, state);
        }
    }

    /// Keeps the path of a flow open.
    pub(super) fn keep_alive(&mut self, now: Moment, flow: Flow) {
        let interval = if flow.reliable() { STREAM_PING } else { UDP_PING };
        self.timers.set_if_absent(Due::Ping(flow), now + interval);
    }

    fn ping(&mut self, now: Moment, flow: Flow) {
        let Some(state) = self.flows.get(flow) else { return };
        if !flow.reliable() && state.endpoints.is_empty() && state.dialogs == 0 {
            // Somebody who only sent something: his address is not kept.
            self.flows.close(flow);
            return;
        }
        let interval = if flow.reliable() { STREAM_PING } else { UDP_PING };
        let due = state.last_traffic + interval;
        if due > now {
            self.timers.set(Due::Ping(flow), due);
            return;
        }
        self.send(now, flow, bytes::Bytes::from_static(b"\r\n\r\n"));
        self.timers.set(Due::Ping(flow), now + interval);
    }

    /// A connection left a request unanswered: it must say something now.
    pub(super) fn probe(&mut self, now: Moment, flow: Flow) {
        if flow.reliable() && self.flows.get(flow).is_some() {
            self.send(now, flow, bytes::Bytes::from_static(b"\r\n\r\n"));
            self.timers.set_if_absent(Due::Probe(flow), now + PROBE);
        }
    }
}
