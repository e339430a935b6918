//! Publications and the state they add up to.

use commpool_model::ids::{EndpointId, Incarnation, Key128, Micros, UserId, Version};
use commpool_model::presence::{Aggregate, Device, Facts, Publication, aggregate};

use super::accounts::is_on;
use super::register::local;
use super::{Backend, Tables};
use crate::ops::PresenceChange;
use crate::ops::presence::{Action, Of, Publish, Published, States};
use crate::rows::{EndpointRow, Head, Lives, PublicationRow};

/// Most publications of one user.
pub(crate) const PUBLICATIONS: usize = 20;

/// Publications, soft heads, and who is interested.
pub(crate) trait Presence: Backend {
    /// Publications of a user by id, expired ones too.
    fn publications_of(&mut self, user: UserId) -> Result<Vec<PublicationRow>, Self::Error>;
    /// Inserts or replaces one.
    fn put_publication(&mut self, row: &PublicationRow) -> Result<(), Self::Error>;
    /// Removes one.
    fn remove_publication(&mut self, user: UserId, id: Key128) -> Result<(), Self::Error>;
    /// Soft head of a user; the default where there is none.
    fn head(&mut self, user: UserId) -> Result<Head, Self::Error>;
    /// Replaces it.
    fn put_head(&mut self, user: UserId, head: &Head) -> Result<(), Self::Error>;
    /// Front ends with a watcher of this user, in ascending order.
    fn interest_in(&mut self, user: UserId) -> Result<Vec<Incarnation>, Self::Error>;
    /// Users watched by a front end whose version is above another, by version and user.
    fn heads_watched(
        &mut self,
        fe: Incarnation,
        above: Version,
        limit: usize,
    ) -> Result<Vec<(UserId, Version)>, Self::Error>;
}

/// What a user's presence looked like before a write.
pub(crate) struct Shown {
    /// As last told: by every row there is.
    told: Aggregate,
    /// As a reader saw it now: without rows whose time is over but that nobody has removed yet.
    seen: Aggregate,
}

impl Shown {
    pub(crate) fn before(
        endpoints: &[EndpointRow],
        publications: &[PublicationRow],
        lives: &Lives,
        now: Micros,
    ) -> Self {
        let devices = endpoints.iter().map(device).collect();
        let bare = |row: &PublicationRow| Publication { document: Vec::new(), ..publication(row) };
        let told = Facts { devices, publications: publications.iter().map(bare).collect() };
        Self { told: aggregate(&told), seen: aggregate(&facts(endpoints, publications, lives, now)) }
    }
}

/// What counts of a user's rows at this moment.
pub(crate) fn facts(endpoints: &[EndpointRow], publications: &[PublicationRow], lives: &Lives, now: Micros) -> Facts {
    let visible = endpoints.iter().filter(|row| row.life(lives, now).visible());
    let devices = visible.map(device).collect();
    let live = publications.iter().filter(|row| row.expires_at > now);
    Facts { devices, publications: live.map(publication).collect() }.counted()
}

fn device(row: &EndpointRow) -> Device {
    Device { id: row.id, registered: row.registered_at }
}

fn publication(row: &PublicationRow) -> Publication {
    Publication {
        id: row.id,
        endpoint: row.endpoint,
        state: row.state.clone(),
        document: row.document.clone(),
        updated: row.updated,
        since: row.since,
    }
}

/// State and version of a user as a reader sees them.
pub(crate) fn read<T: Tables>(tables: &mut T, now: Micros, user: UserId) -> Result<Facts, T::Error> {
    let lives = tables.lives()?;
    let endpoints = tables.endpoints_of(user)?;
    let publications = tables.publications_of(user)?;
    Ok(facts(&endpoints, &publications, &lives, now))
}

/// After a write: a new version and whom to tell, if presence is another than before.
pub(crate) fn changed<T: Tables>(
    tables: &mut T,
    now: Micros,
    user: UserId,
    shown: &Shown,
    endpoints: &[EndpointRow],
    publications: &[PublicationRow],
) -> Result<Option<PresenceChange>, T::Error> {
    let state = facts(endpoints, publications, &tables.lives()?, now);
    let after = aggregate(&state);
    if after == shown.told && after == shown.seen {
        return Ok(None);
    }
    let head = tables.head(user)?;
    bump(tables, now, user, head, state).map(Some)
}

fn bump<T: Tables>(
    tables: &mut T,
    now: Micros,
    user: UserId,
    mut head: Head,
    state: Facts,
) -> Result<PresenceChange, T::Error> {
    head.bump(now);
    tables.put_head(user, &head)?;
    told(tables, user, head, state)
}

fn told<T: Tables>(tables: &mut T, user: UserId, head: Head, state: Facts) -> Result<PresenceChange, T::Error> {
    let interest = tables.interest_in(user)?;
    Ok(PresenceChange { user: Some(local(user)), state, version: head.version, interest })
}

pub(crate) fn publish<T: Tables>(tables: &mut T, now: Micros, request: &Publish) -> Result<Published, T::Error> {
    let lives = tables.lives()?;
    if !lives.alive(request.flow.fe) {
        return Ok(Published::Gone);
    }
    if !is_on(tables, request.user)? {
        return Ok(Published::NoAccount);
    }
    let user = request.user.id;
    let endpoints = tables.endpoints_of(user)?;
    let mut rows = tables.publications_of(user)?;
    let head = tables.head(user)?;
    if let Some(id) = carried_out(request, &rows, &head) {
        let change = told(tables, user, head, facts(&endpoints, &rows, &lives, now))?;
        return Ok(Published::Done { replay: true, id, change: Box::new(change) });
    }
    let shown = Shown::before(&endpoints, &rows, &lives, now);
    let endpoint = endpoint_of(request, &endpoints);
    let plan = match plan(request, endpoint, &rows, now) {
        Ok(plan) => plan,
        Err(refusal) => return Ok(refusal),
    };
    for id in &plan.removed {
        tables.remove_publication(user, *id)?;
    }
    rows.retain(|row| !plan.removed.contains(&row.id) && row.id != plan.id);
    if let Some(row) = plan.written {
        tables.put_publication(&row)?;
        rows.push(row);
    }
    let state = facts(&endpoints, &rows, &lives, now);
    let after = aggregate(&state);
    let removed = matches!(request.action, Action::Remove);
    let change = if removed || plan.other_document || after != shown.told || after != shown.seen {
        let removed = if removed { Some((request.tag, plan.id)) } else { head.removed };
        bump(tables, now, user, Head { removed, ..head }, state)?
    } else {
        PresenceChange { user: Some(request.user), state, version: head.version, interest: Vec::new() }
    };
    Ok(Published::Done { replay: false, id: plan.id, change: Box::new(change) })
}

/// The publication that this very transaction made, changed or removed before.
fn carried_out(request: &Publish, rows: &[PublicationRow], head: &Head) -> Option<Key128> {
    let row = rows.iter().find(|row| row.tag == request.tag || row.id == request.tag).map(|row| row.id);
    row.or_else(|| head.removed.filter(|(tag, _)| *tag == request.tag).map(|(_, id)| id))
}

/// The endpoint a publication belongs to: the one named, else the one that registered on the same flow last.
fn endpoint_of(request: &Publish, endpoints: &[EndpointRow]) -> Option<EndpointId> {
    let known = |id: &EndpointId| endpoints.iter().any(|row| row.id == *id);
    request.endpoint.filter(known).or_else(|| {
        let on_flow = endpoints.iter().filter(|row| row.lost_at.is_none() && row.same_flow(&request.flow));
        on_flow.max_by_key(|row| (row.registered_at, row.id)).map(|row| row.id)
    })
}

struct Plan {
    id: Key128,
    written: Option<PublicationRow>,
    removed: Vec<Key128>,
    /// A document that watchers get is another than before.
    other_document: bool,
}

fn plan(
    request: &Publish,
    endpoint: Option<EndpointId>,
    rows: &[PublicationRow],
    now: Micros,
) -> Result<Plan, Published> {
    let live = || rows.iter().filter(|row| row.expires_at > now);
    let old = match request.if_match {
        None => None,
        Some(tag) => Some(live().find(|row| row.tag == tag).ok_or(Published::Precondition)?),
    };
    let (expires, state, document) = match (&request.action, old) {
        (Action::Remove, Some(old)) => {
            return Ok(Plan { id: old.id, written: None, removed: vec![old.id], other_document: false });
        }
        (Action::Refresh { expires }, Some(old)) => (expires, &old.state, &old.document),
        (Action::Set { expires, state, document }, _) => (expires, state.as_ref(), document),
        (Action::Refresh { .. } | Action::Remove, None) => return Err(Published::Precondition),
    };
    let row = PublicationRow {
        user: request.user.id,
        id: old.map_or(request.tag, |old| old.id),
        tag: request.tag,
        fe: request.flow.fe,
        serial: request.flow.serial,
        endpoint: endpoint.or(old.and_then(|old| old.endpoint)),
        state: state.clone(),
        document: document.clone(),
        since: old.filter(|old| old.state == *state).map_or(now, |old| old.since),
        updated: now,
        expires_at: now.plus_seconds(u64::from(*expires)),
    };
    // A client that begins anew leaves nothing of its last run behind.
    let replaces = |other: &&PublicationRow| match other.endpoint {
        Some(_) => other.endpoint == row.endpoint,
        None => other.same_flow(&request.flow),
    };
    let removed: Vec<Key128> = match old {
        Some(_) => Vec::new(),
        None => rows.iter().filter(replaces).map(|row| row.id).collect(),
    };
    if old.is_none() && live().filter(|row| !removed.contains(&row.id)).count() >= PUBLICATIONS {
        return Err(Published::TooMany);
    }
    let other_document = old.is_none_or(|old| old.document != row.document);
    Ok(Plan { id: row.id, written: Some(row), removed, other_document })
}

pub(crate) fn presence_of<T: Tables>(tables: &mut T, now: Micros, request: &Of) -> Result<States, T::Error> {
    let mut states = Vec::with_capacity(request.users.len());
    for user in &request.users {
        let facts = read(tables, now, user.id)?;
        states.push((*user, facts, tables.head(user.id)?.version));
    }
    Ok(States { states })
}
