//! The store of Enterprise Edition: PostgreSQL, shared by all front ends of a pool.
//!
//! Each operation is one call of one function of the database, and so one transaction; what queued while a call ran is
//! the next call. The functions hold to the rules that `engine` states in Rust for the other backends.

mod accounts;
mod adopt;
mod arrays;
mod assert;
mod bootstrap;
mod call;
mod connect;
mod credentials;
mod directory;
mod endpoints;
mod facts;
mod fault;
mod front_ends;
mod functions;
mod lane;
mod migrate;
mod options;
mod presence;
mod pull;
mod register;
mod route;
mod store;
mod subscribe;
mod worker;

pub use self::bootstrap::{Logins, roles};
pub(crate) use self::functions::schema;
pub use self::migrate::migrate;
pub use self::options::{Caller, Login, PostgresOptions, Tls};
pub use self::store::PostgresStore;
