//! Publications and the state they add up to.

use std::convert::Infallible;

use commpool_model::ids::{Incarnation, Key128, UserId, Version};

use super::{Memory, of_user};
use crate::engine::presence::Presence;
use crate::rows::{Head, PublicationRow};

impl Presence for Memory {
    fn publications_of(&mut self, user: UserId) -> Result<Vec<PublicationRow>, Infallible> {
        Ok(self.publications.range(of_user(user)).map(|(_, row)| row.clone()).collect())
    }

    fn put_publication(&mut self, row: &PublicationRow) -> Result<(), Infallible> {
        self.publications.insert((row.user, row.id), row.clone());
        Ok(())
    }

    fn remove_publication(&mut self, user: UserId, id: Key128) -> Result<(), Infallible> {
        self.publications.remove(&(user, id));
        Ok(())
    }

    fn head(&mut self, user: UserId) -> Result<Head, Infallible> {
        Ok(self.heads.get(&user).copied().unwrap_or_default())
    }

    fn put_head(&mut self, user: UserId, head: &Head) -> Result<(), Infallible> {
        self.heads.insert(user, *head);
        Ok(())
    }

    fn interest_in(&mut self, user: UserId) -> Result<Vec<Incarnation>, Infallible> {
        let range = (user, Incarnation(0))..=(user, Incarnation(u32::MAX));
        Ok(self.interest.range(range).map(|((_, fe), _)| *fe).collect())
    }

    fn heads_watched(
        &mut self,
        fe: Incarnation,
        above: Version,
        limit: usize,
    ) -> Result<Vec<(UserId, Version)>, Infallible> {
        let watched =
            self.heads.iter().filter(|(user, head)| head.version > above && self.interest.contains_key(&(**user, fe)));
        let mut watched: Vec<_> = watched.map(|(user, head)| (*user, head.version)).collect();
        watched.sort_unstable_by_key(|(user, version)| (*version, *user));
        watched.truncate(limit);
        Ok(watched)
    }
}
