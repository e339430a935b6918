//! Version and commit of this build.

/// Version of the workspace; given to pools that ask for none.
pub const SHORT: &str = env!("CARGO_PKG_VERSION");
/// Version and commit; the commit is `unknown` where the sources are no checkout.
pub const LONG: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("COMMPOOL_COMMIT"), ")");
