//! The product on a real Kubernetes: from `kubectl apply` to two people who talk through the VIP.
//!
//! `cargo xtask test --only cluster` brings up the cluster, with the images and the operator on it, and names it by
//! `COMMPOOL_CLUSTER`. Without that the tests say that they were not run; under CI they fail.

mod crowd;
mod directory;
mod enterprise;
mod lab;
mod pools;
mod registry;
mod repair;
mod talk;
mod together;
