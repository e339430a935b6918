//! A pool of a test's own: a real PostgreSQL and front ends as processes, each started, killed and stopped by itself.

mod front_end;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use commpool_harness::postgres::{Cluster, Settings};
use commpool_harness::wait;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

pub use self::front_end::FrontEnd;
use self::front_end::{Files, says_ready};
use crate::client::{Client, Device, Identity, unique};
use crate::link::{Target, Transport};
use crate::roamer::{Roamer, Vip};
use crate::secrets::Secrets;
use crate::server::{DOMAIN, USERS, own_address};

/// How long listing devices may take.
const LISTED: Duration = Duration::from_secs(15);

/// Database of the pool.
const DATABASE: &str = "commpool";

/// How a pool is to be.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Front ends that are started.
    pub front_ends: usize,
    /// Further ones that a test may start.
    pub spares: usize,
    /// The database.
    pub database: Settings,
    /// From SIGTERM to the end, seconds; `None`: the short way of a pool on one machine.
    pub drain: Option<u32>,
    /// Digest algorithms offered; `None`: the server's own choice.
    pub digest: Option<String>,
    /// Whether it has the usual users.
    pub usual_users: bool,
    /// Further users and their passwords.
    pub users: Vec<(String, String)>,
    /// Filter of the logs.
    pub log: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            front_ends: 3,
            spares: 0,
            database: Settings::default(),
            drain: None,
            digest: None,
            usual_users: true,
            users: Vec::new(),
            log: "debug".to_owned(),
        }
    }
}

/// What `run --prepare` printed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Prepared {
    ca: PathBuf,
    front_ends: Vec<Files>,
}

/// A pool. Dropping it kills all of it.
#[derive(Debug)]
pub struct Pool {
    front_ends: Vec<FrontEnd>,
    /// Its database.
    pub database: Cluster,
    prepared: Prepared,
    setup: Setup,
    secrets: Secrets,
    folder: TempDir,
}

impl Pool {
    /// Three front ends with the usual users, all ready.
    ///
    /// # Errors
    /// When one does not come up.
    pub fn start() -> Result<Self> {
        Self::with(Setup::default())
    }

    /// A pool with all its front ends ready.
    ///
    /// # Errors
    /// When one does not come up.
    pub fn with(setup: Setup) -> Result<Self> {
        let mut pool = Self::prepare(setup)?;
        pool.launch()?;
        Ok(pool)
    }

    /// Makes everything and starts no front end yet, so that a test can change configurations.
    ///
    /// # Errors
    /// When the database does not start or cannot be prepared.
    pub fn prepare(setup: Setup) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("commpool-pool-").tempdir()?;
        let database = Cluster::start(&setup.database)?;
        database.make_database(DATABASE)?;
        let secrets = Secrets::default();
        let (number, users) = (setup.front_ends + setup.spares, users(&setup));
        users.iter().for_each(|(_, password)| secrets.add("password", password));
        let program = crate::server::binary(&crate::server::Setup::default())?;
        let password = folder.path().join("superuser");
        std::fs::write(&password, database.password())?;
        let mut command = Command::new(&program);
        command.args(["run", "--json", "--prepare", "--domain", DOMAIN, "--front-ends", &number.to_string()]);
        command.arg("--listen").arg(SocketAddr::new(own_address(), 5060).to_string());
        command.arg("--data").arg(folder.path().join("data"));
        command.arg("--postgres").arg(format!("{}:{}", database.host(), database.port()));
        command.arg("--postgres-password").arg(&password);
        if let Some(digest) = &setup.digest {
            command.args(["--digest", digest]);
        }
        for (user, password) in &users {
            command.arg("--user").arg(format!("{user}:{password}"));
        }
        let output = command.stdin(Stdio::null()).output().context("commpool-server cannot be run")?;
        ensure!(output.status.success(), "not prepared: {}", String::from_utf8_lossy(&output.stderr));
        let prepared: Prepared = serde_json::from_slice(&output.stdout).context("unexpected answer of --prepare")?;
        let front_end = |(n, files): (usize, &Files)| FrontEnd {
            name: format!("front-end-{}", n + 1),
            files: files.clone(),
            program: program.clone(),
            log: setup.log.clone(),
            folder: folder.path().to_owned(),
            process: None,
            logs: Vec::new(),
        };
        let front_ends: Vec<_> = prepared.front_ends.iter().enumerate().map(front_end).collect();
        if let Some(seconds) = setup.drain {
            for one in &front_ends {
                one.edit("timeoutSeconds: 5", &format!("timeoutSeconds: {seconds}"))?;
            }
        }
        Ok(Self { front_ends, database, prepared, setup, secrets, folder })
    }

    /// Starts the front ends that are not spares and waits until all are ready.
    ///
    /// # Errors
    /// When one does not come up.
    pub fn launch(&mut self) -> Result<()> {
        let number = self.setup.front_ends;
        self.front_ends.iter_mut().take(number).try_for_each(FrontEnd::launch)?;
        self.front_ends.iter_mut().take(number).try_for_each(FrontEnd::until_ready)
    }

    /// Configuration of a front end, by its number from 0.
    ///
    /// # Errors
    /// When its file cannot be read.
    ///
    /// # Panics
    /// When there is none.
    pub fn configuration(&self, number: usize) -> Result<String> {
        Ok(std::fs::read_to_string(&self.front_ends[number].files.config)?)
    }

    /// A front end by its number, from 0.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn front_end(&self, number: usize) -> &FrontEnd {
        &self.front_ends[number]
    }

    /// A front end by its number, from 0.
    ///
    /// # Panics
    /// When there is none.
    pub fn front_end_mut(&mut self, number: usize) -> &mut FrontEnd {
        &mut self.front_ends[number]
    }

    /// Numbers of the front ends that say that they are ready: where a VIP would lead.
    #[must_use]
    pub fn ready(&self) -> Vec<usize> {
        (0..self.front_ends.len()).filter(|n| self.front_ends[*n].is_ready()).collect()
    }

    /// The VIP as clients of a transport see it: it leads to the front ends that say that they are ready, in turn.
    #[must_use]
    pub fn vip(&self, transport: Transport) -> Vip {
        let all = (0..self.front_ends.len()).map(|n| (self.front_ends[n].files.management, self.target(n, transport)));
        let (all, turn): (Vec<_>, _) = (all.collect(), AtomicUsize::new(0));
        Arc::new(move || {
            let ready: Vec<&Target> = all.iter().filter(|(at, _)| says_ready(*at)).map(|(_, target)| target).collect();
            let place = turn.fetch_add(1, Ordering::Relaxed) % ready.len().max(1);
            ready.get(place).map(|target| (*target).clone())
        })
    }

    /// A user's device, signed in at one front end, that comes back through the VIP whenever its connection ends.
    ///
    /// # Errors
    /// As [`Self::signed_in`].
    pub async fn roamer(&self, user: &str, at: usize, transport: Transport) -> Result<Roamer> {
        Ok(Roamer::of(self.signed_in(user, at, transport).await?, self.vip(transport)))
    }

    /// What every test's client must keep secret.
    #[must_use]
    pub const fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// A folder of the test's own.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The pool's data folder: certificates, keys, configurations.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Where a front end alone is reached.
    #[must_use]
    pub fn target(&self, number: usize, transport: Transport) -> Target {
        let files = &self.front_ends[number].files;
        let address = if transport == Transport::Tls { files.tls } else { files.tcp };
        Target { transport, address, server_name: DOMAIN.to_owned(), ca: Some(self.prepared.ca.clone()), network: None }
    }

    /// A user by name.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn identity(&self, user: &str) -> Result<Identity> {
        let known = users(&self.setup).into_iter().find(|(name, _)| name == user);
        let (user, password) = known.with_context(|| format!("no user {user}"))?;
        Ok(Identity { user, password, domain: DOMAIN.to_owned() })
    }

    /// Address of record of a user.
    #[must_use]
    pub fn aor(&self, user: &str) -> String {
        format!("sip:{user}@{DOMAIN}")
    }

    /// A device of a user, connected to one front end and not signed in.
    ///
    /// # Errors
    /// When the front end cannot be reached.
    pub async fn device(&self, user: &str, at: usize, transport: Transport, device: Device) -> Result<Client> {
        Client::connect(&self.identity(user)?, &self.target(at, transport), device, &self.secrets).await
    }

    /// A user's device, signed in at one front end; proven by the database's rows.
    ///
    /// # Errors
    /// When the front end cannot be reached or refuses, or the row says otherwise.
    pub async fn signed_in(&self, user: &str, at: usize, transport: Transport) -> Result<Client> {
        let device = Device::Instance(format!("urn:{}", unique("device")));
        let client = self.device(user, at, transport, device).await?;
        client.sign_in().await?;
        let (held, expected) = (self.where_is(user)?, self.incarnation(at)?);
        ensure!(held.contains(&expected), "{user} is at {held:?} and not at {expected}");
        Ok(client)
    }

    /// Incarnations that hold a user's live devices, by the command line that administrators use.
    ///
    /// # Errors
    /// When it fails.
    pub fn where_is(&self, user: &str) -> Result<Vec<u64>> {
        let rows = self.endpoints(user)?;
        let live = rows.iter().filter(|row| row["lostSeconds"].is_null());
        live.map(|row| row["frontEnd"].as_u64().context("no front end in a row")).collect()
    }

    /// A user's devices, as the command line shows them.
    ///
    /// # Errors
    /// When it fails.
    pub fn endpoints(&self, user: &str) -> Result<Vec<Value>> {
        // It gives up after 2 s, which a busy machine may take.
        let listed = wait::until("endpoints list", LISTED, || {
            let output = self.command(&["endpoints", "list", user, "--json"])?;
            Ok(output.status.success().then_some(output.stdout))
        });
        let text = String::from_utf8(listed?)?;
        text.lines().map(|line| serde_json::from_str(line).context("no JSON")).collect()
    }

    /// Present incarnation of a front end, by the database's rows.
    ///
    /// # Errors
    /// When it has none that lives.
    pub fn incarnation(&self, number: usize) -> Result<u64> {
        let config = std::fs::read_to_string(&self.front_ends[number].files.config)?;
        let address = config.lines().find_map(|line| line.trim().strip_prefix("advertise: "));
        let address = address.context("no address for other front ends")?;
        let live = format!("select fe from commpool.front_end where address = '{address}' and dead_since is null");
        let rows = self.sql(&format!("{live} order by lease_until desc, fe desc limit 1"))?;
        rows.trim().parse().with_context(|| format!("front end {number} has no row: {rows:?}"))
    }

    /// Carries out statements in the pool's database as its superuser.
    ///
    /// # Errors
    /// When one fails.
    pub fn sql(&self, statements: &str) -> Result<String> {
        self.database.sql(DATABASE, statements)
    }

    /// Runs the server's command line beside the pool.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn command(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(crate::server::binary(&crate::server::Setup::default())?);
        // The last one's: tests hinder the first ones.
        let files = self.prepared.front_ends.last().context("a pool without front ends")?;
        command.args(arguments).arg("--config").arg(&files.config);
        command.stdin(Stdio::null()).output().context("commpool-server cannot be run")
    }

    /// Ends all front ends by SIGTERM at once, demands clean ends in time, and logs without secrets and panics.
    ///
    /// # Errors
    /// When one of these is not so.
    pub fn finish(mut self) -> Result<()> {
        for one in &mut self.front_ends {
            one.tell_to_end()?;
        }
        let patience = Duration::from_secs(u64::from(self.setup.drain.unwrap_or(5)) + 5);
        for one in &mut self.front_ends {
            one.until_ended(patience)?;
            let log = one.all_logs();
            let leaks = self.secrets.found_in(&log);
            ensure!(leaks.is_empty(), "secrets in the log of {}:\n{}", one.name, leaks.join("\n"));
            ensure!(!log.contains("panicked at"), "a panic in the log of {}:\n{log}", one.name);
        }
        Ok(())
    }
}

fn users(setup: &Setup) -> Vec<(String, String)> {
    let usual =
        USERS.iter().filter(|_| setup.usual_users).map(|(user, password)| ((*user).to_owned(), (*password).to_owned()));
    usual.chain(setup.users.iter().cloned()).collect()
}
