//! Whole-system tests: wire, cluster, clients, faults, benches.
//!
//! The library holds what the tests drive and look with: a SIP client of plain text ([`client`]), real clients
//! ([`linphone`], [`sipp`]), a server of one's own for each test ([`server`]), a whole pool ([`pool`]), and a store that
//! is filled from a directory ([`directory`]).

pub mod bench;
pub mod client;
pub mod cpu;
pub mod digest;
pub mod directory;
pub mod http;
pub mod link;
pub mod linphone;
pub mod packet;
pub mod pool;
pub mod presence;
pub mod proxy;
pub mod roamer;
pub mod secrets;
pub mod server;
pub mod sipp;
pub mod watch;
