//! Endpoints as a whole: lost flows, sweeping, expiry, listing.

use std::convert::Infallible;
use std::ops::Bound;

use commpool_model::ids::{EndpointId, Incarnation, Key128, Micros, UserId};

use super::Memory;
use crate::engine::accounts::Visit;
use crate::engine::endpoints::{Endpoints, Slice};
use crate::rows::EndpointRow;

fn after<Key>(key: Option<Key>) -> (Bound<Key>, Bound<Key>) {
    (key.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

impl Endpoints for Memory {
    fn endpoint(&mut self, id: EndpointId) -> Result<Option<EndpointRow>, Infallible> {
        Ok(self.endpoints.get(&id).cloned())
    }

    fn each_endpoint(&mut self, from: Option<EndpointId>, visit: Visit<'_, EndpointRow>) -> Result<(), Infallible> {
        let _all_or_enough = self.endpoints.range(after(from)).map(|(_, row)| row.clone()).try_for_each(visit);
        Ok(())
    }

    fn each_lost(&mut self, visit: Visit<'_, EndpointRow>) -> Result<(), Infallible> {
        let mut lost: Vec<_> = self.endpoints.values().filter(|row| row.lost_at.is_some()).cloned().collect();
        lost.sort_by_key(|row| (row.lost_at, row.id));
        let _all_or_enough = lost.into_iter().try_for_each(visit);
        Ok(())
    }

    fn each_held(&mut self, fe: Incarnation, visit: Visit<'_, EndpointRow>) -> Result<(), Infallible> {
        let held = self.endpoints.values().filter(|row| row.flow.fe == fe && row.lost_at.is_none());
        let _all_or_enough = held.cloned().try_for_each(visit);
        Ok(())
    }

    fn overdue_endpoints(&mut self, users: Slice, past: Micros) -> Result<Vec<EndpointRow>, Infallible> {
        let overdue =
            |row: &&EndpointRow| users.contains(&row.id.user()) && row.lost_at.is_none() && row.expires_at <= past;
        Ok(self.endpoints.values().filter(overdue).cloned().collect())
    }

    fn publications_left_by(
        &mut self,
        fe: Incarnation,
        now: Micros,
        limit: usize,
    ) -> Result<Vec<(UserId, Key128)>, Infallible> {
        let left = self.publications.iter().filter(|(_, row)| row.fe == fe && row.expires_at <= now);
        Ok(left.take(limit).map(|(key, _)| *key).collect())
    }

    fn overdue_publications(&mut self, users: Slice, past: Micros) -> Result<Vec<(UserId, Key128)>, Infallible> {
        let overdue =
            self.publications.iter().filter(|((user, _), row)| users.contains(user) && row.expires_at <= past);
        Ok(overdue.map(|(key, _)| *key).collect())
    }

    fn endpoint_expiries(
        &mut self,
        from: Option<EndpointId>,
        limit: usize,
    ) -> Result<Vec<(EndpointId, Micros)>, Infallible> {
        let rows = self.endpoints.range(after(from)).take(limit);
        Ok(rows.map(|(id, row)| (*id, row.expires_at)).collect())
    }

    fn publication_expiry(&mut self, user: UserId, id: Key128) -> Result<Option<Micros>, Infallible> {
        Ok(self.publications.get(&(user, id)).map(|row| row.expires_at))
    }

    fn publication_expiries(
        &mut self,
        from: Option<(UserId, Key128)>,
        limit: usize,
    ) -> Result<Vec<(UserId, Key128, Micros)>, Infallible> {
        let rows = self.publications.range(after(from)).take(limit);
        Ok(rows.map(|((user, id), row)| (*user, *id, row.expires_at)).collect())
    }

    fn endpoints_at(&mut self, fe: Incarnation) -> Result<u64, Infallible> {
        Ok(self.endpoints.values().filter(|row| row.flow.fe == fe).count() as u64)
    }

    fn has_rows_of(&mut self, fe: Incarnation) -> Result<bool, Infallible> {
        Ok(self.endpoints.values().any(|row| row.flow.fe == fe)
            || self.publications.values().any(|row| row.fe == fe)
            || self.interest.keys().any(|(_, of)| *of == fe)
            || self.subscriptions.values().any(|row| row.fe == fe))
    }
}
