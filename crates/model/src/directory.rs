//! What a run of the User Replicator came to: written by it, read by operator and people.

use serde::{Deserialize, Serialize};

/// Most octets of an [`Outcome`] as JSON: what Kubernetes keeps of a termination message.
pub const MAX_OUTCOME: usize = 4096;
/// Most conflicts that an [`Outcome`] names; it counts them all.
pub const MAX_NAMED: usize = 5;

/// What a run came to. At most [`MAX_OUTCOME`] octets as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// In one word.
    pub result: RunResult,
    /// What happened or what to do, for people; at most 1,024 octets.
    pub message: String,
    /// When it began, RFC 3339 in UTC.
    pub started: String,
    /// When it ended, RFC 3339 in UTC.
    pub finished: String,
    /// Entries that the filter found.
    pub found: u64,
    /// What was changed, or in [`RunResult::DeletionHeld`] would be.
    pub counts: Counts,
    /// The first conflicts, at most [`MAX_NAMED`], each one line that names both sides; at most 256 octets each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<String>,
    /// Digest of the plan that was held; it releases that plan, once, and no other.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub plan_digest: String,
}

/// What a run came to, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunResult {
    /// The store is what the directory says.
    Synced,
    /// Too many users would lose the service, or their passwords by another address: nothing was applied.
    DeletionHeld,
    /// Another run is active, and was seen to go on: nothing was done.
    Busy,
    /// The directory cannot be reached or does not prove who it is: nothing was changed.
    DirectoryUnavailable,
    /// The directory refuses the bind or the search: nothing was changed.
    DirectoryRefused,
    /// The directory was not read to its end, or as if it had nobody: nothing was changed.
    ReadIncomplete,
    /// The store cannot be reached or refused: nothing was changed, or not known.
    StoreUnavailable,
    /// The configuration or a file it names cannot be used.
    ConfigurationInvalid,
    /// Something that should not happen; see the log.
    InternalError,
}

impl RunResult {
    /// Its name, the same as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Synced => "Synced",
            Self::DeletionHeld => "DeletionHeld",
            Self::Busy => "Busy",
            Self::DirectoryUnavailable => "DirectoryUnavailable",
            Self::DirectoryRefused => "DirectoryRefused",
            Self::ReadIncomplete => "ReadIncomplete",
            Self::StoreUnavailable => "StoreUnavailable",
            Self::ConfigurationInvalid => "ConfigurationInvalid",
            Self::InternalError => "InternalError",
        }
    }
}

/// How many users a plan concerns, by what it does to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counts {
    /// New, or found again.
    pub added: u64,
    /// Name, address or card.
    pub changed: u64,
    /// May no longer sign in: said by the directory.
    pub disabled: u64,
    /// May no longer sign in: not found any more.
    pub missing: u64,
    /// Gone for good, after the grace.
    pub removed: u64,
    /// As they were.
    pub unchanged: u64,
    /// Entries that are no user, or not as they say: see the conflicts.
    pub conflicts: u64,
    /// Entries without any SIP address: not users of the pool.
    pub ignored: u64,
}

impl Counts {
    /// Whether the plan does anything.
    pub fn any(&self) -> bool {
        self.changes().iter().any(|(_, users)| *users > 0)
    }

    /// What the plan does, by name.
    pub const fn changes(&self) -> [(&'static str, u64); 5] {
        [
            ("added", self.added),
            ("changed", self.changed),
            ("disabled", self.disabled),
            ("missing", self.missing),
            ("removed", self.removed),
        ]
    }
}
