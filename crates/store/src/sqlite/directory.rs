//! Users from a directory: leases, sources, who came from where, and what was put aside.

use commpool_model::ids::{Key128, Micros, UserId};
use rusqlite::{Row, params};

use super::accounts::{account, card};
use super::tables::Transaction;
use super::values::{Columns, int};
use crate::codes::{account_state, of_change};
use crate::engine::directory::Directory;
use crate::ops::directory::Change;
use crate::rows::{KnownRow, LeaseRow, StagedRow};

/// Users that came from a source, in the order in which [`known`] reads their columns.
macro_rules! users {
    ($rest:literal) => {
        concat!(
            "select source_key, fingerprint, user_id, address, display_name, state, changed, purge_at
             from identity join account using (user_id) left join address using (user_id) where source = ?1 ",
            $rest
        )
    };
}

fn known(row: &Row<'_>) -> rusqlite::Result<KnownRow> {
    let mut columns = Columns::of(row);
    Ok(KnownRow { key: columns.key()?, fingerprint: columns.key()?, account: account(&mut columns)? })
}

fn staged(row: &Row<'_>) -> rusqlite::Result<StagedRow> {
    let mut columns = Columns::of(row);
    let (number, token, kind, key) = (columns.get()?, columns.int()?, columns.get::<u8>()?, columns.key()?);
    let change = match kind {
        1 => Change::Put {
            key,
            address: columns.get()?,
            state: columns.code(account_state)?,
            display_name: columns.get()?,
            card: card(&mut columns)?,
            fingerprint: columns.key()?,
        },
        2 => Change::Lapse { key, purge_at: Micros(row.get::<_, i64>("purge_at")?.cast_unsigned()) },
        _ => Change::Remove { key },
    };
    Ok(StagedRow { number, token, change })
}

impl Directory for Transaction<'_> {
    fn lease(&mut self, name: &str) -> rusqlite::Result<Option<LeaseRow>> {
        self.one("select holder, token, until from lease where name = ?1", [name], |row| {
            let mut columns = Columns::of(row);
            Ok(LeaseRow { holder: columns.get()?, token: columns.int()?, until: columns.micros()? })
        })
    }

    fn put_lease(&mut self, name: &str, row: &LeaseRow) -> rusqlite::Result<()> {
        let sql = "insert or replace into lease (name, holder, token, until) values (?1, ?2, ?3, ?4)";
        self.execute(sql, (name, &row.holder, int(row.token), int(row.until.0))).map(drop)
    }

    fn source(&mut self, source: &str) -> rusqlite::Result<Option<(u64, Vec<u8>)>> {
        self.one("select version, state from source where source = ?1", [source], |row| {
            let mut columns = Columns::of(row);
            Ok((columns.int()?, columns.get()?))
        })
    }

    fn put_source(&mut self, source: &str, version: u64, state: &[u8]) -> rusqlite::Result<()> {
        let sql = "insert or replace into source (source, version, state) values (?1, ?2, ?3)";
        self.execute(sql, (source, int(version), state)).map(drop)
    }

    fn users_from(&mut self, source: &str) -> rusqlite::Result<u64> {
        let sql = "select count(*) from identity where source = ?1";
        Ok(self.one(sql, [source], |row| Columns::of(row).int())?.unwrap_or(0))
    }

    fn known(&mut self, source: &str, key: Key128) -> rusqlite::Result<Option<KnownRow>> {
        self.one(users!("and source_key = ?2"), (source, key.0), known)
    }

    fn known_after(&mut self, source: &str, after: Option<Key128>, limit: usize) -> rusqlite::Result<Vec<KnownRow>> {
        // Nothing comes before what is empty.
        let after = after.as_ref().map_or(&[][..], |key| &key.0);
        let sql = users!("and source_key > ?2 order by source_key limit ?3");
        self.all(sql, (source, after, int(limit as u64)), known)
    }

    fn origin_of(&mut self, user: UserId) -> rusqlite::Result<Option<(String, Key128)>> {
        self.one("select source, source_key from identity where user_id = ?1", [int(user.0)], |row| {
            let mut columns = Columns::of(row);
            Ok((columns.get()?, columns.key()?))
        })
    }

    fn put_origin(&mut self, user: UserId, source: &str, key: Key128, fingerprint: Key128) -> rusqlite::Result<()> {
        let sql = "insert or replace into identity (source, source_key, user_id, fingerprint) values (?1, ?2, ?3, ?4)";
        self.execute(sql, (source, key.0, int(user.0), fingerprint.0)).map(drop)
    }

    fn clear_staged(&mut self, source: &str) -> rusqlite::Result<()> {
        self.execute("delete from incoming where source = ?1", [source]).map(drop)
    }

    fn put_staged(&mut self, source: &str, row: &StagedRow) -> rusqlite::Result<()> {
        let sql = "insert or replace into incoming (source, number, token, kind, source_key, address, state,
                       display_name, phone, title, company, office, fingerprint, purge_at)
                   values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
        let (number, token, kind, key) = (row.number, int(row.token), of_change(&row.change), row.change.key().0);
        match &row.change {
            Change::Put { address, state, display_name, card, fingerprint, .. } => {
                let values = params![
                    source,
                    number,
                    token,
                    kind,
                    key,
                    address,
                    *state as u8,
                    display_name,
                    card.phone,
                    card.title,
                    card.company,
                    card.office,
                    fingerprint.0,
                    None::<i64>
                ];
                self.execute(sql, values)
            }
            Change::Lapse { .. } | Change::Remove { .. } => {
                let purge_at = match row.change {
                    Change::Lapse { purge_at, .. } => Some(int(purge_at.0)),
                    _ => None,
                };
                let none = None::<&str>;
                let values =
                    params![source, number, token, kind, key, none, none, none, none, none, none, none, none, purge_at];
                self.execute(sql, values)
            }
        }
        .map(drop)
    }

    fn staged(&mut self, source: &str) -> rusqlite::Result<Vec<StagedRow>> {
        let sql = "select number, token, kind, source_key, address, state, display_name, phone, title, company, office,
                       fingerprint, purge_at
                   from incoming where source = ?1 order by number";
        self.all(sql, [source], staged)
    }
}
