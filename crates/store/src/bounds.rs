//! Bounds of requests, checked before anything is queued: what breaks one is a caller's mistake.

use commpool_model::address::MAX_USER;
use commpool_model::ids::{EndpointId, Home, UserId, UserRef};

use crate::error::StoreError;
use crate::ops::presence::Action;
use crate::ops::register::{Binding, Contacts};
use crate::ops::{FlowRef, Operation, accounts, credentials, front_ends, presence, register, subscribe};

/// Longest text that came in a SIP header: the longest header line.
const HEADER: usize = 8192;
const ADDRESS: usize = MAX_USER + 1 + commpool_model::address::MAX_DOMAIN;
const DOCUMENT: usize = 25 * 1024;
const LIST: usize = 1000;

type Checked = Result<(), StoreError>;

/// Whether a request keeps the bounds that its type states.
pub(crate) fn check(operation: &Operation) -> Checked {
    match operation {
        Operation::FrontEndStart(r) => start(r),
        Operation::FlowsLost(r) => {
            count("flows", r.flows.len(), LIST)?;
            r.flows.iter().try_for_each(|(of, _)| user(*of))
        }
        Operation::SweepLost(r) => limit(r.limit, 500),
        Operation::Expire(r) => {
            count("endpoints", r.endpoints.len(), LIST)?;
            count("publications", r.publications.len(), LIST)?;
            count("subscriptions", r.subscriptions.len(), LIST)?;
            r.publications.iter().chain(&r.subscriptions).try_for_each(|(of, _)| user(*of))
        }
        Operation::EndpointsFind(r) => {
            limit(r.limit, 1000)?;
            r.address.iter().try_for_each(|address| text("address", address, 1, ADDRESS))
        }
        Operation::Timers(r) => limit(r.limit, 10_000),
        Operation::Credentials(r) => text("address", &r.address, 0, ADDRESS),
        Operation::CredentialPut(r) => credential(r),
        Operation::CredentialRevoke(r) => {
            text("address", &r.address, 1, ADDRESS)?;
            line("label", &r.label, 1, 64)
        }
        Operation::Register(r) => register(r),
        Operation::Unregister(r) => {
            user(r.user)?;
            r.endpoints.iter().try_for_each(|ids| own_endpoints(r.user, ids))
        }
        Operation::Route(r) => {
            text("target", &r.target, 0, ADDRESS)?;
            text("sender", &r.sender, 0, ADDRESS)
        }
        Operation::Publish(r) => publish(r),
        Operation::PresenceOf(r) => {
            count("users", r.users.len(), 200)?;
            r.users.iter().try_for_each(|of| user(*of))
        }
        Operation::Subscribe(r) => subscribe(r),
        Operation::Unsubscribe(r) => {
            count("dialogs", r.dialogs.len(), LIST)?;
            r.dialogs.iter().try_for_each(|(of, _)| user(*of))
        }
        Operation::Unwatch(r) => {
            count("users", r.users.len(), LIST)?;
            r.users.iter().try_for_each(|of| user(*of))
        }
        Operation::AccountPut(r) => account(r),
        Operation::AccountsFind(r) => {
            limit(r.limit, 1000)?;
            text("text", &r.text, 0, ADDRESS)?;
            r.after.iter().try_for_each(|after| text("after", after, 0, ADDRESS))
        }
        Operation::AccountsChanged(_) | Operation::Renew(_) | Operation::FrontEndStop(_) | Operation::Health(_) => {
            Ok(())
        }
    }
}

const fn invalid(field: &'static str, problem: &'static str) -> StoreError {
    StoreError::Invalid { field, problem }
}

/// Text as it came in a header or as an address: SQL ends texts at NUL, all else is kept.
fn text(field: &'static str, text: &str, least: usize, most: usize) -> Checked {
    match text.len() {
        length if length < least => Err(invalid(field, "is empty")),
        length if length > most => Err(invalid(field, "is too long")),
        _ if text.contains('\0') => Err(invalid(field, "has a NUL")),
        _ => Ok(()),
    }
}

/// Text that people read in lists and lines.
fn line(field: &'static str, line: &str, least: usize, most: usize) -> Checked {
    if line.contains(char::is_control) {
        return Err(invalid(field, "has control characters"));
    }
    text(field, line, least, most)
}

/// A list that is kept as lines.
fn texts(field: &'static str, list: &[String], longest_list: usize, longest: usize) -> Checked {
    count(field, list.len(), longest_list)?;
    list.iter().try_for_each(|one| match one.contains('\n') {
        true => Err(invalid(field, "has a line break")),
        false => text(field, one, 1, longest),
    })
}

const fn count(field: &'static str, length: usize, most: usize) -> Checked {
    if length > most { Err(invalid(field, "has too many entries")) } else { Ok(()) }
}

const fn limit(limit: u32, most: u32) -> Checked {
    if limit == 0 || limit > most { Err(invalid("limit", "is out of bounds")) } else { Ok(()) }
}

fn user(user: UserRef) -> Checked {
    if user.home != Home(0) {
        return Err(invalid("user.home", "is not this server's"));
    }
    if user.id.0 >= UserId::LIMIT { Err(invalid("user.id", "is no user id")) } else { Ok(()) }
}

fn flow(flow: &FlowRef) -> Checked {
    text("flow.remote", &flow.remote, 0, 128)
}

fn own_endpoints(user: UserRef, ids: &[EndpointId]) -> Checked {
    count("endpoints", ids.len(), LIST)?;
    let own = ids.iter().all(|id| id.user() == user.id);
    if own { Ok(()) } else { Err(invalid("endpoints", "are another user's")) }
}

fn start(r: &front_ends::Start) -> Checked {
    line("pod", &r.pod, 1, 253)?;
    line("address", &r.address, 0, 253)?;
    line("build", &r.build, 0, 253)
}

fn register(r: &register::Request) -> Checked {
    user(r.user)?;
    flow(&r.flow)?;
    text("call_id", &r.call_id, 1, HEADER)?;
    text("agent", &r.agent, 0, 128)?;
    match &r.contacts {
        Contacts::Query | Contacts::RemoveAll => Ok(()),
        Contacts::Each(bindings) if bindings.is_empty() => Err(invalid("contacts", "are none")),
        Contacts::Each(bindings) => {
            count("contacts", bindings.len(), 10)?;
            bindings.iter().try_for_each(binding)
        }
    }
}

fn binding(b: &Binding) -> Checked {
    text("contact", &b.contact, 1, HEADER)?;
    text("contact_value", &b.contact_value, 1, HEADER)?;
    texts("path", &b.path, 16, HEADER)?;
    b.instance.iter().try_for_each(|instance| text("instance", instance, 1, HEADER))?;
    if b.q > 1000 { Err(invalid("q", "is above 1000")) } else { Ok(()) }
}

fn publish(r: &presence::Publish) -> Checked {
    user(r.user)?;
    flow(&r.flow)?;
    if let Some(endpoint) = r.endpoint {
        own_endpoints(r.user, &[endpoint])?;
    }
    let Action::Set { state, document, .. } = &r.action else { return Ok(()) };
    texts("state.activities", &state.activities, 8, 128)?;
    if state.note.as_ref().is_some_and(|note| note.len() > 512) {
        return Err(invalid("state.note", "is too long"));
    }
    if document.len() > DOCUMENT { Err(invalid("document", "is too long")) } else { Ok(()) }
}

fn subscribe(r: &subscribe::Request) -> Checked {
    user(r.watcher)?;
    text("watcher_address", &r.watcher_address, 1, ADDRESS)?;
    if let Some(endpoint) = r.endpoint {
        own_endpoints(r.watcher, &[endpoint])?;
    }
    if r.presentities.is_empty() {
        return Err(invalid("presentities", "are none"));
    }
    texts("presentities", &r.presentities, 200, ADDRESS)?;
    count("held", r.held.len(), 200)?;
    let dialog = &r.dialog;
    let fields = [
        ("dialog.call_id", &dialog.call_id),
        ("dialog.local_tag", &dialog.local_tag),
        ("dialog.remote_tag", &dialog.remote_tag),
        ("dialog.contact", &dialog.contact),
        ("dialog.event_id", &dialog.event_id),
    ];
    fields.into_iter().try_for_each(|(field, value)| text(field, value, 0, HEADER))?;
    texts("dialog.route", &dialog.route, 16, HEADER)
}

fn account(r: &accounts::Put) -> Checked {
    let (address, name) = match r {
        accounts::Put::Add { address, display_name } => (address, Some(display_name)),
        accounts::Put::Change { address, display_name, .. } => (address, display_name.as_ref()),
    };
    if address.len() > ADDRESS
        || address.parse().map_or(true, |parsed: commpool_model::address::Address| parsed.as_str() != address)
    {
        return Err(invalid("address", "is no canonical address user@domain"));
    }
    name.into_iter().try_for_each(|name| line("display_name", name, 0, 256))
}

fn credential(r: &credentials::Put) -> Checked {
    text("address", &r.address, 1, ADDRESS)?;
    line("label", &r.label, 1, 64)?;
    let mut algorithms: Vec<_> = r.verifiers.iter().map(|verifier| verifier.algorithm).collect();
    algorithms.sort_unstable();
    algorithms.dedup();
    if algorithms.is_empty() || algorithms.len() != r.verifiers.len() {
        return Err(invalid("verifiers", "are none, or two of one algorithm"));
    }
    for verifier in &r.verifiers {
        text("verifiers.realm", &verifier.realm, 1, 255)?;
        text("verifiers.ha1", &verifier.ha1, 32, 64)?;
    }
    Ok(())
}
