//! Transactions (RFC 3261 §17, RFC 6026, RFC 4320, RFC 4321): state and timers as data, no I/O, no clock.
//!
//! Both tables are driven the same way: events go in with the time, what is to be done comes out as a value, and
//! `next_due` says when to call `due`. They are generic over a small `Copy` flow: one connection, or one remote UDP
//! address.

use std::time::Duration;

mod client;
mod server;
mod timers;

pub use client::{ClientDue, ClientTransactions, NotStarted, Outcome};
pub use server::{Received, ServerDue, ServerTransactions};

/// T1, the estimate of a round trip (RFC 3261 §17.1.1.1).
pub const T1: Duration = Duration::from_millis(500);
/// T2, the longest pause between two copies of a non-INVITE request (RFC 3261 §17.1.2.2).
pub const T2: Duration = Duration::from_secs(4);
/// T4, the longest a message stays in the network (RFC 3261 §17.1.2.2).
pub const T4: Duration = Duration::from_secs(5);
/// 64·T1: timers F and J (RFC 3261 §17.1.2.2, §17.2.2).
pub const T1_64: Duration = Duration::from_secs(32);
/// When a server that has no final response says 100 to a non-INVITE: what timer E takes to reach T2
/// (RFC 4320 §4.1). No sooner over an unreliable transport.
pub const TRYING_AFTER: Duration = Duration::from_millis(3500);
/// When a non-INVITE server transaction without a final response is overdue: later the client may have given up.
pub const OVERDUE_AFTER: Duration = Duration::from_secs(8);
