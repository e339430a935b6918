//! A server of a test's own: `commpool-server run` on a loopback address and a data folder that nobody else uses.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use commpool_harness::Workspace;
use commpool_harness::process::{Process, Stream};
use serde::Deserialize;
use tempfile::TempDir;

use crate::client::{Client, Device, Identity};
use crate::link::{Target, Transport};
use crate::secrets::Secrets;

/// How long a server may take to its first line; debug builds on a busy machine are slow.
const START: Duration = Duration::from_secs(60);

/// How long SIGTERM may take: the server promises 5 s.
const STOP: Duration = Duration::from_secs(5);

/// Domain of test servers.
pub const DOMAIN: &str = "commpool.test";

/// Users of test servers, with their passwords.
pub(crate) const USERS: [(&str, &str); 4] = [
    ("alice", "wonderland-7341"),
    ("bob", "can-we-fix-it-9962"),
    ("carol", "silent-night-5520"),
    ("dave", "open-the-doors-2001"),
];

/// What a server prints once it serves.
#[derive(Clone, Debug, Deserialize)]
pub struct Ready {
    /// SIP domain.
    pub domain: String,
    /// Socket addresses by transport, `management` among them.
    pub addresses: BTreeMap<String, SocketAddr>,
    /// Certificate of the authority.
    pub ca: PathBuf,
    /// Its configuration, for commands beside it.
    pub config: PathBuf,
    /// Users it made or was given.
    pub users: Vec<User>,
}

/// A user as printed.
#[derive(Clone, Debug, Deserialize)]
pub struct User {
    /// User name.
    pub user: String,
    /// Password, where the server knows it.
    pub password: Option<String>,
    /// Whether he was shut out.
    #[serde(default)]
    pub disabled: bool,
}

/// How to start a server.
#[derive(Clone, Debug)]
pub struct Setup {
    /// SIP domain.
    pub domain: String,
    /// Address to listen on.
    pub listen: IpAddr,
    /// Digest algorithms offered; the server's own default when `None`.
    pub digest: Option<String>,
    /// Users and passwords; with none the server makes its demo users.
    pub users: Vec<(String, String)>,
    /// Data folder; one of the test's own when `None`.
    pub data: Option<PathBuf>,
    /// Path of the server; the one built with the tests when `None`.
    pub binary: Option<PathBuf>,
    /// Filter of the log.
    pub log: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            domain: DOMAIN.to_owned(),
            listen: own_address(),
            digest: None,
            users: USERS.iter().map(|(user, password)| ((*user).to_owned(), (*password).to_owned())).collect(),
            data: None,
            binary: None,
            log: "debug".to_owned(),
        }
    }
}

/// A running server. Dropping it kills it; [`Server::finish`] ends it as an administrator would and looks at its log.
#[derive(Debug)]
pub struct Server {
    process: Process,
    setup: Setup,
    ready: Ready,
    secrets: Secrets,
    folder: TempDir,
}

impl Server {
    /// Starts a server with the usual users and waits until it serves.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start() -> Result<Self> {
        Self::with(Setup::default())
    }

    /// Starts a server and waits until it serves.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn with(setup: Setup) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("commpool-test-").tempdir()?;
        let secrets = Secrets::default();
        setup.users.iter().for_each(|(_, password)| secrets.add("password", password));
        let (process, ready) = launch(&setup, folder.path(), 0)?;
        ready.users.iter().filter_map(|user| user.password.as_ref()).for_each(|known| secrets.add("password", known));
        Ok(Self { process, setup, ready, secrets, folder })
    }

    /// What it printed.
    #[must_use]
    pub const fn ready(&self) -> &Ready {
        &self.ready
    }

    /// How it was started.
    #[must_use]
    pub const fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Its data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        data_folder(&self.setup, self.folder.path())
    }

    /// A folder of the test's own, gone with the server.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process.
    #[must_use]
    pub const fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its process id, also that of its group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What clients must keep secret so far.
    #[must_use]
    pub const fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// What it logged since its last start.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.text(Stream::Err)
    }

    /// Where clients of a transport find it.
    ///
    /// # Errors
    /// When it does not serve that transport.
    pub fn target(&self, transport: Transport) -> Result<Target> {
        let address = *self.ready.addresses.get(transport.name()).with_context(|| format!("no {transport} address"))?;
        Ok(Target {
            transport,
            address,
            server_name: self.ready.domain.clone(),
            ca: Some(self.ready.ca.clone()),
            network: None,
        })
    }

    /// A user by name.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn identity(&self, user: &str) -> Result<Identity> {
        let given = self.setup.users.iter().find(|(name, _)| name == user).map(|(_, password)| password.clone());
        let made = || self.ready.users.iter().find(|one| one.user == user).and_then(|one| one.password.clone());
        let password = given.or_else(made).with_context(|| format!("no user {user}"))?;
        Ok(Identity { user: user.to_owned(), password, domain: self.ready.domain.clone() })
    }

    /// Address of record of a user.
    #[must_use]
    pub fn aor(&self, user: &str) -> String {
        format!("sip:{user}@{}", self.ready.domain)
    }

    /// A client of a user, connected and not signed in.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn client(&self, user: &str, transport: Transport) -> Result<Client> {
        self.device(user, transport, Device::Plain).await
    }

    /// The same with a device that names itself.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn device(&self, user: &str, transport: Transport, device: Device) -> Result<Client> {
        Client::connect(&self.identity(user)?, &self.target(transport)?, device, &self.secrets).await
    }

    /// A client of a user, signed in.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn signed_in(&self, user: &str, transport: Transport) -> Result<Client> {
        let client = self.client(user, transport).await?;
        client.sign_in().await?;
        Ok(client)
    }

    /// Processor time of the server so far.
    ///
    /// # Errors
    /// When it has ended.
    pub fn processor_time(&self) -> Result<Duration> {
        crate::cpu::time_of_group(self.process.pid())
    }

    /// Runs the server's command line beside it, on its data.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn command(&self, arguments: &[&str]) -> Result<std::process::Output> {
        let mut command = Command::new(binary(&self.setup)?);
        command.args(arguments).arg("--config").arg(&self.ready.config);
        command.stdin(Stdio::null()).output().context("commpool-server cannot be run")
    }

    /// Ends it by SIGTERM, demands a clean end in time and a log without secrets.
    ///
    /// # Errors
    /// When one of these is not so.
    pub fn finish(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let (status, took) = self.process.stop(STOP)?;
        ensure!(status.success(), "the server ended with {status} after {took:?}:\n{}", self.log());
        let leaks = self.secrets.found_in(&self.log());
        ensure!(leaks.is_empty(), "secrets in the log:\n{}", leaks.join("\n"));
        ensure!(!self.log().contains("panicked at"), "a panic in the log:\n{}", self.log());
        Ok(())
    }

    /// Ends it by SIGTERM and starts it again on the same data and addresses.
    ///
    /// # Errors
    /// When it does not end cleanly or does not come up again.
    pub fn restart(&mut self) -> Result<()> {
        self.end()?;
        self.revive()
    }

    /// Kills it as a crash does and starts it again.
    ///
    /// # Errors
    /// When it does not come up again.
    pub fn crash(&mut self) -> Result<ExitStatus> {
        self.process.signal(rustix::process::Signal::KILL)?;
        let status = self.process.wait(STOP)?;
        self.revive()?;
        Ok(status)
    }

    fn revive(&mut self) -> Result<()> {
        let number = RUNS.fetch_add(1, Ordering::Relaxed) + 1;
        let (process, ready) = launch(&self.setup, self.folder.path(), number)?;
        ensure!(ready.addresses == self.ready.addresses, "other addresses after a restart: {ready:?}");
        (self.process, self.ready) = (process, ready);
        Ok(())
    }
}

/// Starts counted, so that each has log files of its own.
static RUNS: AtomicU32 = AtomicU32::new(0);

fn launch(setup: &Setup, folder: &Path, number: u32) -> Result<(Process, Ready)> {
    let mut command = run_command(setup, folder)?;
    let mut process = Process::start(&format!("server-{number}"), folder, &mut command)?;
    let line = process.wait_for_line(Stream::Out, START, |line| line.starts_with('{'))?;
    let ready: Ready = serde_json::from_str(&line).with_context(|| format!("unexpected line {line}"))?;
    Ok((process, ready))
}

/// `commpool-server run` as a setup wants it.
///
/// # Errors
/// When the server is not built.
pub fn run_command(setup: &Setup, folder: &Path) -> Result<Command> {
    let mut command = Command::new(binary(setup)?);
    command.args(["run", "--json", "--domain", &setup.domain, "--listen", &setup.listen.to_string()]);
    command.arg("--data").arg(data_folder(setup, folder));
    for (user, password) in &setup.users {
        command.arg("--user").arg(format!("{user}:{password}"));
    }
    if let Some(digest) = &setup.digest {
        command.args(["--digest", digest]);
    }
    command.env("COMMPOOL_LOG", &setup.log);
    Ok(command)
}

fn data_folder(setup: &Setup, folder: &Path) -> PathBuf {
    setup.data.clone().unwrap_or_else(|| folder.join("data"))
}

/// Path of the server a setup means.
///
/// # Errors
/// When it is not built.
pub fn binary(setup: &Setup) -> Result<PathBuf> {
    match &setup.binary {
        Some(path) if path.is_file() => Ok(path.clone()),
        Some(path) => bail!("{} is not there", path.display()),
        None => Workspace::find()?.binary("commpool-server"),
    }
}

/// A loopback address for one server: the process id in its lower half, a counter above, so that the tests of several
/// programs run beside each other with the same ports.
#[must_use]
pub fn own_address() -> IpAddr {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let [.., count] = (1 + COUNTER.fetch_add(1, Ordering::Relaxed) % 250).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, count, high, low))
}
