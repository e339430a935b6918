//! Sans-IO SIP: framing, messages, transactions, subscription dialogs, Digest, PIDF.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod address;
pub mod build;
mod chars;
pub mod digest;
pub mod frame;
pub mod header;
mod host;
mod identity;
pub mod limits;
pub mod message;
pub mod method;
pub mod otid;
pub mod params;
pub mod pidf;
mod scan;
pub mod status;
pub mod stun;
pub mod subscription;
pub mod time;
pub mod transaction;
mod typed;
pub mod uri;
pub mod validate;
pub mod values;
pub mod via;

pub use address::{Contacts, NameAddr};
pub use build::{Forward, Request, Response};
pub use frame::{Frame, FrameError, StreamFramer};
pub use header::{HeaderError, HeaderName};
pub use limits::Limits;
pub use message::{Malformed, Message};
pub use method::Method;
pub use uri::{Uri, UriError};
pub use validate::Invalid;
pub use via::{Rport, Via};
