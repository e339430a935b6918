//! What a pool is: identifiers, users, ACL verdicts, presence aggregation, configuration.
//!
//! No I/O, no SIP, no SQL; time comes in as an argument.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod acl;
pub mod address;
pub mod config;
pub mod directory;
pub mod ids;
pub mod presence;
pub mod schedule;
