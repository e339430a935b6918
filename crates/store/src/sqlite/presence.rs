//! Publications and the state they add up to.

use commpool_model::ids::{Incarnation, Key128, UserId, Version};
use commpool_model::presence::State;
use rusqlite::{Row, params};

use super::tables::Transaction;
use super::values::{Columns, bits, int};
use crate::codes::{availability, joined, source};
use crate::engine::presence::Presence;
use crate::rows::{Head, PublicationRow};

fn publication(row: &Row<'_>) -> rusqlite::Result<PublicationRow> {
    let mut columns = Columns::of(row);
    Ok(PublicationRow {
        user: columns.user()?,
        id: columns.key()?,
        tag: columns.key()?,
        fe: columns.fe()?,
        serial: columns.get()?,
        endpoint: columns.maybe_endpoint()?,
        state: State {
            source: columns.code(source)?,
            availability: columns.code(availability)?,
            activities: columns.list()?,
            note: columns.get()?,
        },
        since: columns.micros()?,
        updated: columns.micros()?,
        expires_at: columns.micros()?,
        document: columns.get()?,
    })
}

impl Presence for Transaction<'_> {
    fn publications_of(&mut self, user: UserId) -> rusqlite::Result<Vec<PublicationRow>> {
        let sql = "select user_id, pub_id, tag, fe, serial, endpoint_id, source, availability, activities, note, since,
                   updated, expires_at, document from publication where user_id = ?1 order by pub_id";
        self.all(sql, [int(user.0)], publication)
    }

    fn put_publication(&mut self, row: &PublicationRow) -> rusqlite::Result<()> {
        let sql = "insert or replace into publication
                   (user_id, pub_id, tag, fe, serial, endpoint_id, source, availability, activities, note, since,
                    updated, expires_at, document)
                   values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
        let state = &row.state;
        let parameters = params![
            int(row.user.0),
            row.id.0,
            row.tag.0,
            row.fe.0,
            row.serial,
            row.endpoint.map(bits),
            state.source as u8,
            state.availability as u8,
            joined(&state.activities),
            state.note,
            int(row.since.0),
            int(row.updated.0),
            int(row.expires_at.0),
            row.document,
        ];
        self.execute(sql, parameters).map(drop)
    }

    fn remove_publication(&mut self, user: UserId, id: Key128) -> rusqlite::Result<()> {
        let sql = "delete from publication where user_id = ?1 and pub_id = ?2";
        self.execute(sql, (int(user.0), id.0)).map(drop)
    }

    fn head(&mut self, user: UserId) -> rusqlite::Result<Head> {
        let sql = "select version, removed_tag, removed_id from presence where user_id = ?1";
        let head = self.one(sql, [int(user.0)], |row| {
            let mut columns = Columns::of(row);
            let version = Version(columns.int()?);
            let removed: Option<[u8; 16]> = columns.get()?;
            Ok(Head { version, removed: removed.map(Key128).zip(columns.get::<Option<[u8; 16]>>()?.map(Key128)) })
        })?;
        Ok(head.unwrap_or_default())
    }

    fn put_head(&mut self, user: UserId, head: &Head) -> rusqlite::Result<()> {
        let sql = "insert or replace into presence (user_id, version, removed_tag, removed_id)
                   values (?1, ?2, ?3, ?4)";
        let (tag, id) = head.removed.map(|(tag, id)| (tag.0, id.0)).unzip();
        self.execute(sql, (int(user.0), int(head.version.0), tag, id)).map(drop)
    }

    fn interest_in(&mut self, user: UserId) -> rusqlite::Result<Vec<Incarnation>> {
        let sql = "select fe from interest where user_id = ?1 order by fe";
        self.all(sql, [int(user.0)], |row| Columns::of(row).fe())
    }

    fn heads_watched(
        &mut self,
        fe: Incarnation,
        above: Version,
        limit: usize,
    ) -> rusqlite::Result<Vec<(UserId, Version)>> {
        let sql = "select user_id, version from interest join presence using (user_id)
                   where fe = ?1 and version > ?2 order by version, user_id limit ?3";
        self.all(sql, (fe.0, int(above.0), int(limit as u64)), |row| {
            let mut columns = Columns::of(row);
            Ok((columns.user()?, Version(columns.int()?)))
        })
    }
}
