//! Conversions between Commpool's SIP messages and rsip's, exact or refused.
//!
//! rsip cannot hold every SIP message, and some it holds differently from what was said. So a conversion here compares what came out with
//! what went in, and refuses where they differ. What may differ is spelling that means the same (RFC 3261 §7.3.1, §19.1.4): compact
//! and long names, case of names, folding, one row with several Via or Contact values or one row each, case of a `transport` parameter.
//!
//! The typed views of rsip that have been compared are those of From, To, Via, Contact and CSeq. Of other headers the text is the same,
//! and what rsip reads in it is rsip's affair.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod compare;
mod text;

use bytes::Bytes;
use commpool_sip::{Limits, Message};

pub use compare::compare;

/// The message cannot be held by the other side without being changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot be carried unchanged: {what}")]
pub struct NotCarried {
    /// The part at fault and why.
    pub what: &'static str,
}

const fn not(what: &'static str) -> NotCarried {
    NotCarried { what }
}

/// The message as rsip holds it.
///
/// # Errors
/// The message is not valid, rsip cannot read it, or reads it differently.
pub fn to_rsip(message: &Message) -> Result<rsip::SipMessage, NotCarried> {
    message.validate().map_err(|invalid| not(invalid.what))?;
    let head = text::head(message)?;
    let mut theirs = rsip::SipMessage::try_from(head.as_bytes()).map_err(|_| not("rsip refuses the message"))?;
    *theirs.body_mut() = message.body().to_vec();
    let back = parse(text::of_rsip(&theirs)?)?;
    let plain = parse(text::with_body(&head, &message.body()))?;
    compare::same_message(&plain, &back)?;
    compare(&plain, &theirs)?;
    Ok(theirs)
}

/// The message of rsip as ours. A reason phrase that rsip does not keep becomes the standard one.
///
/// # Errors
/// What rsip writes is no valid message, or reads otherwise than rsip says.
pub fn from_rsip(theirs: &rsip::SipMessage) -> Result<Message, NotCarried> {
    let message = parse(text::of_rsip(theirs)?)?;
    message.validate().map_err(|invalid| not(invalid.what))?;
    compare(&message, theirs)?;
    Ok(message)
}

fn parse(octets: Vec<u8>) -> Result<Message, NotCarried> {
    Message::parse_framed(Bytes::from(octets), &Limits::default()).map_err(|malformed| not(malformed.what))
}
