//! Front ends: start, lease, stop, reaping, listing; and whether writes are taken.

use commpool_model::ids::{Incarnation, Micros};
use sqlx::postgres::PgRow;
use sqlx::types::Uuid;
use sqlx::{PgConnection, Row};

use super::arrays::{fe, micros};
use super::functions;
use crate::codes::front_end_state;
use crate::ops::Health;
use crate::ops::front_ends::{
    FrontEnd, Listed, Load, Reap, Reaped, Renew, Renewed, Start, Started, State, Status, Stop, Stopped,
};

fn incarnation(row: &PgRow, column: usize) -> sqlx::Result<Incarnation> {
    Ok(Incarnation(row.try_get::<i32, _>(column)?.cast_unsigned()))
}

fn count(row: &PgRow, column: usize) -> sqlx::Result<u32> {
    Ok(row.try_get::<i32, _>(column)?.cast_unsigned())
}

fn state(row: &PgRow, column: usize) -> sqlx::Result<State> {
    let code: i16 = row.try_get(column)?;
    let state = u8::try_from(code).ok().and_then(front_end_state);
    state.ok_or_else(|| sqlx::Error::Decode(format!("{code} is no state of a front end").into()))
}

/// What the answers to start and renewal have in common.
struct Directory {
    live: Vec<FrontEnd>,
    leases: Vec<(Incarnation, Micros)>,
    me: Incarnation,
    epoch: u64,
    now: Micros,
}

impl Directory {
    /// Columns fe, address, build, state, lease_until, me, epoch, at; `None`: no row.
    fn read(rows: &[PgRow]) -> sqlx::Result<Option<Self>> {
        let Some(first) = rows.first() else { return Ok(None) };
        let mut directory = Self {
            live: Vec::with_capacity(rows.len()),
            leases: Vec::with_capacity(rows.len()),
            me: incarnation(first, 5)?,
            epoch: first.try_get::<i64, _>(6)?.cast_unsigned(),
            now: micros(first.try_get(7)?),
        };
        for row in rows {
            let fe = incarnation(row, 0)?;
            let (address, build) = (row.try_get(1)?, row.try_get(2)?);
            directory.live.push(FrontEnd { fe, address, build, state: state(row, 3)? });
            directory.leases.push((fe, micros(row.try_get(4)?)));
        }
        directory.live.sort_unstable_by_key(|front_end| front_end.fe);
        directory.leases.sort_unstable();
        Ok(Some(directory))
    }
}

pub(super) async fn start(to: &mut PgConnection, request: &Start) -> sqlx::Result<Started> {
    let rows = sqlx::query("select * from commpool_api_1.front_end_start($1, $2, $3, $4, $5)")
        .bind(&request.pod)
        .bind(Uuid::from_bytes(request.start_id))
        .bind(&request.address)
        .bind(&request.build)
        .bind(request.alone)
        .fetch_all(to)
        .await?;
    let directory = Directory::read(&rows)?.ok_or(sqlx::Error::RowNotFound)?;
    let Directory { live, me, epoch, .. } = directory;
    Ok(Started { fe: me, epoch, schema: functions::schema(), live })
}

pub(super) async fn renew(to: &mut PgConnection, request: Renew) -> sqlx::Result<Renewed> {
    let rows = sqlx::query("select * from commpool_api_1.renew($1, $2, $3, $4)")
        .bind(fe(request.fe))
        .bind(request.state as i16)
        .bind(request.load.connections.cast_signed())
        .bind(request.load.links.cast_signed())
        .fetch_all(to)
        .await?;
    let Some(Directory { live, leases, epoch, now, .. }) = Directory::read(&rows)? else {
        return Ok(Renewed::Gone);
    };
    let until = leases.iter().find(|(of, _)| *of == request.fe).map_or(now, |(_, until)| *until);
    let expired = leases.iter().filter(|(_, until)| *until <= now).map(|(fe, _)| *fe).collect();
    Ok(Renewed::Held { ms_left: now.millis_until(until), now, epoch, live, expired })
}

pub(super) async fn stop(to: &mut PgConnection, request: Stop) -> sqlx::Result<Stopped> {
    sqlx::query("select commpool_api_1.front_end_stop($1)").bind(fe(request.fe)).fetch_one(to).await?;
    Ok(Stopped)
}

pub(super) async fn reap(to: &mut PgConnection, request: Reap) -> sqlx::Result<Reaped> {
    let call = sqlx::query("select commpool_api_1.reap($1, $2)").bind(fe(request.by)).bind(fe(request.target));
    let status: i16 = call.fetch_one(to).await?.try_get(0)?;
    Ok(match status {
        0 => Reaped::Done,
        1 => Reaped::Alive,
        2 => Reaped::Busy,
        _ => Reaped::Gone,
    })
}

pub(super) async fn list(to: &mut PgConnection) -> sqlx::Result<Listed> {
    let rows = sqlx::query("select * from commpool_api_1.front_ends()").fetch_all(to).await?;
    let status = |row: &PgRow| -> sqlx::Result<Status> {
        let (lease, dead): (i64, Option<i64>) = (row.try_get(5)?, row.try_get(6)?);
        let now = micros(row.try_get(8)?);
        Ok(Status {
            fe: incarnation(row, 0)?,
            pod: row.try_get(1)?,
            address: row.try_get(2)?,
            build: row.try_get(3)?,
            state: state(row, 4)?,
            lease_ms: now.millis_until(micros(lease)),
            dead_ms: dead.map(|at| micros(at).millis_until(now)),
            endpoints: row.try_get::<i64, _>(7)?.cast_unsigned(),
            load: Load { connections: count(row, 9)?, links: count(row, 10)? },
        })
    };
    let mut front_ends = rows.iter().map(status).collect::<sqlx::Result<Vec<_>>>()?;
    front_ends.sort_unstable_by_key(|status| status.fe);
    Ok(Listed { front_ends })
}

pub(super) async fn health(to: &mut PgConnection) -> sqlx::Result<Health> {
    let schema: i32 = sqlx::query("select commpool_api_1.health()").fetch_one(to).await?.try_get(0)?;
    Ok(Health { writable: true, schema: schema.cast_unsigned() })
}
