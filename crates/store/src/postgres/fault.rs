//! What a failure of the database means.

use sqlx::error::DatabaseError;

use crate::error::StoreError;

/// What is to be done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection is of no use any more; whether the call was carried out is not known.
    Broken,
    /// The server says that it goes, or is no primary: nothing was changed, and another connection is needed.
    Leave,
    /// The functions of this build are not there.
    Schema,
    /// Something stood in the way: nothing was changed, a repeat may pass at once.
    Again,
    /// One row of the batch cannot be written.
    Row,
    /// Nothing was changed.
    Refused,
}

pub(super) fn judge(error: &sqlx::Error) -> Fault {
    match error {
        sqlx::Error::Database(error) => by_code(error.as_ref()),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::Encode(_) => Fault::Refused,
        _ => Fault::Broken,
    }
}

fn by_code(error: &dyn DatabaseError) -> Fault {
    let code = error.code().unwrap_or_default();
    match code.as_ref() {
        "40001" | "40P01" => Fault::Again,
        "42883" | "42P01" | "3F000" => Fault::Schema,
        "25006" => Fault::Leave,
        code if code.starts_with("08") || code.starts_with("57P0") => Fault::Leave,
        code if ["21", "22", "23"].iter().any(|class| code.starts_with(class)) => Fault::Row,
        _ => Fault::Refused,
    }
}

/// The failure for people, with its mend where there is one.
pub(super) fn explain(error: &sqlx::Error) -> String {
    let code = error.as_database_error().and_then(DatabaseError::code).unwrap_or_default();
    let mend = match code.as_ref() {
        "28P01" | "28000" => "check user and password files",
        "3D000" => "create the database, or name another",
        "42501" => {
            "make the login a member of commpool_server, a replicator's of commpool_replicator, \
             see `commpool-server migrate --print-roles`"
        }
        "53100" => "free some space on the database's disk",
        "53300" => "raise max_connections: five are needed per front end",
        "55P03" | "57014" => "the database is slow or a row is locked for too long",
        _ => "",
    };
    let text = words(error);
    if mend.is_empty() { text } else { format!("{text}; {mend}") }
}

/// The server's own words; the driver would add where in the server's source they stand.
pub(super) fn words(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

pub(super) fn unavailable(error: &sqlx::Error) -> StoreError {
    StoreError::Unavailable(explain(error))
}
