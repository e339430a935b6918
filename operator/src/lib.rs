//! The operator: a `CommunicationsPool` resource into a running pool.
pub mod crd;
pub mod error;
pub mod names;
pub mod pki;
