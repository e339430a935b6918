//! Digest answers as clients give them (RFC 7616, RFC 2617), right and wrong ones.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use md5::Md5;
use sha2::{Digest as _, Sha256};

/// A hash function of Digest authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// MD5.
    Md5,
}

impl Algorithm {
    /// Lower-case hexadecimal hash of a text.
    #[must_use]
    pub fn hash(self, text: &str) -> String {
        let octets = match self {
            Self::Sha256 => Sha256::digest(text).to_vec(),
            Self::Md5 => Md5::digest(text).to_vec(),
        };
        octets.iter().fold(String::new(), |mut out, octet| {
            let _ = write!(out, "{octet:02x}");
            out
        })
    }
}

/// What a server asks in WWW-Authenticate or Proxy-Authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Realm.
    pub realm: String,
    /// Nonce.
    pub nonce: String,
    /// Hash; MD5 where none is named.
    pub algorithm: Algorithm,
    /// Whether `auth` is among the qualities of protection offered.
    pub qop: bool,
    /// Whether the last answer was right but for its nonce.
    pub stale: bool,
    /// Value to give back, if any.
    pub opaque: Option<String>,
}

impl Challenge {
    /// Reads one header value.
    ///
    /// # Errors
    /// When it is no Digest challenge with realm and nonce, or asks for an unknown hash.
    pub fn parse(value: &str) -> Result<Self> {
        let pairs = value.strip_prefix("Digest ").context("not a Digest challenge")?;
        let pairs = split(pairs);
        let get = |name: &str| pairs.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone());
        let algorithm = match get("algorithm").as_deref() {
            None | Some("MD5") => Algorithm::Md5,
            Some("SHA-256") => Algorithm::Sha256,
            Some(other) => anyhow::bail!("unknown algorithm {other}"),
        };
        Ok(Self {
            realm: get("realm").context("challenge without realm")?,
            nonce: get("nonce").context("challenge without nonce")?,
            algorithm,
            qop: get("qop").is_some_and(|list| list.split(',').any(|one| one.trim() == "auth")),
            stale: get("stale").is_some_and(|text| text.eq_ignore_ascii_case("true")),
            opaque: get("opaque"),
        })
    }

    /// All challenges of a 401 or 407, in their order.
    ///
    /// # Errors
    /// When one is malformed or there is none.
    pub fn all(response: &crate::packet::Packet) -> Result<Vec<Self>> {
        let name = if response.status() == Some(407) { "Proxy-Authenticate" } else { "WWW-Authenticate" };
        let all: Vec<Self> = response.headers(name).map(Self::parse).collect::<Result<_>>()?;
        ensure!(!all.is_empty(), "no {name} in\n{response}");
        Ok(all)
    }
}

/// What a client puts into Authorization; every part can be made wrong.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// User name as given.
    pub user: String,
    /// Realm as given.
    pub realm: String,
    /// Nonce as given.
    pub nonce: String,
    /// Digest URI.
    pub uri: String,
    /// Hash of user, realm and password.
    pub ha1: String,
    /// Hash function.
    pub algorithm: Algorithm,
    /// Nonce count, with a client nonce, where the server offered `auth`.
    pub count: Option<u32>,
    /// Client nonce.
    pub cnonce: String,
    /// Value the server wants back.
    pub opaque: Option<String>,
}

impl Credentials {
    /// The right answer to a challenge.
    #[must_use]
    pub fn new(challenge: &Challenge, user: &str, password: &str, uri: &str, count: u32) -> Self {
        let ha1 = challenge.algorithm.hash(&format!("{user}:{}:{password}", challenge.realm));
        Self {
            user: user.to_owned(),
            realm: challenge.realm.clone(),
            nonce: challenge.nonce.clone(),
            uri: uri.to_owned(),
            ha1,
            algorithm: challenge.algorithm,
            count: challenge.qop.then_some(count),
            cnonce: "0a4f113b".to_owned(),
            opaque: challenge.opaque.clone(),
        }
    }

    /// The response for a method.
    #[must_use]
    pub fn response(&self, method: &str) -> String {
        let ha2 = self.algorithm.hash(&format!("{method}:{}", self.uri));
        let (ha1, nonce, cnonce) = (&self.ha1, &self.nonce, &self.cnonce);
        match self.count {
            Some(count) => self.algorithm.hash(&format!("{ha1}:{nonce}:{count:08x}:{cnonce}:auth:{ha2}")),
            None => self.algorithm.hash(&format!("{ha1}:{nonce}:{ha2}")),
        }
    }

    /// Header value for a method.
    #[must_use]
    pub fn header(&self, method: &str) -> String {
        let Self { user, realm, nonce, uri, cnonce, .. } = self;
        let response = self.response(method);
        let name = if self.algorithm == Algorithm::Md5 { "MD5" } else { "SHA-256" };
        let mut out = format!(
            "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\", algorithm={name}"
        );
        if let Some(count) = self.count {
            let _ = write!(out, ", qop=auth, nc={count:08x}, cnonce=\"{cnonce}\"");
        }
        if let Some(opaque) = &self.opaque {
            let _ = write!(out, ", opaque=\"{opaque}\"");
        }
        out
    }
}

/// Names and values of a comma list, quotes taken off.
fn split(text: &str) -> Vec<(String, String)> {
    let mut parts = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (at, octet) in text.bytes().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    let pair = |part: &str| {
        let (key, value) = part.split_once('=')?;
        Some((key.trim().to_owned(), value.trim().trim_matches('"').to_owned()))
    };
    parts.into_iter().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7616 §3.9.1, with its method GET.
    #[test]
    fn the_example_of_the_rfc() {
        let text = "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm=SHA-256, \
                    nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";
        let challenge = Challenge::parse(text).unwrap();
        let mut answer = Credentials::new(&challenge, "Mufasa", "Circle of Life", "/dir/index.html", 1);
        answer.cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ".to_owned();
        assert_eq!(answer.response("GET"), "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1");
    }
}
