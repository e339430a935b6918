//! Leaving: a lone front end finishes what is open; one of a pool sends its clients to the others, silently.

use std::collections::VecDeque;
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

/// Between two steps of closing flows at least this; where there are many, several are closed in one.
const STEP: Duration = Duration::from_millis(20);

/// How far a front end is in leaving.
#[derive(Debug, Default)]
pub(super) struct Draining {
    /// When it was told to.
    begun: Option<Moment>,
    /// When flows began to be closed.
    shedding: Option<Moment>,
    /// When the last one is to be closed; `None`: there is no end to it.
    over_by: Option<Moment>,
    /// Those still to be closed, in the order in which they are looked at.
    queue: VecDeque<Flow>,
    /// Whether the store is out of reach from here and not from elsewhere.
    cut_off: bool,
}

impl Draining {
    pub(super) const fn begun(&self) -> bool {
        self.begun.is_some()
    }

    pub(super) const fn shedding(&self) -> bool {
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

    /// Whether new clients are welcome: own state only, not whether the store is there; but a build that the store has
    /// left behind cannot serve them. Who leaves stays ready while nobody else could take them.
    pub fn ready(&self, now: Moment) -> bool {
        if self.unfit().is_some() {
            return false;
        }
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
            self.draining.over_by.get_or_insert(begun + self.pace.over_after(since));
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
            self.draining.queue.clear();
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

    /// Closes as many flows as are due, each at a quiet moment, and sets the time of the next step. Whoever comes
    /// meanwhile is sent on too.
    pub(super) fn shed_due(&mut self, now: Moment) {
        let Some(since) = self.draining.shedding else { return };
        if self.draining.queue.is_empty() {
            let mut flows: Vec<Flow> = self.flows.iter().filter(|(_, s)| !s.shed).map(|(flow, _)| flow).collect();
            flows.sort_unstable();
            self.draining.queue = flows.into();
        }
        let rest = self.draining.over_by.map(|at| at.since(now));
        let hurry = now.since(since) >= NEVER_QUIET || rest.is_some_and(|rest| rest.is_zero());
        let (flows, wait) = self.pace.step(self.draining.queue.len(), rest);
        self.shed_some(now, flows, hurry);
        self.timers.set(Due::Shed, now + wait);
    }

    /// Closes so many of those in the queue that have a quiet moment; `hurry`: or have none.
    fn shed_some(&mut self, now: Moment, mut flows: usize, hurry: bool) {
        for _ in 0..self.draining.queue.len() {
            if flows == 0 {
                return;
            }
            let Some(flow) = self.draining.queue.pop_front() else { return };
            if self.flows.get(flow).is_none_or(|state| state.shed) {
                continue;
            }
            if hurry || !(self.transactions.has_open(flow) || self.holder.has_open(flow)) {
                self.shed_flow(now, flow);
                flows -= 1;
            } else {
                self.draining.queue.push_back(flow);
            }
        }
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
    /// Flows closed in a second, or more where the timeout would come before the last of them; 0 counts as 1.
    pub flows_per_second: u32,
}

impl Pace {
    /// When the last flow is to be closed if the first one is after `since`, from the signal: before what is left for
    /// stubs and open requests, but not all at once.
    fn over_after(self, since: Duration) -> Duration {
        self.timeout.saturating_sub(LAST).max(since + self.timeout.saturating_sub(since) / 2)
    }

    /// How many of the flows `left` are closed now, and the time to the next step, with so much time for all of them.
    fn step(self, left: usize, rest: Option<Duration>) -> (usize, Duration) {
        let Some(many) = u32::try_from(left).ok().filter(|many| *many > 0) else { return (left, LOOK_AGAIN) };
        let interval = Duration::from_secs(1) / self.flows_per_second.max(1);
        let interval = rest.map_or(interval, |rest| interval.min(rest / many));
        if interval.is_zero() {
            return (left, STEP);
        }
        let flows = u32::try_from(STEP.as_nanos().div_ceil(interval.as_nanos())).unwrap_or(many);
        (flows as usize, interval * flows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Closes so many flows by the pace; of each step its time, and how many had been closed by then.
    fn closed(pace: Pace, mut left: usize, begun: Duration, over: Option<Duration>) -> Vec<(Duration, usize)> {
        let (all, mut now, mut closed) = (left, begun, Vec::new());
        while left > 0 {
            let (flows, wait) = pace.step(left, over.map(|over| over.saturating_sub(now)));
            assert!(wait >= STEP, "{flows} flows, then {wait:?}");
            left -= flows.min(left);
            closed.push((now, all - left));
            now += wait;
        }
        closed
    }

    #[test]
    fn few_flows_go_one_by_one_at_the_given_rate() {
        let pace = Pace { timeout: ms(60_000), flows_per_second: 50 };
        let closed = closed(pace, 100, ms(9_000), Some(ms(48_000)));
        assert_eq!(
            (closed[0], closed[50], closed.last()),
            ((ms(9_000), 1), (ms(10_000), 51), Some(&(ms(10_980), 100)))
        );
    }

    #[test]
    fn many_flows_go_evenly_within_the_time_there_is() {
        let pace = Pace { timeout: ms(60_000), flows_per_second: 50 };
        let over = pace.over_after(ms(9_000));
        assert_eq!(over, ms(48_000));
        for flows in [2_500, 5_000, 50_000] {
            let closed = closed(pace, flows, ms(9_000), Some(over));
            let (last, _) = closed.last().unwrap();
            assert!((over - ms(1_000)..=over).contains(last), "{flows}: {last:?}");
            let by = |at: Duration| closed.iter().rev().find(|(then, _)| *then <= at).unwrap().1;
            let each: Vec<usize> = (10..47).map(|s| by(ms(s * 1000 + 1000)) - by(ms(s * 1000))).collect();
            let (least, most) = (each.iter().min().unwrap(), each.iter().max().unwrap());
            assert!(*least > 0 && most - least <= flows / 39 / 10 + 4, "{flows}: {least} to {most} in a second");
        }
    }

    #[test]
    fn without_an_end_the_rate_alone_counts() {
        let pace = Pace { timeout: ms(60_000), flows_per_second: 1_000 };
        let closed = closed(pace, 5_000, ms(0), None);
        assert_eq!(closed.last(), Some(&(ms(4_980), 5_000)));
    }

    #[test]
    fn who_begins_late_has_half_of_what_is_left() {
        let pace = Pace { timeout: ms(60_000), flows_per_second: 50 };
        assert_eq!(pace.over_after(ms(48_000)), ms(54_000));
        assert_eq!(Pace { timeout: ms(5_000), ..pace }.over_after(ms(3_000)), ms(4_000));
        assert_eq!(pace.step(7, Some(Duration::ZERO)), (7, STEP));
    }
}
