//! REGISTER and removal of bindings.

use commpool_model::ids::{EndpointId, Incarnation, Key128, Origin, UserRef};

use super::{Endpoint, FlowRef, PresenceChange};

/// A REGISTER that was authenticated and may change its own user's bindings.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Whose bindings.
    pub user: UserRef,
    /// Identity of the transaction.
    pub origin: Origin,
    /// Call-ID of the request.
    pub call_id: String,
    /// CSeq number of the request.
    pub cseq: u32,
    /// Flow it came in on.
    pub flow: FlowRef,
    /// User-Agent, at most 128 octets.
    pub agent: String,
    /// What it asks for.
    pub contacts: Contacts,
    /// Front ends that the caller cannot reach: their flows count as dead for this request, before anybody has reaped
    /// them, so that a device of theirs is known again by its instance; at most 100.
    pub unreachable: Vec<Incarnation>,
}

/// What a REGISTER asks for (RFC 3261 §10.3).
#[derive(Clone, Debug, PartialEq)]
pub enum Contacts {
    /// Nothing: the present bindings.
    Query,
    /// `Contact: *` with `Expires: 0`.
    RemoveAll,
    /// Each of these, all or none; 1–10.
    Each(Vec<Binding>),
}

/// One Contact of a REGISTER.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    /// Hash of instance and reg-id when both are given, else of the canonical Contact URI.
    pub key: Key128,
    /// Contact URI as registered.
    pub contact: String,
    /// Contact header value as registered, without `expires` and `q`.
    pub contact_value: String,
    /// Preference, 0–1000.
    pub q: u16,
    /// Path values.
    pub path: Vec<String>,
    /// `+sip.instance` without the quotes.
    pub instance: Option<String>,
    /// `reg-id`.
    pub reg_id: Option<u32>,
    /// Lifetime granted, seconds; 0 removes.
    pub expires: u32,
}

/// The answer to [`Request`].
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Done.
    Done(Box<Done>),
    /// CSeq not above the stored one under the same Call-ID, and not the same transaction: 500.
    Stale,
    /// More than ten endpoints would result: 403.
    TooMany,
    /// The account is gone or not on: 403.
    NoAccount,
    /// The incarnation was reaped.
    Gone,
}

/// What a REGISTER brought about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Done {
    /// The same transaction had been carried out before; nothing changed now.
    pub replay: bool,
    /// Every binding of the user now.
    pub bindings: Vec<Endpoint>,
    /// Endpoints of this request, in the order of its Contacts (removed ones too where they existed).
    pub touched: Vec<Touched>,
    /// The user's presence as it is now: set where it changed (first or last endpoint, publications gone with one).
    pub change: Option<PresenceChange>,
    /// Dialogs to be adopted. Of an endpoint that came to another flow: those another front end owns and the client still
    /// knows, since the REGISTER before had the same Call-ID. Of one that was not there: all, whoever owns them; it may
    /// have been away for long, and whether the client still knows them shows when it is told something.
    pub adoptable: u32,
}

/// What happened to one Contact.
#[derive(Clone, Debug, PartialEq)]
pub struct Touched {
    /// The endpoint; `None`: a removal of something that was not there.
    pub endpoint: Option<EndpointId>,
    /// How.
    pub how: Change,
    /// The flow it had before, where that differs.
    pub previous: Option<FlowRef>,
}

/// How a binding changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// New.
    Created,
    /// Known, lifetime or flow changed.
    Refreshed,
    /// Gone.
    Removed,
}

/// Bindings removed by somebody other than their client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unregister {
    /// Who asks.
    pub fe: Incarnation,
    /// Whose.
    pub user: UserRef,
    /// Which; `None`: all.
    pub endpoints: Option<Vec<EndpointId>>,
}

/// The answer to [`Unregister`].
#[derive(Clone, Debug, PartialEq)]
pub enum Unregistered {
    /// Done: the endpoints that went, and the presence change by it.
    Done {
        /// Endpoints that went, with their flows.
        removed: Vec<(EndpointId, FlowRef)>,
        /// Presence change.
        change: Option<PresenceChange>,
    },
    /// The incarnation was reaped.
    Gone,
}
