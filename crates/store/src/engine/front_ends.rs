//! Front ends: start, lease, stop, reaping, listing.

use commpool_model::ids::{Incarnation, Micros};

use super::{Backend, Tables};
use crate::SCHEMA;
use crate::ops::front_ends::{
    FrontEnd, Listed, Load, Reap, Reaped, Renew, Renewed, Start, Started, State, Status, Stop, Stopped,
};
use crate::rows::{FrontEndRow, Lives};

/// Life of a lease, seconds.
const LEASE: u64 = 15;
/// A dead incarnation is forgotten after so many seconds, when nothing of it is left.
const REMEMBERED: u64 = 24 * 60 * 60;

/// The incarnations.
pub(crate) trait FrontEnds: Backend {
    /// Which are alive.
    fn lives(&mut self) -> Result<Lives, Self::Error>;
    /// All of them, in ascending order.
    fn front_ends(&mut self) -> Result<Vec<FrontEndRow>, Self::Error>;
    /// Inserts or replaces one.
    fn put_front_end(&mut self, row: &FrontEndRow) -> Result<(), Self::Error>;
    /// Forgets one.
    fn remove_front_end(&mut self, fe: Incarnation) -> Result<(), Self::Error>;
    /// A number never given before.
    fn next_incarnation(&mut self) -> Result<Incarnation, Self::Error>;
    /// Epoch of the soft data.
    fn epoch(&mut self) -> Result<u64, Self::Error>;
}

pub(crate) fn start<T: Tables>(tables: &mut T, now: Micros, request: &Start) -> Result<Started, T::Error> {
    let rows = tables.front_ends()?;
    let repeated =
        |row: &&FrontEndRow| row.pod == request.pod && row.start_id == request.start_id && row.state != State::Dead;
    let fe = match rows.iter().find(repeated) {
        Some(row) => row.fe,
        None => {
            let row = FrontEndRow {
                fe: tables.next_incarnation()?,
                pod: request.pod.clone(),
                start_id: request.start_id,
                address: request.address.clone(),
                build: request.build.clone(),
                state: State::Starting,
                lease_until: now.plus_seconds(LEASE),
                dead_since: None,
                load: Load::default(),
            };
            tables.put_front_end(&row)?;
            row.fe
        }
    };
    for row in rows.into_iter().filter(|row| row.fe != fe) {
        match row.dead_since {
            None if request.alone => bury(tables, now, row)?,
            Some(since) if since.plus_seconds(REMEMBERED) <= now && !tables.has_rows_of(row.fe)? => {
                tables.remove_front_end(row.fe)?;
            }
            _ => {}
        }
    }
    Ok(Started { fe, epoch: tables.epoch()?, schema: SCHEMA, live: live(tables)? })
}

pub(crate) fn renew<T: Tables>(tables: &mut T, now: Micros, request: Renew) -> Result<Renewed, T::Error> {
    let Some(mut row) = living(tables, request.fe)? else { return Ok(Renewed::Gone) };
    if request.state == State::Dead {
        bury(tables, now, row)?;
        return Ok(Renewed::Gone);
    }
    (row.state, row.load) = (request.state, request.load);
    row.lease_until = now.plus_seconds(LEASE);
    tables.put_front_end(&row)?;
    let ms_left = now.millis_until(row.lease_until);
    let out = tables.front_ends()?.into_iter().filter(|row| row.dead_since.is_none() && row.lease_until <= now);
    let expired = out.map(|row| row.fe).collect();
    Ok(Renewed::Held { ms_left, now, epoch: tables.epoch()?, live: live(tables)?, expired })
}

pub(crate) fn reap<T: Tables>(tables: &mut T, now: Micros, request: Reap) -> Result<Reaped, T::Error> {
    if !tables.lives()?.alive(request.by) {
        return Ok(Reaped::Gone);
    }
    match living(tables, request.target)? {
        None => Ok(Reaped::Done),
        Some(row) if row.lease_until > now => Ok(Reaped::Alive),
        Some(row) => bury(tables, now, row).map(|()| Reaped::Done),
    }
}

pub(crate) fn list<T: Tables>(tables: &mut T, now: Micros) -> Result<Listed, T::Error> {
    let mut front_ends = Vec::new();
    for row in tables.front_ends()? {
        let endpoints = tables.endpoints_at(row.fe)?;
        let (lease_ms, dead_ms) = (now.millis_until(row.lease_until), row.dead_since.map(|at| at.millis_until(now)));
        let FrontEndRow { fe, pod, address, build, state, load, .. } = row;
        front_ends.push(Status { fe, pod, address, build, state, lease_ms, dead_ms, endpoints, load });
    }
    Ok(Listed { front_ends })
}

pub(crate) fn stop<T: Tables>(tables: &mut T, now: Micros, request: Stop) -> Result<Stopped, T::Error> {
    if let Some(row) = living(tables, request.fe)? {
        bury(tables, now, row)?;
    }
    Ok(Stopped)
}

fn living<T: Tables>(tables: &mut T, fe: Incarnation) -> Result<Option<FrontEndRow>, T::Error> {
    Ok(tables.front_ends()?.into_iter().find(|row| row.fe == fe && row.dead_since.is_none()))
}

/// Marks one row; its endpoints count as lost from now.
fn bury<T: Tables>(tables: &mut T, now: Micros, row: FrontEndRow) -> Result<(), T::Error> {
    tables.put_front_end(&FrontEndRow { state: State::Dead, dead_since: Some(now), ..row })
}

fn live<T: Tables>(tables: &mut T) -> Result<Vec<FrontEnd>, T::Error> {
    let rows = tables.front_ends()?.into_iter().filter(|row| row.dead_since.is_none());
    let seen = |row: FrontEndRow| FrontEnd { fe: row.fe, address: row.address, build: row.build, state: row.state };
    Ok(rows.map(seen).collect())
}
