//! Endpoints as a whole: lost flows, sweeping, expiry, listing.

use commpool_model::ids::{EndpointId, Incarnation, Key128, UserRef};

use super::{Endpoint, PresenceChange, PublicationId};

/// Flows of one incarnation are gone. Marks only where the row still names that flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowsLost {
    /// Incarnation that held them.
    pub fe: Incarnation,
    /// The users signed in on them and the flows' serial numbers; at most 1,000.
    pub flows: Vec<(UserRef, u32)>,
}

/// The answer to [`FlowsLost`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Marked {
    /// So many endpoint rows are marked.
    Done(u32),
    /// The incarnation was reaped.
    Gone,
}

/// Remove what is lost for longer than its grace: 15 s, 35 s for a binding with `reg-id`, over UDP its lifetime; what
/// dead front ends leave behind; and of a hundred users, others each time, what is past its time and was removed by nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweepLost {
    /// Who asks.
    pub fe: Incarnation,
    /// At most so many rows; 1–500.
    pub limit: u32,
}

/// Rows that are due by the timers of their owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expire {
    /// Who asks.
    pub fe: Incarnation,
    /// Endpoints; at most 1,000.
    pub endpoints: Vec<EndpointId>,
    /// Publications; at most 1,000.
    pub publications: Vec<(UserRef, PublicationId)>,
    /// Subscriptions, by watcher; at most 1,000.
    pub subscriptions: Vec<(UserRef, Key128)>,
}

/// What [`SweepLost`], [`Expire`] changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Swept {
    /// The incarnation was reaped: nothing was done.
    pub gone: bool,
    /// Endpoints removed.
    pub endpoints: Vec<EndpointId>,
    /// Users whose presence changed by it.
    pub changes: Vec<PresenceChange>,
    /// More is due: ask again.
    pub more: bool,
}

/// Who is signed in, ordered by user and endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Find {
    /// Only this address (`user@domain`).
    pub address: Option<String>,
    /// Start after this endpoint.
    pub after: Option<EndpointId>,
    /// At most so many; 1–1,000.
    pub limit: u32,
}

/// The answer to [`Find`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Address of the user and his endpoint.
    pub rows: Vec<(String, Endpoint)>,
    /// There are more after the last.
    pub more: bool,
}

/// Asks for [`TimerRows`], a page at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timers {
    /// Start after this endpoint.
    pub after: Option<EndpointId>,
    /// Start after this publication.
    pub after_publication: Option<(UserRef, PublicationId)>,
    /// At most so many rows of each kind; 1–10,000.
    pub limit: u32,
}

/// Rows with milliseconds left until they expire (0: due).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimerRows {
    /// Endpoints.
    pub endpoints: Vec<(EndpointId, u64)>,
    /// Publications.
    pub publications: Vec<(UserRef, PublicationId, u64)>,
    /// There are more.
    pub more: bool,
}
