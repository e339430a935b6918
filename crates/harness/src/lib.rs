//! What the developer verbs and the whole-system tests share: processes, packages, namespaces, images, directories, the
//! cluster.
//!
//! Everything here is blocking standard-library code that runs the tools of the machine (`ip`, `nsenter`, `dpkg-query`,
//! `kubectl`, …) and cleans up after itself: what a guard started ends when the guard is dropped.

pub mod cluster;
pub mod command;
pub mod deploy;
pub mod directory;
pub mod images;
pub mod netns;
pub mod packages;
pub mod pki;
pub mod postgres;
pub mod process;
pub mod skip;
pub mod wait;
pub mod workspace;

pub use workspace::Workspace;
