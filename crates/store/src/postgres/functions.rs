//! The functions of the database: what this build brings along and asks for.

/// Number of the API that this build calls: the schema `commpool_api_<n>`.
pub(super) const API: i32 = 1;

/// Texts of the functions in the order they are put in place. Those that others are built on come first.
pub(super) const FILES: &[(&str, &str)] = &[
    ("helpers", include_str!("functions/helpers.sql")),
    ("hello", include_str!("functions/hello.sql")),
    ("front_ends", include_str!("functions/front_ends.sql")),
    ("accounts", include_str!("functions/accounts.sql")),
    ("credentials", include_str!("functions/credentials.sql")),
    ("endpoints", include_str!("functions/endpoints.sql")),
    ("register", include_str!("functions/register.sql")),
    ("route", include_str!("functions/route.sql")),
    ("presence", include_str!("functions/presence.sql")),
    ("subscribe", include_str!("functions/subscribe.sql")),
    ("pull", include_str!("functions/pull.sql")),
    ("adopt", include_str!("functions/adopt.sql")),
    ("assert", include_str!("functions/assert.sql")),
    ("directory", include_str!("functions/directory.sql")),
];

/// Name and text of each migration; the first brings the schema to version 1.
pub(super) const MIGRATIONS: &[(&str, &str)] = &[
    ("0001_pool", include_str!("migrations/0001_pool.sql")),
    ("0002_directory", include_str!("migrations/0002_directory.sql")),
    ("0003_expiry", include_str!("migrations/0003_expiry.sql")),
];

/// Version of the schema that this build's functions are written for.
pub(crate) fn schema() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

/// What the functions are known by.
pub(super) fn hash() -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    for (name, text) in FILES {
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update(text.as_bytes());
        hash.update([0]);
    }
    hash.finalize().iter().map(|octet| format!("{octet:02x}")).collect()
}
