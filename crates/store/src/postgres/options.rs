//! How the database is reached.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use commpool_model::config::{PostgresStore, PostgresTlsMode};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use zeroize::Zeroizing;

use crate::error::StoreError;

/// Where the database is and who calls.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Host name or IP address; a path: the folder of a Unix socket.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Name of the database.
    pub database: String,
    /// Who calls.
    pub login: Login,
    /// How the connection is protected.
    pub tls: Tls,
    /// What it is for.
    pub caller: Caller,
}

/// What the database is used for: which functions may be called, how many connections there are, how long a call may
/// take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A front end: five connections, an answer within two seconds, because a client waits for it.
    FrontEnd,
    /// A command of its administrator: four connections, which may be slow to come about; he waits rather than being
    /// told to try again.
    Administrator,
    /// A replicator: four connections, and minutes for a whole directory. It may call what begins with a lease or a
    /// source, and ask for holders of addresses and for health.
    Replicator,
}

/// How long somebody waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// A request for its turn; then nothing is done about it.
    pub(super) turn: Duration,
    /// A call for its answer.
    pub(super) patience: Duration,
    /// The server for a statement, milliseconds; below `patience`.
    pub(super) statement: &'static str,
    /// The same for a lock.
    pub(super) lock: &'static str,
}

impl Caller {
    pub(super) const fn pace(self) -> Pace {
        match self {
            Self::FrontEnd => {
                Pace { turn: Duration::from_secs(1), patience: Duration::from_secs(2), statement: "1800", lock: "1000" }
            }
            Self::Administrator => Pace {
                turn: Duration::from_secs(15),
                patience: Duration::from_secs(20),
                statement: "15000",
                lock: "10000",
            },
            Self::Replicator => Pace {
                turn: Duration::from_secs(10),
                patience: Duration::from_secs(310),
                statement: "300000",
                lock: "10000",
            },
        }
    }
}

/// Who calls.
#[derive(Clone)]
pub enum Login {
    /// Name and password.
    Known(String, Zeroizing<String>),
    /// Files with name and password, read anew at each connection.
    Files(PathBuf, PathBuf),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(user, _) => write!(f, "Login({user})"),
            Self::Files(user, _) => write!(f, "Login({})", user.display()),
        }
    }
}

/// How the connection is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Not at all.
    Off,
    /// By TLS; the server shows a certificate of this CA (PEM file) for its host name.
    VerifyFull {
        /// The CA.
        ca: PathBuf,
    },
}

impl PostgresOptions {
    /// As a pool's configuration says, for a front end.
    pub fn of(config: &PostgresStore) -> Self {
        let tls = match (&config.tls.mode, &config.tls.ca_file) {
            (PostgresTlsMode::VerifyFull, Some(ca)) => Tls::VerifyFull { ca: ca.clone() },
            // Without a CA nobody is trusted.
            (PostgresTlsMode::VerifyFull, None) => Tls::VerifyFull { ca: PathBuf::new() },
            (PostgresTlsMode::Off, _) => Tls::Off,
        };
        Self {
            host: config.host.clone(),
            port: config.port,
            database: config.database.clone(),
            login: Login::Files(config.user_file.clone(), config.password_file.clone()),
            tls,
            caller: Caller::FrontEnd,
        }
    }

    /// The same for a command of the administrator.
    pub fn administrator(config: &PostgresStore) -> Self {
        Self { caller: Caller::Administrator, ..Self::of(config) }
    }

    /// The same for a replicator, with a login of its own.
    pub fn replicator(config: &PostgresStore) -> Self {
        Self { caller: Caller::Replicator, ..Self::of(config) }
    }

    /// Where that is, for people.
    pub(super) fn place(&self) -> String {
        format!("database {} at {}:{}", self.database, self.host, self.port)
    }

    /// The same for the driver, with settings of the session.
    pub(super) fn driver<'a>(
        &self,
        application: &str,
        settings: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<PgConnectOptions, StoreError> {
        let (user, password) = self.login.read()?;
        let options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .database(&self.database)
            .username(&user)
            .password(&password)
            .application_name(application)
            .options(settings)
            .disable_statement_logging();
        let options = if self.host.starts_with('/') { options.socket(&self.host) } else { options };
        Ok(match &self.tls {
            Tls::Off => options.ssl_mode(PgSslMode::Disable),
            Tls::VerifyFull { ca } => options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(ca),
        })
    }
}

impl Login {
    fn read(&self) -> Result<(String, Zeroizing<String>), StoreError> {
        match self {
            Self::Known(user, password) => Ok((user.clone(), password.clone())),
            Self::Files(user, password) => Ok((line(user)?.to_string(), line(password)?)),
        }
    }
}

/// The first line of a file.
pub(super) fn line(path: &Path) -> Result<Zeroizing<String>, StoreError> {
    let text = fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
        StoreError::Unavailable(format!("cannot read {}: {error}; check path, owner and mode", path.display()))
    })?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(StoreError::Unavailable(format!(
            "{} is empty; write the value into its first line",
            path.display()
        )));
    }
    Ok(Zeroizing::new(line.to_owned()))
}
