//! From a configuration to a serving front end, and back down.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use commpool_model::config::{Directory, Edition, Peers, PoolConfig, TlsFiles};
use commpool_replicator::Job;
use commpool_sip::limits::Limits;
use commpool_sip::otid::PoolKey;
use commpool_store::ops::directory::SourceGet;
use commpool_store::ops::front_ends;
use commpool_store::postgres::PostgresOptions;
use commpool_store::{FolderLock, LockError, SqliteOptions, lock_folder};
use commpool_store::{Store, StoreError, system_clock};
use prometheus_client::registry::Registry;
use rustls_pki_types::UnixTime;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::directory::{Cycle, Replication};
use crate::front_end::{Ended, FrontEnd, Parts};
use crate::management::{self, Management};
use crate::metrics::Metrics;
use crate::peers::identity::{CurrentPeer, PeerFiles, PeerIdentity, PeerIdentityError};
use crate::settings::Settings;
use crate::start::{PeerSide, Starter};
use crate::transport::listen::{Acceptor, BindError, Bound};
use crate::transport::tls::{Current, Identity, TlsError};
use crate::transport::udp::UdpSockets;

/// Events of connections that wait for the engine.
const EVENTS: usize = 8192;
/// How often configuration and certificate files are looked at.
const RELOAD: Duration = Duration::from_secs(5);
/// A lone front end finishes open requests within this.
const FINISH_ALONE: Duration = Duration::from_secs(2);
/// Who holds the replicator's lease, for people.
const HOLDER: &str = "server";
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
    /// The certificate between front ends cannot be used.
    #[error("peers: {0}")]
    Peers(#[from] PeerIdentityError),
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
    _lock: Option<FolderLock>,
    key: PoolKey,
    identity: Option<Identity>,
    peers: Option<PeerSide>,
    config: PoolConfig,
}

/// Binds addresses, locks the folder, opens the store, reads keys and certificates: everything that can fail with a
/// reason an administrator can mend. Must run inside a runtime.
pub fn boot(config: PoolConfig) -> Result<Booted, BootError> {
    let lock = config.store.sqlite.as_ref().map(|sqlite| lock_folder(&sqlite.folder)).transpose()?;
    let bound = Bound::bind(&config.listeners)?;
    let management = match config.management {
        Some(address) => Some(management::bind(address).map_err(|e| BootError::Management(address, e))?),
        None => None,
    };
    let key = pool_key(&config.key_file)?;
    let identity = config.tls.as_ref().map(Identity::load).transpose()?;
    let peers = config.peers.as_ref().map(peer_side).transpose()?;
    let store = open_store(&config)?;
    Ok(Booted { bound, management, store, _lock: lock, key, identity, peers, config })
}

fn open_store(config: &PoolConfig) -> Result<Store, BootError> {
    match (&config.store.sqlite, &config.store.postgres) {
        (Some(sqlite), _) => Ok(Store::open_sqlite(&sqlite.folder, &SqliteOptions::default(), system_clock())?),
        (None, Some(postgres)) => Ok(Store::open_postgres(PostgresOptions::of(postgres))?),
        (None, None) => Err(BootError::Config("store is missing")),
    }
}

fn peer_side(peers: &Peers) -> Result<PeerSide, BootError> {
    let files = PeerFiles {
        name: peers.server_name.clone(),
        certificate: peers.certificate_file.clone(),
        key: peers.key_file.clone(),
        authority: peers.ca_file.clone(),
    };
    let identity = Arc::new(ArcSwap::from_pointee(PeerIdentity::load(&files)?));
    let bind = |error| BindError { transport: "peers", address: peers.listen, error };
    let listener = std::net::TcpListener::bind(peers.listen).map_err(bind)?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let listener = Arc::new(tokio::net::TcpListener::from_std(listener)?);
    let own = || {
        std::env::var("POD_IP").ok().filter(|ip| !ip.is_empty()).map(|ip| match ip.contains(':') {
            true => format!("[{ip}]:{port}"),
            false => format!("{ip}:{port}"),
        })
    };
    let given = Some(peers.advertise.clone()).filter(|address| !address.is_empty());
    let address = given.or_else(own).ok_or(BootError::Config(
        "peers.advertise is empty and there is no POD_IP: give the address that other front ends dial",
    ))?;
    Ok(PeerSide { listener, address, identity })
}

/// The pool's secret in a file.
pub(crate) fn pool_key(path: &Path) -> Result<PoolKey, BootError> {
    let fail = |why: String| BootError::Key(path.to_owned(), why);
    let octets = std::fs::read(path).map_err(|e| fail(format!("{e}; give a file with at least 32 random octets")))?;
    PoolKey::from_octets(&octets).map_err(|e| fail(format!("{e}; give at least 32 random octets")))
}

impl Booted {
    /// The store, for what must be in it before anybody is served.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Serves until `stop` is cancelled. `config_file`: watched for a changed `outward` or
    /// `directory`. `serving` is called once
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
        let management_stop = CancellationToken::new();
        if let Some(listener) = self.management {
            tokio::spawn(management::serve(listener, Arc::clone(&management), management_stop.clone()));
        }
        let (peers_in, peers) = mpsc::channel(EVENTS);
        let peer = self.peers.as_ref().map(|side| Arc::clone(&side.identity));
        if let Some(peer) = &peer {
            metrics.peer_certificate_not_after(peer.load().not_after());
        }
        let starter = Starter {
            store: self.store.clone(),
            key: self.key,
            config: self.config.clone(),
            settings: settings_out.clone(),
            metrics: Arc::clone(&metrics),
            management: Arc::clone(&management),
            peers: self.peers,
            peers_in,
        };
        let Some(started) = starter.until_started(&stop).await? else { return Ok(()) };
        let (events_in, events) = mpsc::channel(EVENTS);
        let mut fe = started.engine.incarnation();
        let mut incoming = started.incoming;
        let mut front_end = FrontEnd::new(Parts {
            engine: started.engine,
            udp: UdpSockets::new(self.bound.udp, limits)?,
            store: self.store.clone(),
            events,
            settings: settings_out,
            heartbeat,
            metrics: Arc::clone(&metrics),
            management: Arc::clone(&management),
            finish: finish(&self.config),
            peers,
            links: started.links,
        });
        let accepting = CancellationToken::new();
        let tasks = TaskTracker::new();
        let acceptor = Acceptor {
            engine: events_in,
            serials: Arc::new(AtomicU32::new(1)),
            room: Acceptor::room(),
            tasks: tasks.clone(),
            stop: accepting.clone(),
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
        let (directory_in, directory) = watch::channel(self.config.directory.clone());
        let replication = replication(&self.config, &self.store, directory, &management, &metrics, &stop).await;
        let replication = replication.map(|replication| tokio::spawn(replication.run(stop.clone())));
        let tls = self.config.tls.clone();
        let reload =
            Reload { config_file, tls, current, peer, metrics, settings: settings_in, directory: directory_in };
        let reload = tokio::spawn(reload.run());
        serving();

        while front_end.run(&stop, &accepting).await == Ended::Over {
            incoming.cancel();
            let Some(started) = starter.until_started(&stop).await? else { break };
            (fe, incoming) = (started.engine.incarnation(), started.incoming);
            front_end.start_anew(started.engine, started.links);
        }
        tracing::info!("ended: all requests are finished");
        management.ready.store(false, Ordering::Relaxed);
        drop(front_end);
        incoming.cancel();
        reload.abort();
        tasks.close();
        let _ = tokio::time::timeout(CLOSE, tasks.wait()).await;
        if let Some(replication) = replication {
            let _ = tokio::time::timeout(CLOSE, replication).await;
        }
        let _ = tokio::time::timeout(CLOSE, self.store.ask(front_ends::Stop { fe })).await;
        self.store.close();
        management_stop.cancel();
        Ok(())
    }

    fn management_state(&self, metrics: &Metrics, heartbeat: &Arc<AtomicU64>) -> Arc<Management> {
        let mut registry = Registry::with_prefix("commpool");
        metrics.register(&mut registry);
        Arc::new(Management::new(Arc::clone(heartbeat), registry))
    }
}

/// The replicator of Standard Edition; that of Enterprise Edition is a program of its own.
async fn replication(
    config: &PoolConfig,
    store: &Store,
    directory: watch::Receiver<Option<Directory>>,
    management: &Management,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
) -> Option<Replication> {
    if config.edition != Edition::Standard {
        return None;
    }
    // A store that does not tell is asked again by the run itself.
    let known = store.ask(SourceGet { source: commpool_replicator::records::SOURCE.to_owned() }).await;
    let (store, domains, stop) = (store.clone(), config.sip_domains.clone(), stop.clone());
    // The data's own folder can be written, whatever else of the machine can be.
    let folder = config.store.sqlite.as_ref().map(|sqlite| sqlite.folder.clone());
    let cycle: Cycle = Box::new(move |directory| {
        let (store, domains, folder) = (store.clone(), domains.clone(), folder.clone());
        let (job, stop) = (Job { store, config: directory, domains, folder }, stop.clone());
        Box::pin(async move { commpool_replicator::run(job, HOLDER, &stop).await })
    });
    Some(Replication {
        cycle,
        config: directory,
        never_ran: known.is_ok_and(|source| source.version == 0),
        clock: system_clock(),
        last: management.directory.clone(),
        metrics: Arc::clone(metrics),
    })
}

/// From the signal to the end.
fn finish(config: &PoolConfig) -> Duration {
    match config.edition {
        Edition::Standard => FINISH_ALONE,
        Edition::Enterprise => Duration::from_secs(config.drain.timeout_seconds.into()),
    }
}

/// Files that may change while the server runs.
struct Reload {
    config_file: Option<PathBuf>,
    tls: Option<TlsFiles>,
    current: Option<Current>,
    peer: Option<CurrentPeer>,
    metrics: Arc<Metrics>,
    settings: watch::Sender<Arc<Settings>>,
    directory: watch::Sender<Option<Directory>>,
}

impl Reload {
    async fn run(self) {
        let mut seen = None;
        loop {
            tokio::time::sleep(RELOAD).await;
            self.certificate();
            self.peer_certificate();
            self.configuration(&mut seen);
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

    /// Links that stand stay as they are; the next handshake takes the new one.
    fn peer_certificate(&self) {
        let Some(current) = &self.peer else { return };
        match current.load().reload(UnixTime::now()) {
            Ok(None) => {}
            Ok(Some(identity)) => {
                tracing::info!(not_after = identity.not_after(), "certificate between front ends replaced");
                self.metrics.peer_certificate_not_after(identity.not_after());
                current.store(Arc::new(identity));
            }
            Err(error) => {
                tracing::error!(%error, "certificate between front ends not replaced: the old one stays in use");
            }
        }
    }

    fn configuration(&self, seen: &mut Option<String>) {
        let Some(text) = self.config_file.as_ref().and_then(|path| std::fs::read_to_string(path).ok()) else { return };
        if seen.as_ref() == Some(&text) {
            return;
        }
        match PoolConfig::from_yaml(&text) {
            Ok(config) => self.take(config),
            Err(error) => tracing::error!(%error, "configuration not taken: the old one stays in use"),
        }
        *seen = Some(text);
    }

    /// Takes what may change while the server runs.
    fn take(&self, config: PoolConfig) {
        if config.outward != self.settings.borrow().outward {
            tracing::info!("outward addresses changed");
            self.change(|settings| settings.outward = config.outward);
        }
        let changed = self.directory.send_if_modified(|directory| {
            let changed = *directory != config.directory;
            *directory = config.directory;
            changed
        });
        if changed {
            tracing::info!("the directory's configuration changed");
        }
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
