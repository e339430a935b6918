//! Identifiers that every other part of the pool speaks in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Database shard that holds a user's rows: 0 on one server, opaque otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Home(pub i32);

/// Number of a user inside the store; below 2⁴⁰, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UserId(pub u64);

impl UserId {
    /// First number that is no user id.
    pub const LIMIT: u64 = 1 << 40;
}

/// A user together with the shard that holds him; first argument of every user operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UserRef {
    /// Shard of the user's rows.
    pub home: Home,
    /// The user.
    pub id: UserId,
}

impl UserRef {
    /// A user on the only server there is.
    pub const fn local(id: u64) -> Self {
        Self { home: Home(0), id: UserId(id) }
    }
}

/// One signed-in device: the user in the upper 40 bits, 24 bits of the hash of its binding key below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EndpointId(pub u64);

impl EndpointId {
    /// The id for a binding of a user. `salt` is 0; after a clash inside the user it is raised once.
    pub fn new(user: UserId, key: Key128, salt: u8) -> Self {
        let k = key.0;
        let low = u64::from(k[0]) << 16 | u64::from(k[1]) << 8 | u64::from(k[2] ^ salt);
        Self(user.0 << 24 | low)
    }

    /// The user whose device this is.
    pub const fn user(self) -> UserId {
        UserId(self.0 >> 24)
    }
}

/// Number of one run of a front end, given by the store at start; 0 is never given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Incarnation(pub u32);

/// Identity of the transaction that caused a write (the OTID): a keyed hash, the same on every front end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin(pub [u8; 16]);

/// A 128-bit key made by hashing: binding key, publication id, subscription id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key128(pub [u8; 16]);

/// Version of a row: `max(old + 1, µs of the store's clock)`; rises strictly per row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(pub u64);

/// A moment of the store's clock, µs since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Micros(pub u64);

impl Micros {
    /// This moment plus whole seconds, saturating.
    pub const fn plus_seconds(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }

    /// The moment as RFC 3339 in UTC, to the second; empty when it is beyond the year 9999.
    pub fn to_rfc3339(self) -> String {
        let seconds = i64::try_from(self.0 / 1_000_000).ok();
        let moment = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        moment.map(|moment| moment.to_string()).unwrap_or_default()
    }

    /// Milliseconds from `self` until `later`, 0 if it has passed.
    pub const fn millis_until(self, later: Self) -> u64 {
        later.0.saturating_sub(self.0) / 1000
    }
}

fn hex(f: &mut fmt::Formatter<'_>, octets: &[u8]) -> fmt::Result {
    octets.iter().try_for_each(|o| write!(f, "{o:02x}"))
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

impl fmt::Debug for Key128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_utc() {
        assert_eq!(Micros(1_795_515_000_999_999).to_rfc3339(), "2026-11-24T10:10:00Z");
        assert_eq!(Micros(u64::MAX).to_rfc3339(), "");
    }
}
