//! Credentials in memory: what the store knows of those who sign in, bounded, dropped when an account changes.

use std::collections::{BTreeSet, HashMap};

use commpool_model::ids::UserRef;
use commpool_store::ops::credentials::Login;

use crate::services::Request;

/// Most logins in each of two generations.
const GENERATION: usize = 20_000;
/// Most requests that wait for one credential read.
const MAX_WAITING: usize = 64;

/// Known logins, and requests that wait for one. Two generations stand in for a clock: what is used stays.
#[derive(Debug, Default)]
pub(super) struct Logins {
    young: Generation,
    old: Generation,
    waiting: HashMap<String, Vec<Request>>,
    /// Of those who wait, whom the store did not tell of.
    held: BTreeSet<String>,
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

    /// An account changed: what is known of its user goes, under whatever address, and what is known of whoever had
    /// the address before.
    pub(super) fn forget(&mut self, user: UserRef, address: &str) {
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
