//! Secrets that somebody else keeps: what of them is needed and not there.

use k8s_openapi::api::core::v1::Secret;

use crate::observed::data;

/// A Secret that somebody else keeps, and the keys that are needed of it.
pub(super) struct Given<'a> {
    /// The field that names it.
    pub(super) field: &'a str,
    /// Its name.
    pub(super) name: &'a str,
    /// The Secret, if it is there.
    pub(super) secret: Option<&'a Secret>,
    /// What it must have.
    pub(super) keys: &'a [&'a str],
}

impl Given<'_> {
    /// What of it is not there, and what mends it.
    pub(super) fn lack(&self) -> Option<String> {
        let Self { field, name, secret, keys } = self;
        let Some(secret) = secret else {
            return Some(format!("{field}: there is no Secret {name}; make it with keys {}", keys.join(", ")));
        };
        let empty = |key: &&&str| data(secret, key).is_none_or(<[u8]>::is_empty);
        keys.iter().find(empty).map(|key| format!("{field}: Secret {name} has no key {key}"))
    }
}
