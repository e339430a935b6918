//! A whole pool in one process, from one seed: engines, store, network, clients, clock.

pub mod check;
pub mod client;
pub mod rng;
pub mod run;
pub mod seeds;
pub mod sip;
pub mod world;
