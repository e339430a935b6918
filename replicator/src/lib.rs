//! The User Replicator: users from an LDAP directory into the store.
//!
//! # For those who call it
//!
//! [`run`] is one run of a [`Job`]: it takes the lease, reads the directory to its end, compares, and applies what has to
//! change in one transaction. It never panics, never blocks the runtime, and says in an
//! [`Outcome`](commpool_model::directory::Outcome) what came of it. [`cycle::plan`] shows what a run would do.
//!
//! Directory and store are compared in a temporary file without a name, about half a kilobyte for each user: in
//! [`Job::folder`], else in the environment's `TMPDIR`, else in `/tmp`.
//!
//! # Command line
//!
//! ```text
//! commpool-replicator [--config FILE] check [--format text|json]
//! commpool-replicator [--config FILE] plan  [--format text|json]
//! commpool-replicator [--config FILE] run   [--termination-log FILE] [--metrics-file FILE] [--holder NAME]
//! ```
//!
//! `FILE` is the pool's configuration (default `/etc/commpool/config.yaml`, or the environment's `COMMPOOL_CONFIG`), with
//! a section `directory` and the store. `run` prints the outcome as one line of JSON; `plan --format json` prints one
//! object a step and at last one with the key `plan`. Exit codes: 0 done or nothing to do; `plan`: 10 there is something
//! to do, 11 it would be held; `run`: 11 held, 12 another run is active; 1 failed, the outcome says why; 2 command line
//! or configuration.
//!
//! # Inside
//!
//! Pure: [`ber`] (LDAP as octets), [`entry`], [`mapping`] (entry → user), [`plan`] (what is done about a user). Thin: [`connection`] and [`ldap`] (servers, TLS, pages), [`catalogue`] (the temporary file),
//! [`records`] (the store), [`cycle`] (the order of it all), [`check`], [`cli`].
//!
//! What a directory answers is a stranger's word: [`guard`] lets only whole, bounded, well-formed answers through to the
//! LDAP crate, and what that panics at all the same is a lost connection.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod ber;
pub mod catalogue;
pub mod check;
pub mod cli;
pub mod connection;
pub mod cycle;
pub mod entry;
pub mod fault;
pub mod files;
pub mod guard;
pub mod ldap;
pub mod mapping;
pub mod plan;
pub mod records;
pub mod report;
pub mod source;
pub mod text;
pub mod tls;

pub use cycle::{Job, run};
