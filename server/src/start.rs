//! Starting an incarnation: a number from the store, an engine, links; again and again where the store is away.

use std::sync::Arc;
use std::time::Duration;

use commpool_model::config::{Edition, PoolConfig};
use commpool_sip::otid::PoolKey;
use commpool_store::ops::accounts::ChangedSince;
use commpool_store::ops::endpoints::Timers;
use commpool_store::ops::front_ends;
use commpool_store::{Store, StoreError, system_clock};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::boot::BootError;
use crate::clock;
use crate::engine::{Engine, Input, Pace, Start};
use crate::management::Management;
use crate::metrics::Metrics;
use crate::peers::identity::CurrentPeer;
use crate::peers::links::{Incoming, Links, Own};
use crate::settings::Settings;
use crate::version;

/// Rows of timers read at once at start.
const TIMER_ROWS: u32 = 10_000;
/// A store that is away is asked again after this, one of another schema after that.
const AWAY: Duration = Duration::from_secs(2);
const SCHEMA: Duration = Duration::from_secs(10);

/// The side of a front end that other front ends see.
pub struct PeerSide {
    /// Where they connect to.
    pub listener: Arc<TcpListener>,
    /// The address they dial.
    pub address: String,
    /// Certificate, key, authority.
    pub identity: CurrentPeer,
}

/// Starts incarnations.
pub struct Starter {
    /// The store.
    pub store: Store,
    /// The pool's secret.
    pub key: PoolKey,
    /// The configuration.
    pub config: PoolConfig,
    /// Settings as they are.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where the reason stands while it does not start.
    pub management: Arc<Management>,
    /// The side other front ends see; `None`: there are none.
    pub peers: Option<PeerSide>,
    /// Where what they say goes.
    pub peers_in: mpsc::Sender<Input>,
}

/// An incarnation that has started.
pub struct Started {
    /// Its engine.
    pub engine: Engine,
    /// Its links.
    pub links: Option<Links>,
    /// Ends accepting connections of others.
    pub incoming: CancellationToken,
}

impl Starter {
    /// Starts an incarnation. A lone front end fails with the store; one of a pool stays up, not ready, says why, and
    /// tries again. `None`: told to stop meanwhile.
    pub async fn until_started(&self, stop: &CancellationToken) -> Result<Option<Started>, BootError> {
        // One for all attempts: an attempt whose answer was lost has started that incarnation, not one more.
        let mut start_id = [0; 16];
        getrandom::fill(&mut start_id).map_err(std::io::Error::other)?;
        loop {
            let error = match self.start(start_id).await {
                Ok(started) => {
                    self.management.waits_for(None);
                    return Ok(Some(started));
                }
                Err(error) if self.peers.is_none() => return Err(error.into()),
                Err(error) => error,
            };
            tracing::error!(%error, "does not serve yet");
            self.management.waits_for(Some(error.to_string()));
            let wait = if matches!(error, StoreError::Schema { .. }) { SCHEMA } else { AWAY };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => return Ok(None),
            }
        }
    }

    async fn start(&self, start_id: [u8; 16]) -> Result<Started, StoreError> {
        let start = front_ends::Start {
            pod: std::env::var("HOSTNAME").unwrap_or_else(|_| "localhost".to_owned()),
            start_id,
            address: self.peers.as_ref().map(|p| p.address.clone()).unwrap_or_default(),
            build: version::LONG.to_owned(),
            alone: self.peers.is_none(),
        };
        let started = self.store.ask(start).await?;
        let accounts = self.store.ask(ChangedSince { cursor: None }).await?.cursor;
        let settings = Arc::clone(&self.settings.borrow());
        let mut engine = Engine::new(Start {
            fe: started.fe,
            key: self.key.clone(),
            settings,
            pool_seconds: system_clock()().0 / 1_000_000,
            now: clock::now(),
            accounts,
            metrics: Arc::clone(&self.metrics),
            build: version::LONG.to_owned(),
            epoch: self.peers.as_ref().map(|_| started.epoch),
            pace: Pace {
                timeout: Duration::from_secs(self.config.drain.timeout_seconds.into()),
                flows_per_second: self.config.drain.flows_per_second,
            },
        });
        if self.config.edition == Edition::Standard {
            self.preload(&mut engine).await?;
        }
        let incoming = CancellationToken::new();
        let links = self.peers.as_ref().map(|side| self.links(side, started.fe, &incoming));
        Ok(Started { engine, links, incoming })
    }

    fn links(&self, side: &PeerSide, fe: commpool_model::ids::Incarnation, stop: &CancellationToken) -> Links {
        let own = Own {
            pool: self.config.pool.clone(),
            fe,
            build: version::LONG.to_owned(),
            identity: Arc::clone(&side.identity),
            engine: self.peers_in.clone(),
            metrics: Arc::clone(&self.metrics),
        };
        let links = Links::new(own.clone());
        let incoming = Arc::new(Incoming { own, known: links.known(), stop: stop.clone() });
        tokio::spawn(incoming.run(Arc::clone(&side.listener)));
        links
    }

    /// Rows that were live when the last run ended have timers again.
    async fn preload(&self, engine: &mut Engine) -> Result<(), StoreError> {
        let mut page = Timers { limit: TIMER_ROWS, ..Timers::default() };
        loop {
            let rows = self.store.ask(page).await?;
            engine.preload(clock::now(), &rows);
            if !rows.more {
                return Ok(());
            }
            page.after = rows.endpoints.last().map(|(id, _)| *id).or(page.after);
            page.after_publication = rows.publications.last().map(|(u, id, _)| (*u, *id)).or(page.after_publication);
        }
    }
}
