//! Accounts and their addresses.

use commpool_model::ids::UserId;
use rusqlite::Row;

use super::tables::Transaction;
use super::values::{Columns, int};
use crate::codes::account_state;
use crate::engine::accounts::{Accounts, Visit};
use crate::ops::accounts::State;
use crate::rows::AccountRow;

fn row(row: &Row<'_>) -> rusqlite::Result<AccountRow> {
    let mut columns = Columns::of(row);
    Ok(AccountRow {
        user: columns.user()?,
        address: columns.get()?,
        display_name: columns.get()?,
        state: columns.code(account_state)?,
        changed: columns.int()?,
    })
}

impl Accounts for Transaction<'_> {
    fn account_state(&mut self, user: UserId) -> rusqlite::Result<Option<State>> {
        let sql = "select state from account where user_id = ?1";
        self.one(sql, [int(user.0)], |row| Columns::of(row).code(account_state))
    }

    fn account_by_address(&mut self, address: &str) -> rusqlite::Result<Option<AccountRow>> {
        let sql = "select user_id, address, display_name, state, changed
                   from address join account using (user_id) where address = ?1";
        self.one(sql, [address], row)
    }

    fn address_of(&mut self, user: UserId) -> rusqlite::Result<Option<String>> {
        self.one("select address from address where user_id = ?1", [int(user.0)], |row| row.get(0))
    }

    fn add_account(&mut self, row: &AccountRow) -> rusqlite::Result<UserId> {
        let sql = "update pool set last_user = last_user + 1 returning last_user";
        let user = self.one(sql, [], |row| row.get::<_, i64>(0))?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        let sql = "insert into account (user_id, state, display_name, changed) values (?1, ?2, ?3, ?4)";
        self.execute(sql, (user, row.state as u8, &row.display_name, int(row.changed)))?;
        self.execute("insert into address (address, user_id) values (?1, ?2)", (&row.address, user))?;
        Ok(UserId(user.cast_unsigned()))
    }

    fn update_account(&mut self, row: &AccountRow) -> rusqlite::Result<()> {
        let sql = "update account set state = ?2, display_name = ?3, changed = ?4 where user_id = ?1";
        self.execute(sql, (int(row.user.0), row.state as u8, &row.display_name, int(row.changed))).map(drop)
    }

    fn latest_change(&mut self) -> rusqlite::Result<u64> {
        let latest = self.one("select max(changed) from account", [], |row| row.get::<_, Option<i64>>(0))?;
        Ok(latest.flatten().unwrap_or(0).cast_unsigned())
    }

    fn accounts_changed(&mut self, after: u64, limit: usize) -> rusqlite::Result<Vec<AccountRow>> {
        let sql = "select user_id, address, display_name, state, changed
                   from account join address using (user_id) where changed > ?1 order by changed limit ?2";
        self.all(sql, (int(after), int(limit as u64)), row)
    }

    fn each_account(&mut self, after: Option<&str>, visit: Visit<'_, AccountRow>) -> rusqlite::Result<()> {
        let sql = "select user_id, address, display_name, state, changed
                   from address cross join account using (user_id) where address > ?1 order by address";
        self.visit(sql, [after.unwrap_or_default()], row, visit)
    }
}
