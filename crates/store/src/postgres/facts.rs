//! Rows of the database's answers: heads of requests, and things that belong to users.

use std::collections::BTreeMap;

use commpool_model::acl::Ace;
use commpool_model::ids::{EndpointId, Incarnation, Key128, Micros, UserId, Version};
use commpool_model::presence::{Device, Facts, Publication, State};
use sqlx::postgres::PgRow;
use sqlx::{Decode, Postgres, Row, Type};

use super::arrays::micros;
use crate::codes::{availability, right, source, split, transport};
use crate::engine::register::local;
use crate::ops::{Endpoint, FlowRef, PresenceChange};

/// Columns of the database's type `fact`, by place.
#[derive(Clone, Copy)]
pub(super) enum Column {
    Idx = 0,
    Kind = 1,
    Status = 2,
    Flag = 3,
    Version = 4,
    Number = 5,
    User = 6,
    Id = 7,
    Key = 8,
    Fe = 9,
    Serial = 10,
    Transport = 11,
    Q = 12,
    Expires = 14,
    At = 15,
    Since = 16,
    RegId = 17,
    Remote = 18,
    Contact = 19,
    ContactValue = 20,
    Path = 21,
    Instance = 22,
    Agent = 23,
    CallId = 24,
    Source = 25,
    Availability = 26,
    Activities = 27,
    Note = 28,
    Document = 29,
}

/// What a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Clock,
    Head,
    Endpoint,
    Publication,
    Interest,
    Ace,
    Touched,
    Watched,
    Removed,
    Address,
    Dialog,
}

impl Kind {
    const ALL: [Self; 11] = [
        Self::Clock,
        Self::Head,
        Self::Endpoint,
        Self::Publication,
        Self::Interest,
        Self::Ace,
        Self::Touched,
        Self::Watched,
        Self::Removed,
        Self::Address,
        Self::Dialog,
    ];
}

/// One row.
pub(super) struct Fact<'a>(pub(super) &'a PgRow);

impl<'a> Fact<'a> {
    pub(super) fn get<T>(&self, column: Column) -> sqlx::Result<T>
    where
        T: Decode<'a, Postgres> + Type<Postgres>,
    {
        self.0.try_get_unchecked(column as usize)
    }

    pub(super) fn kind(&self) -> sqlx::Result<Kind> {
        self.code(Column::Kind, |code| Kind::ALL.get(usize::from(code)).copied())
    }

    /// A number that stands for one of few values.
    pub(super) fn code<T>(&self, column: Column, of: impl Fn(u8) -> Option<T>) -> sqlx::Result<T> {
        let code: i16 = self.get(column)?;
        u8::try_from(code).ok().and_then(of).ok_or_else(|| unknown(code))
    }

    /// Place of the request that a row belongs to.
    pub(super) fn request(&self) -> sqlx::Result<usize> {
        let idx: i32 = self.get(Column::Idx)?;
        usize::try_from(idx - 1).map_err(|_| unknown(idx))
    }

    pub(super) fn status(&self) -> sqlx::Result<i16> {
        self.get(Column::Status)
    }

    pub(super) fn flag(&self) -> sqlx::Result<bool> {
        self.get(Column::Flag)
    }

    pub(super) fn number(&self, column: Column) -> sqlx::Result<u64> {
        Ok(self.get::<i64>(column)?.cast_unsigned())
    }

    pub(super) fn maybe(&self, column: Column) -> sqlx::Result<Option<u64>> {
        Ok(self.get::<Option<i64>>(column)?.map(i64::cast_unsigned))
    }

    pub(super) fn version(&self) -> sqlx::Result<Version> {
        self.number(Column::Version).map(Version)
    }

    pub(super) fn user(&self) -> sqlx::Result<UserId> {
        self.number(Column::User).map(UserId)
    }

    pub(super) fn endpoint_id(&self) -> sqlx::Result<Option<EndpointId>> {
        Ok(self.maybe(Column::Id)?.map(EndpointId))
    }

    pub(super) fn key(&self) -> sqlx::Result<Key128> {
        Ok(Key128(self.get::<sqlx::types::Uuid>(Column::Key)?.into_bytes()))
    }

    pub(super) fn fe(&self) -> sqlx::Result<Option<Incarnation>> {
        Ok(self.get::<Option<i32>>(Column::Fe)?.map(|fe| Incarnation(fe.cast_unsigned())))
    }

    pub(super) fn list(&self, column: Column) -> sqlx::Result<Vec<String>> {
        Ok(split(self.get(column)?))
    }

    pub(super) fn flow(&self) -> sqlx::Result<FlowRef> {
        Ok(FlowRef {
            fe: self.fe()?.ok_or_else(|| unknown("no front end"))?,
            serial: self.get::<i32>(Column::Serial)?.cast_unsigned(),
            transport: self.code(Column::Transport, transport)?,
            remote: self.get(Column::Remote)?,
        })
    }

    /// An endpoint as callers see it at a moment.
    pub(super) fn endpoint(&self, now: Micros) -> sqlx::Result<Endpoint> {
        let q: i16 = self.get(Column::Q)?;
        let reg_id = self.maybe(Column::RegId)?.map(u32::try_from).transpose().map_err(unknown)?;
        Ok(Endpoint {
            id: EndpointId(self.number(Column::Id)?),
            flow: self.flow()?,
            lost_ms: self.maybe(Column::Number)?.map(|at| Micros(at).millis_until(now)),
            contact: self.get(Column::Contact)?,
            contact_value: self.get(Column::ContactValue)?,
            q: q.cast_unsigned(),
            path: self.list(Column::Path)?,
            instance: self.get(Column::Instance)?,
            reg_id,
            agent: self.get(Column::Agent)?,
            expires_ms: now.millis_until(Micros(self.number(Column::Expires)?)),
            age_ms: Micros(self.number(Column::At)?).millis_until(now),
            call_id: self.get(Column::CallId)?,
        })
    }

    fn device(&self) -> sqlx::Result<Device> {
        Ok(Device { id: EndpointId(self.number(Column::Id)?), registered: Micros(self.number(Column::At)?) })
    }

    fn publication(&self) -> sqlx::Result<Publication> {
        Ok(Publication {
            id: self.key()?,
            endpoint: self.endpoint_id()?,
            state: State {
                source: self.code(Column::Source, source)?,
                availability: self.code(Column::Availability, availability)?,
                activities: self.list(Column::Activities)?,
                note: self.get(Column::Note)?,
            },
            document: self.get(Column::Document)?,
            updated: micros(self.get(Column::At)?),
            since: micros(self.get(Column::Since)?),
        })
    }

    pub(super) fn ace(&self) -> sqlx::Result<Ace> {
        Ok(Ace {
            mask: self.get(Column::Contact)?,
            presence: self.code(Column::Source, right)?,
            communication: self.code(Column::Availability, right)?,
        })
    }
}

fn unknown(what: impl std::fmt::Display) -> sqlx::Error {
    sqlx::Error::Decode(format!("{what} stands for nothing").into())
}

/// What an answer tells of users.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) now: Micros,
    devices: BTreeMap<UserId, Vec<Device>>,
    publications: BTreeMap<UserId, Vec<Publication>>,
    interest: BTreeMap<UserId, Vec<Incarnation>>,
}

impl Seen {
    /// Reads all rows; those that are of no common kind go to `other`.
    pub(super) fn read<'a>(
        rows: &'a [PgRow],
        mut other: impl FnMut(Kind, &Fact<'a>, Micros) -> sqlx::Result<()>,
    ) -> sqlx::Result<Self> {
        let mut seen = Self::default();
        for row in rows {
            let fact = Fact(row);
            match fact.kind()? {
                Kind::Clock => seen.now = Micros(fact.number(Column::Version)?),
                Kind::Publication => {
                    seen.publications.entry(fact.user()?).or_default().push(fact.publication()?);
                }
                Kind::Interest => seen.interest.entry(fact.user()?).or_default().extend(fact.fe()?),
                kind => {
                    if kind == Kind::Endpoint {
                        seen.devices.entry(fact.user()?).or_default().push(fact.device()?);
                    }
                    other(kind, &fact, seen.now)?;
                }
            }
        }
        Ok(seen)
    }

    /// The facts about a user.
    pub(super) fn facts(&self, user: UserId) -> Facts {
        let devices = self.devices.get(&user).cloned().unwrap_or_default();
        let publications = self.publications.get(&user).cloned().unwrap_or_default();
        Facts { publications, devices }.counted()
    }

    /// What changed about a user, and whom to tell.
    pub(super) fn change(&self, user: UserId, version: Version) -> PresenceChange {
        let mut interest = self.interest.get(&user).cloned().unwrap_or_default();
        interest.sort_unstable();
        PresenceChange { user: Some(local(user)), state: self.facts(user), version, interest }
    }
}
