//! Server transactions of non-INVITE requests: RFC 3261 §17.2.2 with RFC 4320.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use super::timers::Timers;
use super::{OVERDUE_AFTER, T1_64, TRYING_AFTER};
use crate::otid::Otid;
use crate::time::Moment;

/// What a request turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received<F> {
    /// A new transaction: work on it, then [`ServerTransactions::respond`].
    New,
    /// A retransmission of a request that is still being worked on: do nothing.
    Absorbed,
    /// A retransmission of a request that has been answered: send the answer again, to where the first copy came from.
    Repeat {
        /// The flow of the first copy.
        flow: F,
        /// The answer.
        response: Bytes,
    },
    /// The table is full of requests without an answer: this one was not taken in; answer without a transaction.
    Full,
}

/// What a transaction needs because time has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerDue {
    /// 3.5 s without any response: send 100 (through [`ServerTransactions::respond`]; RFC 4320 §4.1).
    Trying100(Otid),
    /// 8 s without a final response: send one now (480 or 500; never 408, RFC 4320 §4.2).
    Overdue(Otid),
}

/// The non-INVITE server transactions of one front end, by their identity.
///
/// A transaction whose request came over a reliable transport is over with its final response or its flow; over an
/// unreliable one it answers retransmissions for another 64·T1 (timer J), whatever becomes of the flow; or shorter, where
/// its place is needed: then the one that was answered longest ago goes, whose client needs it least.
#[derive(Debug)]
pub struct ServerTransactions<F> {
    entries: HashMap<Otid, Entry<F>>,
    timers: Timers<Otid>,
    /// Transactions that end with their flow.
    reliable: BTreeSet<(F, Otid)>,
    /// Transactions with a final response, by the moment at which they end: who was answered first is first.
    answered: BTreeSet<(Moment, Otid)>,
    /// Transactions without a final response.
    open: usize,
    capacity: usize,
}

#[derive(Debug)]
struct Entry<F> {
    flow: F,
    reliable: bool,
    begun: Moment,
    state: State,
    /// The deadline in `timers` that counts.
    due: Moment,
}

#[derive(Debug)]
enum State {
    /// "Trying" or, with a response sent, "Proceeding".
    Working { step: Step, provisional: Option<Bytes> },
    /// "Completed".
    Answered(Bytes),
}

/// What waits at the deadline of a transaction without final response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Trying,
    Overdue,
    Forget,
}

impl<F: Copy + Ord> ServerTransactions<F> {
    /// An empty table for at most `capacity` transactions.
    pub fn new(capacity: usize) -> Self {
        Self {
            entries: HashMap::new(),
            timers: Timers::new(),
            reliable: BTreeSet::new(),
            answered: BTreeSet::new(),
            open: 0,
            capacity,
        }
    }

    /// What a request with this identity would be, without taking it in: `None` for a new one.
    pub fn seen(&self, otid: &Otid) -> Option<Received<F>> {
        self.entries.get(otid).map(|entry| match &entry.state {
            State::Answered(response) | State::Working { provisional: Some(response), .. } => {
                Received::Repeat { flow: entry.flow, response: response.clone() }
            }
            State::Working { provisional: None, .. } => Received::Absorbed,
        })
    }

    /// Whether there is such a transaction without its final response.
    pub fn is_open(&self, otid: &Otid) -> bool {
        self.entries.get(otid).is_some_and(|entry| matches!(entry.state, State::Working { .. }))
    }

    /// Whether a request that came over this reliable flow waits for its final response.
    pub fn has_open(&self, flow: F) -> bool {
        let first = self.reliable.range((flow, Otid([0; 16]))..).next();
        first.is_some_and(|(of, _)| *of == flow)
    }

    /// Takes in a request that came over `flow`.
    ///
    /// A retransmission over another flow than the first copy's is a retransmission all the same, but every response
    /// goes to the first flow: who has seen a request, as its recipient has, could otherwise draw its response to
    /// himself, or over UDP to whomever he names as source. A client whose address changes between two copies loses no
    /// more than it does by a lost datagram: it sends a new request.
    pub fn receive(&mut self, now: Moment, otid: Otid, flow: F, reliable: bool) -> Received<F> {
        if let Some(seen) = self.seen(&otid) {
            return seen;
        }
        if self.entries.len() >= self.capacity && !self.make_room() {
            return Received::Full;
        }
        let state = State::Working { step: Step::Trying, provisional: None };
        let due = now + TRYING_AFTER;
        self.entries.insert(otid, Entry { flow, reliable, begun: now, state, due });
        self.timers.arm(due, otid);
        if reliable {
            self.reliable.insert((flow, otid));
        }
        self.open += 1;
        Received::New
    }

    /// Notes a response, and says over which flow to send it.
    ///
    /// `None`: do not send it. There is no such transaction, or it has its final response already, or the response is a
    /// provisional one over an unreliable transport in the first 3.5 s (RFC 4320 §4.1 forbids it).
    pub fn respond(&mut self, now: Moment, otid: &Otid, response: Bytes, is_final: bool) -> Option<F> {
        let entry = self.entries.get_mut(otid)?;
        let State::Working { provisional, .. } = &mut entry.state else { return None };
        let flow = entry.flow;
        if !is_final {
            if !entry.reliable && now < entry.begun + TRYING_AFTER {
                return None;
            }
            *provisional = Some(response);
        } else if entry.reliable {
            self.remove(otid);
        } else {
            entry.state = State::Answered(response);
            entry.due = now + T1_64;
            self.timers.arm(entry.due, *otid);
            self.answered.insert((entry.due, *otid));
            self.open -= 1;
        }
        self.settle();
        Some(flow)
    }

    /// Ends a transaction without keeping its response, and says over which flow to send that: for answers that cost
    /// nothing to make again, such as challenges, so that strangers cannot fill the table.
    pub fn forget(&mut self, otid: &Otid) -> Option<F> {
        let flow = self.remove(otid)?;
        self.settle();
        Some(flow)
    }

    /// What is due by `now`, in the order it fell due. Transactions whose time is up are gone afterwards.
    pub fn due(&mut self, now: Moment) -> Vec<ServerDue> {
        let mut events = Vec::new();
        while let Some((at, otid)) = self.timers.pop(now) {
            let Some(entry) = self.entries.get_mut(&otid).filter(|entry| entry.due == at) else { continue };
            match &mut entry.state {
                State::Working { step: step @ Step::Trying, provisional } => {
                    *step = Step::Overdue;
                    entry.due = entry.begun + OVERDUE_AFTER;
                    if provisional.is_none() {
                        events.push(ServerDue::Trying100(otid));
                    }
                    self.timers.arm(entry.due, otid);
                }
                State::Working { step: step @ Step::Overdue, .. } => {
                    *step = Step::Forget;
                    entry.due = entry.begun + T1_64;
                    events.push(ServerDue::Overdue(otid));
                    self.timers.arm(entry.due, otid);
                }
                State::Working { step: Step::Forget, .. } | State::Answered(_) => {
                    self.remove(&otid);
                }
            }
        }
        self.settle();
        events
    }

    /// A flow has closed: its transactions over a reliable transport are over. Says how many there were.
    pub fn flow_closed(&mut self, flow: F) -> usize {
        let first = Otid([0; 16]);
        let closed: Vec<_> =
            self.reliable.range((flow, first)..).take_while(|(of, _)| *of == flow).map(|(_, otid)| *otid).collect();
        for otid in &closed {
            self.remove(otid);
        }
        self.settle();
        closed.len()
    }

    /// Transactions without a final response.
    pub fn open(&self) -> usize {
        self.open
    }

    /// When to call [`Self::due`] next.
    pub fn next_due(&self) -> Option<Moment> {
        self.timers.next_due()
    }

    /// Transactions held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no transaction is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets the transaction answered longest ago. False: none is answered.
    fn make_room(&mut self) -> bool {
        let Some((_, oldest)) = self.answered.first().copied() else { return false };
        self.remove(&oldest);
        self.settle();
        true
    }

    fn remove(&mut self, otid: &Otid) -> Option<F> {
        let entry = self.entries.remove(otid)?;
        if entry.reliable {
            self.reliable.remove(&(entry.flow, *otid));
        }
        match entry.state {
            State::Working { .. } => self.open -= 1,
            State::Answered(_) => {
                self.answered.remove(&(entry.due, *otid));
            }
        }
        Some(entry.flow)
    }

    fn settle(&mut self) {
        let entries = &self.entries;
        self.timers.settle(entries.len(), |at, otid| entries.get(otid).is_some_and(|entry| entry.due == at));
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
