//! Accounts and their addresses.

use commpool_model::ids::UserRef;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::arrays::{column, int};
use crate::codes::account_state;
use crate::engine::accounts::CHANGES;
use crate::ops::accounts::{Account, Changed, ChangedSince, Find, Page, Put, PutReply, State};
use crate::ops::directory::Card;

pub(super) fn state(row: &PgRow, column: usize) -> sqlx::Result<State> {
    let code: i16 = row.try_get(column)?;
    let state = u8::try_from(code).ok().and_then(account_state);
    state.ok_or_else(|| sqlx::Error::Decode(format!("{code} is no state of an account").into()))
}

pub(super) fn user(row: &PgRow, column: usize) -> sqlx::Result<UserRef> {
    Ok(UserRef::local(row.try_get::<i64, _>(column)?.cast_unsigned()))
}

pub(super) async fn put(to: &mut PgConnection, requests: &[&Put]) -> sqlx::Result<Vec<PutReply>> {
    let new_state = |put: &Put| match put {
        Put::Add { .. } => None,
        Put::Change { state, .. } => state.map(|state| state as i16),
    };
    let name = |put: &Put| match put {
        Put::Add { display_name, .. } => Some(display_name.clone()),
        Put::Change { display_name, .. } => display_name.clone(),
    };
    let rows = sqlx::query("select idx, status, user_id from commpool_api_1.account_put($1, $2, $3, $4, $5)")
        .bind(column(requests, |put| put.address()))
        .bind(column(requests, |put| matches!(put, Put::Add { .. })))
        .bind(column(requests, new_state))
        .bind(column(requests, name))
        .bind(column(requests, |put| name(put).map(|name| name.to_lowercase())))
        .fetch_all(to)
        .await?;
    let reply = |row: &PgRow| -> sqlx::Result<(i32, PutReply)> {
        let status: i16 = row.try_get(1)?;
        let reply = match status {
            0 => PutReply::Done(user(row, 2)?),
            1 => PutReply::Exists,
            3 => PutReply::Managed,
            _ => PutReply::NotFound,
        };
        Ok((row.try_get(0)?, reply))
    };
    let mut replies = rows.iter().map(reply).collect::<sqlx::Result<Vec<_>>>()?;
    replies.sort_unstable_by_key(|(idx, _)| *idx);
    Ok(replies.into_iter().map(|(_, reply)| reply).collect())
}

pub(super) async fn find(to: &mut PgConnection, request: &Find) -> sqlx::Result<Page> {
    let rows = sqlx::query("select * from commpool_api_1.accounts_page($1, $2, $3)")
        .bind(request.text.to_lowercase())
        .bind(request.after.as_deref().unwrap_or_default())
        .bind(i32::try_from(request.limit).unwrap_or(i32::MAX - 1) + 1)
        .fetch_all(to)
        .await?;
    let account = |row: &PgRow| -> sqlx::Result<Account> {
        Ok(Account {
            user: user(row, 0)?,
            address: row.try_get(1)?,
            display_name: row.try_get(2)?,
            state: state(row, 3)?,
            has_password: row.try_get(4)?,
            managed: row.try_get(5)?,
            card: Card {
                phone: row.try_get(6)?,
                title: row.try_get(7)?,
                company: row.try_get(8)?,
                office: row.try_get(9)?,
            },
        })
    };
    let mut accounts = rows.iter().map(account).collect::<sqlx::Result<Vec<_>>>()?;
    let more = accounts.len() > request.limit as usize;
    accounts.truncate(request.limit as usize);
    Ok(Page { accounts, more })
}

pub(super) async fn changed(to: &mut PgConnection, request: ChangedSince) -> sqlx::Result<Changed> {
    let rows = sqlx::query("select * from commpool_api_1.accounts_changed($1, $2)")
        .bind(request.cursor.map(int))
        .bind(i32::try_from(CHANGES + 1).unwrap_or(i32::MAX))
        .fetch_all(to)
        .await?;
    let stamp = |row: &PgRow| -> sqlx::Result<u64> { Ok(row.try_get::<i64, _>(0)?.cast_unsigned()) };
    let Some(cursor) = request.cursor else {
        let cursor = rows.first().map_or(Ok(0), stamp)?;
        return Ok(Changed { cursor, ..Changed::default() });
    };
    let told = |row: &PgRow| -> sqlx::Result<_> { Ok((row.try_get(2)?, user(row, 1)?, state(row, 3)?, stamp(row)?)) };
    let mut accounts = rows.iter().map(told).collect::<sqlx::Result<Vec<(String, UserRef, State, u64)>>>()?;
    let more = accounts.len() > CHANGES;
    accounts.truncate(CHANGES);
    let cursor = accounts.last().map_or(cursor, |(_, _, _, stamp)| *stamp);
    Ok(Changed { cursor, accounts, more })
}
