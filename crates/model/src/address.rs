//! The canonical SIP address: who somebody is, compared octet for octet.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Longest user part, octets of the canonical form.
pub const MAX_USER: usize = 64;
/// Longest domain, octets (RFC 1035 §3.1).
pub const MAX_DOMAIN: usize = 253;

/// A canonical address `user@domain`.
///
/// RFC 3261 §19.1.4 compares the user part with case; directories and people do not. So the canonical form is the
/// %-decoded user in lower case (Unicode, character by character) and the domain in lower case (ASCII; international
/// names in their `xn--` form). Two addresses are the same exactly when their canonical forms are equal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    text: String,
    at: usize,
}

/// Why something is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// No `@`, and no domain to complete it with.
    #[error("no domain: write it as user@domain")]
    NoDomain,
    /// The user part is unusable.
    #[error("user part: {0}")]
    User(&'static str),
    /// The domain is unusable.
    #[error("domain: {0}")]
    Domain(&'static str),
}

impl Address {
    /// From a user part as it stands in a SIP URI (with %-escapes) and a domain.
    ///
    /// # Errors
    /// Either part is empty, too long, or contains what an address must not.
    pub fn new(user: &str, domain: &str) -> Result<Self, AddressError> {
        let mut text = canonical_user(user)?;
        let domain = canonical_domain(domain)?;
        let at = text.len();
        text.push('@');
        text.push_str(&domain);
        Ok(Self { text, at })
    }

    /// From `user@domain`, `sip:user@domain` or `sips:user@domain`; a bare name is completed with `default_domain`.
    ///
    /// # Errors
    /// As [`Address::new`]; parameters, headers and ports belong to URIs and are refused.
    pub fn parse(input: &str, default_domain: Option<&str>) -> Result<Self, AddressError> {
        let rest = strip_scheme(input);
        match rest.rsplit_once('@') {
            Some((user, domain)) => Self::new(user, domain),
            None => Self::new(rest, default_domain.ok_or(AddressError::NoDomain)?),
        }
    }

    /// `user@domain`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The user part, without escapes.
    pub fn user(&self) -> &str {
        self.text.get(..self.at).unwrap_or_default()
    }

    /// The domain.
    pub fn domain(&self) -> &str {
        domain_of(&self.text)
    }

    /// The address as a SIP URI; octets that RFC 3261 §25.1 does not allow in a user part are escaped.
    pub fn uri(&self) -> String {
        let mut uri = String::with_capacity(self.text.len() + 8);
        uri.push_str("sip:");
        for octet in self.user().bytes() {
            if octet.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&octet) {
                uri.push(char::from(octet));
            } else {
                uri.push('%');
                uri.extend([octet >> 4, octet & 15].map(|nibble| char::from(hex_digit(nibble))));
            }
        }
        uri.push('@');
        uri.push_str(self.domain());
        uri
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(input: &str) -> Result<Self, AddressError> {
        Self::parse(input, None)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The domain of a canonical address, empty if it has none.
pub fn domain_of(canonical: &str) -> &str {
    canonical.rsplit_once('@').map_or("", |(_, domain)| domain)
}

/// The canonical form of a domain: lower case, without the final dot.
///
/// # Errors
/// Empty, longer than [`MAX_DOMAIN`], or not labels of `a-z`, `0-9`, `-` and `_`, each 1–63 long.
pub fn canonical_domain(domain: &str) -> Result<String, AddressError> {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    if domain.is_empty() {
        return Err(AddressError::Domain("is empty"));
    }
    if domain.len() > MAX_DOMAIN {
        return Err(AddressError::Domain("is longer than 253 octets"));
    }
    if !domain.is_ascii() {
        return Err(AddressError::Domain("has letters outside ASCII: write it in its xn-- form"));
    }
    if domain.contains([':', ';', '?']) {
        return Err(AddressError::Domain("has a port, parameters or headers: write the name alone"));
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_')
    };
    if !domain.split('.').all(label) {
        return Err(AddressError::Domain("is not a host name: labels of letters, digits and -, joined by dots"));
    }
    Ok(domain.to_ascii_lowercase())
}

fn canonical_user(user: &str) -> Result<String, AddressError> {
    let decoded = unescape(user)?;
    if decoded.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(AddressError::User("has spaces or control characters"));
    }
    if decoded.contains(['@', ':', '%', '<', '>', '"']) {
        return Err(AddressError::User("has one of @ : % < > \" in it"));
    }
    let canonical: String = decoded.chars().flat_map(char::to_lowercase).collect();
    match canonical.len() {
        0 => Err(AddressError::User("is empty")),
        1..=MAX_USER => Ok(canonical),
        _ => Err(AddressError::User("is longer than 64 octets")),
    }
}

fn strip_scheme(input: &str) -> &str {
    let after = |scheme: &str| {
        let head = input.get(..scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then(|| input.get(scheme.len()..)).flatten()
    };
    after("sip:").or_else(|| after("sips:")).unwrap_or(input)
}

fn unescape(user: &str) -> Result<String, AddressError> {
    if !user.contains('%') {
        return Ok(user.to_owned());
    }
    let mut octets = Vec::with_capacity(user.len());
    let mut rest = user.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'%' {
            octets.push(octet);
            continue;
        }
        let digits = rest.next().and_then(hex_value).zip(rest.next().and_then(hex_value));
        let (high, low) = digits.ok_or(AddressError::User("has a % without two hexadecimal digits"))?;
        octets.push(high << 4 | low);
    }
    String::from_utf8(octets).map_err(|_| AddressError::User("is not UTF-8 after decoding"))
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

const fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(input: &str) -> Result<String, AddressError> {
        Address::parse(input, Some("Home.Example")).map(|address| address.to_string())
    }

    #[test]
    fn forms_that_mean_the_same() {
        for input in ["alice@example.com", "SIP:Alice@Example.COM", "sips:%41lice@example.com.", "ALICE@EXAMPLE.com"] {
            assert_eq!(canonical(input).unwrap(), "alice@example.com", "{input}");
        }
        assert_eq!(canonical("Bob").unwrap(), "bob@home.example");
        assert_eq!(canonical("sip:Bob").unwrap(), "bob@home.example");
        assert_eq!(canonical("ÄRGER@example.com").unwrap(), "ärger@example.com");
        assert_eq!("bob".parse::<Address>(), Err(AddressError::NoDomain));
    }

    #[test]
    fn parts_and_uri() {
        let address = Address::new("o'brien+%c3%84", "example.com").unwrap();
        assert_eq!((address.user(), address.domain()), ("o'brien+ä", "example.com"));
        assert_eq!(address.uri(), "sip:o'brien+%C3%A4@example.com");
        assert_eq!(address.uri().parse(), Ok(address));
    }

    #[test]
    fn refused() {
        let long = "a".repeat(65);
        let users =
            ["", " ", "a b", "a\0", "a%00", "a%", "a%4", "a%zz", "a%40b", "a@b", "a:b", "a%2541", "%ff", "<a>", &long];
        for user in users {
            assert!(matches!(Address::new(user, "example.com"), Err(AddressError::User(_))), "{user:?}");
        }
        let long = format!("{}.com", "a".repeat(64));
        let longer = ["abcdefgh"; 32].join(".");
        let domains =
            ["", ".", "a..b", "-a", "a-", "exa mple.com", "münchen.de", "a:5060", "a;lr", "[::1]", &long, &longer];
        for domain in domains {
            assert!(matches!(Address::new("alice", domain), Err(AddressError::Domain(_))), "{domain:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_canonical_is_a_fixed_point(input in "\\PC{0,80}", domain in "[a-zA-Z0-9.-]{0,20}") {
            if let Ok(address) = Address::parse(&input, Some(&domain)) {
                prop_assert!(address.user().len() <= MAX_USER && address.domain().len() <= MAX_DOMAIN);
                prop_assert_eq!(Address::parse(address.as_str(), None), Ok(address.clone()));
                prop_assert_eq!(Address::parse(&address.uri(), None), Ok(address));
            }
        }

        #[test]
        fn escapes_and_case_do_not_matter(user in "[a-zA-Z0-9._+'-]{1,30}", upper in any::<bool>()) {
            let escaped: String = user.bytes().map(|octet| format!("%{octet:02x}")).collect();
            let cased = if upper { user.to_uppercase() } else { user.to_lowercase() };
            let plain = Address::new(&user, "example.com");
            prop_assert_eq!(&Address::new(&escaped, "EXAMPLE.com"), &plain);
            prop_assert_eq!(&Address::new(&cased, "example.com"), &plain);
        }
    }
}
