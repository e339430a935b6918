//! Accounts and their addresses.

use commpool_model::ids::UserId;
use rusqlite::Row;

use super::tables::Transaction;
use super::values::{Columns, int};
use crate::codes::account_state;
use crate::engine::accounts::{Accounts, Visit};
use crate::ops::accounts::State;
use crate::ops::directory::Card;
use crate::rows::AccountRow;

/// Columns of an account in the order in which [`account`] reads them, and where they are.
macro_rules! accounts {
    ($rest:literal) => {
        concat!("select user_id, address, display_name, state, changed, purge_at ", $rest)
    };
}

pub(super) fn account(columns: &mut Columns<'_>) -> rusqlite::Result<AccountRow> {
    Ok(AccountRow {
        user: columns.user()?,
        address: columns.get()?,
        display_name: columns.get()?,
        state: columns.code(account_state)?,
        changed: columns.int()?,
        purge_at: columns.maybe_micros()?,
    })
}

fn row(row: &Row<'_>) -> rusqlite::Result<AccountRow> {
    account(&mut Columns::of(row))
}

pub(super) fn card(columns: &mut Columns<'_>) -> rusqlite::Result<Card> {
    Ok(Card { phone: columns.get()?, title: columns.get()?, company: columns.get()?, office: columns.get()? })
}

/// Tables with rows of a user.
const OF_USER: [&str; 10] = [
    "delete from account where user_id = ?1",
    "delete from address where user_id = ?1",
    "delete from identity where user_id = ?1",
    "delete from credential where user_id = ?1",
    "delete from endpoint where user_id = ?1",
    "delete from publication where user_id = ?1",
    "delete from interest where user_id = ?1",
    "delete from subscription where user_id = ?1",
    "delete from presence where user_id = ?1",
    "delete from ace where user_id = ?1",
];

impl Accounts for Transaction<'_> {
    fn last_user(&mut self) -> rusqlite::Result<UserId> {
        let last = self.one("select coalesce(max(user_id), 0) from account", [], |row| Columns::of(row).user())?;
        Ok(last.unwrap_or(UserId(0)))
    }

    fn account_state(&mut self, user: UserId) -> rusqlite::Result<Option<State>> {
        let sql = "select state from account where user_id = ?1";
        self.one(sql, [int(user.0)], |row| Columns::of(row).code(account_state))
    }

    fn account_by_address(&mut self, address: &str) -> rusqlite::Result<Option<AccountRow>> {
        let sql = accounts!("from address join account using (user_id) where address = ?1");
        self.one(sql, [address], row)
    }

    fn address_of(&mut self, user: UserId) -> rusqlite::Result<Option<String>> {
        self.one("select address from address where user_id = ?1", [int(user.0)], |row| row.get(0))
    }

    fn add_account(&mut self, row: &AccountRow) -> rusqlite::Result<UserId> {
        let sql = "update pool set last_user = last_user + 1 returning last_user";
        let user = self.one(sql, [], |row| row.get::<_, i64>(0))?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        let sql = "insert into account (user_id, state, display_name, changed, purge_at) values (?1, ?2, ?3, ?4, ?5)";
        let purge_at = row.purge_at.map(|at| int(at.0));
        self.execute(sql, (user, row.state as u8, &row.display_name, int(row.changed), purge_at))?;
        let user = UserId(user.cast_unsigned());
        if let Some(address) = &row.address {
            self.give_address(address, user)?;
        }
        Ok(user)
    }

    fn update_account(&mut self, row: &AccountRow) -> rusqlite::Result<()> {
        let sql = "update account set state = ?2, display_name = ?3, changed = ?4, purge_at = ?5 where user_id = ?1";
        let purge_at = row.purge_at.map(|at| int(at.0));
        self.execute(sql, (int(row.user.0), row.state as u8, &row.display_name, int(row.changed), purge_at)).map(drop)
    }

    fn remove_account(&mut self, user: UserId) -> rusqlite::Result<()> {
        let latest = int(self.latest_change()?);
        self.execute("update pool set last_change = ?1 where last_change < ?1", [latest])?;
        OF_USER.into_iter().try_for_each(|sql| self.execute(sql, [int(user.0)]).map(drop))
    }

    fn give_address(&mut self, address: &str, user: UserId) -> rusqlite::Result<()> {
        self.execute("insert into address (address, user_id) values (?1, ?2)", (address, int(user.0))).map(drop)
    }

    fn free_address(&mut self, address: &str) -> rusqlite::Result<()> {
        self.execute("delete from address where address = ?1", [address]).map(drop)
    }

    fn card(&mut self, user: UserId) -> rusqlite::Result<Card> {
        let sql = "select phone, title, company, office from account where user_id = ?1";
        self.one(sql, [int(user.0)], |row| card(&mut Columns::of(row))).map(Option::unwrap_or_default)
    }

    fn put_card(&mut self, user: UserId, card: &Card) -> rusqlite::Result<()> {
        let sql = "update account set phone = ?2, title = ?3, company = ?4, office = ?5 where user_id = ?1";
        let Card { phone, title, company, office } = card;
        self.execute(sql, (int(user.0), phone, title, company, office)).map(drop)
    }

    fn latest_change(&mut self) -> rusqlite::Result<u64> {
        let sql = "select max(last_change, coalesce((select max(changed) from account), 0)) from pool";
        Ok(self.one(sql, [], |row| Columns::of(row).int())?.unwrap_or(0))
    }

    fn accounts_changed(&mut self, after: u64, limit: usize) -> rusqlite::Result<Vec<AccountRow>> {
        let sql =
            accounts!("from account left join address using (user_id) where changed > ?1 order by changed limit ?2");
        self.all(sql, (int(after), int(limit as u64)), row)
    }

    fn each_account(&mut self, after: Option<&str>, visit: Visit<'_, AccountRow>) -> rusqlite::Result<()> {
        let sql = accounts!("from address cross join account using (user_id) where address > ?1 order by address");
        self.visit(sql, [after.unwrap_or_default()], row, visit)
    }
}
