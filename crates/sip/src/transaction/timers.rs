//! Deadlines of the entries of a table, one each.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Moment;

/// Stale deadlines that may stay beside one per live entry before the heap is tidied.
const SLACK: usize = 64;

/// A heap of deadlines. An entry's deadline is changed by arming another one: the old one stays in the heap, stale, until
/// it reaches the top or until stale ones outnumber live ones. The table that owns the entries knows which are current.
#[derive(Debug)]
pub(super) struct Timers<K> {
    heap: BinaryHeap<Reverse<(Moment, K)>>,
}

impl<K: Copy + Ord> Timers<K> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new() }
    }

    /// Arms a deadline of an entry. Follow with [`Self::settle`] when the table has been changed.
    pub(super) fn arm(&mut self, at: Moment, key: K) {
        self.heap.push(Reverse((at, key)));
    }

    /// Takes the earliest deadline that is not after `now`, current or stale.
    pub(super) fn pop(&mut self, now: Moment) -> Option<(Moment, K)> {
        if self.next_due()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(deadline)| deadline)
    }

    /// Removes stale deadlines from the top, and all of them when they outnumber the `live` entries.
    pub(super) fn settle(&mut self, live: usize, is_current: impl Fn(Moment, &K) -> bool) {
        while self.heap.peek().is_some_and(|Reverse((at, key))| !is_current(*at, key)) {
            self.heap.pop();
        }
        if self.heap.len() > 2 * live + SLACK {
            self.heap.retain(|Reverse((at, key))| is_current(*at, key));
        }
    }

    /// The earliest deadline; after [`Self::settle`] a current one.
    pub(super) fn next_due(&self) -> Option<Moment> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Deadlines held, stale ones too.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.heap.len()
    }
}

/// The most deadlines held for that many live entries.
#[cfg(test)]
pub(super) const fn most_held(live: usize) -> usize {
    2 * live + SLACK
}
