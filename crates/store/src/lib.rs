//! The Back-End Database: domain operations over Memory and SQLite.

pub mod ops;
