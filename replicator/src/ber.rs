//! BER as LDAP uses it (RFC 4511 §5.1): definite lengths, tags of one octet. Never recursive, never longer than its input.

use thiserror::Error;

/// BOOLEAN.
pub const BOOLEAN: u8 = 0x01;
/// INTEGER.
pub const INTEGER: u8 = 0x02;
/// OCTET STRING.
pub const OCTETS: u8 = 0x04;
/// ENUMERATED.
pub const ENUMERATED: u8 = 0x0a;
/// SEQUENCE and SEQUENCE OF.
pub const SEQUENCE: u8 = 0x30;
/// SET OF.
pub const SET: u8 = 0x31;

/// Octets that are no BER, or not where they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Writes one element.
pub fn put(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    let length = body.len();
    match u8::try_from(length) {
        Ok(short) if short < 128 => out.push(short),
        _ => {
            let octets = length.to_be_bytes();
            let skip = octets.iter().take_while(|octet| **octet == 0).count();
            out.push(0x80 | u8::try_from(octets.len() - skip).unwrap_or_default());
            out.extend(octets.iter().skip(skip));
        }
    }
    out.extend_from_slice(body);
}

/// Writes one element whose body is written by `inner`.
pub fn wrap(out: &mut Vec<u8>, tag: u8, inner: impl FnOnce(&mut Vec<u8>)) {
    let mut body = Vec::new();
    inner(&mut body);
    put(out, tag, &body);
}

/// Writes a number that is not negative.
pub fn put_number(out: &mut Vec<u8>, tag: u8, number: u32) {
    let octets = number.to_be_bytes();
    let skip = octets.iter().take_while(|octet| **octet == 0).count().min(3);
    let mut body: Vec<u8> = octets.iter().skip(skip).copied().collect();
    if body.first().is_some_and(|first| first & 0x80 != 0) {
        body.insert(0, 0);
    }
    put(out, tag, &body);
}

/// Reads elements one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Over the body of an element, or over a whole message.
    pub const fn new(octets: &'a [u8]) -> Self {
        Self { rest: octets }
    }

    /// Whether nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Tag of the next element, if there is one.
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next element: tag and body.
    ///
    /// # Errors
    /// It is not whole, or of a form that LDAP does not use.
    pub fn any(&mut self) -> Result<(u8, &'a [u8]), Malformed> {
        let header = header(self.rest)?.ok_or(Malformed("an element is cut off"))?;
        let whole = header.whole().ok_or(Malformed("a length is out of bounds"))?;
        let element = self.rest.get(..whole).ok_or(Malformed("an element is longer than what holds it"))?;
        self.rest = self.rest.get(whole..).unwrap_or_default();
        Ok((header.tag, element.get(header.length..).unwrap_or_default()))
    }

    /// The body of the next element, which must have this tag.
    ///
    /// # Errors
    /// As [`Reader::any`], or it has another tag.
    pub fn expect(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        match self.any()? {
            (found, body) if found == tag => Ok(body),
            _ => Err(Malformed("an element stands where another belongs")),
        }
    }

    /// The next element, a number of this tag that is not negative and fits into 31 bits.
    ///
    /// # Errors
    /// As [`Reader::expect`], or it is no such number.
    pub fn number(&mut self, tag: u8) -> Result<u32, Malformed> {
        let body = self.expect(tag)?;
        let small = (1..=4).contains(&body.len()) && body.first().is_some_and(|first| first & 0x80 == 0);
        if !small {
            return Err(Malformed("a number is out of bounds"));
        }
        Ok(body.iter().fold(0, |number, octet| number << 8 | u32::from(*octet)))
    }
}

/// Tag and lengths of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Tag.
    pub tag: u8,
    /// Octets of the header itself.
    pub length: usize,
    /// Octets of the body.
    pub body: usize,
}

impl Header {
    /// Octets of header and body; `None`: more than can be.
    pub const fn whole(&self) -> Option<usize> {
        self.length.checked_add(self.body)
    }
}

/// The header at the start of these octets; `None`: more octets are needed.
///
/// # Errors
/// A tag of several octets, or a length that is indefinite or longer than four octets.
pub fn header(octets: &[u8]) -> Result<Option<Header>, Malformed> {
    let (Some(tag), Some(first)) = (octets.first().copied(), octets.get(1).copied()) else { return Ok(None) };
    if tag & 0x1f == 0x1f {
        return Err(Malformed("a tag is longer than one octet"));
    }
    if first < 0x80 {
        return Ok(Some(Header { tag, length: 2, body: usize::from(first) }));
    }
    let count = usize::from(first & 0x7f);
    if !(1..=4).contains(&count) {
        return Err(Malformed("a length is indefinite or out of bounds"));
    }
    let Some(digits) = octets.get(2..2 + count) else { return Ok(None) };
    let body = digits.iter().fold(0_usize, |length, octet| length << 8 | usize::from(*octet));
    Ok(Some(Header { tag, length: 2 + count, body }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_short_and_never_negative() {
        for (number, octets) in [
            (0, vec![2, 1, 0]),
            (127, vec![2, 1, 127]),
            (128, vec![2, 2, 0, 128]),
            (256, vec![2, 2, 1, 0]),
            (0x7fff_ffff, vec![2, 4, 0x7f, 0xff, 0xff, 0xff]),
        ] {
            let mut out = Vec::new();
            put_number(&mut out, INTEGER, number);
            assert_eq!(out, octets);
            assert_eq!(Reader::new(&out).number(INTEGER), Ok(number));
        }
        for bad in [&[2, 0][..], &[2, 1, 0x80], &[2, 5, 0, 0, 0, 0, 1], &[4, 1, 1]] {
            assert!(Reader::new(bad).number(INTEGER).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn lengths_that_ldap_does_not_use_are_refused() {
        for bad in [&[0x30, 0x80][..], &[0x30, 0x85, 0, 0, 0, 0, 1], &[0x1f, 0x81, 1], &[0x30, 0xff]] {
            assert!(header(bad).is_err(), "{bad:?}");
        }
        for short in [&[][..], &[0x30], &[0x30, 0x82], &[0x30, 0x82, 1]] {
            assert_eq!(header(short), Ok(None), "{short:?}");
        }
        assert!(Reader::new(&[4, 3, 1, 2]).any().is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(body in proptest::collection::vec(any::<u8>(), 0..70_000)) {
            let mut out = Vec::new();
            wrap(&mut out, SEQUENCE, |out| put(out, OCTETS, &body));
            let mut whole = Reader::new(&out);
            let mut inner = Reader::new(whole.expect(SEQUENCE).unwrap());
            prop_assert_eq!(inner.expect(OCTETS), Ok(&body[..]));
            prop_assert!(inner.is_empty() && whole.is_empty());
        }

        #[test]
        fn strange_octets_do_no_harm(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(&octets);
            while let Ok((_, body)) = reader.any() {
                prop_assert!(body.len() < octets.len());
                if reader.is_empty() { break; }
            }
        }
    }
}
