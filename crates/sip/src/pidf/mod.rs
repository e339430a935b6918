//! Presence documents: PIDF (RFC 3863) with the data model's person (RFC 4479) and RPID activities (RFC 4480).
//!
//! Documents of strangers are read into [`Document`], which keeps what presence is made of and nothing else; watchers get
//! what [`write()`] makes of one, never a stranger's octets.

mod parse;
mod reader;
mod write;

pub use parse::parse;
pub use write::write;

/// MIME type of a presence document.
pub const CONTENT_TYPE: &str = "application/pidf+xml";

/// Longest document, octets.
pub const MOST_OCTETS: usize = 64 * 1024;
/// Deepest nesting of elements.
pub const MOST_DEPTH: usize = 16;
/// Most elements in a document.
pub const MOST_ELEMENTS: usize = 4096;
/// Most attributes of one element, namespace declarations among them.
pub const MOST_ATTRIBUTES: usize = 64;
/// Most namespace declarations in a document.
pub const MOST_NAMESPACES: usize = 64;

const PIDF: &str = "urn:ietf:params:xml:ns:pidf";
const DATA_MODEL: &str = "urn:ietf:params:xml:ns:pidf:data-model";
const RPID: &str = "urn:ietf:params:xml:ns:pidf:rpid";

/// Why a body is no presence document for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PidfError {
    /// One of the bounds of this module is passed.
    #[error("the presence document has too many {0}")]
    TooMany(&'static str),
    /// There is a document type declaration: refused, since it could define entities.
    #[error("the presence document has a DOCTYPE")]
    Doctype,
    /// Not UTF-8, or it says that it is not.
    #[error("the presence document is not in UTF-8")]
    Encoding,
    /// Not well-formed XML.
    #[error("the presence document is not well-formed near octet {0}")]
    Syntax(u64),
    /// Well-formed, but its root is not PIDF's `presence`.
    #[error("the root of the document is not presence of {PIDF}")]
    NotPidf,
}

/// A presence document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// Whose presence, a URI; empty if the document does not say.
    pub entity: String,
    /// Services or devices, in their order.
    pub tuples: Vec<Tuple>,
    /// The human being (RFC 4479 §3.2); of several the first.
    pub person: Option<Person>,
    /// Notes on the presentity as a whole.
    pub notes: Vec<Note>,
}

/// One means of communication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuple {
    /// Its id.
    pub id: String,
    /// Whether it takes messages; `None` if nothing, or nothing known, is said.
    pub basic: Option<Basic>,
    /// Where to reach it: a URI, with its priority in thousandths (0–1000) if given.
    pub contact: Option<(String, Option<u16>)>,
    /// RPID activities by element name, e.g. `on-the-phone`.
    pub activities: Vec<String>,
    /// Notes.
    pub notes: Vec<Note>,
    /// When it changed (RFC 3339), as written.
    pub timestamp: Option<String>,
}

/// Basic status of a tuple (RFC 3863 §4.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basic {
    /// Takes messages.
    Open,
    /// Does not.
    Closed,
}

impl Basic {
    /// The text of the element.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// The human being behind the presentity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    /// Its id.
    pub id: String,
    /// RPID activities by element name, e.g. `on-the-phone`.
    pub activities: Vec<String>,
    /// Notes.
    pub notes: Vec<Note>,
    /// When it changed (RFC 3339), as written.
    pub timestamp: Option<String>,
}

/// A text for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// Language tag, if given.
    pub lang: Option<String>,
    /// The text, without white space around it.
    pub text: String,
}

impl Note {
    /// A note without language.
    pub fn new(text: impl Into<String>) -> Self {
        Self { lang: None, text: text.into() }
    }
}

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
