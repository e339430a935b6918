//! Subscription dialogs and who watches whom.

use commpool_model::ids::{EndpointId, Incarnation, Key128, Micros, Origin, UserId};
use rusqlite::{Row, params};

use super::tables::Transaction;
use super::values::{Columns, bits, int};
use crate::codes::{joined, kind};
use crate::engine::endpoints::Slice;
use crate::engine::subscribe::Subscriptions;
use crate::ops::subscribe::{Dialog, Kind};
use crate::rows::SubscriptionRow;

/// Columns of a dialog in the order in which [`subscription`] reads them.
macro_rules! subscriptions {
    ($rest:literal) => {
        concat!(
            "select user_id, sub_id, fe, origin, endpoint_id, kind, presentities, expires_at, cseq, call_id, ",
            "local_tag, remote_tag, remote_cseq, contact, route, event_id from subscription ",
            $rest
        )
    };
}

fn subscription(row: &Row<'_>) -> rusqlite::Result<SubscriptionRow> {
    let mut columns = Columns::of(row);
    Ok(SubscriptionRow {
        watcher: columns.user()?,
        sub_id: columns.key()?,
        fe: columns.fe()?,
        origin: columns.get().map(Origin)?,
        endpoint: columns.maybe_endpoint()?,
        kind: columns.code(kind)?,
        presentities: columns.list()?,
        expires_at: columns.micros()?,
        cseq: columns.get()?,
        dialog: Dialog {
            call_id: columns.get()?,
            local_tag: columns.get()?,
            remote_tag: columns.get()?,
            remote_cseq: columns.get()?,
            contact: columns.get()?,
            route: columns.list()?,
            event_id: columns.get()?,
        },
    })
}

impl Subscriptions for Transaction<'_> {
    fn subscription(&mut self, watcher: UserId, id: Key128) -> rusqlite::Result<Option<SubscriptionRow>> {
        self.one(subscriptions!("where user_id = ?1 and sub_id = ?2"), (int(watcher.0), id.0), subscription)
    }

    fn subscriptions_at(
        &mut self,
        endpoint: EndpointId,
        now: Micros,
        after: Option<Key128>,
        limit: usize,
    ) -> rusqlite::Result<Vec<SubscriptionRow>> {
        let sql = subscriptions!(
            "where user_id = ?1 and endpoint_id = ?2 and expires_at > ?3 and sub_id > ?4 order by sub_id limit ?5"
        );
        // A blob is above every shorter one that it begins with: the empty one is below all.
        let after = after.map_or(Vec::new(), |key| key.0.to_vec());
        let of = (int(endpoint.user().0), bits(endpoint), int(now.0), after, int(limit as u64));
        self.all(sql, of, subscription)
    }

    fn dialogs_at(&mut self, endpoint: EndpointId, but: Option<Incarnation>, now: Micros) -> rusqlite::Result<u32> {
        let sql = "select count(*) from subscription
                   where user_id = ?1 and endpoint_id = ?2 and fe is not ?3 and expires_at > ?4";
        let of = (int(endpoint.user().0), bits(endpoint), but.map(|fe| fe.0), int(now.0));
        Ok(self.one(sql, of, |row| row.get(0))?.unwrap_or(0))
    }

    fn subscriptions_of(&mut self, watcher: UserId, now: Micros, limit: usize) -> rusqlite::Result<usize> {
        let sql = "select count(*) from (select 1 from subscription where user_id = ?1 and expires_at > ?2 limit ?3)";
        let of = (int(watcher.0), int(now.0), int(limit as u64));
        let count: Option<u32> = self.one(sql, of, |row| row.get(0))?;
        Ok(count.unwrap_or(0) as usize)
    }

    fn put_subscription(&mut self, row: &SubscriptionRow) -> rusqlite::Result<()> {
        let sql = "insert or replace into subscription
                   (user_id, sub_id, fe, origin, endpoint_id, kind, presentities, expires_at, cseq, call_id, local_tag,
                    remote_tag, remote_cseq, contact, route, event_id)
                   values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
        let dialog = &row.dialog;
        let parameters = params![
            int(row.watcher.0),
            row.sub_id.0,
            row.fe.0,
            row.origin.0,
            row.endpoint.map(bits),
            row.kind as u8,
            joined(&row.presentities),
            int(row.expires_at.0),
            row.cseq,
            dialog.call_id,
            dialog.local_tag,
            dialog.remote_tag,
            dialog.remote_cseq,
            dialog.contact,
            joined(&dialog.route),
            dialog.event_id,
        ];
        self.execute(sql, parameters).map(drop)
    }

    fn remove_subscription(&mut self, watcher: UserId, id: Key128) -> rusqlite::Result<()> {
        let sql = "delete from subscription where user_id = ?1 and sub_id = ?2";
        self.execute(sql, (int(watcher.0), id.0)).map(drop)
    }

    fn forget_dialogs_at(&mut self, endpoint: EndpointId, but: Incarnation) -> rusqlite::Result<()> {
        let sql = "delete from subscription where user_id = ?1 and endpoint_id = ?2 and fe <> ?3";
        self.execute(sql, (int(endpoint.user().0), bits(endpoint), but.0)).map(drop)
    }

    fn add_interest(&mut self, user: UserId, fe: Incarnation, kind: Kind) -> rusqlite::Result<()> {
        let sql = "insert into interest (user_id, fe, kinds) values (?1, ?2, ?3)
                   on conflict (user_id, fe) do update set kinds = kinds | ?3 where kinds & ?3 = 0";
        self.execute(sql, (int(user.0), fe.0, kind as u8)).map(drop)
    }

    fn remove_interest(&mut self, user: UserId, fe: Incarnation) -> rusqlite::Result<()> {
        self.execute("delete from interest where user_id = ?1 and fe = ?2", (int(user.0), fe.0)).map(drop)
    }

    fn forget_interest(&mut self, fe: Incarnation, limit: usize) -> rusqlite::Result<usize> {
        let sql = "delete from interest where fe = ?1 and user_id in
                   (select user_id from interest where fe = ?1 order by user_id limit ?2)";
        self.execute(sql, (fe.0, int(limit as u64)))
    }

    fn forget_subscriptions(&mut self, fe: Incarnation, now: Micros, limit: usize) -> rusqlite::Result<usize> {
        let sql = "delete from subscription where (user_id, sub_id) in
                   (select user_id, sub_id from subscription where fe = ?1 and expires_at <= ?2
                    order by user_id, sub_id limit ?3)";
        self.execute(sql, (fe.0, int(now.0), int(limit as u64)))
    }
    fn forget_overdue(&mut self, watchers: Slice, now: Micros, limit: usize) -> rusqlite::Result<usize> {
        let sql = "delete from subscription where (user_id, sub_id) in
                   (select user_id, sub_id from subscription where user_id between ?1 and ?2 and expires_at <= ?3
                    order by user_id, sub_id limit ?4)";
        let of = (int(watchers.start().0), int(watchers.end().0), int(now.0), int(limit as u64));
        self.execute(sql, of)
    }
}
