//! The operator: a `CommunicationsPool` resource into a running pool.
//!
//! One pass over a pool is `dereference → validate → build → plan → apply → status`. Only the first and the last two
//! see the API server; what stands between is pure, with time and randomness passed in. Watches say when to look
//! ([`watch`]); what is decided on is read in the pass itself. At rest nothing is written.
//!
//! The operator deletes nothing but a replicator that is not wanted any more: what belongs to a pool goes with it by owner
//! references, and what must outlive it carries none.

pub mod apply;
pub mod back_end_state;
pub mod build;
pub mod controller;
pub mod crd;
pub mod dereference;
pub mod diff;
pub mod directory_state;
pub mod error;
pub mod front_end_state;
pub mod generate;
pub mod install;
pub mod management;
pub mod metrics;
pub mod names;
pub mod observed;
pub mod owners;
pub mod pki;
pub mod plan;
pub mod pod_state;
pub mod record;
pub mod report;
pub mod rivals;
pub mod status;
pub mod validate;
pub mod version;
pub mod watch;
