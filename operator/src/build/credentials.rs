//! The logins of a database of the pool's own: made once, kept with the volume that they open.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use sha2::{Digest, Sha256};

use super::metadata;
use crate::names::Component;
use crate::observed::data;
use crate::pki::{Entropy, PkiError};
use crate::validate::ValidatedPool;

/// Whose login it is whom PostgreSQL's own initialisation makes; beginning of the keys.
pub const SUPERUSER: &str = "superuser";
/// Key of the superuser's password.
pub const SUPERUSER_PASSWORD: &str = "superuser-password";
/// Name of the superuser. It is part of the volume and cannot change.
pub const SUPERUSER_NAME: &str = "postgres";
/// The logins that a migration makes in a database of the pool's own: whose, and under what name.
pub const LOGINS: [(&str, &str); 3] =
    [("owner", "pool_owner"), ("server", "pool_server"), ("replicator", "pool_replicator")];
/// Random octets of a password.
const PASSWORD_OCTETS: usize = 20;

/// The Secret with all logins: of what is there all that is not empty is taken over.
///
/// # Errors
/// If there is no randomness.
pub fn secret(pool: &ValidatedPool, before: Option<&Secret>, entropy: &mut dyn Entropy) -> Result<Secret, PkiError> {
    let there = |key: &str| before.and_then(|secret| data(secret, key)).filter(|octets| !octets.is_empty());
    let mut entries = BTreeMap::new();
    for (who, name) in [(SUPERUSER, SUPERUSER_NAME)].into_iter().chain(LOGINS) {
        let (name_key, password_key) = (format!("{who}-username"), format!("{who}-password"));
        let kept = there(&name_key).filter(|_| who != SUPERUSER);
        let password = match there(&password_key) {
            Some(password) => password.to_vec(),
            None => password(entropy)?,
        };
        entries.insert(name_key, ByteString(kept.unwrap_or(name.as_bytes()).to_vec()));
        entries.insert(password_key, ByteString(password));
    }
    Ok(Secret {
        metadata: metadata::kept(pool, pool.names.credentials(), Component::Database),
        data: Some(entries),
        type_: Some("Opaque".into()),
        ..Secret::default()
    })
}

fn password(entropy: &mut dyn Entropy) -> Result<Vec<u8>, PkiError> {
    let mut octets = [0; PASSWORD_OCTETS];
    entropy.fill(&mut octets)?;
    Ok(octets.iter().flat_map(|octet| format!("{octet:02x}").into_bytes()).collect())
}

/// Hash of all logins. It tells nothing of a password, since it takes in several of 160 random bits.
pub fn hash(secret: &Secret) -> String {
    let mut hash = Sha256::new();
    for (key, value) in secret.data.iter().flatten() {
        for part in [key.as_bytes(), &value.0] {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
    }
    super::hex(&hash.finalize(), 8)
}
