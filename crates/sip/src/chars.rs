//! Character classes of RFC 3261 §25.1 as one table.

const TOKEN: u8 = 1;
const USER: u8 = 2;
const USER_LENIENT: u8 = 4;
const PARAMETER: u8 = 8;
const HOST: u8 = 16;
const VALUE: u8 = 32;
const ADDRESS: u8 = 64;

/// `token` without the letters and digits.
const TOKEN_MARKS: &[u8] = b"-.!%*_+`'~";
/// `unreserved` and `user-unreserved` without the letters and digits.
const USER_MARKS: &[u8] = b"-_.!~*'()&=+$,;?/";
/// Not legal in a user part, but sent by telephones; harmless, since the canonical form escapes them.
const USER_TOLERATED: &[u8] = b"#[]^`{|}";
/// `param-unreserved` and `unreserved`, with the `=` and `,` that clients leave unescaped.
const PARAMETER_MARKS: &[u8] = b"-_.!~*'()[]/:&+$=,|^`{}#";
const HOST_MARKS: &[u8] = b"-._";

static CLASSES: [u8; 256] = classes();

#[allow(clippy::indexing_slicing, reason = "runs in the compiler, where an index out of bounds is an error")]
const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut octet = 0;
    while octet < 256 {
        if (octet as u8).is_ascii_alphanumeric() {
            table[octet] = TOKEN | USER | USER_LENIENT | PARAMETER | HOST;
        }
        if octet > 0x20 && !matches!(octet as u8, 0x7f | b'"' | b'<' | b'>') {
            table[octet] |= ADDRESS;
            if octet as u8 != b',' {
                table[octet] |= VALUE;
            }
        }
        octet += 1;
    }
    table = marked(table, TOKEN_MARKS, TOKEN);
    table = marked(table, USER_MARKS, USER | USER_LENIENT);
    table = marked(table, USER_TOLERATED, USER_LENIENT);
    table = marked(table, PARAMETER_MARKS, PARAMETER);
    marked(table, HOST_MARKS, HOST)
}

#[allow(clippy::indexing_slicing, reason = "runs in the compiler, where an index out of bounds is an error")]
const fn marked(mut table: [u8; 256], marks: &[u8], class: u8) -> [u8; 256] {
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] |= class;
        at += 1;
    }
    table
}

fn has(octet: u8, class: u8) -> bool {
    CLASSES.get(usize::from(octet)).is_some_and(|classes| classes & class != 0)
}

/// A character of `token`.
pub(crate) fn is_token_char(octet: u8) -> bool {
    has(octet, TOKEN)
}

/// A non-empty `token`.
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().copied().all(is_token_char)
}

/// A character that stands for itself in a canonical user part.
pub(crate) fn is_user_char(octet: u8) -> bool {
    has(octet, USER)
}

/// A character accepted unescaped in a user part or password.
pub(crate) fn is_lenient_user_char(octet: u8) -> bool {
    has(octet, USER_LENIENT)
}

/// A character accepted unescaped in a URI parameter.
pub(crate) fn is_parameter_char(octet: u8) -> bool {
    has(octet, PARAMETER)
}

/// A character of a host name; the underscore is not legal there, but common.
pub(crate) fn is_host_char(octet: u8) -> bool {
    has(octet, HOST)
}

/// An octet accepted in the value of a header parameter outside quotes.
pub(crate) fn is_value_char(octet: u8) -> bool {
    has(octet, VALUE)
}

/// An octet that can be carried between angle brackets.
pub(crate) fn is_address_char(octet: u8) -> bool {
    has(octet, ADDRESS)
}

/// Linear white space, the line ends of folding included.
pub(crate) fn is_lws(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t' | b'\r' | b'\n')
}

/// `text` without white space and folding at both ends.
pub(crate) fn trim(text: &str) -> &str {
    trim_end(trim_start(text))
}

/// `text` without white space and folding in front.
pub(crate) fn trim_start(text: &str) -> &str {
    let from = text.bytes().position(|octet| !is_lws(octet)).unwrap_or(text.len());
    text.get(from..).unwrap_or_default()
}

/// `text` without white space and folding behind.
pub(crate) fn trim_end(text: &str) -> &str {
    let to = text.bytes().rposition(|octet| !is_lws(octet)).map_or(0, |last| last + 1);
    text.get(..to).unwrap_or_default()
}

/// `text` before and after the first `separator`; both without it.
pub(crate) fn split_once(text: &str, separator: u8) -> Option<(&str, &str)> {
    let at = memchr::memchr(separator, text.as_bytes())?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// `text` before the first `separator`, and from it on; the latter is empty without one.
pub(crate) fn split_at(text: &str, separator: u8) -> (&str, &str) {
    let at = memchr::memchr(separator, text.as_bytes()).unwrap_or(text.len());
    text.split_at_checked(at).unwrap_or((text, ""))
}

/// `octets` without white space and folding at both ends.
pub(crate) fn trim_octets(mut octets: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = octets
        && is_lws(*first)
    {
        octets = rest;
    }
    while let [rest @ .., last] = octets
        && is_lws(*last)
    {
        octets = rest;
    }
    octets
}
