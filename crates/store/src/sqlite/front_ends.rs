//! Front ends: start, lease, stop.

use commpool_model::ids::Incarnation;

use super::tables::Transaction;
use super::values::{Columns, int};
use crate::codes::front_end_state;
use crate::engine::front_ends::FrontEnds;
use crate::ops::front_ends::Load;
use crate::rows::{FrontEndRow, Lives};

impl FrontEnds for Transaction<'_> {
    fn lives(&mut self) -> rusqlite::Result<Lives> {
        if let Some(lives) = &self.lives {
            return Ok(lives.clone());
        }
        let read = |row: &rusqlite::Row<'_>| {
            let mut columns = Columns::of(row);
            Ok((columns.fe()?, columns.maybe_micros()?))
        };
        let lives: Lives = self.all("select fe, dead_since from front_end", [], read)?.into_iter().collect();
        self.lives = Some(lives.clone());
        Ok(lives)
    }

    fn front_ends(&mut self) -> rusqlite::Result<Vec<FrontEndRow>> {
        let sql = "select fe, pod, start_id, address, build, state, lease_until, dead_since,
                   connections, links from front_end order by fe";
        self.all(sql, [], |row| {
            let mut columns = Columns::of(row);
            Ok(FrontEndRow {
                fe: columns.fe()?,
                pod: columns.get()?,
                start_id: columns.get()?,
                address: columns.get()?,
                build: columns.get()?,
                state: columns.code(front_end_state)?,
                lease_until: columns.micros()?,
                dead_since: columns.maybe_micros()?,
                load: Load { connections: columns.get()?, links: columns.get()? },
            })
        })
    }

    fn put_front_end(&mut self, row: &FrontEndRow) -> rusqlite::Result<()> {
        let sql = "insert or replace into front_end
                   (fe, pod, start_id, address, build, state, lease_until, dead_since, connections, links)
                   values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        let (lease_until, dead_since) = (int(row.lease_until.0), row.dead_since.map(|since| int(since.0)));
        let FrontEndRow { fe, pod, start_id, address, build, state, load, .. } = row;
        let Load { connections, links } = *load;
        let row = (fe.0, pod, start_id, address, build, *state as u8, lease_until, dead_since, connections, links);
        self.execute(sql, row)?;
        self.lives = None;
        Ok(())
    }

    fn remove_front_end(&mut self, fe: Incarnation) -> rusqlite::Result<()> {
        self.execute("delete from front_end where fe = ?1", [fe.0])?;
        self.lives = None;
        Ok(())
    }

    fn next_incarnation(&mut self) -> rusqlite::Result<Incarnation> {
        let sql = "update pool set last_incarnation = last_incarnation + 1 returning last_incarnation";
        let fe = self.one(sql, [], |row| row.get(0))?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        Ok(Incarnation(fe))
    }

    fn epoch(&mut self) -> rusqlite::Result<u64> {
        let epoch = self.one("select epoch from pool", [], |row| Columns::of(row).int())?;
        epoch.ok_or(rusqlite::Error::QueryReturnedNoRows)
    }
}
