//! The Via header (RFC 3261 §20.42), with `rport` of RFC 3581.

use crate::chars::{is_token, split_at, split_once, trim, trim_start};
use crate::host::host_and_port;
use crate::params::Params;
use crate::values::word;

/// One Via value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Via<'a> {
    /// The transport as written, e.g. `UDP`; unknown ones are legal.
    pub transport: &'a str,
    /// The host of the sent-by; an IPv6 address keeps its brackets.
    pub host: &'a str,
    /// The port of the sent-by, if written.
    pub port: Option<u16>,
    /// All parameters.
    pub params: Params<'a>,
    sent_by: &'a str,
}

/// The `rport` parameter of a Via.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rport {
    /// Not there: answers go to the port of the sent-by.
    Absent,
    /// There without a value: the sender asks for it to be filled (RFC 3581 §3).
    Empty,
    /// Filled by the element that received the request.
    Port(u16),
}

impl<'a> Via<'a> {
    /// Reads one Via value; white space and folding may stand around every separator.
    ///
    /// # Errors
    /// Names what is wrong: protocol, sent-by or a parameter.
    pub fn parse(text: &'a str) -> Result<Self, &'static str> {
        let (transport, rest) = word(trim_start(after_protocol(text).ok_or(PROTOCOL)?));
        if !is_token(transport.as_bytes()) {
            return Err(PROTOCOL);
        }
        let (sent_by, params) = split_at(rest, b';');
        let sent_by = trim(sent_by);
        let (host, port) = host_and_port(sent_by)?;
        Ok(Self { transport, host, port, params: Params::parse(params)?, sent_by })
    }

    /// The `branch` parameter; RFC 2543 clients send none.
    pub fn branch(&self) -> Option<&'a str> {
        self.params.get("branch").flatten()
    }

    /// The `rport` parameter; a value that is no port counts as a request to fill it.
    pub fn rport(&self) -> Rport {
        match self.params.get("rport") {
            None => Rport::Absent,
            Some(value) => value.and_then(|port| port.parse().ok()).map_or(Rport::Empty, Rport::Port),
        }
    }

    /// The `received` parameter without the brackets that some put around an IPv6 address (RFC 5118 §4.5).
    pub fn received(&self) -> Option<&'a str> {
        let value = self.params.get("received").flatten()?;
        Some(value.strip_prefix('[').and_then(|value| value.strip_suffix(']')).unwrap_or(value))
    }

    /// Host and port as written.
    pub fn sent_by(&self) -> &'a str {
        self.sent_by
    }
}

const PROTOCOL: &str = "the protocol must be SIP/2.0/transport";

/// What follows the name and version of the protocol, which may have white space around their slashes and be others than ours.
fn after_protocol(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix("SIP/2.0/") {
        return Some(rest);
    }
    let (name, rest) = split_once(text, b'/')?;
    let (version, rest) = split_once(rest, b'/')?;
    (is_token(trim(name).as_bytes()) && is_token(trim(version).as_bytes())).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_white_space_and_folding_everywhere() {
        let via =
            Via::parse("SIP  / 2.0\r\n /TCP     spindle.example.com : 5070  ;\r\n  branch  =   z9hG4bK9ikj8 ; rport")
                .unwrap();
        assert_eq!((via.transport, via.host, via.port), ("TCP", "spindle.example.com", Some(5070)));
        assert_eq!((via.branch(), via.rport(), via.received()), (Some("z9hG4bK9ikj8"), Rport::Empty, None));
        assert_eq!(via.sent_by(), "spindle.example.com : 5070");
    }

    #[test]
    fn reads_ipv6_and_what_a_server_filled_in() {
        let via = Via::parse("SIP/2.0/UDP [2001:db8::9:1]:6050;received=[2001:db8::9:255];rport=33;branch=z9").unwrap();
        assert_eq!((via.host, via.port, via.sent_by()), ("[2001:db8::9:1]", Some(6050), "[2001:db8::9:1]:6050"));
        assert_eq!((via.received(), via.rport()), (Some("2001:db8::9:255"), Rport::Port(33)));
        assert_eq!(Via::parse("SIP/2.0/WS x.invalid;received=2001:db8::1").unwrap().received(), Some("2001:db8::1"));
    }

    #[test]
    fn refuses_what_breaks_the_grammar() {
        for text in [
            "",
            "SIP/2.0",
            "SIP/2.0/UDP",
            "SIP/2.0/UDP ;branch=1",
            "SIP/2.0/UDP a;;",
            "SIP//UDP a",
            "SIP/2.0/UDP a b",
            "SIP/2.0/UDP 2001:db8::1",
        ] {
            assert!(Via::parse(text).is_err(), "{text}");
        }
    }
}
