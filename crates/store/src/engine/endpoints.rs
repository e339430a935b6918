//! Endpoints as a whole: lost flows, sweeping, expiry, listing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, RangeInclusive};

use commpool_model::ids::{EndpointId, Incarnation, Key128, Micros, UserId};

use super::accounts::Visit;
use super::register::{local, remove};
use super::{Backend, Tables};
use crate::ops::endpoints::{Expire, Find, FlowsLost, Marked, Page, SweepLost, Swept, TimerRows, Timers};
use crate::rows::EndpointRow;

/// Some users, from the first to the last.
pub(crate) type Slice = RangeInclusive<UserId>;

/// So many users are looked at in one sweep for what no timer removed. No index goes by time: it would cost every
/// refresh more than these looks cost.
const SLICE: u64 = 100;
/// What is past its time is its owner's to remove for so long, seconds.
const OWNERS_TURN: u64 = 60;

/// The slice whose turn it is: any may be, by the last digits of the clock.
fn slice(now: Micros, last: UserId) -> Slice {
    let first = now.0 % (last.0 / SLICE + 1) * SLICE;
    UserId(first)..=UserId(first + SLICE - 1)
}

/// Endpoints across users.
pub(crate) trait Endpoints: Backend {
    /// One endpoint.
    fn endpoint(&mut self, id: EndpointId) -> Result<Option<EndpointRow>, Self::Error>;
    /// Visits endpoints by id.
    fn each_endpoint(&mut self, after: Option<EndpointId>, visit: Visit<'_, EndpointRow>) -> Result<(), Self::Error>;
    /// Visits endpoints marked lost, longest lost first, then by id.
    fn each_lost(&mut self, visit: Visit<'_, EndpointRow>) -> Result<(), Self::Error>;
    /// Visits endpoints of an incarnation that are not marked lost, by id.
    fn each_held(&mut self, fe: Incarnation, visit: Visit<'_, EndpointRow>) -> Result<(), Self::Error>;
    /// Endpoints of these users past a time and not marked lost, by id.
    fn overdue_endpoints(&mut self, users: Slice, past: Micros) -> Result<Vec<EndpointRow>, Self::Error>;
    /// Up to `limit` publications last written through an incarnation and past their time, by key.
    fn publications_left_by(
        &mut self,
        fe: Incarnation,
        now: Micros,
        limit: usize,
    ) -> Result<Vec<(UserId, Key128)>, Self::Error>;
    /// Publications of these users past a time, by key.
    fn overdue_publications(&mut self, users: Slice, past: Micros) -> Result<Vec<(UserId, Key128)>, Self::Error>;
    /// Ids and expiries of endpoints, by id.
    fn endpoint_expiries(
        &mut self,
        after: Option<EndpointId>,
        limit: usize,
    ) -> Result<Vec<(EndpointId, Micros)>, Self::Error>;
    /// Expiry of one publication.
    fn publication_expiry(&mut self, user: UserId, id: Key128) -> Result<Option<Micros>, Self::Error>;
    /// Keys and expiries of publications, by key.
    fn publication_expiries(
        &mut self,
        after: Option<(UserId, Key128)>,
        limit: usize,
    ) -> Result<Vec<(UserId, Key128, Micros)>, Self::Error>;
    /// How many endpoint rows name an incarnation.
    fn endpoints_at(&mut self, fe: Incarnation) -> Result<u64, Self::Error>;
    /// Whether an endpoint, a publication, an interest or a dialog of this incarnation is left.
    fn has_rows_of(&mut self, fe: Incarnation) -> Result<bool, Self::Error>;
}

pub(crate) fn flows_lost<T: Tables>(tables: &mut T, now: Micros, request: &FlowsLost) -> Result<Marked, T::Error> {
    if !tables.lives()?.alive(request.fe) {
        return Ok(Marked::Gone);
    }
    let mut marked = 0;
    for (user, serial) in &request.flows {
        for mut row in tables.endpoints_of(user.id)? {
            let held = row.flow.fe == request.fe && row.flow.serial == *serial;
            if held && row.lost_at.is_none() {
                row.lost_at = Some(now);
                tables.put_endpoint(&row)?;
                marked += 1;
            }
        }
    }
    Ok(Marked::Done(marked))
}

pub(crate) fn sweep_lost<T: Tables>(tables: &mut T, now: Micros, request: SweepLost) -> Result<Swept, T::Error> {
    let lives = tables.lives()?;
    if !lives.alive(request.fe) {
        return Ok(Swept { gone: true, ..Swept::default() });
    }
    let limit = request.limit as usize;
    let mut due = Due::default();
    let mut found = 0;
    let mut collect = |row: EndpointRow| {
        if row.faded(&lives, now) {
            found += 1;
            if found > limit {
                return ControlFlow::Break(());
            }
            due.entry(row.id.user()).or_default().0.push(row.id);
        }
        ControlFlow::Continue(())
    };
    tables.each_lost(&mut collect)?;
    for fe in lives.dead() {
        tables.each_held(fe, &mut collect)?;
    }
    let users = slice(now, tables.last_user()?);
    let overdue = tables.overdue_endpoints(users.clone(), before(now, OWNERS_TURN))?;
    for row in overdue.into_iter().filter(|row| lives.alive(row.flow.fe)).take(limit.saturating_sub(found)) {
        found += 1;
        due.entry(row.id.user()).or_default().0.push(row.id);
    }
    let mut left = limit.saturating_sub(found);
    let mut publications: BTreeSet<_> =
        tables.overdue_publications(users.clone(), before(now, OWNERS_TURN))?.into_iter().collect();
    for fe in lives.dead() {
        publications.extend(tables.publications_left_by(fe, now, left)?);
    }
    for (user, id) in publications.into_iter().take(left) {
        left -= 1;
        due.entry(user).or_default().1.push(id);
    }
    for fe in lives.dead() {
        left -= tables.forget_interest(fe, left)?.min(left);
        left -= tables.forget_subscriptions(fe, now, left)?.min(left);
    }
    left -= tables.forget_overdue(users, now, left)?.min(left);
    Ok(Swept { more: left == 0, ..remove_due(tables, now, due)? })
}

/// The moment so many seconds ago.
const fn before(now: Micros, seconds: u64) -> Micros {
    Micros(now.0.saturating_sub(seconds * 1_000_000))
}

pub(crate) fn expire<T: Tables>(tables: &mut T, now: Micros, request: &Expire) -> Result<Swept, T::Error> {
    if !tables.lives()?.alive(request.fe) {
        return Ok(Swept { gone: true, ..Swept::default() });
    }
    let mut due = Due::default();
    for id in &request.endpoints {
        if tables.endpoint(*id)?.is_some_and(|row| row.expires_at <= now) {
            due.entry(id.user()).or_default().0.push(*id);
        }
    }
    for (user, id) in &request.publications {
        if tables.publication_expiry(user.id, *id)?.is_some_and(|expires_at| expires_at <= now) {
            due.entry(user.id).or_default().1.push(*id);
        }
    }
    for (watcher, id) in &request.subscriptions {
        if tables.subscription(watcher.id, *id)?.is_some_and(|row| row.expires_at <= now) {
            tables.remove_subscription(watcher.id, *id)?;
        }
    }
    remove_due(tables, now, due)
}

/// Endpoints and publications that go, by user.
type Due = BTreeMap<UserId, (Vec<EndpointId>, Vec<Key128>)>;

fn remove_due<T: Tables>(tables: &mut T, now: Micros, due: Due) -> Result<Swept, T::Error> {
    let mut swept = Swept::default();
    for (user, (endpoints, publications)) in due {
        let (removed, change) = remove(tables, now, user, &endpoints, &publications)?;
        swept.endpoints.extend(removed.into_iter().map(|row| row.id));
        swept.changes.extend(change);
    }
    Ok(swept)
}

pub(crate) fn find<T: Tables>(tables: &mut T, now: Micros, request: &Find) -> Result<Page, T::Error> {
    let lives = tables.lives()?;
    let limit = request.limit as usize;
    let mut rows = Vec::new();
    let mut collect = |row: EndpointRow| {
        if row.life(&lives, now).visible() && request.after.is_none_or(|after| row.id > after) {
            rows.push(row);
        }
        if rows.len() > limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    match &request.address {
        None => tables.each_endpoint(request.after, &mut collect)?,
        Some(address) => {
            if let Some(account) = tables.account_by_address(address)? {
                let _all_or_enough = tables.endpoints_of(account.user)?.into_iter().try_for_each(collect);
            }
        }
    }
    let more = rows.len() > limit;
    rows.truncate(limit);
    let mut page = Page { rows: Vec::with_capacity(rows.len()), more };
    for row in rows {
        let address = tables.address_of(row.id.user())?.unwrap_or_default();
        page.rows.push((address, row.endpoint(&lives, now)));
    }
    Ok(page)
}

pub(crate) fn timers<T: Tables>(tables: &mut T, now: Micros, request: &Timers) -> Result<TimerRows, T::Error> {
    let limit = request.limit as usize;
    let after = request.after_publication.map(|(user, id)| (user.id, id));
    let mut endpoints = tables.endpoint_expiries(request.after, limit + 1)?;
    let mut publications = tables.publication_expiries(after, limit + 1)?;
    let more = endpoints.len() > limit || publications.len() > limit;
    endpoints.truncate(limit);
    publications.truncate(limit);
    Ok(TimerRows {
        endpoints: endpoints.into_iter().map(|(id, at)| (id, now.millis_until(at))).collect(),
        publications: publications.into_iter().map(|(user, id, at)| (local(user), id, now.millis_until(at))).collect(),
        more,
    })
}
