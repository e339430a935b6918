//! Where a user can be reached, and whether the sender may.

use commpool_model::acl::Ace;
use commpool_model::address::domain_of;
use commpool_model::ids::{Micros, UserId};

use super::{Backend, Tables};
use crate::ops::route::{Reply, Request, Target};

/// Most access control entries read at once.
pub(crate) const ACES: usize = 1000;

/// Access control entries.
pub(crate) trait Aces: Backend {
    /// Entries of a user by mask, at most [`ACES`].
    fn aces_of(&mut self, user: UserId) -> Result<Vec<Ace>, Self::Error>;
    /// Entries of a user with one of these masks, by mask.
    fn aces_matching(&mut self, user: UserId, masks: [&str; 3]) -> Result<Vec<Ace>, Self::Error>;
}

pub(crate) fn route<T: Tables>(tables: &mut T, now: Micros, request: &Request) -> Result<Reply, T::Error> {
    let Some(row) = tables.account_by_address(&request.target)? else { return Ok(Reply { found: None }) };
    let lives = tables.lives()?;
    let aces = tables.aces_matching(row.user, [&request.sender, domain_of(&request.sender), ""])?;
    let rows = tables.endpoints_of(row.user)?;
    let visible = rows.iter().filter(|endpoint| endpoint.life(&lives, now).visible());
    let endpoints = visible.map(|endpoint| endpoint.endpoint(&lives, now)).collect();
    Ok(Reply { found: Some(Target { user: row.user_ref(), state: row.state, aces, endpoints }) })
}
