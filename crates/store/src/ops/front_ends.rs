//! Front ends: start, lease, stop, reaping, listing.

use commpool_model::ids::{Incarnation, Micros};

/// A front end starts. `start_id` makes a repeat harmless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Name of the pod or machine; at most 253 octets.
    pub pod: String,
    /// Random number of this start.
    pub start_id: [u8; 16],
    /// Address other front ends dial; empty in Standard Edition.
    pub address: String,
    /// Version and commit.
    pub build: String,
    /// Reap every other incarnation at once (Standard Edition: there can be no other).
    pub alone: bool,
}

/// The answer to [`Start`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The new incarnation.
    pub fe: Incarnation,
    /// Epoch of the soft data; rises when some was lost.
    pub epoch: u64,
    /// Schema version.
    pub schema: u32,
    /// Live front ends, this one among them.
    pub live: Vec<FrontEnd>,
}

/// A live front end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontEnd {
    /// Its incarnation.
    pub fe: Incarnation,
    /// Address to dial.
    pub address: String,
    /// Version and commit.
    pub build: String,
    /// What it is doing.
    pub state: State,
}

/// What a front end is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Started, not ready.
    Starting = 1,
    /// Takes clients.
    Serving = 2,
    /// Takes no new clients.
    Draining = 3,
    /// Reaped: its writes are refused.
    Dead = 4,
}

/// How much there is on a front end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Connections of clients, and UDP addresses with somebody signed in.
    pub connections: u32,
    /// Other front ends it can send to.
    pub links: u32,
}

/// A front end keeps its lease for another 15 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renew {
    /// Who.
    pub fe: Incarnation,
    /// What it is doing.
    pub state: State,
    /// For administrators.
    pub load: Load,
}

/// The answer to [`Renew`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// The lease holds.
    Held {
        /// Milliseconds left.
        ms_left: u64,
        /// The store's clock: pool time.
        now: Micros,
        /// Epoch of the soft data.
        epoch: u64,
        /// Front ends that nobody has reaped, in ascending order.
        live: Vec<FrontEnd>,
        /// Of these, the ones whose lease has run out, in ascending order: to be reaped.
        expired: Vec<Incarnation>,
    },
    /// Reaped or unknown: close all flows and start anew.
    Gone,
}

/// A front end ends: its remaining endpoints count as lost from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Who.
    pub fe: Incarnation,
}

/// The answer to [`Stop`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// A front end whose lease has run out is declared dead: its writes are refused and its endpoints count as lost from
/// now. Nothing else is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reap {
    /// Who asks; another than `target`.
    pub by: Incarnation,
    /// Who is to be dead.
    pub target: Incarnation,
}

/// The answer to [`Reap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// It is dead, now or since before.
    Done,
    /// Its lease holds.
    Alive,
    /// A write of it is under way: ask again.
    Busy,
    /// Who asks is dead himself.
    Gone,
}

/// Asks for all front ends that are remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct List;

/// The answer to [`List`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Dead ones too, in ascending order of their incarnations.
    pub front_ends: Vec<Status>,
}

/// A front end as an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its incarnation.
    pub fe: Incarnation,
    /// Name of the pod or machine.
    pub pod: String,
    /// Address other front ends dial.
    pub address: String,
    /// Version and commit.
    pub build: String,
    /// What it is doing.
    pub state: State,
    /// Milliseconds its lease still holds, 0 if it has run out.
    pub lease_ms: u64,
    /// Milliseconds since it died; `None`: alive.
    pub dead_ms: Option<u64>,
    /// Endpoint rows that name it, lost and expired ones too.
    pub endpoints: u64,
    /// What it said at its last renewal.
    pub load: Load,
}
