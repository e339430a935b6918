//! Names of header fields, long and compact, and the error of a header that cannot be read.

use std::fmt;

macro_rules! headers {
    ($($variant:ident $name:literal $($compact:literal)?,)*) => {
        /// A header field by its name (RFC 3261 §20 and the registry of SIP header fields).
        ///
        /// Names without a variant are [`HeaderName::Other`]; they are kept and forwarded like all others.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum HeaderName {
            $(#[doc = concat!("`", $name, "`", $(", compact `", $compact, "`")?)] $variant,)*
            /// Any header field without a variant of its own.
            Other,
        }

        impl HeaderName {
            /// The long name as it is written; empty for [`HeaderName::Other`].
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Other => "",
                }
            }
        }

        const NAMES: &[(HeaderName, &str)] =
            &[$((HeaderName::$variant, $name), $((HeaderName::$variant, $compact),)?)*];
    };
}

headers! {
    Accept "Accept",
    AcceptContact "Accept-Contact" "a",
    AcceptEncoding "Accept-Encoding",
    AcceptLanguage "Accept-Language",
    AlertInfo "Alert-Info",
    Allow "Allow",
    AllowEvents "Allow-Events" "u",
    AuthenticationInfo "Authentication-Info",
    Authorization "Authorization",
    CallId "Call-ID" "i",
    CallInfo "Call-Info",
    Contact "Contact" "m",
    ContentDisposition "Content-Disposition",
    ContentEncoding "Content-Encoding" "e",
    ContentId "Content-ID",
    ContentLanguage "Content-Language",
    ContentLength "Content-Length" "l",
    ContentTransferEncoding "Content-Transfer-Encoding",
    ContentType "Content-Type" "c",
    CSeq "CSeq",
    Date "Date",
    ErrorInfo "Error-Info",
    Event "Event" "o",
    Expires "Expires",
    FlowTimer "Flow-Timer",
    From "From" "f",
    HistoryInfo "History-Info",
    Identity "Identity" "y",
    InReplyTo "In-Reply-To",
    Join "Join",
    MaxBreadth "Max-Breadth",
    MaxForwards "Max-Forwards",
    MimeVersion "MIME-Version",
    MinExpires "Min-Expires",
    MinSe "Min-SE",
    Organization "Organization",
    PAccessNetworkInfo "P-Access-Network-Info",
    PAssertedIdentity "P-Asserted-Identity",
    PAssociatedUri "P-Associated-URI",
    PPreferredIdentity "P-Preferred-Identity",
    Path "Path",
    Priority "Priority",
    Privacy "Privacy",
    ProxyAuthenticate "Proxy-Authenticate",
    ProxyAuthenticationInfo "Proxy-Authentication-Info",
    ProxyAuthorization "Proxy-Authorization",
    ProxyRequire "Proxy-Require",
    RAck "RAck",
    Reason "Reason",
    RecordRoute "Record-Route",
    ReferTo "Refer-To" "r",
    ReferredBy "Referred-By" "b",
    RejectContact "Reject-Contact" "j",
    Replaces "Replaces",
    ReplyTo "Reply-To",
    RequestDisposition "Request-Disposition" "d",
    Require "Require",
    RetryAfter "Retry-After",
    Route "Route",
    RSeq "RSeq",
    Server "Server",
    ServiceRoute "Service-Route",
    SessionExpires "Session-Expires" "x",
    SipEtag "SIP-ETag",
    SipIfMatch "SIP-If-Match",
    Subject "Subject" "s",
    SubscriptionState "Subscription-State",
    Supported "Supported" "k",
    SuppressIfMatch "Suppress-If-Match",
    Timestamp "Timestamp",
    To "To" "t",
    Unsupported "Unsupported",
    UserAgent "User-Agent",
    Via "Via" "v",
    Warning "Warning",
    WwwAuthenticate "WWW-Authenticate",
}

/// Open addressing, filled by the compiler: a power of two well above the number of names, so that probes stay short.
const SLOTS: usize = 512;

static TABLE: [(HeaderName, &str); SLOTS] = table();

#[allow(clippy::indexing_slicing, reason = "runs in the compiler, where an index out of bounds is an error")]
const fn table() -> [(HeaderName, &'static str); SLOTS] {
    let mut table = [(HeaderName::Other, ""); SLOTS];
    let mut at = 0;
    while at < NAMES.len() {
        let octets = NAMES[at].1.as_bytes();
        let mut slot = slot(octets.len(), octets[0], octets[octets.len() / 2], octets[octets.len() - 1]);
        while !table[slot].1.is_empty() {
            slot = (slot + 1) % SLOTS;
        }
        table[slot] = NAMES[at];
        at += 1;
    }
    table
}

const fn slot(length: usize, first: u8, middle: u8, last: u8) -> usize {
    let mixed = length * 37 + (first | 0x20) as usize * 5 + (middle | 0x20) as usize * 67 + (last | 0x20) as usize * 17;
    mixed % SLOTS
}

impl HeaderName {
    /// The header field of that name, long or compact, in any case; white space around it is the caller's to remove.
    pub fn of(name: &[u8]) -> Self {
        let (Some(first), Some(middle), Some(last)) = (name.first(), name.get(name.len() / 2), name.last()) else {
            return Self::Other;
        };
        let mut at = slot(name.len(), *first, *middle, *last);
        while let Some((header, known)) = TABLE.get(at)
            && !known.is_empty()
        {
            // Nearly everybody writes names as the registry does.
            if known.as_bytes() == name || known.as_bytes().eq_ignore_ascii_case(name) {
                return *header;
            }
            at = (at + 1) % SLOTS;
        }
        Self::Other
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A header field is absent where it is required, or its value breaks the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{header}: {what}")]
pub struct HeaderError {
    /// The field at fault.
    pub header: HeaderName,
    /// What is wrong with it.
    pub what: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for (header, name) in NAMES {
            assert_eq!(HeaderName::of(name.as_bytes()), *header);
            assert_eq!(HeaderName::of(name.to_ascii_uppercase().as_bytes()), *header);
            assert_eq!(HeaderName::of(name.to_ascii_lowercase().as_bytes()), *header);
        }
    }

    #[test]
    fn names_near_a_known_one_are_other() {
        for name in ["", "Vi", "Vias", "z", "Content_Length", "X-From", "To ", "\u{e9}"] {
            assert_eq!(HeaderName::of(name.as_bytes()), HeaderName::Other, "{name:?}");
        }
    }
}
