//! Writing messages: answers, forwarded messages, new requests. Each into one buffer of the right size, whose octets go out as they are.
//!
//! Values handed in cannot break out of their row: CR, LF and NUL in them become spaces, and a row whose name is no token is left out.

mod forward;
mod request;
mod response;

pub use forward::Forward;
pub use request::Request;
pub use response::Response;

use crate::chars::is_token;
use crate::header::HeaderName;

const CRLF: &[u8] = b"\r\n";
const VERSION: &[u8] = b"SIP/2.0";

/// Appends `value` with everything that could end its row made a space.
fn push_value(out: &mut Vec<u8>, value: &[u8]) {
    if memchr::memchr3(b'\r', b'\n', 0, value).is_none() {
        out.extend_from_slice(value);
    } else {
        out.extend(value.iter().map(|octet| if matches!(octet, b'\r' | b'\n' | 0) { b' ' } else { *octet }));
    }
}

/// Appends a row; nothing if the name is no token or is Content-Length, which is always written by the builders themselves.
fn push_row(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    if !is_token(name.as_bytes()) || HeaderName::of(name.as_bytes()) == HeaderName::ContentLength {
        return;
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    push_value(out, value);
    out.extend_from_slice(CRLF);
}

fn push_number(out: &mut Vec<u8>, number: usize) {
    let mut digits = [0; 20];
    let mut rest = number;
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

fn push_content_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(b"Content-Length: ");
    push_number(out, length);
    out.extend_from_slice(CRLF);
}

/// A body handed to a builder, and the rows that describe it.
#[derive(Debug, Clone, Copy, Default)]
struct Body<'a> {
    content_type: &'a str,
    octets: &'a [u8],
}

impl Body<'_> {
    /// Upper bound of what [`Body::push`] appends.
    fn size(&self) -> usize {
        self.content_type.len() + self.octets.len() + 64
    }

    /// Appends Content-Type, Content-Length, the empty line and the body.
    fn push(&self, out: &mut Vec<u8>) {
        if !self.content_type.is_empty() {
            push_row(out, HeaderName::ContentType.as_str(), self.content_type.as_bytes());
        }
        push_content_length(out, self.octets.len());
        out.extend_from_slice(CRLF);
        out.extend_from_slice(self.octets);
    }
}
