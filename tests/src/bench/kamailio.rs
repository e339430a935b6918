//! The peer: Debian's Kamailio with a configuration that makes it do the same work.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use commpool_harness::postgres::{Cluster, SUPERUSER};
use commpool_harness::process::{Process, Stream};
use commpool_harness::wait;

use super::subject::{Grounds, USERS, domain, password, user};
use crate::digest::Algorithm;
use crate::link::{Target, Transport};
use crate::server::own_address;

/// Table definitions of the Debian packages.
const SQLITE_SCHEMA: &str = "/usr/share/kamailio/db_sqlite";
const POSTGRES_SCHEMA: &str = "/usr/share/kamailio/postgres";

/// Its tables.
const TABLES: [&str; 3] = ["standard", "auth_db", "usrloc"];

/// Its database in PostgreSQL.
const DATABASE: &str = "kamailio";

/// How it keeps registrations, and how many workers it has for each transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Every registration written through to SQLite in WAL mode; one worker, since its SQLite module waits for no lock
    /// and fails requests with two.
    SqliteWriteThrough,
    /// Registrations in memory only, two workers.
    Memory,
    /// Registrations in memory only, one worker: cheaper over TCP, where workers pass descriptors around; and the only
    /// way its TLS holds with Debian's OpenSSL.
    MemoryOneWorker,
    /// Every registration written through to PostgreSQL and kept in memory too, two workers.
    PostgresWriteThrough,
    /// Registrations in PostgreSQL only, read for every message, two workers: how several of them share their users.
    PostgresOnly,
}

impl Variant {
    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SqliteWriteThrough => "Kamailio sqlite-wt",
            Self::Memory => "Kamailio mem",
            Self::MemoryOneWorker => "Kamailio mem+1w",
            Self::PostgresWriteThrough => "Kamailio pg-wt",
            Self::PostgresOnly => "Kamailio pg-db",
        }
    }

    const fn workers(self) -> u32 {
        match self {
            Self::Memory | Self::PostgresWriteThrough | Self::PostgresOnly => 2,
            Self::SqliteWriteThrough | Self::MemoryOneWorker => 1,
        }
    }

    const fn database_mode(self) -> u32 {
        match self {
            Self::SqliteWriteThrough | Self::PostgresWriteThrough => 1,
            Self::PostgresOnly => 3,
            Self::Memory | Self::MemoryOneWorker => 0,
        }
    }

    const fn on_postgres(self) -> bool {
        matches!(self, Self::PostgresWriteThrough | Self::PostgresOnly)
    }
}

/// Where its tables are.
#[derive(Debug)]
enum Database {
    Sqlite(PathBuf),
    Postgres(Box<Cluster>),
}

impl Database {
    fn make(variant: Variant, grounds: &Grounds, folder: &Path) -> Result<Self> {
        if variant.on_postgres() {
            return make_postgres(grounds).map(|cluster| Self::Postgres(Box::new(cluster)));
        }
        let file = folder.join("kamailio.sqlite");
        make_sqlite(&file)?;
        Ok(Self::Sqlite(file))
    }

    fn url(&self) -> String {
        match self {
            Self::Sqlite(file) => format!("sqlite:///{}", file.display()),
            Self::Postgres(cluster) => {
                let (host, port) = (cluster.host(), cluster.port());
                format!("postgres://{SUPERUSER}:{}@{host}:{port}/{DATABASE}", cluster.password())
            }
        }
    }

    const fn module(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "db_sqlite",
            Self::Postgres(_) => "db_postgres",
        }
    }

    fn ask(&self, statement: &str) -> Result<String> {
        match self {
            Self::Sqlite(file) => sqlite(file, statement),
            Self::Postgres(cluster) => cluster.sql(DATABASE, statement),
        }
    }
}

/// A running Kamailio.
#[derive(Debug)]
pub struct Kamailio {
    process: Process,
    variant: Variant,
    address: IpAddr,
    database: Database,
    ca: PathBuf,
    // Its sockets and files for control; gone with it.
    _run: tempfile::TempDir,
}

/// Version of the installed peer; `None` where there is none.
#[must_use]
pub fn version() -> Option<String> {
    let output = Command::new("kamailio").arg("-v").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Some(text.lines().next()?.trim().trim_start_matches("version: ").to_owned())
}

impl Kamailio {
    /// Starts one with a fresh table of registrations.
    ///
    /// # Errors
    /// When it or `sqlite3` is missing, or it does not come up.
    pub fn start(variant: Variant, grounds: &Grounds) -> Result<Self> {
        let folder = grounds.path().join("kamailio");
        fs::create_dir_all(&folder)?;
        let database = Database::make(variant, grounds, &folder)?;
        let address = own_address();
        let (certificate, key) = grounds.certificate();
        let tls = certificate.is_file().then(|| folder.join("tls.cfg"));
        if let Some(file) = &tls {
            let text = format!(
                "[server:default]\nmethod = TLSv1.2+\ncertificate = {}\nprivate_key = {}\n",
                certificate.display(),
                key.display()
            );
            fs::write(file, text)?;
        }
        let file = folder.join("kamailio.cfg");
        fs::write(&file, configuration(variant, address, &database, tls.as_deref()))?;
        let run = tempfile::Builder::new().prefix("commpool-kamailio-").tempdir()?;
        let mut command = Command::new("kamailio");
        command.arg("-f").arg(&file).args(["-DD", "-E", "-m", "256", "-M", "16"]);
        command.arg("-Y").arg(run.path()).arg("-w").arg(&folder);
        let process = Process::start("kamailio", run.path(), &mut command)?;
        wait::for_port(SocketAddr::new(address, 5060), Duration::from_secs(20))
            .with_context(|| format!("Kamailio does not come up:\n{}", process.text(Stream::Err)))?;
        let ca = certificate.with_file_name("ca.crt");
        Ok(Self { process, variant, address, database, ca, _run: run })
    }

    /// Where clients of a transport find it.
    #[must_use]
    pub fn target(&self, transport: Transport) -> Target {
        let port = if transport == Transport::Tls { 5061 } else { 5060 };
        Target {
            transport,
            address: SocketAddr::new(self.address, port),
            server_name: domain().to_owned(),
            ca: Some(self.ca.clone()),
            network: None,
        }
    }

    /// Checks that registrations are in the database where they belong.
    ///
    /// # Errors
    /// When they are not: a figure of less work would be worth nothing.
    pub fn check(&self) -> Result<()> {
        let rows: usize = self.database.ask("SELECT count(*) FROM location")?.trim().parse()?;
        let wanted = if self.variant.database_mode() > 0 { USERS } else { 0 };
        ensure!(rows == wanted, "{} has written {rows} registrations, not {wanted}", self.variant.name());
        Ok(())
    }

    /// Process id, also that of its group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Processor time of its database so far, if that is a server of its own.
    #[must_use]
    pub fn database_time(&self) -> Duration {
        match &self.database {
            Database::Sqlite(_) => Duration::ZERO,
            Database::Postgres(cluster) => cluster.cpu(),
        }
    }
}

/// Statements that add our users.
fn subscribers() -> String {
    let mut script = String::from("BEGIN;\n");
    for number in 0..USERS {
        let name = user(number);
        let hash = Algorithm::Md5.hash(&format!("{name}:{}:{}", domain(), password(number)));
        let _ = writeln!(
            script,
            "INSERT INTO subscriber (username, domain, password, ha1, ha1b) VALUES ('{name}', '{}', '', '{hash}', '');",
            domain()
        );
    }
    script.push_str("COMMIT;\n");
    script
}

/// A PostgreSQL with our users and no registrations.
fn make_postgres(grounds: &Grounds) -> Result<Cluster> {
    let cluster = Cluster::start(&grounds.postgres()?)?;
    cluster.make_database(DATABASE)?;
    for table in TABLES {
        let file = format!("{POSTGRES_SCHEMA}/{table}-create.sql");
        let script = fs::read_to_string(&file)
            .with_context(|| format!("cannot read {file}; it is in Debian's package kamailio-postgres-modules"))?;
        cluster.sql(DATABASE, &script)?;
    }
    cluster.sql(DATABASE, &subscribers())?;
    Ok(cluster)
}

/// A database with our users and no registrations.
fn make_sqlite(file: &Path) -> Result<()> {
    for ending in ["", "-wal", "-shm"] {
        let old = file.with_file_name(format!("kamailio.sqlite{ending}"));
        if old.exists() {
            fs::remove_file(&old)?;
        }
    }
    let mut script = String::from("PRAGMA journal_mode=WAL;\n");
    for table in TABLES {
        let _ = writeln!(script, ".read {SQLITE_SCHEMA}/{table}-create.sql");
    }
    script.push_str(&subscribers());
    let input = file.with_extension("sql");
    fs::write(&input, script)?;
    sqlite(file, &format!(".read {}", input.display())).map(drop)
}

/// Runs a statement or command of the SQLite shell and gives its output.
fn sqlite(database: &Path, statement: &str) -> Result<String> {
    let output = Command::new("sqlite3")
        .arg(database)
        .arg(statement)
        .output()
        .context("sqlite3 cannot be run; it is in Debian's package sqlite3")?;
    ensure!(output.status.success(), "sqlite3: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The configuration file.
fn configuration(variant: Variant, address: IpAddr, database: &Database, tls: Option<&Path>) -> String {
    let (workers, mode) = (variant.workers(), variant.database_mode());
    let url = database.url();
    let (enable, module) = match tls {
        Some(file) => (
            format!("enable_tls=yes\nlisten=tls:{address}:5061\n"),
            format!("loadmodule \"tls.so\"\nmodparam(\"tls\", \"config\", \"{}\")\n", file.display()),
        ),
        None => (String::new(), String::new()),
    };
    let modules = [database.module(), "tm", "sl", "pv", "usrloc", "registrar", "siputils", "auth", "auth_db"];
    let modules = modules.iter().fold(String::new(), |mut out, name| {
        let _ = writeln!(out, "loadmodule \"{name}.so\"");
        out
    });
    let domain = domain();
    format!(
        "#!KAMAILIO\n\
         debug=0\nlog_stderror=yes\nfork=yes\nchildren={workers}\ntcp_children={workers}\n\
         tcp_max_connections=20000\ntcp_connection_lifetime=3605\nauto_aliases=no\nalias=\"{domain}\"\n\
         listen=udp:{address}:5060\nlisten=tcp:{address}:5060\n{enable}\
         {modules}{module}\
         modparam(\"usrloc|auth_db\", \"db_url\", \"{url}\")\n\
         modparam(\"usrloc\", \"db_mode\", {mode})\n\
         modparam(\"auth_db\", \"calculate_ha1\", 0)\n\
         modparam(\"auth_db\", \"password_column\", \"ha1\")\n\
         modparam(\"auth_db\", \"use_domain\", 1)\n\
         modparam(\"auth_db\", \"load_credentials\", \"\")\n\
         modparam(\"auth\", \"nonce_expire\", 7200)\n\
         {ROUTES}"
    )
}

/// What it does with a request: REGISTER proven and saved, MESSAGE proven and relayed statefully.
const ROUTES: &str = r#"
request_route {
    force_rport();
    if (method == "REGISTER") {
        if (!www_authenticate("$td", "subscriber")) {
            www_challenge("$td", "0");
            exit;
        }
        save("location");
        exit;
    }
    if (method == "MESSAGE") {
        if (!proxy_authenticate("$fd", "subscriber")) {
            proxy_challenge("$fd", "0");
            exit;
        }
        consume_credentials();
        if (!lookup("location")) {
            sl_send_reply("480", "Not Signed In");
            exit;
        }
        t_relay();
        exit;
    }
    sl_send_reply("405", "Method Not Allowed");
}
"#;
