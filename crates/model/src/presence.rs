//! Presence: what publications say and what they add up to.

use crate::ids::{EndpointId, Key128, Micros};

/// How available somebody is, least first; the order is the one of aggregation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Availability {
    /// Not reachable (`closed`).
    Closed = 1,
    /// Signed in, nothing published: open, no activity.
    #[default]
    SignedIn = 2,
    /// Away from the device.
    Away = 3,
    /// Back in a moment.
    BeRightBack = 4,
    /// Not to be disturbed.
    DoNotDisturb = 5,
    /// Busy: on the phone, in a meeting.
    Busy = 6,
    /// Available.
    Available = 7,
}

/// Who says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Source {
    /// A device, by itself.
    #[default]
    Automatic = 1,
    /// The user, by hand: wins over every automatic state.
    Manual = 2,
}

/// What one publication says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Who says so.
    pub source: Source,
    /// How available.
    pub availability: Availability,
    /// RPID activities (RFC 4480 §3.2) by element name, e.g. `on-the-phone`; at most 8.
    pub activities: Vec<String>,
    /// Note for people, at most 512 octets.
    pub note: Option<String>,
}

/// A live publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Its key.
    pub id: Key128,
    /// The endpoint it belongs to; `None`: not known, or the user as a whole.
    pub endpoint: Option<EndpointId>,
    /// What it says.
    pub state: State,
    /// Regenerated document.
    pub document: Vec<u8>,
    /// When it was last set or refreshed.
    pub updated: Micros,
    /// When it began to say what it says.
    pub since: Micros,
}

/// A signed-in endpoint, for presence only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// The endpoint.
    pub id: EndpointId,
    /// When it signed in.
    pub registered: Micros,
}

/// All that counts towards a user's presence: endpoints alive or in their grace, and publications of such endpoints
/// or of none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Live publications, newest of each endpoint only.
    pub publications: Vec<Publication>,
    /// Endpoints.
    pub devices: Vec<Device>,
}
