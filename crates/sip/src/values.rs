//! Small pieces of header values: lists, folding, quotes, numbers, the Event header.

use std::borrow::Cow;

use memchr::{memchr, memchr2, memchr3};

use crate::chars::{is_lws, is_token, split_at, trim, trim_octets};
use crate::params::{Params, closing_quote};

/// The value of an Event header (RFC 6665 §8.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The event package with its templates, e.g. `presence` or `presence.winfo`.
    pub package: &'a str,
    /// All parameters, `id` among them.
    pub params: Params<'a>,
}

impl<'a> Event<'a> {
    /// Reads the value of one Event row.
    ///
    /// # Errors
    /// The package is no token, or a parameter is malformed.
    pub fn parse(value: &'a str) -> Result<Self, &'static str> {
        let (package, params) = split_at(value, b';');
        let package = trim(package);
        if !is_token(package.as_bytes()) {
            return Err("the event package must be a token");
        }
        Ok(Self { package, params: Params::parse(params)? })
    }

    /// The `id` parameter, which tells two subscriptions in one dialog apart.
    pub fn id(&self) -> Option<&'a str> {
        self.params.get("id").flatten()
    }
}

/// The members of a comma list in one row; commas inside quotes and angle brackets do not count. Members are trimmed and may be empty.
pub(crate) fn list_members(row: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(row);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = member_end(text);
        rest = text.get(end + 1..);
        Some(trim_octets(text.get(..end).unwrap_or(text)))
    })
}

/// Where the first member of a comma list ends: at its comma, or at the end of the row.
pub(crate) fn member_end(row: &[u8]) -> usize {
    let mut from = 0;
    while let Some(rest) = row.get(from..)
        && let Some(found) = memchr3(b',', b'"', b'<', rest)
    {
        let inner = rest.get(found + 1..).unwrap_or_default();
        let closing = match rest.get(found) {
            Some(b'"') => closing_quote(inner),
            Some(b'<') => memchr(b'>', inner),
            _ => return from + found,
        };
        match closing {
            Some(closing) => from += found + closing + 2,
            None => break,
        }
    }
    row.len()
}

/// `value` with every fold (RFC 3261 §7.3.1) made one space; `None` if it is not UTF-8.
pub fn unfold(value: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(value).ok()?;
    Some(unfold_text(text))
}

fn unfold_text(text: &str) -> Cow<'_, str> {
    if memchr2(b'\r', b'\n', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let mut unfolded = String::with_capacity(text.len());
    for line in text.split(['\r', '\n']) {
        let line = if unfolded.is_empty() { line } else { line.trim_start_matches([' ', '\t']) };
        if line.is_empty() {
            continue;
        }
        if !unfolded.is_empty() {
            unfolded.truncate(unfolded.trim_end_matches([' ', '\t']).len());
            unfolded.push(' ');
        }
        unfolded.push_str(line);
    }
    Cow::Owned(unfolded)
}

/// `text` without its outer quotes, escapes and folds resolved; text without quotes only unfolded.
pub(crate) fn unquote(text: &str) -> Cow<'_, str> {
    let Some(inner) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
        return unfold_text(text);
    };
    if !inner.contains('\\') {
        return unfold_text(inner);
    }
    let mut plain = String::with_capacity(inner.len());
    let mut escaped = false;
    for character in inner.chars() {
        if character == '\\' && !escaped {
            escaped = true;
        } else {
            plain.push(character);
            escaped = false;
        }
    }
    Cow::Owned(unfold_text(&plain).into_owned())
}

/// `1*DIGIT` up to `limit`; leading zeros are legal. `None` for anything else, signs and larger numbers included.
pub(crate) fn number(text: &[u8], limit: u32) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    let mut value = 0_u32;
    for digit in text {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u32::from(digit - b'0'))?;
    }
    (value <= limit).then_some(value)
}

/// `delta-seconds` where a larger number means "as long as you can": saturates instead of failing.
pub(crate) fn saturating_seconds(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    digits.then(|| number(text.as_bytes(), u32::MAX).unwrap_or(u32::MAX))
}

/// The first word of a value and the rest after white space.
pub(crate) fn word(text: &str) -> (&str, &str) {
    let end = text.bytes().position(is_lws).unwrap_or(text.len());
    let (word, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    (word, trim(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_inside_quotes_and_brackets_do_not_split() {
        let row = br#""a, b" <sip:c,d@e>;x="y,\",z" , <sip:f@g>,, h"#;
        let members: Vec<_> = list_members(row).map(|member| std::str::from_utf8(member).unwrap()).collect();
        assert_eq!(members, [r#""a, b" <sip:c,d@e>;x="y,\",z""#, "<sip:f@g>", "", "h"]);
    }

    #[test]
    fn folds_become_one_space() {
        assert_eq!(unfold(b"a \r\n\t b\r\n c").unwrap(), "a b c");
        assert_eq!(unfold(b"a  b").unwrap(), "a  b");
        assert_eq!(unfold(b"\xff"), None);
    }

    #[test]
    fn numbers_are_digits_within_the_limit() {
        assert_eq!(number(b"0068", 255), Some(68));
        assert_eq!(number(b"256", 255), None);
        assert_eq!(number(b"4294967296", u32::MAX), None);
        for text in [&b""[..], b"+1", b"-1", b"1 ", b"0x1"] {
            assert_eq!(number(text, u32::MAX), None);
        }
        assert_eq!(saturating_seconds("280297596632815"), Some(u32::MAX));
        assert_eq!(saturating_seconds("3600"), Some(3600));
        assert_eq!(saturating_seconds("soon"), None);
    }

    #[test]
    fn quotes_and_escapes_are_resolved() {
        assert_eq!(unquote(r#""J \"x\" \\""#), r#"J "x" \"#);
        assert_eq!(unquote("plain"), "plain");
    }

    #[test]
    fn an_event_has_a_package_and_perhaps_an_id() {
        let event = Event::parse("presence.winfo ; id=7").unwrap();
        assert_eq!((event.package, event.id()), ("presence.winfo", Some("7")));
        assert_eq!(Event::parse("presence").unwrap().id(), None);
        for text in ["", ";id=1", "a b", "presence;"] {
            assert!(Event::parse(text).is_err(), "{text}");
        }
    }
}
