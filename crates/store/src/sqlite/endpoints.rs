//! Endpoints as a whole: lost flows, sweeping, expiry, listing.

use commpool_model::ids::{EndpointId, Incarnation, Key128, Micros, UserId};
use rusqlite::Row;

use super::register::{endpoint, endpoints};
use super::tables::Transaction;
use super::values::{Columns, bits, int};
use crate::engine::accounts::Visit;
use crate::engine::endpoints::{Endpoints, Slice};
use crate::rows::EndpointRow;

/// Key before every other where there is none to start after.
fn key(id: Option<EndpointId>) -> (i64, i64) {
    id.map_or((-1, 0), |id| (int(id.user().0), bits(id)))
}

fn publication_key(row: &Row<'_>) -> rusqlite::Result<(UserId, Key128)> {
    let mut columns = Columns::of(row);
    Ok((columns.user()?, columns.key()?))
}

impl Endpoints for Transaction<'_> {
    fn endpoint(&mut self, id: EndpointId) -> rusqlite::Result<Option<EndpointRow>> {
        self.one(endpoints!("where user_id = ?1 and endpoint_id = ?2"), key(Some(id)), endpoint)
    }

    fn each_endpoint(&mut self, after: Option<EndpointId>, visit: Visit<'_, EndpointRow>) -> rusqlite::Result<()> {
        let sql = endpoints!("where (user_id, endpoint_id) > (?1, ?2) order by user_id, endpoint_id");
        self.visit(sql, key(after), endpoint, visit)
    }

    fn each_lost(&mut self, visit: Visit<'_, EndpointRow>) -> rusqlite::Result<()> {
        let sql = endpoints!("where lost_at is not null order by lost_at, user_id, endpoint_id");
        self.visit(sql, [], endpoint, visit)
    }

    fn each_held(&mut self, fe: Incarnation, visit: Visit<'_, EndpointRow>) -> rusqlite::Result<()> {
        let sql = endpoints!("where fe = ?1 and lost_at is null order by user_id, endpoint_id");
        self.visit(sql, [fe.0], endpoint, visit)
    }

    fn overdue_endpoints(&mut self, users: Slice, past: Micros) -> rusqlite::Result<Vec<EndpointRow>> {
        let sql = endpoints!(
            "where user_id between ?1 and ?2 and lost_at is null and expires_at <= ?3 order by user_id, endpoint_id"
        );
        self.all(sql, (int(users.start().0), int(users.end().0), int(past.0)), endpoint)
    }

    fn publications_left_by(
        &mut self,
        fe: Incarnation,
        now: Micros,
        limit: usize,
    ) -> rusqlite::Result<Vec<(UserId, Key128)>> {
        let sql = "select user_id, pub_id from publication where fe = ?1 and expires_at <= ?2
                   order by user_id, pub_id limit ?3";
        self.all(sql, (fe.0, int(now.0), int(limit as u64)), publication_key)
    }

    fn overdue_publications(&mut self, users: Slice, past: Micros) -> rusqlite::Result<Vec<(UserId, Key128)>> {
        let sql = "select user_id, pub_id from publication where user_id between ?1 and ?2 and expires_at <= ?3
                   order by user_id, pub_id";
        self.all(sql, (int(users.start().0), int(users.end().0), int(past.0)), publication_key)
    }

    fn endpoint_expiries(
        &mut self,
        after: Option<EndpointId>,
        limit: usize,
    ) -> rusqlite::Result<Vec<(EndpointId, Micros)>> {
        let sql = "select endpoint_id, expires_at from endpoint where (user_id, endpoint_id) > (?1, ?2)
                   order by user_id, endpoint_id limit ?3";
        let (user, id) = key(after);
        self.all(sql, (user, id, int(limit as u64)), |row| {
            let mut columns = Columns::of(row);
            Ok((columns.endpoint()?, columns.micros()?))
        })
    }

    fn publication_expiry(&mut self, user: UserId, id: Key128) -> rusqlite::Result<Option<Micros>> {
        let sql = "select expires_at from publication where user_id = ?1 and pub_id = ?2";
        self.one(sql, (int(user.0), id.0), |row| Columns::of(row).micros())
    }

    fn publication_expiries(
        &mut self,
        after: Option<(UserId, Key128)>,
        limit: usize,
    ) -> rusqlite::Result<Vec<(UserId, Key128, Micros)>> {
        let sql = "select user_id, pub_id, expires_at from publication where (user_id, pub_id) > (?1, ?2)
                   order by user_id, pub_id limit ?3";
        let (user, id) = after.map_or((-1, [0; 16]), |(user, id)| (int(user.0), id.0));
        self.all(sql, (user, id, int(limit as u64)), |row| {
            let mut columns = Columns::of(row);
            Ok((columns.user()?, columns.key()?, columns.micros()?))
        })
    }

    fn endpoints_at(&mut self, fe: Incarnation) -> rusqlite::Result<u64> {
        let count = self.one("select count(*) from endpoint where fe = ?1", [fe.0], |row| Columns::of(row).int())?;
        Ok(count.unwrap_or(0))
    }

    fn has_rows_of(&mut self, fe: Incarnation) -> rusqlite::Result<bool> {
        let sql = "select exists (select 1 from endpoint where fe = ?1)
                       or exists (select 1 from publication where fe = ?1)
                       or exists (select 1 from interest where fe = ?1)
                       or exists (select 1 from subscription where fe = ?1)";
        Ok(self.one(sql, [fe.0], |row| row.get(0))?.unwrap_or(false))
    }
}
