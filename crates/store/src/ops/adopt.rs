//! Dialogs that follow their endpoint to another front end, and what keeps their rows fresh.

use commpool_model::ids::{EndpointId, Incarnation, Key128, UserRef, Version};

use super::subscribe::{Dialog, Kind, Presentity};

/// Most dialogs in one answer to [`Adopt`].
pub const ADOPTED: usize = 500;

/// An endpoint has come back here: its dialogs are now owned here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopt {
    /// The new owner.
    pub fe: Incarnation,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// First NOTIFY CSeq of the new owner unless a dialog's own number plus
    /// [`CSEQ_STEP`](super::subscribe::CSEQ_STEP) is higher.
    pub first_cseq: u32,
    /// Users whose state this front end has in memory, with the version: not sent again if current; at most 1,000.
    pub held: Vec<(UserRef, Version)>,
    /// Start after this dialog.
    pub after: Option<Key128>,
}

/// The answer to [`Adopt`].
#[derive(Clone, Debug, PartialEq)]
pub enum Adopted {
    /// Done.
    Done {
        /// The endpoint's dialogs in the order of their keys, those owned here before too; at most [`ADOPTED`].
        dialogs: Vec<AdoptedDialog>,
        /// Every user watched by them, by address; an address that belongs to nobody is left out.
        watched: Vec<(String, Presentity)>,
        /// There are more after the last.
        more: bool,
    },
    /// The incarnation was reaped.
    Gone,
}

/// A dialog as its new owner takes it over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdoptedDialog {
    /// The dialog's key.
    pub sub_id: Key128,
    /// What is watched.
    pub kind: Kind,
    /// Canonical addresses watched.
    pub presentities: Vec<String>,
    /// Seconds until the row expires: at least what is left of the lifetime granted.
    pub seconds_left: u32,
    /// First NOTIFY CSeq of the new owner; for a dialog owned here before, the number stored.
    pub cseq: u32,
    /// Who owned it before, if another did.
    pub owner_before: Option<Incarnation>,
    /// The dialog.
    pub dialog: Dialog,
}

/// Lifetimes and numbers of dialogs, told once a minute instead of at each refresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flush {
    /// Owner.
    pub fe: Incarnation,
    /// Dialogs; at most 1,000. Those owned by another are left alone.
    pub dialogs: Vec<Flushed>,
}

/// What is new of a dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// Who watches.
    pub watcher: UserRef,
    /// The dialog's key.
    pub sub_id: Key128,
    /// Lifetime granted, seconds; the row is kept three times as long.
    pub expires: u32,
    /// Last NOTIFY CSeq used.
    pub cseq: u32,
}
