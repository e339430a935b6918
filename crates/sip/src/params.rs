//! Parameters after a header value or inside a URI: `;name=value` with quotes respected.

use std::borrow::Cow;

use memchr::memchr2;

use crate::chars::{is_token, is_value_char, trim};
use crate::values::unquote;

/// One parameter as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param<'a> {
    /// The name; to be compared without regard to case.
    pub name: &'a str,
    /// What follows the `=`, quotes kept; `None` without `=`.
    pub value: Option<&'a str>,
}

impl<'a> Param<'a> {
    /// The value without quotes, escapes and folding; empty if there is none.
    pub fn text(&self) -> Cow<'a, str> {
        unquote(self.value.unwrap_or_default())
    }
}

/// A list of parameters that has been checked once, so that reading it cannot fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Params<'a> {
    /// From the first `;` on, or empty.
    text: &'a str,
}

impl<'a> Params<'a> {
    /// Checks a list of header parameters: empty, or beginning with its first `;`.
    ///
    /// # Errors
    /// Names what is wrong: an empty parameter, a name that is no token, a value with a separator in it, an unclosed quote.
    pub fn parse(text: &'a str) -> Result<Self, &'static str> {
        let text = trim(text);
        let mut rest = text;
        while let Some(after) = rest.strip_prefix(';') {
            let param;
            (param, rest) = take(after);
            check(&param)?;
        }
        if rest.is_empty() { Ok(Self { text }) } else { Err("a parameter must follow a semicolon") }
    }

    /// Parameters that the caller has checked by a grammar without quotes and white space.
    pub(crate) fn unchecked(text: &'a str) -> Self {
        Self { text }
    }

    /// The parameters in order.
    pub fn iter(&self) -> impl Iterator<Item = Param<'a>> + use<'a> {
        let mut rest = self.text;
        std::iter::from_fn(move || {
            let param;
            (param, rest) = take(rest.strip_prefix(';')?);
            Some(param)
        })
    }

    /// The first parameter of that name: absent, without a value, or with its value as written.
    pub fn get(&self, name: &str) -> Option<Option<&'a str>> {
        self.iter().find(|param| param.name.eq_ignore_ascii_case(name)).map(|param| param.value)
    }

    /// The parameters as written, from the first `;` on; empty if there are none.
    pub fn as_str(&self) -> &'a str {
        self.text
    }
}

/// The parameter that `text` begins with, unchecked, and the rest from its semicolon on. An unclosed quote runs to the end and fails the
/// check there.
fn take(text: &str) -> (Param<'_>, &str) {
    let octets = text.as_bytes();
    let mut end = octets.iter().position(|octet| matches!(octet, b';' | b'=')).unwrap_or(octets.len());
    let name = trim(text.get(..end).unwrap_or_default());
    if octets.get(end) != Some(&b'=') {
        return (Param { name, value: None }, text.get(end..).unwrap_or_default());
    }
    let begin = end + 1;
    end = semicolon(octets, begin);
    let value = trim(text.get(begin..end).unwrap_or_default());
    (Param { name, value: Some(value) }, text.get(end..).unwrap_or_default())
}

/// Where the first semicolon from `from` on stands outside quotes, or the length.
fn semicolon(octets: &[u8], mut from: usize) -> usize {
    while let Some(octet) = octets.get(from) {
        match octet {
            b';' => return from,
            b'"' => match octets.get(from + 1..).and_then(closing_quote) {
                Some(closing) => from += closing + 2,
                None => return octets.len(),
            },
            _ => from += 1,
        }
    }
    octets.len()
}

fn check(param: &Param<'_>) -> Result<(), &'static str> {
    if !is_token(param.name.as_bytes()) {
        return Err("the name of a parameter must be a token");
    }
    match param.value.map(str::as_bytes) {
        Some([b'"', rest @ ..]) => check_quoted(rest),
        Some(value) if !value.iter().copied().all(is_value_char) => {
            Err("the value of a parameter must be a token, a host or a quoted string")
        }
        _ => Ok(()),
    }
}

/// `rest` follows an opening quote: the closing one must be its last octet.
fn check_quoted(rest: &[u8]) -> Result<(), &'static str> {
    match closing_quote(rest) {
        Some(end) if end + 1 == rest.len() => Ok(()),
        Some(_) => Err("text after the closing quote of a parameter"),
        None => Err("a quote is not closed"),
    }
}

/// Where the quote closes that was opened just before `rest`.
pub(crate) fn closing_quote(rest: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + memchr2(b'"', b'\\', rest.get(from..)?)?;
        if rest.get(at) == Some(&b'"') {
            return Some(at);
        }
        from = at + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_values_and_quotes() {
        let params = Params::parse(r#" ; a ; b = c;+sip.instance="<urn:uuid:1;2>" ;d="x\";y""#).unwrap();
        let read: Vec<_> = params.iter().map(|param| (param.name, param.text().into_owned())).collect();
        let expected = [("a", ""), ("b", "c"), ("+sip.instance", "<urn:uuid:1;2>"), ("d", "x\";y")];
        assert_eq!(read, expected.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(params.get("A"), Some(None));
        assert_eq!(params.get("B"), Some(Some("c")));
        assert_eq!(params.get("e"), None);
    }

    #[test]
    fn refuses_what_breaks_the_grammar() {
        for text in [";", ";;a", ";a;", "a", ";a=\"b", ";a=b c", ";a b=c", ";=b", ";a=\"b\"c", ";a=b,c", ";a=<b>"] {
            assert!(Params::parse(text).is_err(), "{text}");
        }
        assert_eq!(Params::parse("").unwrap().iter().count(), 0);
        assert_eq!(Params::parse(" \r\n ").unwrap().iter().count(), 0);
    }

    #[test]
    fn a_quote_may_end_in_an_escaped_backslash() {
        assert_eq!(Params::parse(r#";a="\\";b"#).unwrap().get("b"), Some(None));
        assert!(Params::parse(r#";a="\""#).is_err());
    }
}
