//! Whole runs: a store of its own for each test; the directory is a list of entries, or a stub that speaks LDAP.

mod brake;
mod command;
mod faults;
mod histories;
mod lease;
mod lists;
mod pki;
mod stub;
mod tls;
mod values;
