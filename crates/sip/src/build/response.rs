//! Answers to a request.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::{Body, CRLF, VERSION, push_number, push_row, push_value};
use crate::header::HeaderName;
use crate::message::Message;
use crate::params::Params;
use crate::scan::Row;
use crate::status::reason_phrase;
use crate::values::member_end;
use crate::via::{Rport, Via};

/// Writes an answer: Via, From, To, Call-ID and CSeq of the request as they stand there, then what is added.
#[derive(Debug)]
pub struct Response<'a> {
    request: &'a Message,
    status: u16,
    reason: Option<&'a str>,
    source: Option<SocketAddr>,
    to_tag: Option<&'a str>,
    rows: Vec<u8>,
    body: Body<'a>,
}

impl<'a> Response<'a> {
    /// Begins the answer to `request`, with the standard reason phrase of `status`. The request need not be valid: what it lacks is left out.
    pub fn to(request: &'a Message, status: u16) -> Self {
        Self { request, status, reason: None, source: None, to_tag: None, rows: Vec::new(), body: Body::default() }
    }

    /// Says something else than the standard reason phrase.
    #[must_use]
    pub fn reason(mut self, reason: &'a str) -> Self {
        self.reason = Some(reason);
        self
    }

    /// Where the request came from: fills `received` and `rport` of the top Via (RFC 3261 §18.2.1, RFC 3581 §4).
    #[must_use]
    pub fn source(mut self, source: SocketAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// The To tag to add; a tag in the request's To is kept instead.
    #[must_use]
    pub fn to_tag(mut self, tag: &'a str) -> Self {
        self.to_tag = Some(tag);
        self
    }

    /// Copies all rows of that name from the request: Record-Route, Timestamp.
    #[must_use]
    pub fn copy(mut self, name: HeaderName) -> Self {
        for row in self.request.row_table().iter().filter(|row| row.name == name) {
            push_copy(&mut self.rows, self.request, row);
        }
        self
    }

    /// Adds a row. Content-Length is left out here and always written by [`Response::build`].
    #[must_use]
    pub fn header(self, name: HeaderName, value: impl AsRef<str>) -> Self {
        self.raw_header(name.as_str(), value.as_ref().as_bytes())
    }

    /// Adds a row of any name; a name that is no token leaves the row out.
    #[must_use]
    pub fn raw_header(mut self, name: &str, value: &[u8]) -> Self {
        push_row(&mut self.rows, name, value);
        self
    }

    /// Sets the body and its Content-Type.
    #[must_use]
    pub fn body(mut self, content_type: &'a str, octets: &'a [u8]) -> Self {
        self.body = Body { content_type, octets };
        self
    }

    /// The finished answer with its Content-Length.
    pub fn build(self) -> Bytes {
        let reason = self.reason.unwrap_or_else(|| reason_phrase(self.status));
        let copied: usize = self.copied().map(|row| (row.all.to - row.all.from) as usize).sum();
        let tag = self.to_tag.unwrap_or_default();
        let size = 20 + reason.len() + copied + tag.len() + VIA_ADDITION + self.rows.len() + self.body.size();
        let mut out = Vec::with_capacity(size);
        out.extend_from_slice(VERSION);
        out.push(b' ');
        push_number(&mut out, usize::from(self.status));
        out.push(b' ');
        push_value(&mut out, reason.as_bytes());
        out.extend_from_slice(CRLF);
        let mut source = self.source;
        for row in self.copied() {
            match row.name {
                HeaderName::Via => push_via(&mut out, self.request, row, self.request.at(row.value), &mut source),
                HeaderName::To => self.push_to(&mut out, row),
                _ => push_copy(&mut out, self.request, row),
            }
        }
        out.extend_from_slice(&self.rows);
        self.body.push(&mut out);
        Bytes::from(out)
    }

    /// The rows an answer takes over: every Via, the first of the others.
    fn copied(&self) -> impl Iterator<Item = &'a Row> {
        let mut taken = [false; TAKEN_ONCE.len()];
        self.request.row_table().iter().filter(move |row| {
            let once = TAKEN_ONCE.iter().zip(&mut taken).find(|(name, _)| **name == row.name);
            once.map_or(row.name == HeaderName::Via, |(_, taken)| !std::mem::replace(taken, true))
        })
    }

    fn push_to(&self, out: &mut Vec<u8>, row: &Row) {
        match self.to_tag {
            Some(tag) if !self.request.to().is_ok_and(|to| to.tag().is_some()) => {
                push_name(out, self.request, row);
                push_plain(out, self.request, self.request.at(row.value));
                out.extend_from_slice(b";tag=");
                push_value(out, tag.as_bytes());
                out.extend_from_slice(CRLF);
            }
            _ => push_copy(out, self.request, row),
        }
    }
}

const TAKEN_ONCE: [HeaderName; 4] = [HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq];
/// `;received=` with the longest address, `;rport=` with a port, `;tag=`.
const VIA_ADDITION: usize = 80;

/// Appends a row of a message as it stands there, but for line ends that are none.
pub(super) fn push_copy(out: &mut Vec<u8>, message: &Message, row: &Row) {
    if message.has_stray() {
        push_name(out, message, row);
        push_plain(out, message, message.at(row.value));
        out.extend_from_slice(CRLF);
    } else {
        out.extend_from_slice(message.at(row.all));
    }
}

/// Appends the name of a row, its colon, and what stands between that and the value.
pub(super) fn push_name(out: &mut Vec<u8>, message: &Message, row: &Row) {
    let before = message.at(crate::scan::Span { from: row.all.from, to: row.value.from });
    push_plain(out, message, before);
}

/// Appends octets of a message; folding stays unless the message holds line ends that are none.
fn push_plain(out: &mut Vec<u8>, message: &Message, octets: &[u8]) {
    if message.has_stray() {
        push_value(out, octets);
    } else {
        out.extend_from_slice(octets);
    }
}

/// Appends a Via row with `value`, whose first member gets `received` and `rport` from `source`; `source` is used up by the first row.
pub(super) fn push_via(out: &mut Vec<u8>, message: &Message, row: &Row, value: &[u8], source: &mut Option<SocketAddr>) {
    push_name(out, message, row);
    let end = member_end(value);
    let (top, rest) = value.split_at_checked(end).unwrap_or((value, &[]));
    match source.take().and_then(|source| marked_via(top, source)) {
        Some(marked) => {
            push_plain(out, message, &marked);
            push_plain(out, message, rest);
        }
        None => push_plain(out, message, value),
    }
    out.extend_from_slice(CRLF);
}

/// The Via value with `received` where the sent-by is not the address the request came from or `rport` is asked for, and with `rport`
/// filled; values a client put there itself are replaced. `None` if nothing is to change or the value cannot be read.
fn marked_via(value: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(value).ok()?;
    let via = Via::parse(text).ok()?;
    let address = source.ip().to_canonical();
    let asked = via.rport() != Rport::Absent;
    let claimed = via.params.get("received").is_some();
    if !asked && !claimed && sent_by_is(via.host, address) {
        return None;
    }
    let head = text.len() - crate::chars::trim_start(text.get(text.find(';').unwrap_or(text.len())..)?).len();
    let mut marked = Vec::with_capacity(value.len() + VIA_ADDITION);
    marked.extend_from_slice(text.get(..head)?.trim_end().as_bytes());
    push_params(&mut marked, via.params);
    if asked || !sent_by_is(via.host, address) {
        marked.extend_from_slice(format!(";received={address}").as_bytes());
    }
    if asked {
        marked.extend_from_slice(format!(";rport={}", source.port()).as_bytes());
    }
    Some(marked)
}

fn push_params(out: &mut Vec<u8>, params: Params<'_>) {
    let kept = |name: &str| !name.eq_ignore_ascii_case("received") && !name.eq_ignore_ascii_case("rport");
    for param in params.iter().filter(|param| kept(param.name)) {
        out.push(b';');
        out.extend_from_slice(param.name.as_bytes());
        if let Some(value) = param.value {
            out.push(b'=');
            out.extend_from_slice(value.as_bytes());
        }
    }
}

fn sent_by_is(host: &str, address: IpAddr) -> bool {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.parse::<IpAddr>().is_ok_and(|host| host.to_canonical() == address)
}
