//! A SIP message: its octets as they came, its rows found in one pass, everything else read on demand.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::header::{HeaderError, HeaderName};
use crate::limits::Limits;
use crate::method::Method;
use crate::scan::{Row, Scan, Span, Start, TOO_LARGE, empty_lines, scan};
use crate::values::{list_members, number, unfold};

/// A received SIP message.
///
/// The octets are kept unchanged, so that forwarding keeps what is not understood. Reading the head says nothing about its meaning:
/// a server calls [`Message::validate`] before anything else. Clones share everything.
#[derive(Clone)]
pub struct Message(Arc<Inner>);

struct Inner {
    octets: Bytes,
    start: Start,
    rows: Vec<Row>,
    body: usize,
    defect: Option<&'static str>,
    stray: bool,
}

/// Octets that are no message.
#[derive(Debug, Clone, thiserror::Error)]
#[error("not a SIP message: {what}")]
pub struct Malformed {
    /// The status that fits: 400, or 513 where a limit is exceeded.
    pub status: u16,
    /// What is wrong.
    pub what: &'static str,
    /// What could be read, if it is a request that may be answered with [`Malformed::status`]: enough rows to send the answer. `None`: silence.
    pub partial: Option<Message>,
}

impl Malformed {
    fn silent(what: &'static str) -> Self {
        Self { status: BAD_REQUEST, what, partial: None }
    }
}

const BAD_REQUEST: u16 = 400;

impl Message {
    /// Reads the message in a datagram: empty lines in front are skipped, Content-Length is applied and what follows the body is ignored
    /// (RFC 3261 §18.3); without Content-Length the body ends with the datagram.
    ///
    /// # Errors
    /// The octets are no SIP message, break a limit, or end before the message does.
    pub fn parse_datagram(octets: Bytes, limits: &Limits) -> Result<Self, Malformed> {
        Self::parse(octets, limits, |body, rest| body <= rest)
    }

    /// Reads exactly one message, as cut out by the stream framer or carried in one WebSocket frame (RFC 7118 §5): a Content-Length must
    /// name the octets that are there; without one the body ends with the octets.
    ///
    /// # Errors
    /// The octets are no SIP message, break a limit, or are not one message.
    pub fn parse_framed(octets: Bytes, limits: &Limits) -> Result<Self, Malformed> {
        Self::parse(octets, limits, |body, rest| body == rest)
    }

    fn parse(octets: Bytes, limits: &Limits, fits: fn(usize, usize) -> bool) -> Result<Self, Malformed> {
        let octets = octets.slice(empty_lines(&octets)..);
        let most = limits.message.min(u32::MAX as usize);
        if octets.len() > most {
            let partial = Self::head(octets.slice(..most), limits);
            return Err(Malformed { status: TOO_LARGE, what: "the message is too large", partial });
        }
        let scan = scan(&octets, limits).map_err(Malformed::silent)?;
        let rest = octets.len() - scan.body;
        let length = match scan.stopped {
            Some(stopped) => Err(stopped),
            None => body_length(&octets, &scan.rows).and_then(|length| match length.unwrap_or(rest) {
                length if length > limits.body => Err((TOO_LARGE, "the body is too large")),
                length if !fits(length, rest) => Err((BAD_REQUEST, "Content-Length does not match the body")),
                length => Ok(length),
            }),
        };
        match length {
            Ok(length) => {
                let end = scan.body + length;
                Ok(Self::assemble(octets.slice(..end), scan))
            }
            Err((status, what)) => Err(Malformed { status, what, partial: Self::partial(octets, scan) }),
        }
    }

    /// The head of a message that cannot be completed, for the framer to answer with; `None` if it must not be answered.
    pub(crate) fn head(octets: Bytes, limits: &Limits) -> Option<Self> {
        let scan = scan(&octets, limits).ok()?;
        Self::partial(octets, scan)
    }

    /// A request other than ACK with at least one Via row can be answered.
    fn partial(octets: Bytes, scan: Scan) -> Option<Self> {
        let end = if scan.stopped.is_some() { octets.len() } else { scan.body };
        let message = Self::assemble(octets.slice(..end), scan);
        (message.is_request() && message.method() != Method::Ack && message.has(HeaderName::Via)).then_some(message)
    }

    fn assemble(octets: Bytes, scan: Scan) -> Self {
        let Scan { start, rows, body, defect, stray, .. } = scan;
        let body = if scan.stopped.is_some() { octets.len() } else { body };
        Self(Arc::new(Inner { octets, start, rows, body, defect, stray }))
    }

    /// The octets of the message as they came, from the start line to the end of the body.
    pub fn octets(&self) -> &Bytes {
        &self.0.octets
    }

    /// Whether this is a request.
    pub fn is_request(&self) -> bool {
        matches!(self.0.start, Start::Request { .. })
    }

    /// The method of the request; for a response that of its CSeq, or [`Method::Other`] of nothing if that cannot be read.
    pub fn method(&self) -> Method<'_> {
        match self.0.start {
            Start::Request { method, .. } => Method::of(self.text_at(method)),
            Start::Response { .. } => self.cseq().map_or(Method::Other(""), |(_, method)| method),
        }
    }

    /// The Request-URI as written; empty for a response.
    pub fn request_uri(&self) -> &str {
        match self.0.start {
            Start::Request { uri, .. } => self.text_at(uri),
            Start::Response { .. } => "",
        }
    }

    /// The status of a response, 100 to 699.
    pub fn status(&self) -> Option<u16> {
        match self.0.start {
            Start::Request { .. } => None,
            Start::Response { status, .. } => Some(status),
        }
    }

    /// The reason phrase of a response as written; empty for a request.
    pub fn reason(&self) -> &[u8] {
        match self.0.start {
            Start::Request { .. } => &[],
            Start::Response { reason, .. } => reason.of(&self.0.octets),
        }
    }

    /// The SIP-Version as written.
    pub fn version(&self) -> &str {
        match self.0.start {
            Start::Request { version, .. } | Start::Response { version, .. } => self.text_at(version),
        }
    }

    /// The body; shares the octets.
    pub fn body(&self) -> Bytes {
        self.0.octets.slice(self.0.body.min(self.0.octets.len())..)
    }

    /// The values of all rows of that name in order, without white space around them, folding still inside.
    pub fn rows(&self, name: HeaderName) -> impl Iterator<Item = &[u8]> {
        self.0.rows.iter().filter(move |row| row.name == name).map(|row| row.value.of(&self.0.octets))
    }

    /// Names and values of all rows in order; names as written, values without white space around them, folding still inside.
    pub fn all_rows(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.rows.iter().map(|row| (self.name_of(row), row.value.of(&self.0.octets)))
    }

    /// The first row of that name with folds made spaces; `None` if absent or not UTF-8.
    pub fn text(&self, name: HeaderName) -> Option<Cow<'_, str>> {
        unfold(self.rows(name).next()?)
    }

    /// The members of the comma list over all rows of that name; quotes and angle brackets are respected, empty members left out.
    pub fn list(&self, name: HeaderName) -> impl Iterator<Item = Result<Cow<'_, str>, HeaderError>> {
        let members = self.rows(name).flat_map(list_members).filter(|member| !member.is_empty());
        members.map(move |member| unfold(member).ok_or(HeaderError { header: name, what: NOT_UTF8 }))
    }

    /// Whether there is a row of that name.
    pub fn has(&self, name: HeaderName) -> bool {
        self.0.rows.iter().any(|row| row.name == name)
    }

    /// The value of the first row of that name in any case, long or compact, known to [`HeaderName`] or not.
    pub fn header_named(&self, name: &str) -> Option<&[u8]> {
        match HeaderName::of(name.as_bytes()) {
            HeaderName::Other => {
                let mut others = self.0.rows.iter().filter(|row| row.name == HeaderName::Other);
                let row = others.find(|row| self.name_of(row).eq_ignore_ascii_case(name.as_bytes()))?;
                Some(row.value.of(&self.0.octets))
            }
            known => self.rows(known).next(),
        }
    }

    /// The members of all rows of that name as text, empty ones included, folding still inside.
    pub(crate) fn members(&self, name: HeaderName) -> impl Iterator<Item = Result<&str, HeaderError>> {
        let members = self.rows(name).flat_map(list_members);
        members.map(move |member| std::str::from_utf8(member).map_err(|_| HeaderError { header: name, what: NOT_UTF8 }))
    }

    /// The first row of that name as text, folding still inside.
    pub(crate) fn first(&self, name: HeaderName) -> Result<Option<&str>, HeaderError> {
        let row = self.rows(name).next().map(std::str::from_utf8).transpose();
        row.map_err(|_| HeaderError { header: name, what: NOT_UTF8 })
    }

    /// The rows with their places, for writers that copy them.
    pub(crate) fn row_table(&self) -> &[Row] {
        &self.0.rows
    }

    /// The octets at `span`.
    pub(crate) fn at(&self, span: Span) -> &[u8] {
        span.of(&self.0.octets)
    }

    /// The first line with its line end.
    pub(crate) fn start_line(&self) -> &[u8] {
        let (begin, end) = match self.0.start {
            Start::Request { method, version, .. } => (method.from, version.to),
            Start::Response { version, reason, .. } => (version.from, reason.to),
        };
        // The line end is taken from the first row, so that white space after the version does not matter.
        let end = self.0.rows.first().map_or(end, |row| row.all.from);
        Span { from: begin, to: end }.of(&self.0.octets)
    }

    /// Syntax the pass over the message stepped over, but that must be refused.
    pub(crate) fn defect(&self) -> Option<&'static str> {
        self.0
            .defect
            .or_else(|| self.has_stray().then_some("header rows must not hold NUL, nor CR or LF but as line ends"))
    }

    /// Whether header rows hold CR, LF or NUL where they must not.
    pub(crate) fn has_stray(&self) -> bool {
        self.0.stray
    }

    fn name_of(&self, row: &Row) -> &[u8] {
        Span { from: row.all.from, to: row.all.from.saturating_add(u32::from(row.name_length)) }.of(&self.0.octets)
    }

    fn text_at(&self, span: Span) -> &str {
        std::str::from_utf8(span.of(&self.0.octets)).unwrap_or_default()
    }
}

pub(crate) const NOT_UTF8: &str = "not UTF-8";

/// The value of the single Content-Length row; `None` without one.
fn body_length(octets: &[u8], rows: &[Row]) -> Result<Option<usize>, (u16, &'static str)> {
    let mut lengths = rows.iter().filter(|row| row.name == HeaderName::ContentLength);
    let Some(row) = lengths.next() else { return Ok(None) };
    if lengths.next().is_some() {
        return Err((BAD_REQUEST, "more than one Content-Length"));
    }
    let length = number(row.value.of(octets), u32::MAX).and_then(|length| usize::try_from(length).ok());
    length.map(Some).ok_or((BAD_REQUEST, "Content-Length must be a number of digits only"))
}

impl fmt::Debug for Message {
    /// Says what kind of message it is and how large; never its content, which may be private.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Message");
        match self.status() {
            Some(status) => out.field("status", &status),
            None => out.field("method", &self.method().as_str()),
        };
        out.field("rows", &self.0.rows.len()).field("octets", &self.0.octets.len()).finish()
    }
}
