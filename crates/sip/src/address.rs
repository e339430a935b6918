//! `name-addr` and `addr-spec` values: From, To, Contact, Route and their kin (RFC 3261 §20.10, §25.1).

use std::borrow::Cow;

use memchr::memchr2;

use crate::chars::{is_address_char, is_lws, split_at, split_once, trim, trim_start};
use crate::params::{Params, closing_quote};
use crate::uri::{Uri, UriError};
use crate::values::{number, saturating_seconds, unquote};

/// One address with its display name and header parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// The display name as written, quotes kept; `None` if there is none.
    pub display: Option<&'a str>,
    /// The URI as written, without brackets.
    pub uri: &'a str,
    /// The parameters after the address.
    pub params: Params<'a>,
}

impl<'a> NameAddr<'a> {
    /// Reads one address; folding inside counts as white space.
    ///
    /// Without angle brackets everything after the first `;` is a header parameter, and a `?` or `,` is refused (RFC 3261 §20).
    ///
    /// # Errors
    /// Names what is wrong: unclosed quotes or brackets, an unquoted display name with separators, an address that is no URI at all.
    pub fn parse(text: &'a str) -> Result<Self, &'static str> {
        let text = trim(text);
        if let Some(rest) = text.strip_prefix('"') {
            let end = 1 + closing_quote(rest.as_bytes()).ok_or("the quote of the display name is not closed")?;
            let (display, rest) = text.split_at_checked(end + 1).ok_or("a malformed display name")?;
            let rest = trim_start(rest)
                .strip_prefix('<')
                .ok_or("an address in angle brackets must follow the display name")?;
            return Self::bracketed(Some(display), rest);
        }
        match split_once(text, b'<') {
            // A `<` after a `;` belongs to a parameter, not to the address.
            Some((display, rest)) if !display.as_bytes().contains(&b';') => {
                let display = trim(display);
                check_display(display)?;
                Self::bracketed((!display.is_empty()).then_some(display), rest)
            }
            _ => Self::bare(text),
        }
    }

    fn bracketed(display: Option<&'a str>, rest: &'a str) -> Result<Self, &'static str> {
        let (uri, params) = split_once(rest, b'>').ok_or("the angle bracket of the address is not closed")?;
        check_uri(uri)?;
        Ok(Self { display, uri, params: Params::parse(params)? })
    }

    fn bare(text: &'a str) -> Result<Self, &'static str> {
        let (uri, params) = split_at(text, b';');
        let uri = trim(uri);
        if memchr2(b'?', b',', uri.as_bytes()).is_some() {
            return Err("an address with ? or , must stand in angle brackets");
        }
        check_uri(uri)?;
        Ok(Self { display: None, uri, params: Params::parse(params)? })
    }

    /// The URI taken apart.
    ///
    /// # Errors
    /// The URI breaks the grammar of its scheme.
    pub fn uri(&self) -> Result<Uri<'a>, UriError> {
        Uri::parse(self.uri)
    }

    /// The display name without quotes and escapes.
    pub fn display_name(&self) -> Option<Cow<'a, str>> {
        self.display.map(unquote)
    }

    /// The `tag` parameter; an empty one counts as none.
    pub fn tag(&self) -> Option<&'a str> {
        self.params.get("tag").flatten().filter(|tag| !tag.is_empty())
    }

    /// The header parameter of that name: absent, without a value, or with its value as written.
    pub fn param(&self, name: &str) -> Option<Option<&'a str>> {
        self.params.get(name)
    }

    /// The `q` parameter in thousandths, 0 to 1000; `None` if absent or malformed.
    pub fn q(&self) -> Option<u16> {
        let text = self.params.get("q").flatten()?;
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let whole = number(whole.as_bytes(), 1)?;
        if fraction.len() > 3 || !fraction.bytes().all(|octet| octet.is_ascii_digit()) {
            return None;
        }
        let thousandths = fraction
            .bytes()
            .chain(std::iter::repeat(b'0'))
            .take(3)
            .fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
        u16::try_from(whole * 1000 + thousandths).ok().filter(|q| *q <= 1000)
    }

    /// The `expires` parameter in seconds; a number too large saturates, `None` if absent or no number (RFC 3261 §10.2.1.1).
    pub fn expires(&self) -> Option<u32> {
        saturating_seconds(self.params.get("expires").flatten()?)
    }
}

/// An unquoted display name should be tokens; accepted is all that cannot be taken for another part of the value.
fn check_display(display: &str) -> Result<(), &'static str> {
    let forbidden = |octet: u8| {
        matches!(octet, b',' | b';' | b'"' | b'<' | b'>' | b'\\') || octet.is_ascii_control() && !is_lws(octet)
    };
    if display.bytes().any(forbidden) { Err("a display name with separators must be quoted") } else { Ok(()) }
}

/// What every address must keep so that it can be carried between angle brackets; the grammar of the scheme is checked on use.
fn check_uri(uri: &str) -> Result<(), &'static str> {
    if !uri.bytes().all(is_address_char) {
        return Err("white space, quotes or brackets inside the address");
    }
    match split_once(uri, b':') {
        Some((scheme, rest)) if !scheme.is_empty() && !rest.is_empty() => Ok(()),
        _ => Err("the address must be a URI"),
    }
}

/// The Contact header of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contacts<'a> {
    /// No Contact row.
    None,
    /// `Contact: *` (RFC 3261 §10.2.2).
    Star,
    /// The addresses of all rows in order, at least one.
    List(Vec<NameAddr<'a>>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> NameAddr<'_> {
        NameAddr::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn reads_every_form() {
        let quoted = address("\"Bell, \\\"A\\\" <x>\"\r\n <sip:a@b;lr>;tag=1 ; q = 0.33");
        assert_eq!(quoted.display_name().unwrap(), "Bell, \"A\" <x>");
        assert_eq!((quoted.uri, quoted.tag(), quoted.q()), ("sip:a@b;lr", Some("1"), Some(330)));
        let tokens = address("token1~` token2 <sip:a@b>");
        assert_eq!(tokens.display, Some("token1~` token2"));
        let bare = address("sip:a@b ;tag=2;expires=60");
        assert_eq!((bare.uri, bare.tag(), bare.expires()), ("sip:a@b", Some("2"), Some(60)));
        let plain = address("<sip:a@b>");
        assert_eq!((plain.display, plain.tag(), plain.q(), plain.expires()), (None, None, None, None));
        let instance = address("sip:a@b;+sip.instance=\"<urn:uuid:1>\";reg-id=1");
        assert_eq!(instance.param("+SIP.instance"), Some(Some("\"<urn:uuid:1>\"")));
        assert_eq!(address("J\u{fc}rgen <sip:j@b>").display, Some("J\u{fc}rgen"));
    }

    #[test]
    fn refuses_what_cannot_be_told_apart() {
        let bad = [
            "",
            "<>",
            "\"open <sip:a@b>",
            "< sip:a@b >",
            "Bell, A <sip:a@b>",
            "sip:a@b?x=y",
            "<sip:a@b",
            "sip:a@b, sip:c@d",
            "\"a\" sip:a@b",
            "<sip:a@b>tag=1",
            "sip:a@b;",
            "<sip:a@b>;tag",
            "alice",
        ];
        for text in bad.iter().filter(|text| !text.ends_with(";tag")) {
            assert!(NameAddr::parse(text).is_err(), "{text}");
        }
        assert_eq!(address("<sip:a@b>;tag").tag(), None);
    }

    #[test]
    fn q_is_between_0_and_1() {
        for (text, q) in [
            ("1", Some(1000)),
            ("1.000", Some(1000)),
            ("0", Some(0)),
            ("0.", Some(0)),
            ("0.5", Some(500)),
            ("0.125", Some(125)),
        ] {
            assert_eq!(address(&format!("<sip:a@b>;q={text}")).q(), q, "{text}");
        }
        for text in ["1.001", "2", "0.1234", ".5", "-0.1", "0.x", "\"1\""] {
            assert_eq!(address(&format!("<sip:a@b>;q={text}")).q(), None, "{text}");
        }
    }

    #[test]
    fn expires_saturates() {
        assert_eq!(address("<sip:a@b>;expires=280297596632815").expires(), Some(u32::MAX));
        assert_eq!(address("<sip:a@b>;expires=\"x\"").expires(), None);
    }
}
