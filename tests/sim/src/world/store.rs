//! The one store of a world: its time, its lanes, its outages.

use std::time::Duration;

use commpool_model::ids::{Incarnation, Micros};
use commpool_server::engine::{Engine, Input};
use commpool_sip::time::Moment;
use commpool_store::StoreError;
use commpool_store::ops::endpoints::{SweepLost, Swept};
use commpool_store::ops::{Class, Operation, Outcome};

use super::{EPOCH, Event, World};

/// A time without the store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outage {
    until: Moment,
    /// From whom it is away; `None`: from all.
    whose: Option<usize>,
    /// How long a call waits for an answer that does not come.
    hang: Duration,
}

impl Outage {
    pub(super) const NONE: Self = Self { until: Moment::ZERO, whose: None, hang: Duration::ZERO };
}

impl World {
    /// All front ends, or one, cannot reach the store for so long; whoever asks is told after `hang` that there is no
    /// answer.
    pub fn outage(&mut self, whose: Option<usize>, lasts: Duration, hang: Duration) {
        self.outage = Outage { until: self.now + lasts, whose, hang };
    }

    /// What is left of everybody in the store, by table.
    pub fn soft_rows(&self) -> [(&'static str, usize); 4] {
        self.store.soft_rows()
    }

    /// Sweeps the store as it will be in so long, until there is nothing more to sweep.
    pub fn sweep_in(&mut self, wait: Duration) {
        let now = Micros(self.store_time().0 + u64::try_from(wait.as_micros()).unwrap_or(u64::MAX));
        let Some(fe) = self.engines().next().map(Engine::incarnation) else { return };
        let sweep = [SweepLost { fe, limit: 500 }.into()];
        while let Some(Outcome::SweepLost(Swept { more: true, .. })) =
            self.store.execute(now, &sweep).into_iter().next()
        {}
    }

    pub(super) fn store_is_away(&self, fe: usize) -> bool {
        self.now < self.outage.until && self.outage.whose.is_none_or(|whose| whose == fe)
    }

    pub(super) fn store_time(&self) -> Micros {
        Micros(EPOCH * 1_000_000 + self.now.as_micros())
    }

    /// Carries out an operation at once.
    pub fn execute(&mut self, operation: Operation) -> Option<Outcome> {
        let now = self.store_time();
        self.store.execute(now, &[operation]).into_iter().next()
    }

    /// When a lane of the store gets to a call.
    pub(super) fn lane(&mut self, fe: usize, class: Class) -> Moment {
        let arrives = self.now + self.rng.between(Duration::from_micros(200), Duration::from_millis(3));
        let Some(lane) = self.places.get_mut(fe).and_then(|p| p.lanes.get_mut(class as usize)) else { return arrives };
        *lane = arrives.max(*lane + Duration::from_micros(1));
        *lane
    }

    pub(super) fn store_call(&mut self, fe: usize, inc: Incarnation, token: u64, operation: Operation) {
        let mut takes = Duration::from_micros(200);
        let outcome = if self.store_is_away(fe) {
            takes = takes.max(self.outage.hang);
            Err(StoreError::Unavailable("it is away".to_owned()))
        } else {
            let now = self.store_time();
            let class = operation.class();
            match self.store.execute(now, &[operation]).into_iter().next() {
                Some(outcome) => {
                    self.check.stored(self.now, inc, class, &outcome);
                    Ok(outcome)
                }
                None => return,
            }
        };
        self.at(self.now + takes, Event::Input { fe, inc, input: Box::new(Input::Store { token, outcome }) });
    }
}
