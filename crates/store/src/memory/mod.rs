//! The store in ordered maps: for tests, simulators, and as the plain statement of what every backend does.

mod accounts;
mod credentials;
mod directory;
mod endpoints;
mod front_ends;
mod presence;
mod register;
mod route;
mod store;
mod subscribe;

use std::collections::BTreeMap;
use std::convert::Infallible;

use commpool_model::acl::Ace;
use commpool_model::config::DigestAlgorithm;
use commpool_model::ids::{EndpointId, Incarnation, Key128, Micros, UserId};

pub use self::store::MemoryStore;
use crate::engine::{self, Backend};
use crate::ops::credentials::Verifier;
use crate::ops::directory::Card;
use crate::ops::{Operation, Outcome};
use crate::rows::{
    AccountRow, EndpointRow, FrontEndRow, Head, LeaseRow, Lives, PublicationRow, StagedRow, SubscriptionRow,
};

/// All data of a pool.
#[derive(Debug, Default)]
pub struct Memory {
    front_ends: BTreeMap<Incarnation, FrontEndRow>,
    lives: Lives,
    last_incarnation: u32,
    last_user: u64,
    accounts: BTreeMap<UserId, AccountRow>,
    addresses: BTreeMap<String, UserId>,
    changes: BTreeMap<u64, UserId>,
    last_change: u64,
    cards: BTreeMap<UserId, Card>,
    leases: BTreeMap<String, LeaseRow>,
    /// Version and state of each source.
    sources: BTreeMap<String, (u64, Vec<u8>)>,
    /// User and fingerprint by source and key.
    identities: BTreeMap<(String, Key128), (UserId, Key128)>,
    origins: BTreeMap<UserId, (String, Key128)>,
    staged: BTreeMap<(String, u32), StagedRow>,
    verifiers: BTreeMap<(UserId, String, DigestAlgorithm), Verifier>,
    aces: BTreeMap<(UserId, String), Ace>,
    endpoints: BTreeMap<EndpointId, EndpointRow>,
    publications: BTreeMap<(UserId, Key128), PublicationRow>,
    heads: BTreeMap<UserId, Head>,
    interest: BTreeMap<(UserId, Incarnation), u8>,
    subscriptions: BTreeMap<(UserId, Key128), SubscriptionRow>,
    /// How often soft rows were lost.
    crashes: u64,
}

/// The rows that a database may lose the last changes of.
#[derive(Clone, Debug)]
pub struct SoftRows {
    endpoints: BTreeMap<EndpointId, EndpointRow>,
    publications: BTreeMap<(UserId, Key128), PublicationRow>,
    heads: BTreeMap<UserId, Head>,
    interest: BTreeMap<(UserId, Incarnation), u8>,
    subscriptions: BTreeMap<(UserId, Key128), SubscriptionRow>,
}

impl Memory {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    /// Carries out a batch at one moment; one outcome per operation, in order.
    pub fn execute(&mut self, now: Micros, batch: &[Operation]) -> Vec<Outcome> {
        batch
            .iter()
            .map(|operation| match engine::execute(self, now, operation) {
                Ok(outcome) => outcome,
                Err(never) => match never {},
            })
            .collect()
    }

    /// The soft rows as they are now.
    pub fn soft(&self) -> SoftRows {
        SoftRows {
            endpoints: self.endpoints.clone(),
            publications: self.publications.clone(),
            heads: self.heads.clone(),
            interest: self.interest.clone(),
            subscriptions: self.subscriptions.clone(),
        }
    }

    /// A crash of the database that loses what has become of these since: the epoch rises.
    pub fn crash(&mut self, kept: SoftRows) {
        let SoftRows { endpoints, publications, heads, interest, subscriptions } = kept;
        (self.endpoints, self.publications, self.heads) = (endpoints, publications, heads);
        (self.interest, self.subscriptions) = (interest, subscriptions);
        self.crashes += 1;
    }

    /// How many rows there are of what ends by itself, by table.
    pub fn soft_rows(&self) -> [(&'static str, usize); 4] {
        [
            ("endpoint", self.endpoints.len()),
            ("publication", self.publications.len()),
            ("interest", self.interest.len()),
            ("subscription", self.subscriptions.len()),
        ]
    }

    /// Replaces the access control entries of a user; until contact lists write them, only tests do.
    pub fn set_aces(&mut self, user: UserId, aces: Vec<Ace>) {
        self.aces.retain(|(owner, _), _| *owner != user);
        self.aces.extend(aces.into_iter().map(|ace| ((user, ace.mask.clone()), ace)));
    }
}

impl Backend for Memory {
    type Error = Infallible;

    fn probe(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Every key that begins with this user.
fn of_user(user: UserId) -> std::ops::RangeInclusive<(UserId, Key128)> {
    (user, Key128([0; 16]))..=(user, Key128([u8::MAX; 16]))
}
