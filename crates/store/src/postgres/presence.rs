//! Publications and the state they add up to.

use std::collections::BTreeMap;

use commpool_model::ids::{Key128, UserId, Version};
use sqlx::PgConnection;

use super::arrays::{bits, column, fe, serial, user, uuid};
use super::facts::{Column, Kind, Seen};
use crate::codes::joined;
use crate::ops::presence::{Action, Of, Publish, Published, States};
use commpool_model::presence::State;

/// What a PUBLISH sets, if it sets anything.
fn set(request: &Publish) -> Option<(&State, &[u8])> {
    match &request.action {
        Action::Set { state, document, .. } => Some((state, document)),
        Action::Refresh { .. } | Action::Remove => None,
    }
}

pub(super) async fn publish(to: &mut PgConnection, requests: &[&Publish]) -> sqlx::Result<Vec<Published>> {
    let what = |request: &Publish| match request.action {
        Action::Set { .. } => 1_i16,
        Action::Refresh { .. } => 2,
        Action::Remove => 3,
    };
    let expires = |request: &Publish| match request.action {
        Action::Set { expires, .. } | Action::Refresh { expires } => i64::from(expires),
        Action::Remove => 0,
    };
    let rows =
        sqlx::query("select * from commpool_api_1.publish($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)")
            .bind(column(requests, |request| user(request.user.id)))
            .bind(column(requests, |request| fe(request.flow.fe)))
            .bind(column(requests, |request| serial(request.flow.serial)))
            .bind(column(requests, |request| request.endpoint.map(bits)))
            .bind(column(requests, |request| request.if_match.map(uuid)))
            .bind(column(requests, |request| uuid(request.tag)))
            .bind(column(requests, what))
            .bind(column(requests, expires))
            .bind(column(requests, |request| set(request).map_or(0, |(state, _)| state.source as i16)))
            .bind(column(requests, |request| set(request).map_or(0, |(state, _)| state.availability as i16)))
            .bind(column(requests, |request| {
                set(request).map_or(String::new(), |(state, _)| joined(&state.activities))
            }))
            .bind(column(requests, |request| set(request).and_then(|(state, _)| state.note.as_deref())))
            .bind(column(requests, |request| set(request).map_or(&[][..], |(_, document)| document)))
            .fetch_all(to)
            .await?;
    let mut heads: Vec<(usize, i16, bool, Version, Key128)> = Vec::with_capacity(requests.len());
    let seen = Seen::read(&rows, |kind, fact, _| {
        if kind == Kind::Head {
            heads.push((fact.request()?, fact.status()?, fact.flag()?, fact.version()?, fact.key()?));
        }
        Ok(())
    })?;
    heads.sort_unstable_by_key(|(request, ..)| *request);
    let reply = |(request, (_, status, replay, version, id)): (&&Publish, _)| match status {
        0 => Published::Done { replay, id, change: Box::new(seen.change(request.user.id, version)) },
        1 => Published::Precondition,
        2 => Published::TooMany,
        3 => Published::NoAccount,
        _ => Published::Gone,
    };
    Ok(requests.iter().zip(heads).map(reply).collect())
}

/// Versions of users and what the answer tells of them.
pub(super) fn versions(rows: &[sqlx::postgres::PgRow]) -> sqlx::Result<(BTreeMap<UserId, Version>, Seen)> {
    let mut versions = BTreeMap::new();
    let seen = Seen::read(rows, |kind, fact, _| {
        if kind == Kind::Head {
            versions.insert(UserId(fact.number(Column::Number)?), fact.version()?);
        }
        Ok(())
    })?;
    Ok((versions, seen))
}

pub(super) async fn presence_of(to: &mut PgConnection, requests: &[&Of]) -> sqlx::Result<Vec<States>> {
    let users: Vec<i64> = requests.iter().flat_map(|request| &request.users).map(|of| user(of.id)).collect();
    let rows = sqlx::query("select * from commpool_api_1.presence_of($1)").bind(users).fetch_all(to).await?;
    let (versions, seen) = versions(&rows)?;
    let states = |request: &&Of| {
        let state = |of: &commpool_model::ids::UserRef| {
            (*of, seen.facts(of.id), versions.get(&of.id).copied().unwrap_or_default())
        };
        States { states: request.users.iter().map(state).collect() }
    };
    Ok(requests.iter().map(states).collect())
}
