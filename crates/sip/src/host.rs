//! Hosts and ports as they stand in URIs and Via.

use std::net::Ipv6Addr;

use crate::chars::{is_host_char, trim_end, trim_start};
use crate::values::number;

/// Splits `host[:port]` after checking both; the host keeps its brackets.
///
/// # Errors
/// Names what is wrong: an empty or malformed host, an IPv6 address outside brackets, a port that is no number up to 65535.
pub(crate) fn host_and_port(text: &str) -> Result<(&str, Option<u16>), &'static str> {
    let end = match text.strip_prefix('[') {
        Some(inner) => 2 + inner.find(']').ok_or("the bracket of an IPv6 address is not closed")?,
        None => memchr::memchr(b':', text.as_bytes()).unwrap_or(text.len()),
    };
    let (host, port) = text.split_at_checked(end).ok_or("a malformed host")?;
    let host = trim_end(host);
    if !is_host(host) {
        return Err("a malformed host");
    }
    let port = trim_start(port);
    if port.is_empty() {
        return Ok((host, None));
    }
    let digits = trim_start(port.strip_prefix(':').ok_or("text after the host")?);
    let port = number(digits.as_bytes(), u32::from(u16::MAX)).and_then(|port| u16::try_from(port).ok());
    Ok((host, Some(port.ok_or("a port must be a number up to 65535")?)))
}

fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[') {
        return inner.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let mut before = b'.';
    for octet in name.bytes() {
        // A label is not empty and does not begin with a hyphen.
        if !is_host_char(octet) || (before == b'.' && matches!(octet, b'.' | b'-')) {
            return false;
        }
        before = octet;
    }
    before != b'.'
}

/// Appends `host` in the one form by which equal hosts are equal text: lower case, IPv6 addresses as RFC 5952 writes them.
pub(crate) fn push_canonical_host(out: &mut String, host: &str) {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match address.and_then(|address| address.parse::<Ipv6Addr>().ok()) {
        Some(address) => {
            out.push('[');
            out.push_str(&address.to_string());
            out.push(']');
        }
        None => out.extend(host.chars().map(|character| character.to_ascii_lowercase())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        assert_eq!(host_and_port("a.example:5060"), Ok(("a.example", Some(5060))));
        assert_eq!(host_and_port("a.example : 5060"), Ok(("a.example", Some(5060))));
        assert_eq!(host_and_port("[2001:db8::1]:1"), Ok(("[2001:db8::1]", Some(1))));
        assert_eq!(host_and_port("[::ffff:192.0.2.1]"), Ok(("[::ffff:192.0.2.1]", None)));
        assert_eq!(host_and_port("x_1.invalid"), Ok(("x_1.invalid", None)));
        assert_eq!(host_and_port("example.com."), Ok(("example.com.", None)));
        for text in [
            "",
            ":1",
            "a:",
            "a:+1",
            "a:65536",
            "2001:db8::1",
            "[::1",
            "[1]",
            "[2001:db8:::1]",
            "a..b",
            "-a",
            ".a",
            "a b",
            "[::1]x",
        ] {
            assert!(host_and_port(text).is_err(), "{text}");
        }
    }
}
