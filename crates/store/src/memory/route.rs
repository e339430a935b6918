//! Access control entries.

use std::convert::Infallible;

use commpool_model::acl::Ace;
use commpool_model::ids::UserId;

use super::Memory;
use crate::engine::route::{ACES, Aces};

impl Aces for Memory {
    fn aces_of(&mut self, user: UserId) -> Result<Vec<Ace>, Infallible> {
        let of_user = self.aces.range((user, String::new())..).take_while(|((owner, _), _)| *owner == user);
        Ok(of_user.take(ACES).map(|(_, ace)| ace.clone()).collect())
    }

    fn aces_matching(&mut self, user: UserId, masks: [&str; 3]) -> Result<Vec<Ace>, Infallible> {
        let of_user = self.aces.range((user, String::new())..).take_while(|((owner, _), _)| *owner == user);
        Ok(of_user.map(|(_, ace)| ace).filter(|ace| masks.contains(&ace.mask.as_str())).cloned().collect())
    }
}
