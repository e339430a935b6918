//! SIP messages as plain text: written octet by octet as a test wants them, read without the product's own parser.
//!
//! The product's parser is deliberately not used here: a fault in it would hide behind its twin.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};

/// Long names of the compact header forms (RFC 3261 §7.3.3, RFC 6665 §8.4).
const COMPACT: &[(&str, &str)] = &[
    ("v", "via"),
    ("f", "from"),
    ("t", "to"),
    ("i", "call-id"),
    ("m", "contact"),
    ("l", "content-length"),
    ("c", "content-type"),
    ("e", "content-encoding"),
    ("s", "subject"),
    ("k", "supported"),
    ("o", "event"),
    ("u", "allow-events"),
];

/// One message: start line, header rows in order, body.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    start: String,
    rows: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Packet {
    /// A request without rows.
    #[must_use]
    pub fn request(method: &str, uri: &str) -> Self {
        Self { start: format!("{method} {uri} SIP/2.0"), rows: Vec::new(), body: Vec::new() }
    }

    /// An answer that copies what RFC 3261 §8.2.6.2 demands; `tag` is added where To has none.
    #[must_use]
    pub fn answer(request: &Self, status: u16, tag: &str) -> Self {
        let mut answer = Self { start: format!("SIP/2.0 {status} Test"), rows: Vec::new(), body: Vec::new() };
        for (name, value) in &request.rows {
            match long(name).as_str() {
                "via" | "from" | "call-id" | "cseq" => answer.rows.push((name.clone(), value.clone())),
                "to" if value.contains(";tag=") => answer.rows.push((name.clone(), value.clone())),
                "to" => answer.rows.push((name.clone(), format!("{value};tag={tag}"))),
                _ => {}
            }
        }
        answer
    }

    /// Reads one whole message.
    ///
    /// # Errors
    /// When it is no SIP message, or its body is not as long as Content-Length says.
    pub fn parse(octets: &[u8]) -> Result<Self> {
        let end = find(octets, b"\r\n\r\n").context("no empty line after the header")?;
        // Answers copy what a client wrote, which need not be UTF-8.
        let head = String::from_utf8_lossy(&octets[..end]);
        let body = octets[end + 4..].to_vec();
        let mut lines = head.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        ensure!(start.starts_with("SIP/2.0 ") || start.ends_with(" SIP/2.0"), "no SIP start line: {start:?}");
        let mut rows: Vec<(String, String)> = Vec::new();
        for line in lines {
            if let Some(more) = line.strip_prefix([' ', '\t']) {
                let (_, value) = rows.last_mut().context("continuation line without a row before it")?;
                value.push(' ');
                value.push_str(more.trim());
                continue;
            }
            let (name, value) = line.split_once(':').with_context(|| format!("row without a colon: {line:?}"))?;
            rows.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        let packet = Self { start, rows, body };
        if let Some(length) = packet.header("Content-Length") {
            let length: usize = length.parse().context("Content-Length is no number")?;
            ensure!(length == packet.body.len(), "Content-Length {length}, body of {}", packet.body.len());
        }
        Ok(packet)
    }

    /// The same request to another Request-URI.
    #[must_use]
    pub fn aimed_at(mut self, uri: &str) -> Self {
        if let Some(method) = self.method() {
            self.start = format!("{method} {uri} SIP/2.0");
        }
        self
    }

    /// Adds a row at the end.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.rows.push((name.to_owned(), value.into()));
        self
    }

    /// Adds a row before all others.
    #[must_use]
    pub fn with_first(mut self, name: &str, value: impl Into<String>) -> Self {
        self.rows.insert(0, (name.to_owned(), value.into()));
        self
    }

    /// Replaces every row of a name by one, in the place of the first; at the end if there was none.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        let key = long(name);
        let place = self.rows.iter().position(|(n, _)| long(n) == key);
        self.rows.retain(|(n, _)| long(n) != key);
        let place = place.unwrap_or(self.rows.len()).min(self.rows.len());
        self.rows.insert(place, (name.to_owned(), value.into()));
        self
    }

    /// Removes every row of a name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        let key = long(name);
        self.rows.retain(|(n, _)| long(n) != key);
        self
    }

    /// Sets body and Content-Type.
    #[must_use]
    pub fn with_body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.set("Content-Type", content_type)
    }

    /// Octets for the wire; Content-Length is added unless the rows have one.
    #[must_use]
    pub fn octets(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512 + self.body.len());
        out.extend_from_slice(self.start.as_bytes());
        out.extend_from_slice(b"\r\n");
        for (name, value) in &self.rows {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if self.header("Content-Length").is_none() {
            out.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
        out
    }

    /// Status code of a response.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.start.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
    }

    /// Method of a request.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        if self.status().is_some() { None } else { self.start.split(' ').next() }
    }

    /// Request-URI of a request.
    #[must_use]
    pub fn uri(&self) -> Option<&str> {
        if self.status().is_some() { None } else { self.start.split(' ').nth(1) }
    }

    /// Value of the first row of a name, long or compact, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).next()
    }

    /// Values of all rows of a name, one per row.
    pub fn headers<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let key = long(name);
        self.rows.iter().filter(move |(n, _)| long(n) == key).map(|(_, value)| value.as_str())
    }

    /// Value of a row that must be there.
    ///
    /// # Errors
    /// When it is not.
    pub fn need(&self, name: &str) -> Result<&str> {
        self.header(name).with_context(|| format!("no {name} in\n{self}"))
    }

    /// Body octets.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Body as text, lossy.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// CSeq number and method.
    ///
    /// # Errors
    /// When the row is missing or malformed.
    pub fn cseq(&self) -> Result<(u32, &str)> {
        let (number, method) = self.need("CSeq")?.split_once(' ').context("CSeq without a method")?;
        Ok((number.trim().parse().context("CSeq number")?, method.trim()))
    }

    /// `branch` of the topmost Via.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        parameter(self.header("Via")?, "branch")
    }

    /// Tag of From or To.
    #[must_use]
    pub fn tag(&self, name: &str) -> Option<&str> {
        parameter(self.header(name)?, "tag")
    }

    /// Whether this response belongs to that request: same branch, Call-ID and CSeq.
    #[must_use]
    pub fn answers(&self, request: &Self) -> bool {
        self.status().is_some()
            && self.branch() == request.branch()
            && self.header("Call-ID") == request.header("Call-ID")
            && self.header("CSeq") == request.header("CSeq")
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.start)?;
        for (name, value) in &self.rows {
            writeln!(f, "{name}: {value}")?;
        }
        writeln!(f)?;
        let text = String::from_utf8_lossy(&self.body);
        f.write_str(text.get(..2000).unwrap_or(&text))
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Value of a header parameter, quotes taken off; only parameters outside angle brackets count.
#[must_use]
pub fn parameter<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    let outside = value.rfind('>').map_or(value, |end| &value[end..]);
    outside.split(';').skip(1).find_map(|pair| {
        let (key, text) = pair.split_once('=').unwrap_or((pair, ""));
        key.trim().eq_ignore_ascii_case(name).then(|| text.trim().trim_matches('"'))
    })
}

/// What a stream holds next.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// One message.
    Message(Vec<u8>),
    /// CRLFCRLF (RFC 5626 §3.5.1): the peer asks for a sign of life.
    Ping,
    /// CRLF: the answer to a ping.
    Pong,
}

/// Cuts the next piece off the front of a stream's buffer; `None` while it is not whole.
///
/// # Errors
/// When the stream is not SIP.
pub fn cut(buffer: &mut Vec<u8>) -> Result<Option<Piece>> {
    if buffer.starts_with(b"\r\n\r\n") {
        buffer.drain(..4);
        return Ok(Some(Piece::Ping));
    }
    if buffer.starts_with(b"\r\n") && buffer.get(2) != Some(&b'\r') {
        buffer.drain(..2);
        return Ok(Some(Piece::Pong));
    }
    let Some(end) = find(buffer, b"\r\n\r\n") else {
        ensure!(buffer.len() < 1 << 20, "no end of header in a mebibyte");
        return Ok(None);
    };
    if end == 0 {
        return Ok(None);
    }
    let head = String::from_utf8_lossy(&buffer[..end]);
    let length = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (long(name.trim()) == "content-length").then(|| value.trim().parse::<usize>())
    });
    let Some(length) = length else { bail!("no Content-Length on a stream:\n{head}") };
    let whole = end + 4 + length.context("Content-Length is no number")?;
    if buffer.len() < whole {
        return Ok(None);
    }
    let message = buffer.drain(..whole).collect();
    Ok(Some(Piece::Message(message)))
}

/// Lower-case long form of a header name.
fn long(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    COMPACT.iter().find(|(short, _)| *short == lower).map_or(lower, |(_, long)| (*long).to_owned())
}

/// Where a needle begins.
fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read_again_is_the_same() {
        let sent = Packet::request("MESSAGE", "sip:b@x")
            .with("v", "SIP/2.0/UDP h;branch=z9hG4bK1")
            .with("f", "<sip:a@x>;tag=7");
        let sent = sent.with_body("text/plain", "hello");
        let read = Packet::parse(&sent.octets()).unwrap();
        assert_eq!(read.header("Via"), Some("SIP/2.0/UDP h;branch=z9hG4bK1"));
        assert_eq!((read.branch(), read.tag("From")), (Some("z9hG4bK1"), Some("7")));
        assert_eq!((read.method(), read.body()), (Some("MESSAGE"), &b"hello"[..]));
    }

    #[test]
    fn a_stream_is_cut_into_its_pieces() {
        let message = Packet::request("OPTIONS", "sip:x").with("Via", "v").octets();
        let mut buffer = Vec::new();
        for octet in &message {
            assert_eq!(cut(&mut buffer).unwrap(), None);
            buffer.push(*octet);
        }
        buffer.extend_from_slice(b"\r\n\r\n\r\nO");
        assert_eq!(cut(&mut buffer).unwrap(), Some(Piece::Message(message)));
        assert_eq!(cut(&mut buffer).unwrap(), Some(Piece::Ping));
        assert_eq!(cut(&mut buffer).unwrap(), Some(Piece::Pong));
        assert_eq!((cut(&mut buffer).unwrap(), buffer.as_slice()), (None, &b"O"[..]));
    }
}
