//! REGISTER: Contacts into bindings, bindings into the answer (RFC 3261 §10.3, RFC 5626 §6).

use bytes::Bytes;
use commpool_model::ids::{Incarnation, Key128, Origin};
use commpool_sip::address::{Contacts as SipContacts, NameAddr};
use commpool_sip::build::Response;
use commpool_sip::header::HeaderName;
use commpool_sip::message::Message;
use commpool_sip::otid::PoolKey;
use commpool_store::ops::register::{self, Binding, Contacts};
use commpool_store::ops::{Endpoint, FlowRef, Transport};

use super::{Caller, Refusal, Request, asked_expires, jittered, names_caller};
use crate::settings::Settings;

/// Lifetime where a client asks for none, seconds.
const DEFAULT_EXPIRES: u32 = 3600;
/// Shortest lifetime that is not refused, seconds.
const MIN_EXPIRES: u32 = 30;
/// Longest lifetime by class of flow, seconds (`pool-flows` rule: short where a dead connection may go unnoticed).
const MAX_OUTBOUND: u32 = 1800;
const MAX_STREAM: u32 = 600;
const MAX_UDP: u32 = 120;
/// Most Contacts in one request.
const MAX_CONTACTS: usize = 10;

/// The store request of a REGISTER.
///
/// Whose bindings it is about stands in To, which must name a user of a domain of ours. The domain of the Request-URI is
/// not compared (RFC 3261 §10.3 step 1 would have it): many clients write there the name of the server they were told to
/// connect to, and not all names that lead here are known here.
pub fn plan(
    settings: &Settings,
    key: &PoolKey,
    request: &Request,
    caller: &Caller,
    flow: FlowRef,
    unreachable: Vec<Incarnation>,
) -> Result<register::Request, Refusal> {
    let message = &request.message;
    let to = message.to().map_err(|_| Refusal::because(400, "Bad To"))?;
    if !names_caller(settings, to.uri, caller) {
        return Err(Refusal::because(403, "To Is Not You"));
    }
    let (cseq, _) = message.cseq().map_err(|_| Refusal::because(400, "Bad CSeq"))?;
    let call_id = message.call_id().map_err(|_| Refusal::because(400, "Bad Call-ID"))?.to_owned();
    let contacts = contacts(settings, key, request)?;
    let agent = message.text(HeaderName::UserAgent).map(|a| clipped(&a, 128)).unwrap_or_default();
    Ok(register::Request {
        user: caller.user,
        origin: Origin(request.otid.0),
        call_id,
        cseq,
        flow,
        agent,
        contacts,
        unreachable,
    })
}

fn clipped(text: &str, octets: usize) -> String {
    let mut end = octets.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

fn contacts(settings: &Settings, key: &PoolKey, request: &Request) -> Result<Contacts, Refusal> {
    let message = &request.message;
    match message.contacts().map_err(|_| Refusal::because(400, "Bad Contact"))? {
        SipContacts::None => Ok(Contacts::Query),
        SipContacts::Star => match message.expires() {
            Ok(Some(0)) => Ok(Contacts::RemoveAll),
            _ => Err(Refusal::because(400, "Contact * Needs Expires 0")),
        },
        SipContacts::List(list) if list.len() > MAX_CONTACTS => Err(Refusal::because(403, "Too Many Contacts")),
        SipContacts::List(list) => {
            let path = path(message)?;
            let default = asked_expires(message, DEFAULT_EXPIRES)?;
            let bindings = list.iter().map(|c| binding(settings, key, request, c, default, &path));
            Ok(Contacts::Each(bindings.collect::<Result<_, _>>()?))
        }
    }
}

fn path(message: &Message) -> Result<Vec<String>, Refusal> {
    let values = message.list(HeaderName::Path).map(|v| v.map(|v| v.into_owned()));
    let values: Vec<String> = values.collect::<Result<_, _>>().map_err(|_| Refusal::because(400, "Bad Path"))?;
    if values.len() > 4 { Err(Refusal::because(403, "Path Too Long")) } else { Ok(values) }
}

fn binding(
    settings: &Settings,
    key: &PoolKey,
    request: &Request,
    contact: &NameAddr<'_>,
    default: u32,
    path: &[String],
) -> Result<Binding, Refusal> {
    let uri = contact.uri().map_err(|_| Refusal::because(400, "Bad Contact URI"))?;
    if !(uri.is_sip() || uri.is_sips()) {
        return Err(Refusal::because(400, "Contact Must Be A SIP URI"));
    }
    if settings.is_self(uri.host, uri.port) {
        return Err(Refusal::because(403, "Contact Leads Back Here"));
    }
    let instance = contact.param("+sip.instance").flatten().map(|i| i.trim_matches('"').to_owned());
    let reg_id = match contact.param("reg-id").flatten() {
        Some(n) => Some(n.parse::<u32>().map_err(|_| Refusal::because(400, "Bad reg-id"))?),
        None => None,
    };
    let asked = contact.expires().unwrap_or(default);
    if asked > 0 && asked < MIN_EXPIRES {
        return Err(Refusal::status(423).with(HeaderName::MinExpires, MIN_EXPIRES.to_string()));
    }
    let binding_key = match (&instance, reg_id) {
        (Some(instance), Some(id)) => key.key128("outbound", &[instance.as_bytes(), &id.to_be_bytes()]),
        _ => key.key128("contact", &[uri.canonical_binding().as_bytes()]),
    };
    Ok(Binding {
        key: Key128(binding_key),
        contact: contact.uri.to_owned(),
        contact_value: contact_value(contact),
        q: contact.q().unwrap_or(1000),
        path: path.to_vec(),
        reg_id: reg_id.filter(|_| instance.is_some()),
        expires: granted(asked, request, instance.is_some() && reg_id.is_some()),
        instance,
    })
}

/// The Contact as registered, without `expires` and `q`, which the answer states anew.
fn contact_value(contact: &NameAddr<'_>) -> String {
    let mut value = match contact.display {
        Some(display) if !display.is_empty() => format!("{display} <{}>", contact.uri),
        _ => format!("<{}>", contact.uri),
    };
    for param in contact.params.iter() {
        if param.name.eq_ignore_ascii_case("expires") || param.name.eq_ignore_ascii_case("q") {
            continue;
        }
        value.push(';');
        value.push_str(param.name);
        if let Some(v) = param.value {
            value.push('=');
            value.push_str(v);
        }
    }
    value
}

fn granted(asked: u32, request: &Request, outbound: bool) -> u32 {
    let class = match request.info.transport {
        Transport::Udp => MAX_UDP,
        _ if outbound => MAX_OUTBOUND,
        _ => MAX_STREAM,
    };
    if asked == 0 { 0 } else { asked.min(jittered(class, &request.otid)) }
}

/// The 200 to a REGISTER: every binding, with what the RFCs and real clients want beside.
pub fn answer(request: &Request, bindings: &[Endpoint], to_tag: &str) -> Bytes {
    let message = &request.message;
    let mut response = Response::to(message, 200).source(request.info.remote).to_tag(to_tag);
    for endpoint in bindings {
        response = response.header(HeaderName::Contact, contact_row(endpoint));
    }
    let longest = bindings.iter().map(|e| e.expires_ms.div_ceil(1000)).max().unwrap_or(0);
    response = response.header(HeaderName::Expires, longest.to_string());
    if used_outbound(message) {
        let timer = if request.info.transport == Transport::Udp { "25" } else { "110" };
        response = response.header(HeaderName::Require, "outbound").header(HeaderName::FlowTimer, timer);
    }
    for path in message.list(HeaderName::Path).flatten() {
        response = response.header(HeaderName::Path, path);
    }
    response
        .header(HeaderName::Supported, "outbound, path")
        .header(HeaderName::AllowEvents, super::ALLOW_EVENTS)
        .build()
}

fn contact_row(endpoint: &Endpoint) -> String {
    let seconds = endpoint.expires_ms.div_ceil(1000);
    if endpoint.q == 1000 {
        format!("{};expires={seconds}", endpoint.contact_value)
    } else {
        let (whole, rest) = (endpoint.q / 1000, endpoint.q % 1000);
        format!("{};q={whole}.{rest:03};expires={seconds}", endpoint.contact_value)
    }
}

fn used_outbound(message: &Message) -> bool {
    let Ok(SipContacts::List(list)) = message.contacts() else { return false };
    list.iter().any(|c| c.param("reg-id").flatten().is_some() && c.param("+sip.instance").flatten().is_some())
}
