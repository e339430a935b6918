//! Users from a directory: who may run, what is known, and what a run puts aside.

mod apply;

use commpool_model::ids::{Key128, Micros, UserId};

pub(crate) use self::apply::apply;
use super::{Backend, Tables};
use crate::ops::directory::{
    Holder, Holders, HoldersFound, Known, LeaseKeep, LeaseKept, LeaseTake, LeaseTaken, Source, SourceGet, SourcePage,
    SourceUsers, Stage, Staged,
};
use crate::rows::{KnownRow, LeaseRow, StagedRow};

/// Leases, sources, who came from where, and what was put aside.
pub(crate) trait Directory: Backend {
    /// A lease by name.
    fn lease(&mut self, name: &str) -> Result<Option<LeaseRow>, Self::Error>;
    /// Inserts or replaces one.
    fn put_lease(&mut self, name: &str, row: &LeaseRow) -> Result<(), Self::Error>;
    /// Version and state of a source.
    fn source(&mut self, source: &str) -> Result<Option<(u64, Vec<u8>)>, Self::Error>;
    /// Inserts or replaces them.
    fn put_source(&mut self, source: &str, version: u64, state: &[u8]) -> Result<(), Self::Error>;
    /// How many users came from a source.
    fn users_from(&mut self, source: &str) -> Result<u64, Self::Error>;
    /// A user by source and key.
    fn known(&mut self, source: &str, key: Key128) -> Result<Option<KnownRow>, Self::Error>;
    /// Users of a source with a higher key, by key.
    fn known_after(&mut self, source: &str, after: Option<Key128>, limit: usize) -> Result<Vec<KnownRow>, Self::Error>;
    /// Source and key that a user came from.
    fn origin_of(&mut self, user: UserId) -> Result<Option<(String, Key128)>, Self::Error>;
    /// Inserts or replaces that, with the fingerprint.
    fn put_origin(&mut self, user: UserId, source: &str, key: Key128, fingerprint: Key128) -> Result<(), Self::Error>;
    /// Forgets what was put aside.
    fn clear_staged(&mut self, source: &str) -> Result<(), Self::Error>;
    /// Puts a row aside, in place of the one with its number.
    fn put_staged(&mut self, source: &str, row: &StagedRow) -> Result<(), Self::Error>;
    /// What was put aside, by number.
    fn staged(&mut self, source: &str) -> Result<Vec<StagedRow>, Self::Error>;
}

pub(crate) fn take<T: Tables>(tables: &mut T, now: Micros, request: &LeaseTake) -> Result<LeaseTaken, T::Error> {
    let old = tables.lease(&request.name)?;
    if let Some(old) = old.as_ref().filter(|old| old.until > now) {
        return Ok(LeaseTaken::Held { by: old.holder.clone(), ms_left: now.millis_until(old.until) });
    }
    let token = old.map_or(0, |old| old.token).saturating_add(1);
    let row = LeaseRow { holder: request.holder.clone(), token, until: plus_millis(now, request.ttl_ms) };
    tables.put_lease(&request.name, &row)?;
    Ok(LeaseTaken::Taken(token))
}

pub(crate) fn keep<T: Tables>(tables: &mut T, now: Micros, request: &LeaseKeep) -> Result<LeaseKept, T::Error> {
    let Some(mut row) = tables.lease(&request.name)?.filter(|row| row.token == request.token) else {
        return Ok(LeaseKept::Lost);
    };
    // Given back it is free whatever the clock does.
    row.until = if request.ttl_ms == 0 { Micros(0) } else { plus_millis(now, request.ttl_ms) };
    tables.put_lease(&request.name, &row)?;
    Ok(LeaseKept::Kept)
}

const fn plus_millis(now: Micros, ms: u32) -> Micros {
    Micros(now.0.saturating_add(ms as u64 * 1000))
}

/// Whether this token was given last.
fn holds<T: Tables>(tables: &mut T, name: &str, token: u64) -> Result<bool, T::Error> {
    Ok(tables.lease(name)?.is_some_and(|row| row.token == token))
}

pub(crate) fn get<T: Tables>(tables: &mut T, now: Micros, request: &SourceGet) -> Result<Source, T::Error> {
    let (version, state) = tables.source(&request.source)?.unwrap_or_default();
    Ok(Source { version, state, users: tables.users_from(&request.source)?, now })
}

pub(crate) fn users<T: Tables>(tables: &mut T, request: &SourceUsers) -> Result<SourcePage, T::Error> {
    let limit = request.limit as usize;
    let mut rows = tables.known_after(&request.source, request.after, limit + 1)?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let known = |KnownRow { key, fingerprint, account }| Known {
        key,
        user: account.user_ref(),
        address: account.address,
        state: account.state,
        fingerprint,
        purge_at: account.purge_at,
    };
    Ok(SourcePage { users: rows.into_iter().map(known).collect(), more })
}

pub(crate) fn holders<T: Tables>(tables: &mut T, request: &Holders) -> Result<HoldersFound, T::Error> {
    let mut holders = Vec::with_capacity(request.addresses.len());
    for address in &request.addresses {
        holders.push(match tables.account_by_address(address)? {
            Some(row) => Some(Holder { user: row.user_ref(), origin: tables.origin_of(row.user)? }),
            None => None,
        });
    }
    Ok(HoldersFound { holders })
}

pub(crate) fn stage<T: Tables>(tables: &mut T, request: &Stage) -> Result<Staged, T::Error> {
    if !holds(tables, &request.source, request.token)? {
        return Ok(Staged::Fenced);
    }
    if request.first == 0 {
        tables.clear_staged(&request.source)?;
    }
    for (number, change) in (request.first..).zip(&request.rows) {
        let row = StagedRow { number, token: request.token, change: change.clone() };
        tables.put_staged(&request.source, &row)?;
    }
    Ok(Staged::Done)
}
