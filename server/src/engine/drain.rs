//! Leaving: a lone front end finishes what is open; one of a pool sends its clients to the others, silently.

use std::time::Duration;

use commpool_sip::time::Moment;
use commpool_store::ops::front_ends::State;

use super::flow::Flow;
use super::upkeep::Due;
use super::{Engine, Output};

/// New clients are still taken for so long after the signal: the VIP needs time to look away.
const LISTEN: Duration = Duration::from_secs(3);
/// Between not being ready and closing flows: the probe's period × threshold + 2 s.
const FORGOTTEN: Duration = Duration::from_secs(6);
/// A flow that never has a quiet moment is closed after this.
const NEVER_QUIET: Duration = Duration::from_secs(30);
/// Between two looks at what delays the leaving.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// At the end so much is left for stubs and open requests.
const LAST: Duration = Duration::from_secs(12);

/// How far a front end is in leaving.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Draining {
    /// When it was told to.
    begun: Option<Moment>,
    /// When flows began to be closed.
    shedding: Option<Moment>,
    /// Whether the store is out of reach from here and not from elsewhere.
    cut_off: bool,
}

impl Draining {
    pub(super) const fn begun(self) -> bool {
        self.begun.is_some()
    }

    pub(super) const fn shedding(self) -> bool {
        self.shedding.is_some()
    }
}

impl Engine {
    /// Told to end.
    pub fn drain(&mut self, now: Moment) {
        if self.draining.begun() {
            return;
        }
        self.draining.begun = Some(now);
        if self.lease.shared() {
            self.renew(now);
            self.timers.set(Due::Leave, now + LISTEN);
        }
    }

    /// Whether new requests are refused: only where there is nobody else to take them.
    pub(super) const fn closing(&self) -> bool {
        self.draining.begun() && !self.lease.shared()
    }

    /// Whether new clients are welcome: own state only. Who leaves stays ready while nobody else could take them.
    pub fn ready(&self, now: Moment) -> bool {
        match self.draining.begun {
            None => !self.draining.cut_off && (!self.lease.shared() || self.peers.joined()),
            Some(at) => now.since(at) < LISTEN || self.lease.shared() && !self.others_serve(),
        }
    }

    /// Whether new connections are wanted.
    pub const fn accepts(&self) -> bool {
        !(self.closing() || self.draining.begun() && self.draining.shedding())
    }

    fn others_serve(&self) -> bool {
        self.peers.live().any(|fe| fe.state == State::Serving)
    }

    /// Whether everything is finished.
    pub fn drained(&self) -> bool {
        let quiet = self.idle();
        if !self.lease.shared() {
            return quiet;
        }
        self.draining.shedding() && quiet && self.flows.is_empty() && self.holder.stubs() == 0
    }

    /// Moves on with leaving: waits for the VIP to look away and, in a rollout, for the old build to be out of it.
    pub(super) fn leave(&mut self, now: Moment) {
        let Some(begun) = self.draining.begun else { return };
        let since = now.since(begun);
        let late = since + LAST >= self.pace.timeout;
        if !self.others_serve() || late || (since >= LISTEN + FORGOTTEN && !self.old_build_serves()) {
            self.shed(now);
        } else {
            self.timers.set(Due::Leave, now + LOOK_AGAIN);
        }
    }

    /// Whether a rollout is under way in which others of our build still take clients: those we close now could come to
    /// them and would have to move once more.
    fn old_build_serves(&self) -> bool {
        let serving = || self.peers.live().filter(|fe| fe.state == State::Serving);
        serving().any(|fe| fe.build != self.build) && serving().any(|fe| fe.build == self.build)
    }

    /// Cut off from the store while others are not, our clients are better off with them; once it is over, or the others
    /// are no better, all are welcome again.
    pub(super) fn cut_off(&mut self, now: Moment, is: bool) {
        if std::mem::replace(&mut self.draining.cut_off, is) == is {
            return;
        }
        if is {
            tracing::warn!("cut off from the store while others are not: clients are sent to them");
            self.shed(now);
        } else if !self.draining.begun() {
            tracing::info!("not cut off from the store any more");
            self.draining.shedding = None;
            self.timers.clear(&Due::Shed);
        }
    }

    /// Begins to close flows.
    pub(super) fn shed(&mut self, now: Moment) {
        if !self.draining.shedding() {
            self.draining.shedding = Some(now);
            self.timers.set(Due::Shed, now);
        }
    }

    /// Closes one flow at a quiet moment, and sets the time of the next.
    pub(super) fn shed_one(&mut self, now: Moment) {
        let Some(since) = self.draining.shedding else { return };
        let hurry = now.since(since) >= NEVER_QUIET || self.is_late(now);
        let quiet = |flow: &Flow| hurry || !(self.transactions.has_open(*flow) || self.holder.has_open(*flow));
        let next =
            self.flows.iter().map(|(flow, _)| flow).filter(|flow| quiet(flow) && !self.flows.is_shed(*flow)).min();
        if let Some(flow) = next {
            self.shed_flow(now, flow);
        }
        if self.flows.iter().any(|(flow, _)| !self.flows.is_shed(flow)) {
            self.timers.set(Due::Shed, now + self.pace.interval());
        }
    }

    fn is_late(&self, now: Moment) -> bool {
        self.draining.begun.is_some_and(|at| now.since(at) + LAST >= self.pace.timeout)
    }

    /// Closes a flow without a word; its endpoints are expected back, here or elsewhere.
    fn shed_flow(&mut self, now: Moment, flow: Flow) {
        let Some(state) = self.flows.get_mut(flow) else { return };
        state.shed = true;
        for endpoint in state.endpoints.clone() {
            self.expect_back(now, endpoint);
        }
        if flow.reliable() {
            self.out.push_back(Output::Close { flow });
        } else {
            self.flow_gone(now, flow);
        }
    }
}

/// How a front end leaves.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// From the signal to the end.
    pub timeout: Duration,
    /// Flows closed in a second; 0 counts as 1.
    pub flows_per_second: u32,
}

impl Pace {
    fn interval(self) -> Duration {
        Duration::from_secs(1) / self.flows_per_second.max(1)
    }
}
