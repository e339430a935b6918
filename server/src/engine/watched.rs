//! Users watched through this front end: state, version and ACL in memory, documents rendered once.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use commpool_model::acl::Ace;
use commpool_model::ids::{Key128, UserRef, Version};
use commpool_model::presence::Facts;
use commpool_sip::time::Moment;
use commpool_store::ops::PresenceChange;
use commpool_store::ops::accounts::State;
use commpool_store::ops::subscribe::{Presentity, Unwatch};

use sha2::{Digest, Sha256};

use super::pending::Pending;
use super::upkeep::Due;
use super::{ByUser, Engine};
use crate::services::presence::{self, Shown};

/// Interest in a user outlives his last watcher by this, since watchers come back.
const UNWATCH_AFTER: Duration = Duration::from_secs(60);

/// Number of a document: rises only when what watchers are shown differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Edition(u64);

/// A user somebody here watches.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) address: String,
    pub(super) version: Version,
    pub(super) state: State,
    pub(super) aces: Vec<Ace>,
    pub(super) edition: Edition,
    shown: Arc<Shown>,
    watchers: BTreeSet<Key128>,
}

impl Target {
    /// The documents for watchers.
    pub(super) fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown)
    }

    /// Hash of the documents: equal on every front end, never 0.
    pub(super) fn hash(&self) -> u64 {
        let digest = Sha256::digest(&self.shown.full);
        u64::from_be_bytes(std::array::from_fn(|i| digest[i])) | 1
    }

    /// Takes in a newer state. True: watchers see a difference.
    fn take(&mut self, version: Version, facts: &Facts) -> bool {
        self.version = version;
        let shown = presence::shown(&self.address, facts);
        let differs = shown != *self.shown;
        if differs {
            (self.shown, self.edition) = (Arc::new(shown), Edition(self.edition.0 + 1));
        }
        differs
    }
}

/// What a read from the store changed for those who watch already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Nothing,
    /// What they are shown.
    Shown,
    /// Who may see.
    Rights,
}

/// Watched users.
#[derive(Debug, Default)]
pub(super) struct Watched {
    targets: ByUser<Target>,
    by_address: HashMap<String, UserRef>,
}

impl Watched {
    /// What is in memory of an address, to be named as held.
    pub(super) fn held(&self, address: &str) -> Option<(UserRef, Version)> {
        let user = *self.by_address.get(address)?;
        self.targets.get(&user).map(|t| (user, t.version))
    }

    pub(super) fn get(&self, user: UserRef) -> Option<&Target> {
        self.targets.get(&user)
    }

    /// Takes in what the store read; the version in memory wins if it is newer. What those see who watch him already.
    fn learn(&mut self, address: &str, read: Presentity) -> News {
        let Presentity { user, state, aces, version, facts } = read;
        self.by_address.insert(address.to_owned(), user);
        let target = self.targets.entry(user).or_insert_with(|| Target {
            address: address.to_owned(),
            version: Version(0),
            state,
            aces: Vec::new(),
            edition: Edition::default(),
            shown: Arc::new(presence::shown(address, &Facts::default())),
            watchers: BTreeSet::new(),
        });
        let rights = (target.state, &target.aces) != (state, &aces);
        (target.state, target.aces) = (state, aces);
        let differs = version >= target.version && facts.is_some_and(|facts| target.take(version, &facts));
        match (rights, differs) {
            (true, _) => News::Rights,
            (false, true) => News::Shown,
            (false, false) => News::Nothing,
        }
    }

    pub(super) fn watch(&mut self, user: UserRef, dialog: Key128) {
        if let Some(target) = self.targets.get_mut(&user) {
            target.watchers.insert(dialog);
        }
    }

    /// A dialog has ended; true: it was the last.
    pub(super) fn leave(&mut self, user: UserRef, dialog: Key128) -> bool {
        let Some(target) = self.targets.get_mut(&user) else { return false };
        target.watchers.remove(&dialog) && target.watchers.is_empty()
    }

    fn watchers(&self, user: UserRef) -> Vec<Key128> {
        self.targets.get(&user).map(|t| t.watchers.iter().copied().collect()).unwrap_or_default()
    }

    /// Every user watched.
    pub(super) fn users(&self) -> Vec<UserRef> {
        let mut users: Vec<_> = self.targets.keys().copied().collect();
        users.sort_unstable();
        users
    }

    /// Users in memory with their versions, at most so many.
    pub(super) fn all_held(&self, most: usize) -> Vec<(UserRef, Version)> {
        let watched = self.targets.iter().filter(|(_, target)| !target.watchers.is_empty());
        let mut held: Vec<_> = watched.map(|(user, target)| (*user, target.version)).collect();
        held.sort_unstable();
        held.truncate(most);
        held
    }

    /// True: it is another address than before. What is shown under it must come from the store.
    fn rename(&mut self, user: UserRef, address: &str) -> bool {
        let Some(target) = self.targets.get_mut(&user).filter(|target| target.address != address) else { return false };
        let before = std::mem::replace(&mut target.address, address.to_owned());
        target.take(Version(0), &Facts::default());
        if self.by_address.get(&before) == Some(&user) {
            self.by_address.remove(&before);
        }
        if !address.is_empty() {
            self.by_address.insert(address.to_owned(), user);
        }
        true
    }

    fn forget_unwatched(&mut self, user: UserRef) -> bool {
        let unwatched = self.targets.get(&user).is_some_and(|t| t.watchers.is_empty());
        if unwatched
            && let Some(target) = self.targets.remove(&user)
            && self.by_address.get(&target.address) == Some(&user)
        {
            self.by_address.remove(&target.address);
        }
        unwatched
    }
}

impl Engine {
    /// A user's state changed: his watchers here are told, if it is news.
    pub(super) fn presence_changed(&mut self, now: Moment, change: PresenceChange) {
        let Some(user) = change.user else { return };
        let Some(target) = self.watched.targets.get_mut(&user) else { return };
        if change.version > target.version && target.take(change.version, &change.state) {
            for dialog in self.watched.watchers(user) {
                self.notify(now, dialog);
            }
        }
    }

    /// Takes in what a subscribe or an adoption read: nobody else may bring it again, so those who watch already are
    /// told here.
    pub(super) fn learn(&mut self, now: Moment, address: &str, read: Presentity) -> UserRef {
        let user = read.user;
        let news = self.watched.learn(address, read);
        for dialog in self.watched.watchers(user) {
            match news {
                News::Nothing => break,
                News::Shown => self.notify(now, dialog),
                News::Rights => self.tell_again(now, dialog),
            }
        }
        user
    }

    /// An account may have another address now, or none: whoever watches the old one sees nobody there until his next
    /// SUBSCRIBE finds out whose it is.
    pub(super) fn account_renamed(&mut self, now: Moment, user: UserRef, address: &str) {
        if self.watched.rename(user, address) {
            for dialog in self.watched.watchers(user) {
                self.tell_again(now, dialog);
            }
        }
    }

    /// An account was disabled or enabled: watchers see it.
    pub(super) fn account_state(&mut self, now: Moment, user: UserRef, state: State) {
        let Some(target) = self.watched.targets.get_mut(&user) else { return };
        if target.state != state {
            target.state = state;
            for dialog in self.watched.watchers(user) {
                self.tell_again(now, dialog);
            }
        }
    }

    /// A watcher may be about to come: interest that was about to end stays for another while.
    pub(super) fn keep_watching(&mut self, now: Moment, user: UserRef) {
        if self.watched.watchers(user).is_empty() {
            self.unwatch_later(now, user);
        }
    }

    pub(super) fn unwatch_later(&mut self, now: Moment, user: UserRef) {
        self.timers.set(Due::Unwatch(user), now + UNWATCH_AFTER);
    }

    pub(super) fn unwatch(&mut self, now: Moment, user: UserRef) {
        if self.watched.forget_unwatched(user) {
            self.call(now, Unwatch { fe: self.fe, users: vec![user] }, Pending::Done);
        }
    }
}
