//! Nonces that every front end of a pool can check without having issued them.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;

use crate::otid::PoolKey;

/// How long a nonce is good for.
pub const LIFETIME: Duration = Duration::from_secs(60);

/// How far in the future, in seconds, a nonce may have been issued: front ends know pool time to a second or so.
const SKEW: u64 = 5;

/// Octets in a nonce: time 8, salt 8, authenticator 16.
const OCTETS: usize = 32;

/// What a nonce turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Ours, for this realm and client, younger than [`LIFETIME`].
    Fresh,
    /// Ours, but too old (or too far in the future): challenge anew with `stale=true`.
    Stale,
    /// Not ours, or for another realm or client: challenge anew.
    Forged,
}

/// Issues and checks nonces: an authenticator over pool time, realm, client address and salt. Keeps nothing.
#[derive(Clone, Debug)]
pub struct Nonces {
    key: PoolKey,
}

impl Nonces {
    /// Nonces under the key of a pool.
    pub fn new(key: &PoolKey) -> Self {
        Self { key: key.clone() }
    }

    /// A nonce issued at `pool_seconds`, which every front end counts alike.
    ///
    /// `client_ip` binds it to that address; `None` where the address seen is not the client's. `salt` tells nonces of
    /// the same second apart, so that each has its own nonce count: a random number or a counter.
    pub fn issue(&self, pool_seconds: u64, realm: &str, client_ip: Option<IpAddr>, salt: u64) -> String {
        let mut octets = Vec::with_capacity(OCTETS);
        octets.extend_from_slice(&pool_seconds.to_be_bytes());
        octets.extend_from_slice(&salt.to_be_bytes());
        octets.extend_from_slice(&self.authenticator(pool_seconds, salt, realm, client_ip));
        URL_SAFE_NO_PAD.encode(octets)
    }

    /// What `nonce` is worth at `pool_seconds` for this realm and client.
    pub fn check(&self, nonce: &str, pool_seconds: u64, realm: &str, client_ip: Option<IpAddr>) -> Freshness {
        let Some((issued, salt, authenticator)) = split(nonce) else { return Freshness::Forged };
        let expected = self.authenticator(issued, salt, realm, client_ip);
        if !bool::from(expected.ct_eq(&authenticator)) {
            Freshness::Forged
        } else if pool_seconds.saturating_sub(issued) >= LIFETIME.as_secs()
            || issued.saturating_sub(pool_seconds) > SKEW
        {
            Freshness::Stale
        } else {
            Freshness::Fresh
        }
    }

    fn authenticator(&self, issued: u64, salt: u64, realm: &str, client_ip: Option<IpAddr>) -> [u8; 16] {
        let address = match client_ip.map(|ip| ip.to_canonical()) {
            None => [0; 17],
            Some(IpAddr::V4(ip)) => tagged(4, u128::from(u32::from(ip))),
            Some(IpAddr::V6(ip)) => tagged(6, u128::from(ip)),
        };
        self.key.nonce(&[&issued.to_be_bytes(), &salt.to_be_bytes(), &address, realm.as_bytes()])
    }
}

/// Family and address in 17 octets.
fn tagged(family: u8, address: u128) -> [u8; 17] {
    let mut octets = [family; 17];
    if let Some(rest) = octets.last_chunk_mut() {
        *rest = address.to_be_bytes();
    }
    octets
}

/// Pool seconds at which a nonce of the right form was issued.
pub(super) fn issued(nonce: &str) -> Option<u64> {
    split(nonce).map(|(issued, _, _)| issued)
}

/// Time, salt and authenticator of a nonce of the right form.
fn split(nonce: &str) -> Option<(u64, u64, [u8; 16])> {
    let mut octets = [0; OCTETS];
    let length = URL_SAFE_NO_PAD.decode_slice(nonce, &mut octets).ok()?;
    if length != OCTETS {
        return None;
    }
    let (issued, rest) = octets.split_first_chunk()?;
    let (salt, authenticator) = rest.split_first_chunk()?;
    Some((u64::from_be_bytes(*issued), u64::from_be_bytes(*salt), *authenticator.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonces() -> Nonces {
        Nonces::new(&PoolKey::from_octets(&[4; 32]).unwrap())
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn good_for_sixty_seconds_on_every_front_end_with_the_key() {
        let nonce = nonces().issue(1000, "example.org", ip("192.0.2.1"), 9);
        for (now, expected) in [
            (994, Freshness::Stale),
            (995, Freshness::Fresh),
            (1000, Freshness::Fresh),
            (1059, Freshness::Fresh),
            (1060, Freshness::Stale),
            (u64::MAX, Freshness::Stale),
        ] {
            assert_eq!(nonces().check(&nonce, now, "example.org", ip("192.0.2.1")), expected, "at {now}");
        }
    }

    #[test]
    fn bound_to_realm_client_and_key() {
        let nonce = nonces().issue(1000, "example.org", ip("192.0.2.1"), 9);
        let check = |nonces: &Nonces, realm, client| nonces.check(&nonce, 1000, realm, client);
        assert_eq!(check(&nonces(), "example.com", ip("192.0.2.1")), Freshness::Forged);
        assert_eq!(check(&nonces(), "example.org", ip("192.0.2.2")), Freshness::Forged);
        assert_eq!(check(&nonces(), "example.org", ip("2001:db8::1")), Freshness::Forged);
        assert_eq!(check(&nonces(), "example.org", None), Freshness::Forged);
        let other = Nonces::new(&PoolKey::from_octets(&[5; 32]).unwrap());
        assert_eq!(check(&other, "example.org", ip("192.0.2.1")), Freshness::Forged);
    }

    #[test]
    fn an_ipv4_client_is_the_same_on_a_dual_stack_socket() {
        let nonce = nonces().issue(1, "r", ip("192.0.2.1"), 0);
        assert_eq!(nonces().check(&nonce, 1, "r", ip("::ffff:192.0.2.1")), Freshness::Fresh);
        let zeros = nonces().issue(1, "r", ip("0.0.0.0"), 0);
        assert_eq!(nonces().check(&zeros, 1, "r", None), Freshness::Forged);
        assert_eq!(nonces().check(&zeros, 1, "r", ip("::")), Freshness::Forged);
    }

    #[test]
    fn every_changed_character_is_a_forgery() {
        let nonce = nonces().issue(1000, "example.org", None, 77);
        assert_eq!(nonce.len(), 43);
        for position in 0..nonce.len() {
            let mut changed = nonce.clone().into_bytes();
            changed[position] = if changed[position] == b'A' { b'Q' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(nonces().check(&changed, 1000, "example.org", None), Freshness::Forged, "{changed}");
        }
        for text in ["", "A", "é", &format!("{nonce}A"), &format!("{nonce}=")] {
            assert_eq!(nonces().check(text, 1000, "example.org", None), Freshness::Forged, "{text}");
        }
    }

    #[test]
    fn salt_tells_nonces_of_one_second_apart() {
        assert_ne!(nonces().issue(1, "r", None, 0), nonces().issue(1, "r", None, 1));
    }
}
