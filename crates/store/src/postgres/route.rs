//! Where a user can be reached, and whether the sender may.

use std::collections::BTreeMap;

use commpool_model::acl::Ace;
use commpool_model::address::domain_of;
use commpool_model::ids::UserId;
use sqlx::PgConnection;

use super::arrays::column;
use super::facts::{Column, Kind, Seen};
use crate::codes::account_state;
use crate::engine::register::local;
use crate::ops::Endpoint;
use crate::ops::accounts::State;
use crate::ops::route::{Reply, Request, Target};

pub(super) async fn route(to: &mut PgConnection, requests: &[&Request]) -> sqlx::Result<Vec<Reply>> {
    let rows = sqlx::query("select * from commpool_api_1.route($1, $2, $3)")
        .bind(column(requests, |request| request.target.as_str()))
        .bind(column(requests, |request| request.sender.as_str()))
        .bind(column(requests, |request| domain_of(&request.sender)))
        .fetch_all(to)
        .await?;
    let mut found: BTreeMap<usize, (UserId, State)> = BTreeMap::new();
    let mut aces: BTreeMap<usize, Vec<Ace>> = BTreeMap::new();
    let mut endpoints: BTreeMap<UserId, Vec<Endpoint>> = BTreeMap::new();
    Seen::read(&rows, |kind, fact, now| {
        match kind {
            Kind::Head => {
                let of = (UserId(fact.number(Column::Number)?), fact.code(Column::Status, account_state)?);
                found.insert(fact.request()?, of);
            }
            Kind::Ace => aces.entry(fact.request()?).or_default().push(fact.ace()?),
            Kind::Endpoint => endpoints.entry(fact.user()?).or_default().push(fact.endpoint(now)?),
            _ => {}
        }
        Ok(())
    })?;
    endpoints.values_mut().for_each(|of| of.sort_unstable_by_key(|endpoint| endpoint.id));
    let target = |n: usize| {
        let (user, state) = *found.get(&n)?;
        let mut aces = aces.remove(&n).unwrap_or_default();
        aces.sort_unstable_by(|a, b| a.mask.cmp(&b.mask));
        let endpoints = endpoints.get(&user).cloned().unwrap_or_default();
        Some(Target { user: local(user), state, aces, endpoints })
    };
    Ok((0..requests.len()).map(target).map(|found| Reply { found }).collect())
}
