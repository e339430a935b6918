//! What is measured: a server of ours or a peer, started afresh for each run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use commpool_harness::postgres::Settings;

use super::kamailio::{Kamailio, Variant};
use crate::cpu;
use crate::link::{Target, Transport};
use crate::pool::{self, Pool};
use crate::server::{DOMAIN, Server, Setup, own_address};

/// Users that take part; each has one password made of its number.
pub const USERS: usize = 200;

/// Front ends of a pool.
pub const FRONT_ENDS: usize = 2;

/// Name of a user.
#[must_use]
pub fn user(number: usize) -> String {
    format!("user{number}")
}

/// Password of a user.
#[must_use]
pub fn password(number: usize) -> String {
    format!("password-of-{number}")
}

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours: Standard Edition as `commpool-server run` starts it.
    Ours,
    /// Ours: a pool of two front ends on PostgreSQL.
    Pool,
    /// Debian's Kamailio.
    Peer(Variant),
}

impl Kind {
    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "Commpool",
            Self::Pool => "Commpool, pool of two",
            Self::Peer(variant) => variant.name(),
        }
    }
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub enum Subject {
    /// Ours.
    Ours(Box<Server>),
    /// Ours, several.
    Pool(Box<Pool>),
    /// Kamailio.
    Peer(Kamailio),
}

/// Where servers keep their data between runs.
#[derive(Debug)]
pub struct Grounds {
    folder: tempfile::TempDir,
}

impl Grounds {
    /// Makes a folder for all runs.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Self> {
        // Not in /tmp, which may be memory: what is durable must cost what it costs.
        let folder = tempfile::Builder::new().prefix("commpool-bench-").tempdir_in("/var/tmp")?;
        Ok(Self { folder })
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("commpool")
    }

    /// Where the peer keeps its database.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A PostgreSQL on disk, as it comes but for the memory it may use.
    ///
    /// # Errors
    /// When the one before cannot be removed.
    pub fn postgres(&self) -> Result<Settings> {
        let folder = self.folder.path().join("postgres");
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        let lines = vec!["shared_buffers = 512MB".to_owned(), "max_wal_size = 4GB".to_owned()];
        Ok(Settings { durable: true, folder: Some(folder), lines, ..Settings::default() })
    }

    /// Certificate and key of ours, for the peer's TLS.
    #[must_use]
    pub fn certificate(&self) -> (PathBuf, PathBuf) {
        (self.data().join("tls.crt"), self.data().join("tls.key"))
    }

    /// Starts a server and waits until it serves.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(&self, kind: Kind) -> Result<Subject> {
        match kind {
            Kind::Peer(variant) => Ok(Subject::Peer(Kamailio::start(variant, self)?)),
            Kind::Pool => {
                let setup = pool::Setup {
                    front_ends: FRONT_ENDS,
                    database: self.postgres()?,
                    digest: Some("MD5".to_owned()),
                    users: (0..USERS).map(|number| (user(number), password(number))).collect(),
                    log: "info".to_owned(),
                    ..pool::Setup::default()
                };
                Ok(Subject::Pool(Box::new(Pool::with(setup)?)))
            }
            Kind::Ours => {
                let setup = Setup {
                    digest: Some("MD5".to_owned()),
                    users: (0..USERS).map(|number| (user(number), password(number))).collect(),
                    data: Some(self.data()),
                    listen: own_address(),
                    // As delivered: nobody runs it with another level.
                    log: "info".to_owned(),
                    ..Setup::default()
                };
                Ok(Subject::Ours(Box::new(Server::with(setup)?)))
            }
        }
    }
}

impl Subject {
    /// Where clients of a transport find it; of several front ends, one by its number.
    ///
    /// # Errors
    /// When it does not serve that transport.
    pub fn target(&self, transport: Transport, front_end: usize) -> Result<Target> {
        match self {
            Self::Ours(server) => server.target(transport),
            Self::Pool(pool) => Ok(pool.target(front_end % FRONT_ENDS, transport)),
            Self::Peer(kamailio) => Ok(kamailio.target(transport)),
        }
    }

    /// Checks that the server did what its name says, after a load in which every user registered.
    ///
    /// # Errors
    /// When a peer that writes registrations through has not written them.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Ours(_) => Ok(()),
            Self::Pool(pool) => {
                let rows: usize = pool.sql("select count(*) from commpool.endpoint")?.trim().parse()?;
                ensure!(rows == USERS, "the pool has {rows} registrations, not {USERS}");
                Ok(())
            }
            Self::Peer(kamailio) => kamailio.check(),
        }
    }

    /// Groups of its processes, its database server's apart.
    fn groups(&self) -> Result<Vec<u32>> {
        match self {
            Self::Ours(server) => Ok(vec![server.pid()]),
            Self::Pool(pool) => (0..FRONT_ENDS).map(|number| pool.front_end(number).pid()).collect(),
            Self::Peer(kamailio) => Ok(vec![kamailio.pid()]),
        }
    }

    /// Processor time of its database server so far, zero where it has none.
    #[must_use]
    pub fn database_time(&self) -> Duration {
        match self {
            Self::Ours(_) => Duration::ZERO,
            Self::Pool(pool) => pool.database.cpu(),
            Self::Peer(kamailio) => kamailio.database_time(),
        }
    }

    /// Processor time of all its processes so far, its database server's among them.
    ///
    /// # Errors
    /// When it has ended.
    pub fn processor_time(&self) -> Result<Duration> {
        let own = self.groups()?.into_iter().map(|group| cpu::time_of_group(group).context("the server has ended"));
        Ok(own.sum::<Result<Duration>>()? + self.database_time())
    }

    /// Memory of all its processes, octets; what they share counts once.
    ///
    /// # Errors
    /// When it has ended.
    pub fn memory(&self) -> Result<u64> {
        self.groups()?.into_iter().map(cpu::memory_of_group).sum()
    }
}

/// SIP domain of the load.
#[must_use]
pub const fn domain() -> &'static str {
    DOMAIN
}
