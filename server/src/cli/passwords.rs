//! Passwords: read from a file or standard input, or made; turned into verifiers.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use clap::Args;
use commpool_model::config::DigestAlgorithm;
use commpool_sip::digest::{Algorithm, ha1};
use commpool_store::ops::credentials::Verifier;
use zeroize::Zeroizing;

use super::{EXIT_OTHER, EXIT_USAGE, Failure};

/// Longest password, octets.
const LONGEST: usize = 256;
/// Shortest password an administrator may set, octets.
const SHORTEST: usize = 8;
/// Letters and digits that cannot be taken for one another: 32 of them, 5 bits each.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Characters of a made password: 100 bits.
const MADE: usize = 20;

/// Where a password comes from.
#[derive(Args, Debug, Clone)]
pub(super) struct From {
    /// Read the password from this file (its first line).
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    password_file: Option<PathBuf>,
    /// Read the password from standard input (its first line).
    #[arg(long)]
    password_stdin: bool,
}

impl From {
    /// The password; the second value says that it was made here and must be shown.
    pub(super) fn get(&self) -> Result<(Zeroizing<String>, bool), Failure> {
        let text = if let Some(file) = &self.password_file {
            std::fs::read_to_string(file)
                .map_err(|e| Failure::new(EXIT_USAGE, format!("--password-file {}: {e}", file.display())))?
        } else if self.password_stdin {
            read_stdin()?
        } else {
            return made().map(|p| (p, true));
        };
        let text = Zeroizing::new(text);
        let line = Zeroizing::new(text.lines().next().unwrap_or_default().to_owned());
        check(&line)?;
        Ok((line, false))
    }
}

fn read_stdin() -> Result<String, Failure> {
    if std::io::stdin().is_terminal() {
        eprintln!("Password:");
    }
    let mut text = String::new();
    let limit = LONGEST as u64 + 2;
    std::io::stdin()
        .take(limit)
        .read_to_string(&mut text)
        .map_err(|e| Failure::new(EXIT_USAGE, format!("standard input: {e}")))?;
    Ok(text)
}

/// Refuses passwords that are too short, too long, or hold what no client can send.
pub(super) fn check(password: &str) -> Result<(), Failure> {
    if !(SHORTEST..=LONGEST).contains(&password.len()) {
        let text = format!("a password has {SHORTEST} to {LONGEST} octets; this one has {}", password.len());
        return Err(Failure::new(EXIT_USAGE, text));
    }
    if password.chars().any(char::is_control) {
        return Err(Failure::new(EXIT_USAGE, "a password holds no control characters"));
    }
    Ok(())
}

/// A new random password.
pub(super) fn made() -> Result<Zeroizing<String>, Failure> {
    let mut octets = [0_u8; MADE];
    getrandom::fill(&mut octets).map_err(|e| Failure::new(EXIT_OTHER, format!("no random octets: {e}")))?;
    let letters = octets.iter().filter_map(|o| ALPHABET.get(usize::from(o % 32)));
    Ok(Zeroizing::new(letters.map(|l| char::from(*l)).collect()))
}

/// Verifiers of a password for both algorithms, so that the pool may offer either.
pub(super) fn verifiers(user: &str, realm: &str, password: &str) -> Vec<Verifier> {
    let both = [(DigestAlgorithm::Sha256, Algorithm::Sha256), (DigestAlgorithm::Md5, Algorithm::Md5)];
    let verifier = |(stored, algorithm)| Verifier {
        algorithm: stored,
        realm: realm.to_owned(),
        ha1: ha1(algorithm, user, realm, password),
    };
    both.into_iter().map(verifier).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_passwords_are_long_and_differ() {
        let (a, b) = (made().unwrap(), made().unwrap());
        assert_eq!(a.len(), MADE);
        assert_ne!(*a, *b);
        check(&a).unwrap();
    }

    #[test]
    fn short_long_and_odd_passwords_are_refused() {
        for bad in ["", "short", &"x".repeat(257), "tab\tinside"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
