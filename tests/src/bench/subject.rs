//! What is measured: a server of ours or a peer, started afresh for each run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::kamailio::{Kamailio, Variant};
use crate::cpu;
use crate::link::{Target, Transport};
use crate::server::{DOMAIN, Server, Setup, own_address};

/// Users that take part; each has one password made of its number.
pub const USERS: usize = 200;

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
    /// Debian's Kamailio.
    Peer(Variant),
}

impl Kind {
    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "Commpool",
            Self::Peer(variant) => variant.name(),
        }
    }
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub enum Subject {
    /// Ours.
    Ours(Box<Server>),
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
    /// Where clients of a transport find it.
    ///
    /// # Errors
    /// When it does not serve that transport.
    pub fn target(&self, transport: Transport) -> Result<Target> {
        match self {
            Self::Ours(server) => server.target(transport),
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
            Self::Peer(kamailio) => kamailio.check(),
        }
    }

    fn group(&self) -> u32 {
        match self {
            Self::Ours(server) => server.pid(),
            Self::Peer(kamailio) => kamailio.pid(),
        }
    }

    /// Processor time of all its processes so far.
    ///
    /// # Errors
    /// When it has ended.
    pub fn processor_time(&self) -> Result<Duration> {
        cpu::time_of_group(self.group()).context("the server has ended")
    }

    /// Memory of all its processes, octets; what they share counts once.
    ///
    /// # Errors
    /// When it has ended.
    pub fn memory(&self) -> Result<u64> {
        cpu::memory_of_group(self.group())
    }
}

/// SIP domain of the load.
#[must_use]
pub const fn domain() -> &'static str {
    DOMAIN
}
