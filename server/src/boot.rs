//! From a configuration to a serving front end, and back down.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use commpool_model::config::{PoolConfig, TlsFiles};
use commpool_sip::limits::Limits;
use commpool_sip::otid::PoolKey;
use commpool_store::ops::accounts::ChangedSince;
use commpool_store::ops::endpoints::Timers;
use commpool_store::ops::front_ends;
use commpool_store::{FolderLock, LockError, SqliteOptions, lock_folder};
use commpool_store::{Store, StoreError, system_clock};
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::engine::{Engine, Start};
use crate::front_end::{FrontEnd, Parts};
use crate::management::{self, Management};
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::transport::listen::{Acceptor, BindError, Bound};
use crate::transport::tls::{Current, Identity, TlsError};
use crate::transport::udp::UdpSockets;
use crate::version;

/// Events of connections that wait for the engine.
const EVENTS: usize = 8192;
/// How often configuration and certificate files are looked at.
const RELOAD: Duration = Duration::from_secs(5);
/// Rows of timers read at once at start.
const TIMER_ROWS: u32 = 10_000;
/// Everything is closed within this after the engine has ended.
const CLOSE: Duration = Duration::from_millis(1500);

/// Why a front end does not start.
#[derive(Debug, Error)]
pub enum BootError {
    /// An address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The management address cannot be bound.
    #[error("management {0}: {1}")]
    Management(std::net::SocketAddr, std::io::Error),
    /// The data folder is in use, or cannot be used.
    #[error(transparent)]
    Folder(#[from] LockError),
    /// The store does not open.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// The certificate cannot be used.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    /// The pool's key cannot be read.
    #[error("keyFile {0}: {1}")]
    Key(PathBuf, String),
    /// A setting that validation should have refused.
    #[error("{0}")]
    Config(&'static str),
    /// The operating system refuses.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// A front end that is bound and ready to serve.
pub struct Booted {
    /// Addresses bound, in the order of the configuration.
    pub bound: Bound,
    management: Option<std::net::TcpListener>,
    store: Store,
    _lock: FolderLock,
    key: PoolKey,
    identity: Option<Identity>,
    config: PoolConfig,
}

/// Binds addresses, locks the folder, opens and migrates the store, reads key and certificate: everything that can
/// fail with a reason an administrator can mend.
pub fn boot(config: PoolConfig) -> Result<Booted, BootError> {
    let sqlite = config.store.sqlite.as_ref().ok_or(BootError::Config("store.sqlite is missing"))?;
    let lock = lock_folder(&sqlite.folder)?;
    let bound = Bound::bind(&config.listeners)?;
    let management = match config.management {
        Some(address) => Some(management::bind(address).map_err(|e| BootError::Management(address, e))?),
        None => None,
    };
    let key = pool_key(&config.key_file)?;
    let identity = config.tls.as_ref().map(Identity::load).transpose()?;
    let store = Store::open_sqlite(&sqlite.folder, &SqliteOptions::default(), system_clock())?;
    Ok(Booted { bound, management, store, _lock: lock, key, identity, config })
}

fn pool_key(path: &Path) -> Result<PoolKey, BootError> {
    let fail = |why: String| BootError::Key(path.to_owned(), why);
    let octets = std::fs::read(path).map_err(|e| fail(format!("{e}; give a file with at least 32 random octets")))?;
    PoolKey::from_octets(&octets).map_err(|e| fail(format!("{e}; give at least 32 random octets")))
}

impl Booted {
    /// The store, for what must be in it before anybody is served.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Serves until `stop` is cancelled. `config_file`: watched for a changed `outward`. `serving` is called once
    /// clients are welcome.
    pub async fn serve(
        self,
        config_file: Option<PathBuf>,
        stop: CancellationToken,
        serving: impl FnOnce(),
    ) -> Result<(), BootError> {
        raise_file_limit();
        let metrics = Arc::new(Metrics::default());
        let heartbeat = Arc::new(AtomicU64::new(clock::now().as_micros()));
        let management = self.management_state(&metrics, &heartbeat);
        let limits = Limits::default();
        let mut settings = Settings::new(&self.config, &self.bound.addresses());
        settings.certificate_names = self.identity.as_ref().map(|i| i.names.clone()).unwrap_or_default();
        let settings = Arc::new(settings);
        let (settings_in, settings_out) = watch::channel(Arc::clone(&settings));

        let (mut engine, fe) = self.engine(&settings, &metrics).await?;
        self.preload(&mut engine).await?;
        let (events_in, events) = mpsc::channel(EVENTS);
        let udp = UdpSockets::new(self.bound.udp, limits)?;
        let parts = Parts {
            engine,
            udp,
            store: self.store.clone(),
            events,
            settings: settings_out,
            heartbeat,
            metrics: Arc::clone(&metrics),
        };
        let engine_stop = CancellationToken::new();
        let engine_task = tokio::spawn(FrontEnd::new(parts).run(engine_stop.clone()));

        let accept_stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let acceptor = Acceptor {
            engine: events_in,
            serials: Arc::new(AtomicU32::new(1)),
            room: Acceptor::room(),
            tasks: tasks.clone(),
            stop: accept_stop.clone(),
            limits,
        };
        for listener in self.bound.tcp {
            tokio::spawn(acceptor.clone().run(listener, None));
        }
        let current: Option<Current> = self.identity.map(|i| Arc::new(ArcSwap::from_pointee(i)));
        if let Some(current) = &current {
            metrics.certificate_not_after(current.load().not_after);
            for listener in self.bound.tls {
                tokio::spawn(acceptor.clone().run(listener, Some(Arc::clone(current))));
            }
        }
        drop(acceptor);
        let management_stop = CancellationToken::new();
        if let Some(listener) = self.management {
            tokio::spawn(management::serve(listener, Arc::clone(&management), management_stop.clone()));
        }
        let reload = Reload { config_file, tls: self.config.tls.clone(), current, metrics, settings: settings_in };
        let reload = tokio::spawn(reload.run());
        management.ready.store(true, Ordering::Relaxed);
        serving();

        stop.cancelled().await;
        tracing::info!("ending: no new clients, open requests are finished");
        management.ready.store(false, Ordering::Relaxed);
        accept_stop.cancel();
        engine_stop.cancel();
        let _ = engine_task.await;
        reload.abort();
        tasks.close();
        let _ = tokio::time::timeout(CLOSE, tasks.wait()).await;
        let _ = self.store.ask(front_ends::Stop { fe }).await;
        self.store.close();
        management_stop.cancel();
        Ok(())
    }

    fn management_state(&self, metrics: &Metrics, heartbeat: &Arc<AtomicU64>) -> Arc<Management> {
        let mut registry = Registry::with_prefix("commpool");
        metrics.register(&mut registry);
        Arc::new(Management { ready: AtomicBool::new(false), heartbeat: Arc::clone(heartbeat), registry })
    }

    async fn engine(
        &self,
        settings: &Arc<Settings>,
        metrics: &Arc<Metrics>,
    ) -> Result<(Engine, commpool_model::ids::Incarnation), BootError> {
        let mut start_id = [0; 16];
        getrandom::fill(&mut start_id).map_err(std::io::Error::other)?;
        let start = front_ends::Start {
            pod: std::env::var("HOSTNAME").unwrap_or_else(|_| "localhost".to_owned()),
            start_id,
            address: String::new(),
            build: version::LONG.to_owned(),
            alone: true,
        };
        let started = self.store.ask(start).await?;
        let accounts = self.store.ask(ChangedSince { cursor: None }).await?.cursor;
        let pool_seconds = system_clock()().0 / 1_000_000;
        let engine = Engine::new(Start {
            fe: started.fe,
            key: self.key.clone(),
            settings: Arc::clone(settings),
            pool_seconds,
            now: clock::now(),
            accounts,
            metrics: Arc::clone(metrics),
        });
        Ok((engine, started.fe))
    }

    /// Rows that were live when the last run ended have timers again.
    async fn preload(&self, engine: &mut Engine) -> Result<(), BootError> {
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

/// Files that may change while the server runs.
struct Reload {
    config_file: Option<PathBuf>,
    tls: Option<TlsFiles>,
    current: Option<Current>,
    metrics: Arc<Metrics>,
    settings: watch::Sender<Arc<Settings>>,
}

impl Reload {
    async fn run(self) {
        let mut seen = None;
        loop {
            tokio::time::sleep(RELOAD).await;
            self.certificate();
            self.outward(&mut seen);
        }
    }

    fn certificate(&self) {
        let (Some(files), Some(current)) = (&self.tls, &self.current) else { return };
        match current.load().reload(files) {
            Ok(None) => {}
            Ok(Some(identity)) => {
                tracing::info!(names = ?identity.names, "certificate replaced");
                self.metrics.certificate_not_after(identity.not_after);
                let names = identity.names.clone();
                current.store(Arc::new(identity));
                self.change(|settings| settings.certificate_names = names);
            }
            Err(error) => tracing::error!(%error, "certificate not replaced: the old one stays in use"),
        }
    }

    fn outward(&self, seen: &mut Option<String>) {
        let Some(text) = self.config_file.as_ref().and_then(|path| std::fs::read_to_string(path).ok()) else { return };
        if seen.as_ref() == Some(&text) {
            return;
        }
        match PoolConfig::from_yaml(&text) {
            Ok(config) if config.outward != self.settings.borrow().outward => {
                tracing::info!("outward addresses changed");
                self.change(|settings| settings.outward = config.outward);
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "configuration not taken: the old one stays in use"),
        }
        *seen = Some(text);
    }

    fn change(&self, with: impl FnOnce(&mut Settings)) {
        self.settings.send_modify(|settings| with(Arc::make_mut(settings)));
    }
}

/// Connections are descriptors: takes as many as the system gives.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "the limit of open files stays where it is");
    }
}
