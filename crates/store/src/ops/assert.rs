//! After a crash or failover that lost soft writes (the epoch rose), every front end says again what it holds.

use commpool_model::ids::{EndpointId, Incarnation, Key128, Origin, UserRef};
use commpool_model::presence::State;

use super::subscribe::{Dialog, Kind};
use super::{Endpoint, PublicationId};

/// Rows of this front end as it remembers them. A row of the store that is newer stays.
#[derive(Clone, Debug, PartialEq)]
pub struct Assert {
    /// Who holds them.
    pub fe: Incarnation,
    /// Endpoints whose flow is here; at most 1,000.
    pub endpoints: Vec<HeldEndpoint>,
    /// Publications made or refreshed here last; at most 1,000.
    pub publications: Vec<HeldPublication>,
    /// Users watched from here; at most 1,000.
    pub interest: Vec<UserRef>,
    /// Subscription dialogs owned here; at most 1,000.
    pub subscriptions: Vec<HeldSubscription>,
}

/// An endpoint with what its last REGISTER said.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldEndpoint {
    /// Binding key.
    pub key: Key128,
    /// Transaction of the REGISTER.
    pub origin: Origin,
    /// CSeq of the REGISTER.
    pub cseq: u32,
    /// Milliseconds since the REGISTER: decides which row is newer, unless Call-ID and CSeq do.
    pub refreshed_ms: u64,
    /// The binding.
    pub endpoint: Endpoint,
}

/// A publication with its present tag.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldPublication {
    /// Whose.
    pub user: UserRef,
    /// The publication.
    pub id: PublicationId,
    /// Present entity tag.
    pub tag: Key128,
    /// Serial number of the flow it was last set or refreshed on.
    pub serial: u32,
    /// The endpoint it belongs to.
    pub endpoint: Option<EndpointId>,
    /// What it says.
    pub state: State,
    /// Regenerated document, at most 25 KiB.
    pub document: Vec<u8>,
    /// Milliseconds since it began to say so.
    pub since_ms: u64,
    /// Milliseconds since it was last set or refreshed: decides which row is newer.
    pub updated_ms: u64,
    /// Milliseconds of lifetime left.
    pub expires_ms: u64,
}

/// A dialog of a watcher.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldSubscription {
    /// Who watches.
    pub watcher: UserRef,
    /// The dialog's key.
    pub sub_id: Key128,
    /// Transaction of the last SUBSCRIBE.
    pub origin: Origin,
    /// The watcher's endpoint.
    pub endpoint: Option<EndpointId>,
    /// What is watched.
    pub kind: Kind,
    /// Canonical addresses watched; 1–200.
    pub presentities: Vec<String>,
    /// Seconds of granted lifetime left; the row is kept three times as long.
    pub expires: u32,
    /// Last NOTIFY CSeq used; with the CSeq of the last SUBSCRIBE it decides which row is newer.
    pub cseq: u32,
    /// The dialog.
    pub dialog: Dialog,
}

/// The answer to [`Assert`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asserted {
    /// Done.
    Done(Kept),
    /// The incarnation was reaped.
    Gone,
}

/// How many rows now say what the front end holds, and which do not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Endpoints.
    pub endpoints: u32,
    /// Publications.
    pub publications: u32,
    /// Users watched.
    pub interest: u32,
    /// Dialogs.
    pub subscriptions: u32,
    /// Endpoints that lost: newer elsewhere, or of an account that is not on.
    pub lost_endpoints: Vec<EndpointId>,
    /// Publications that lost.
    pub lost_publications: Vec<(UserRef, PublicationId)>,
    /// Dialogs that lost.
    pub lost_subscriptions: Vec<(UserRef, Key128)>,
}
