//! Users from a directory: what is known of them, what a run changes, and who may run.
//!
//! A run takes the lease, reads [`Source`] and its [`Known`] users, stages the rows it wants changed, and applies them
//! all in one transaction that also compares and sets the version of the source.

use commpool_model::ids::{Key128, Micros, UserRef};

use super::accounts::State;

/// Takes a lease by name, if nobody holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseTake {
    /// Name of the lease, 1–64 octets.
    pub name: String,
    /// Who takes it, for people; 1–253 octets.
    pub holder: String,
    /// How long it lasts unless kept, milliseconds; 1–3,600,000.
    pub ttl_ms: u32,
}

/// The answer to [`LeaseTake`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseTaken {
    /// Taken. The token rises with every take and fences what the holders before still write.
    Taken(u64),
    /// Somebody holds it.
    Held {
        /// Who.
        by: String,
        /// Milliseconds left of it.
        ms_left: u64,
    },
}

/// Keeps a lease, or gives it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseKeep {
    /// Name of the lease.
    pub name: String,
    /// Token of the take.
    pub token: u64,
    /// How long it lasts from now, milliseconds, at most 3,600,000; 0 gives it back.
    pub ttl_ms: u32,
}

/// The answer to [`LeaseKeep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseKept {
    /// Kept or given back. One that ran out and that nobody took since is kept too.
    Kept,
    /// Somebody took it since.
    Lost,
}

/// Asks for the state of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceGet {
    /// Name of the source, 1–64 octets.
    pub source: String,
}

/// A directory as the store knows it; all zero before its first run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Rises with every [`Apply`].
    pub version: u64,
    /// What the replicator wants to remember, at most 64 KiB.
    pub state: Vec<u8>,
    /// Users that came from it, whatever their state.
    pub users: u64,
    /// The store's clock.
    pub now: Micros,
}

/// Users of a source in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceUsers {
    /// Name of the source.
    pub source: String,
    /// Start after this key.
    pub after: Option<Key128>,
    /// At most so many; 1–1,000.
    pub limit: u32,
}

/// What is known of a user that came from a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Key of the directory's entry: objectGUID, entryUUID.
    pub key: Key128,
    /// The user.
    pub user: UserRef,
    /// Canonical address; `None` when somebody else has it now.
    pub address: Option<String>,
    /// State.
    pub state: State,
    /// Hash of everything else that the entry said.
    pub fingerprint: Key128,
    /// When it may be removed; `None`: it was found at the last run.
    pub purge_at: Option<Micros>,
}

/// The answer to [`SourceUsers`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourcePage {
    /// Users.
    pub users: Vec<Known>,
    /// There are more after the last.
    pub more: bool,
}

/// Asks whose addresses these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holders {
    /// Canonical addresses, at most 1,000.
    pub addresses: Vec<String>,
}

/// The answer to [`Holders`]: one for each address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HoldersFound {
    /// Who has the address; `None`: nobody.
    pub holders: Vec<Option<Holder>>,
}

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The user.
    pub user: UserRef,
    /// Source and key of the entry he came from; `None`: added by hand.
    pub origin: Option<(String, Key128)>,
}

/// Facts for the address book.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card {
    /// Telephone number, at most 256 octets like the others; empty: none.
    pub phone: String,
    /// Title.
    pub title: String,
    /// Company.
    pub company: String,
    /// Office.
    pub office: String,
}

/// A user as a source wants him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Added under a key that is not known, else made so. Another address or none drops the passwords, which were made
    /// for the old one.
    Put {
        /// Key of the entry.
        key: Key128,
        /// Canonical address; `None`: none any more.
        address: Option<String>,
        /// On or disabled.
        state: State,
        /// Name for people, at most 256 octets.
        display_name: String,
        /// Facts for the address book.
        card: Card,
        /// Hash of all this.
        fingerprint: Key128,
    },
    /// Disabled, and when he may be removed: everything else stays, for a user that may come back. But his address is
    /// given to whoever wants it from now on. Of an unknown key nothing is done.
    Lapse {
        /// Key of the entry.
        key: Key128,
        /// When it may be removed.
        purge_at: Micros,
    },
    /// Removed with all that belongs to him, if he has lapsed; of others nothing is done.
    Remove {
        /// Key of the entry.
        key: Key128,
    },
}

impl Change {
    /// Key of the entry.
    pub const fn key(&self) -> Key128 {
        match self {
            Self::Put { key, .. } | Self::Lapse { key, .. } | Self::Remove { key } => *key,
        }
    }
}

/// Puts rows aside for [`Apply`], in order. What an earlier run left there goes with the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Name of the source, which is also the name of its lease.
    pub source: String,
    /// Token of the lease.
    pub token: u64,
    /// Number of the first row, below 1,000,000 like the others; 0 clears what is there.
    pub first: u32,
    /// At most 1,000, of different keys over the whole run.
    pub rows: Vec<Change>,
}

/// The answer to [`Stage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staged {
    /// Put aside.
    Done,
    /// The lease was taken by somebody else, or never.
    Fenced,
}

/// Applies all rows put aside, together with the source's new state, or nothing.
///
/// An address goes to whoever wants it, if nobody has it, or a user of the same source gives it up or has lapsed. Of
/// several who want one, it goes to who has it, else to the lowest key. The order of the rows does not matter. Who does
/// not get his address keeps the one he has, unless that goes to another; a new user who does not get his is not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apply {
    /// Name of the source.
    pub source: String,
    /// Token of the lease.
    pub token: u64,
    /// Version of the source that the rows were made for.
    pub version: u64,
    /// Rows that must be there, at most 1,000,000.
    pub rows: u32,
    /// New state of the source, at most 64 KiB.
    pub state: Vec<u8>,
}

/// The answer to [`Apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Done.
    Done {
        /// New version of the source.
        version: u64,
        /// Keys that did not get their address, in ascending order, at most 1,000. Their fingerprint is zero, so that
        /// the next run tries again; all else is as wanted.
        refused: Vec<Key128>,
    },
    /// The source has another version: somebody else has run.
    Moved,
    /// The lease was taken by somebody else, or never.
    Fenced,
    /// Not all rows are there, or two of one key: the store lost some, or they were another run's.
    Incomplete,
}
