//! MESSAGE: who gets it, in what form, and which of the answers goes back (RFC 3428, RFC 3261 §16).

use std::net::SocketAddr;

use bytes::Bytes;
use commpool_model::acl;
use commpool_sip::build::{Forward, Response};
use commpool_sip::header::HeaderName;
use commpool_sip::message::Message;
use commpool_sip::uri::Uri;
use commpool_store::ops::accounts::State;
use commpool_store::ops::{Endpoint, route};

use super::{Caller, Refusal, Request, own_address};
use crate::settings::Settings;

/// The routing read of a MESSAGE.
pub fn plan(settings: &Settings, request: &Request, caller: &Caller) -> Result<route::Request, Refusal> {
    let message = &request.message;
    let uri = Uri::parse(message.request_uri()).map_err(|_| Refusal::because(400, "Bad Request-URI"))?;
    let target = own_address(settings, &uri)?;
    match message.max_forwards() {
        Ok(Some(0)) => return Err(Refusal::status(483)),
        Ok(_) => {}
        Err(_) => return Err(Refusal::because(400, "Bad Max-Forwards")),
    }
    if message.body().len() > settings.max_message {
        return Err(Refusal::because(413, "Message Too Large"));
    }
    check_routes(settings, message)?;
    Ok(route::Request { target, sender: caller.address.clone() })
}

/// No open relay: a preloaded Route may name only the pool itself.
fn check_routes(settings: &Settings, message: &Message) -> Result<(), Refusal> {
    for value in message.list(HeaderName::Route) {
        let value = value.map_err(|_| Refusal::because(400, "Bad Route"))?;
        let own = commpool_sip::address::NameAddr::parse(&value)
            .is_ok_and(|a| a.uri().is_ok_and(|u| u.user.is_none() && settings.is_self(u.host, u.port)));
        if !own {
            return Err(Refusal::because(403, "Route Leads Elsewhere"));
        }
    }
    Ok(())
}

/// The endpoints that get a request, or why none does. Somebody who denies it looks like somebody not signed in;
/// nobody can deny it to himself.
pub fn recipients(settings: &Settings, caller: &Caller, reply: route::Reply) -> Result<Vec<Endpoint>, Refusal> {
    let Some(target) = reply.found else { return Err(Refusal::status(404)) };
    let same_pool = caller.address.rsplit_once('@').is_some_and(|(_, domain)| settings.serves(domain));
    let verdict = acl::verdict(&target.aces, &caller.address, same_pool, settings.presence);
    let denied = target.user != caller.user && verdict.communication == acl::Communication::Deny;
    if target.state != State::On || denied {
        return Err(Refusal::status(480));
    }
    let alive: Vec<Endpoint> = target.endpoints.into_iter().filter(|e| e.lost_ms.is_none()).collect();
    if alive.is_empty() { Err(Refusal::status(480)) } else { Ok(alive) }
}

/// Whether a request may reach its endpoint over TLS only: it is for a `sips` URI (RFC 3261 §26.2.2, RFC 5630 §3.1).
pub fn needs_tls(message: &Message) -> bool {
    Uri::parse(message.request_uri()).is_ok_and(|uri| uri.is_sips())
}

/// Where a request goes, and for whom.
#[derive(Clone, Copy, Debug)]
pub struct Towards<'a> {
    /// Where it came from: fills `received` and `rport` of the sender's Via.
    pub source: SocketAddr,
    /// Proven sender.
    pub caller: &'a str,
    /// Contact of the endpoint.
    pub contact: &'a str,
    /// Path of the endpoint.
    pub path: &'a [String],
    /// Our Via.
    pub via: &'a str,
}

/// The request as one endpoint gets it: its Contact as Request-URI, our Via on top, identity asserted, credentials
/// and our own Route gone.
pub fn towards(message: &Message, to: &Towards<'_>) -> Bytes {
    let hops = message.max_forwards().ok().flatten().map_or(70, |n| n.min(70).saturating_sub(1));
    let mut forward = Forward::request(message)
        .uri(to.contact)
        .via(to.via)
        .max_forwards(hops)
        .remove(HeaderName::Authorization)
        .remove(HeaderName::ProxyAuthorization)
        .remove(HeaderName::Route)
        .remove(HeaderName::PPreferredIdentity)
        .source(to.source)
        .set(HeaderName::PAssertedIdentity, format!("<sip:{}>", to.caller));
    if !to.path.is_empty() {
        forward = forward.set(HeaderName::Route, to.path.join(", "));
    }
    forward.build()
}

/// What an endpoint's own status becomes towards the sender: no credentials cross users, no 408 to a non-INVITE
/// (RFC 4320 §4.2), a device's 503 says nothing of the pool (RFC 3261 §16.7).
pub const fn mapped(status: u16) -> u16 {
    match status {
        401 | 407 => 403,
        408 => 480,
        503 => 500,
        other => other,
    }
}

/// The better of two final failures (RFC 3261 §16.7 step 6): a 6xx, else the lower class, else the first.
pub const fn better(first: u16, second: u16) -> u16 {
    let (a, b) = (first / 100, second / 100);
    if a != 6 && (b == 6 || b < a) { second } else { first }
}

/// Headers of an endpoint's answer that are not its to set towards the sender.
const OURS: [HeaderName; 9] = [
    HeaderName::Via,
    HeaderName::From,
    HeaderName::To,
    HeaderName::CallId,
    HeaderName::CSeq,
    HeaderName::RecordRoute,
    HeaderName::ContentLength,
    HeaderName::WwwAuthenticate,
    HeaderName::ProxyAuthenticate,
];

/// An endpoint's answer as the sender gets it: built from the sender's request, so that an endpoint cannot change
/// where it goes.
pub fn relayed(request: &Request, answer: &Message, own_tag: &str) -> Bytes {
    let status = mapped(answer.status().unwrap_or(500));
    let tag = answer.to().ok().and_then(|to| to.tag().map(str::to_owned));
    let tag = tag.as_deref().unwrap_or(own_tag);
    let mut response = Response::to(&request.message, status).source(request.info.remote).to_tag(tag);
    let reason = String::from_utf8_lossy(answer.reason());
    if answer.status() == Some(status) {
        response = response.reason(&reason);
    }
    for (name, row) in answer.all_rows() {
        if !OURS.contains(&HeaderName::of(name)) {
            response = response.raw_header(&String::from_utf8_lossy(name), row);
        }
    }
    if status / 100 == 5 && !answer.has(HeaderName::RetryAfter) {
        response = response.header(HeaderName::RetryAfter, super::RETRY_AFTER);
    }
    response.body("", &answer.body()).build()
}
