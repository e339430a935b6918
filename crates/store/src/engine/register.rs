//! REGISTER and removal of bindings: reads the user's rows, lets the plan decide, writes what it says.

mod plan;

use commpool_model::ids::{EndpointId, Micros, UserId, UserRef};

pub(crate) use self::plan::{ENDPOINTS, distinct};
use self::plan::{Plan, Refusal};
use super::accounts::is_on;
use super::presence::{self, Shown};
use super::{Backend, Tables};
use crate::ops::PresenceChange;
use crate::ops::register::{Done, Reply, Request, Unregister, Unregistered};
use crate::rows::{EndpointRow, Lives};

/// Bindings of one user.
pub(crate) trait Bindings: Backend {
    /// All of them by endpoint id, expired and lost ones too.
    fn endpoints_of(&mut self, user: UserId) -> Result<Vec<EndpointRow>, Self::Error>;
    /// Inserts or replaces one.
    fn put_endpoint(&mut self, row: &EndpointRow) -> Result<(), Self::Error>;
    /// Removes one.
    fn remove_endpoint(&mut self, id: EndpointId) -> Result<(), Self::Error>;
}

pub(crate) fn register<T: Tables>(tables: &mut T, now: Micros, request: &Request) -> Result<Reply, T::Error> {
    let lives = tables.lives()?;
    if !lives.alive(request.flow.fe) {
        return Ok(Reply::Gone);
    }
    if !is_on(tables, request.user)? {
        return Ok(Reply::NoAccount);
    }
    let rows = tables.endpoints_of(request.user.id)?;
    let plan = match plan::plan(request, &rows, &lives, now) {
        Ok(plan) => plan,
        Err(Refusal::Stale) => return Ok(Reply::Stale),
        Err(Refusal::TooMany) => return Ok(Reply::TooMany),
    };
    for row in &plan.removed {
        tables.remove_endpoint(row.id)?;
    }
    for row in plan.written() {
        tables.put_endpoint(row)?;
    }
    // Those that are the caller's own are his to end.
    for id in plan.restarted(request, &rows) {
        tables.forget_dialogs_at(id, request.flow.fe)?;
    }
    let mut adoptable = 0;
    for id in plan.moved(request, &rows) {
        adoptable += tables.dialogs_at(id, Some(request.flow.fe), now)?;
    }
    for id in plan.created(&rows) {
        adoptable += tables.dialogs_at(id, None, now)?;
    }
    let change = if plan.shows { show(tables, now, request, &rows, &plan, &lives)? } else { None };
    let visible = plan.rows.iter().filter(|row| row.life(&lives, now).visible());
    let bindings = visible.map(|row| row.endpoint(&lives, now)).collect();
    Ok(Reply::Done(Box::new(Done { replay: plan.replay, bindings, touched: plan.touched, change, adoptable })))
}

/// Takes publications along with the bindings: those of removed ones go, those that came on the flow before join.
fn show<T: Tables>(
    tables: &mut T,
    now: Micros,
    request: &Request,
    before: &[EndpointRow],
    plan: &Plan,
    lives: &Lives,
) -> Result<Option<PresenceChange>, T::Error> {
    let user = request.user.id;
    let mut publications = tables.publications_of(user)?;
    let shown = Shown::before(before, &publications, lives, now);
    for row in publications.iter_mut().filter(|row| row.endpoint.is_none() && row.same_flow(&request.flow)) {
        if let Some(endpoint) = plan.written().next() {
            row.endpoint = Some(endpoint.id);
            tables.put_publication(row)?;
        }
    }
    let gone = |endpoint: Option<EndpointId>| plan.removed.iter().any(|row| Some(row.id) == endpoint);
    for row in publications.iter().filter(|row| gone(row.endpoint)) {
        tables.remove_publication(user, row.id)?;
    }
    publications.retain(|row| !gone(row.endpoint));
    presence::changed(tables, now, user, &shown, &plan.rows, &publications)
}

pub(crate) fn unregister<T: Tables>(
    tables: &mut T,
    now: Micros,
    request: &Unregister,
) -> Result<Unregistered, T::Error> {
    if !tables.lives()?.alive(request.fe) {
        return Ok(Unregistered::Gone);
    }
    let user = request.user.id;
    let mut ids = match &request.endpoints {
        Some(ids) => ids.clone(),
        None => tables.endpoints_of(user)?.into_iter().map(|row| row.id).collect(),
    };
    ids.sort_unstable();
    // Removed as a whole, a user also loses what he published without an endpoint.
    let publications = match request.endpoints {
        Some(_) => Vec::new(),
        None => tables.publications_of(user)?.into_iter().map(|row| row.id).collect(),
    };
    let (removed, change) = remove(tables, now, user, &ids, &publications)?;
    let removed = removed.into_iter().map(|row| (row.id, row.flow)).collect();
    Ok(Unregistered::Done { removed, change })
}

/// Removes endpoints of a user with their publications, and publications by themselves.
pub(crate) fn remove<T: Tables>(
    tables: &mut T,
    now: Micros,
    user: UserId,
    endpoints: &[EndpointId],
    publications: &[commpool_model::ids::Key128],
) -> Result<(Vec<EndpointRow>, Option<PresenceChange>), T::Error> {
    if endpoints.is_empty() && publications.is_empty() {
        return Ok((Vec::new(), None));
    }
    let lives = tables.lives()?;
    let rows = tables.endpoints_of(user)?;
    let mut published = tables.publications_of(user)?;
    let shown = Shown::before(&rows, &published, &lives, now);
    let (removed, left): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| endpoints.contains(&row.id));
    for row in &removed {
        tables.remove_endpoint(row.id)?;
    }
    let gone = |row: &crate::rows::PublicationRow| {
        publications.contains(&row.id) || row.endpoint.is_some_and(|endpoint| endpoints.contains(&endpoint))
    };
    for row in published.iter().filter(|row| gone(row)) {
        tables.remove_publication(user, row.id)?;
    }
    published.retain(|row| !gone(row));
    let change = presence::changed(tables, now, user, &shown, &left, &published)?;
    Ok((removed, change))
}

/// A user on this server.
pub(crate) const fn local(user: UserId) -> UserRef {
    UserRef::local(user.0)
}
