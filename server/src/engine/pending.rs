//! Store calls under way, and what is to be done with their answers.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use commpool_model::ids::{Incarnation, Key128, UserRef};
use commpool_sip::otid::Otid;
use commpool_sip::time::Moment;
use commpool_store::StoreError;
use commpool_store::ops::{Operation, Outcome, presence};

use super::adoption::Adoption;
use super::dialogs::Asked;
use super::logins::Reading;
use super::registrations::Waiting;
use super::upkeep::{Due, Expired};
use super::{Engine, Output};
use crate::services::{Caller, Refusal, Request};

/// A store call that takes longer is answered for by 500; its effect, if it comes, is taken in nonetheless.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the store lost is said again after this, if it was not taken.
const ASSERT_AGAIN: Duration = Duration::from_secs(2);

/// What a store call was made for.
#[derive(Debug)]
pub(super) enum Pending {
    Login(Reading),
    Register(Box<Waiting>),
    Route(Box<Request>, Caller),
    Publish(Box<Request>, Box<presence::Publish>),
    Subscribe(Box<Asked>),
    Unregister(UserRef),
    Swept,
    Accounts,
    /// A renewal of the lease, sent at.
    Renew(Moment),
    Reaped(Incarnation),
    Pull,
    Adopt(Box<Adoption>),
    Assert,
    /// Lost flows: noted again if the store did not take them.
    Lost(Vec<(UserRef, u32)>),
    /// Rows whose time is over.
    Expired(Box<Expired>),
    /// Dialogs that ended.
    Ended(Vec<(UserRef, Key128)>),
    /// Nothing follows.
    Done,
}

impl Pending {
    /// Whether somebody is answered for it when it takes long. What can wait for the store decides that by itself when
    /// the store says no.
    fn impatient(&self, shared: bool) -> bool {
        match self {
            Self::Register(_) | Self::Subscribe(_) => !shared,
            other => other.request().is_some() || matches!(other, Self::Login(_)),
        }
    }

    fn request(&self) -> Option<&Request> {
        match self {
            Self::Route(r, _) | Self::Publish(r, _) => Some(r),
            Self::Register(waiting) => Some(&waiting.request),
            Self::Subscribe(asked) => Some(&asked.request),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Pendings {
    calls: HashMap<u64, Pending>,
    order: VecDeque<(Moment, u64)>,
    next: u64,
}

impl Pendings {
    fn insert(&mut self, now: Moment, pending: Pending, shared: bool) -> u64 {
        self.next += 1;
        if pending.impatient(shared) {
            self.order.push_back((now + PATIENCE, self.next));
        }
        self.calls.insert(self.next, pending);
        self.next
    }

    /// Calls that a request waits for.
    pub(super) fn waiting(&self) -> usize {
        self.calls.values().filter(|call| call.request().is_some()).count()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// When the oldest call runs out of patience.
    pub(super) fn next_due(&self) -> Option<Moment> {
        self.order.front().map(|(at, _)| *at)
    }

    fn overdue(&mut self, now: Moment) -> Option<&Pending> {
        loop {
            let (at, token) = *self.order.front()?;
            if at > now && self.calls.contains_key(&token) {
                return None;
            }
            self.order.pop_front();
            if self.calls.contains_key(&token) {
                return self.calls.get(&token);
            }
        }
    }
}

impl Engine {
    pub(super) fn call(&mut self, now: Moment, operation: impl Into<Operation>, pending: Pending) {
        // A REGISTER right after its old connection's end must find that flow dead.
        self.flush_lost(now);
        let operation = operation.into();
        self.metrics.store_call(operation.name());
        let token = self.pending.insert(now, pending, self.lease.shared());
        self.out.push_back(Output::Store { token, operation: Box::new(operation) });
    }

    pub(super) fn store_answered(&mut self, now: Moment, token: u64, outcome: Result<Outcome, StoreError>) {
        let Some(pending) = self.pending.calls.remove(&token) else { return };
        match outcome {
            Ok(outcome) => self.store_outcome(now, pending, outcome),
            Err(error) => self.store_failed(now, pending, &error),
        }
    }

    fn store_outcome(&mut self, now: Moment, pending: Pending, outcome: Outcome) {
        match (pending, outcome) {
            (Pending::Login(reading), Outcome::Credentials(reply)) => self.login_known(now, &reading, reply.found),
            (Pending::Register(waiting), Outcome::Register(reply)) => self.registered(now, *waiting, reply),
            (Pending::Route(request, caller), Outcome::Route(reply)) => self.routed(now, *request, caller, reply),
            (Pending::Publish(request, publish), Outcome::Publish(reply)) => {
                self.published(now, &request, &publish, reply);
            }
            (Pending::Subscribe(asked), Outcome::Subscribe(reply)) => self.subscribed(now, *asked, reply),
            (Pending::Unregister(user), Outcome::Unregister(reply)) => self.unregistered(now, user, reply),
            (Pending::Swept, Outcome::SweepLost(swept)) => self.swept(now, swept),
            (Pending::Expired(expired), Outcome::Expire(swept)) => self.expired(now, *expired, swept),
            (Pending::Accounts, Outcome::AccountsChanged(changed)) => self.accounts_changed(now, changed),
            (Pending::Renew(sent), Outcome::Renew(reply)) => self.renewed(now, sent, reply),
            (Pending::Reaped(fe), Outcome::Reap(reply)) => self.reaped(now, fe, reply),
            (Pending::Pull, Outcome::Pull(pulled)) => self.pulled(now, pulled),
            (Pending::Adopt(adoption), Outcome::Adopt(reply)) => self.adopted(now, &adoption, reply),
            (Pending::Assert, Outcome::Assert(reply)) => self.asserted(now, reply),
            (Pending::Done | Pending::Lost(_) | Pending::Ended(_), _) => {}
            (pending, outcome) => tracing::error!(?pending, ?outcome, "the store answered something else"),
        }
    }

    fn store_failed(&mut self, now: Moment, pending: Pending, error: &StoreError) {
        tracing::warn!(%error, "store call failed");
        self.metrics.store_failure();
        match pending {
            Pending::Login(reading) => {
                self.logins.read_ended();
                self.login_unknown(now, &reading.address);
            }
            Pending::Swept => self.sweep_later(now),
            Pending::Accounts => self.ask_accounts_later(now),
            Pending::Renew(sent) => self.not_renewed(now, sent, error),
            Pending::Adopt(adoption) => self.adopt_later(now, *adoption),
            Pending::Assert => self.timers.set(Due::Assert, now + ASSERT_AGAIN),
            Pending::Register(waiting) => self.not_registered(now, *waiting),
            Pending::Subscribe(asked) => self.not_subscribed(now, *asked),
            Pending::Lost(flows) => self.note_lost_later(now, flows),
            Pending::Unregister(user) => self.sign_out_later(now, user),
            Pending::Expired(expired) => self.expire_later(now, *expired),
            Pending::Ended(dialogs) => self.end_later(now, dialogs),
            other => self.answer_later(now, other.request().cloned()),
        }
    }

    fn answer_later(&mut self, now: Moment, request: Option<Request>) {
        if let Some(request) = request {
            self.refuse(now, &request, &Refusal::later("Store Not Available"));
        }
    }

    pub(super) fn check_patience(&mut self, now: Moment) {
        loop {
            let (login, request) = match self.pending.overdue(now) {
                None => return,
                Some(Pending::Login(reading)) => (Some(reading.address.clone()), None),
                Some(pending) => (None, pending.request().cloned()),
            };
            match login {
                Some(address) => self.login_unknown(now, &address),
                None => self.answer_later(now, request),
            }
        }
    }

    /// Whether a transaction still waits for its final answer.
    pub(super) fn unanswered(&self, otid: &Otid) -> bool {
        self.transactions.is_open(otid)
    }
}
