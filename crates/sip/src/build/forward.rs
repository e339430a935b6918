//! Messages passed on: every row kept octet for octet and in order, but for what a proxy must change.

use std::net::SocketAddr;

use bytes::Bytes;

use super::request::push_uri;
use super::response::{push_name, push_via};
use super::{CRLF, VERSION, push_content_length, push_row};
use crate::header::HeaderName;
use crate::message::Message;
use crate::scan::{Row, Span};
use crate::values::{list_members, member_end};

/// Writes a message that passes through. The message must have been found valid.
#[derive(Debug)]
pub struct Forward<'a> {
    message: &'a Message,
    uri: Option<&'a str>,
    source: Option<SocketAddr>,
    edits: Vec<Edit>,
    /// The rows that edits write, one after the other.
    written: Vec<u8>,
}

#[derive(Debug)]
struct Edit {
    name: HeaderName,
    kind: Kind,
    row: Span,
    done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Remove,
    Set,
    Push,
    Append,
    Pop,
}

impl<'a> Forward<'a> {
    /// A request on its way onward.
    pub fn request(message: &'a Message) -> Self {
        Self { message, uri: None, source: None, edits: Vec::with_capacity(4), written: Vec::new() }
    }

    /// A response on its way back: its topmost Via value, which must be ours, is taken off, also out of a comma list.
    pub fn response(message: &'a Message) -> Self {
        Self::request(message).pop(HeaderName::Via)
    }

    /// Replaces the Request-URI; white space and control characters are escaped. Without effect on a response.
    #[must_use]
    pub fn uri(mut self, uri: &'a str) -> Self {
        self.uri = Some(uri);
        self
    }

    /// Puts a new Via value on top.
    #[must_use]
    pub fn via(self, value: &str) -> Self {
        self.push(HeaderName::Via, value)
    }

    /// Where the message came from: fills `received` and `rport` of the Via that was on top (RFC 3261 §18.2.1, RFC 3581 §4).
    #[must_use]
    pub fn source(mut self, source: SocketAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// Sets Max-Forwards.
    #[must_use]
    pub fn max_forwards(self, hops: u32) -> Self {
        self.set(HeaderName::MaxForwards, hops.to_string())
    }

    /// Removes all rows of that name.
    #[must_use]
    pub fn remove(mut self, name: HeaderName) -> Self {
        self.edit(name, Kind::Remove, None);
        self
    }

    /// Makes `value` the only row of that name, in the place of the first one, or behind all rows.
    #[must_use]
    pub fn set(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        self.edit(name, Kind::Set, Some(value.as_ref()));
        self
    }

    /// Adds a row before the first one of that name, or behind all rows: Via, Record-Route.
    #[must_use]
    pub fn push(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        self.edit(name, Kind::Push, Some(value.as_ref()));
        self
    }

    /// Adds a row behind all rows.
    #[must_use]
    pub fn append(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        self.edit(name, Kind::Append, Some(value.as_ref()));
        self
    }

    /// Takes the first value of that name off, also out of a comma list: the topmost Route.
    #[must_use]
    pub fn pop(mut self, name: HeaderName) -> Self {
        self.edit(name, Kind::Pop, None);
        self
    }

    /// Content-Length belongs to the body, which is not changed, and `Other` is no name: edits of both are ignored.
    fn edit(&mut self, name: HeaderName, kind: Kind, value: Option<&str>) {
        if matches!(name, HeaderName::ContentLength | HeaderName::Other) {
            return;
        }
        let from = self.written.len();
        if let Some(value) = value {
            push_row(&mut self.written, name.as_str(), value.as_bytes());
        }
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        self.edits.push(Edit {
            name,
            kind,
            row: Span { from: offset(from), to: offset(self.written.len()) },
            done: false,
        });
    }

    /// The finished message. A Content-Length that was absent is added.
    pub fn build(mut self) -> Bytes {
        let body = self.message.body();
        let size = self.message.octets().len() + self.uri.map_or(0, str::len) + self.written.len() + 128;
        let mut out = Vec::with_capacity(size);
        self.push_start(&mut out);
        let rows = self.message.row_table();
        let mut kept: Option<Span> = None;
        for row in rows {
            let touched = self.edits.iter().any(|edit| edit.name == row.name)
                || (row.name == HeaderName::Via && self.source.is_some());
            if touched {
                self.flush(&mut out, &mut kept);
                self.push_touched(&mut out, row);
            } else {
                // Neighbours that stay are copied in one go.
                kept = Some(Span { from: kept.map_or(row.all.from, |kept| kept.from), to: row.all.to });
            }
        }
        self.flush(&mut out, &mut kept);
        for edit in self.edits.iter().filter(|edit| !edit.done) {
            out.extend_from_slice(edit.row.of(&self.written));
        }
        if !self.message.has(HeaderName::ContentLength) {
            push_content_length(&mut out, body.len());
        }
        out.extend_from_slice(CRLF);
        out.extend_from_slice(&body);
        Bytes::from(out)
    }

    fn push_start(&self, out: &mut Vec<u8>) {
        match self.uri {
            Some(uri) if self.message.is_request() => {
                out.extend_from_slice(self.message.method().as_str().as_bytes());
                out.push(b' ');
                push_uri(out, uri);
                out.push(b' ');
                out.extend_from_slice(VERSION);
                out.extend_from_slice(CRLF);
            }
            _ => out.extend_from_slice(self.message.start_line()),
        }
    }

    fn flush(&self, out: &mut Vec<u8>, kept: &mut Option<Span>) {
        if let Some(span) = kept.take() {
            out.extend_from_slice(self.message.at(span));
        }
    }

    /// Applies the edits of a row's name to it, in the order in which they were asked for.
    fn push_touched(&mut self, out: &mut Vec<u8>, row: &Row) {
        let mut value = Some(self.message.at(row.value));
        let mut popped = false;
        for edit in self.edits.iter_mut().filter(|edit| edit.name == row.name) {
            match edit.kind {
                Kind::Remove => value = None,
                Kind::Set => {
                    value = None;
                    if !edit.done {
                        out.extend_from_slice(edit.row.of(&self.written));
                    }
                }
                Kind::Push if !edit.done => out.extend_from_slice(edit.row.of(&self.written)),
                Kind::Pop if !edit.done => {
                    value = value.and_then(without_first);
                    popped = true;
                }
                Kind::Push | Kind::Pop | Kind::Append => {}
            }
            edit.done |= edit.kind != Kind::Append;
        }
        let Some(value) = value else { return };
        if row.name == HeaderName::Via && self.source.is_some() {
            push_via(out, self.message, row, value, &mut self.source);
        } else if popped {
            push_name(out, self.message, row);
            out.extend_from_slice(value);
            out.extend_from_slice(CRLF);
        } else {
            out.extend_from_slice(self.message.at(row.all));
        }
    }
}

/// A comma list without its first member; `None` if that was the only one.
fn without_first(value: &[u8]) -> Option<&[u8]> {
    let rest = value.get(member_end(value) + 1..)?;
    list_members(rest).next().map(|_| crate::chars::trim_octets(rest))
}
