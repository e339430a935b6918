//! What goes wrong, and comes right again.

use std::time::Duration;

use commpool_model::ids::Incarnation;
use commpool_store::SoftRows;

use super::{Event, World};

/// A front end that stood still for longer starts anew.
const STOOD_STILL: Duration = Duration::from_secs(5);
/// Silence on a link is noticed after this.
const SILENCE: Duration = Duration::from_secs(3);

impl World {
    pub(super) fn fault(&mut self) {
        if self.now >= self.faults_until {
            return;
        }
        let places = self.places.len() as u64;
        let fe = usize::try_from(self.rng.below(places)).unwrap_or(0);
        let other = usize::try_from(self.rng.below(places)).unwrap_or(0);
        match self.rng.below(6) {
            0 | 1 => self.kill(fe),
            2 => self.freeze(fe),
            3 if fe != other => self.cut_link(fe, other),
            4 => {
                self.check.count("store outages");
                let lasts = self.rng.between(Duration::from_millis(300), Duration::from_secs(12));
                self.outage(None, lasts, Duration::ZERO);
            }
            _ => {
                // A client's own network breaks.
                let client = usize::try_from(self.rng.below(self.clients.len() as u64)).unwrap_or(0);
                self.reconnect(client);
            }
        }
        self.after(3_000_000, 14_000_000, Event::Fault);
    }

    /// The database crashes in so long, and loses every soft write from now on; it is back some seconds later.
    pub fn lose_last_writes(&mut self, before: Duration) {
        self.check.count("database crashes");
        let kept = Box::new(self.store.soft());
        self.at(self.now + before, Event::Crash { kept });
    }

    pub(super) fn crash(&mut self, kept: SoftRows) {
        self.store.crash(kept);
        let lasts = self.rng.between(Duration::from_millis(500), Duration::from_secs(8));
        self.outage(None, lasts, Duration::ZERO);
    }

    /// A device goes without a word and does not come back.
    pub fn vanish(&mut self, client: usize) {
        self.close_path(client);
        if let Some(c) = self.clients.get_mut(client) {
            c.disconnected();
            c.active = false;
            self.check.disconnected(self.now, client, &c.user);
        }
    }

    pub(super) fn kill(&mut self, fe: usize) {
        let alive = self.places.iter().filter(|p| p.engine.is_some() && p.frozen.is_none()).count();
        if alive > 1 && self.places.get(fe).is_some_and(|p| p.engine.is_some()) {
            self.check.count("front ends killed");
            self.end_front_end(fe);
            self.after(500_000, 6_000_000, Event::StartFrontEnd { fe });
        }
    }

    pub(super) fn freeze(&mut self, fe: usize) {
        let now = self.now;
        let Some(place) = self.places.get_mut(fe).filter(|p| p.engine.is_some() && p.frozen.is_none()) else { return };
        place.frozen = Some(now);
        let inc = place.inc;
        let devices: Vec<usize> = place.connections.values().map(|(device, _)| *device).collect();
        self.check.count("front ends frozen");
        let wait = self.rng.between(Duration::from_millis(200), Duration::from_secs(25));
        self.at(now + wait, Event::Thaw { fe });
        if wait > STOOD_STILL {
            // Its devices are lost to the pool from now, though they find out only when it goes on.
            for device in devices {
                if let Some(client) = self.clients.get(device) {
                    self.check.disconnected(now, device, &client.user);
                }
            }
        }
        // The others notice by its silence.
        for other in 0..self.places.len() {
            let from = self.places.get(other).map(|p| p.inc).unwrap_or(Incarnation(0));
            if wait > SILENCE && other != fe {
                self.at(now + SILENCE, Event::LinkDown { from: other, inc: from, to: inc });
            }
        }
    }

    pub(super) fn thaw(&mut self, fe: usize) {
        let now = self.now;
        let Some(place) = self.places.get_mut(fe) else { return };
        let Some(since) = place.frozen.take() else { return };
        if now.since(since) > STOOD_STILL {
            self.end_front_end(fe);
            return self.start_front_end(fe);
        }
        let backlog = std::mem::take(&mut place.backlog);
        place.tick = None;
        let inc = place.inc;
        for event in backlog {
            self.happen(event);
        }
        self.tick(fe, inc);
    }

    pub(super) fn cut_link(&mut self, a: usize, b: usize) {
        self.check.count("links cut");
        self.cut.insert((a.min(b), a.max(b)));
        let wait = self.rng.between(Duration::from_millis(500), Duration::from_secs(20));
        self.at(self.now + wait, Event::Heal { a, b });
        let incs: Vec<Incarnation> = self.places.iter().map(|p| p.inc).collect();
        for (from, to) in [(a, b), (b, a)] {
            let (Some(inc), Some(to)) = (incs.get(from), incs.get(to)) else { continue };
            let at = self.now + SILENCE.min(wait);
            self.at(at, Event::LinkDown { from, inc: *inc, to: *to });
        }
    }
}
