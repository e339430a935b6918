//! Accounts and their addresses.

use commpool_model::ids::UserRef;

use super::directory::Card;

/// State of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// May sign in and be reached.
    #[default]
    On = 1,
    /// May not; lists are kept.
    Disabled = 2,
    /// Removed; purged later, given back to the same source key.
    Removed = 3,
}

/// One change of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// A new account.
    Add {
        /// Canonical primary address.
        address: String,
        /// Name for people, at most 256 octets.
        display_name: String,
    },
    /// Another state, or another name.
    Change {
        /// Canonical address of the account.
        address: String,
        /// New state, if it changes.
        state: Option<State>,
        /// New display name, if it changes.
        display_name: Option<String>,
    },
}

impl Put {
    /// Canonical address of the account.
    pub fn address(&self) -> &str {
        match self {
            Self::Add { address, .. } | Self::Change { address, .. } => address,
        }
    }
}

/// The answer to [`Put`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutReply {
    /// Done.
    Done(UserRef),
    /// The address belongs to somebody already.
    Exists,
    /// No such account.
    NotFound,
    /// The account came from a directory, where it must be changed.
    Managed,
}

/// Accounts that have an address, by filter, ordered by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Find {
    /// Part of address or display name; empty: all.
    pub text: String,
    /// Start after this address.
    pub after: Option<String>,
    /// At most so many; 1–1,000.
    pub limit: u32,
}

/// An account as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user.
    pub user: UserRef,
    /// Primary address.
    pub address: String,
    /// Name for people.
    pub display_name: String,
    /// State.
    pub state: State,
    /// Whether there is a live password.
    pub has_password: bool,
    /// Whether it came from a directory.
    pub managed: bool,
    /// Facts for the address book.
    pub card: Card,
}

/// The answer to [`Find`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Accounts.
    pub accounts: Vec<Account>,
    /// There are more after the last.
    pub more: bool,
}

/// Accounts changed since a mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangedSince {
    /// Mark of the answer before; `None`: only a first mark is wanted.
    pub cursor: Option<u64>,
}

/// The answer to [`ChangedSince`]; a change may be told more than once. Nothing is told of a user who is removed: he could
/// not sign in before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Mark for the next call.
    pub cursor: u64,
    /// Who changed: address (empty: he has none any more), user, state, stamp of the account row.
    pub accounts: Vec<(String, UserRef, State, u64)>,
    /// There are more: ask again at once.
    pub more: bool,
}
