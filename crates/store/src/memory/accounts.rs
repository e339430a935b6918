//! Accounts and their addresses.

use std::convert::Infallible;
use std::ops::Bound;

use commpool_model::ids::UserId;

use super::Memory;
use crate::engine::accounts::{Accounts, Visit};
use crate::ops::accounts::State;
use crate::ops::directory::Card;
use crate::rows::AccountRow;

impl Memory {
    fn note_change(&mut self, before: Option<u64>, stamp: u64, user: UserId) {
        before.map(|before| self.changes.remove(&before));
        self.changes.insert(stamp, user);
        self.last_change = self.last_change.max(stamp);
    }
}

impl Accounts for Memory {
    fn last_user(&mut self) -> Result<UserId, Infallible> {
        Ok(self.accounts.last_key_value().map_or(UserId(0), |(user, _)| *user))
    }

    fn account_state(&mut self, user: UserId) -> Result<Option<State>, Infallible> {
        Ok(self.accounts.get(&user).map(|row| row.state))
    }

    fn account_by_address(&mut self, address: &str) -> Result<Option<AccountRow>, Infallible> {
        Ok(self.addresses.get(address).and_then(|user| self.accounts.get(user)).cloned())
    }

    fn address_of(&mut self, user: UserId) -> Result<Option<String>, Infallible> {
        Ok(self.accounts.get(&user).and_then(|row| row.address.clone()))
    }

    fn add_account(&mut self, row: &AccountRow) -> Result<UserId, Infallible> {
        self.last_user += 1;
        let user = UserId(self.last_user);
        self.addresses.extend(row.address.clone().map(|address| (address, user)));
        self.accounts.insert(user, AccountRow { user, ..row.clone() });
        self.note_change(None, row.changed, user);
        Ok(user)
    }

    fn update_account(&mut self, row: &AccountRow) -> Result<(), Infallible> {
        if let Some(old) = self.accounts.get_mut(&row.user) {
            let before = old.changed;
            *old = AccountRow { address: old.address.take(), ..row.clone() };
            self.note_change(Some(before), row.changed, row.user);
        }
        Ok(())
    }

    fn remove_account(&mut self, user: UserId) -> Result<(), Infallible> {
        if let Some(row) = self.accounts.remove(&user) {
            self.changes.remove(&row.changed);
            self.addresses.retain(|_, of| *of != user);
        }
        self.cards.remove(&user);
        if let Some(origin) = self.origins.remove(&user) {
            self.identities.remove(&origin);
        }
        self.verifiers.retain(|(owner, _, _), _| *owner != user);
        self.aces.retain(|(owner, _), _| *owner != user);
        self.endpoints.retain(|id, _| id.user() != user);
        self.publications.retain(|(owner, _), _| *owner != user);
        self.heads.remove(&user);
        self.interest.retain(|(owner, _), _| *owner != user);
        self.subscriptions.retain(|(owner, _), _| *owner != user);
        Ok(())
    }

    fn give_address(&mut self, address: &str, user: UserId) -> Result<(), Infallible> {
        if let Some(row) = self.accounts.get_mut(&user) {
            row.address = Some(address.to_owned());
            self.addresses.insert(address.to_owned(), user);
        }
        Ok(())
    }

    fn free_address(&mut self, address: &str) -> Result<(), Infallible> {
        if let Some(row) = self.addresses.remove(address).and_then(|user| self.accounts.get_mut(&user)) {
            row.address = None;
        }
        Ok(())
    }

    fn card(&mut self, user: UserId) -> Result<Card, Infallible> {
        Ok(self.cards.get(&user).cloned().unwrap_or_default())
    }

    fn put_card(&mut self, user: UserId, card: &Card) -> Result<(), Infallible> {
        self.cards.insert(user, card.clone());
        Ok(())
    }

    fn latest_change(&mut self) -> Result<u64, Infallible> {
        Ok(self.last_change)
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
