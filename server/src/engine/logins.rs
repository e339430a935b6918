//! Credentials in memory: what the store knows of those who sign in, bounded, dropped when an account changes.

use std::collections::{BTreeSet, HashMap};

use commpool_model::ids::UserRef;
use commpool_store::ops::credentials::Login;

use crate::services::Request;

/// Most logins in each of two generations.
const GENERATION: usize = 20_000;
/// Most requests that wait for one credential read.
const MAX_WAITING: usize = 64;
/// Most reads of credentials for those who wait, where accounts change meanwhile.
const MAX_READS: u8 = 4;
/// Most users whose change is remembered while reads are under way.
const MAX_TOLD: usize = 20_000;

/// Known logins, and requests that wait for one. Two generations stand in for a clock: what is used stays.
#[derive(Debug, Default)]
pub(super) struct Logins {
    young: Generation,
    old: Generation,
    waiting: HashMap<String, Vec<Request>>,
    /// Of those who wait, whom the store did not tell of.
    held: BTreeSet<String>,
    told: Told,
}

/// What was told of changed accounts while reads of credentials were under way: reads and changes come by ways of their
/// own, so that an answer may be older than a change that has been told.
#[derive(Debug, Default)]
struct Told {
    under_way: usize,
    /// Stamp of each account that changed.
    stamps: HashMap<UserRef, u64>,
    /// Rises when stamps had to be forgotten: what was read before may be outdated, whoever it tells of.
    forgotten: u64,
}

/// A read of credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// Whose.
    pub(super) address: String,
    /// How many it is for those who wait.
    nth: u8,
    /// [`Told::forgotten`] when it was sent.
    forgotten: u64,
}

/// Logins by address, and the address of each user among them.
#[derive(Debug, Default)]
struct Generation {
    logins: HashMap<String, Login>,
    addresses: HashMap<UserRef, String>,
}

impl Generation {
    fn insert(&mut self, address: String, login: Login) {
        if let Some(before) = self.addresses.insert(login.user, address.clone())
            && before != address
        {
            self.logins.remove(&before);
        }
        self.logins.insert(address, login);
    }

    fn remove(&mut self, address: &str) -> Option<(String, Login)> {
        let (address, login) = self.logins.remove_entry(address)?;
        if self.addresses.get(&login.user) == Some(&address) {
            self.addresses.remove(&login.user);
        }
        Some((address, login))
    }

    fn remove_user(&mut self, user: UserRef) {
        if let Some(address) = self.addresses.remove(&user) {
            self.logins.remove(&address);
        }
    }
}

/// What became of a request that waits.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// It is the first: the read must be made.
    First,
    /// The read is under way.
    Joined,
    /// Too many wait already.
    Full,
}

impl Logins {
    pub(super) fn get(&mut self, address: &str) -> Option<&Login> {
        if !self.young.logins.contains_key(address) {
            let (address, login) = self.old.remove(address)?;
            self.insert(address, login);
        }
        self.young.logins.get(address)
    }

    pub(super) fn insert(&mut self, address: String, login: Login) {
        if self.young.logins.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(address, login);
    }

    /// A read that is sent now.
    pub(super) fn read(&mut self, address: String) -> Reading {
        self.told.under_way += 1;
        Reading { address, nth: 1, forgotten: self.told.forgotten }
    }

    /// The read after one whose answer was outdated; `None`: nobody waits for it any more, or it has been tried often
    /// enough.
    pub(super) fn read_again(&mut self, before: &Reading) -> Option<Reading> {
        let wanted = before.nth < MAX_READS && self.waiting.contains_key(&before.address);
        wanted.then(|| Reading { nth: before.nth + 1, ..self.read(before.address.clone()) })
    }

    /// Whether an answer is older than what has been told.
    pub(super) fn is_outdated(&self, reading: &Reading, login: Option<&Login>) -> bool {
        let changed = |login: &Login| self.told.stamps.get(&login.user).is_some_and(|stamp| login.stamp < *stamp);
        login.is_some_and(|login| reading.forgotten != self.told.forgotten || changed(login))
    }

    /// A read has ended. What was told is of no use when none is under way.
    pub(super) fn read_ended(&mut self) {
        self.told.under_way = self.told.under_way.saturating_sub(1);
        if self.told.under_way == 0 {
            self.told.stamps.clear();
        }
    }

    /// An account changed: what is known of its user goes, under whatever address, and what is known of whoever had
    /// the address before; what is being read of it does not count if it is older.
    pub(super) fn forget(&mut self, user: UserRef, address: &str, stamp: u64) {
        if self.told.under_way > 0 {
            if self.told.stamps.len() >= MAX_TOLD {
                self.told.stamps.clear();
                self.told.forgotten += 1;
            }
            self.told.stamps.insert(user, stamp);
        }
        for generation in [&mut self.young, &mut self.old] {
            generation.remove_user(user);
            generation.remove(address);
        }
    }

    pub(super) fn wait(&mut self, address: &str, request: Request) -> Waits {
        if let Some(waiting) = self.waiting.get_mut(address) {
            if waiting.len() >= MAX_WAITING {
                return Waits::Full;
            }
            waiting.push(request);
            return Waits::Joined;
        }
        self.waiting.insert(address.to_owned(), vec![request]);
        Waits::First
    }

    /// Lets a request wait on, although the store did not tell of its sender.
    pub(super) fn hold(&mut self, address: &str, request: Request) {
        self.waiting.entry(address.to_owned()).or_default().push(request);
        self.held.insert(address.to_owned());
    }

    /// Whom the store is to be asked of again.
    pub(super) fn held(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.held)
    }

    pub(super) fn take_waiting(&mut self, address: &str) -> Vec<Request> {
        self.held.remove(address);
        self.waiting.remove(address).unwrap_or_default()
    }
}
