//! The pool's key: random, made once, the same for the life of the pool.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::metadata;
use crate::names::Component;
use crate::observed::data;
use crate::pki::{Entropy, PkiError};
use crate::validate::ValidatedPool;

/// Key of the Secret, and name of the file.
pub const POOL_KEY: &str = "pool.key";
/// Fewest octets of a key.
const KEY_OCTETS: usize = 32;

/// The Secret with the pool's key: the one that is there, if it is long enough, else a new one.
///
/// # Errors
/// If there is no randomness.
pub fn keys(pool: &ValidatedPool, before: Option<&Secret>, entropy: &mut dyn Entropy) -> Result<Secret, PkiError> {
    let there = before.and_then(|secret| data(secret, POOL_KEY)).filter(|key| key.len() >= KEY_OCTETS);
    let key = match there {
        Some(key) => key.to_vec(),
        None => {
            let mut key = vec![0; KEY_OCTETS];
            entropy.fill(&mut key)?;
            key
        }
    };
    Ok(Secret {
        metadata: metadata::owned(pool, pool.names.keys(), Component::FrontEnd),
        data: Some([(POOL_KEY.to_owned(), ByteString(key))].into()),
        type_: Some("Opaque".into()),
        ..Secret::default()
    })
}
