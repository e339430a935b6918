//! Bounds of requests, checked before anything is queued: what breaks one is a caller's mistake.

use std::collections::BTreeSet;

use commpool_model::address::MAX_USER;
use commpool_model::ids::{EndpointId, Home, Incarnation, UserId, UserRef};
use commpool_model::presence::State;

use crate::error::StoreError;
use crate::ops::assert::{Assert, HeldEndpoint};
use crate::ops::directory::{Card, Change, Stage};
use crate::ops::presence::Action;
use crate::ops::register::{Binding, Contacts};
use crate::ops::subscribe::Dialog;
use crate::ops::{FlowRef, Operation, accounts, credentials, front_ends, presence, register, subscribe};

/// Longest text that came in a SIP header: the longest header line.
const HEADER: usize = 8192;
const ADDRESS: usize = MAX_USER + 1 + commpool_model::address::MAX_DOMAIN;
const DOCUMENT: usize = 25 * 1024;
const LIST: usize = 1000;
/// Name of a lease or a source.
const NAME: usize = 64;
/// Most rows of one run.
const STAGED: u32 = 1_000_000;

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
        Operation::Reap(r) if r.by == r.target => Err(invalid("target", "is the front end that asks")),
        Operation::Pull(r) => limit(r.limit, 1000),
        Operation::Assert(r) => assert(r),
        Operation::Adopt(r) => {
            count("held", r.held.len(), LIST)?;
            user(UserRef::local(r.endpoint.user().0))
        }
        Operation::Flush(r) => {
            count("dialogs", r.dialogs.len(), LIST)?;
            distinct("dialogs", r.dialogs.iter().map(|dialog| (dialog.watcher, dialog.sub_id)))?;
            r.dialogs.iter().try_for_each(|dialog| user(dialog.watcher))
        }
        Operation::LeaseTake(r) => {
            line("name", &r.name, 1, NAME)?;
            line("holder", &r.holder, 1, 253)?;
            if r.ttl_ms == 0 { Err(invalid("ttl_ms", "is 0")) } else { lifetime(r.ttl_ms) }
        }
        Operation::LeaseKeep(r) => {
            line("name", &r.name, 1, NAME)?;
            lifetime(r.ttl_ms)
        }
        Operation::SourceGet(r) => line("source", &r.source, 1, NAME),
        Operation::SourceUsers(r) => {
            line("source", &r.source, 1, NAME)?;
            limit(r.limit, 1000)
        }
        Operation::AddressHolders(r) => texts("addresses", &r.addresses, LIST, ADDRESS),
        Operation::Stage(r) => stage(r),
        Operation::Apply(r) => {
            line("source", &r.source, 1, NAME)?;
            if r.rows > STAGED {
                return Err(invalid("rows", "are too many"));
            }
            count("state", r.state.len(), 64 * 1024)
        }
        Operation::AccountsChanged(_)
        | Operation::Renew(_)
        | Operation::FrontEndStop(_)
        | Operation::Reap(_)
        | Operation::FrontEnds(_)
        | Operation::Health(_) => Ok(()),
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

fn distinct<Key: Ord>(field: &'static str, keys: impl Iterator<Item = Key>) -> Checked {
    let mut seen = BTreeSet::new();
    for key in keys {
        if !seen.insert(key) {
            return Err(invalid(field, "name one twice"));
        }
    }
    Ok(())
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
    contact(&b.contact, &b.contact_value, &b.path, b.instance.as_ref(), b.q)
}

fn contact(uri: &str, value: &str, path: &[String], instance: Option<&String>, q: u16) -> Checked {
    text("contact", uri, 1, HEADER)?;
    text("contact_value", value, 1, HEADER)?;
    texts("path", path, 16, HEADER)?;
    instance.into_iter().try_for_each(|instance| text("instance", instance, 1, HEADER))?;
    if q > 1000 { Err(invalid("q", "is above 1000")) } else { Ok(()) }
}

fn publish(r: &presence::Publish) -> Checked {
    user(r.user)?;
    flow(&r.flow)?;
    if let Some(endpoint) = r.endpoint {
        own_endpoints(r.user, &[endpoint])?;
    }
    let Action::Set { state, document, .. } = &r.action else { return Ok(()) };
    published(state, document)
}

fn published(state: &State, document: &[u8]) -> Checked {
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
    presentities(&r.presentities)?;
    count("held", r.held.len(), 200)?;
    dialog(&r.dialog)
}

fn presentities(addresses: &[String]) -> Checked {
    if addresses.is_empty() {
        return Err(invalid("presentities", "are none"));
    }
    texts("presentities", addresses, 200, ADDRESS)
}

fn dialog(dialog: &Dialog) -> Checked {
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

fn assert(r: &Assert) -> Checked {
    count("endpoints", r.endpoints.len(), LIST)?;
    count("publications", r.publications.len(), LIST)?;
    count("interest", r.interest.len(), LIST)?;
    count("subscriptions", r.subscriptions.len(), LIST)?;
    distinct("endpoints", r.endpoints.iter().map(|held| held.endpoint.id))?;
    distinct("endpoints", r.endpoints.iter().map(|held| (held.endpoint.id.user(), held.key)))?;
    distinct("publications", r.publications.iter().map(|held| (held.user, held.id)))?;
    distinct("subscriptions", r.subscriptions.iter().map(|held| (held.watcher, held.sub_id)))?;
    r.endpoints.iter().try_for_each(|held| held_endpoint(r.fe, held))?;
    r.publications.iter().try_for_each(|held| {
        user(held.user)?;
        if let Some(endpoint) = held.endpoint {
            own_endpoints(held.user, &[endpoint])?;
        }
        published(&held.state, &held.document)
    })?;
    r.interest.iter().try_for_each(|of| user(*of))?;
    r.subscriptions.iter().try_for_each(|held| {
        user(held.watcher)?;
        if let Some(endpoint) = held.endpoint {
            own_endpoints(held.watcher, &[endpoint])?;
        }
        presentities(&held.presentities)?;
        dialog(&held.dialog)
    })
}

fn held_endpoint(fe: Incarnation, held: &HeldEndpoint) -> Checked {
    let endpoint = &held.endpoint;
    user(UserRef::local(endpoint.id.user().0))?;
    if endpoint.flow.fe != fe {
        return Err(invalid("flow.fe", "is another front end's"));
    }
    flow(&endpoint.flow)?;
    text("call_id", &endpoint.call_id, 1, HEADER)?;
    text("agent", &endpoint.agent, 0, 128)?;
    contact(&endpoint.contact, &endpoint.contact_value, &endpoint.path, endpoint.instance.as_ref(), endpoint.q)
}

fn account(r: &accounts::Put) -> Checked {
    let (address, name) = match r {
        accounts::Put::Add { address, display_name } => (address, Some(display_name)),
        accounts::Put::Change { address, display_name, .. } => (address, display_name.as_ref()),
    };
    canonical(address)?;
    name.into_iter().try_for_each(|name| line("display_name", name, 0, 256))
}

fn canonical(address: &str) -> Checked {
    let parsed = address.parse().ok().filter(|parsed: &commpool_model::address::Address| parsed.as_str() == address);
    if address.len() > ADDRESS || parsed.is_none() {
        return Err(invalid("address", "is no canonical address user@domain"));
    }
    Ok(())
}

const fn lifetime(ms: u32) -> Checked {
    if ms > 3_600_000 { Err(invalid("ttl_ms", "is more than an hour")) } else { Ok(()) }
}

fn stage(r: &Stage) -> Checked {
    line("source", &r.source, 1, NAME)?;
    count("rows", r.rows.len(), LIST)?;
    let rows = u32::try_from(r.rows.len()).unwrap_or(u32::MAX);
    if r.first.saturating_add(rows) > STAGED {
        return Err(invalid("rows", "are too many"));
    }
    distinct("rows", r.rows.iter().map(Change::key))?;
    r.rows.iter().try_for_each(|row| match row {
        Change::Put { address, state, display_name, card, .. } => {
            address.iter().try_for_each(|address| canonical(address))?;
            if *state == accounts::State::Removed {
                return Err(invalid("state", "is removed"));
            }
            let Card { phone, title, company, office } = card;
            let lines = [
                ("display_name", display_name),
                ("phone", phone),
                ("title", title),
                ("company", company),
                ("office", office),
            ];
            lines.into_iter().try_for_each(|(field, text)| line(field, text, 0, 256))
        }
        Change::Lapse { .. } | Change::Remove { .. } => Ok(()),
    })
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
