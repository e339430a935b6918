//! One pass over a message: where the start line, the header rows and the body stand.

use memchr::{memchr, memchr2};

use crate::chars::{is_token, trim_octets};
use crate::header::HeaderName;
use crate::limits::Limits;
use crate::values::number;

/// Offsets into the octets of the message, which are never more than 2^32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    pub(crate) from: u32,
    pub(crate) to: u32,
}

impl Span {
    fn new(from: usize, to: usize) -> Self {
        Self { from: u32::try_from(from).unwrap_or(u32::MAX), to: u32::try_from(to).unwrap_or(u32::MAX) }
    }

    pub(crate) fn of(self, octets: &[u8]) -> &[u8] {
        octets.get(self.from as usize..self.to as usize).unwrap_or_default()
    }
}

/// One logical header row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// The whole row with its line end.
    pub(crate) all: Span,
    /// The value without white space around it, folding inside.
    pub(crate) value: Span,
    /// Octets of the name; white space may follow before the colon.
    pub(crate) name_length: u16,
    pub(crate) name: HeaderName,
}

/// The first line.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start {
    Request { method: Span, uri: Span, version: Span },
    Response { version: Span, status: u16, reason: Span },
}

/// What the pass found, complete or up to the first thing that made going on senseless.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) start: Start,
    pub(crate) rows: Vec<Row>,
    /// The first octet after the empty line.
    pub(crate) body: usize,
    /// Syntax that the pass can step over but that must be refused.
    pub(crate) defect: Option<&'static str>,
    /// Whether header rows hold CR, LF or NUL where they must not.
    pub(crate) stray: bool,
    /// Why the pass stopped early: a status and what is wrong.
    pub(crate) stopped: Option<(u16, &'static str)>,
}

const BAD_REQUEST: u16 = 400;
/// Message Too Large
pub(crate) const TOO_LARGE: u16 = 513;

const USUAL_ROWS: usize = 24;

/// Octets of the empty lines that may stand before a start line (RFC 3261 §7.5).
pub(crate) fn empty_lines(octets: &[u8]) -> usize {
    octets.chunks_exact(2).take_while(|pair| pair == b"\r\n").count() * 2
}

/// Scans the head of a message, which begins with its start line.
///
/// # Errors
/// The first line is not that of a SIP message; there is nothing that could be answered.
pub(crate) fn scan(octets: &[u8], limits: &Limits) -> Result<Scan, &'static str> {
    let mut scanner = Scanner { octets, at: 0, stray: false };
    let line = scanner.line().ok_or("no complete start line")?;
    let (start, defect) = start_line(octets.get(..line).unwrap_or_default())?;
    let mut scan = Scan { start, rows: Vec::with_capacity(USUAL_ROWS), body: 0, defect, stray: false, stopped: None };
    if line > limits.line {
        scan.stopped = Some((TOO_LARGE, "the start line is too long"));
        return Ok(scan);
    }
    scan.stopped = scanner.rows(limits, &mut scan.rows, &mut scan.defect).err();
    scan.body = scanner.at;
    let head = octets.get(..scan.body).unwrap_or_default();
    scan.stray = scanner.stray || has_stray_nul(head);
    Ok(scan)
}

struct Scanner<'a> {
    octets: &'a [u8],
    at: usize,
    stray: bool,
}

impl Scanner<'_> {
    /// Steps over one physical line; gives the end of its text, before CRLF. CR and LF outside a pair are noted and stepped over.
    fn line(&mut self) -> Option<usize> {
        let mut from = self.at;
        loop {
            let end = from + memchr2(b'\r', b'\n', self.octets.get(from..)?)?;
            if self.octets.get(end..end + 2) == Some(b"\r\n") {
                self.at = end + 2;
                return Some(end);
            }
            self.stray = true;
            from = end + 1;
        }
    }

    /// Steps over all header rows and the empty line after them.
    fn rows(
        &mut self,
        limits: &Limits,
        rows: &mut Vec<Row>,
        defect: &mut Option<&'static str>,
    ) -> Result<(), (u16, &'static str)> {
        loop {
            if self.octets.get(self.at..self.at + 2) == Some(b"\r\n") {
                self.at += 2;
                return Ok(());
            }
            let begin = self.at;
            let mut end = self.line().ok_or((BAD_REQUEST, "no empty line ends the header rows"))?;
            while matches!(self.octets.get(self.at), Some(b' ' | b'\t')) {
                end = self.line().ok_or((BAD_REQUEST, "no empty line ends the header rows"))?;
            }
            if end - begin > limits.line {
                return Err((TOO_LARGE, "a header row is too long"));
            }
            if rows.len() >= limits.headers {
                return Err((TOO_LARGE, "too many header rows"));
            }
            let row = row(self.octets, begin, end, self.at);
            rows.push(row.unwrap_or_else(|what| {
                defect.get_or_insert(what);
                Row {
                    all: Span::new(begin, self.at),
                    value: Span::new(begin, end),
                    name_length: 0,
                    name: HeaderName::Other,
                }
            }));
        }
    }
}

/// The row from `begin` to `end`; its line end reaches to `next`.
fn row(octets: &[u8], begin: usize, end: usize, next: usize) -> Result<Row, &'static str> {
    let text = octets.get(begin..end).unwrap_or_default();
    let colon = memchr(b':', text).ok_or("a header row has no colon")?;
    let mut name = text.get(..colon).unwrap_or_default();
    while let [rest @ .., b' ' | b'\t'] = name {
        name = rest;
    }
    let header = HeaderName::of(name);
    if header == HeaderName::Other && !is_token(name) {
        return Err("the name of a header must be a token");
    }
    let after = text.get(colon + 1..).unwrap_or_default();
    let value = trim_octets(after);
    // `trim_octets` keeps the end of an empty value anywhere: then the value stands at the end of the row.
    let from = begin + colon + 1 + leading(after);
    Ok(Row {
        all: Span::new(begin, next),
        value: Span::new(from, from + value.len()),
        name_length: u16::try_from(name.len()).map_err(|_| "the name of a header is too long")?,
        name: header,
    })
}

fn leading(octets: &[u8]) -> usize {
    octets.iter().position(|octet| !crate::chars::is_lws(*octet)).unwrap_or(octets.len())
}

/// Whether a NUL stands anywhere but behind a backslash, where RFC 3261 allows it (`quoted-pair`).
fn has_stray_nul(head: &[u8]) -> bool {
    let mut from = 0;
    while let Some(at) = head.get(from..).and_then(|rest| memchr(0, rest)) {
        let nul = from + at;
        let backslashes = head.get(..nul).unwrap_or_default().iter().rev().take_while(|octet| **octet == b'\\').count();
        if backslashes % 2 == 0 {
            return true;
        }
        from = nul + 1;
    }
    false
}

fn start_line(line: &[u8]) -> Result<(Start, Option<&'static str>), &'static str> {
    if is_version(line) {
        return status_line(line).map(|start| (start, None));
    }
    let text = trimmed_end(line);
    let method = memchr(b' ', text).ok_or("the first line is no SIP start line")?;
    let version = memchr::memrchr(b' ', text).map_or(text.len(), |space| space + 1);
    if !text.get(version..).is_some_and(is_version) {
        return Err("the first line is no SIP start line");
    }
    // With one space only, method and version are all there is.
    let (uri_from, uri_to) = if method + 1 < version { (method + 1, version - 1) } else { (method, method) };
    let uri = text.get(uri_from..uri_to).unwrap_or_default();
    let spaced = text.len() != line.len() || uri.is_empty() || uri.contains(&b' ');
    let defect = spaced.then_some("single spaces must part the three elements of the request line");
    let utf8 = if std::str::from_utf8(uri).is_ok() { None } else { Some("the Request-URI is not UTF-8") };
    let start = Start::Request {
        method: Span::new(0, method),
        uri: Span::new(uri_from, uri_to),
        version: Span::new(version, text.len()),
    };
    Ok((start, defect.or(utf8)))
}

fn status_line(line: &[u8]) -> Result<Start, &'static str> {
    let version = memchr(b' ', line).ok_or("the status line has no status")?;
    let status =
        line.get(version + 1..version + 4).and_then(|digits| number(digits, 699)).filter(|status| *status >= 100);
    let status =
        status.and_then(|status| u16::try_from(status).ok()).ok_or("the status must be three digits, 100 to 699")?;
    // Some leave out the space before an empty reason phrase.
    let reason = match line.get(version + 4) {
        Some(b' ') => version + 5,
        None => version + 4,
        Some(_) => return Err("the status must be three digits, 100 to 699"),
    };
    Ok(Start::Response { version: Span::new(0, version), status, reason: Span::new(reason, line.len()) })
}

/// Whether `text` begins as a SIP-Version does.
fn is_version(text: &[u8]) -> bool {
    text.get(..4).is_some_and(|name| name.eq_ignore_ascii_case(b"SIP/"))
}

fn trimmed_end(mut line: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = line {
        line = rest;
    }
    line
}
