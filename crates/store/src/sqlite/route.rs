//! Access control entries.

use commpool_model::acl::Ace;
use commpool_model::ids::UserId;
use rusqlite::Row;

use super::tables::Transaction;
use super::values::{Columns, int};
use crate::codes::right;
use crate::engine::route::{ACES, Aces};

fn ace(row: &Row<'_>) -> rusqlite::Result<Ace> {
    let mut columns = Columns::of(row);
    Ok(Ace { mask: columns.get()?, presence: columns.code(right)?, communication: columns.code(right)? })
}

impl Aces for Transaction<'_> {
    fn aces_of(&mut self, user: UserId) -> rusqlite::Result<Vec<Ace>> {
        let sql = "select mask, presence, communication from ace where user_id = ?1 order by mask limit ?2";
        self.all(sql, (int(user.0), int(ACES as u64)), ace)
    }

    fn aces_matching(&mut self, user: UserId, [address, domain, all]: [&str; 3]) -> rusqlite::Result<Vec<Ace>> {
        let sql = "select mask, presence, communication from ace
                   where user_id = ?1 and mask in (?2, ?3, ?4) order by mask";
        self.all(sql, (int(user.0), address, domain, all), ace)
    }
}
