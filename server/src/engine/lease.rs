//! The lease of this front end: renewed, lost, and those of others that ran out.

use std::time::Duration;

use commpool_model::ids::Incarnation;
use commpool_sip::time::Moment;
use commpool_store::StoreError;
use commpool_store::ops::front_ends::{Load, Reap, Reaped, Renew, Renewed, State};
use commpool_store::ops::pull::{Cursor, Pull, Pulled};

use super::pending::Pending;
use super::upkeep::Due;
use super::{Engine, Output};

/// How often the lease is renewed.
const RENEW: Duration = Duration::from_secs(5);
/// After a failed renewal.
const RENEW_AGAIN: Duration = Duration::from_secs(1);
/// A lease counts so long after the renewal that gave it was sent; the store gives 15 s.
const COUNTS: Duration = Duration::from_secs(13);
/// Others are reaped only after renewals without a gap for so long: after an outage of the store everybody is late.
const GAPLESS: Duration = Duration::from_secs(20);
/// A newcomer makes us renew at once, but never sooner after the last one than this.
const RENEW_SOONEST: Duration = Duration::from_millis(200);
/// How often changes of watched users are pulled.
const PULL: Duration = Duration::from_secs(10);
/// Most changes in one pull.
const PULLED: u32 = 500;
/// Clients are welcome once the others have links to here, or after this.
const JOIN: Duration = Duration::from_secs(3);
/// How often the others are told that we live.
const PING: Duration = Duration::from_secs(1);
/// Cut off from the store for longer than this, while others are not, our clients must go to them.
pub(super) const CUT_OFF: Duration = Duration::from_secs(10);
/// Who renewed within this is not cut off: the time between two renewals, and a slow answer.
const NOT_CUT_OFF: Duration = Duration::from_secs(7);
/// Who renewed so long after our last renewal has reached the store when we could not. In an outage for all, the last
/// renewals before it lie up to [`RENEW`] apart.
const AHEAD: Duration = Duration::from_secs(6);
/// Who finds others ahead tries once more after this: at the end of an outage somebody is the first, and connections
/// to the store are made anew only every second.
const LAST_TRY: Duration = Duration::from_millis(1500);

/// What this front end holds of the store's trust.
#[derive(Debug)]
pub(super) enum Lease {
    /// There is no other front end (Standard Edition): nothing to renew.
    Alone,
    /// One of many.
    Shared {
        /// When the last successful renewal was sent.
        renewed: Moment,
        /// Since when renewals have succeeded without a gap.
        gapless: Option<Moment>,
        /// Epoch of the soft data when last heard.
        epoch: u64,
        /// Mark for the next pull.
        cursor: Option<Cursor>,
        /// Since when others are [`AHEAD`], and whether the last try failed all the same.
        behind: Option<(Moment, bool)>,
        /// What the store said when it had left this build behind; until a renewal succeeds.
        unfit: Option<StoreError>,
    },
}

impl Lease {
    /// A lease just given.
    pub(super) const fn new(now: Moment, epoch: u64) -> Self {
        Self::Shared { renewed: now, gapless: None, epoch, cursor: None, behind: None, unfit: None }
    }

    /// Time since the last successful renewal was sent; zero for who needs none.
    pub(super) fn age(&self, now: Moment) -> Duration {
        match self {
            Self::Alone => Duration::ZERO,
            Self::Shared { renewed, .. } => now.since(*renewed),
        }
    }

    pub(super) const fn shared(&self) -> bool {
        matches!(self, Self::Shared { .. })
    }

    /// Whether this front end may take endpoints and subscriptions.
    pub(super) fn holds(&self, now: Moment) -> bool {
        self.age(now) < COUNTS
    }
}

impl Engine {
    /// Why nobody is served: the store has the schema or the functions of another build.
    pub const fn unfit(&self) -> Option<&StoreError> {
        match &self.lease {
            Lease::Alone => None,
            Lease::Shared { unfit, .. } => unfit.as_ref(),
        }
    }

    pub(super) fn start_lease(&mut self, now: Moment) {
        if self.lease.shared() {
            self.timers.set(Due::Renew, now);
            // The first pull sets the mark for those after it.
            self.timers.set(Due::Pull, now);
            self.timers.set(Due::PingPeers, now + PING);
            self.peers.join_by = now + JOIN;
        }
    }

    /// Somebody has joined whom the directory does not name yet: nobody here could reach him.
    pub(super) fn newcomer(&mut self, now: Moment) {
        if let Lease::Shared { renewed, .. } = self.lease {
            self.timers.set_no_later(Due::Renew, now.max(renewed + RENEW_SOONEST));
        }
    }

    pub(super) fn renew(&mut self, now: Moment) {
        let state = if self.draining.begun() { State::Draining } else { State::Serving };
        let [streams, udp, ..] = self.gauges();
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let load = Load { connections: number(streams + udp), links: number(self.peers.links()) };
        self.call(now, Renew { fe: self.fe, state, load }, Pending::Renew(now));
        // Until the answer is there; it sets the next one.
        self.timers.set(Due::Renew, now + RENEW);
    }

    pub(super) fn renewed(&mut self, now: Moment, sent: Moment, reply: Renewed) {
        let Renewed::Held { epoch, live, now: store_now, expired, .. } = reply else {
            tracing::error!("reaped by another front end: all clients must sign in anew");
            self.out.push_back(Output::Restart);
            return;
        };
        let Lease::Shared { renewed, gapless, epoch: known, unfit, .. } = &mut self.lease else { return };
        *renewed = sent;
        if unfit.take().is_some() {
            tracing::info!("serves again: the store has what this build needs");
        }
        let since = *gapless.get_or_insert(sent);
        let rose = std::mem::replace(known, epoch) < epoch;
        self.started = (now, store_now.0 / 1_000_000);
        self.directory(now, live);
        if rose {
            self.assert_all(now);
        }
        if now.since(since) >= GAPLESS {
            for target in expired {
                self.call(now, Reap { by: self.fe, target }, Pending::Reaped(target));
            }
        }
    }

    pub(super) fn not_renewed(&mut self, now: Moment, sent: Moment, error: &StoreError) {
        if let Lease::Shared { gapless, behind, unfit, .. } = &mut self.lease {
            *gapless = None;
            if matches!(error, StoreError::Schema { .. }) && unfit.replace(error.clone()).is_none() {
                tracing::error!(%error, "does not serve any more");
            }
            if let Some((since, missed)) = behind {
                *missed |= sent >= *since + LAST_TRY;
            }
        }
        self.timers.set(Due::Renew, now + RENEW_AGAIN);
    }

    /// Another front end is dead for good: its endpoints count as lost from now.
    pub(super) fn reaped(&mut self, now: Moment, fe: Incarnation, reply: Reaped) {
        if reply != Reaped::Done {
            return;
        }
        tracing::warn!(fe = fe.0, "reaped a front end whose lease ran out");
        self.sweep_from(now);
    }

    pub(super) fn pull(&mut self, now: Moment) {
        let Lease::Shared { cursor, .. } = self.lease else { return };
        let pull = Pull { fe: self.fe, cursor, limit: PULLED };
        self.call(now, pull, Pending::Pull);
        self.timers.set(Due::Pull, now + if cursor.is_some() { PULL } else { RENEW_AGAIN });
    }

    pub(super) fn pulled(&mut self, now: Moment, pulled: Pulled) {
        if let Lease::Shared { cursor, .. } = &mut self.lease {
            *cursor = Some(pulled.cursor);
        }
        for change in pulled.changes {
            self.presence_changed(now, change);
        }
        self.timers.set(Due::Pull, now + if pulled.more { Duration::ZERO } else { PULL });
    }

    /// Each second: pings, and whether our clients are better off elsewhere.
    pub(super) fn peers_due(&mut self, now: Moment) {
        self.ping_peers(now);
        self.peers.join(now);
        self.timers.set(Due::PingPeers, now + PING);
        self.look_for_the_store(now);
    }

    /// Whether the store is away from us alone: others have reached it since we last did, and still do, and a try after
    /// we knew has failed. An outage for all must send nobody anywhere, neither when it begins nor when it ends.
    fn look_for_the_store(&mut self, now: Moment) {
        let age = self.lease.age(now);
        let ahead = age > CUT_OFF && self.peers.some_renewed_within(now, NOT_CUT_OFF.min(age.saturating_sub(AHEAD)));
        let Lease::Shared { behind, .. } = &mut self.lease else { return };
        if !ahead {
            *behind = None;
        } else if behind.is_none() {
            *behind = Some((now, false));
            self.timers.set_no_later(Due::Renew, now + LAST_TRY);
        }
        let alone = matches!(behind, Some((_, true)));
        self.cut_off(now, alone);
    }
}
