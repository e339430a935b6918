//! What each operation does, once for all backends, over the tables that a backend offers.
//!
//! An operation reads rows, decides in pure Rust and writes rows; the backend makes that atomic.

pub(crate) mod accounts;
pub(crate) mod adopt;
pub(crate) mod assert;
pub(crate) mod credentials;
pub(crate) mod directory;
pub(crate) mod endpoints;
pub(crate) mod front_ends;
pub(crate) mod presence;
pub(crate) mod pull;
pub(crate) mod register;
pub(crate) mod route;
pub(crate) mod subscribe;

use commpool_model::ids::Micros;

use crate::SCHEMA;
use crate::ops::{Health, Operation, Outcome};

/// A place that holds rows.
pub(crate) trait Backend {
    /// What can keep it from reading or writing them.
    type Error;

    /// Proves that a write is taken, where that is in doubt.
    fn probe(&mut self) -> Result<(), Self::Error>;
}

/// All tables.
pub(crate) trait Tables:
    accounts::Accounts
    + credentials::Credentials
    + directory::Directory
    + endpoints::Endpoints
    + front_ends::FrontEnds
    + presence::Presence
    + register::Bindings
    + route::Aces
    + subscribe::Subscriptions
{
}

impl<T> Tables for T where
    T: accounts::Accounts
        + credentials::Credentials
        + directory::Directory
        + endpoints::Endpoints
        + front_ends::FrontEnds
        + presence::Presence
        + register::Bindings
        + route::Aces
        + subscribe::Subscriptions
{
}

/// Carries out one operation.
pub(crate) fn execute<T: Tables>(tables: &mut T, now: Micros, operation: &Operation) -> Result<Outcome, T::Error> {
    Ok(match operation {
        Operation::FrontEndStart(r) => Outcome::FrontEndStart(front_ends::start(tables, now, r)?),
        Operation::Renew(r) => Outcome::Renew(front_ends::renew(tables, now, *r)?),
        Operation::FrontEndStop(r) => Outcome::FrontEndStop(front_ends::stop(tables, now, *r)?),
        Operation::FlowsLost(r) => Outcome::FlowsLost(endpoints::flows_lost(tables, now, r)?),
        Operation::SweepLost(r) => Outcome::SweepLost(endpoints::sweep_lost(tables, now, *r)?),
        Operation::Expire(r) => Outcome::Expire(endpoints::expire(tables, now, r)?),
        Operation::EndpointsFind(r) => Outcome::EndpointsFind(endpoints::find(tables, now, r)?),
        Operation::Timers(r) => Outcome::Timers(endpoints::timers(tables, now, r)?),
        Operation::Credentials(r) => Outcome::Credentials(credentials::credentials(tables, r)?),
        Operation::CredentialPut(r) => Outcome::CredentialPut(credentials::put(tables, now, r)?),
        Operation::CredentialRevoke(r) => Outcome::CredentialRevoke(credentials::revoke(tables, now, r)?),
        Operation::Register(r) => Outcome::Register(register::register(tables, now, r)?),
        Operation::Unregister(r) => Outcome::Unregister(register::unregister(tables, now, r)?),
        Operation::Route(r) => Outcome::Route(route::route(tables, now, r)?),
        Operation::Publish(r) => Outcome::Publish(presence::publish(tables, now, r)?),
        Operation::PresenceOf(r) => Outcome::PresenceOf(presence::presence_of(tables, now, r)?),
        Operation::Subscribe(r) => Outcome::Subscribe(subscribe::subscribe(tables, now, r)?),
        Operation::Unsubscribe(r) => Outcome::Unsubscribe(subscribe::unsubscribe(tables, r)?),
        Operation::Unwatch(r) => Outcome::Unwatch(subscribe::unwatch(tables, r)?),
        Operation::AccountPut(r) => Outcome::AccountPut(accounts::put(tables, now, r)?),
        Operation::AccountsFind(r) => Outcome::AccountsFind(accounts::find(tables, r)?),
        Operation::AccountsChanged(r) => Outcome::AccountsChanged(accounts::changed(tables, *r)?),
        Operation::Reap(r) => Outcome::Reap(front_ends::reap(tables, now, *r)?),
        Operation::FrontEnds(_) => Outcome::FrontEnds(front_ends::list(tables, now)?),
        Operation::Pull(r) => Outcome::Pull(pull::pull(tables, now, *r)?),
        Operation::Assert(r) => Outcome::Assert(assert::assert(tables, now, r)?),
        Operation::Adopt(r) => Outcome::Adopt(adopt::adopt(tables, now, r)?),
        Operation::Flush(r) => Outcome::Flush(adopt::flush(tables, now, r)?),
        Operation::LeaseTake(r) => Outcome::LeaseTake(directory::take(tables, now, r)?),
        Operation::LeaseKeep(r) => Outcome::LeaseKeep(directory::keep(tables, now, r)?),
        Operation::SourceGet(r) => Outcome::SourceGet(directory::get(tables, now, r)?),
        Operation::SourceUsers(r) => Outcome::SourceUsers(directory::users(tables, r)?),
        Operation::AddressHolders(r) => Outcome::AddressHolders(directory::holders(tables, r)?),
        Operation::Stage(r) => Outcome::Stage(directory::stage(tables, r)?),
        Operation::Apply(r) => Outcome::Apply(directory::apply(tables, now, r)?),
        Operation::Health(_) => {
            tables.probe()?;
            Outcome::Health(Health { writable: true, schema: SCHEMA })
        }
    })
}
