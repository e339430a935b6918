//! PUBLISH: a device's state into a publication (RFC 3903).

use bytes::Bytes;
use commpool_model::ids::{EndpointId, Key128, Origin};
use commpool_sip::build::Response;
use commpool_sip::header::HeaderName;
use commpool_sip::message::Message;
use commpool_sip::otid::{PoolKey, parse128, text128};
use commpool_store::ops::FlowRef;
use commpool_store::ops::presence::{Action, Publish};

use super::presence::{self, PIDF, Unusable};
use super::subscribe::check_event;
use super::{Caller, Refusal, Request, asked_expires, jittered, names_caller};
use crate::settings::Settings;

/// Lifetime where a client asks for none, and the longest granted, seconds.
const MAX_EXPIRES: u32 = 3600;
/// Shortest lifetime that is not refused, seconds.
const MIN_EXPIRES: u32 = 30;

/// The store request of a PUBLISH.
pub fn plan(
    settings: &Settings,
    key: &PoolKey,
    request: &Request,
    caller: &Caller,
    flow: FlowRef,
    endpoint: Option<EndpointId>,
) -> Result<Publish, Refusal> {
    let message = &request.message;
    check_event(message)?;
    if !names_caller(settings, message.request_uri(), caller) {
        return Err(Refusal::because(403, "Only Your Own State"));
    }
    let if_match = if_match(message)?;
    let asked = asked_expires(message, MAX_EXPIRES)?;
    if asked > 0 && asked < MIN_EXPIRES {
        return Err(Refusal::status(423).with(HeaderName::MinExpires, MIN_EXPIRES.to_string()));
    }
    let expires = asked.min(jittered(MAX_EXPIRES, &request.otid));
    let action = action(message, if_match.is_some(), asked, expires)?;
    let tag = Key128(key.entity_tag(&request.otid));
    Ok(Publish { user: caller.user, origin: Origin(request.otid.0), flow, endpoint, if_match, tag, action })
}

fn if_match(message: &Message) -> Result<Option<Key128>, Refusal> {
    let Some(text) = message.text(HeaderName::SipIfMatch) else { return Ok(None) };
    // A tag that is none of ours cannot name a live publication.
    parse128(text.trim()).map(|tag| Some(Key128(tag))).ok_or(Refusal::status(412))
}

fn action(message: &Message, known: bool, asked: u32, expires: u32) -> Result<Action, Refusal> {
    let body = message.body();
    match (known, asked, body.is_empty()) {
        (true, 0, _) => Ok(Action::Remove),
        (false, 0, _) => Err(Refusal::because(400, "Nothing To Remove")),
        (true, _, true) => Ok(Action::Refresh { expires }),
        (false, _, true) => Err(Refusal::because(400, "No State In Body")),
        (_, _, false) => {
            check_content_type(message)?;
            let (state, document) = presence::published(&body).map_err(|e| match e {
                Unusable::Malformed => Refusal::because(400, "Bad PIDF Document"),
                Unusable::TooLarge => Refusal::because(413, "Presence Document Too Large"),
            })?;
            Ok(Action::Set { expires, state: Box::new(state), document })
        }
    }
}

fn check_content_type(message: &Message) -> Result<(), Refusal> {
    let text = message.text(HeaderName::ContentType).unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim();
    let encoded = message.text(HeaderName::ContentEncoding).is_some_and(|e| !e.eq_ignore_ascii_case("identity"));
    if essence.eq_ignore_ascii_case(PIDF) && !encoded {
        Ok(())
    } else {
        Err(Refusal::status(415).with(HeaderName::Accept, PIDF).with(HeaderName::AcceptEncoding, "identity"))
    }
}

/// The 200 to a PUBLISH.
pub fn answer(request: &Request, publish: &Publish, to_tag: &str) -> Bytes {
    let expires = match publish.action {
        Action::Set { expires, .. } | Action::Refresh { expires } => expires,
        Action::Remove => 0,
    };
    Response::to(&request.message, 200)
        .source(request.info.remote)
        .to_tag(to_tag)
        .header(HeaderName::SipEtag, text128(&publish.tag.0))
        .header(HeaderName::Expires, expires.to_string())
        .build()
}
