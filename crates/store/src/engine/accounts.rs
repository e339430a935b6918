//! Accounts and their addresses.

use std::ops::ControlFlow;

use commpool_model::ids::{Micros, UserId, UserRef};

use super::{Backend, Tables};
use crate::ops::accounts::{Account, Changed, ChangedSince, Find, Page, Put, PutReply, State};
use crate::ops::directory::Card;
use crate::rows::AccountRow;

/// Accounts told in one answer about changes.
pub(crate) const CHANGES: usize = 1000;

/// Accounts.
pub(crate) trait Accounts: Backend {
    /// The highest number of a user there is; 0 where there is none.
    fn last_user(&mut self) -> Result<UserId, Self::Error>;
    /// State of an account.
    fn account_state(&mut self, user: UserId) -> Result<Option<State>, Self::Error>;
    /// The account that an address belongs to.
    fn account_by_address(&mut self, address: &str) -> Result<Option<AccountRow>, Self::Error>;
    /// Address of a user.
    fn address_of(&mut self, user: UserId) -> Result<Option<String>, Self::Error>;
    /// A new account under a number never given before, with its address; `row.user` is ignored.
    fn add_account(&mut self, row: &AccountRow) -> Result<UserId, Self::Error>;
    /// Replaces all but the address.
    fn update_account(&mut self, row: &AccountRow) -> Result<(), Self::Error>;
    /// Removes an account and every row of its user, his address too.
    fn remove_account(&mut self, user: UserId) -> Result<(), Self::Error>;
    /// Gives an address that is free to a user who has none.
    fn give_address(&mut self, address: &str, user: UserId) -> Result<(), Self::Error>;
    /// Frees an address.
    fn free_address(&mut self, address: &str) -> Result<(), Self::Error>;
    /// Facts for the address book.
    fn card(&mut self, user: UserId) -> Result<Card, Self::Error>;
    /// Replaces them.
    fn put_card(&mut self, user: UserId, card: &Card) -> Result<(), Self::Error>;
    /// Highest stamp given so far, also to accounts that are gone.
    fn latest_change(&mut self) -> Result<u64, Self::Error>;
    /// Accounts with a higher stamp, in the order of the stamps.
    fn accounts_changed(&mut self, after: u64, limit: usize) -> Result<Vec<AccountRow>, Self::Error>;
    /// Visits accounts that have an address, in the order of these.
    fn each_account(&mut self, after: Option<&str>, visit: Visit<'_, AccountRow>) -> Result<(), Self::Error>;
}

/// Gets rows one by one until it breaks off.
pub(crate) type Visit<'a, Row> = &'a mut dyn FnMut(Row) -> ControlFlow<()>;

/// Whether a user may sign in.
pub(crate) fn is_on<T: Tables>(tables: &mut T, user: UserRef) -> Result<bool, T::Error> {
    Ok(tables.account_state(user.id)? == Some(State::On))
}

/// A stamp above all others.
pub(crate) fn next_stamp<T: Tables>(tables: &mut T, now: Micros) -> Result<u64, T::Error> {
    Ok(tables.latest_change()?.saturating_add(1).max(now.0))
}

pub(crate) fn put<T: Tables>(tables: &mut T, now: Micros, request: &Put) -> Result<PutReply, T::Error> {
    match request {
        Put::Add { address, display_name } => {
            if let Some(row) = tables.account_by_address(address)? {
                let managed = tables.origin_of(row.user)?.is_some();
                return Ok(if managed { PutReply::Managed } else { PutReply::Exists });
            }
            let changed = next_stamp(tables, now)?;
            let row = AccountRow {
                user: UserId(0),
                address: Some(address.clone()),
                display_name: display_name.clone(),
                state: State::On,
                changed,
                purge_at: None,
            };
            Ok(PutReply::Done(UserRef::local(tables.add_account(&row)?.0)))
        }
        Put::Change { address, state, display_name } => {
            let Some(mut row) = tables.account_by_address(address)? else { return Ok(PutReply::NotFound) };
            if tables.origin_of(row.user)?.is_some() {
                return Ok(PutReply::Managed);
            }
            row.state = state.unwrap_or(row.state);
            if let Some(name) = display_name {
                row.display_name.clone_from(name);
            }
            row.changed = next_stamp(tables, now)?;
            tables.update_account(&row)?;
            Ok(PutReply::Done(row.user_ref()))
        }
    }
}

pub(crate) fn find<T: Tables>(tables: &mut T, request: &Find) -> Result<Page, T::Error> {
    let text = request.text.to_lowercase();
    let limit = request.limit as usize;
    let mut rows = Vec::new();
    let matches = |row: &AccountRow| {
        text.is_empty()
            || row.address.iter().any(|address| address.contains(&text))
            || row.display_name.to_lowercase().contains(&text)
    };
    tables.each_account(request.after.as_deref(), &mut |row| {
        if matches(&row) {
            rows.push(row);
        }
        if rows.len() > limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let mut accounts = Vec::with_capacity(rows.len());
    for row in rows {
        let has_password = !tables.labels(row.user)?.is_empty();
        let managed = tables.origin_of(row.user)?.is_some();
        let (user, card) = (row.user_ref(), tables.card(row.user)?);
        let AccountRow { address, display_name, state, .. } = row;
        let address = address.unwrap_or_default();
        accounts.push(Account { user, address, display_name, state, has_password, managed, card });
    }
    Ok(Page { accounts, more })
}

pub(crate) fn changed<T: Tables>(tables: &mut T, request: ChangedSince) -> Result<Changed, T::Error> {
    let Some(cursor) = request.cursor else {
        return Ok(Changed { cursor: tables.latest_change()?, ..Changed::default() });
    };
    let mut rows = tables.accounts_changed(cursor, CHANGES + 1)?;
    let more = rows.len() > CHANGES;
    rows.truncate(CHANGES);
    let cursor = rows.last().map_or(cursor, |row| row.changed);
    let told = |row: AccountRow| (row.address.clone().unwrap_or_default(), row.user_ref(), row.state, row.changed);
    Ok(Changed { cursor, accounts: rows.into_iter().map(told).collect(), more })
}
