//! What a front end holds, said again after some of it was lost: the newer row stays.

use std::collections::BTreeMap;

use commpool_model::ids::{Incarnation, Micros, UserId, UserRef};

use super::Tables;
use super::accounts::is_on;
use super::presence::{self, PUBLICATIONS, Shown};
use super::register::{ENDPOINTS, local};
use super::subscribe::DIALOGS;
use crate::ops::assert::{Assert, Asserted, HeldEndpoint, HeldPublication, HeldSubscription, Kept};
use crate::ops::subscribe::{Kind, OUTLIVES};
use crate::rows::{EndpointRow, Lives, PublicationRow, SubscriptionRow};

pub(crate) fn assert<T: Tables>(tables: &mut T, now: Micros, request: &Assert) -> Result<Asserted, T::Error> {
    if !tables.lives()?.alive(request.fe) {
        return Ok(Asserted::Gone);
    }
    let mut of_user: BTreeMap<UserId, Held<'_>> = BTreeMap::new();
    for held in &request.endpoints {
        of_user.entry(held.endpoint.id.user()).or_default().endpoints.push(held);
    }
    for held in &request.publications {
        of_user.entry(held.user.id).or_default().publications.push(held);
    }
    let mut kept = Kept::default();
    for (user, held) in of_user {
        state(tables, now, request.fe, user, &held, &mut kept)?;
    }
    for user in &request.interest {
        tables.add_interest(user.id, request.fe, Kind::Presence)?;
        kept.interest += 1;
    }
    for held in &request.subscriptions {
        dialog(tables, now, request.fe, held, &mut kept)?;
    }
    Ok(Asserted::Done(kept))
}

/// What is held of one user.
#[derive(Default)]
struct Held<'a> {
    endpoints: Vec<&'a HeldEndpoint>,
    publications: Vec<&'a HeldPublication>,
}

fn state<T: Tables>(
    tables: &mut T,
    now: Micros,
    fe: Incarnation,
    user: UserId,
    held: &Held<'_>,
    kept: &mut Kept,
) -> Result<(), T::Error> {
    if !is_on(tables, local(user))? {
        kept.lost_endpoints.extend(held.endpoints.iter().map(|held| held.endpoint.id));
        kept.lost_publications.extend(held.publications.iter().map(|held| (held.user, held.id)));
        return Ok(());
    }
    let lives = tables.lives()?;
    let mut endpoints = tables.endpoints_of(user)?;
    let mut publications = tables.publications_of(user)?;
    let shown = Shown::before(&endpoints, &publications, &lives, now);
    let mut written = false;
    for held in &held.endpoints {
        let fate = endpoint(tables, &held.row(now), &mut endpoints, &lives, now)?;
        written |= fate == Fate::Written;
        match fate {
            Fate::Lost => kept.lost_endpoints.push(held.endpoint.id),
            Fate::There | Fate::Written => kept.endpoints += 1,
        }
    }
    for held in &held.publications {
        let fate = publication(tables, held.row(fe, now), &mut publications, now)?;
        written |= fate == Fate::Written;
        match fate {
            Fate::Lost => kept.lost_publications.push((held.user, held.id)),
            Fate::There | Fate::Written => kept.publications += 1,
        }
    }
    if written {
        presence::changed(tables, now, user, &shown, &endpoints, &publications)?;
    }
    Ok(())
}

/// What becomes of something held.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The row says so already.
    There,
    /// The row says so now.
    Written,
    /// Something else is kept.
    Lost,
}

fn endpoint<T: Tables>(
    tables: &mut T,
    held: &EndpointRow,
    rows: &mut Vec<EndpointRow>,
    lives: &Lives,
    now: Micros,
) -> Result<Fate, T::Error> {
    let rival = |row: &&EndpointRow| row.id == held.id || row.key == held.key;
    if rows.iter().filter(rival).any(|row| row.id == held.id && row.says_the_same(held)) {
        return Ok(Fate::There);
    }
    let others = rows.iter().filter(|row| !rival(row) && row.life(lives, now).visible()).count();
    let newer = rows.iter().filter(rival).any(|row| row.newer_than(held));
    if held.expires_at <= now || newer || others >= ENDPOINTS {
        return Ok(Fate::Lost);
    }
    for row in rows.iter().filter(|row| rival(row) && row.id != held.id) {
        tables.remove_endpoint(row.id)?;
    }
    tables.put_endpoint(held)?;
    rows.retain(|row| !rival(&row));
    rows.push(held.clone());
    rows.sort_unstable_by_key(|row| row.id);
    Ok(Fate::Written)
}

fn publication<T: Tables>(
    tables: &mut T,
    held: PublicationRow,
    rows: &mut Vec<PublicationRow>,
    now: Micros,
) -> Result<Fate, T::Error> {
    let there = rows.iter().find(|row| row.id == held.id);
    if there.is_some_and(|row| row.tag == held.tag) {
        return Ok(Fate::There);
    }
    let newer = there.is_some_and(|row| row.updated > held.updated);
    let others = rows.iter().filter(|row| row.id != held.id && row.expires_at > now).count();
    if held.expires_at <= now || newer || others >= PUBLICATIONS {
        return Ok(Fate::Lost);
    }
    tables.put_publication(&held)?;
    rows.retain(|row| row.id != held.id);
    rows.push(held);
    rows.sort_unstable_by_key(|row| row.id);
    Ok(Fate::Written)
}

fn dialog<T: Tables>(
    tables: &mut T,
    now: Micros,
    fe: Incarnation,
    held: &HeldSubscription,
    kept: &mut Kept,
) -> Result<(), T::Error> {
    let watcher = held.watcher.id;
    let there = tables.subscription(watcher, held.sub_id)?;
    let order = |row: &SubscriptionRow| (row.dialog.remote_cseq, row.cseq);
    let newer = there.as_ref().is_some_and(|row| row.fe != fe && order(row) > (held.dialog.remote_cseq, held.cseq));
    let room = there.is_some() || tables.subscriptions_of(watcher, now, DIALOGS)? < DIALOGS;
    if held.expires == 0 || newer || !room {
        kept.lost_subscriptions.push((held.watcher, held.sub_id));
        return Ok(());
    }
    kept.subscriptions += 1;
    let known = |row: &SubscriptionRow| row.fe == fe && order(row) >= (held.dialog.remote_cseq, held.cseq);
    if there.as_ref().is_some_and(known) { Ok(()) } else { tables.put_subscription(&held.row(fe, now)) }
}

/// The moment so many milliseconds ago.
const fn ago(now: Micros, ms: u64) -> Micros {
    Micros(now.0.saturating_sub(ms.saturating_mul(1000)))
}

/// The moment in so many milliseconds.
const fn ahead(now: Micros, ms: u64) -> Micros {
    Micros(now.0.saturating_add(ms.saturating_mul(1000)))
}

impl HeldEndpoint {
    fn row(&self, now: Micros) -> EndpointRow {
        let Self { key, origin, cseq, refreshed_ms, endpoint } = self.clone();
        EndpointRow {
            id: endpoint.id,
            key,
            flow: endpoint.flow,
            lost_at: endpoint.lost_ms.map(|ms| ago(now, ms)),
            expires_at: ahead(now, endpoint.expires_ms),
            registered_at: ago(now, endpoint.age_ms),
            refreshed_at: ago(now, refreshed_ms),
            origin,
            call_id: endpoint.call_id,
            cseq,
            q: endpoint.q,
            contact: endpoint.contact,
            contact_value: endpoint.contact_value,
            path: endpoint.path,
            instance: endpoint.instance,
            reg_id: endpoint.reg_id,
            agent: endpoint.agent,
        }
    }
}

impl EndpointRow {
    fn says_the_same(&self, held: &Self) -> bool {
        let lost = self.lost_at.is_some() == held.lost_at.is_some();
        lost && self.key == held.key && self.origin == held.origin && self.same_flow(&held.flow)
    }

    /// By CSeq inside one Call-ID, else by time.
    fn newer_than(&self, held: &Self) -> bool {
        if self.call_id == held.call_id && self.cseq != held.cseq {
            return self.cseq > held.cseq;
        }
        self.refreshed_at > held.refreshed_at
    }
}

impl HeldPublication {
    fn row(&self, fe: Incarnation, now: Micros) -> PublicationRow {
        let Self { user: UserRef { id: user, .. }, id, tag, serial, endpoint, state, document, .. } = self.clone();
        PublicationRow {
            user,
            id,
            tag,
            fe,
            serial,
            endpoint,
            state,
            document,
            since: ago(now, self.since_ms),
            updated: ago(now, self.updated_ms),
            expires_at: ahead(now, self.expires_ms),
        }
    }
}

impl HeldSubscription {
    fn row(&self, fe: Incarnation, now: Micros) -> SubscriptionRow {
        let Self { watcher, sub_id, origin, endpoint, kind, presentities, cseq, dialog, .. } = self.clone();
        let expires_at = now.plus_seconds(u64::from(self.expires) * u64::from(OUTLIVES));
        SubscriptionRow {
            watcher: watcher.id,
            sub_id,
            fe,
            origin,
            endpoint,
            kind,
            presentities,
            expires_at,
            cseq,
            dialog,
        }
    }
}
