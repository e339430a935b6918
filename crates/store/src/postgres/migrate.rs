//! Brings a database to this build's schema and functions.
//!
//! One run at a time, by a lock of its session. Each migration is one transaction with its row in the log, and so are the
//! functions: a run that is ended at any statement leaves whole steps only, and the next one goes on from there.

use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, Row, raw_sql};
use tokio::time::{Instant, sleep, timeout};

use super::bootstrap::{self, Logins};
use super::fault::{explain, unavailable, words};
use super::functions::{self, FILES, MIGRATIONS};
use super::options::PostgresOptions;
use crate::error::StoreError;
use crate::sqlite::Report;

/// Settings of the session: nobody queues behind a migration that waits for a lock, and the text of a function means
/// the same under any `search_path`.
const SETTINGS: &[(&str, &str)] =
    &[("lock_timeout", "2000"), ("search_path", "pg_catalog,pg_temp"), ("client_min_messages", "warning")];

/// How long the database may take to accept the connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long another run may take, or whoever stands in the way of a migration.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(250);

/// What the log of migrations and sets of functions needs.
const LOG: &str = "
    create schema if not exists commpool;
    create table if not exists commpool.migration (
        version int4 primary key,
        name text not null,
        applied_at timestamptz not null default now()
    );
    create table if not exists commpool.function_set (
        hash text primary key,
        applied_at timestamptz not null default now()
    );
";

/// Brings a database to this build's schema and functions, as a login that is a member of `commpool_owner`; with
/// `logins`, as a superuser who makes groups and logins first. A repeat does nothing; runs beside each other wait for one
/// another.
///
/// # Errors
/// The database is away or refuses, a role is missing, or the schema is newer than this build's.
pub async fn migrate(options: &PostgresOptions, logins: Option<&Logins>) -> Result<Report, StoreError> {
    let mut connection = connect(options).await?;
    let connection = &mut connection;
    lock(connection).await?;
    if let Some(logins) = logins {
        bootstrap::bootstrap(connection, &options.database, logins).await.map_err(|error| unavailable(&error))?;
    }
    become_owner(connection).await?;
    if !is_there(connection).await? {
        transaction(connection, &[LOG]).await?;
    }
    let before = version(connection).await?;
    let (need, known) = (functions::schema(), is_known(connection).await?);
    if before > need && !known {
        return Err(StoreError::Schema { need, found: before });
    }
    let mut applied = Vec::new();
    for (number, (name, text)) in (1_u32..).zip(MIGRATIONS).skip_while(|(number, _)| *number <= before) {
        let log = format!("insert into commpool.migration (version, name) values ({number}, '{name}')");
        patiently(connection, &[text, &log]).await?;
        applied.push(*name);
    }
    if !known {
        put_functions(connection).await?;
        applied.push("functions");
    }
    analyze(connection).await?;
    Ok(Report { before, after: need.max(before), applied })
}

async fn connect(options: &PostgresOptions) -> Result<PgConnection, StoreError> {
    let driver = options.driver("commpool migrate", SETTINGS.iter().copied())?;
    let away = |cause: &str| StoreError::Unavailable(format!("{}: {cause}", options.place()));
    let mut connection = match timeout(CONNECT, driver.connect()).await {
        Err(_) => return Err(away("does not answer")),
        Ok(Err(error)) => return Err(away(&explain(&error))),
        Ok(Ok(connection)) => connection,
    };
    let standby = ask(&mut connection, "select pg_is_in_recovery()").await?;
    if standby { Err(away("is a standby; connect to the primary")) } else { Ok(connection) }
}

/// Asks for something that is so or not.
async fn ask(connection: &mut PgConnection, question: &'static str) -> Result<bool, StoreError> {
    let row = sqlx::query(question).fetch_one(connection).await;
    row.and_then(|row| row.try_get(0)).map_err(|error| unavailable(&error))
}

/// Waits until no other run holds the lock; it goes with the session.
async fn lock(connection: &mut PgConnection) -> Result<(), StoreError> {
    let deadline = Instant::now() + PATIENCE;
    while !ask(connection, "select pg_try_advisory_lock(1129335886, 0)").await? {
        if Instant::now() >= deadline {
            let text = "another migration has been running for a minute; look for it in pg_stat_activity";
            return Err(StoreError::Unavailable(text.to_owned()));
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

async fn become_owner(connection: &mut PgConnection) -> Result<(), StoreError> {
    if let Err(error) = raw_sql("set role commpool_owner").execute(&mut *connection).await {
        return Err(StoreError::Unavailable(format!(
            "{}; migrate as a member of commpool_owner, see `commpool-server migrate --print-roles`",
            words(&error)
        )));
    }
    // Only in this form, for all schemas, does it take anything away.
    let text = "alter default privileges revoke execute on functions from public";
    raw_sql(text).execute(connection).await.map(drop).map_err(|error| unavailable(&error))
}

/// Whether the log is there.
async fn is_there(connection: &mut PgConnection) -> Result<bool, StoreError> {
    ask(connection, "select to_regclass('commpool.function_set') is not null").await
}

async fn version(connection: &mut PgConnection) -> Result<u32, StoreError> {
    let row = sqlx::query("select coalesce(max(version), 0) from commpool.migration").fetch_one(connection).await;
    let version: i32 = row.and_then(|row| row.try_get(0)).map_err(|error| unavailable(&error))?;
    Ok(u32::try_from(version).unwrap_or(0))
}

/// Whether this build's functions have been put in place at some time.
async fn is_known(connection: &mut PgConnection) -> Result<bool, StoreError> {
    let question = "select exists (select from commpool.function_set where hash = $1)";
    let row = sqlx::query(question).bind(functions::hash()).fetch_one(connection).await;
    row.and_then(|row| row.try_get(0)).map_err(|error| unavailable(&error))
}

async fn put_functions(connection: &mut PgConnection) -> Result<(), StoreError> {
    let log = format!("insert into commpool.function_set (hash) values ('{}')", functions::hash());
    let texts: Vec<&str> = FILES.iter().map(|(_, text)| *text).chain([log.as_str()]).collect();
    patiently(connection, &texts).await
}

/// Carries out statements as one, again and again while somebody holds a lock that they need.
async fn patiently(connection: &mut PgConnection, texts: &[&str]) -> Result<(), StoreError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match transaction(connection, texts).await {
            Err(StoreError::Busy) if Instant::now() < deadline => sleep(PAUSE).await,
            Err(StoreError::Busy) => {
                let text = "a lock is held by somebody for a minute; look for it in pg_locks";
                return Err(StoreError::Unavailable(text.to_owned()));
            }
            done => return done,
        }
    }
}

/// Carries out statements as one; `Busy`: somebody holds a lock that they need.
async fn transaction(connection: &mut PgConnection, texts: &[&str]) -> Result<(), StoreError> {
    let all = ["begin"].iter().chain(texts).chain(&["commit"]);
    for text in all {
        let Err(error) = raw_sql(AssertSqlSafe(*text)).execute(&mut *connection).await else { continue };
        // After a failure inside, nothing of it stays.
        let _ = raw_sql("rollback").execute(&mut *connection).await;
        let code = error.as_database_error().and_then(DatabaseError::code);
        let busy = matches!(code.as_deref(), Some("55P03" | "40P01"));
        return Err(if busy { StoreError::Busy } else { unavailable(&error) });
    }
    Ok(())
}

/// Looks at what is there and was never looked at. What is empty is left alone: it would be planned for as if it stayed so.
async fn analyze(connection: &mut PgConnection) -> Result<(), StoreError> {
    let question = "select format('analyze commpool.%I', relname) from pg_stat_user_tables \
                    where schemaname = 'commpool' and last_analyze is null and last_autoanalyze is null \
                    and pg_relation_size(relid) > 0";
    let rows = sqlx::query(question).fetch_all(&mut *connection).await.map_err(|error| unavailable(&error))?;
    for row in rows {
        let text: String = row.try_get(0).map_err(|error| unavailable(&error))?;
        raw_sql(AssertSqlSafe(text)).execute(&mut *connection).await.map_err(|error| unavailable(&error))?;
    }
    Ok(())
}
