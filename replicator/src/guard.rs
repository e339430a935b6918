//! Stands between the LDAP crate and a server: what gets through is one whole, bounded, well-formed answer at a time.
//!
//! The crate panics on answers of another form than it expects, follows nested elements without a limit and keeps whatever
//! length is announced to it. So it talks to a socket of this process, and behind that sits this guard.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::ber::{self, BOOLEAN, ENUMERATED, INTEGER, Malformed, OCTETS, Reader, SEQUENCE, SET};
use crate::fault::LdapResult;

/// Control of results in pages (RFC 2696).
const PAGED: &[u8] = b"1.2.840.113556.1.4.319";
/// The end of a search's answers.
const SEARCH_DONE: u8 = 0x65;
/// Longest message of a server, octets.
const MAX_MESSAGE: usize = 8 << 20;
/// Most octets of entries in one page: the crate keeps what was not yet asked of it.
const MAX_PAGE: usize = 64 << 20;
/// Octets read at once.
const CHUNK: usize = 16 << 10;

/// Why the guard closed the connection; empty while it is open.
#[derive(Clone, Debug, Default)]
pub struct Verdict(Arc<OnceLock<String>>);

impl Verdict {
    /// The reason, once there is one.
    pub fn get(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }

    fn set(&self, reason: String) {
        // Only the first reason is the cause of what follows.
        let _ = self.0.set(reason);
    }
}

/// Passes requests to the server and good answers to the crate, until one side ends.
pub async fn pass(server: impl AsyncRead + tokio::io::AsyncWrite, client: UnixStream, verdict: Verdict) {
    let (from_server, mut to_server) = tokio::io::split(server);
    let (from_client, mut to_client) = client.into_split();
    // Nobody asks twice before there is an answer, so that the last question is the one that is open.
    let question = AtomicU8::new(0);
    let asked = async {
        let mut requests = Messages::new(from_client);
        let ended = loop {
            let request = match requests.any().await {
                Ok(request) => request,
                Err(error) => break error,
            };
            question.store(operation(request), Ordering::Relaxed);
            let sent = async {
                to_server.write_all(request).await?;
                to_server.flush().await
            };
            if let Err(error) = sent.await {
                break error;
            }
        };
        let _ = to_server.shutdown().await;
        Err(ended)
    };
    let answered = async {
        let mut answers = Messages::new(from_server);
        let mut page = 0;
        loop {
            let answer = answers.next().await?;
            let kind = operation(answer);
            if !fits(kind, question.load(Ordering::Relaxed)) {
                return Err(invalid("an answer to another question"));
            }
            page = if kind == SEARCH_DONE { 0 } else { page + answer.len() };
            if page > MAX_PAGE {
                return Err(invalid("a page is longer than 64 MiB"));
            }
            to_client.write_all(answer).await?;
        }
    };
    let ended: io::Result<()> = tokio::select! {
        ended = asked => ended,
        ended = answered => ended,
    };
    if let Err(error) = ended {
        verdict.set(reason(&error));
    }
}

/// Whether an answer of this kind belongs to a question of that kind: a server cannot make the crate meet what it does not
/// expect.
const fn fits(answer: u8, question: u8) -> bool {
    match question {
        0x60 => answer == 0x61,
        0x63 => matches!(answer, 0x64 | SEARCH_DONE | 0x73 | 0x79),
        0x77 => matches!(answer, 0x78 | 0x79),
        _ => false,
    }
}

/// Tag of the operation in a message; 0: there is none.
fn operation(message: &[u8]) -> u8 {
    let read = || -> Result<u8, Malformed> {
        let mut message = Reader::new(Reader::new(message).expect(SEQUENCE)?);
        message.any()?;
        Ok(message.peek().unwrap_or_default())
    };
    read().unwrap_or_default()
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::InvalidData => format!("it does not speak LDAP: {error}"),
        io::ErrorKind::ConnectionAborted => error.to_string(),
        _ => format!("the connection was lost: {}", crate::connection::plain(error)),
    }
}

/// Whole messages from a stream.
pub struct Messages<S> {
    io: S,
    /// What was read and not yet taken is `buffer[taken..filled]`.
    buffer: Vec<u8>,
    taken: usize,
    filled: usize,
}

impl<S: AsyncRead + Unpin> Messages<S> {
    /// Of a server that has not said anything yet.
    pub const fn new(io: S) -> Self {
        Self { io, buffer: Vec::new(), taken: 0, filled: 0 }
    }

    /// The next message, checked.
    ///
    /// # Errors
    /// `InvalidData`: it is no answer of LDAP. `ConnectionAborted`: the server says why it hangs up. Others: the stream's.
    pub async fn next(&mut self) -> io::Result<&[u8]> {
        let message = self.any().await?;
        match check(message) {
            Ok(None) => Ok(message),
            Ok(Some(farewell)) => {
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, format!("it hangs up ({farewell})")))
            }
            Err(malformed) => Err(invalid(malformed.0)),
        }
    }

    /// The next message, whatever is in it.
    ///
    /// # Errors
    /// `InvalidData`: it is none. Others: the stream's.
    pub async fn any(&mut self) -> io::Result<&[u8]> {
        self.buffer.copy_within(self.taken..self.filled, 0);
        (self.filled, self.taken) = (self.filled - self.taken, 0);
        self.taken = self.whole().await?;
        Ok(self.buffer.get(..self.taken).unwrap_or_default())
    }

    /// The stream again; `None`: something was read from it that was not taken.
    pub fn into_inner(self) -> Option<S> {
        (self.taken == self.filled).then_some(self.io)
    }

    /// Octets of the message at the start of the buffer, once it is there.
    async fn whole(&mut self) -> io::Result<usize> {
        loop {
            let there = self.buffer.get(..self.filled).unwrap_or_default();
            let header = ber::header(there).map_err(|malformed| invalid(malformed.0))?;
            let whole = match header {
                Some(header) if header.tag != SEQUENCE => return Err(invalid("a message begins with something else")),
                Some(header) => header.whole().filter(|whole| *whole <= MAX_MESSAGE),
                None => Some(0),
            };
            let Some(whole) = whole else { return Err(invalid("a message is longer than 8 MiB")) };
            if whole > 0 && whole <= self.filled {
                return Ok(whole);
            }
            self.buffer.resize(self.filled + CHUNK, 0);
            match self.io.read(self.buffer.get_mut(self.filled..).unwrap_or_default()).await? {
                0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side hung up")),
                read => self.filled += read,
            }
        }
    }
}

fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// Whether a message is an answer that the crate can take (RFC 4511 §4.2–§4.12); what a server says before it hangs up
/// (§4.4.1) it cannot.
///
/// # Errors
/// It is none.
pub fn check(octets: &[u8]) -> Result<Option<LdapResult>, Malformed> {
    let mut message = Reader::new(Reader::new(octets).expect(SEQUENCE)?);
    let id = message.number(INTEGER)?;
    let (tag, body) = message.any()?;
    let mut reader = Reader::new(body);
    let farewell = match tag {
        0x61 | 0x65 | 0x78 => Some(result(&mut reader)?),
        0x64 => entry(&mut reader).map(|()| None)?,
        0x73 => texts(&mut reader).map(|()| None)?,
        0x79 => optional(&mut reader).map(|()| None)?,
        _ => return Err(Malformed("an answer is of no known kind")),
    };
    if id == 0 {
        return farewell.filter(|_| tag == 0x78).map(Some).ok_or(Malformed("an answer to nothing that was asked"));
    }
    if tag == 0x78 || tag == 0x61 {
        optional(&mut reader)?;
    }
    if !message.is_empty() {
        controls(&mut message)?;
    }
    if message.is_empty() { Ok(None) } else { Err(Malformed("something stands behind an answer")) }
}

/// The common part of results; reads a result of StartTLS too.
///
/// # Errors
/// It is none.
pub fn result(reader: &mut Reader<'_>) -> Result<LdapResult, Malformed> {
    let code = reader.number(ENUMERATED)?;
    text(reader.expect(OCTETS)?)?;
    let diagnostic = text(reader.expect(OCTETS)?)?.to_owned();
    if reader.peek() == Some(0xa3) {
        texts(&mut Reader::new(reader.expect(0xa3)?))?;
    }
    Ok(LdapResult { code, diagnostic })
}

fn entry(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    reader.expect(OCTETS)?;
    let mut attributes = Reader::new(reader.expect(SEQUENCE)?);
    while !attributes.is_empty() {
        let mut attribute = Reader::new(attributes.expect(SEQUENCE)?);
        attribute.expect(OCTETS)?;
        texts_of(&mut Reader::new(attribute.expect(SET)?), |_| Ok(()))?;
        end(attribute)?;
    }
    end(*reader)
}

fn texts(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    texts_of(reader, |octets| text(octets).map(drop))
}

fn texts_of(reader: &mut Reader<'_>, good: impl Fn(&[u8]) -> Result<(), Malformed>) -> Result<(), Malformed> {
    while !reader.is_empty() {
        good(reader.expect(OCTETS)?)?;
    }
    Ok(())
}

/// What extended, bind and intermediate answers may end with: values with tags of their own.
fn optional(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    while !reader.is_empty() {
        match reader.any()? {
            (0x80, name) => text(name).map(drop)?,
            (0x81 | 0x87 | 0x8a | 0x8b, _) => {}
            _ => return Err(Malformed("an element stands where another belongs")),
        }
    }
    Ok(())
}

fn controls(message: &mut Reader<'_>) -> Result<(), Malformed> {
    let mut controls = Reader::new(message.expect(0xa0)?);
    while !controls.is_empty() {
        let mut control = Reader::new(controls.expect(SEQUENCE)?);
        let name = control.expect(OCTETS)?;
        text(name)?;
        if control.peek() == Some(BOOLEAN) && control.expect(BOOLEAN)?.len() != 1 {
            return Err(Malformed("a boolean is longer than one octet"));
        }
        let value = if control.is_empty() { None } else { Some(control.expect(OCTETS)?) };
        end(control)?;
        if name == PAGED {
            let mut value = Reader::new(Reader::new(value.unwrap_or_default()).expect(SEQUENCE)?);
            // An estimate of the whole, which not even its sign is sure of.
            value.expect(INTEGER)?;
            value.expect(OCTETS)?;
            end(value)?;
        }
    }
    Ok(())
}

fn text(octets: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(octets).map_err(|_| Malformed("a text is no UTF-8"))
}

fn end(reader: Reader<'_>) -> Result<(), Malformed> {
    if reader.is_empty() { Ok(()) } else { Err(Malformed("an element has more in it than it should")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(id: u32, tag: u8, body: &[u8]) -> Vec<u8> {
        let mut octets = Vec::new();
        ber::wrap(&mut octets, SEQUENCE, |out| {
            ber::put_number(out, INTEGER, id);
            ber::put(out, tag, body);
        });
        octets
    }

    #[test]
    fn results_without_their_fields_are_refused() {
        for body in [&b""[..], b"\x0a\x01\x00", b"\x0a\x01\x00\x04\x00", b"\x04\x00\x04\x00\x04\x00"] {
            assert!(check(&message(1, 0x65, body)).is_err(), "{body:?}");
        }
        assert_eq!(check(&message(1, 0x65, b"\x0a\x01\x00\x04\x00\x04\x00")), Ok(None));
    }

    #[test]
    fn what_is_nested_where_nothing_belongs_is_refused() {
        let mut nested = Vec::new();
        for _ in 0..1000 {
            let inner = std::mem::take(&mut nested);
            ber::put(&mut nested, SEQUENCE, &inner);
        }
        assert!(check(&message(1, 0x64, &nested)).is_err());
        assert!(check(&message(1, 0x79, &nested)).is_err());
    }

    #[test]
    fn a_server_says_why_it_hangs_up() {
        let farewell = check(&message(0, 0x78, b"\x0a\x01\x34\x04\x00\x04\x03end")).unwrap().unwrap();
        assert_eq!((farewell.code, farewell.diagnostic.as_str()), (52, "end"));
        assert!(check(&message(0, 0x65, b"\x0a\x01\x00\x04\x00\x04\x00")).is_err());
    }

    proptest! {
        #[test]
        fn strange_octets_do_no_harm(octets in proptest::collection::vec(any::<u8>(), 0..300), tag in any::<u8>()) {
            let _ = check(&octets);
            let _ = check(&message(1, tag, &octets));
        }
    }
}
