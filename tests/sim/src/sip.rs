//! What a simulated client says: requests as text, Digest answers, documents.

use bytes::Bytes;
use commpool_sip::digest::{Algorithm, ha1};
use commpool_sip::header::HeaderName;
use commpool_sip::message::Message;
use sha2::{Digest, Sha256};

/// Domain of the simulated pool.
pub const DOMAIN: &str = "sim.example";

/// A request about to be sent.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Method.
    pub method: &'static str,
    /// Request-URI.
    pub uri: String,
    /// User who sends it.
    pub from: String,
    /// Tag of From.
    pub from_tag: String,
    /// Whom it is about.
    pub to: String,
    /// Tag of To, in a dialog.
    pub to_tag: Option<String>,
    /// Call-ID.
    pub call_id: String,
    /// Further rows, each with its line end.
    pub headers: String,
    /// Body.
    pub body: String,
}

impl Draft {
    /// The request on the wire.
    pub fn octets(&self, cseq: u32, branch: &str, credentials: &str) -> Bytes {
        let to_tag = self.to_tag.as_ref().map(|t| format!(";tag={t}")).unwrap_or_default();
        Bytes::from(format!(
            "{method} {} SIP/2.0\r\nVia: SIP/2.0/TCP client.invalid:5070;rport;branch={branch}\r\nMax-Forwards: 70\r\n\
             From: <sip:{}@{DOMAIN}>;tag={}\r\nTo: <sip:{}@{DOMAIN}>{to_tag}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\n\
             User-Agent: simulated client of the pool\r\n{}{credentials}Content-Length: {}\r\n\r\n{}",
            self.uri,
            self.from,
            self.from_tag,
            self.to,
            self.call_id,
            self.headers,
            self.body.len(),
            self.body,
            method = self.method,
        ))
    }
}

/// Password of a simulated user.
pub fn password(user: &str) -> String {
    format!("{user}-password")
}

/// The row that answers a challenge.
pub fn credentials(challenge: &Message, draft: &Draft) -> Option<String> {
    let rows = [(HeaderName::WwwAuthenticate, "Authorization"), (HeaderName::ProxyAuthenticate, "Proxy-Authorization")];
    let (name, row) = rows.into_iter().find_map(|(asked, answer)| challenge.text(asked).map(|row| (answer, row)))?;
    let nonce = row.split("nonce=\"").nth(1)?.split('"').next()?;
    let user = &draft.from;
    let hash = |text: String| Sha256::digest(text.as_bytes()).iter().map(|o| format!("{o:02x}")).collect::<String>();
    let first = ha1(Algorithm::Sha256, user, DOMAIN, &password(user));
    let second = hash(format!("{}:{}", draft.method, draft.uri));
    let response = hash(format!("{first}:{nonce}:00000001:c:auth:{second}"));
    Some(format!(
        "{name}: Digest username=\"{user}\", realm=\"{DOMAIN}\", nonce=\"{nonce}\", uri=\"{}\", response=\"{response}\", \
         algorithm=SHA-256, cnonce=\"c\", qop=auth, nc=00000001\r\n",
        draft.uri
    ))
}

/// A presence document with a number in its note.
pub fn document(user: &str, open: bool, number: u64) -> String {
    let basic = if open { "open" } else { "closed" };
    format!(
        "<?xml version=\"1.0\"?><presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:{user}@{DOMAIN}\">\
         <tuple id=\"t\"><status><basic>{basic}</basic></status><note>n{number}</note></tuple></presence>"
    )
}
