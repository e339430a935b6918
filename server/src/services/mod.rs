//! Services: pure functions from requests to store operations, and from their outcomes to answers.

pub mod message;
pub mod presence;
pub mod publish;
pub mod register;
pub mod subscribe;

use commpool_model::ids::UserRef;
use commpool_sip::header::HeaderName;
use commpool_sip::message::Message;
use commpool_sip::otid::Otid;
use commpool_sip::time::Moment;
use commpool_sip::uri::Uri;

use crate::engine::flow::{Flow, FlowInfo};
use crate::settings::Settings;

/// Methods the server carries out, as the value of Allow.
pub const ALLOW: &str = "REGISTER, MESSAGE, PUBLISH, SUBSCRIBE, OPTIONS";
/// Event packages, as the value of Allow-Events.
pub const ALLOW_EVENTS: &str = "presence";
/// Seconds a client is asked to wait where nothing better is known.
pub const RETRY_AFTER: &str = "5";

/// A request on its way through the engine.
#[derive(Clone, Debug)]
pub struct Request {
    /// Identity of its transaction.
    pub otid: Otid,
    /// Flow it came in on.
    pub flow: Flow,
    /// That flow from the outside.
    pub info: FlowInfo,
    /// The message.
    pub message: Message,
    /// When it came.
    pub received: Moment,
}

/// Who sent a request, proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user: UserRef,
    /// His canonical address.
    pub address: String,
    /// Stamp of his account.
    pub stamp: u64,
}

/// An answer that ends a request without success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status, 300–699.
    pub status: u16,
    /// What is wrong, as reason phrase; empty: the status' own.
    pub why: &'static str,
    /// Further headers.
    pub headers: Vec<(HeaderName, String)>,
}

impl Refusal {
    /// A refusal with the status' own phrase.
    pub const fn status(status: u16) -> Self {
        Self { status, why: "", headers: Vec::new() }
    }

    /// A refusal that says why.
    pub const fn because(status: u16, why: &'static str) -> Self {
        Self { status, why, headers: Vec::new() }
    }

    /// The same with one more header.
    pub fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// No front end can take it now, since the store is away.
    pub fn unavailable() -> Self {
        Self::status(503).with(HeaderName::RetryAfter, RETRY_AFTER)
    }

    /// The store cannot take it now, or the incarnation is not valid any more. Like every 500 and 503 it carries
    /// Retry-After; 500 and not 503, since another front end may do better.
    pub fn later(why: &'static str) -> Self {
        Self::because(500, why).with(HeaderName::RetryAfter, RETRY_AFTER)
    }
}

/// The canonical address a URI names, if it is a user of a domain of ours.
pub fn own_address(settings: &Settings, uri: &Uri<'_>) -> Result<String, Refusal> {
    if !(uri.is_sip() || uri.is_sips()) {
        return Err(Refusal::status(416));
    }
    if !settings.serves(uri.host) {
        return Err(Refusal::because(403, "Domain Not Served Here"));
    }
    let user = uri.user_decoded();
    if user.is_empty() {
        return Err(Refusal::because(404, "No User In Request-URI"));
    }
    commpool_model::address::Address::new(&user, uri.host)
        .map(|a| a.to_string())
        .map_err(|_| Refusal::because(404, "No Such User"))
}

/// Whether the caller names himself in a header that must (From, To of REGISTER and PUBLISH).
pub fn names_caller(settings: &Settings, uri: &str, caller: &Caller) -> bool {
    Uri::parse(uri).is_ok_and(|u| own_address(settings, &u).is_ok_and(|a| a == caller.address))
}

/// The expiry a request asks for: its Expires header, else the default.
pub fn asked_expires(message: &Message, default: u32) -> Result<u32, Refusal> {
    match message.expires() {
        Ok(Some(seconds)) => Ok(seconds),
        Ok(None) => Ok(default),
        Err(_) => Err(Refusal::because(400, "Bad Expires")),
    }
}

/// A lifetime cut by up to a tenth, so that what was granted together does not fall due together. A function of the
/// transaction: a retransmission gets the same.
pub fn jittered(seconds: u32, otid: &Otid) -> u32 {
    let share = u32::from(otid.0[0]) * 100 / 255;
    seconds - seconds * share / 1000
}
