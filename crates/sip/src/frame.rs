//! Cutting a stream of octets into messages and keep-alives, however the octets arrive.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr2;

use crate::chars::trim_octets;
use crate::header::HeaderName;
use crate::limits::Limits;
use crate::message::Message;
use crate::scan::TOO_LARGE;
use crate::values::number;

/// What came over a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Exactly one message, for [`Message::parse_framed`].
    Message(Bytes),
    /// CRLF CRLF between messages: a keep-alive that wants a CRLF as its answer (RFC 5626 §4.4.1).
    Ping,
    /// CRLF alone: the answer to a ping, or an empty line before a start line. The first half of a ping that arrives in two pieces also
    /// shows as this, since the answer to our own ping must not wait; its second half then shows as [`Frame::Ping`].
    Pong,
}

/// The stream cannot be cut any further; it must be closed, after an answer if one is possible.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the stream is broken: {what}")]
pub struct FrameError {
    /// 400 or 513 where an answer makes sense: `head` is there then.
    pub status: Option<u16>,
    /// What is wrong.
    pub what: &'static str,
    /// What was read of a request that can be answered.
    pub head: Option<Message>,
}

/// Cuts one stream. It remembers where it stopped, so that the work is linear in the octets however few arrive at a time, and it never
/// asks for memory: the buffer holds at most one message within the limits plus what was read beyond it.
#[derive(Debug)]
pub struct StreamFramer {
    limits: Limits,
    state: State,
    partial: bool,
    /// The last thing before this place was a CRLF that has been given out as a pong.
    half_ping: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Between,
    Head(Head),
    Body { total: usize },
    Broken,
}

/// Progress in a head; offsets from the start line.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    /// Where the search for the next line end goes on; all before it is read.
    searched: usize,
    /// Where the physical line begins that has no end yet.
    line: usize,
    /// Where the logical row begins that may still be continued.
    row: usize,
    /// Logical rows begun, the start line included.
    rows: usize,
    /// Where the Content-Length row begins, and where it ends once that is known.
    length: Option<(usize, Option<usize>)>,
    /// Whether a second Content-Length was seen.
    twice: bool,
}

type Broken = (u16, &'static str);
const BAD_REQUEST: u16 = 400;

impl StreamFramer {
    /// A framer for one connection.
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: State::Between, partial: false, half_ping: false }
    }

    /// Whether a message or keep-alive has begun and is not complete: the caller's deadline from first to last octet runs.
    pub fn has_partial(&self) -> bool {
        self.partial
    }

    /// Takes the next frame off the front of `buffer`; `None` if more octets are needed.
    ///
    /// # Errors
    /// The octets break the grammar or a limit. A stream is never resynchronised: every later call fails too.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let step = self.step(buffer);
        self.partial = matches!(step, Ok(None)) && !buffer.is_empty();
        step.map_err(|(status, what)| {
            let read = match std::mem::replace(&mut self.state, State::Broken) {
                State::Head(head) => head.searched.min(self.limits.message),
                State::Between | State::Body { .. } | State::Broken => 0,
            };
            let head = Message::head(Bytes::copy_from_slice(buffer.get(..read).unwrap_or_default()), &self.limits);
            FrameError { status: head.is_some().then_some(status), what, head }
        })
    }

    fn step(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, Broken> {
        loop {
            match &mut self.state {
                State::Between => match between(buffer, &mut self.half_ping)? {
                    Between::Frame(frame) => return Ok(Some(frame)),
                    Between::Wait => return Ok(None),
                    Between::Message => self.state = State::Head(Head::default()),
                },
                State::Head(head) => match head.advance(buffer, &self.limits)? {
                    Some(total) => self.state = State::Body { total },
                    None => return Ok(None),
                },
                State::Body { total } if buffer.len() < *total => return Ok(None),
                State::Body { total } => {
                    let message = buffer.split_to(*total).freeze();
                    self.state = State::Between;
                    return Ok(Some(Frame::Message(message)));
                }
                State::Broken => return Err((BAD_REQUEST, "broken before")),
            }
        }
    }
}

/// Whether a datagram holds nothing but line ends: a keep-alive, not a message.
pub fn is_keep_alive(datagram: &[u8]) -> bool {
    datagram.iter().all(|octet| matches!(octet, b'\r' | b'\n' | 0))
}

enum Between {
    Frame(Frame),
    Message,
    Wait,
}

fn between(buffer: &mut BytesMut, half_ping: &mut bool) -> Result<Between, Broken> {
    let frame = match buffer.as_ref() {
        [] | [b'\r'] => return Ok(Between::Wait),
        [b'\r', b'\n', ..] if *half_ping => {
            buffer.advance(2);
            Frame::Ping
        }
        [b'\r', b'\n', b'\r', b'\n', ..] => {
            buffer.advance(4);
            Frame::Ping
        }
        [b'\r', b'\n', ..] => {
            buffer.advance(2);
            *half_ping = true;
            return Ok(Between::Frame(Frame::Pong));
        }
        [b'\r', ..] => return Err((BAD_REQUEST, "CR without LF")),
        [b'\n', ..] => return Err((BAD_REQUEST, "LF without CR")),
        _ => {
            *half_ping = false;
            return Ok(Between::Message);
        }
    };
    *half_ping = false;
    Ok(Between::Frame(frame))
}

impl Head {
    /// Reads on; gives the octets of the whole message once the head is complete.
    fn advance(&mut self, buffer: &[u8], limits: &Limits) -> Result<Option<usize>, Broken> {
        loop {
            let Some(found) = buffer.get(self.searched..).and_then(|rest| memchr2(b'\r', b'\n', rest)) else {
                self.searched = buffer.len();
                self.check(buffer.len(), limits)?;
                return Ok(None);
            };
            let end = self.searched + found;
            self.searched = end;
            match buffer.get(end..) {
                Some([b'\r', b'\n', ..]) => {}
                Some([b'\r']) => {
                    self.check(end, limits)?;
                    return Ok(None);
                }
                Some([b'\r', ..]) => return Err((BAD_REQUEST, "CR without LF")),
                _ => return Err((BAD_REQUEST, "LF without CR")),
            }
            if end == self.line && self.rows > 0 {
                self.finish_length(end);
                self.searched = end + 2;
                return self.total(buffer, end + 2, limits).map(Some);
            }
            self.line_ended(buffer, end, limits)?;
            self.searched = end + 2;
            self.line = end + 2;
        }
    }

    /// A physical line ends at `end`: it continues the row before it or begins one.
    fn line_ended(&mut self, buffer: &[u8], end: usize, limits: &Limits) -> Result<(), Broken> {
        let text = buffer.get(self.line..end).unwrap_or_default();
        let continued = matches!(text.first(), Some(b' ' | b'\t'));
        if continued && self.rows < 2 {
            return Err((BAD_REQUEST, "the start line must not be folded"));
        }
        if !continued {
            self.finish_length(self.line);
            self.row = self.line;
            self.rows += 1;
            if self.rows > 1 && is_content_length(text) {
                self.twice |= self.length.is_some();
                self.length = self.length.or(Some((self.line, None)));
            }
        }
        self.check(end, limits)
    }

    fn finish_length(&mut self, end: usize) {
        if let Some((_, to @ None)) = &mut self.length {
            *to = Some(end);
        }
    }

    /// Refuses what is too large already, before its end is known.
    fn check(&self, end: usize, limits: &Limits) -> Result<(), Broken> {
        if end.saturating_sub(self.row) > limits.line {
            return Err((TOO_LARGE, "a header row is too long"));
        }
        if self.rows > limits.headers + 1 {
            return Err((TOO_LARGE, "too many header rows"));
        }
        if end > limits.message {
            return Err((TOO_LARGE, "the header rows are too large"));
        }
        Ok(())
    }

    /// The octets of the message whose body begins at `body`.
    fn total(&self, buffer: &[u8], body: usize, limits: &Limits) -> Result<usize, Broken> {
        if self.twice {
            return Err((BAD_REQUEST, "more than one Content-Length"));
        }
        let (from, to) = self.length.ok_or((BAD_REQUEST, "Content-Length is required on a stream"))?;
        let row = buffer.get(from..to.unwrap_or(body)).unwrap_or_default();
        let value = memchr::memchr(b':', row).and_then(|colon| row.get(colon + 1..)).unwrap_or_default();
        let digits = trim_octets(value);
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err((BAD_REQUEST, "Content-Length must be a number of digits only"));
        }
        let length = number(digits, u32::MAX)
            .and_then(|length| usize::try_from(length).ok())
            .filter(|length| *length <= limits.body);
        let total = length.and_then(|length| body.checked_add(length)).filter(|total| *total <= limits.message);
        total.ok_or((TOO_LARGE, "the message is too large"))
    }
}

fn is_content_length(line: &[u8]) -> bool {
    let name = memchr::memchr(b':', line).and_then(|colon| line.get(..colon)).unwrap_or_default();
    // A name that is not trimmed before it is compared would let `Content-Length :` hide a second message in the body.
    HeaderName::of(trim_octets(name)) == HeaderName::ContentLength
}
