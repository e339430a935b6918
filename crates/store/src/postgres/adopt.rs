//! Dialogs that follow their endpoint to another front end, and what keeps their rows fresh.

use std::collections::BTreeMap;

use commpool_model::ids::{Incarnation, Key128, Micros};
use sqlx::PgConnection;
use sqlx::types::Uuid;

use super::arrays::{bits, fe, int, user, uuid};
use super::facts::{Column, Fact, Kind, Seen};
use super::subscribe::{People, ended};
use crate::codes::{kind, split};
use crate::ops::adopt::{ADOPTED, Adopt, Adopted, AdoptedDialog, Flush};
use crate::ops::subscribe::{Dialog, Ended};

pub(super) async fn adopt(to: &mut PgConnection, request: &Adopt) -> sqlx::Result<Adopted> {
    let rows = sqlx::query("select * from commpool_api_1.adopt($1, $2, $3, $4, $5, $6, $7, $8)")
        .bind(fe(request.fe))
        .bind(user(request.endpoint.user()))
        .bind(bits(request.endpoint))
        .bind(i64::from(request.first_cseq))
        .bind(request.after.map(uuid))
        .bind(i32::try_from(ADOPTED).unwrap_or(i32::MAX))
        .bind(request.held.iter().map(|(of, _)| user(of.id)).collect::<Vec<_>>())
        .bind(request.held.iter().map(|(_, version)| int(version.0)).collect::<Vec<_>>())
        .fetch_all(to)
        .await?;
    if rows.is_empty() {
        return Ok(Adopted::Gone);
    }
    let mut more = false;
    let (mut found, mut addresses) = (BTreeMap::new(), BTreeMap::<String, usize>::new());
    let mut people = People::default();
    let seen = Seen::read(&rows, |of, fact, _| {
        match of {
            Kind::Head if fact.get::<i32>(Column::Idx)? > 0 => more = fact.flag()?,
            Kind::Dialog => {
                found.insert(fact.key()?, Found::read(fact)?);
            }
            Kind::Address => {
                let place = usize::try_from(fact.number(Column::Number)?).unwrap_or(usize::MAX);
                addresses.insert(fact.get(Column::Contact)?, place);
            }
            of => people.note(of, fact)?,
        }
        Ok(())
    })?;
    let dialogs = found.into_iter().map(|(id, dialog)| dialog.adopted(id, request.fe, seen.now)).collect();
    let watched = addresses.into_iter().filter_map(|(address, place)| Some((address, people.get(0, place, &seen)?)));
    Ok(Adopted::Done { dialogs, watched: watched.collect(), more })
}

/// A dialog as its row had it, with the number of its new owner.
struct Found {
    owner: Option<Incarnation>,
    cseq: u32,
    expires_at: Micros,
    kind: crate::ops::subscribe::Kind,
    presentities: Vec<String>,
    dialog: Dialog,
}

impl Found {
    fn read(fact: &Fact<'_>) -> sqlx::Result<Self> {
        let number = |column| -> sqlx::Result<u32> { Ok(u32::try_from(fact.number(column)?).unwrap_or(u32::MAX)) };
        Ok(Self {
            owner: fact.fe()?,
            cseq: number(Column::Number)?,
            expires_at: Micros(fact.number(Column::Expires)?),
            kind: fact.code(Column::Source, kind)?,
            presentities: fact.list(Column::Activities)?,
            dialog: Dialog {
                call_id: fact.get(Column::CallId)?,
                local_tag: fact.get(Column::Remote)?,
                remote_tag: fact.get(Column::ContactValue)?,
                remote_cseq: number(Column::Version)?,
                contact: fact.get(Column::Contact)?,
                route: split(fact.get(Column::Path)?),
                event_id: fact.get(Column::Agent)?,
            },
        })
    }

    fn adopted(self, sub_id: Key128, fe: Incarnation, now: Micros) -> AdoptedDialog {
        let Self { owner, cseq, expires_at, kind, presentities, dialog } = self;
        let seconds_left = u32::try_from(now.millis_until(expires_at) / 1000).unwrap_or(u32::MAX);
        let owner_before = owner.filter(|owner| *owner != fe);
        AdoptedDialog { sub_id, kind, presentities, seconds_left, cseq, owner_before, dialog }
    }
}

pub(super) async fn flush(to: &mut PgConnection, request: &Flush) -> sqlx::Result<Ended> {
    let dialogs = &request.dialogs;
    let call = sqlx::query("select commpool_api_1.flush($1, $2, $3, $4, $5)")
        .bind(fe(request.fe))
        .bind(dialogs.iter().map(|dialog| user(dialog.watcher.id)).collect::<Vec<_>>())
        .bind(dialogs.iter().map(|dialog| uuid(dialog.sub_id)).collect::<Vec<Uuid>>())
        .bind(dialogs.iter().map(|dialog| i64::from(dialog.expires)).collect::<Vec<_>>())
        .bind(dialogs.iter().map(|dialog| i64::from(dialog.cseq)).collect::<Vec<_>>());
    ended(&call.fetch_one(to).await?)
}
