//! Subscription dialogs and who watches whom.

use commpool_model::acl::Ace;
use commpool_model::ids::{EndpointId, Incarnation, Key128, Origin, UserRef, Version};
use commpool_model::presence::Facts;

use super::accounts::State;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Presence of one user.
    Presence = 1,
}

/// How far the NOTIFY CSeq of a new owner is ahead of the one before.
pub const CSEQ_STEP: u32 = 32;

/// A row lives so many times as long as its dialog was granted, so that refreshes at the owner need no write.
pub const OUTLIVES: u32 = 3;

/// A SUBSCRIBE of an authenticated user, new or in a dialog that this front end does not hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Who watches.
    pub watcher: UserRef,
    /// His canonical address; selects the ACEs.
    pub watcher_address: String,
    /// Identity of the transaction.
    pub origin: Origin,
    /// Who executes it and owns the dialog from now on.
    pub fe: Incarnation,
    /// The watcher's endpoint, if one has registered on the flow.
    pub endpoint: Option<EndpointId>,
    /// Hash of Call-ID, From tag and resource: the dialog's key.
    pub sub_id: Key128,
    /// Whether the request had no To tag: then another transaction with the same key and CSeq is a merged request.
    pub initial: bool,
    /// What is watched.
    pub kind: Kind,
    /// Canonical addresses watched; 1–200.
    pub presentities: Vec<String>,
    /// Users whose state this front end has in memory, with the version: not sent again if current.
    pub held: Vec<(UserRef, Version)>,
    /// Lifetime granted, seconds; the row is kept three times as long.
    pub expires: u32,
    /// First NOTIFY CSeq the new owner will use if nothing is known of the dialog. Where a row is there, its own number
    /// plus [`CSEQ_STEP`] counts if that is higher, so that an owner of before is refused by the client itself.
    pub first_cseq: u32,
    /// The dialog, as far as another front end needs it.
    pub dialog: Dialog,
}

/// What another front end needs to go on with a dialog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dialog {
    /// Call-ID.
    pub call_id: String,
    /// Our tag.
    pub local_tag: String,
    /// The watcher's tag.
    pub remote_tag: String,
    /// CSeq of this SUBSCRIBE.
    pub remote_cseq: u32,
    /// Remote target (Contact URI).
    pub contact: String,
    /// Route set (Record-Route values).
    pub route: Vec<String>,
    /// `id` parameter of Event.
    pub event_id: String,
}

/// The answer to [`Request`].
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Done.
    Done {
        /// The same transaction had been carried out before.
        replay: bool,
        /// Front end that owned the dialog before, if another did.
        owner_before: Option<Incarnation>,
        /// First NOTIFY CSeq of the owner before, 0 if there was none.
        cseq: u32,
        /// One per presentity asked, in order.
        presentities: Vec<Option<Presentity>>,
    },
    /// The same request came by another way (RFC 3261 §8.2.2.2): 482.
    Merged,
    /// The watcher has too many dialogs (5,000).
    TooMany,
    /// The incarnation was reaped.
    Gone,
}

/// One user watched.
#[derive(Clone, Debug, PartialEq)]
pub struct Presentity {
    /// The user.
    pub user: UserRef,
    /// Whether the account is on.
    pub state: State,
    /// All ACEs of the user (at most 1,000): the verdict for later watchers too.
    pub aces: Vec<Ace>,
    /// Version of the state.
    pub version: Version,
    /// The state; `None`: what the caller holds is current.
    pub facts: Option<Facts>,
}

/// A dialog ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Owner.
    pub fe: Incarnation,
    /// Watcher and dialog; at most 1,000.
    pub dialogs: Vec<(UserRef, Key128)>,
}

/// The last watcher of these users on this front end has gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unwatch {
    /// Who watched.
    pub fe: Incarnation,
    /// Whom; at most 1,000.
    pub users: Vec<UserRef>,
}

/// The answer to [`End`], [`Unwatch`] and [`Flush`](super::adopt::Flush).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Done.
    Done,
    /// The incarnation was reaped.
    Gone,
}
