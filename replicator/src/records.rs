//! The store as a run sees it: the lease, the users it knows, the rows it is given. Passing trouble is waited out.

use std::time::Duration;

use commpool_store::ops::Ask;
use commpool_store::ops::directory::{
    Applied, Apply, Change, Holder, Holders, LeaseKeep, LeaseKept, LeaseTake, LeaseTaken, Source, SourceGet,
    SourceUsers, Stage, Staged,
};
use commpool_store::{Store, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::catalogue::Shared;
use crate::fault::{Fault, Kind};

/// Name of the source in the store, and of its lease.
pub const SOURCE: &str = "directory";
/// Rows in one call.
pub const ROWS: u32 = 1000;
/// How long a lease lasts unless it is kept, milliseconds.
const LEASE_MS: u32 = 60_000;
/// How often it is kept.
const KEEP: Duration = Duration::from_secs(15);
/// How long a lease of somebody else is waited for at most: longer than one lasts that is not kept.
const WAIT: Duration = Duration::from_secs(75);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(500);
/// A lease that ends so much later than it did has been kept: clocks do not run so unevenly.
const SLACK: Duration = Duration::from_secs(1);
/// How long a store that is away is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(250);

/// The store and our place in it.
#[derive(Clone)]
pub struct Records {
    store: Store,
}

/// The lease, ours until it is given back.
pub struct Lease {
    /// Fences what is written.
    pub token: u64,
    /// Cancelled when somebody else has it.
    pub lost: CancellationToken,
    kept: tokio_util::task::AbortOnDropHandle<()>,
}

/// What became of rows.
#[derive(Debug)]
pub enum Written {
    /// They are in the store, but for so many whose address was taken meanwhile.
    Done(usize),
    /// They are in the store; how many of their addresses were taken meanwhile is not known.
    Surely,
}

impl Records {
    /// Around a store.
    pub const fn new(store: Store) -> Self {
        Self { store }
    }

    /// Asks until there is an answer, or patience ends. Only for what does no harm when it is asked twice.
    async fn ask<R: Ask + Clone>(&self, request: R) -> Result<R::Reply, Fault> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.store.ask(request.clone()).await {
                Err(StoreError::Unavailable(_) | StoreError::Busy) if Instant::now() < until => {
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(reply) => return Ok(reply),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes the lease and keeps it. One that nobody keeps is waited for: its holder was killed, or was this very run,
    /// whose answer got lost; or he gives it back before long.
    ///
    /// # Errors
    /// Somebody else has it and is seen to keep it, or the store is away.
    pub async fn lease(&self, holder: &str) -> Result<Lease, Fault> {
        let take = LeaseTake { name: SOURCE.to_owned(), holder: holder.to_owned(), ttl_ms: LEASE_MS };
        let patience = Instant::now() + WAIT;
        let mut latest_end = None;
        loop {
            let asked = Instant::now();
            let (by, left) = match self.ask(take.clone()).await? {
                LeaseTaken::Taken(token) => {
                    let lost = CancellationToken::new();
                    let kept = tokio::spawn(keep(self.clone(), token, lost.clone()));
                    return Ok(Lease { token, lost, kept: tokio_util::task::AbortOnDropHandle::new(kept) });
                }
                LeaseTaken::Held { by, ms_left } => (by, Duration::from_millis(ms_left)),
            };
            // It was told between asking and now, so that it ends between these two.
            let earliest_end = asked + left;
            let latest_end = *latest_end.get_or_insert_with(|| {
                tracing::info!(by, ?left, "another run has the lease: waiting for its end");
                Instant::now() + left
            });
            if earliest_end > latest_end + SLACK || earliest_end > patience {
                let by = crate::text::shown(&by, 200);
                let text =
                    format!("another run is active: {by}, its lease has {} s left", left.as_millis().div_ceil(1000));
                return Err(Fault::new(Kind::Busy, text));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Gives the lease back; if that fails it runs out.
    pub async fn give_back(&self, lease: Lease) {
        lease.kept.abort();
        let back = LeaseKeep { name: SOURCE.to_owned(), token: lease.token, ttl_ms: 0 };
        if let Err(fault) = self.ask(back).await {
            tracing::warn!(reason = fault.text, "the lease is not given back: it will run out");
        }
    }

    /// The source as the store has it, and its users into the catalogue.
    ///
    /// # Errors
    /// Store or catalogue fail.
    pub async fn known(&self, catalogue: &Shared) -> Result<Source, Fault> {
        let source = self.ask(SourceGet { source: SOURCE.to_owned() }).await?;
        let mut after = None;
        loop {
            let page = self.ask(SourceUsers { source: SOURCE.to_owned(), after, limit: ROWS }).await?;
            let last = page.users.last().map(|user| user.key);
            catalogue.with(move |catalogue| catalogue.add_known(&page.users)).await?;
            match last {
                Some(_) if page.more => after = last,
                _ => return Ok(source),
            }
        }
    }

    /// Notes who from elsewhere has addresses that are asked for.
    ///
    /// # Errors
    /// Store or catalogue fail.
    pub async fn strangers(&self, catalogue: &Shared) -> Result<(), Fault> {
        let mut after = String::new();
        loop {
            let from = after.clone();
            let addresses = catalogue.with(move |catalogue| catalogue.unknown_claims(&from, ROWS)).await?;
            let Some(last) = addresses.last() else { return Ok(()) };
            after = last.clone();
            let found = self.ask(Holders { addresses: addresses.clone() }).await?;
            let strangers: Vec<(String, String)> = addresses
                .into_iter()
                .zip(found.holders)
                .filter_map(|(address, holder): (String, Option<Holder>)| {
                    let who = match holder?.origin {
                        None => "added by hand".to_owned(),
                        Some((source, _)) => format!("that comes from `{}`", crate::text::shown(&source, 64)),
                    };
                    Some((address, who))
                })
                .collect();
            catalogue.with(move |catalogue| catalogue.add_strangers(&strangers)).await?;
        }
    }

    /// Puts rows aside, `first` being the number of the first.
    ///
    /// # Errors
    /// The lease is lost, or the store is away.
    pub async fn stage(&self, token: u64, first: u32, rows: Vec<Change>) -> Result<(), Fault> {
        match self.ask(Stage { source: SOURCE.to_owned(), token, first, rows }).await? {
            Staged::Done => Ok(()),
            Staged::Fenced => Err(fenced()),
        }
    }

    /// Applies the rows put aside.
    ///
    /// # Errors
    /// They were not applied, or nobody knows.
    pub async fn apply(&self, token: u64, version: u64, rows: u32) -> Result<Written, Fault> {
        let apply = Apply { source: SOURCE.to_owned(), token, version, rows, state: Vec::new() };
        match self.ask(apply).await {
            Ok(Applied::Done { refused, .. }) => Ok(Written::Done(refused.len())),
            Ok(Applied::Moved | Applied::Fenced) => Err(fenced()),
            Ok(Applied::Incomplete) => Err(Fault::new(
                Kind::Store,
                "the store lost what was put aside: nothing was changed, the next run tries again",
            )),
            // The answer was lost. Only we may raise the version while the lease is ours.
            Err(fault) => match self.ask(SourceGet { source: SOURCE.to_owned() }).await {
                Ok(source) if source.version > version => Ok(Written::Surely),
                _ => Err(fault),
            },
        }
    }
}

fn fenced() -> Fault {
    Fault::new(Kind::Busy, "another run took over: nothing was changed")
}

async fn keep(records: Records, token: u64, lost: CancellationToken) {
    loop {
        tokio::time::sleep(KEEP).await;
        let kept = records.ask(LeaseKeep { name: SOURCE.to_owned(), token, ttl_ms: LEASE_MS }).await;
        match kept {
            Ok(LeaseKept::Kept) => {}
            Ok(LeaseKept::Lost) => return lost.cancel(),
            Err(fault) => tracing::warn!(reason = fault.text, "the lease could not be kept"),
        }
    }
}
