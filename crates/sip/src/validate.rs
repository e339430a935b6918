//! What a server must refuse before it looks at a message's meaning.

use crate::chars::is_token;
use crate::header::{HeaderError, HeaderName};
use crate::message::Message;
use crate::uri::Uri;

/// Why a message must be refused: a request with this status, a response silently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {what}")]
pub struct Invalid {
    /// 505 for another version of SIP, otherwise 400.
    pub status: u16,
    /// What is wrong, fit for a reason phrase.
    pub what: &'static str,
}

const fn bad(what: &'static str) -> Invalid {
    Invalid { status: 400, what }
}

impl Message {
    /// Checks what RFC 3261 §8.2 and §16.3 want checked before a message is processed: version, Request-URI, one each of the headers that
    /// identify it, and the grammar of the headers that every element reads.
    ///
    /// Not its business: the scheme of the Request-URI, unknown methods and extensions, and an absent Max-Forwards, which clients of
    /// RFC 2543 leave out.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn validate(&self) -> Result<(), Invalid> {
        if !self.version().eq_ignore_ascii_case("SIP/2.0") {
            return Err(Invalid { status: 505, what: "Only SIP/2.0 is spoken here" });
        }
        if let Some(what) = self.defect() {
            return Err(bad(what));
        }
        self.validate_counts()?;
        if self.is_request() {
            self.validate_request_line()?;
        }
        self.validate_identity()?;
        self.validate_optional()
    }

    fn validate_request_line(&self) -> Result<(), Invalid> {
        if !is_token(self.method().as_str().as_bytes()) {
            return Err(bad("The method must be a token"));
        }
        match Uri::parse(self.request_uri()) {
            Ok(uri) if uri.headers.is_some() => Err(bad("The Request-URI must not carry headers")),
            Ok(_) => Ok(()),
            Err(_) => Err(bad("Malformed Request-URI")),
        }
    }

    fn validate_counts(&self) -> Result<(), Invalid> {
        let mut seen = [0_u32; SINGLE.len()];
        for row in self.row_table() {
            for ((name, _, _), count) in SINGLE.iter().zip(&mut seen) {
                *count += u32::from(*name == row.name);
            }
        }
        for ((_, required, what), count) in SINGLE.iter().zip(seen) {
            if count > 1 || (*required && count == 0) {
                return Err(bad(what));
            }
        }
        Ok(())
    }

    fn validate_identity(&self) -> Result<(), Invalid> {
        let mut vias = 0;
        for via in self.vias() {
            via.map_err(|_| bad("Malformed Via"))?;
            vias += 1;
        }
        if vias == 0 {
            return Err(bad("Via is missing"));
        }
        let well_formed = |name| self.address(name).is_ok_and(|address| address.uri().is_ok());
        if !well_formed(HeaderName::From) {
            return Err(bad("Malformed From"));
        }
        if !well_formed(HeaderName::To) {
            return Err(bad("Malformed To"));
        }
        self.call_id().map_err(|_| bad("Malformed Call-ID"))?;
        let (_, method) = self.cseq().map_err(|_| bad("Malformed CSeq"))?;
        if self.is_request() && method != self.method() {
            return Err(bad("The method of CSeq is not that of the request"));
        }
        Ok(())
    }

    fn validate_optional(&self) -> Result<(), Invalid> {
        self.max_forwards().map_err(|_| bad("Max-Forwards must be a number, 0 to 255"))?;
        self.expires().map_err(|_| bad("Expires must be a number of seconds"))?;
        self.event().map_err(|_| bad("Malformed Event"))?;
        self.validate_contacts().map_err(|_| bad("Malformed Contact"))?;
        let length = self.content_length().map_err(|_| bad("Malformed Content-Length"))?;
        if length.is_some_and(|length| usize::try_from(length) != Ok(self.body().len())) {
            return Err(bad("Content-Length does not match the body"));
        }
        Ok(())
    }

    fn validate_contacts(&self) -> Result<(), HeaderError> {
        if let crate::address::Contacts::List(contacts) = self.contacts()? {
            for contact in contacts {
                contact.uri().map_err(|error| HeaderError { header: HeaderName::Contact, what: error.0 })?;
            }
        }
        Ok(())
    }
}

/// Headers that may stand once only, whether they must stand, and what to say otherwise.
const SINGLE: [(HeaderName, bool, &str); 8] = [
    (HeaderName::From, true, "Exactly one From is needed"),
    (HeaderName::To, true, "Exactly one To is needed"),
    (HeaderName::CallId, true, "Exactly one Call-ID is needed"),
    (HeaderName::CSeq, true, "Exactly one CSeq is needed"),
    (HeaderName::MaxForwards, false, "More than one Max-Forwards"),
    (HeaderName::ContentLength, false, "More than one Content-Length"),
    (HeaderName::Expires, false, "More than one Expires"),
    (HeaderName::Event, false, "More than one Event"),
];
