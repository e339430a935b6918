//! What can keep an operation from being carried out.

use thiserror::Error;

/// Why there is no outcome.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// Nothing was changed; try again later.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The change may have been made or not; a repeat with the same origin is harmless.
    #[error("the store did not say whether the change was made: {0}")]
    Unknown(String),
    /// The data has another schema than this build needs.
    #[error("the store has schema {found}, this build needs {need}: {}", schema_mend(*.need, *.found))]
    Schema {
        /// Version this build needs.
        need: u32,
        /// Version found, 0 for an empty store.
        found: u32,
    },
    /// Too much is queued already; try again later.
    #[error("the store is overloaded: its queue is full")]
    Busy,
    /// The request breaks a bound of its type; a repeat will fail too.
    #[error("invalid request: {field} {problem}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

const fn schema_mend(need: u32, found: u32) -> &'static str {
    if found < need {
        "run `commpool-server migrate`"
    } else if found == need {
        "its functions are those of another build, run `commpool-server migrate`"
    } else {
        "use a build at least as new as the one that wrote it"
    }
}
