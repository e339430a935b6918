//! Users from a directory: leases, sources, what is put aside and what becomes of it.

use commpool_model::ids::Key128;
use sqlx::postgres::PgRow;
use sqlx::types::Uuid;
use sqlx::{PgConnection, Row};

use super::accounts::{state, user};
use super::arrays::{column, int, micros, uuid};
use crate::codes::of_change;
use crate::ops::directory::{
    Applied, Apply, Card, Change, Holder, Holders, HoldersFound, Known, LeaseKeep, LeaseKept, LeaseTake, LeaseTaken,
    Source, SourceGet, SourcePage, SourceUsers, Stage, Staged,
};

fn key(row: &PgRow, column: usize) -> sqlx::Result<Key128> {
    Ok(Key128(row.try_get::<Uuid, _>(column)?.into_bytes()))
}

fn number(row: &PgRow, column: usize) -> sqlx::Result<u64> {
    Ok(row.try_get::<Option<i64>, _>(column)?.unwrap_or(0).cast_unsigned())
}

pub(super) async fn take(to: &mut PgConnection, request: &LeaseTake) -> sqlx::Result<LeaseTaken> {
    let row = sqlx::query("select token, holder, ms_left from commpool_api_1.lease_take($1, $2, $3)")
        .bind(&request.name)
        .bind(&request.holder)
        .bind(i64::from(request.ttl_ms))
        .fetch_one(to)
        .await?;
    Ok(match row.try_get::<Option<String>, _>(1)? {
        Some(by) => LeaseTaken::Held { by, ms_left: number(&row, 2)? },
        None => LeaseTaken::Taken(number(&row, 0)?),
    })
}

pub(super) async fn keep(to: &mut PgConnection, request: &LeaseKeep) -> sqlx::Result<LeaseKept> {
    let call = sqlx::query("select commpool_api_1.lease_keep($1, $2, $3)");
    let call = call.bind(&request.name).bind(int(request.token)).bind(i64::from(request.ttl_ms));
    let kept: bool = call.fetch_one(to).await?.try_get(0)?;
    Ok(if kept { LeaseKept::Kept } else { LeaseKept::Lost })
}

pub(super) async fn get(to: &mut PgConnection, request: &SourceGet) -> sqlx::Result<Source> {
    let call = sqlx::query("select version, state, users, at from commpool_api_1.source_get($1)");
    let row = call.bind(&request.source).fetch_one(to).await?;
    Ok(Source {
        version: number(&row, 0)?,
        state: row.try_get::<Option<Vec<u8>>, _>(1)?.unwrap_or_default(),
        users: number(&row, 2)?,
        now: micros(row.try_get(3)?),
    })
}

pub(super) async fn users(to: &mut PgConnection, request: &SourceUsers) -> sqlx::Result<SourcePage> {
    let rows = sqlx::query("select * from commpool_api_1.source_users($1, $2, $3)")
        .bind(&request.source)
        .bind(request.after.map(uuid))
        .bind(i32::try_from(request.limit).unwrap_or(i32::MAX - 1) + 1)
        .fetch_all(to)
        .await?;
    let known = |row: &PgRow| -> sqlx::Result<Known> {
        Ok(Known {
            key: key(row, 0)?,
            fingerprint: key(row, 1)?,
            user: user(row, 2)?,
            address: row.try_get(3)?,
            state: state(row, 4)?,
            purge_at: row.try_get::<Option<i64>, _>(5)?.map(micros),
        })
    };
    let limit = request.limit as usize;
    let users = rows.iter().take(limit).map(known).collect::<sqlx::Result<_>>()?;
    Ok(SourcePage { users, more: rows.len() > limit })
}

pub(super) async fn holders(to: &mut PgConnection, request: &Holders) -> sqlx::Result<HoldersFound> {
    let call = sqlx::query("select * from commpool_api_1.address_holders($1)");
    let rows = call.bind(&request.addresses).fetch_all(to).await?;
    let mut holders = vec![None; request.addresses.len()];
    for row in &rows {
        let place = usize::try_from(row.try_get::<i32, _>(0)?.saturating_sub(1)).unwrap_or(usize::MAX);
        let origin = match row.try_get::<Option<String>, _>(2)? {
            Some(source) => Some((source, key(row, 3)?)),
            None => None,
        };
        if let Some(holder) = holders.get_mut(place) {
            *holder = Some(Holder { user: user(row, 1)?, origin });
        }
    }
    Ok(HoldersFound { holders })
}

/// What only a [`Change::Put`] says.
struct Wanted<'a> {
    address: Option<&'a String>,
    state: i16,
    name: &'a String,
    card: &'a Card,
    fingerprint: Uuid,
}

fn wanted(change: &Change) -> Option<Wanted<'_>> {
    match change {
        Change::Put { address, state, display_name, card, fingerprint, .. } => Some(Wanted {
            address: address.as_ref(),
            state: *state as i16,
            name: display_name,
            card,
            fingerprint: uuid(*fingerprint),
        }),
        Change::Lapse { .. } | Change::Remove { .. } => None,
    }
}

pub(super) async fn stage(to: &mut PgConnection, request: &Stage) -> sqlx::Result<Staged> {
    let rows: Vec<&Change> = request.rows.iter().collect();
    let purge_at = |change: &Change| match change {
        Change::Lapse { purge_at, .. } => Some(int(purge_at.0)),
        Change::Put { .. } | Change::Remove { .. } => None,
    };
    let card = |of: fn(&Card) -> &String| column(&rows, |row| wanted(row).map(|wanted| of(wanted.card).clone()));
    let text = "select commpool_api_1.stage($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";
    let staged: bool = sqlx::query(text)
        .bind(&request.source)
        .bind(int(request.token))
        .bind(i32::try_from(request.first).unwrap_or(i32::MAX))
        .bind(column(&rows, |row| i16::from(of_change(row))))
        .bind(column(&rows, |row| uuid(row.key())))
        .bind(column(&rows, |row| wanted(row).and_then(|wanted| wanted.address.cloned())))
        .bind(column(&rows, |row| wanted(row).map(|wanted| wanted.state)))
        .bind(column(&rows, |row| wanted(row).map(|wanted| wanted.name.clone())))
        .bind(column(&rows, |row| wanted(row).map(|wanted| wanted.name.to_lowercase())))
        .bind(card(|card| &card.phone))
        .bind(card(|card| &card.title))
        .bind(card(|card| &card.company))
        .bind(card(|card| &card.office))
        .bind(column(&rows, |row| wanted(row).map(|wanted| wanted.fingerprint)))
        .bind(column(&rows, purge_at))
        .fetch_one(to)
        .await?
        .try_get(0)?;
    Ok(if staged { Staged::Done } else { Staged::Fenced })
}

pub(super) async fn apply(to: &mut PgConnection, request: &Apply) -> sqlx::Result<Applied> {
    let row = sqlx::query("select status, version, refused from commpool_api_1.apply($1, $2, $3, $4, $5)")
        .bind(&request.source)
        .bind(int(request.token))
        .bind(int(request.version))
        .bind(i32::try_from(request.rows).unwrap_or(i32::MAX))
        .bind(&request.state)
        .fetch_one(to)
        .await?;
    let status: i16 = row.try_get(0)?;
    Ok(match status {
        0 => {
            let refused = row.try_get::<Option<Vec<Uuid>>, _>(2)?.unwrap_or_default();
            let refused = refused.into_iter().map(|key| Key128(key.into_bytes())).collect();
            Applied::Done { version: number(&row, 1)?, refused }
        }
        1 => Applied::Moved,
        2 => Applied::Fenced,
        _ => Applied::Incomplete,
    })
}
