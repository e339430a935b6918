//! A store of a test's own that is filled from a directory by the real `commpool-replicator`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use commpool_harness::Workspace;
use commpool_harness::directory::{Access, Directory, Kind, Place, Settings};
use commpool_harness::postgres;
use commpool_harness::process::{Process, Stream};
use commpool_harness::wait;
use commpool_model::directory::{Outcome, RunResult};
use rusqlite::{Connection, OpenFlags};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::pool::{self, Pool};
use crate::server::{self, DOMAIN, Server};

/// How long one command of the replicator may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Exit codes of the replicator, as its help tells them.
pub mod exit {
    /// Done, or nothing to do.
    pub const DONE: i32 = 0;
    /// Failed, with a reason in the outcome.
    pub const FAILED: i32 = 1;
    /// `plan`: there is something to do.
    pub const CHANGES: i32 = 10;
    /// Held: too many would lose the service.
    pub const HELD: i32 = 11;
    /// Another run is active.
    pub const BUSY: i32 = 12;
}

/// Everything about a user that came from a directory, but for what differs from store to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Whether he may sign in.
    pub on: bool,
    /// Name for people.
    pub name: String,
    /// Telephone number, title, company, office.
    pub card: [String; 4],
    /// Whether he was not found at the last run and will be removed.
    pub lapsed: bool,
}

/// A directory of the kind on an address of this test's own, with a crowd.
///
/// # Errors
/// When it does not start.
pub fn directory(kind: Kind, crowd: u32) -> Result<Directory> {
    let std::net::IpAddr::V4(address) = server::own_address() else { anyhow::bail!("no IPv4 address") };
    let settings = Settings { crowd, ..Settings::new(Place::here(address), DOMAIN) };
    Directory::start(&Workspace::find()?, kind, &settings)
}

/// The section `directory` of a configuration, to be changed as a test likes.
#[derive(Clone, Debug)]
pub struct Section {
    /// Servers.
    pub urls: Vec<String>,
    /// Where users are looked for.
    pub base_dn: String,
    /// Which entries are users; empty: as by default.
    pub filter: String,
    /// File with the name to bind as.
    pub bind_dn_file: PathBuf,
    /// File with the password.
    pub password_file: PathBuf,
    /// File with the CA.
    pub ca_file: PathBuf,
    /// Seconds of silence after which a server is given up.
    pub timeout: u32,
    /// Entries asked for at once.
    pub page: u32,
    /// Lines below `mapping`.
    pub mapping: String,
    /// Lines below `removal`.
    pub removal: String,
}

impl Section {
    /// What reads a directory as its people are made.
    #[must_use]
    pub fn of(access: &Access) -> Self {
        Self {
            urls: vec![access.ldaps.clone()],
            base_dn: access.kind.base().to_owned(),
            filter: String::new(),
            bind_dn_file: access.bind_dn_file.clone(),
            password_file: access.password_file.clone(),
            ca_file: access.ca_file.clone(),
            timeout: 10,
            page: 500,
            mapping: match access.kind {
                Kind::Samba => String::new(),
                Kind::OpenLdap => {
                    "sipAddress: [labSipAddress, mail]\nenabled: {attribute: labSipEnabled}\ncompany: o\n".to_owned()
                }
            },
            removal: String::new(),
        }
    }

    /// As YAML; Standard Edition must be told when it reads, and is told: once a month.
    #[must_use]
    pub fn yaml(&self, standard: bool) -> String {
        let urls = self.urls.iter().map(|url| format!("\"{url}\"")).collect::<Vec<_>>().join(", ");
        let mut text = "directory:\n".to_owned();
        if standard {
            text.push_str("  schedule: {cron: \"@monthly\"}\n");
        }
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "  ldap:\n    urls: [{urls}]\n    baseDN: \"{}\"\n    bindDNFile: {}\n    passwordFile: {}\n    caFile: {}\n    \
             timeoutSeconds: {}\n    pageSize: {}\n",
            self.base_dn,
            self.bind_dn_file.display(),
            self.password_file.display(),
            self.ca_file.display(),
            self.timeout,
            self.page
        );
        if !self.filter.is_empty() {
            let _ = writeln!(text, "    filter: \"{}\"", self.filter);
        }
        for (name, lines) in [("mapping", &self.mapping), ("removal", &self.removal)] {
            if !lines.is_empty() {
                let _ = writeln!(text, "  {name}:");
                lines.lines().for_each(|line| text.push_str(&format!("    {line}\n")));
            }
        }
        text
    }
}

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A pool of one front end with PostgreSQL, to which the replicator signs in by its own login.
    Postgres,
    /// Standard Edition's SQLite.
    Sqlite,
}

/// A store with what keeps it.
#[derive(Debug)]
enum Keeper {
    Postgres(Box<Pool>),
    Sqlite(Box<Server>),
}

/// A store and the configuration of its replicator.
#[derive(Debug)]
pub struct Replica {
    keeper: Keeper,
    /// What is read, and how.
    pub section: Section,
    folder: TempDir,
}

impl Replica {
    /// A store without users but one added by hand, `alice`, and a section that reads `access`. A pool's front end does
    /// not run yet; a server of Standard Edition does.
    ///
    /// # Errors
    /// When the store cannot be made.
    pub fn new(backend: Backend, access: &Access) -> Result<Self> {
        Self::with(backend, access, postgres::Settings::default())
    }

    /// The same on a PostgreSQL that is like this.
    ///
    /// # Errors
    /// When the store cannot be made.
    pub fn with(backend: Backend, access: &Access, database: postgres::Settings) -> Result<Self> {
        let keeper = match backend {
            Backend::Postgres => Keeper::Postgres(Box::new(Pool::prepare(pool::Setup {
                front_ends: 1,
                database,
                usual_users: false,
                users: vec![by_hand()],
                ..pool::Setup::default()
            })?)),
            Backend::Sqlite => Keeper::Sqlite(Box::new(Server::with(server::Setup {
                users: vec![by_hand()],
                ..server::Setup::default()
            })?)),
        };
        let folder = tempfile::Builder::new().prefix("commpool-replica-").tempdir()?;
        Ok(Self { keeper, section: Section::of(access), folder })
    }

    /// The pool, where the store is one's.
    ///
    /// # Panics
    /// When it is not.
    pub fn pool(&mut self) -> &mut Pool {
        match &mut self.keeper {
            Keeper::Postgres(pool) => pool,
            Keeper::Sqlite(_) => panic!("the store is no pool's"),
        }
    }

    /// The server of Standard Edition, where there is one.
    ///
    /// # Panics
    /// When there is none.
    pub fn server(&mut self) -> &mut Server {
        match &mut self.keeper {
            Keeper::Sqlite(server) => server,
            Keeper::Postgres(_) => panic!("the store is a pool's"),
        }
    }

    /// A folder of the test's own.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs the server's command line on the store.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn administer(&self, arguments: &[&str]) -> Result<Output> {
        match &self.keeper {
            Keeper::Postgres(pool) => pool.command(arguments),
            Keeper::Sqlite(server) => server.command(arguments),
        }
    }

    /// The same, demanding success; gives what it printed.
    ///
    /// # Errors
    /// When it refuses.
    pub fn administered(&self, arguments: &[&str]) -> Result<String> {
        let output = self.administer(arguments)?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A command of the replicator with the present section.
    ///
    /// # Errors
    /// When the configuration cannot be written, or the program is not built.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let (base, standard) = match &self.keeper {
            Keeper::Postgres(pool) => (pool.configuration(0)?.replace("/server-", "/replicator-"), false),
            Keeper::Sqlite(server) => (std::fs::read_to_string(&server.ready().config)?, true),
        };
        // Runs beside each other may have sections of their own.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = self.folder.path().join(format!("replicator-{}.yaml", NEXT.fetch_add(1, Ordering::Relaxed)));
        std::fs::write(&path, base + &self.section.yaml(standard))?;
        let mut command = Command::new(Workspace::find()?.binary("commpool-replicator")?);
        command.args(arguments).arg("--config").arg(path).env("TMPDIR", self.folder.path());
        command.env("COMMPOOL_LOG", "debug").stdin(Stdio::null());
        Ok(command)
    }

    /// Runs the replicator to its end; exit code, standard output, standard error.
    ///
    /// # Errors
    /// When it cannot be run or does not end.
    pub fn replicator(&self, arguments: &[&str]) -> Result<(i32, String, String)> {
        let mut process = self.begin(arguments)?;
        let status = process.wait(PATIENCE)?;
        let code = status.code().with_context(|| format!("it ended: {status}"))?;
        let (out, err) = (process.text(Stream::Out), process.text(Stream::Err));
        ensure!(!err.contains("panicked at"), "a panic in its log:\n{err}");
        let password = std::fs::read_to_string(&self.section.password_file)?;
        ensure!(!format!("{out}{err}").contains(password.trim()), "the password in its output:\n{out}{err}");
        Ok((code, out, err))
    }

    /// Starts the replicator.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn begin(&self, arguments: &[&str]) -> Result<Process> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("replicator-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Process::start(&name, self.folder.path(), &mut self.command(arguments)?)
    }

    /// One run: exit code and outcome.
    ///
    /// # Errors
    /// When it cannot be run, or prints no outcome.
    pub fn run(&self) -> Result<(i32, Outcome)> {
        let (code, out, err) = self.replicator(&["run"])?;
        Ok((code, outcome(&out).with_context(|| err)?))
    }

    /// One run that must succeed.
    ///
    /// # Errors
    /// When it does not.
    pub fn synced(&self) -> Result<Outcome> {
        let (code, outcome) = self.run()?;
        ensure!(code == exit::DONE && outcome.result == RunResult::Synced, "exit code {code}, {outcome:?}");
        Ok(outcome)
    }

    /// A plan: exit code and its steps, the summary last.
    ///
    /// # Errors
    /// When it cannot be run, or prints no JSON.
    pub fn plan(&self) -> Result<(i32, Vec<Value>)> {
        let (code, out, err) = self.replicator(&["plan", "--format", "json"])?;
        let steps = out.lines().map(|line| serde_json::from_str(line).with_context(|| format!("{line}\n{err}")));
        Ok((code, steps.collect::<Result<_>>()?))
    }

    /// Users that came from the directory, by address; those without one by `-` and their name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn users(&self) -> Result<BTreeMap<String, User>> {
        let sql = |bytes: &str| {
            format!(
                "select coalesce(address, '-' || display_name), state, {bytes}(display_name), {bytes}(phone), \
                 {bytes}(title), {bytes}(company), {bytes}(office), case when purge_at is null then 0 else 1 end \
                 from identity join account using (user_id) left join address using (user_id)"
            )
        };
        let rows: Vec<Vec<String>> = match &self.keeper {
            Keeper::Postgres(pool) => {
                let hexed = format!("set search_path = commpool; {}", sql("quote_literal"));
                let text = pool.sql(&hexed)?;
                text.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect()
            }
            Keeper::Sqlite(server) => sqlite_rows(&server.data(), &sql("quote"))?,
        };
        rows.into_iter().map(|row| user(&row)).collect()
    }

    /// Waits until nobody is at the pool's database any more: what a replicator has left behind there is then done, and
    /// counted, which PostgreSQL does for sure only at the end of a session.
    ///
    /// # Errors
    /// When somebody stays.
    pub fn deserted(&mut self) -> Result<()> {
        let others = "select count(*) from pg_stat_activity where backend_type = 'client backend' and \
                      datname = current_database() and pid <> pg_backend_pid()";
        let pool = self.pool();
        wait::until("the end of all sessions", PATIENCE, || Ok((pool.sql(others)?.trim() == "0").then_some(())))
    }

    /// Rows written so far to all tables but the lease's, by PostgreSQL's own account.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn rows_written(&mut self) -> Result<u64> {
        self.deserted()?;
        let sum = "select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) from pg_stat_user_tables \
                   where schemaname = 'commpool' and relname <> 'lease'";
        self.pool().sql(sum)?.trim().parse().context("no number")
    }

    /// Starts a run and kills it while it waits for a lock that `lock` names, such as `source in exclusive mode`; what it
    /// was about then goes on in the database or not, as it does when a process ends.
    ///
    /// # Errors
    /// When it does not come to that place.
    pub fn killed_at(&mut self, lock: &str) -> Result<()> {
        let mut run = None;
        let (this, begun) = (&*self, &mut run);
        let Keeper::Postgres(pool) = &this.keeper else { anyhow::bail!("the store is no pool's") };
        let bolted = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and \
                      datname = current_database()";
        let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and \
                       datname = current_database()";
        let comes = |what: &str, count: &str| {
            wait::until(what, PATIENCE, || Ok((pool.sql(count)?.trim() != "0").then_some(())))
        };
        std::thread::scope(|scope| {
            let bolt = scope.spawn(|| {
                // It is terminated, and says so.
                let _ = pool.sql(&format!("begin; lock table commpool.{lock}; select pg_sleep(600)"));
            });
            let killed = comes("the lock", bolted).and_then(|()| {
                let run = begun.insert(this.begin(&["run"])?);
                comes("a run at the lock", waiting)?;
                run.signal(Signal::KILL)
            });
            let open = pool.sql("select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep'");
            bolt.join().map_err(|_| anyhow::anyhow!("the lock's thread panicked"))?;
            killed.and(open).map(drop)
        })?;
        if let Some(mut run) = run {
            run.wait(PATIENCE)?;
        }
        self.deserted()
    }

    /// Whether somebody has the lease.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn leased(&mut self) -> Result<bool> {
        let held = self.pool().sql("select count(*) from commpool.lease where until > commpool_api_1.clock()")?;
        Ok(held.trim() != "0")
    }

    /// Lets the lease of a replicator that was killed run out, as time would.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn expire_lease(&mut self) -> Result<()> {
        self.pool().sql("update commpool.lease set until = 0").map(drop)
    }
}

/// The user who was added by hand, and his password.
fn by_hand() -> (String, String) {
    ("local".to_owned(), "by-hand-only-4412".to_owned())
}

/// The outcome in what a run printed.
///
/// # Errors
/// When there is none.
pub fn outcome(printed: &str) -> Result<Outcome> {
    let line = printed.lines().last().context("it printed nothing")?;
    serde_json::from_str(line).with_context(|| format!("no outcome: {line}"))
}

fn user(row: &[String]) -> Result<(String, User)> {
    let field = |number: usize| row.get(number).cloned().with_context(|| format!("field {number} of {row:?}"));
    let text = |number: usize| -> Result<String> {
        let quoted = field(number)?;
        let inner = quoted.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).unwrap_or(&quoted);
        Ok(inner.replace("''", "'"))
    };
    let user = User {
        on: field(1)? == "1",
        name: text(2)?,
        card: [text(3)?, text(4)?, text(5)?, text(6)?],
        lapsed: field(7)? == "1",
    };
    Ok((field(0)?, user))
}

/// Rows of a query of a server's database, as text.
fn sqlite_rows(data: &Path, sql: &str) -> Result<Vec<Vec<String>>> {
    let database = Connection::open_with_flags(data.join("commpool.db"), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut statement = database.prepare(sql)?;
    let columns = statement.column_count();
    let row = |row: &rusqlite::Row<'_>| {
        (0..columns)
            .map(|column| {
                Ok(match row.get::<_, rusqlite::types::Value>(column)? {
                    rusqlite::types::Value::Integer(number) => number.to_string(),
                    rusqlite::types::Value::Text(text) => text,
                    other => format!("{other:?}"),
                })
            })
            .collect()
    };
    Ok(statement.query_map([], row)?.collect::<rusqlite::Result<_>>()?)
}
