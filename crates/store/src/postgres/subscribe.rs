//! Subscription dialogs and who watches whom.

use std::collections::BTreeMap;

use commpool_model::acl::Ace;
use commpool_model::ids::{Incarnation, UserId, Version};
use sqlx::postgres::PgRow;
use sqlx::types::Uuid;
use sqlx::{PgConnection, Row};

use super::arrays::{bits, column, fe, int, origin, place, user, uuid};
use super::facts::{Column, Fact, Kind, Seen};
use crate::codes::{account_state, joined};
use crate::engine::register::local;
use crate::ops::accounts::State;
use crate::ops::subscribe::{End, Ended, Presentity, Reply, Request, Unwatch};

pub(super) async fn subscribe(to: &mut PgConnection, requests: &[&Request]) -> sqlx::Result<Vec<Reply>> {
    let watched: Vec<(i32, &str)> = requests
        .iter()
        .enumerate()
        .flat_map(|(n, request)| request.presentities.iter().map(move |address| (place(n), address.as_str())))
        .collect();
    let held: Vec<(i32, i64, i64)> = requests
        .iter()
        .enumerate()
        .flat_map(|(n, request)| request.held.iter().map(move |(of, version)| (place(n), user(of.id), int(version.0))))
        .collect();
    let rows = sqlx::query(
        "select * from commpool_api_1.subscribe($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, \
         $17, $18, $19, $20, $21, $22)",
    )
    .bind(column(requests, |request| user(request.watcher.id)))
    .bind(column(requests, |request| origin(request.origin)))
    .bind(column(requests, |request| fe(request.fe)))
    .bind(column(requests, |request| request.endpoint.map(bits)))
    .bind(column(requests, |request| uuid(request.sub_id)))
    .bind(column(requests, |request| request.initial))
    .bind(column(requests, |request| request.kind as i16))
    .bind(column(requests, |request| i64::from(request.expires)))
    .bind(column(requests, |request| i64::from(request.first_cseq)))
    .bind(column(requests, |request| joined(&request.presentities)))
    .bind(column(requests, |request| request.dialog.call_id.as_str()))
    .bind(column(requests, |request| request.dialog.local_tag.as_str()))
    .bind(column(requests, |request| request.dialog.remote_tag.as_str()))
    .bind(column(requests, |request| i64::from(request.dialog.remote_cseq)))
    .bind(column(requests, |request| request.dialog.contact.as_str()))
    .bind(column(requests, |request| joined(&request.dialog.route)))
    .bind(column(requests, |request| request.dialog.event_id.as_str()))
    .bind(watched.iter().map(|(request, _)| *request).collect::<Vec<_>>())
    .bind(watched.iter().map(|(_, address)| *address).collect::<Vec<_>>())
    .bind(held.iter().map(|(request, _, _)| *request).collect::<Vec<_>>())
    .bind(held.iter().map(|(_, of, _)| *of).collect::<Vec<_>>())
    .bind(held.iter().map(|(_, _, version)| *version).collect::<Vec<_>>())
    .fetch_all(to)
    .await?;
    let mut heads: BTreeMap<usize, Head> = BTreeMap::new();
    let mut people = People::default();
    let seen = Seen::read(&rows, |kind, fact, _| {
        match kind {
            // The heads of users have no request.
            Kind::Head if fact.get::<i32>(Column::Idx)? > 0 => {
                heads.insert(fact.request()?, head(fact)?);
            }
            kind => people.note(kind, fact)?,
        }
        Ok(())
    })?;
    let reply = |(n, request): (usize, &&Request)| match heads.get(&n) {
        Some(Head { status: 0, replay, cseq, owner_before }) => {
            let watched = (1..=request.presentities.len()).map(|place| people.get(n, place, &seen));
            let (replay, owner_before, cseq) = (*replay, *owner_before, *cseq);
            Reply::Done { replay, owner_before, cseq, presentities: watched.collect() }
        }
        Some(Head { status: 1, .. }) => Reply::Merged,
        Some(Head { status: 2, .. }) => Reply::TooMany,
        _ => Reply::Gone,
    };
    Ok(requests.iter().enumerate().map(reply).collect())
}

struct Head {
    status: i16,
    replay: bool,
    cseq: u32,
    owner_before: Option<Incarnation>,
}

fn head(fact: &Fact<'_>) -> sqlx::Result<Head> {
    let owner: Option<i64> = fact.get(Column::Number)?;
    Ok(Head {
        status: fact.status()?,
        replay: fact.flag()?,
        cseq: u32::try_from(fact.number(Column::Version)?).unwrap_or(u32::MAX),
        // The same 32 bits.
        owner_before: owner.map(|fe| Incarnation(fe as u32)),
    })
}

/// Users watched, by request and place in it.
#[derive(Default)]
pub(super) struct People {
    watched: BTreeMap<(usize, usize), (UserId, State, Version, bool)>,
    aces: BTreeMap<UserId, Vec<Ace>>,
}

impl People {
    /// Takes note of a row, if it is about somebody watched.
    pub(super) fn note(&mut self, kind: Kind, fact: &Fact<'_>) -> sqlx::Result<()> {
        match kind {
            Kind::Watched => {
                let place = usize::try_from(fact.number(Column::Number)?).unwrap_or(usize::MAX);
                let state = fact.code(Column::Status, account_state)?;
                let of = (fact.user()?, state, fact.version()?, fact.flag()?);
                self.watched.insert((fact.request()?, place), of);
            }
            Kind::Ace => self.aces.entry(fact.user()?).or_default().push(fact.ace()?),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn get(&self, request: usize, place: usize, seen: &Seen) -> Option<Presentity> {
        let (user, state, version, needs_facts) = *self.watched.get(&(request, place))?;
        let mut aces = self.aces.get(&user).cloned().unwrap_or_default();
        aces.sort_unstable_by(|a, b| a.mask.cmp(&b.mask));
        let facts = needs_facts.then(|| seen.facts(user));
        Some(Presentity { user: local(user), state, aces, version, facts })
    }
}

/// What a call answers that only says whether the front end is alive.
pub(super) fn ended(row: &PgRow) -> sqlx::Result<Ended> {
    Ok(if row.try_get(0)? { Ended::Done } else { Ended::Gone })
}

pub(super) async fn unsubscribe(to: &mut PgConnection, request: &End) -> sqlx::Result<Ended> {
    let (watchers, ids): (Vec<i64>, Vec<Uuid>) =
        request.dialogs.iter().map(|(of, id)| (user(of.id), uuid(*id))).unzip();
    let call =
        sqlx::query("select commpool_api_1.unsubscribe($1, $2, $3)").bind(fe(request.fe)).bind(watchers).bind(ids);
    ended(&call.fetch_one(to).await?)
}

pub(super) async fn unwatch(to: &mut PgConnection, request: &Unwatch) -> sqlx::Result<Ended> {
    let users: Vec<i64> = request.users.iter().map(|of| user(of.id)).collect();
    let call = sqlx::query("select commpool_api_1.unwatch($1, $2)").bind(fe(request.fe)).bind(users);
    ended(&call.fetch_one(to).await?)
}
