//! A connection that may be called: to a primary that offers this build's functions.

use std::time::Duration;

use sqlx::{ConnectOptions, PgConnection, Row};
use tokio::time::timeout;

use super::call::Line;
use super::fault::{Fault, explain, judge};
use super::functions::{self, API};
use super::options::PostgresOptions;
use crate::error::StoreError;

/// How long the database may take to accept a connection: it may be busy with those of many others.
const ACCEPT: Duration = Duration::from_secs(5);
/// How long it may take at most to say who it is; no longer than the caller waits for an answer.
const GREETING: Duration = Duration::from_secs(20);

/// Settings of every session. Plans are made once and by index: what an empty table suggests would stay.
const SETTINGS: &[(&str, &str)] = &[
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("jit", "off"),
    ("idle_in_transaction_session_timeout", "5000"),
];

/// Opens a connection.
///
/// # Errors
/// The database is away, refuses, is a standby, or has another schema.
pub(super) async fn connect(options: &PostgresOptions, line: Line) -> Result<PgConnection, StoreError> {
    let place = || options.place();
    let pace = options.caller.pace();
    let limits = [("statement_timeout", pace.statement), ("lock_timeout", pace.lock)];
    let driver = options.driver(&format!("commpool {}", line.name()), SETTINGS.iter().copied().chain(limits))?;
    let opened = timeout(ACCEPT, driver.connect()).await;
    let mut connection = match opened {
        Err(_) => return Err(StoreError::Unavailable(format!("{}: does not answer", place()))),
        Ok(Err(error)) => return Err(StoreError::Unavailable(format!("{}: {}", place(), explain(&error)))),
        Ok(Ok(connection)) => connection,
    };
    match timeout(pace.patience.min(GREETING), greet(&mut connection, line)).await {
        Err(_) => Err(StoreError::Unavailable(format!("{}: does not answer", place()))),
        Ok(Err(StoreError::Unavailable(text))) => Err(StoreError::Unavailable(format!("{}: {text}", place()))),
        Ok(Err(error)) => Err(error),
        Ok(Ok(())) => Ok(connection),
    }
}

/// Asks who the other side is.
async fn greet(connection: &mut PgConnection, line: Line) -> Result<(), StoreError> {
    let asked = sqlx::query("select offered, floor, schema, standby, read_only from commpool_api_1.hello($1)")
        .bind(functions::hash())
        .fetch_one(connection)
        .await;
    let need = functions::schema();
    let row = match asked {
        Ok(row) => row,
        Err(error) if judge(&error) == Fault::Schema => return Err(StoreError::Schema { need, found: 0 }),
        Err(error) => return Err(StoreError::Unavailable(explain(&error))),
    };
    let read = || -> sqlx::Result<(bool, i32, i32, bool, bool)> {
        Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?))
    };
    let (offered, floor, schema, standby, read_only) =
        read().map_err(|error| StoreError::Unavailable(explain(&error)))?;
    let found = u32::try_from(schema).unwrap_or(0);
    if standby {
        return Err(StoreError::Unavailable("is a standby; connect to the primary".to_owned()));
    }
    if read_only && line != Line::Read {
        let text = "takes no writes; look at its default_transaction_read_only";
        return Err(StoreError::Unavailable(text.to_owned()));
    }
    if floor > API {
        // Every schema that has left this API behind is newer.
        return Err(StoreError::Schema { need, found: found.max(need + 1) });
    }
    if offered { Ok(()) } else { Err(StoreError::Schema { need, found: found.min(need) }) }
}
