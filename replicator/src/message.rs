//! Messages of LDAP (RFC 4511): what we ask, written; what is answered, read. No I/O.

use crate::ber::{self, BOOLEAN, ENUMERATED, INTEGER, Malformed, OCTETS, Reader, SEQUENCE, SET};
use crate::entry::Entry;
use crate::fault::LdapResult;

/// Control that asks for results in pages (RFC 2696).
const PAGED: &[u8] = b"1.2.840.113556.1.4.319";
/// Extended operation that starts TLS (RFC 4511 §4.14).
const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";

/// How much of the tree below the base is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The base alone.
    Base = 0,
    /// The base and everything below it.
    Subtree = 2,
}

/// A search, ready to be sent page by page.
#[derive(Clone, Debug)]
pub struct Search {
    /// Distinguished name where it begins.
    pub base: String,
    /// How deep it goes.
    pub scope: Scope,
    /// Filter as [`crate::filter::compile`] makes it.
    pub filter: Vec<u8>,
    /// Attributes wanted.
    pub attributes: Vec<String>,
    /// Entries wanted at once.
    pub page_size: u32,
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum Request<'a> {
    /// TLS, before anything else.
    StartTls,
    /// Who we are: name and password.
    Bind(&'a str, &'a [u8]),
    /// A page of a search; the cookie is that of the page before, empty for the first.
    Search(&'a Search, &'a [u8]),
    /// Goodbye.
    Unbind,
}

impl Request<'_> {
    /// The message with this number.
    pub fn encode(&self, id: u32) -> Vec<u8> {
        let mut out = Vec::new();
        ber::wrap(&mut out, SEQUENCE, |out| {
            ber::put_number(out, INTEGER, id);
            match self {
                Request::StartTls => ber::wrap(out, 0x77, |out| ber::put(out, 0x80, START_TLS)),
                Request::Bind(name, password) => ber::wrap(out, 0x60, |out| {
                    ber::put_number(out, INTEGER, 3);
                    ber::put(out, OCTETS, name.as_bytes());
                    ber::put(out, 0x80, password);
                }),
                Request::Search(search, cookie) => {
                    ber::wrap(out, 0x63, |out| search.encode(out));
                    ber::wrap(out, 0xa0, |out| paged(out, search.page_size, cookie));
                }
                Request::Unbind => ber::put(out, 0x42, &[]),
            }
        });
        out
    }
}

impl Search {
    fn encode(&self, out: &mut Vec<u8>) {
        ber::put(out, OCTETS, self.base.as_bytes());
        ber::put_number(out, ENUMERATED, self.scope as u32);
        // Aliases are never followed; no limits of ours; values are wanted, not only names.
        ber::put_number(out, ENUMERATED, 0);
        ber::put_number(out, INTEGER, 0);
        ber::put_number(out, INTEGER, 0);
        ber::put(out, BOOLEAN, &[0]);
        out.extend_from_slice(&self.filter);
        ber::wrap(out, SEQUENCE, |out| self.attributes.iter().for_each(|name| ber::put(out, OCTETS, name.as_bytes())));
    }
}

fn paged(out: &mut Vec<u8>, size: u32, cookie: &[u8]) {
    ber::wrap(out, SEQUENCE, |out| {
        ber::put(out, OCTETS, PAGED);
        let mut value = Vec::new();
        ber::wrap(&mut value, SEQUENCE, |out| {
            ber::put_number(out, INTEGER, size);
            ber::put(out, OCTETS, cookie);
        });
        ber::put(out, OCTETS, &value);
    });
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a bind.
    Bound(LdapResult),
    /// One entry of a search.
    Entry(Entry),
    /// A search goes on elsewhere, or something that nobody asked for: passed over.
    Other,
    /// The end of a page; the cookie of the next one, empty at the last.
    Done(LdapResult, Vec<u8>),
    /// To an extended operation, or, with message number 0, what the server says before it hangs up.
    Extended(LdapResult),
}

/// A message: its number and the answer in it. `octets`: exactly one message.
///
/// # Errors
/// The message is none of LDAP.
pub fn decode(octets: &[u8]) -> Result<(u32, Answer), Malformed> {
    let mut message = Reader::new(Reader::new(octets).expect(SEQUENCE)?);
    let id = message.number(INTEGER)?;
    let (tag, body) = message.any()?;
    let mut reader = Reader::new(body);
    let answer = match tag {
        0x61 => Answer::Bound(result(&mut reader)?),
        0x64 => Answer::Entry(entry(&mut reader)?),
        0x65 => Answer::Done(result(&mut reader)?, cookie(&mut message)?),
        0x78 => Answer::Extended(result(&mut reader)?),
        0x73 | 0x79 => Answer::Other,
        _ => return Err(Malformed("an answer is of no known kind")),
    };
    Ok((id, answer))
}

fn result(reader: &mut Reader<'_>) -> Result<LdapResult, Malformed> {
    let code = reader.number(ENUMERATED)?;
    let _matched = reader.expect(OCTETS)?;
    let diagnostic = String::from_utf8_lossy(reader.expect(OCTETS)?).into_owned();
    Ok(LdapResult { code, diagnostic })
}

fn entry(reader: &mut Reader<'_>) -> Result<Entry, Malformed> {
    let dn = String::from_utf8_lossy(reader.expect(OCTETS)?).into_owned();
    let mut entry = Entry { dn, attributes: Vec::new() };
    let mut attributes = Reader::new(reader.expect(SEQUENCE)?);
    while !attributes.is_empty() {
        let mut attribute = Reader::new(attributes.expect(SEQUENCE)?);
        let name = String::from_utf8_lossy(attribute.expect(OCTETS)?).into_owned();
        let mut set = Reader::new(attribute.expect(SET)?);
        let mut values = Vec::new();
        while !set.is_empty() {
            values.push(set.expect(OCTETS)?.to_vec());
        }
        entry.add(&name, values);
    }
    Ok(entry)
}

/// The cookie among the controls of an answer; empty where the server knows no pages.
fn cookie(message: &mut Reader<'_>) -> Result<Vec<u8>, Malformed> {
    if message.peek() != Some(0xa0) {
        return Ok(Vec::new());
    }
    let mut controls = Reader::new(message.expect(0xa0)?);
    while !controls.is_empty() {
        let mut control = Reader::new(controls.expect(SEQUENCE)?);
        if control.expect(OCTETS)? != PAGED {
            continue;
        }
        if control.peek() == Some(BOOLEAN) {
            control.expect(BOOLEAN)?;
        }
        let mut value = Reader::new(Reader::new(control.expect(OCTETS)?).expect(SEQUENCE)?);
        // An estimate of the whole, which not even its sign is sure of.
        value.expect(INTEGER)?;
        return Ok(value.expect(OCTETS)?.to_vec());
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_are_those_of_rfc_4511() {
        assert_eq!(Request::Unbind.encode(3), [0x30, 5, 2, 1, 3, 0x42, 0]);
        assert_eq!(Request::Bind("a", b"b").encode(1), b"\x30\x0e\x02\x01\x01\x60\x09\x02\x01\x03\x04\x01a\x80\x01b");
        let start = Request::StartTls.encode(1);
        assert_eq!(start[..9], [0x30, 0x1d, 2, 1, 1, 0x77, 0x18, 0x80, 0x16]);
        assert_eq!(&start[9..], START_TLS);
    }

    #[test]
    fn an_entry_with_an_attribute_without_values() {
        let mut octets = Vec::new();
        ber::wrap(&mut octets, SEQUENCE, |out| {
            ber::put_number(out, INTEGER, 7);
            ber::wrap(out, 0x64, |out| {
                ber::put(out, OCTETS, b"cn=\xff");
                ber::wrap(out, SEQUENCE, |out| {
                    for (name, values) in [("Mail", &[&b"x"[..], b"\0\xff"][..]), ("title", &[])] {
                        ber::wrap(out, SEQUENCE, |out| {
                            ber::put(out, OCTETS, name.as_bytes());
                            ber::wrap(out, SET, |out| values.iter().for_each(|value| ber::put(out, OCTETS, value)));
                        });
                    }
                });
            });
        });
        let Ok((7, Answer::Entry(entry))) = decode(&octets) else { panic!("{:?}", decode(&octets)) };
        assert_eq!((entry.dn.as_str(), entry.values("mail")), ("cn=\u{fffd}", vec![&b"\0\xff"[..], b"x"]));
        assert!(!entry.has("title"));
    }

    #[test]
    fn results_without_their_fields_are_refused() {
        for body in [&b""[..], b"\x0a\x01\x00", b"\x0a\x01\x00\x04\x00", b"\x04\x00\x04\x00\x04\x00"] {
            let mut octets = Vec::new();
            ber::wrap(&mut octets, SEQUENCE, |out| {
                ber::put_number(out, INTEGER, 1);
                ber::put(out, 0x65, body);
            });
            assert!(decode(&octets).is_err(), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn strange_octets_do_no_harm(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&octets);
            let mut framed = Vec::new();
            ber::wrap(&mut framed, SEQUENCE, |out| {
                ber::put_number(out, INTEGER, 1);
                out.extend_from_slice(&octets);
            });
            let _ = decode(&framed);
        }
    }
}
