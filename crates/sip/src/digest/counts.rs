//! Which counts of which nonces have been used: the guard against replays.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::time::Moment;

use super::nonce::{LIFETIME, issued};

/// How many counts below the highest one may still arrive, out of order.
const WINDOW: u32 = 64;

/// What a nonce count turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonceUse {
    /// Not seen before.
    First,
    /// Seen before: a replay, or a retransmission that its transaction should have absorbed.
    Replayed,
    /// Nobody knows: 64 or more below the highest count seen, or with a nonce that may be one of those forgotten for want
    /// of room; or zero, which is no count.
    TooOld,
}

/// The counts seen of one nonce.
#[derive(Clone, Copy, Debug)]
struct Window {
    highest: u32,
    /// Bit n: count `highest - n` has been seen.
    seen: u64,
}

/// Replay windows of the nonces in use: each dies [`LIFETIME`] after its first use (a nonce is no older at its first
/// use than that), and when there are too many the oldest goes first. From then on no nonce is taken for new that was
/// issued no later than one that went: it costs its client another round, and lets no replay through. Every call is
/// O(1), amortised.
///
/// Give it checked nonces only, so that nobody can push out others' windows without the work of a right answer.
#[derive(Debug)]
pub struct NonceCounts {
    windows: HashMap<Arc<str>, Window>,
    /// The same nonces in the order of their first use, each with the moment it dies.
    order: VecDeque<(Moment, Arc<str>)>,
    capacity: usize,
    /// Pool seconds at which the youngest nonce was issued that went for want of room.
    forgotten: Option<u64>,
}

impl NonceCounts {
    /// A guard over at most `capacity` nonces at a time (at least 1).
    pub fn new(capacity: usize) -> Self {
        Self { windows: HashMap::new(), order: VecDeque::new(), capacity: capacity.max(1), forgotten: None }
    }

    /// Notes that `nonce` was used with count `nc`, and says whether that is new.
    pub fn accept(&mut self, now: Moment, nonce: &str, nc: u32) -> NonceUse {
        self.expire(now);
        if nc == 0 {
            return NonceUse::TooOld;
        }
        if let Some(window) = self.windows.get_mut(nonce) {
            return window.accept(nc);
        }
        if self.forgotten.is_some_and(|youngest| issued(nonce).unwrap_or(0) <= youngest) {
            return NonceUse::TooOld;
        }
        while self.windows.len() >= self.capacity
            && let Some(nonce) = self.drop_oldest()
        {
            self.forgotten = self.forgotten.max(Some(issued(&nonce).unwrap_or(0)));
        }
        let nonce = Arc::<str>::from(nonce);
        self.windows.insert(Arc::clone(&nonce), Window { highest: nc, seen: 1 });
        self.order.push_back((now + LIFETIME, nonce));
        NonceUse::First
    }

    /// Nonces known at present.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Whether no nonce is known.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    fn expire(&mut self, now: Moment) {
        while self.order.front().is_some_and(|(dies, _)| *dies <= now) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) -> Option<Arc<str>> {
        let (_, nonce) = self.order.pop_front()?;
        self.windows.remove(&nonce);
        Some(nonce)
    }
}

impl Window {
    fn accept(&mut self, nc: u32) -> NonceUse {
        if nc > self.highest {
            self.seen = self.seen.checked_shl(nc - self.highest).unwrap_or(0) | 1;
            self.highest = nc;
            return NonceUse::First;
        }
        let below = self.highest - nc;
        if below >= WINDOW {
            return NonceUse::TooOld;
        }
        let bit = 1 << below;
        if self.seen & bit != 0 {
            return NonceUse::Replayed;
        }
        self.seen |= bit;
        NonceUse::First
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::nonce::Nonces;
    use super::*;
    use crate::otid::PoolKey;

    const START: Moment = Moment(1_000_000);

    #[test]
    fn each_count_is_good_once_in_any_order_within_the_window() {
        let mut counts = NonceCounts::new(10);
        for nc in [3, 1, 2, 70, 7] {
            assert_eq!(counts.accept(START, "n", nc), NonceUse::First, "{nc}");
            assert_eq!(counts.accept(START, "n", nc), NonceUse::Replayed, "{nc}");
        }
        assert_eq!(counts.accept(START, "n", 6), NonceUse::TooOld, "70 - 64");
        assert_eq!(counts.accept(START, "n", 3), NonceUse::TooOld);
        assert_eq!(counts.accept(START, "n", 0), NonceUse::TooOld);
        assert_eq!(counts.accept(START, "n", u32::MAX), NonceUse::First);
        assert_eq!(counts.accept(START, "n", u32::MAX), NonceUse::Replayed);
        assert_eq!(counts.accept(START, "other", 3), NonceUse::First);
        assert_eq!(counts.accept(START, "zero", 0), NonceUse::TooOld);
        assert_eq!(counts.len(), 2);
    }

    #[test]
    fn a_nonce_is_forgotten_when_it_can_no_longer_be_fresh() {
        let mut counts = NonceCounts::new(10);
        counts.accept(START, "a", 1);
        let last = START + LIFETIME - Duration::from_micros(1);
        assert_eq!(counts.accept(last, "a", 1), NonceUse::Replayed);
        assert_eq!(counts.accept(START + LIFETIME, "b", 1), NonceUse::First);
        assert_eq!(counts.len(), 1);
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many_and_is_not_new_again() {
        let nonces = Nonces::new(&PoolKey::from_octets(&[4; 32]).unwrap());
        let issue = |second, salt| nonces.issue(second, "example.org", None, salt);
        let (old, middle, young) = (issue(100, 1), issue(101, 2), issue(102, 3));
        let mut counts = NonceCounts::new(2);
        for nonce in [&old, &middle, &young] {
            assert_eq!(counts.accept(START, nonce, 1), NonceUse::First);
        }
        assert_eq!(counts.len(), 2);
        assert_eq!(counts.accept(START, &middle, 1), NonceUse::Replayed);
        assert_eq!(counts.accept(START, &young, 1), NonceUse::Replayed);
        assert_eq!(counts.accept(START, &old, 1), NonceUse::TooOld, "what was forgotten is not taken for new");
        assert_eq!(counts.accept(START, &old, 2), NonceUse::TooOld);
        assert_eq!(counts.accept(START, &issue(100, 9), 1), NonceUse::TooOld, "it might have been one of those");
        assert_eq!(counts.accept(START, &issue(101, 9), 1), NonceUse::First, "issued later than any that went");
        assert_eq!(counts.accept(START, &middle, 2), NonceUse::TooOld, "gone by now");
        assert_eq!(counts.accept(START, &young, 2), NonceUse::First);
    }

    proptest! {
        #[test]
        fn no_count_is_accepted_twice(counts in prop::collection::vec(1u32..200, 1..300)) {
            let mut guard = NonceCounts::new(4);
            let (mut seen, mut highest) = (HashSet::new(), 0);
            for nc in counts {
                let expected = if highest >= nc + WINDOW {
                    NonceUse::TooOld
                } else if seen.insert(nc) {
                    NonceUse::First
                } else {
                    NonceUse::Replayed
                };
                prop_assert_eq!(guard.accept(START, "n", nc), expected);
                highest = highest.max(nc);
            }
        }
    }
}
