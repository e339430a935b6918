//! STUN as a keep-alive: Binding requests over UDP and their answers (RFC 5626 §4.4.2 and §8, RFC 8489), no more.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

/// What tells RFC 8489 from its predecessor.
const COOKIE: u32 = 0x2112_A442;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// Attributes from here on may be ignored by who does not know them.
const OPTIONAL: u16 = 0x8000;

/// A Binding request that only asks whether the path is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindingRequest {
    transaction: [u8; 12],
}

impl BindingRequest {
    /// Reads a datagram. `None`: it is something else, or has attributes that want to be understood (RFC 8489 §6.3.1),
    /// which no keep-alive has.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let (kind, rest) = datagram.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (cookie, rest) = rest.split_first_chunk()?;
        let (transaction, attributes) = rest.split_first_chunk()?;
        let whole = usize::from(u16::from_be_bytes(*length)) == attributes.len();
        let ours = u16::from_be_bytes(*kind) == BINDING_REQUEST && u32::from_be_bytes(*cookie) == COOKIE;
        (ours && whole && all_optional(attributes)?).then_some(Self { transaction: *transaction })
    }

    /// The answer: the address the request came from. 32 octets, for an IPv6 address 44: that may be more than twice the
    /// request, so it is for addresses whose owner is known.
    pub fn answer(&self, source: SocketAddr) -> Bytes {
        let mut address = match source.ip().to_canonical() {
            IpAddr::V4(ip) => [&[0, 1, 0, 0], ip.octets().as_slice()].concat(),
            IpAddr::V6(ip) => [&[0, 2, 0, 0], ip.octets().as_slice()].concat(),
        };
        let cookie = COOKIE.to_be_bytes();
        // The port is hidden by the head of the cookie, the address by cookie and transaction.
        let mask = [&cookie[..2], &cookie, &self.transaction].concat();
        for (octet, plain) in address.iter_mut().skip(2).zip(source.port().to_be_bytes()) {
            *octet = plain;
        }
        for (octet, mask) in address.iter_mut().skip(2).zip(mask) {
            *octet ^= mask;
        }
        let size = |octets: usize| u16::try_from(octets).unwrap_or(u16::MAX).to_be_bytes();
        let attribute = [&XOR_MAPPED_ADDRESS.to_be_bytes()[..], &size(address.len()), &address].concat();
        let head = [&BINDING_SUCCESS.to_be_bytes()[..], &size(attribute.len()), &cookie, &self.transaction].concat();
        [head, attribute].concat().into()
    }
}

/// Whether every attribute may be ignored; `None` where they are cut short.
fn all_optional(mut attributes: &[u8]) -> Option<bool> {
    while !attributes.is_empty() {
        let (kind, rest) = attributes.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        if u16::from_be_bytes(*kind) < OPTIONAL {
            return Some(false);
        }
        let padded = usize::from(u16::from_be_bytes(*length)).next_multiple_of(4);
        attributes = rest.get(padded..)?;
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Transaction of the samples in RFC 5769.
    const TRANSACTION: [u8; 12] = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

    fn request(attributes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(attributes.len()).unwrap().to_be_bytes();
        [&[0, 1][..], &length, &[0x21, 0x12, 0xa4, 0x42], &TRANSACTION, attributes].concat()
    }

    fn answer(source: &str) -> Bytes {
        BindingRequest::parse(&request(&[])).unwrap().answer(source.parse().unwrap())
    }

    #[test]
    fn the_address_is_hidden_as_in_the_samples_of_rfc_5769() {
        let v4 = answer("192.0.2.1:32853");
        assert_eq!(v4[..4], [1, 1, 0, 12]);
        assert_eq!(v4[8..20], TRANSACTION);
        assert_eq!(v4[20..], [0, 0x20, 0, 8, 0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
        assert_eq!(answer("[::ffff:192.0.2.1]:32853"), v4, "as seen by a socket of both families");
        let v6 = answer("[2001:db8:1234:5678:11:2233:4455:6677]:32853");
        let hidden = 0x0113_a9fa_a5d3_f179_bc25_f4b5_bed2_b9d9_u128.to_be_bytes();
        assert_eq!(v6[20..28], [0, 0x20, 0, 20, 0, 2, 0xa1, 0x47]);
        assert_eq!(v6[28..], hidden);
        assert_eq!((v4.len(), v6.len()), (32, 44));
    }

    #[test]
    fn only_plain_requests_with_the_cookie_are_heard() {
        assert!(BindingRequest::parse(&request(&[])).is_some());
        let software = [0x80, 0x22, 0, 3, b'a', b'b', b'c', 0];
        assert!(BindingRequest::parse(&request(&software)).is_some(), "what may be ignored is");
        let change_request = [0, 3, 0, 4, 0, 0, 0, 6];
        assert_eq!(BindingRequest::parse(&request(&change_request)), None, "no tool to find out about NATs");
        assert_eq!(BindingRequest::parse(&request(&software[..6])), None, "cut short");
        let whole = request(&[]);
        for length in 0..whole.len() {
            assert_eq!(BindingRequest::parse(&whole[..length]), None, "{length} octets");
        }
        for (position, octet) in [(0, 1), (1, 0x11), (3, 4), (4, 0)] {
            let mut other = whole.clone();
            other[position] = octet;
            assert_eq!(BindingRequest::parse(&other), None, "octet {position}");
        }
        assert_eq!(BindingRequest::parse(&answer("192.0.2.1:1")), None, "an answer is no request");
    }
}
