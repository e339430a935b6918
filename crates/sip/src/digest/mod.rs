//! Digest authentication, server side (RFC 7616, RFC 8760, RFC 3261 §22).

use md5::Md5;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::uri::Uri;

mod counts;
mod credentials;
mod nonce;

pub use counts::{NonceCounts, NonceUse};
pub use credentials::{Credentials, CredentialsError};
pub use nonce::{Freshness, LIFETIME, Nonces};

/// Hash algorithm of a challenge and of the answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256 (RFC 8760).
    Sha256,
    /// MD5, for clients that know nothing better.
    Md5,
}

impl Algorithm {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256",
            Self::Md5 => "MD5",
        }
    }

    /// The algorithm of that name, in any case; `None` for others, the `-sess` variants among them.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Sha256, Self::Md5].into_iter().find(|algorithm| algorithm.as_str().eq_ignore_ascii_case(name))
    }

    /// Lower-case hex of the hash over the parts with a colon between each two.
    fn hash(self, parts: &[&[u8]]) -> String {
        match self {
            Self::Sha256 => hash_joined::<Sha256>(parts),
            Self::Md5 => hash_joined::<Md5>(parts),
        }
    }
}

fn hash_joined<H: sha2::Digest>(parts: &[&[u8]]) -> String {
    let mut hash = H::new();
    for (position, part) in parts.iter().enumerate() {
        if position > 0 {
            hash.update(b":");
        }
        hash.update(part);
    }
    hex(&hash.finalize())
}

/// Lower-case hex.
fn hex(octets: &[u8]) -> String {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    octets.iter().flat_map(|octet| [digit(octet >> 4), digit(octet & 15)]).collect()
}

/// What a server stores instead of a password: lower-case hex of H(user ":" realm ":" password).
pub fn ha1(algorithm: Algorithm, user: &str, realm: &str, password: &str) -> String {
    algorithm.hash(&[user.as_bytes(), realm.as_bytes(), password.as_bytes()])
}

/// Value of one `WWW-Authenticate` or `Proxy-Authenticate` row, quality of protection `auth`.
///
/// `stale`: the answer was right but its nonce is too old, so that a client answers again without asking for a
/// password. Control characters in `realm` are left out.
pub fn challenge(realm: &str, nonce: &str, algorithm: Algorithm, stale: bool) -> String {
    let mut value = String::with_capacity(96 + realm.len() + nonce.len());
    value.push_str("Digest realm=");
    push_quoted(&mut value, realm);
    value.push_str(", nonce=");
    push_quoted(&mut value, nonce);
    value.push_str(", algorithm=");
    value.push_str(algorithm.as_str());
    if stale {
        value.push_str(", stale=true");
    }
    value.push_str(", qop=\"auth\"");
    value
}

/// Appends a quoted-string (RFC 3261 §25.1).
fn push_quoted(value: &mut String, text: &str) {
    value.push('"');
    for character in text.chars().filter(|character| !character.is_control()) {
        if matches!(character, '"' | '\\') {
            value.push('\\');
        }
        value.push(character);
    }
    value.push('"');
}

/// Whether the credentials are those of the user with this [`ha1`] for a request with `method`.
///
/// Takes the same time whatever the answer's octets. `qop=auth` is required (an answer of RFC 2069 could be replayed
/// at will), and so is a known algorithm. That the nonce is ours and fresh, that `realm` and `username` are those of
/// `ha1`, and that the digest URI names the request's target ([`uri_matches`]) is the caller's to check.
pub fn verify(credentials: &Credentials<'_>, method: &str, ha1: &str) -> bool {
    let Some(algorithm) = credentials.algorithm() else { return false };
    let (Some(qop), Some(cnonce), Some(nc)) = (credentials.qop, credentials.cnonce.as_deref(), credentials.nc_text)
    else {
        return false;
    };
    if !qop.eq_ignore_ascii_case("auth") {
        return false;
    }
    let ha2 = algorithm.hash(&[method.as_bytes(), credentials.uri.as_bytes()]);
    let parts = [ha1, &credentials.nonce, nc, cnonce, qop, &ha2].map(str::as_bytes);
    let expected = algorithm.hash(&parts);
    expected.as_bytes().ct_eq(credentials.response.to_ascii_lowercase().as_bytes()).into()
}

/// Whether a digest URI names the same target as the Request-URI, as loosely as proxies on the way demand
/// (RFC 3261 §22.4 item 5): the texts are equal, or both are SIP URIs with the same user and host.
///
/// Port, parameters, headers, password, and the difference between `sip` and `sips` do not count.
pub fn uri_matches(digest_uri: &str, request_uri: &str) -> bool {
    if digest_uri == request_uri {
        return true;
    }
    match (Uri::parse(digest_uri), Uri::parse(request_uri)) {
        (Ok(digest), Ok(request)) => {
            [&digest, &request].iter().all(|uri| uri.is_sip() || uri.is_sips())
                && digest.user_decoded() == request.user_decoded()
                && digest.host.eq_ignore_ascii_case(request.host)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
