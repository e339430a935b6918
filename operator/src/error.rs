//! What can go wrong, and what follows from it.

use kube::core::Status;

use crate::crd::Reason;

/// A request to the API server that failed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {verb} {what}: {source}")]
pub struct ApiError {
    /// The verb as roles name it.
    pub verb: &'static str,
    /// Kind and name of the object.
    pub what: String,
    /// The answer.
    #[source]
    pub source: kube::Error,
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Try again, each time later.
    Retry,
    /// A person must act; the reason goes into the status.
    Person(Reason),
}

impl ApiError {
    /// Whether trying again can help.
    pub fn class(&self) -> Class {
        match &self.source {
            kube::Error::Api(status) if namespace_ends(status) => Class::Retry,
            kube::Error::Api(status) if status.is_forbidden() => Class::Person(Reason::Forbidden),
            kube::Error::Api(status) if status.is_invalid() || status.code == 400 => Class::Person(Reason::Refused),
            _ => Class::Retry,
        }
    }

    /// What the status says: the API server's own words.
    pub fn message(&self) -> String {
        match &self.source {
            kube::Error::Api(status) => format!("{} {}: {}", self.verb, self.what, status.message),
            other => format!("{} {}: {other}", self.verb, self.what),
        }
    }
}

/// In a namespace that is being deleted every creation is forbidden; that is nobody's fault and over soon.
pub(crate) fn namespace_ends(status: &Status) -> bool {
    status
        .details
        .as_ref()
        .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"))
}

/// Why a pass over a pool ended early; it is repeated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not do as asked.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The API server did not answer in time.
    #[error("the API server did not answer within {} s", .0.as_secs())]
    Late(std::time::Duration),
    /// A certificate or key could not be made.
    #[error(transparent)]
    Pki(#[from] crate::pki::PkiError),
    /// An object could not be written as JSON.
    #[error("failed to write an object: {0}")]
    Json(#[from] serde_json::Error),
    /// The server's configuration could not be written.
    #[error("failed to write the server's configuration: {0}")]
    Config(String),
}

impl Error {
    /// A short fixed name for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Api(error) => match error.class() {
                Class::Person(Reason::Forbidden) => "forbidden",
                Class::Person(_) => "refused",
                Class::Retry => "api",
            },
            Self::Late(_) => "late",
            Self::Pki(_) => "pki",
            Self::Json(_) | Self::Config(_) => "internal",
        }
    }
}
