//! Timers as data: keys that fall due, one deadline a key, the last one set counts.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;

use commpool_sip::time::Moment;

/// Deadlines by key. A heap with stale entries left in, rebuilt when they outnumber the live ones.
#[derive(Debug)]
pub(super) struct Timers<K> {
    heap: BinaryHeap<Reverse<(Moment, K)>>,
    live: HashMap<K, Moment>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), live: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash + Ord> Timers<K> {
    /// Sets or moves the deadline of a key.
    pub(super) fn set(&mut self, key: K, at: Moment) {
        if self.live.insert(key, at) == Some(at) {
            return;
        }
        self.heap.push(Reverse((at, key)));
        if self.heap.len() > 64 + 2 * self.live.len() {
            self.heap = self.live.iter().map(|(k, at)| Reverse((*at, *k))).collect();
        }
    }

    /// Sets a deadline only where the key has none.
    pub(super) fn set_if_absent(&mut self, key: K, at: Moment) {
        if !self.live.contains_key(&key) {
            self.set(key, at);
        }
    }

    /// Sets a deadline unless there is an earlier one.
    pub(super) fn set_no_later(&mut self, key: K, at: Moment) {
        if self.live.get(&key).is_none_or(|deadline| *deadline > at) {
            self.set(key, at);
        }
    }

    /// Takes a key's deadline away.
    pub(super) fn clear(&mut self, key: &K) {
        self.live.remove(key);
    }

    /// The next key that is due, its deadline taken away.
    pub(super) fn pop_due(&mut self, now: Moment) -> Option<K> {
        loop {
            let Reverse((at, key)) = *self.heap.peek()?;
            let current = self.live.get(&key) == Some(&at);
            if current && at > now {
                return None;
            }
            self.heap.pop();
            if current {
                self.live.remove(&key);
                return Some(key);
            }
        }
    }

    /// When the next key may be due (never too late).
    pub(super) fn next(&self) -> Option<Moment> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_micros(ms * 1000)
    }

    #[test]
    fn the_last_deadline_set_counts() {
        let mut timers = Timers::default();
        timers.set('a', at(10));
        timers.set('a', at(30));
        timers.set('b', at(20));
        assert_eq!(timers.pop_due(at(15)), None);
        assert_eq!(timers.pop_due(at(25)), Some('b'));
        assert_eq!(timers.pop_due(at(25)), None);
        assert_eq!(timers.pop_due(at(30)), Some('a'));
        assert!(timers.live.is_empty());
    }

    #[test]
    fn a_key_moved_to_an_earlier_moment_is_due_once() {
        let mut timers = Timers::default();
        timers.set('a', at(30));
        timers.set('a', at(10));
        assert_eq!(timers.pop_due(at(40)), Some('a'));
        assert_eq!(timers.pop_due(at(40)), None);
    }

    #[test]
    fn refreshing_does_not_grow_the_heap() {
        let mut timers = Timers::default();
        for ms in 0..10_000 {
            timers.set('a', at(ms));
        }
        assert!(timers.heap.len() <= 70);
        assert_eq!(timers.pop_due(at(10_000)), Some('a'));
    }
}
