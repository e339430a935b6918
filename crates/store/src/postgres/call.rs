//! Which operations go into one call, and the call itself.

use std::collections::BTreeSet;

use commpool_model::ids::{Key128, UserId};
use sqlx::PgConnection;

use super::options::Caller;
use super::{
    accounts, adopt, assert, credentials, directory, endpoints, front_ends, presence, pull, register, route, subscribe,
};
use crate::job::BATCH;
use crate::ops::{Class, Operation, Outcome};

/// The lane of an operation: one connection, or two for reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Line {
    Soft,
    Durable,
    Read,
    /// Leases, and what must not wait for the load.
    Lease,
}

impl Line {
    pub(super) const ALL: [Self; 4] = [Self::Soft, Self::Durable, Self::Read, Self::Lease];

    pub(super) const fn of(operation: &Operation) -> Self {
        match operation {
            Operation::FrontEndStart(_)
            | Operation::Renew(_)
            | Operation::FrontEndStop(_)
            | Operation::Reap(_)
            | Operation::FrontEnds(_)
            | Operation::Pull(_)
            | Operation::LeaseTake(_)
            | Operation::LeaseKeep(_)
            | Operation::Health(_) => Self::Lease,
            _ => match operation.class() {
                Class::Read => Self::Read,
                Class::Soft => Self::Soft,
                Class::Durable => Self::Durable,
            },
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Soft => "soft writes",
            Self::Durable => "durable writes",
            Self::Read => "reads",
            Self::Lease => "lease",
        }
    }

    /// Connections that work on it.
    pub(super) const fn connections(self, caller: Caller) -> usize {
        match (self, caller) {
            (Self::Read, Caller::FrontEnd) => 2,
            _ => 1,
        }
    }
}

/// Whose rows a request is about, as far as its place among others counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    User(UserId),
    Dialog(UserId, Key128),
    Address(String),
}

/// How a request may be put together with others.
pub(super) enum Company {
    /// With any of its kind.
    Any,
    /// With others of its kind that have another key.
    Keyed(Key),
    /// With none; and none may change places with it.
    Alone,
}

pub(super) fn company(operation: &Operation) -> Company {
    match operation {
        Operation::Route(_) | Operation::Credentials(_) | Operation::PresenceOf(_) => Company::Any,
        Operation::Register(r) => Company::Keyed(Key::User(r.user.id)),
        Operation::Publish(r) => Company::Keyed(Key::User(r.user.id)),
        Operation::Subscribe(r) => Company::Keyed(Key::Dialog(r.watcher.id, r.sub_id)),
        Operation::AccountPut(r) => Company::Keyed(Key::Address(r.address().to_owned())),
        _ => Company::Alone,
    }
}

/// Most users watched in one call: each may take a lock, and the database has room for some thousands.
const WATCHED: usize = 256;

/// How much of a call's room a request takes, of [`ROOM`].
pub(super) fn weight(operation: &Operation) -> usize {
    let least = ROOM / BATCH;
    match operation {
        Operation::Subscribe(request) => (request.presentities.len() * ROOM / WATCHED).max(least),
        _ => least,
    }
}

/// The room of a call.
pub(super) const ROOM: usize = BATCH * 64;

/// The first operations of one kind.
fn requests<'a, R>(operations: &[&'a Operation], pick: impl Fn(&'a Operation) -> Option<&'a R>) -> Vec<&'a R> {
    operations.iter().filter_map(|operation| pick(operation)).collect()
}

/// Carries out operations of one kind, in one call.
pub(super) async fn carry_out(to: &mut PgConnection, operations: &[&Operation]) -> sqlx::Result<Vec<Outcome>> {
    macro_rules! batch {
        ($variant:ident, $call:path) => {{
            let all = requests(operations, |operation| match operation {
                Operation::$variant(request) => Some(request),
                _ => None,
            });
            $call(to, &all).await?.into_iter().map(Outcome::$variant).collect()
        }};
    }
    macro_rules! single {
        ($variant:ident, $call:path, $request:expr) => {
            vec![Outcome::$variant($call(to, $request).await?)]
        };
    }
    let Some(first) = operations.first() else { return Ok(Vec::new()) };
    Ok(match first {
        Operation::Register(_) => batch!(Register, register::register),
        Operation::Publish(_) => batch!(Publish, presence::publish),
        Operation::Subscribe(_) => batch!(Subscribe, subscribe::subscribe),
        Operation::Route(_) => batch!(Route, route::route),
        Operation::Credentials(_) => batch!(Credentials, credentials::credentials),
        Operation::PresenceOf(_) => batch!(PresenceOf, presence::presence_of),
        Operation::AccountPut(_) => batch!(AccountPut, accounts::put),
        Operation::FrontEndStart(r) => single!(FrontEndStart, front_ends::start, r),
        Operation::Renew(r) => single!(Renew, front_ends::renew, *r),
        Operation::FrontEndStop(r) => single!(FrontEndStop, front_ends::stop, *r),
        Operation::Reap(r) => single!(Reap, front_ends::reap, *r),
        Operation::FrontEnds(_) => vec![Outcome::FrontEnds(front_ends::list(to).await?)],
        Operation::Health(_) => vec![Outcome::Health(front_ends::health(to).await?)],
        Operation::FlowsLost(r) => single!(FlowsLost, endpoints::flows_lost, r),
        Operation::SweepLost(r) => single!(SweepLost, endpoints::sweep_lost, *r),
        Operation::Expire(r) => single!(Expire, endpoints::expire, r),
        Operation::EndpointsFind(r) => single!(EndpointsFind, endpoints::find, r),
        Operation::Timers(r) => single!(Timers, endpoints::timers, *r),
        Operation::CredentialPut(r) => single!(CredentialPut, credentials::put, r),
        Operation::CredentialRevoke(r) => single!(CredentialRevoke, credentials::revoke, r),
        Operation::Unregister(r) => single!(Unregister, register::unregister, r),
        Operation::Unsubscribe(r) => single!(Unsubscribe, subscribe::unsubscribe, r),
        Operation::Unwatch(r) => single!(Unwatch, subscribe::unwatch, r),
        Operation::AccountsFind(r) => single!(AccountsFind, accounts::find, r),
        Operation::AccountsChanged(r) => single!(AccountsChanged, accounts::changed, *r),
        Operation::Pull(r) => single!(Pull, pull::pull, *r),
        Operation::Assert(r) => single!(Assert, assert::assert, r),
        Operation::Adopt(r) => single!(Adopt, adopt::adopt, r),
        Operation::Flush(r) => single!(Flush, adopt::flush, r),
        Operation::LeaseTake(r) => single!(LeaseTake, directory::take, r),
        Operation::LeaseKeep(r) => single!(LeaseKeep, directory::keep, r),
        Operation::SourceGet(r) => single!(SourceGet, directory::get, r),
        Operation::SourceUsers(r) => single!(SourceUsers, directory::users, r),
        Operation::AddressHolders(r) => single!(AddressHolders, directory::holders, r),
        Operation::Stage(r) => single!(Stage, directory::stage, r),
        Operation::Apply(r) => single!(Apply, directory::apply, r),
    })
}

/// Different keys seen so far.
pub(super) type Keys = BTreeSet<Key>;
