//! Access control: one verdict for presence and for messages.

/// One access control entry of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ace {
    /// Whom it is about: a canonical address, a domain, or empty for everybody. More exact wins.
    pub mask: String,
    /// Right to see presence.
    pub presence: Right,
    /// Right to send messages and requests.
    pub communication: Right,
}

/// What an entry says of a right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Right {
    /// Nothing: the next less exact entry, at last the pool's policy.
    #[default]
    Unset = 0,
    /// Allowed.
    Allow = 1,
    /// Denied.
    Deny = 2,
    /// Presence only: looks like being offline.
    PoliteBlock = 3,
}
