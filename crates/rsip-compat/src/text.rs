//! Messages as plain text that both sides read: long names, no folding, one Via or Contact a row.

use commpool_sip::status::reason_phrase;
use commpool_sip::values::unfold;
use commpool_sip::{HeaderName, Message};
use rsip::message::HasHeaders;

use crate::{NotCarried, not};

/// Start line, rows and empty line of a valid message.
pub(crate) fn head(message: &Message) -> Result<String, NotCarried> {
    let reason = std::str::from_utf8(message.reason()).map_err(|_| not("the reason phrase is not UTF-8"))?;
    let mut head = match message.status() {
        Some(status) => format!("SIP/2.0 {status} {reason}\r\n"),
        None => format!("{} {} SIP/2.0\r\n", message.method(), message.request_uri()),
    };
    // A list is written out at its first row, for all of them.
    let mut written = Vec::new();
    for (name, value) in message.all_rows() {
        let header = HeaderName::of(name);
        if matches!(header, HeaderName::Via | HeaderName::Contact) {
            if !written.contains(&header) {
                written.push(header);
                push_list(&mut head, message, header)?;
            }
            continue;
        }
        let name = match header {
            HeaderName::Other => std::str::from_utf8(name).map_err(|_| not("the name of a header is not UTF-8"))?,
            known => known.as_str(),
        };
        let value = unfold(value).ok_or(not("the value of a header is not UTF-8"))?;
        push_row(&mut head, name, &value);
    }
    head.push_str("\r\n");
    Ok(head)
}

fn push_list(head: &mut String, message: &Message, header: HeaderName) -> Result<(), NotCarried> {
    for member in message.list(header) {
        push_row(head, header.as_str(), &member.map_err(|error| not(error.what))?);
    }
    Ok(())
}

fn push_row(head: &mut String, name: &str, value: &str) {
    head.push_str(name);
    head.push_str(": ");
    head.push_str(value);
    head.push_str("\r\n");
}

/// The octets of a message of ours from its plain head and its body.
pub(crate) fn with_body(head: &str, body: &[u8]) -> Vec<u8> {
    [head.as_bytes(), body].concat()
}

/// The octets that rsip's message stands for. Not by its own writer, which makes other octets of a body that is not UTF-8, and runs
/// the words of a reason phrase together.
pub(crate) fn of_rsip(theirs: &rsip::SipMessage) -> Result<Vec<u8>, NotCarried> {
    if *theirs.version() != rsip::Version::V2 {
        return Err(not("the version must be SIP/2.0"));
    }
    let mut head = match theirs {
        rsip::SipMessage::Request(request) if !request.uri.headers.is_empty() => {
            return Err(not("headers in the Request-URI"));
        }
        rsip::SipMessage::Request(request) => format!("{} {} SIP/2.0", request.method, request.uri),
        rsip::SipMessage::Response(response) => match &response.status_code {
            rsip::StatusCode::Other(code, reason) => format!("SIP/2.0 {code} {reason}"),
            known => format!("SIP/2.0 {} {}", known.code(), reason_phrase(known.code())),
        },
    };
    push_line_end(&mut head, 0)?;
    for header in theirs.headers().iter() {
        let begin = head.len();
        head.push_str(&header.to_string());
        push_line_end(&mut head, begin)?;
    }
    head.push_str("\r\n");
    Ok(with_body(&head, theirs.body()))
}

/// Ends the line that begins at `begin`, which must be one line.
fn push_line_end(head: &mut String, begin: usize) -> Result<(), NotCarried> {
    let line = head.get(begin..).unwrap_or_default();
    if line.contains(['\r', '\n', '\0']) {
        return Err(not("a line end inside a value"));
    }
    head.push_str("\r\n");
    Ok(())
}
