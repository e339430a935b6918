//! Passwords as Digest verifiers.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::accounts::{state, user};
use super::arrays::column;
use crate::codes::{algorithm, of_algorithm};
use crate::ops::credentials::{Login, Put, PutReply, Reply, Request, Revoke, Revoked, Verifier};

pub(super) async fn credentials(to: &mut PgConnection, requests: &[&Request]) -> sqlx::Result<Vec<Reply>> {
    let rows = sqlx::query("select * from commpool_api_1.credentials($1)")
        .bind(column(requests, |request| request.address.as_str()))
        .fetch_all(to)
        .await?;
    let mut replies: Vec<Reply> = requests.iter().map(|_| Reply { found: None }).collect();
    for row in &rows {
        let idx: i32 = row.try_get(0)?;
        let Some(reply) = usize::try_from(idx - 1).ok().and_then(|n| replies.get_mut(n)) else { continue };
        if reply.found.is_none() {
            let stamp = row.try_get::<i64, _>(3)?.cast_unsigned();
            reply.found = Some(Login { user: user(row, 1)?, state: state(row, 2)?, stamp, verifiers: Vec::new() });
        }
        if let (Some(found), Some(verifier)) = (&mut reply.found, verifier(row)?) {
            found.verifiers.push(verifier);
        }
    }
    Ok(replies)
}

fn verifier(row: &PgRow) -> sqlx::Result<Option<Verifier>> {
    let Some(code) = row.try_get::<Option<i16>, _>(4)? else { return Ok(None) };
    let algorithm = u8::try_from(code).ok().and_then(algorithm);
    let algorithm = algorithm.ok_or_else(|| sqlx::Error::Decode(format!("{code} is no algorithm").into()))?;
    Ok(Some(Verifier { algorithm, realm: row.try_get(5)?, ha1: row.try_get(6)? }))
}

pub(super) async fn put(to: &mut PgConnection, request: &Put) -> sqlx::Result<PutReply> {
    let verifiers: Vec<&Verifier> = request.verifiers.iter().collect();
    let row = sqlx::query("select * from commpool_api_1.credential_put($1, $2, $3, $4, $5)")
        .bind(&request.address)
        .bind(&request.label)
        .bind(column(&verifiers, |verifier| i16::from(of_algorithm(verifier.algorithm))))
        .bind(column(&verifiers, |verifier| verifier.realm.as_str()))
        .bind(column(&verifiers, |verifier| verifier.ha1.as_str()))
        .fetch_one(to)
        .await?;
    Ok(match row.try_get::<i16, _>(0)? {
        0 => PutReply::Done(row.try_get::<i64, _>(1)?.cast_unsigned()),
        1 => PutReply::NotFound,
        _ => PutReply::TooMany,
    })
}

pub(super) async fn revoke(to: &mut PgConnection, request: &Revoke) -> sqlx::Result<Revoked> {
    let row = sqlx::query("select commpool_api_1.credential_revoke($1, $2)")
        .bind(&request.address)
        .bind(&request.label)
        .fetch_one(to)
        .await?;
    let stamp: Option<i64> = row.try_get(0)?;
    Ok(stamp.map_or(Revoked::NotFound, |stamp| Revoked::Done(stamp.cast_unsigned())))
}
