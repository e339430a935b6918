//! Front ends: start, lease, stop.

use commpool_model::ids::Incarnation;

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

/// A front end keeps its lease for another 15 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renew {
    /// Who.
    pub fe: Incarnation,
    /// What it is doing.
    pub state: State,
}

/// The answer to [`Renew`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// The lease holds.
    Held {
        /// Milliseconds left.
        ms_left: u64,
        /// Epoch of the soft data.
        epoch: u64,
        /// Live front ends.
        live: Vec<FrontEnd>,
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
