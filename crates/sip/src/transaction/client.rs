//! Client transactions of non-INVITE requests: RFC 3261 §17.1.2 with RFC 4320 and RFC 6026 §7.3.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;

use super::timers::Timers;
use super::{T1, T1_64, T2, T4};
use crate::time::Moment;

/// Why a transaction was not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotStarted {
    /// The table is full.
    #[error("too many client transactions")]
    Full,
    /// There is a transaction with this branch already.
    #[error("a client transaction with this branch is under way")]
    Duplicate,
}

/// What a response means to the transaction it belongs to.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<'a, C> {
    /// A provisional response; the transaction goes on.
    Provisional(&'a C),
    /// The final response, the only one that is reported; the context is given back.
    Final(C),
}

/// What a transaction needs because time has passed.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientDue<F, C> {
    /// Send the request again (timer E).
    Retransmit {
        /// Over which flow.
        flow: F,
        /// The request.
        octets: Bytes,
    },
    /// No final response by the deadline (timer F); the context is given back.
    TimedOut(C),
}

/// The non-INVITE client transactions of one front end, by their branch.
///
/// A response counts only if it came over the flow that its request went out on, with the branch and the method of the
/// request. `C` is what the caller needs to go on when the answer is there.
#[derive(Debug)]
pub struct ClientTransactions<F, C> {
    entries: HashMap<u64, Entry<F, C>>,
    by_branch: HashMap<Box<str>, u64>,
    by_flow: BTreeSet<(F, u64)>,
    timers: Timers<u64>,
    next_id: u64,
    capacity: usize,
}

#[derive(Debug)]
struct Entry<F, C> {
    branch: Box<str>,
    flow: F,
    reliable: bool,
    state: State<C>,
    /// The deadline in `timers` that counts.
    due: Moment,
}

#[derive(Debug)]
enum State<C> {
    /// "Trying" and "Proceeding".
    Waiting { request: Bytes, context: C, deadline: Moment, pause: Duration },
    /// "Completed": absorbs further copies of the final response (timer K).
    Over,
}

impl<F: Copy + Ord, C> ClientTransactions<F, C> {
    /// An empty table for at most `capacity` transactions.
    pub fn new(capacity: usize) -> Self {
        Self {
            entries: HashMap::new(),
            by_branch: HashMap::new(),
            by_flow: BTreeSet::new(),
            timers: Timers::new(),
            next_id: 0,
            capacity,
        }
    }

    /// Starts the transaction of a request whose first copy the caller sends now over `flow`.
    ///
    /// It ends without an answer at `deadline`, or 64·T1 from now if that is earlier.
    ///
    /// # Errors
    /// [`NotStarted`]; nothing was noted then.
    #[expect(clippy::too_many_arguments, reason = "each is one fact of the request, none has a default")]
    pub fn start(
        &mut self,
        now: Moment,
        branch: &str,
        flow: F,
        reliable: bool,
        request: Bytes,
        deadline: Moment,
        context: C,
    ) -> Result<(), NotStarted> {
        if self.by_branch.contains_key(branch) {
            return Err(NotStarted::Duplicate);
        }
        if self.entries.len() >= self.capacity {
            return Err(NotStarted::Full);
        }
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let deadline = deadline.min(now + T1_64);
        let due = if reliable { deadline } else { deadline.min(now + T1) };
        let branch = Box::<str>::from(branch);
        self.by_branch.insert(branch.clone(), id);
        self.by_flow.insert((flow, id));
        let state = State::Waiting { request, context, deadline, pause: T1 };
        self.entries.insert(id, Entry { branch, flow, reliable, state, due });
        self.timers.arm(due, id);
        Ok(())
    }

    /// Takes in a response with this top branch, CSeq method and status, that came over `flow`.
    ///
    /// `None`: drop it. It belongs to no transaction, came over another flow, or is a copy of a final response.
    pub fn receive(
        &mut self,
        now: Moment,
        branch: &str,
        cseq_method: &str,
        flow: F,
        status: u16,
    ) -> Option<Outcome<'_, C>> {
        let id = *self.by_branch.get(branch)?;
        let entry = self.entries.get_mut(&id).filter(|entry| entry.flow == flow)?;
        let State::Waiting { request, pause, .. } = &mut entry.state else { return None };
        if method(request) != cseq_method.as_bytes() {
            return None;
        }
        if status < 200 {
            // Proceeding: from now on a copy every T2.
            *pause = T2;
            return match &self.entries.get(&id)?.state {
                State::Waiting { context, .. } => Some(Outcome::Provisional(context)),
                State::Over => None,
            };
        }
        let context = self.finish(now, id)?;
        self.settle();
        Some(Outcome::Final(context))
    }

    /// What is due by `now`, in the order it fell due.
    pub fn due(&mut self, now: Moment) -> Vec<ClientDue<F, C>> {
        let mut events = Vec::new();
        while let Some((at, id)) = self.timers.pop(now) {
            let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.due == at) else { continue };
            match &mut entry.state {
                State::Waiting { request, deadline, pause, .. } if now < *deadline => {
                    // RFC 3261 §17.1.2.2: MIN(2 * pause, T2), counted from now, so that a standstill makes no burst.
                    *pause = (*pause * 2).min(T2);
                    entry.due = (*deadline).min(now + *pause);
                    self.timers.arm(entry.due, id);
                    events.push(ClientDue::Retransmit { flow: entry.flow, octets: request.clone() });
                }
                _ => {
                    if let Some(context) = self.remove(id) {
                        events.push(ClientDue::TimedOut(context));
                    }
                }
            }
        }
        self.settle();
        events
    }

    /// A flow has closed: its transactions are over. Gives back the contexts of those without a final response, in the
    /// order they were started.
    pub fn flow_closed(&mut self, flow: F) -> Vec<C> {
        let closed: Vec<_> =
            self.by_flow.range((flow, 0)..).take_while(|(of, _)| *of == flow).map(|(_, id)| *id).collect();
        let contexts = closed.into_iter().filter_map(|id| self.remove(id)).collect();
        self.settle();
        contexts
    }

    /// Whether a request that went out over this flow waits for its final response.
    pub fn has_open(&self, flow: F) -> bool {
        let of_flow = self.by_flow.range((flow, 0)..).take_while(|(of, _)| *of == flow);
        of_flow.filter_map(|(_, id)| self.entries.get(id)).any(|entry| matches!(entry.state, State::Waiting { .. }))
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

    /// Moves a transaction to Completed, or ends it where there can be no copies; gives back its context.
    fn finish(&mut self, now: Moment, id: u64) -> Option<C> {
        let entry = self.entries.get_mut(&id)?;
        if entry.reliable {
            return self.remove(id);
        }
        entry.due = now + T4;
        self.timers.arm(entry.due, id);
        context(std::mem::replace(&mut entry.state, State::Over))
    }

    fn remove(&mut self, id: u64) -> Option<C> {
        let entry = self.entries.remove(&id)?;
        self.by_branch.remove(&entry.branch);
        self.by_flow.remove(&(entry.flow, id));
        context(entry.state)
    }

    fn settle(&mut self) {
        let entries = &self.entries;
        self.timers.settle(entries.len(), |at, id| entries.get(id).is_some_and(|entry| entry.due == at));
    }
}

fn context<C>(state: State<C>) -> Option<C> {
    match state {
        State::Waiting { context, .. } => Some(context),
        State::Over => None,
    }
}

/// Method of a request: what stands before the first space.
fn method(request: &[u8]) -> &[u8] {
    request.split(|octet| *octet == b' ').next().unwrap_or_default()
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
