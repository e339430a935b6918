//! The notifier's side of one subscription dialog (RFC 6665 §4.2, RFC 3261 §12), as a value.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;

use crate::time::Moment;

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
    /// A text is empty, longer than [`LONGEST_TEXT`], or holds control characters.
    #[error("{0} cannot be used in a dialog: empty, too long, or with control characters")]
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
    /// To without its parameters: display name and URI in brackets, or a bare URI.
    pub local_uri: &'a str,
    /// From without its parameters, likewise.
    pub remote_uri: &'a str,
    /// URI of Contact, without brackets and header parameters.
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
        let remote_tag = if subscribe.remote_tag.is_empty() { "" } else { fit("From tag", subscribe.remote_tag)? };
        let pool_seconds = u32::try_from(subscribe.pool_seconds).unwrap_or(CSEQ_LIMIT);
        let first_cseq = pool_seconds.max(subscribe.last_local_cseq).saturating_add(CSEQ_MARGIN);
        Ok(Self {
            call_id: fit("Call-ID", subscribe.call_id)?.to_owned(),
            local_tag: fit("To tag", subscribe.local_tag)?.to_owned(),
            remote_tag: remote_tag.to_owned(),
            local_uri: bracketed(fit("To", subscribe.local_uri)?),
            remote_uri: bracketed(fit("From", subscribe.remote_uri)?),
            remote_target: target(fit("Contact", subscribe.contact)?).to_owned(),
            route_set: subscribe
                .route_set
                .iter()
                .map(|route| fit("Record-Route", route).map(str::to_owned))
                .collect::<Result<_, _>>()?,
            event_package: fit("Event", subscribe.event_package)?.to_owned(),
            event_id: subscribe.event_id.map(|id| fit("Event id", id).map(str::to_owned)).transpose()?,
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
            self.remote_target = target(fit("Contact", contact)?).to_owned();
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
    /// `body` a content type and the octets. All three are the pool's own words; control characters in the texts are
    /// left out.
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
        let (content_type, octets) = body.map_or((None, &[][..]), |(kind, octets)| (Some(kind), octets));
        let mut message = Lines(Vec::with_capacity(1024 + octets.len()));
        let (request_uri, routes, last) = self.way();
        message.line(&["NOTIFY ", request_uri, " SIP/2.0"]);
        message.line(&["Via: ", via]);
        for route in routes {
            message.line(&["Route: ", route]);
        }
        if let Some(last) = last {
            message.line(&["Route: <", last, ">"]);
        }
        message.line(&["Max-Forwards: 70"]);
        message.line(&["From: ", &self.local_uri, ";tag=", &self.local_tag]);
        if self.remote_tag.is_empty() {
            message.line(&["To: ", &self.remote_uri]);
        } else {
            message.line(&["To: ", &self.remote_uri, ";tag=", &self.remote_tag]);
        }
        message.line(&["Call-ID: ", &self.call_id]);
        message.number("CSeq: ", self.local_cseq.into(), " NOTIFY");
        message.line(&["Contact: <", pool_contact, ">"]);
        match &self.event_id {
            Some(id) => message.line(&["Event: ", &self.event_package, ";id=", id]),
            None => message.line(&["Event: ", &self.event_package]),
        }
        match state {
            SubState::Active => message.number("Subscription-State: active;expires=", self.remaining(now), ""),
            SubState::Pending => message.number("Subscription-State: pending;expires=", self.remaining(now), ""),
            SubState::Terminated(reason) => {
                message.line(&["Subscription-State: terminated;reason=", reason.as_str()]);
            }
        }
        if let Some(content_type) = content_type {
            message.line(&["Content-Type: ", content_type]);
        }
        message.number("Content-Length: ", octets.len() as u64, "");
        message.line(&[]);
        message.0.extend_from_slice(octets);
        Bytes::from(message.0)
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
        match self.route_set.split_first() {
            Some((first, rest)) if !is_loose(first) => (route_uri(first), rest, Some(&self.remote_target)),
            _ => (&self.remote_target, &self.route_set, None),
        }
    }
}

/// A message in the making. Control characters never get into a line.
struct Lines(Vec<u8>);

impl Lines {
    fn line(&mut self, parts: &[&str]) {
        for part in parts {
            if part.bytes().any(|octet| octet.is_ascii_control()) {
                self.0.extend(part.bytes().filter(|octet| !octet.is_ascii_control()));
            } else {
                self.0.extend_from_slice(part.as_bytes());
            }
        }
        self.0.extend_from_slice(b"\r\n");
    }

    fn number(&mut self, before: &str, number: u64, after: &str) {
        // Writing to a Vec does not fail.
        let _ = write!(self.0, "{before}{number}{after}\r\n");
    }
}

/// A text of a request that may stand in a message of ours.
fn fit<'a>(what: &'static str, text: &'a str) -> Result<&'a str, DialogError> {
    let text = text.trim();
    if text.is_empty() || text.len() > LONGEST_TEXT || text.bytes().any(|octet| octet.is_ascii_control()) {
        return Err(DialogError::Unfit(what));
    }
    Ok(text)
}

/// A From or To value to which parameters can be added.
fn bracketed(value: &str) -> String {
    if value.ends_with('>') { value.to_owned() } else { format!("<{value}>") }
}

/// A URI fit for a Request-URI: without headers (RFC 3261 §19.1.1).
fn target(uri: &str) -> &str {
    let host = uri.find('@').unwrap_or(0);
    match uri.get(host..).and_then(|rest| rest.find('?')) {
        Some(headers) => uri.get(..host + headers).unwrap_or(uri),
        None => uri,
    }
}

/// URI of a Route value, between its brackets.
fn route_uri(route: &str) -> &str {
    let inner = route.split_once('<').map_or(route, |(_, rest)| rest);
    inner.split_once('>').map_or(inner, |(uri, _)| uri)
}

/// Whether the URI of a Route value has the `lr` parameter.
fn is_loose(route: &str) -> bool {
    let uri = route_uri(route);
    let after_user = uri.rsplit_once('@').map_or(uri, |(_, rest)| rest);
    after_user
        .split(['?', ';'])
        .skip(1)
        .any(|parameter| parameter.split('=').next().unwrap_or_default().trim().eq_ignore_ascii_case("lr"))
}

#[cfg(test)]
#[path = "subscription_tests.rs"]
mod tests;
