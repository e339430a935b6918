//! The front end: transports, engine, authentication, services.
//!
//! `transport → engine → service`: services are functions from requests to values, the engine is a state machine
//! without I/O, transports alone send. `boot` puts them together.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod boot;
pub mod cli;
pub mod clock;
pub mod directory;
pub mod engine;
pub mod front_end;
pub mod management;
pub mod metrics;
pub mod peers;
pub mod pki;
pub mod ports;
pub mod services;
pub mod settings;
pub mod start;
pub mod transport;
pub mod version;
