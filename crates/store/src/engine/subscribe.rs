//! Subscription dialogs and who watches whom.

use commpool_model::ids::{EndpointId, Incarnation, Key128, Micros, UserId, UserRef, Version};

use super::endpoints::Slice;
use super::presence::read;
use super::{Backend, Tables};
use crate::ops::subscribe::{CSEQ_STEP, End, Ended, Kind, OUTLIVES, Presentity, Reply, Request, Unwatch};
use crate::rows::{AccountRow, SubscriptionRow};

/// Most dialogs of one watcher.
pub(crate) const DIALOGS: usize = 5000;

/// Dialogs by watcher, interest by presentity.
pub(crate) trait Subscriptions: Backend {
    /// One dialog.
    fn subscription(&mut self, watcher: UserId, id: Key128) -> Result<Option<SubscriptionRow>, Self::Error>;
    /// How many live dialogs a watcher has, counted up to a limit.
    fn subscriptions_of(&mut self, watcher: UserId, now: Micros, limit: usize) -> Result<usize, Self::Error>;
    /// Live dialogs of an endpoint by key.
    fn subscriptions_at(
        &mut self,
        endpoint: EndpointId,
        now: Micros,
        after: Option<Key128>,
        limit: usize,
    ) -> Result<Vec<SubscriptionRow>, Self::Error>;
    /// How many live dialogs of an endpoint there are, those of one owner left out.
    fn dialogs_at(&mut self, endpoint: EndpointId, but: Option<Incarnation>, now: Micros) -> Result<u32, Self::Error>;
    /// Inserts or replaces one.
    fn put_subscription(&mut self, row: &SubscriptionRow) -> Result<(), Self::Error>;
    /// Removes one.
    fn remove_subscription(&mut self, watcher: UserId, id: Key128) -> Result<(), Self::Error>;
    /// Removes the dialogs of an endpoint, those of one owner left out.
    fn forget_dialogs_at(&mut self, endpoint: EndpointId, but: Incarnation) -> Result<(), Self::Error>;
    /// Notes that a front end has a watcher of a user.
    fn add_interest(&mut self, user: UserId, fe: Incarnation, kind: Kind) -> Result<(), Self::Error>;
    /// Forgets it.
    fn remove_interest(&mut self, user: UserId, fe: Incarnation) -> Result<(), Self::Error>;
    /// Forgets up to `limit` interests of a front end, in ascending order; how many they were.
    fn forget_interest(&mut self, fe: Incarnation, limit: usize) -> Result<usize, Self::Error>;
    /// Removes up to `limit` dialogs of a front end past their time, in ascending order; how many they were.
    fn forget_subscriptions(&mut self, fe: Incarnation, now: Micros, limit: usize) -> Result<usize, Self::Error>;
    /// Removes up to `limit` dialogs of these watchers past their time, in ascending order; how many they were.
    fn forget_overdue(&mut self, watchers: Slice, now: Micros, limit: usize) -> Result<usize, Self::Error>;
}

pub(crate) fn subscribe<T: Tables>(tables: &mut T, now: Micros, request: &Request) -> Result<Reply, T::Error> {
    if !tables.lives()?.alive(request.fe) {
        return Ok(Reply::Gone);
    }
    let watcher = request.watcher.id;
    let old = tables.subscription(watcher, request.sub_id)?;
    let copy = old.as_ref().is_some_and(|old| old.origin == request.origin);
    // A copy that came in elsewhere came the way that answers take now: the dialog goes on there.
    let replay = copy && old.as_ref().is_some_and(|old| old.fe == request.fe);
    let same_cseq = old.as_ref().is_some_and(|old| old.dialog.remote_cseq == request.dialog.remote_cseq);
    if request.initial && same_cseq && !copy {
        return Ok(Reply::Merged);
    }
    if old.is_none() && request.expires > 0 && tables.subscriptions_of(watcher, now, DIALOGS)? >= DIALOGS {
        return Ok(Reply::TooMany);
    }
    let mut accounts = Vec::with_capacity(request.presentities.len());
    for address in &request.presentities {
        accounts.push(tables.account_by_address(address)?);
    }
    let cseq = old.as_ref().map_or(0, |old| old.cseq);
    if !replay {
        write(tables, now, request, old.as_ref(), &accounts)?;
    }
    let mut presentities = Vec::with_capacity(accounts.len());
    for account in accounts {
        presentities.push(match account {
            Some(account) => Some(presentity(tables, now, &request.held, &account)?),
            None => None,
        });
    }
    let owner_before = old.map(|old| old.fe).filter(|fe| *fe != request.fe);
    Ok(Reply::Done { replay, owner_before, cseq, presentities })
}

/// Interest first, the dialog last: what breaks off in between leaves nothing that a publish would miss.
fn write<T: Tables>(
    tables: &mut T,
    now: Micros,
    request: &Request,
    old: Option<&SubscriptionRow>,
    accounts: &[Option<AccountRow>],
) -> Result<(), T::Error> {
    let watcher = request.watcher.id;
    let nobody = accounts.iter().all(Option::is_none);
    if request.expires == 0 || nobody {
        return if old.is_some() { tables.remove_subscription(watcher, request.sub_id) } else { Ok(()) };
    }
    for account in accounts.iter().flatten() {
        tables.add_interest(account.user, request.fe, request.kind)?;
    }
    tables.put_subscription(&SubscriptionRow {
        watcher,
        sub_id: request.sub_id,
        fe: request.fe,
        origin: request.origin,
        // Over UDP a client's refresh may come in where nobody knows its endpoint.
        endpoint: request.endpoint.or_else(|| old?.endpoint),
        kind: request.kind,
        presentities: request.presentities.clone(),
        expires_at: now.plus_seconds(u64::from(request.expires) * u64::from(OUTLIVES)),
        cseq: old.map_or(0, |old| old.cseq).saturating_add(CSEQ_STEP).max(request.first_cseq),
        dialog: request.dialog.clone(),
    })
}

pub(crate) fn presentity<T: Tables>(
    tables: &mut T,
    now: Micros,
    held: &[(UserRef, Version)],
    account: &AccountRow,
) -> Result<Presentity, T::Error> {
    let user = account.user_ref();
    let version = tables.head(account.user)?.version;
    let facts = if held.contains(&(user, version)) { None } else { Some(read(tables, now, account.user)?) };
    Ok(Presentity { user, state: account.state, aces: tables.aces_of(account.user)?, version, facts })
}

pub(crate) fn unsubscribe<T: Tables>(tables: &mut T, request: &End) -> Result<Ended, T::Error> {
    if !tables.lives()?.alive(request.fe) {
        return Ok(Ended::Gone);
    }
    for (watcher, id) in &request.dialogs {
        // Another front end may have taken the dialog over: then it is no longer ours to end.
        if tables.subscription(watcher.id, *id)?.is_some_and(|row| row.fe == request.fe) {
            tables.remove_subscription(watcher.id, *id)?;
        }
    }
    Ok(Ended::Done)
}

pub(crate) fn unwatch<T: Tables>(tables: &mut T, request: &Unwatch) -> Result<Ended, T::Error> {
    if !tables.lives()?.alive(request.fe) {
        return Ok(Ended::Gone);
    }
    for user in &request.users {
        tables.remove_interest(user.id, request.fe)?;
    }
    Ok(Ended::Done)
}
