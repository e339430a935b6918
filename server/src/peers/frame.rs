//! Frames between front ends: what is said.

use std::net::SocketAddr;

use bytes::Bytes;
use commpool_model::ids::{EndpointId, Incarnation, Key128, UserRef, Version};
use commpool_model::presence::Facts;
use commpool_sip::otid::Otid;

pub use super::wire::Unreadable;

/// Highest protocol this build speaks, and the lowest.
pub const PROTOCOL: (u16, u16) = (1, 1);
/// Longest frame: a SIP message, its routing data, some room.
pub const LONGEST: usize = 256 * 1024;
/// Most entries of a list in a frame.
pub const MOST: usize = 1000;

/// Which of the two connections to a peer carries a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// What somebody waits for.
    Calls,
    /// What may come later, the newest replacing the older.
    Bulk,
}

/// What one front end tells another.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// First on every connection: who speaks.
    Hello(Hello),
    /// Deliver a request to an endpoint whose flow you hold.
    Deliver(Box<Deliver>),
    /// What became of a [`Frame::Deliver`], within a second.
    Ack(Ack),
    /// The endpoint's own answer.
    Answer(Answer),
    /// A response that came in here but belongs to a request you sent (UDP).
    Response {
        /// Where it came from.
        remote: SocketAddr,
        /// The response.
        octets: Bytes,
    },
    /// Users you watch have changed.
    Presence(Vec<Changed>),
    /// An endpoint of yours has registered here; drop it, and tell what its dialogs had.
    Moved(Moved),
    /// What belongs to an endpoint that has moved.
    HandOver(HandOver),
    /// An endpoint you hold signed out elsewhere.
    Unbound(EndpointId),
    /// A dialog of yours is now carried on here.
    Disowned(Disowned),
    /// These addresses without a flow here sent something here (UDP).
    SeenHere(Vec<SocketAddr>),
    /// Send this to an address that you saw last (UDP).
    Emit {
        /// Where to.
        remote: SocketAddr,
        /// What.
        octets: Bytes,
    },
    /// I am there.
    Ping(Ping),
}

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Name of the pool.
    pub pool: String,
    /// Incarnation of the speaker.
    pub from: Incarnation,
    /// Incarnation it wants to speak to.
    pub to: Incarnation,
    /// Version and commit of the speaker.
    pub build: String,
    /// Highest and lowest protocol it speaks.
    pub protocol: (u16, u16),
    /// What this connection carries.
    pub class: Class,
}

/// A request for an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Deliver {
    /// Identity of the request's transaction.
    pub otid: Otid,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Proven sender, canonical address.
    pub caller: String,
    /// Where the request came from at the edge.
    pub source: SocketAddr,
    /// Contact of the endpoint.
    pub contact: String,
    /// Its Path.
    pub path: Vec<String>,
    /// Milliseconds the edge will wait for the endpoint's answer.
    pub patience: u32,
    /// The request as it came in.
    pub request: Bytes,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Transaction.
    pub otid: Otid,
    /// Endpoint.
    pub endpoint: EndpointId,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// On its way to the endpoint; an [`Answer`] follows.
    Written,
    /// Its flow has just closed: it is awaited for some seconds, then `Moved` or `Gone` follows.
    Parked,
    /// It is signed in on this front end now: deliver there, with the same identity.
    Moved(Incarnation),
    /// It has no flow here.
    Gone,
    /// Too much to do.
    Busy,
    /// Larger than its flow can carry.
    TooLarge,
}

/// An endpoint's final answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Transaction.
    pub otid: Otid,
    /// Endpoint.
    pub endpoint: EndpointId,
    /// What it said.
    pub said: Said,
}

/// What an endpoint said.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// Its response.
    Response(Bytes),
    /// The same request had been delivered before, and was answered with this status.
    Before(u16),
    /// Nothing in time, or its flow is gone.
    Nothing,
}

/// A user's presence.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// Whose.
    pub user: UserRef,
    /// Version of the state.
    pub version: Version,
    /// The state.
    pub state: Facts,
}

/// Where an endpoint is now, and the REGISTER that brought it: it may have moved on since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Call-ID of the REGISTER.
    pub call_id: String,
    /// Its CSeq.
    pub cseq: u32,
}

/// A dialog that is carried on elsewhere, and from which number: it may have come back since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disowned {
    /// The dialog.
    pub id: Key128,
    /// CSeq of the new owner's first NOTIFY.
    pub cseq: u32,
}

/// What belongs to an endpoint that has moved: nothing is delivered or told twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandOver {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// What its dialogs had been told.
    pub dialogs: Vec<Told>,
    /// Transactions delivered to it lately, with the status of its answer; 0: none came.
    pub delivered: Vec<(Otid, u16)>,
}

/// What a dialog had been told by its owner before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The dialog.
    pub id: Key128,
    /// CSeq of the last NOTIFY.
    pub cseq: u32,
    /// Hash of the document last told, 0 if none.
    pub document: u64,
}

/// How a front end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Milliseconds since its last successful renewal of the lease.
    pub renewed: u32,
}

impl Frame {
    /// Which connection carries it.
    pub const fn class(&self) -> Class {
        match self {
            Self::Presence(_) | Self::SeenHere(_) => Class::Bulk,
            _ => Class::Calls,
        }
    }

    pub(super) const fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => 1,
            Self::Deliver(_) => 2,
            Self::Ack(_) => 3,
            Self::Answer(_) => 4,
            Self::Response { .. } => 5,
            Self::Presence(_) => 6,
            Self::Moved(_) => 7,
            Self::HandOver(_) => 8,
            Self::Unbound(_) => 9,
            Self::Disowned(_) => 10,
            Self::SeenHere(_) => 11,
            Self::Emit { .. } => 12,
            Self::Ping(_) => 13,
        }
    }
}
