//! Endpoints as a whole: lost flows, sweeping, expiry, listing.

use std::collections::BTreeMap;

use commpool_model::ids::{EndpointId, Key128, UserId, UserRef, Version};
use sqlx::postgres::PgRow;
use sqlx::types::Uuid;
use sqlx::{PgConnection, Row};

use super::arrays::{bits, fe, int, micros, serial, user, uuid};
use super::facts::{Column, Kind, Seen};
use crate::ops::FlowRef;
use crate::ops::endpoints::{Expire, Find, FlowsLost, Marked, Page, SweepLost, Swept, TimerRows, Timers};

pub(super) async fn flows_lost(to: &mut PgConnection, request: &FlowsLost) -> sqlx::Result<Marked> {
    let (users, serials): (Vec<i64>, Vec<i32>) = request.flows.iter().map(|(of, n)| (user(of.id), serial(*n))).unzip();
    let row = sqlx::query("select commpool_api_1.flows_lost($1, $2, $3)")
        .bind(fe(request.fe))
        .bind(users)
        .bind(serials)
        .fetch_one(to)
        .await?;
    let marked: Option<i64> = row.try_get(0)?;
    Ok(marked.map_or(Marked::Gone, |count| Marked::Done(u32::try_from(count).unwrap_or(u32::MAX))))
}

pub(super) async fn sweep_lost(to: &mut PgConnection, request: SweepLost) -> sqlx::Result<Swept> {
    let rows = sqlx::query("select * from commpool_api_1.sweep_lost($1, $2)")
        .bind(fe(request.fe))
        .bind(i32::try_from(request.limit).unwrap_or(i32::MAX))
        .fetch_all(to)
        .await?;
    Gone::read(&rows)?.swept()
}

pub(super) async fn expire(to: &mut PgConnection, request: &Expire) -> sqlx::Result<Swept> {
    let keys = |rows: &[(UserRef, Key128)]| -> (Vec<i64>, Vec<Uuid>) {
        rows.iter().map(|(of, id)| (user(of.id), uuid(*id))).unzip()
    };
    let (publication_users, publications) = keys(&request.publications);
    let (watchers, subscriptions) = keys(&request.subscriptions);
    let rows = sqlx::query("select * from commpool_api_1.expire($1, $2, $3, $4, $5, $6, $7)")
        .bind(fe(request.fe))
        .bind(request.endpoints.iter().map(|id| user(id.user())).collect::<Vec<_>>())
        .bind(request.endpoints.iter().map(|id| bits(*id)).collect::<Vec<_>>())
        .bind(publication_users)
        .bind(publications)
        .bind(watchers)
        .bind(subscriptions)
        .fetch_all(to)
        .await?;
    Gone::read(&rows)?.swept()
}

/// What a removal answers.
pub(super) struct Gone {
    /// Whether who asked is alive.
    alive: bool,
    more: bool,
    pub(super) removed: BTreeMap<EndpointId, FlowRef>,
    changed: BTreeMap<UserId, Version>,
    seen: Seen,
}

impl Gone {
    pub(super) fn read(rows: &[PgRow]) -> sqlx::Result<Self> {
        let (mut more, mut removed, mut changed) = (false, BTreeMap::new(), BTreeMap::new());
        let seen = Seen::read(rows, |kind, fact, _| {
            match kind {
                Kind::Removed => {
                    removed.insert(EndpointId(fact.number(Column::Id)?), fact.flow()?);
                }
                // The head of the request has no user, those of users have no request.
                Kind::Head => match fact.maybe(Column::Number)? {
                    None => more = fact.flag()?,
                    Some(user) => {
                        changed.insert(UserId(user), fact.version()?);
                    }
                },
                _ => {}
            }
            Ok(())
        })?;
        Ok(Self { alive: !rows.is_empty(), more, removed, changed, seen })
    }

    /// `None`: who asked is dead.
    pub(super) fn changes(&self) -> Option<Vec<crate::ops::PresenceChange>> {
        let change = |(user, version): (&UserId, &Version)| self.seen.change(*user, *version);
        self.alive.then(|| self.changed.iter().map(change).collect())
    }

    fn swept(self) -> sqlx::Result<Swept> {
        let Some(changes) = self.changes() else { return Ok(Swept { gone: true, ..Swept::default() }) };
        Ok(Swept { gone: false, endpoints: self.removed.into_keys().collect(), changes, more: self.more })
    }
}

/// Key before every other where there is none to start after.
fn after(id: Option<EndpointId>) -> (i64, i64) {
    id.map_or((-1, 0), |id| (user(id.user()), bits(id)))
}

pub(super) async fn find(to: &mut PgConnection, request: &Find) -> sqlx::Result<Page> {
    let (after_user, after_id) = after(request.after);
    let rows = sqlx::query("select * from commpool_api_1.endpoints_find($1, $2, $3, $4)")
        .bind(request.address.as_deref())
        .bind(after_user)
        .bind(after_id)
        .bind(i32::try_from(request.limit).unwrap_or(i32::MAX - 1) + 1)
        .fetch_all(to)
        .await?;
    let (mut found, mut addresses) = (BTreeMap::new(), BTreeMap::new());
    Seen::read(&rows, |kind, fact, now| {
        match kind {
            Kind::Endpoint => {
                let endpoint = fact.endpoint(now)?;
                found.insert(endpoint.id, endpoint);
            }
            Kind::Address => {
                addresses.insert(fact.user()?, fact.get::<String>(Column::Contact)?);
            }
            _ => {}
        }
        Ok(())
    })?;
    let limit = request.limit as usize;
    let more = found.len() > limit;
    let address = |id: EndpointId| addresses.get(&id.user()).cloned().unwrap_or_default();
    let rows = found.into_iter().take(limit).map(|(id, endpoint)| (address(id), endpoint)).collect();
    Ok(Page { rows, more })
}

pub(super) async fn timers(to: &mut PgConnection, request: Timers) -> sqlx::Result<TimerRows> {
    let (after_user, after_id) = after(request.after);
    let (publication_user, publication) =
        request.after_publication.map_or((-1, Uuid::nil()), |(of, id)| (user(of.id), uuid(id)));
    let limit = request.limit as usize;
    let rows = sqlx::query("select * from commpool_api_1.timers($1, $2, $3, $4, $5)")
        .bind(after_user)
        .bind(after_id)
        .bind(publication_user)
        .bind(publication)
        .bind(i32::try_from(int(u64::from(request.limit) + 1)).unwrap_or(i32::MAX))
        .fetch_all(to)
        .await?;
    let mut timers = TimerRows::default();
    for row in &rows {
        let left = micros(row.try_get(4)?).millis_until(micros(row.try_get(3)?));
        match row.try_get::<Option<Uuid>, _>(2)? {
            Some(key) => {
                let user = UserRef::local(row.try_get::<i64, _>(0)?.cast_unsigned());
                timers.publications.push((user, Key128(key.into_bytes()), left));
            }
            None => timers.endpoints.push((EndpointId(row.try_get::<i64, _>(1)?.cast_unsigned()), left)),
        }
    }
    timers.more = timers.endpoints.len() > limit || timers.publications.len() > limit;
    timers.endpoints.truncate(limit);
    timers.publications.truncate(limit);
    Ok(timers)
}
