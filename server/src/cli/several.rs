//! `run --front-ends N`: Enterprise Edition on one machine, all front ends on one address.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::Args;
use commpool_model::config::{
    Drain, Edition, HostPort, Listeners, Outward, Peers, PoolConfig, PostgresStore, PostgresTls, PostgresTlsMode,
    StoreConfig,
};
use commpool_process::{start_logs, stop_on_signal};
use commpool_store::Store;
use commpool_store::postgres::{self, Caller, Login, Logins, PostgresOptions, Tls};
use zeroize::Zeroizing;

use super::laptop::{MEND_ADDRESS, Plan, Ready, at, secret, yaml};
use super::serve::{explain, runtime};
use super::shown::Shown;
use super::{Done, EXIT_ADDRESS, EXIT_DATA, EXIT_OTHER, EXIT_USAGE, Failure, children};
use crate::boot::BootError;
use crate::management;
use crate::pki::{self, Purpose};
use crate::transport::listen::{BindError, Bound};

/// Ports of a front end's own begin so far after the last one's: UDP and TCP, TLS, management, links.
const PORTS: u16 = 4;
/// Database of the pool, and the superuser who prepares it.
const DATABASE: &str = "commpool";
const SUPERUSER: &str = "postgres";
/// The name that front ends check of one another.
const PEERS: &str = "front-ends.local";

/// Options of a pool.
#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct Arguments {
    /// Enterprise Edition: so many front ends share the address. Front end K alone is reached at PORT+4K, by TLS at the
    /// port after that; health and metrics are one further
    #[arg(long, value_name = "N", requires = "postgres", value_parser = clap::value_parser!(u16).range(1..=16))]
    front_ends: Option<u16>,
    /// Its Back-End Database: a PostgreSQL with the superuser postgres and an empty database commpool
    #[arg(long, value_name = "ADDRESS:PORT", requires_all = ["front_ends", "postgres_password"])]
    postgres: Option<SocketAddr>,
    /// File with that superuser's password
    #[arg(long, value_name = "FILE", requires = "postgres")]
    postgres_password: Option<PathBuf>,
    /// Prepare database, certificates and configurations, print them as JSON, and end: each front end is then started by
    /// `serve --config DATA/front-end-K.yaml`
    #[arg(long, requires = "front_ends")]
    prepare: bool,
}

/// A pool as asked for.
pub(super) struct Wanted {
    front_ends: u16,
    postgres: SocketAddr,
    password: PathBuf,
    prepare: bool,
}

impl Arguments {
    /// The pool asked for, if one is.
    pub(super) fn wanted(&self) -> Option<Wanted> {
        let (front_ends, postgres) = (self.front_ends?, self.postgres?);
        Some(Wanted { front_ends, postgres, password: self.postgres_password.clone()?, prepare: self.prepare })
    }
}

/// One front end of the pool.
#[derive(Clone, Debug)]
pub(super) struct FrontEnd {
    /// From 1.
    pub(super) number: u16,
    /// Where it alone is reached: UDP and TCP, TLS on the next port.
    pub(super) own: SocketAddr,
    /// Health, readiness, metrics.
    pub(super) management: SocketAddr,
    /// Its configuration.
    pub(super) config: PathBuf,
}

pub(super) fn run(plan: Plan, wanted: &Wanted) -> Done {
    let (front_ends, configs) =
        (1..=wanted.front_ends).map(|n| describe(&plan, wanted, n)).collect::<Result<(Vec<_>, Vec<_>), _>>()?;
    let first = configs.first().ok_or_else(|| Failure::new(EXIT_USAGE, "--front-ends: give a number from 1 to 16"))?;
    start_logs(&first.log);
    let lock = plan.lock()?;
    if !wanted.prepare {
        configs.iter().try_for_each(ports_are_free).map_err(|e| explain(&e, MEND_ADDRESS))?;
    }
    let own = plan.prepare()?;
    plan.certificate(Purpose::Peers, &[PEERS.to_owned()], &[])?;
    for (one, config) in front_ends.iter().zip(&configs) {
        pki::write_file(&one.config, &yaml(config)?, 0o600)?;
    }
    let file = front_ends.first().map(|one| one.config.clone()).unwrap_or_default();
    let shown = |users: &[Ready], running: &[(FrontEnd, u32)]| {
        plan.tell(&Shown { plan: &plan, ca: &own.ca, config: &file, users, front_ends: running });
    };
    runtime()?.block_on(async {
        let users = prepare_database(&plan, wanted, first).await?;
        if wanted.prepare {
            shown(&users, &front_ends.into_iter().map(|one| (one, 0)).collect::<Vec<_>>());
            return Ok(());
        }
        let stop = stop_on_signal().map_err(|e| Failure::new(EXIT_OTHER, e.to_string()))?;
        let served = children::run(front_ends, stop, |running| shown(&users, running)).await;
        drop(lock);
        served
    })
}

/// A front end and its configuration.
fn describe(plan: &Plan, wanted: &Wanted, number: u16) -> Result<(FrontEnd, PoolConfig), Failure> {
    let first = plan.first();
    let offset = PORTS * number;
    if first.port().checked_add(PORTS * (wanted.front_ends + 1)).is_none() {
        let text = format!("--listen {first}: {PORTS} ports further on are used for each front end; give a lower one");
        return Err(Failure::new(EXIT_ADDRESS, text));
    }
    // What is not for clients stays on the machine.
    let inner = if first.ip().is_loopback() { first.ip() } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
    let inner = |further| SocketAddr::new(inner, first.port() + offset + further);
    let one = FrontEnd {
        number,
        own: at(first, offset),
        management: inner(2),
        config: plan.folder.join(format!("front-end-{number}.yaml")),
    };
    let plain: Vec<_> = plan.addresses.iter().flat_map(|a| [*a, at(*a, offset)]).collect();
    let tls = plain.iter().map(|a| at(*a, 1)).collect();
    let host = match plan.addresses.as_slice() {
        [only] if !only.ip().is_unspecified() => only.ip().to_string(),
        _ => plan.domain.clone(),
    };
    let outward = |port| Some(HostPort { host: host.clone(), port });
    let in_folder = |name: &str| plan.folder.join(name);
    let config = PoolConfig {
        edition: Edition::Enterprise,
        listeners: Listeners { udp: plain.clone(), tcp: plain, tls, shared: true },
        outward: Outward {
            udp: outward(first.port()),
            tcp: outward(first.port()),
            tls: outward(first.port() + 1),
            ..Outward::default()
        },
        store: StoreConfig { sqlite: None, postgres: Some(database(&plan.folder, wanted.postgres)) },
        peers: Some(Peers {
            listen: inner(3),
            advertise: inner(3).to_string(),
            server_name: PEERS.to_owned(),
            certificate_file: in_folder("peers-tls.crt"),
            key_file: in_folder("peers-tls.key"),
            ca_file: in_folder("peers-ca.crt"),
        }),
        // All of them go at once: nobody is left to take the clients.
        drain: Drain { timeout_seconds: 5, flows_per_second: 1000 },
        management: Some(one.management),
        ..plan.standard()
    };
    Ok((one, plan.checked(config)?))
}

fn database(folder: &Path, address: SocketAddr) -> PostgresStore {
    let logins = logins(folder);
    PostgresStore {
        host: address.ip().to_string(),
        port: address.port(),
        database: DATABASE.to_owned(),
        user_file: logins.join("server-username"),
        password_file: logins.join("server-password"),
        tls: PostgresTls { mode: PostgresTlsMode::Off, ca_file: None },
    }
}

/// Folder with the names and passwords of the database's logins.
fn logins(folder: &Path) -> PathBuf {
    folder.join("logins")
}

/// With addresses to be shared nobody else would notice that they are taken.
fn ports_are_free(config: &PoolConfig) -> Result<(), BootError> {
    Bound::bind(&Listeners { shared: false, ..config.listeners.clone() })?;
    if let Some(address) = config.management {
        management::bind(address).map_err(|e| BootError::Management(address, e))?;
    }
    if let Some(peers) = &config.peers {
        let address = peers.listen;
        std::net::TcpListener::bind(address).map_err(|error| BindError { transport: "peers", address, error })?;
    }
    Ok(())
}

/// Brings the database to this build's schema, with its logins and the users of this run.
async fn prepare_database(plan: &Plan, wanted: &Wanted, config: &PoolConfig) -> Result<Vec<Ready>, Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::new(EXIT_DATA, e.to_string());
    let folder = logins(&plan.folder);
    make_logins(&folder)?;
    let file = &wanted.password;
    let password =
        fs::read_to_string(file).map(Zeroizing::new).map_err(|e| failed(&format!("{}: {e}", file.display())))?;
    let superuser = PostgresOptions {
        host: wanted.postgres.ip().to_string(),
        port: wanted.postgres.port(),
        database: DATABASE.to_owned(),
        login: Login::Known(SUPERUSER.to_owned(), Zeroizing::new(password.trim_end().to_owned())),
        tls: Tls::Off,
        caller: Caller::Administrator,
    };
    let logins = Logins::read(&folder).map_err(|e| failed(&e))?;
    postgres::migrate(&superuser, Some(&logins)).await.map_err(|e| failed(&e))?;
    let options = config.store.postgres.as_ref().map(PostgresOptions::administrator);
    let options = options.ok_or_else(|| Failure::new(EXIT_OTHER, "the configuration names no database"))?;
    let store = Store::open_postgres(options).map_err(|e| failed(&e))?;
    let users = plan.users(&store).await;
    store.close();
    users
}

/// Names and passwords of the database's logins, made once.
fn make_logins(folder: &Path) -> Done {
    let fail = |e: std::io::Error| Failure::new(EXIT_DATA, format!("{}: {e}", folder.display()));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fail)?;
    for who in ["owner", "server", "replicator"] {
        let password = folder.join(format!("{who}-password"));
        if !password.exists() {
            pki::write_file(&folder.join(format!("{who}-username")), &format!("pool_{who}"), 0o600)?;
            pki::write_file(&password, &secret::<16>()?, 0o600)?;
        }
    }
    Ok(())
}
