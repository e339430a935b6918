//! Subscription dialogs and who watches whom.

use std::convert::Infallible;

use commpool_model::ids::{EndpointId, Incarnation, Key128, Micros, UserId};

use super::{Memory, of_user};
use crate::engine::endpoints::Slice;
use crate::engine::subscribe::Subscriptions;
use crate::ops::subscribe::Kind;
use crate::rows::SubscriptionRow;

impl Subscriptions for Memory {
    fn subscription(&mut self, watcher: UserId, id: Key128) -> Result<Option<SubscriptionRow>, Infallible> {
        Ok(self.subscriptions.get(&(watcher, id)).cloned())
    }

    fn subscriptions_of(&mut self, watcher: UserId, now: Micros, limit: usize) -> Result<usize, Infallible> {
        let rows = self.subscriptions.range(of_user(watcher)).filter(|(_, row)| row.expires_at > now);
        Ok(rows.take(limit).count())
    }

    fn subscriptions_at(
        &mut self,
        endpoint: EndpointId,
        now: Micros,
        after: Option<Key128>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRow>, Infallible> {
        let rows = self.subscriptions.range(of_user(endpoint.user())).map(|(_, row)| row);
        let live = rows.filter(|row| row.endpoint == Some(endpoint) && row.expires_at > now);
        Ok(live.filter(|row| after.is_none_or(|after| row.sub_id > after)).take(limit).cloned().collect())
    }

    fn dialogs_at(&mut self, endpoint: EndpointId, but: Option<Incarnation>, now: Micros) -> Result<u32, Infallible> {
        let rows = self.subscriptions.range(of_user(endpoint.user())).map(|(_, row)| row);
        let there = rows.filter(|row| row.endpoint == Some(endpoint) && Some(row.fe) != but && row.expires_at > now);
        Ok(u32::try_from(there.count()).unwrap_or(u32::MAX))
    }

    fn put_subscription(&mut self, row: &SubscriptionRow) -> Result<(), Infallible> {
        self.subscriptions.insert((row.watcher, row.sub_id), row.clone());
        Ok(())
    }

    fn remove_subscription(&mut self, watcher: UserId, id: Key128) -> Result<(), Infallible> {
        self.subscriptions.remove(&(watcher, id));
        Ok(())
    }

    fn forget_dialogs_at(&mut self, endpoint: EndpointId, but: Incarnation) -> Result<(), Infallible> {
        self.forget(usize::MAX, |row| {
            row.watcher == endpoint.user() && row.endpoint == Some(endpoint) && row.fe != but
        });
        Ok(())
    }

    fn add_interest(&mut self, user: UserId, fe: Incarnation, kind: Kind) -> Result<(), Infallible> {
        *self.interest.entry((user, fe)).or_default() |= kind as u8;
        Ok(())
    }

    fn remove_interest(&mut self, user: UserId, fe: Incarnation) -> Result<(), Infallible> {
        self.interest.remove(&(user, fe));
        Ok(())
    }

    fn forget_interest(&mut self, fe: Incarnation, limit: usize) -> Result<usize, Infallible> {
        let due: Vec<_> = self.interest.keys().filter(|(_, of)| *of == fe).take(limit).copied().collect();
        self.interest.retain(|key, _| !due.contains(key));
        Ok(due.len())
    }

    fn forget_subscriptions(&mut self, fe: Incarnation, now: Micros, limit: usize) -> Result<usize, Infallible> {
        Ok(self.forget(limit, |row| row.fe == fe && row.expires_at <= now))
    }

    fn forget_overdue(&mut self, watchers: Slice, now: Micros, limit: usize) -> Result<usize, Infallible> {
        Ok(self.forget(limit, |row| watchers.contains(&row.watcher) && row.expires_at <= now))
    }
}

impl Memory {
    /// Removes the first dialogs of which this is so; how many they were.
    fn forget(&mut self, limit: usize, which: impl Fn(&SubscriptionRow) -> bool) -> usize {
        let due = self.subscriptions.values().filter(|row| which(row)).take(limit);
        let due: Vec<_> = due.map(|row| (row.watcher, row.sub_id)).collect();
        due.iter().for_each(|key| drop(self.subscriptions.remove(key)));
        due.len()
    }
}
