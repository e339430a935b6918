//! What changed since a front end last asked: heals lost pushes.

use commpool_model::ids::{Incarnation, Micros};

use super::PresenceChange;

/// How far a pull looks back behind the last one, seconds: soft writes become visible out of the order of their
/// versions, but within 2 s.
pub const OVERLAP: u64 = 5;

/// Place up to which a front end has pulled; only ever handed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Versions above this one are next.
    pub(crate) after: u64,
    /// When the first page of this round was read, unless the round is complete.
    pub(crate) began: Option<Micros>,
}

/// Presence of users whom a front end watches, changed since a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pull {
    /// Who asks.
    pub fe: Incarnation,
    /// The last answer's cursor; `None`: from now on.
    pub cursor: Option<Cursor>,
    /// At most so many changes; 1–1,000.
    pub limit: u32,
}

/// The answer to [`Pull`]. Some changes come twice: compare versions.
#[derive(Clone, Debug, PartialEq)]
pub struct Pulled {
    /// Where the next pull begins.
    pub cursor: Cursor,
    /// Changes by version; of the interested front ends each names only the one that asked.
    pub changes: Vec<PresenceChange>,
    /// More is there at once: ask again.
    pub more: bool,
}
