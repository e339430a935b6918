//! The notifier's side of one subscription dialog (RFC 6665 §4.2, RFC 3261 §12), as a value.

use std::time::Duration;

use bytes::Bytes;

use crate::address::NameAddr;
use crate::build::Request;
use crate::header::HeaderName;
use crate::method::Method;
use crate::time::Moment;
use crate::uri::Uri;

/// Longest text taken from a request into a dialog, octets.
pub const LONGEST_TEXT: usize = 2048;
/// Most Record-Route values of a dialog.
pub const MOST_ROUTES: usize = 16;
/// What a new owner adds to the CSeq it starts from, so that a former owner's NOTIFY is refused by the client.
const CSEQ_MARGIN: u32 = 32;
/// What it adds when the client refuses its first NOTIFY all the same.
const CSEQ_LEAP: u32 = 64;
/// CSeq numbers stay below this (RFC 3261 §8.1.1.5).
const CSEQ_LIMIT: u32 = 1 << 31;
/// Average time between two NOTIFYs of a dialog.
const PACE: Duration = Duration::from_secs(1);
/// NOTIFYs that may be sent at once.
const BURST: u32 = 16;

/// What a request says cannot stand in a dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialogError {
    /// A text is empty, longer than [`LONGEST_TEXT`], holds control characters, or is not what it should be.
    #[error("{0} cannot be used in a dialog: it is empty, longer than {LONGEST_TEXT} octets, or malformed")]
    Unfit(&'static str),
    /// More than [`MOST_ROUTES`] Record-Route values.
    #[error("more than {MOST_ROUTES} Record-Route values")]
    TooManyRoutes,
    /// CSeq is not higher than that of an earlier request: 500 (RFC 3261 §12.2.2).
    #[error("CSeq out of order")]
    OutOfOrder,
}

/// All that a SUBSCRIBE says about its dialog. Texts are unfolded header values.
#[derive(Clone, Debug, Default)]
pub struct Subscribe<'a> {
    /// Call-ID.
    pub call_id: &'a str,
    /// Our tag: the To tag of the answer.
    pub local_tag: &'a str,
    /// The subscriber's tag: that of From; empty if it has none (RFC 2543).
    pub remote_tag: &'a str,
    /// To: its display name and URI are kept, parameters are left out.
    pub local_uri: &'a str,
    /// From, likewise.
    pub remote_uri: &'a str,
    /// URI of Contact, without brackets and parameters of the header.
    pub contact: &'a str,
    /// Record-Route values in their order.
    pub route_set: Vec<&'a str>,
    /// Event package, e.g. `presence`.
    pub event_package: &'a str,
    /// `id` parameter of Event.
    pub event_id: Option<&'a str>,
    /// Number of CSeq.
    pub cseq: u32,
    /// Lifetime granted, seconds.
    pub expires: u32,
    /// Highest CSeq known of NOTIFYs sent in this dialog by anyone, 0 if none.
    pub last_local_cseq: u32,
    /// Seconds of pool time since the beginning of 2026.
    pub pool_seconds: u64,
}

/// State of a subscription as told in `Subscription-State`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubState {
    /// Authorised.
    Active,
    /// Not decided yet.
    Pending,
    /// Over.
    Terminated(Reason),
}

/// Why a subscription is over (RFC 6665 §4.1.3), and what the subscriber does then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Moved: subscribe again at once.
    Deactivated,
    /// Subscribe again later.
    Probation,
    /// Not allowed (any more): do not subscribe again.
    Rejected,
    /// Not refreshed: may subscribe again.
    Timeout,
    /// No decision could be had: subscribe again later.
    Giveup,
    /// What was watched does not exist any more.
    Noresource,
    /// The state never changes.
    Invariant,
}

impl Reason {
    /// The value of the `reason` parameter.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deactivated => "deactivated",
            Self::Probation => "probation",
            Self::Rejected => "rejected",
            Self::Timeout => "timeout",
            Self::Giveup => "giveup",
            Self::Noresource => "noresource",
            Self::Invariant => "invariant",
        }
    }
}

/// What an answer to a NOTIFY means for the subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It goes on.
    Keep,
    /// It is over: forget it, send nothing.
    End,
    /// Somebody else's NOTIFY had a higher CSeq: send the state again, once; the next CSeq is higher by 64.
    RetryHigherCSeq,
}

/// A dialog that a subscription lives in, as its notifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialog {
    call_id: String,
    local_tag: String,
    remote_tag: String,
    local_uri: String,
    remote_uri: String,
    remote_target: String,
    route_set: Vec<String>,
    event_package: String,
    event_id: Option<String>,
    local_cseq: u32,
    remote_cseq: u32,
    expires_at: Moment,
    /// When the NOTIFYs sent so far would all have been sent at the average pace.
    paced_until: Moment,
    /// No NOTIFY of ours has been accepted yet, so a 500 may mean that another front end is ahead.
    unproven: bool,
}

impl Dialog {
    /// The dialog that a SUBSCRIBE makes, or, if it has a To tag already, the one it shows: a front end that does not
    /// know the dialog rebuilds it from the request.
    ///
    /// # Errors
    /// [`DialogError::Unfit`] names the field, [`DialogError::TooManyRoutes`]: answer 400.
    pub fn new(now: Moment, subscribe: &Subscribe<'_>) -> Result<Self, DialogError> {
        if subscribe.route_set.len() > MOST_ROUTES {
            return Err(DialogError::TooManyRoutes);
        }
        let remote_tag = match subscribe.remote_tag {
            "" => String::new(),
            tag => word("From tag", tag)?,
        };
        let pool_seconds = u32::try_from(subscribe.pool_seconds).unwrap_or(CSEQ_LIMIT);
        let first_cseq = pool_seconds.max(subscribe.last_local_cseq).saturating_add(CSEQ_MARGIN);
        Ok(Self {
            call_id: fit("Call-ID", subscribe.call_id)?.to_owned(),
            local_tag: word("To tag", subscribe.local_tag)?,
            remote_tag,
            local_uri: address("To", subscribe.local_uri)?,
            remote_uri: address("From", subscribe.remote_uri)?,
            remote_target: target(subscribe.contact)?,
            route_set: subscribe.route_set.iter().map(|value| route(value)).collect::<Result<_, _>>()?,
            event_package: word("Event", subscribe.event_package)?,
            event_id: subscribe.event_id.map(|id| word("Event id", id)).transpose()?,
            local_cseq: first_cseq.min(CSEQ_LIMIT - 1) - 1,
            remote_cseq: subscribe.cseq,
            expires_at: now + Duration::from_secs(subscribe.expires.into()),
            paced_until: now,
            unproven: true,
        })
    }

    /// Takes in another SUBSCRIBE of the dialog: a refresh, or, with `expires` 0, its end. A NOTIFY must follow at once
    /// either way (RFC 6665 §4.2.1.2, §4.2.1.4).
    ///
    /// `contact`: its Contact URI, which replaces the remote target (RFC 6665 §4.4.1); `None` keeps the one known.
    ///
    /// # Errors
    /// [`DialogError::OutOfOrder`], [`DialogError::Unfit`]; nothing has changed then.
    pub fn refresh(&mut self, now: Moment, cseq: u32, contact: Option<&str>, expires: u32) -> Result<(), DialogError> {
        if cseq <= self.remote_cseq {
            return Err(DialogError::OutOfOrder);
        }
        if let Some(contact) = contact {
            self.remote_target = target(contact)?;
        }
        self.remote_cseq = cseq;
        self.expires_at = now + Duration::from_secs(expires.into());
        Ok(())
    }

    /// Whether a NOTIFY may be sent: one a second on average, at most 16 at once. NOTIFYs that a SUBSCRIBE demands are
    /// sent without asking.
    ///
    /// # Errors
    /// The moment from which on one may be sent.
    pub fn ready(&self, now: Moment) -> Result<(), Moment> {
        let from = self.paced_until - PACE * (BURST - 1);
        if from <= now { Ok(()) } else { Err(from) }
    }

    /// The next NOTIFY: complete, with the next CSeq.
    ///
    /// `via` is a Via value with a branch of its own, `pool_contact` the URI by which this client reaches the pool,
    /// `body` a content type and the octets.
    pub fn notify(
        &mut self,
        now: Moment,
        via: &str,
        pool_contact: &str,
        state: SubState,
        body: Option<(&str, &[u8])>,
    ) -> Bytes {
        self.local_cseq = (self.local_cseq + 1).min(CSEQ_LIMIT - 1);
        self.paced_until = self.paced_until.max(now) + PACE;
        let (request_uri, routes, last) = self.way();
        let mut request = Request::new(Method::Notify, request_uri).header(HeaderName::Via, via);
        for route in routes {
            request = request.header(HeaderName::Route, route);
        }
        if let Some(last) = last {
            request = request.header(HeaderName::Route, format!("<{last}>"));
        }
        request = request
            .header(HeaderName::MaxForwards, "70")
            .header(HeaderName::From, with_tag(&self.local_uri, &self.local_tag))
            .header(HeaderName::To, with_tag(&self.remote_uri, &self.remote_tag))
            .header(HeaderName::CallId, &self.call_id)
            .header(HeaderName::CSeq, format!("{} NOTIFY", self.local_cseq))
            .header(HeaderName::Contact, format!("<{pool_contact}>"))
            .header(HeaderName::Event, self.event())
            .header(HeaderName::SubscriptionState, self.state(now, state));
        match body {
            Some((content_type, octets)) => request.body(content_type, octets).build(),
            None => request.build(),
        }
    }

    /// What the status of a final answer to a NOTIFY means.
    ///
    /// No answer at all over a flow that lives ends the subscription too (RFC 6665 §4.2.2); a lost flow does not.
    pub fn answer(&mut self, status: u16) -> After {
        match status {
            200..=299 => {
                self.unproven = false;
                After::Keep
            }
            404 | 405 | 410 | 416 | 480..=485 | 489 | 501 | 604 => After::End,
            500 if self.unproven => {
                self.unproven = false;
                self.local_cseq = self.local_cseq.saturating_add(CSEQ_LEAP);
                After::RetryHigherCSeq
            }
            _ => After::Keep,
        }
    }

    /// An owner before has used numbers up to `cseq`: ours go on above it.
    pub fn raise(&mut self, cseq: u32) {
        self.local_cseq = self.local_cseq.max(cseq);
    }

    /// Whether the lifetime granted has passed.
    pub fn is_expired(&self, now: Moment) -> bool {
        self.expires_at <= now
    }

    /// Whole seconds of lifetime left.
    pub fn remaining(&self, now: Moment) -> u64 {
        self.expires_at.since(now).as_secs()
    }

    /// When the subscription ends unless it is refreshed.
    pub fn expires_at(&self) -> Moment {
        self.expires_at
    }

    /// Call-ID.
    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    /// Our tag.
    pub fn local_tag(&self) -> &str {
        &self.local_tag
    }

    /// The subscriber's tag, empty if it has none.
    pub fn remote_tag(&self) -> &str {
        &self.remote_tag
    }

    /// Where NOTIFYs go: the subscriber's Contact URI.
    pub fn remote_target(&self) -> &str {
        &self.remote_target
    }

    /// Record-Route values in the order they are used as Route.
    pub fn route_set(&self) -> &[String] {
        &self.route_set
    }

    /// Event package.
    pub fn event_package(&self) -> &str {
        &self.event_package
    }

    /// `id` parameter of Event.
    pub fn event_id(&self) -> Option<&str> {
        self.event_id.as_deref()
    }

    /// CSeq of the last NOTIFY made (before the first one: the number before it).
    pub fn local_cseq(&self) -> u32 {
        self.local_cseq
    }

    /// CSeq of the last SUBSCRIBE taken in.
    pub fn remote_cseq(&self) -> u32 {
        self.remote_cseq
    }

    /// Request-URI, Route values, and a last Route URI (RFC 3261 §12.2.1.1). A strict router, known by the missing `lr`,
    /// wants to be in the Request-URI, and the target in the last Route.
    fn way(&self) -> (&str, &[String], Option<&str>) {
        let target = self.remote_target.as_str();
        let Some((first, rest)) = self.route_set.split_first() else { return (target, &[], None) };
        match NameAddr::parse(first).ok().and_then(|route| route.uri().ok()) {
            Some(uri) if uri.param("lr").is_none() => (uri.text, rest, Some(target)),
            _ => (target, &self.route_set, None),
        }
    }

    fn event(&self) -> String {
        match &self.event_id {
            Some(id) => format!("{};id={id}", self.event_package),
            None => self.event_package.clone(),
        }
    }

    fn state(&self, now: Moment, state: SubState) -> String {
        match state {
            SubState::Active => format!("active;expires={}", self.remaining(now)),
            SubState::Pending => format!("pending;expires={}", self.remaining(now)),
            SubState::Terminated(reason) => format!("terminated;reason={}", reason.as_str()),
        }
    }
}

/// An address with its tag, if it has one.
fn with_tag(address: &str, tag: &str) -> String {
    if tag.is_empty() { address.to_owned() } else { format!("{address};tag={tag}") }
}

/// A text of a request that may stand in a message of ours.
fn fit<'a>(what: &'static str, text: &'a str) -> Result<&'a str, DialogError> {
    let text = text.trim();
    if text.is_empty() || text.len() > LONGEST_TEXT || text.bytes().any(|octet| octet.is_ascii_control()) {
        return Err(DialogError::Unfit(what));
    }
    Ok(text)
}

/// A text that may stand as one word between separators.
fn word(what: &'static str, text: &str) -> Result<String, DialogError> {
    let text = fit(what, text)?;
    if text.contains([' ', ';', ',', '"', '<', '>']) {
        return Err(DialogError::Unfit(what));
    }
    Ok(text.to_owned())
}

/// A From or To value without its parameters, in brackets so that ours can be added.
fn address(what: &'static str, value: &str) -> Result<String, DialogError> {
    let parsed = NameAddr::parse(fit(what, value)?).map_err(|_| DialogError::Unfit(what))?;
    Ok(match parsed.display {
        Some(display) => format!("{display} <{}>", parsed.uri),
        None => format!("<{}>", parsed.uri),
    })
}

/// A Contact URI fit for a Request-URI: without headers (RFC 3261 §19.1.1).
fn target(uri: &str) -> Result<String, DialogError> {
    let parsed = Uri::parse(fit("Contact", uri)?).map_err(|_| DialogError::Unfit("Contact"))?;
    let headers = parsed.headers.map_or(0, |headers| headers.len() + 1);
    let end = parsed.text.len().saturating_sub(headers);
    Ok(parsed.text.get(..end).unwrap_or(parsed.text).to_owned())
}

/// A Record-Route value that can be used as Route.
fn route(value: &str) -> Result<String, DialogError> {
    let value = fit("Record-Route", value)?;
    match NameAddr::parse(value).is_ok_and(|route| route.uri().is_ok()) {
        true => Ok(value.to_owned()),
        false => Err(DialogError::Unfit("Record-Route")),
    }
}

#[cfg(test)]
#[path = "subscription_tests.rs"]
mod tests;
