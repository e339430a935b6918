//! The operator in a world of its own: API server, cluster and clock in the process.

mod definition;
mod directory;
mod directory_rules;
mod enterprise;
mod faults;
mod objects;
mod reasons;
mod rivals;
mod support;
mod watching;
