//! What identifies a request's transaction, read from the message.

use crate::header::HeaderName;
use crate::message::Message;
use crate::otid::RequestIdentity;

impl Message {
    /// The fields that tell this request's transaction from all others. What cannot be read counts as absent, so that
    /// a malformed request too gets the same answer at each retransmission.
    pub fn identity(&self) -> RequestIdentity<'_> {
        let via = self.top_via().ok();
        let from = self.from().ok();
        RequestIdentity {
            via_sent_by: via.map_or("", |via| via.sent_by()),
            branch: via.and_then(|via| via.branch()),
            call_id: self.call_id().unwrap_or_default(),
            cseq: self.cseq().map_or(0, |(number, _)| number),
            from_uri: from.map_or("", |from| from.uri),
            from_tag: from.and_then(|from| from.tag()).unwrap_or_default(),
            method: self.method().as_str(),
            request_uri: self.request_uri(),
            to_tag: self.to().ok().and_then(|to| to.tag()).unwrap_or_default(),
            top_via_raw: self.rows(HeaderName::Via).next().unwrap_or_default(),
        }
    }
}
