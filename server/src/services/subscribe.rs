//! SUBSCRIBE: what is watched, for how long, and the answer (RFC 6665, RFC 3856).

use bytes::Bytes;
use commpool_model::acl;
use commpool_model::ids::{EndpointId, Incarnation, Key128, Origin, UserRef, Version};
use commpool_sip::address::Contacts;
use commpool_sip::build::Response;
use commpool_sip::header::HeaderName;
use commpool_sip::message::Message;
use commpool_sip::otid::PoolKey;
use commpool_sip::uri::Uri;
use commpool_store::ops::accounts::State;
use commpool_store::ops::subscribe::{self, CSEQ_STEP, Dialog, Kind};

use super::presence::PIDF;
use super::{ALLOW_EVENTS, Caller, Refusal, Request, asked_expires, jittered, own_address};
use crate::settings::{PoolName, Settings};

/// Lifetime where a client asks for none, and the longest granted, seconds.
const MAX_EXPIRES: u32 = 3600;
/// Shortest lifetime that is not refused (0 ends or polls), seconds.
const MIN_EXPIRES: u32 = 30;
/// Longest route set kept.
const MAX_ROUTES: usize = 8;

/// A SUBSCRIBE as understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Canonical address watched.
    pub presentity: String,
    /// Lifetime granted, seconds; 0: end, or poll once.
    pub expires: u32,
    /// The dialog it makes or stands in.
    pub dialog: Dialog,
    /// Whether it had no To tag.
    pub initial: bool,
    /// Key of the dialog in the store.
    pub sub_id: Key128,
}

/// The presence package only.
pub fn check_event(message: &Message) -> Result<(), Refusal> {
    match message.event() {
        Ok(Some(event)) if event.package.eq_ignore_ascii_case("presence") => Ok(()),
        Ok(_) => Err(Refusal::status(489).with(HeaderName::AllowEvents, ALLOW_EVENTS)),
        Err(_) => Err(Refusal::because(400, "Bad Event")),
    }
}

/// Reads a SUBSCRIBE. `own_tag` is the To tag if the request has none.
pub fn understand(
    settings: &Settings,
    key: &PoolKey,
    request: &Request,
    caller: &Caller,
    own_tag: &str,
) -> Result<Wanted, Refusal> {
    let message = &request.message;
    check_event(message)?;
    check_accept(message)?;
    let to = message.to().map_err(|_| Refusal::because(400, "Bad To"))?;
    let from = message.from().map_err(|_| Refusal::because(400, "Bad From"))?;
    let initial = to.tag().is_none();
    // In a dialog the Request-URI is our Contact; the resource stands in To.
    let resource = if initial { message.request_uri() } else { to.uri };
    let uri = Uri::parse(resource).map_err(|_| Refusal::because(400, "Bad Resource URI"))?;
    let presentity = own_address(settings, &uri)?;
    if initial && !to.uri().is_ok_and(|uri| own_address(settings, &uri).as_ref() == Ok(&presentity)) {
        // Later requests of the dialog name the resource by To alone: it must be the one that is watched from now on.
        return Err(Refusal::because(403, "To Is Not The Resource"));
    }
    let asked = asked_expires(message, MAX_EXPIRES)?;
    if asked > 0 && asked < MIN_EXPIRES {
        return Err(Refusal::status(423).with(HeaderName::MinExpires, MIN_EXPIRES.to_string()));
    }
    let remote_tag = from.tag().ok_or(Refusal::because(400, "From Needs A Tag"))?.to_owned();
    let call_id = message.call_id().map_err(|_| Refusal::because(400, "Bad Call-ID"))?.to_owned();
    let (remote_cseq, _) = message.cseq().map_err(|_| Refusal::because(400, "Bad CSeq"))?;
    // The watcher is part of it, so that nobody can take over another's dialog by its Call-ID and tag.
    let parts = [call_id.as_bytes(), remote_tag.as_bytes(), presentity.as_bytes(), caller.address.as_bytes()];
    let sub_id = key.key128("subscription", &parts);
    let dialog = Dialog {
        call_id,
        local_tag: to.tag().unwrap_or(own_tag).to_owned(),
        remote_tag,
        remote_cseq,
        contact: contact(message)?,
        route: route_set(message)?,
        event_id: message.event().ok().flatten().and_then(|e| e.id().map(str::to_owned)).unwrap_or_default(),
    };
    let expires = asked.min(jittered(MAX_EXPIRES, &request.otid));
    Ok(Wanted { presentity, expires, dialog, initial, sub_id: Key128(sub_id) })
}

fn check_accept(message: &Message) -> Result<(), Refusal> {
    if !message.has(HeaderName::Accept) {
        return Ok(());
    }
    let fits = message.list(HeaderName::Accept).flatten().any(|value| {
        let kind = value.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case(PIDF) || kind == "*/*" || kind.eq_ignore_ascii_case("application/*")
    });
    if fits { Ok(()) } else { Err(Refusal::status(406).with(HeaderName::Accept, PIDF)) }
}

fn contact(message: &Message) -> Result<String, Refusal> {
    match message.contacts() {
        Ok(Contacts::List(list)) => match list.as_slice() {
            [one] => Ok(one.uri.to_owned()),
            _ => Err(Refusal::because(400, "One Contact Needed")),
        },
        _ => Err(Refusal::because(400, "One Contact Needed")),
    }
}

fn route_set(message: &Message) -> Result<Vec<String>, Refusal> {
    let rows = message.list(HeaderName::RecordRoute).map(|r| r.map(|r| r.into_owned()));
    let routes: Vec<String> = rows.collect::<Result<_, _>>().map_err(|_| Refusal::because(400, "Bad Record-Route"))?;
    if routes.len() > MAX_ROUTES { Err(Refusal::because(403, "Too Many Routes")) } else { Ok(routes) }
}

/// The store request of a SUBSCRIBE that this front end cannot carry out from memory.
pub fn plan(
    wanted: &Wanted,
    request: &Request,
    caller: &Caller,
    fe: Incarnation,
    endpoint: Option<EndpointId>,
    held: Option<(UserRef, Version)>,
    pool_seconds: u64,
) -> subscribe::Request {
    subscribe::Request {
        watcher: caller.user,
        watcher_address: caller.address.clone(),
        origin: Origin(request.otid.0),
        fe,
        endpoint,
        sub_id: wanted.sub_id,
        initial: wanted.initial,
        kind: Kind::Presence,
        presentities: vec![wanted.presentity.clone()],
        held: held.into_iter().collect(),
        expires: wanted.expires,
        first_cseq: u32::try_from(pool_seconds).unwrap_or(u32::MAX).saturating_add(CSEQ_STEP),
        dialog: wanted.dialog.clone(),
    }
}

/// Whether a watcher sees somebody's presence, both by their canonical addresses. Who may not sees him offline, whatever
/// the reason; everybody sees himself.
pub fn visible(settings: &Settings, watcher: &str, target: &str, state: State, aces: &[acl::Ace]) -> bool {
    let same_pool = watcher.rsplit_once('@').is_some_and(|(_, domain)| settings.serves(domain));
    let verdict = acl::verdict(aces, watcher, same_pool, settings.presence);
    state == State::On && (watcher == target || verdict.presence == acl::Presence::Allow)
}

/// The 200 to a SUBSCRIBE.
pub fn answer(request: &Request, to_tag: &str, expires: u32, pool: &PoolName) -> Bytes {
    Response::to(&request.message, 200)
        .source(request.info.remote)
        .to_tag(to_tag)
        .header(HeaderName::Contact, format!("<{}>", pool.contact()))
        .header(HeaderName::Expires, expires.to_string())
        .header(HeaderName::AllowEvents, ALLOW_EVENTS)
        .build()
}
