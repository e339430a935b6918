//! Passwords as Digest verifiers.

use std::fmt;

use commpool_model::config::DigestAlgorithm;
use commpool_model::ids::UserRef;

use super::accounts::State;

/// Who signs in: `user@realm`, canonical.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Canonical address.
    pub address: String,
}

/// What is known of him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// `None`: no such address; handled exactly like a wrong password.
    pub found: Option<Login>,
}

/// A user who could sign in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: UserRef,
    /// Whether the account is on.
    pub state: State,
    /// Stamp of the account row; changes with state and passwords.
    pub stamp: u64,
    /// Live verifiers by label and algorithm; at most 40: twenty labels, two algorithms.
    pub verifiers: Vec<Verifier>,
}

/// H(user : realm : password) for one algorithm (RFC 7616 §3.4.2), lower-case hexadecimal.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// The hash's algorithm.
    pub algorithm: DigestAlgorithm,
    /// Realm it was made for.
    pub realm: String,
    /// 64 or 32 hexadecimal digits.
    pub ha1: String,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({:?}, {})", self.algorithm, self.realm)
    }
}

/// A new password under a label; replaces the one of the same label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// Whose, by canonical address.
    pub address: String,
    /// Label, e.g. of the device; `main` for the user's own; 1–64 octets.
    pub label: String,
    /// One verifier per algorithm.
    pub verifiers: Vec<Verifier>,
}

/// The answer to [`Put`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutReply {
    /// Done; the new stamp.
    Done(u64),
    /// No such address.
    NotFound,
    /// Twenty labels are there already.
    TooMany,
}

/// A password is taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoke {
    /// Whose, by canonical address.
    pub address: String,
    /// Its label.
    pub label: String,
}

/// The answer to [`Revoke`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// Done; the new stamp.
    Done(u64),
    /// No such address or label.
    NotFound,
}
