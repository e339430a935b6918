//! What changed since a front end last asked.

use sqlx::PgConnection;

use super::arrays::{fe, int};
use super::presence::versions;
use crate::ops::PresenceChange;
use crate::ops::pull::{Pull, Pulled};

pub(super) async fn pull(to: &mut PgConnection, request: Pull) -> sqlx::Result<Pulled> {
    let rows = sqlx::query("select * from commpool_api_1.pull($1, $2, $3)")
        .bind(fe(request.fe))
        .bind(request.cursor.map(|cursor| int(cursor.after)))
        .bind(i32::try_from(request.limit).unwrap_or(i32::MAX - 1) + 1)
        .fetch_all(to)
        .await?;
    let (versions, seen) = versions(&rows)?;
    let mut heads: Vec<_> = versions.into_iter().map(|(user, version)| (version, user)).collect();
    heads.sort_unstable();
    let limit = request.limit as usize;
    let more = heads.len() > limit;
    heads.truncate(limit);
    let cursor = request.next(seen.now, heads.last().map(|(version, _)| *version).filter(|_| more));
    let change = |(version, user)| PresenceChange { interest: vec![request.fe], ..seen.change(user, version) };
    Ok(Pulled { cursor, changes: heads.into_iter().map(change).collect(), more })
}
