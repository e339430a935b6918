//! Accounts and their addresses.

use std::convert::Infallible;
use std::ops::Bound;

use commpool_model::ids::UserId;

use super::Memory;
use crate::engine::accounts::{Accounts, Visit};
use crate::ops::accounts::State;
use crate::rows::AccountRow;

impl Accounts for Memory {
    fn account_state(&mut self, user: UserId) -> Result<Option<State>, Infallible> {
        Ok(self.accounts.get(&user).map(|row| row.state))
    }

    fn account_by_address(&mut self, address: &str) -> Result<Option<AccountRow>, Infallible> {
        Ok(self.addresses.get(address).and_then(|user| self.accounts.get(user)).cloned())
    }

    fn address_of(&mut self, user: UserId) -> Result<Option<String>, Infallible> {
        Ok(self.accounts.get(&user).map(|row| row.address.clone()))
    }

    fn add_account(&mut self, row: &AccountRow) -> Result<UserId, Infallible> {
        let user = UserId(self.accounts.last_key_value().map_or(1, |(last, _)| last.0 + 1));
        self.addresses.insert(row.address.clone(), user);
        self.changes.insert(row.changed, user);
        self.accounts.insert(user, AccountRow { user, ..row.clone() });
        Ok(user)
    }

    fn update_account(&mut self, row: &AccountRow) -> Result<(), Infallible> {
        if let Some(old) = self.accounts.insert(row.user, row.clone()) {
            self.changes.remove(&old.changed);
        }
        self.changes.insert(row.changed, row.user);
        Ok(())
    }

    fn latest_change(&mut self) -> Result<u64, Infallible> {
        Ok(self.changes.last_key_value().map_or(0, |(stamp, _)| *stamp))
    }

    fn accounts_changed(&mut self, after: u64, limit: usize) -> Result<Vec<AccountRow>, Infallible> {
        let newer = self.changes.range((Bound::Excluded(after), Bound::Unbounded)).take(limit);
        Ok(newer.filter_map(|(_, user)| self.accounts.get(user)).cloned().collect())
    }

    fn each_account(&mut self, after: Option<&str>, visit: Visit<'_, AccountRow>) -> Result<(), Infallible> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let users = self.addresses.range::<str, _>((from, Bound::Unbounded)).map(|(_, user)| user);
        let _all_or_enough = users.filter_map(|user| self.accounts.get(user)).cloned().try_for_each(visit);
        Ok(())
    }
}
