//! Publications and the state they add up to.

use commpool_model::ids::{EndpointId, Incarnation, Key128, Origin, UserRef};
use commpool_model::presence::{Facts, State};

use super::{FlowRef, PresenceChange, PublicationId};

/// A PUBLISH of an authenticated user for himself (RFC 3903).
#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    /// Whose state.
    pub user: UserRef,
    /// Identity of the transaction.
    pub origin: Origin,
    /// Flow it came in on.
    pub flow: FlowRef,
    /// Endpoint of that flow, if one has registered on it.
    pub endpoint: Option<EndpointId>,
    /// Entity tag the client named; `None`: a new publication.
    pub if_match: Option<Key128>,
    /// Entity tag of the result, a function of the transaction.
    pub tag: Key128,
    /// What to do.
    pub action: Action,
}

/// What a PUBLISH does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// New or changed state.
    Set {
        /// Lifetime granted, seconds.
        expires: u32,
        /// What it says.
        state: Box<State>,
        /// Regenerated document, at most 25 KiB.
        document: Vec<u8>,
    },
    /// Only a new lifetime.
    Refresh {
        /// Lifetime granted, seconds.
        expires: u32,
    },
    /// Gone.
    Remove,
}

/// The answer to [`Publish`].
#[derive(Clone, Debug, PartialEq)]
pub enum Published {
    /// Done.
    Done {
        /// The same transaction had been carried out before; nothing changed now.
        replay: bool,
        /// The publication.
        id: PublicationId,
        /// The state that results, and whom to tell.
        change: Box<PresenceChange>,
    },
    /// The tag names no live publication: 412.
    Precondition,
    /// More than twenty publications would result.
    TooMany,
    /// The account is gone or not on.
    NoAccount,
    /// The incarnation was reaped.
    Gone,
}

/// The present state of users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Of {
    /// Who asks.
    pub fe: Incarnation,
    /// Users; at most 200.
    pub users: Vec<UserRef>,
}

/// The answer to [`Of`], in the order asked; absent users have empty facts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct States {
    /// State and version per user.
    pub states: Vec<(UserRef, Facts, commpool_model::ids::Version)>,
}
