//! REGISTER and removal of bindings.

use std::collections::BTreeMap;

use commpool_model::ids::{EndpointId, Key128, UserId};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

use super::arrays::{bits, column, fe, origin, place, serial, small, user, uuid};
use super::endpoints::Gone;
use super::facts::{Column, Fact, Kind, Seen};
use crate::codes::joined;
use crate::engine::register::distinct;
use crate::ops::register::{Binding, Change, Contacts, Done, Reply, Request, Touched, Unregister, Unregistered};
use crate::ops::{Endpoint, FlowRef};

pub(super) async fn register(to: &mut PgConnection, requests: &[&Request]) -> sqlx::Result<Vec<Reply>> {
    let what = |request: &Request| match request.contacts {
        Contacts::Query => 0_i16,
        Contacts::RemoveAll => 1,
        Contacts::Each(_) => 2,
    };
    let contacts: Vec<(i32, UserId, &Binding)> = requests.iter().enumerate().flat_map(contacts).collect();
    let of = |read: fn(&Binding) -> &str| -> Vec<String> {
        contacts.iter().map(|(_, _, binding)| read(binding).to_owned()).collect()
    };
    let unreachable: Vec<(i32, i32)> = requests
        .iter()
        .enumerate()
        .flat_map(|(n, request)| request.unreachable.iter().map(move |of| (place(n), fe(*of))))
        .collect();
    let rows = sqlx::query(
        "select * from commpool_api_1.register($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, \
         $17, $18, $19, $20, $21, $22)",
    )
    .bind(column(requests, |request| user(request.user.id)))
    .bind(column(requests, |request| origin(request.origin)))
    .bind(column(requests, |request| request.call_id.as_str()))
    .bind(column(requests, |request| i64::from(request.cseq)))
    .bind(column(requests, |request| fe(request.flow.fe)))
    .bind(column(requests, |request| serial(request.flow.serial)))
    .bind(column(requests, |request| request.flow.transport as i16))
    .bind(column(requests, |request| request.flow.remote.as_str()))
    .bind(column(requests, |request| request.agent.as_str()))
    .bind(column(requests, what))
    .bind(contacts.iter().map(|(request, _, _)| *request).collect::<Vec<_>>())
    .bind(contacts.iter().map(|(_, _, binding)| uuid(binding.key)).collect::<Vec<_>>())
    .bind(contacts.iter().map(|(_, of, binding)| bits(EndpointId::new(*of, binding.key, 0))).collect::<Vec<_>>())
    .bind(of(|binding| &binding.contact))
    .bind(of(|binding| &binding.contact_value))
    .bind(contacts.iter().map(|(_, _, binding)| small(binding.q)).collect::<Vec<_>>())
    .bind(contacts.iter().map(|(_, _, binding)| joined(&binding.path)).collect::<Vec<_>>())
    .bind(contacts.iter().map(|(_, _, binding)| binding.instance.as_deref()).collect::<Vec<_>>())
    .bind(contacts.iter().map(|(_, _, binding)| binding.reg_id.map(i64::from)).collect::<Vec<_>>())
    .bind(contacts.iter().map(|(_, _, binding)| i64::from(binding.expires)).collect::<Vec<_>>())
    .bind(unreachable.iter().map(|(request, _)| *request).collect::<Vec<_>>())
    .bind(unreachable.iter().map(|(_, fe)| *fe).collect::<Vec<_>>())
    .fetch_all(to)
    .await?;
    Answer::read(&rows)?.replies(requests)
}

/// The Contacts of a request that count, under its number.
fn contacts<'a>((n, request): (usize, &&'a Request)) -> Vec<(i32, UserId, &'a Binding)> {
    match &request.contacts {
        Contacts::Each(bindings) => distinct(bindings).map(|binding| (place(n), request.user.id, binding)).collect(),
        Contacts::Query | Contacts::RemoveAll => Vec::new(),
    }
}

/// What became of a Contact, as the database tells it.
struct Fate {
    /// Its key; `None`: removed with all others.
    key: Option<Key128>,
    /// 1 written, 2 removed, 3 nothing there to remove.
    act: i16,
    living: bool,
    endpoint: Option<EndpointId>,
    /// The flow of the row before.
    flow: Option<FlowRef>,
}

struct Head {
    request: usize,
    status: i16,
    replay: bool,
    version: Option<i64>,
    adoptable: u32,
}

struct Answer {
    heads: Vec<Head>,
    fates: BTreeMap<usize, Vec<Fate>>,
    bindings: BTreeMap<UserId, Vec<Endpoint>>,
    seen: Seen,
}

impl Answer {
    fn read(rows: &[PgRow]) -> sqlx::Result<Self> {
        let (mut heads, mut bindings) = (Vec::new(), BTreeMap::<_, Vec<Endpoint>>::new());
        let mut fates = BTreeMap::<_, Vec<(i64, Fate)>>::new();
        let seen = Seen::read(rows, |kind, fact, now| {
            match kind {
                Kind::Head => heads.push(head(fact)?),
                Kind::Endpoint => bindings.entry(fact.user()?).or_default().push(fact.endpoint(now)?),
                Kind::Touched => fates.entry(fact.request()?).or_default().push(fate(fact)?),
                _ => {}
            }
            Ok(())
        })?;
        heads.sort_unstable_by_key(|head| head.request);
        bindings.values_mut().for_each(|of| of.sort_unstable_by_key(|endpoint| endpoint.id));
        let in_order = |mut fates: Vec<(i64, Fate)>| {
            fates.sort_unstable_by_key(|(place, _)| *place);
            fates.into_iter().map(|(_, fate)| fate).collect()
        };
        let fates = fates.into_iter().map(|(request, fates)| (request, in_order(fates))).collect();
        Ok(Self { heads, fates, bindings, seen })
    }

    fn replies(mut self, requests: &[&Request]) -> sqlx::Result<Vec<Reply>> {
        let heads = std::mem::take(&mut self.heads);
        Ok(requests.iter().zip(heads).map(|(request, head)| self.reply(request, &head)).collect())
    }

    fn reply(&mut self, request: &Request, head: &Head) -> Reply {
        match head.status {
            0 => {}
            1 => return Reply::Stale,
            2 => return Reply::TooMany,
            3 => return Reply::NoAccount,
            _ => return Reply::Gone,
        }
        let user = request.user.id;
        let version = head.version.map(|version| commpool_model::ids::Version(version.cast_unsigned()));
        Reply::Done(Box::new(Done {
            replay: head.replay,
            touched: self.touched(request, head),
            change: version.map(|version| self.seen.change(user, version)),
            bindings: self.bindings.remove(&user).unwrap_or_default(),
            adoptable: head.adoptable,
        }))
    }

    /// What happened to each Contact, in the order of the request.
    fn touched(&self, request: &Request, head: &Head) -> Vec<Touched> {
        let fates = self.fates.get(&head.request).map_or(&[][..], Vec::as_slice);
        let touched = |fate: &Fate| fate.touched(&request.flow, head.replay);
        match &request.contacts {
            Contacts::Query => Vec::new(),
            Contacts::RemoveAll => fates.iter().map(touched).collect(),
            Contacts::Each(bindings) => {
                let fate = |binding: &Binding| fates.iter().find(|fate| fate.key == Some(binding.key));
                bindings.iter().filter_map(fate).map(touched).collect()
            }
        }
    }
}

fn head(fact: &Fact<'_>) -> sqlx::Result<Head> {
    let adoptable = fact.maybe(Column::Number)?.unwrap_or(0);
    Ok(Head {
        request: fact.request()?,
        status: fact.status()?,
        replay: fact.flag()?,
        version: fact.get(Column::Version)?,
        adoptable: u32::try_from(adoptable).unwrap_or(u32::MAX),
    })
}

/// A fate with its place: among all Contacts, or among the rows removed.
fn fate(fact: &Fact<'_>) -> sqlx::Result<(i64, Fate)> {
    let key: Option<sqlx::types::Uuid> = fact.get(Column::Key)?;
    let flow = fact.fe()?.is_some().then(|| fact.flow()).transpose()?;
    let fate = Fate {
        key: key.map(|key| Key128(key.into_bytes())),
        act: fact.status()?,
        living: fact.flag()?,
        endpoint: fact.endpoint_id()?,
        flow,
    };
    Ok((fact.get(Column::At)?, fate))
}

impl Fate {
    fn touched(&self, flow: &FlowRef, replay: bool) -> Touched {
        let written = self.act == 1;
        if replay {
            let endpoint = self.endpoint.filter(|_| written && self.flow.is_some());
            let how = if endpoint.is_some() { Change::Refreshed } else { Change::Removed };
            return Touched { endpoint, how, previous: None };
        }
        let how = match (written, self.living) {
            (true, true) => Change::Refreshed,
            (true, false) => Change::Created,
            (false, _) => Change::Removed,
        };
        let other = self.flow.as_ref().filter(|before| (before.fe, before.serial) != (flow.fe, flow.serial));
        let previous = other.filter(|_| self.living || !written).cloned();
        Touched { endpoint: self.endpoint, how, previous }
    }
}

pub(super) async fn unregister(to: &mut PgConnection, request: &Unregister) -> sqlx::Result<Unregistered> {
    let ids = request.endpoints.as_ref().map(|ids| ids.iter().map(|id| bits(*id)).collect::<Vec<_>>());
    let rows = sqlx::query("select * from commpool_api_1.unregister($1, $2, $3)")
        .bind(fe(request.fe))
        .bind(user(request.user.id))
        .bind(ids)
        .fetch_all(to)
        .await?;
    let gone = Gone::read(&rows)?;
    let Some(changes) = gone.changes() else { return Ok(Unregistered::Gone) };
    Ok(Unregistered::Done { removed: gone.removed.into_iter().collect(), change: changes.into_iter().next() })
}
