//! Groups and logins of a database.

use std::path::Path;

use sqlx::{AssertSqlSafe, PgConnection, Row, raw_sql};
use zeroize::Zeroizing;

use super::options::line;
use crate::error::StoreError;

/// The groups: who may change the schema, who calls a front end's functions, who calls the replicator's.
const GROUPS: [&str; 3] = ["commpool_owner", "commpool_server", "commpool_replicator"];

/// Logins that a superuser makes in a database of the pool's own, one for each group.
pub struct Logins([(String, Zeroizing<String>); 3]);

impl Logins {
    /// From a folder with the files `owner-username`, `owner-password`, and the same of `server` and `replicator`.
    ///
    /// # Errors
    /// A file is missing or empty.
    pub fn read(folder: &Path) -> Result<Self, StoreError> {
        let login = |who: &str| -> Result<_, StoreError> {
            let file = |kind: &str| line(&folder.join(format!("{who}-{kind}")));
            Ok((file("username")?.to_string(), file("password")?))
        };
        Ok(Self([login("owner")?, login("server")?, login("replicator")?]))
    }
}

/// Makes groups and logins where they are missing, and sets the passwords. Needs a superuser.
pub(super) async fn bootstrap(connection: &mut PgConnection, database: &str, logins: &Logins) -> sqlx::Result<()> {
    // Passwords stand in no log, whatever the server is told to log. Another superuser may have less.
    let quiet = "set log_statement = 'none'; set log_min_duration_statement = -1; set log_min_error_statement = panic;";
    raw_sql(quiet).execute(&mut *connection).await?;
    for group in GROUPS {
        make(connection, group, "nologin").await?;
    }
    for (group, (name, password)) in GROUPS.iter().zip(&logins.0) {
        make(connection, name, "login").await?;
        let set = "select format('alter role %I with login password %L; grant %I to %I', $1, $2, $3, $1)";
        composed(connection, set, &[name, password, group]).await?;
    }
    let text = "select format('grant connect, create on database %1$I to commpool_owner; \
                grant connect on database %1$I to commpool_server, commpool_replicator; \
                revoke connect, temporary on database %1$I from public', $1)";
    composed(connection, text, &[database]).await
}

/// A role, unless it is there.
async fn make(connection: &mut PgConnection, name: &str, kind: &str) -> sqlx::Result<()> {
    let text = "select case when to_regrole(quote_ident($1)) is null then format('create role %I %s', $1, $2) \
                else '' end";
    composed(connection, text, &[name, kind]).await
}

/// Carries out what a statement puts together, with names and values quoted by the server.
async fn composed(connection: &mut PgConnection, text: &'static str, values: &[&str]) -> sqlx::Result<()> {
    let query = values.iter().fold(sqlx::query(text), |query, value| query.bind((*value).to_owned()));
    let statement: Zeroizing<String> = query.fetch_one(&mut *connection).await?.try_get(0).map(Zeroizing::new)?;
    raw_sql(AssertSqlSafe(statement.as_str())).execute(connection).await.map(drop)
}

/// Statements by which an administrator makes groups and logins in a database that is not the pool's own.
pub fn roles() -> &'static str {
    "-- Carry this out once, as a superuser, in the database of the pool; put in names and passwords of your own.
-- Groups: commpool_owner holds tables and functions, the other two may call functions and nothing else.
create role commpool_owner nologin;
create role commpool_server nologin;
create role commpool_replicator nologin;
-- Logins: one for `commpool-server migrate`, one for the front ends, one for the replicator.
create role pool_owner login password 'CHANGE-1' in role commpool_owner;
create role pool_server login password 'CHANGE-2' in role commpool_server;
create role pool_replicator login password 'CHANGE-3' in role commpool_replicator;
do $$ begin
    execute format('grant connect, create on database %I to commpool_owner', current_database());
    execute format('grant connect on database %I to commpool_server, commpool_replicator', current_database());
end $$;
"
}
