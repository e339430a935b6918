//! New requests: NOTIFY of the notifier, pings of a test client, everything that is not forwarded.

use bytes::Bytes;

use super::{Body, CRLF, VERSION, push_row};
use crate::header::HeaderName;
use crate::method::Method;

/// Writes a request; rows stand in the order in which they are given.
#[derive(Debug)]
pub struct Request<'a> {
    out: Vec<u8>,
    body: Body<'a>,
}

impl<'a> Request<'a> {
    /// Begins a request. White space and control characters in `uri` are escaped; a `method` must be a token of the caller's.
    pub fn new(method: Method<'_>, uri: &str) -> Self {
        let mut out = Vec::with_capacity(1024);
        out.extend(method.as_str().bytes().filter(|octet| crate::chars::is_token_char(*octet)));
        out.push(b' ');
        push_uri(&mut out, uri);
        out.push(b' ');
        out.extend_from_slice(VERSION);
        out.extend_from_slice(CRLF);
        Self { out, body: Body::default() }
    }

    /// Adds a row. Content-Length is left out here and always written by [`Request::build`].
    #[must_use]
    pub fn header(self, name: HeaderName, value: impl AsRef<str>) -> Self {
        self.raw_header(name.as_str(), value.as_ref().as_bytes())
    }

    /// Adds a row of any name; a name that is no token leaves the row out.
    #[must_use]
    pub fn raw_header(mut self, name: &str, value: &[u8]) -> Self {
        push_row(&mut self.out, name, value);
        self
    }

    /// Sets the body and its Content-Type.
    #[must_use]
    pub fn body(mut self, content_type: &'a str, octets: &'a [u8]) -> Self {
        self.body = Body { content_type, octets };
        self
    }

    /// The finished request with its Content-Length.
    pub fn build(mut self) -> Bytes {
        self.out.reserve_exact(self.body.size());
        self.body.push(&mut self.out);
        Bytes::from(self.out)
    }
}

/// Appends a URI so that it stays one word.
pub(super) fn push_uri(out: &mut Vec<u8>, uri: &str) {
    for octet in uri.bytes() {
        if octet <= b' ' || octet == 0x7f {
            out.extend_from_slice(format!("%{octet:02X}").as_bytes());
        } else {
            out.push(octet);
        }
    }
}
