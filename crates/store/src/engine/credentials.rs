//! Passwords as Digest verifiers.

use commpool_model::ids::{Micros, UserId};

use super::accounts::next_stamp;
use super::{Backend, Tables};
use crate::ops::credentials::{Login, Put, PutReply, Reply, Request, Revoke, Revoked, Verifier};

/// Most labels of one user.
const LABELS: usize = 20;

/// Verifiers.
pub(crate) trait Credentials: Backend {
    /// Labels under which a user has a password, in ascending order.
    fn labels(&mut self, user: UserId) -> Result<Vec<String>, Self::Error>;
    /// Verifiers of a user by label and algorithm.
    fn verifiers(&mut self, user: UserId) -> Result<Vec<Verifier>, Self::Error>;
    /// Inserts or replaces the verifier of a label and algorithm.
    fn put_verifier(&mut self, user: UserId, label: &str, verifier: &Verifier) -> Result<(), Self::Error>;
    /// Removes all verifiers of a label.
    fn remove_label(&mut self, user: UserId, label: &str) -> Result<(), Self::Error>;
    /// Removes all verifiers of a user.
    fn remove_verifiers(&mut self, user: UserId) -> Result<(), Self::Error>;
}

pub(crate) fn credentials<T: Tables>(tables: &mut T, request: &Request) -> Result<Reply, T::Error> {
    let Some(row) = tables.account_by_address(&request.address)? else { return Ok(Reply { found: None }) };
    let verifiers = tables.verifiers(row.user)?;
    Ok(Reply { found: Some(Login { user: row.user_ref(), state: row.state, stamp: row.changed, verifiers }) })
}

pub(crate) fn put<T: Tables>(tables: &mut T, now: Micros, request: &Put) -> Result<PutReply, T::Error> {
    let Some(mut row) = tables.account_by_address(&request.address)? else { return Ok(PutReply::NotFound) };
    let labels = tables.labels(row.user)?;
    if labels.len() >= LABELS && !labels.contains(&request.label) {
        return Ok(PutReply::TooMany);
    }
    tables.remove_label(row.user, &request.label)?;
    for verifier in &request.verifiers {
        tables.put_verifier(row.user, &request.label, verifier)?;
    }
    row.changed = next_stamp(tables, now)?;
    tables.update_account(&row)?;
    Ok(PutReply::Done(row.changed))
}

pub(crate) fn revoke<T: Tables>(tables: &mut T, now: Micros, request: &Revoke) -> Result<Revoked, T::Error> {
    let Some(mut row) = tables.account_by_address(&request.address)? else { return Ok(Revoked::NotFound) };
    if !tables.labels(row.user)?.contains(&request.label) {
        return Ok(Revoked::NotFound);
    }
    tables.remove_label(row.user, &request.label)?;
    row.changed = next_stamp(tables, now)?;
    tables.update_account(&row)?;
    Ok(Revoked::Done(row.changed))
}
