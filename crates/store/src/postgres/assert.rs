//! What a front end holds, said again after some of it was lost.

use commpool_model::ids::UserId;
use sqlx::{PgConnection, Row};

use super::arrays::{bits, fe, ms, origin, serial, small, user, uuid};
use crate::codes::joined;
use crate::ops::assert::{Assert, Asserted, HeldEndpoint, HeldPublication, HeldSubscription, Kept};

/// A column of rows.
fn column<'a, R, T>(rows: &'a [R], of: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(of).collect()
}

pub(super) async fn assert(to: &mut PgConnection, request: &Assert) -> sqlx::Result<Asserted> {
    let (e, p, s) = (&request.endpoints, &request.publications, &request.subscriptions);
    let rows = sqlx::query(
        "select * from commpool_api_1.assert($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, \
         $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, \
         $40, $41, $42, $43, $44, $45, $46, $47, $48, $49, $50)",
    )
    .bind(fe(request.fe))
    .bind(column(e, |held| user(held.endpoint.id.user())))
    .bind(column(e, |held| bits(held.endpoint.id)))
    .bind(column(e, |held| uuid(held.key)))
    .bind(column(e, |held| serial(held.endpoint.flow.serial)))
    .bind(column(e, |held| held.endpoint.flow.transport as i16))
    .bind(column(e, |held| held.endpoint.flow.remote.as_str()))
    .bind(column(e, |held| held.endpoint.lost_ms.map(ms)))
    .bind(column(e, |held| ms(held.endpoint.expires_ms)))
    .bind(column(e, |held| ms(held.endpoint.age_ms)))
    .bind(column(e, |held| ms(held.refreshed_ms)))
    .bind(column(e, |held| origin(held.origin)))
    .bind(column(e, |held| held.endpoint.call_id.as_str()))
    .bind(column(e, |held| i64::from(held.cseq)))
    .bind(column(e, |held| small(held.endpoint.q)))
    .bind(column(e, |held| held.endpoint.contact.as_str()))
    .bind(column(e, |held| held.endpoint.contact_value.as_str()))
    .bind(column(e, |held| joined(&held.endpoint.path)))
    .bind(column(e, |held| held.endpoint.instance.as_deref()))
    .bind(column(e, |held| held.endpoint.reg_id.map(i64::from)))
    .bind(column(e, |held| held.endpoint.agent.as_str()))
    .bind(column(p, |held| user(held.user.id)))
    .bind(column(p, |held| uuid(held.id)))
    .bind(column(p, |held| uuid(held.tag)))
    .bind(column(p, |held| serial(held.serial)))
    .bind(column(p, |held| held.endpoint.map(bits)))
    .bind(column(p, |held| held.state.source as i16))
    .bind(column(p, |held| held.state.availability as i16))
    .bind(column(p, |held| joined(&held.state.activities)))
    .bind(column(p, |held| held.state.note.as_deref()))
    .bind(column(p, |held| held.document.as_slice()))
    .bind(column(p, |held| ms(held.since_ms)))
    .bind(column(p, |held| ms(held.updated_ms)))
    .bind(column(p, |held| ms(held.expires_ms)))
    .bind(column(&request.interest, |of| user(of.id)))
    .bind(column(s, |held| user(held.watcher.id)))
    .bind(column(s, |held| uuid(held.sub_id)))
    .bind(column(s, |held| origin(held.origin)))
    .bind(column(s, |held| held.endpoint.map(bits)))
    .bind(column(s, |held| held.kind as i16))
    .bind(column(s, |held| joined(&held.presentities)))
    .bind(column(s, |held| i64::from(held.expires)))
    .bind(column(s, |held| i64::from(held.cseq)))
    .bind(column(s, |held| held.dialog.call_id.as_str()))
    .bind(column(s, |held| held.dialog.local_tag.as_str()))
    .bind(column(s, |held| held.dialog.remote_tag.as_str()))
    .bind(column(s, |held| i64::from(held.dialog.remote_cseq)))
    .bind(column(s, |held| held.dialog.contact.as_str()))
    .bind(column(s, |held| joined(&held.dialog.route)))
    .bind(column(s, |held| held.dialog.event_id.as_str()))
    .fetch_all(to)
    .await?;
    if rows.is_empty() {
        return Ok(Asserted::Gone);
    }
    let mut lost: [Vec<usize>; 3] = Default::default();
    for row in &rows {
        let (kind, place): (i16, i32) = (row.try_get(0)?, row.try_get(1)?);
        let of_kind = usize::try_from(kind - 1).ok().and_then(|kind| lost.get_mut(kind));
        if let (Some(of_kind), Ok(place)) = (of_kind, usize::try_from(place - 1)) {
            of_kind.push(place);
        }
    }
    Ok(Asserted::Done(kept(request, lost)))
}

fn kept(request: &Assert, [endpoints, publications, mut subscriptions]: [Vec<usize>; 3]) -> Kept {
    let count = |all: usize, lost: &[usize]| u32::try_from(all.saturating_sub(lost.len())).unwrap_or(u32::MAX);
    let user_of_endpoint = |held: &HeldEndpoint| held.endpoint.id.user();
    let user_of_publication = |held: &HeldPublication| held.user.id;
    let dialog = |held: &HeldSubscription| (held.watcher, held.sub_id);
    subscriptions.sort_unstable();
    Kept {
        endpoints: count(request.endpoints.len(), &endpoints),
        publications: count(request.publications.len(), &publications),
        interest: count(request.interest.len(), &[]),
        subscriptions: count(request.subscriptions.len(), &subscriptions),
        lost_endpoints: by_user(&request.endpoints, endpoints, user_of_endpoint, |held| held.endpoint.id),
        lost_publications: by_user(&request.publications, publications, user_of_publication, |held| {
            (held.user, held.id)
        }),
        lost_subscriptions: subscriptions.iter().filter_map(|n| request.subscriptions.get(*n)).map(dialog).collect(),
    }
}

/// What lost, user by user, of each in the order of the request.
fn by_user<R, T>(all: &[R], mut lost: Vec<usize>, user: impl Fn(&R) -> UserId, told: impl Fn(&R) -> T) -> Vec<T> {
    lost.sort_unstable_by_key(|n| (all.get(*n).map(&user), *n));
    lost.iter().filter_map(|n| all.get(*n)).map(told).collect()
}
