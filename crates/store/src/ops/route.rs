//! Where a user can be reached, and whether the sender may.

use commpool_model::acl::Ace;
use commpool_model::ids::UserRef;

use super::Endpoint;
use super::accounts::State;

/// Who is to be reached, by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Canonical address of the target.
    pub target: String,
    /// Canonical address of the sender; selects the ACEs (his address, his domain, everybody).
    pub sender: String,
}

/// The answer to [`Request`].
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// `None`: no such address.
    pub found: Option<Target>,
}

/// A user as the routing read sees him.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The user.
    pub user: UserRef,
    /// Whether the account is on.
    pub state: State,
    /// ACEs that match the sender.
    pub aces: Vec<Ace>,
    /// His endpoints, lost ones too; at most ten.
    pub endpoints: Vec<Endpoint>,
}
