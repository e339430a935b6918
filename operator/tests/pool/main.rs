//! The operator in a world of its own: API server, cluster and clock in the process.

mod faults;
mod support;
