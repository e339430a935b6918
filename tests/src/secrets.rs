//! What must never be found in a log: passwords, their hashes, nonces, answers to challenges, bodies of messages.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Shorter texts would be found by chance.
const SHORTEST: usize = 8;

/// A growing set of secrets, shared by the clients of one server.
#[derive(Clone, Debug, Default)]
pub struct Secrets(Arc<Mutex<BTreeMap<String, &'static str>>>);

impl Secrets {
    /// Remembers one; `kind` is what a report calls it.
    pub fn add(&self, kind: &'static str, secret: &str) {
        if secret.len() >= SHORTEST {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(secret.to_owned(), kind);
        }
    }

    /// Lines that hold a secret, each with the kind of it.
    #[must_use]
    pub fn found_in(&self, log: &str) -> Vec<String> {
        let secrets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let leak = |line: &str| {
            let (_, kind) = secrets.iter().find(|(secret, _)| line.contains(secret.as_str()))?;
            Some(format!("{kind} in: {line}"))
        };
        log.lines().filter_map(leak).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_secret_is_found() {
        let secrets = Secrets::default();
        secrets.add("password", "open sesame");
        secrets.add("body", "hi");
        assert!(secrets.found_in("user=alice\nhi there").is_empty());
        assert_eq!(secrets.found_in("a\nb=open sesame;").len(), 1);
    }
}
