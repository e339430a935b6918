//! Passwords as Digest verifiers.

use std::convert::Infallible;

use commpool_model::config::DigestAlgorithm;
use commpool_model::ids::UserId;

use super::Memory;
use crate::engine::credentials::Credentials;
use crate::ops::credentials::Verifier;

impl Memory {
    fn verifiers_of(&self, user: UserId) -> impl Iterator<Item = (&str, &Verifier)> {
        let from = (user, String::new(), DigestAlgorithm::Sha256);
        let of_user = self.verifiers.range(from..).take_while(move |((owner, _, _), _)| *owner == user);
        of_user.map(|((_, label, _), verifier)| (label.as_str(), verifier))
    }
}

impl Credentials for Memory {
    fn labels(&mut self, user: UserId) -> Result<Vec<String>, Infallible> {
        let mut labels: Vec<String> = self.verifiers_of(user).map(|(label, _)| label.to_owned()).collect();
        labels.dedup();
        Ok(labels)
    }

    fn verifiers(&mut self, user: UserId) -> Result<Vec<Verifier>, Infallible> {
        Ok(self.verifiers_of(user).map(|(_, verifier)| verifier.clone()).collect())
    }

    fn put_verifier(&mut self, user: UserId, label: &str, verifier: &Verifier) -> Result<(), Infallible> {
        self.verifiers.insert((user, label.to_owned(), verifier.algorithm), verifier.clone());
        Ok(())
    }

    fn remove_label(&mut self, user: UserId, label: &str) -> Result<(), Infallible> {
        self.verifiers.retain(|(owner, of, _), _| *owner != user || of != label);
        Ok(())
    }

    fn remove_verifiers(&mut self, user: UserId) -> Result<(), Infallible> {
        self.verifiers.retain(|(owner, _, _), _| *owner != user);
        Ok(())
    }
}
