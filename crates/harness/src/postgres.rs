//! A PostgreSQL of our own for tests and developers: Debian's programs, a folder that goes with it, loopback only.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process};

use crate::command::{is_root, output, output_of, succeeds};
use crate::process::Process;
use crate::skip::not_run;
use crate::wait;

/// Debian package with the programs.
pub const PACKAGE: &str = "postgresql-15";

/// Names the folder of `initdb` and `postgres`, in place of Debian's.
pub const PROGRAMS_VARIABLE: &str = "COMMPOOL_POSTGRES_BIN";

/// Name of the superuser.
pub const SUPERUSER: &str = "postgres";

const DEBIAN: &str = "/usr/lib/postgresql/15/bin";

/// User whom Debian's package makes; root cannot run the server.
const USER: &str = "postgres";

/// Ticks of a second in the kernel's accounts, the same on every machine.
const TICKS: u64 = 100;

/// How long a server before ours may take to end.
const FREE: Duration = Duration::from_secs(10);

/// How long the server may take to start: it may have a crash to recover from.
const START: Duration = Duration::from_secs(60);

/// What a server is to be like.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Whether commits reach the disk. Without it a server is much quicker, and lasts as long as the machine runs.
    pub durable: bool,
    /// Folder that stays when the server goes; none: a temporary one.
    pub folder: Option<PathBuf>,
    /// Further lines of `postgresql.conf`.
    pub lines: Vec<String>,
    /// Certificate chain and key (PEM): with TLS.
    pub tls: Option<(String, String)>,
}

/// A server with all its processes; it ends when this is dropped, and when our own program ends in any way.
#[derive(Debug)]
pub struct Cluster {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    password: String,
    server: Option<Process>,
    /// Clears up when its standard input ends, so after our own death too.
    keeper: Option<Child>,
}

/// A server that was left to another program.
#[derive(Clone, Debug)]
pub struct Served {
    /// Address and port.
    pub address: String,
    /// File with the superuser's password.
    pub password: PathBuf,
}

/// Folder of the server's programs.
///
/// # Errors
/// When they are not there; the message names the package.
pub fn programs() -> Result<PathBuf> {
    let folder = std::env::var_os(PROGRAMS_VARIABLE).filter(|value| !value.is_empty());
    let folder = folder.map_or_else(|| DEBIAN.into(), PathBuf::from);
    for program in ["initdb", "postgres", "psql"] {
        if !folder.join(program).is_file() {
            bail!(
                "{} has no {program}: install the package {PACKAGE}, or set {PROGRAMS_VARIABLE} to the folder that has it",
                folder.display()
            );
        }
    }
    Ok(folder)
}

/// Whether a test that needs a server can be run; says so if not.
///
/// # Panics
/// Under CI, where nothing may be left out.
#[must_use]
pub fn can_run(test: &str) -> bool {
    programs().map_err(|error| not_run(test, &error.to_string())).is_ok()
}

impl Cluster {
    /// Makes a server and starts it.
    ///
    /// # Errors
    /// When the programs are missing, or fail; the message shows what they said.
    pub fn start(settings: &Settings) -> Result<Self> {
        let folder = settings.folder.clone().unwrap_or_else(temporary_folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // The server's user must get through; what is secret lies in its own folder.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        let mut cluster = Self {
            programs: programs()?,
            port: wait::free_port()?,
            password: password(&folder)?,
            server: None,
            keeper: None,
            folder,
        };
        cluster.until_free()?;
        cluster.keeper = Some(cluster.keeper(settings.folder.is_none())?);
        if !cluster.data().join("PG_VERSION").exists() {
            cluster.make().context("initdb failed")?;
        }
        cluster.configure(settings)?;
        cluster.start_again()?;
        Ok(cluster)
    }

    /// Starts a server that was stopped or killed, on its folder and port.
    ///
    /// # Errors
    /// When it does not take connections in time; the message shows the end of its log.
    pub fn start_again(&mut self) -> Result<()> {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data());
        let mut server = Process::start("postgres", &self.folder, &mut command)?;
        let started = wait::until("the database's first answer", START, || {
            if let Some(status) = server.try_status()? {
                bail!("postgres ended: {status}");
            }
            Ok(succeeds(self.psql("postgres").args(["-c", "select 1"])).then_some(()))
        });
        started.with_context(|| server.text(crate::process::Stream::Err))?;
        self.server = Some(server);
        Ok(())
    }

    /// Ends it in order: clients are cut off, what was committed is written.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut server) = self.server.take() {
            self.resume();
            server.signal(Signal::INT)?;
            server.wait(START)?;
        }
        Ok(())
    }

    /// Ends all its processes at once, as a power failure would.
    ///
    /// # Errors
    /// When the main process does not end.
    pub fn kill9(&mut self) -> Result<()> {
        if let Some(mut server) = self.server.take() {
            // The main process first: else it would notice the others' deaths and begin to recover.
            let others = children(server.pid());
            server.signal(Signal::KILL)?;
            send(&others, Signal::KILL);
            server.wait(START)?;
        }
        Ok(())
    }

    /// Lets all its processes stand still: connections stay, nothing is answered.
    pub fn pause(&self) {
        // The main process first, so that no new one comes up meanwhile.
        send(&self.main(), Signal::STOP);
        send(&self.processes(), Signal::STOP);
    }

    /// Lets them go on.
    pub fn resume(&self) {
        send(&self.processes(), Signal::CONT);
    }

    /// Leaves the server to the program that our process becomes next: it ends when that one has ended, and all that it
    /// started.
    ///
    /// # Errors
    /// When the system does not let the program inherit it.
    pub fn leave(mut self) -> Result<Served> {
        let keeper =
            self.keeper.as_ref().and_then(|keeper| keeper.stdin.as_ref()).context("nobody keeps the server")?;
        fcntl_setfd(keeper, FdFlags::empty()).context("the server cannot be left to another program")?;
        let served =
            Served { address: format!("{}:{}", self.host(), self.port), password: self.folder.join("password") };
        std::mem::forget((self.server.take(), self.keeper.take()));
        Ok(served)
    }

    /// Makes a database, unless it is there.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn make_database(&self, name: &str) -> Result<()> {
        let known = self.sql(SUPERUSER, &format!("select 1 from pg_database where datname = '{name}'"))?;
        if known.is_empty() { self.sql(SUPERUSER, &format!("create database {name}")).map(drop) } else { Ok(()) }
    }

    /// Where it listens: an address of loopback.
    #[must_use]
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// Port there.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's password.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Carries out statements as the superuser; gives what they answer, a row a line, columns parted by `|`.
    ///
    /// # Errors
    /// When one of them fails.
    pub fn sql(&self, database: &str, statements: &str) -> Result<String> {
        output_of(self.psql(database).args(["-f", "-"]), statements.as_bytes())
    }

    /// CPU time of all its processes so far.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        // The ended ones are in the account of the main process.
        let main: u64 = self.main().iter().map(|pid| ticks(*pid, 4)).sum();
        let others: u64 = self.main().iter().flat_map(|pid| children(*pid)).map(|pid| ticks(pid, 2)).sum();
        Duration::from_millis((main + others) * 1000 / TICKS)
    }

    /// Folder of its files.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Waits until nobody serves the folder: a server that was left to another program may still be closing it.
    fn until_free(&self) -> Result<()> {
        let file = self.data().join("postmaster.pid");
        let holder = || -> Option<u32> {
            let pid: u32 = fs::read_to_string(&file).ok()?.lines().next()?.trim().parse().ok()?;
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            name.starts_with("postgres").then_some(pid)
        };
        let free = wait::until("the end of the server before", FREE, || Ok(holder().is_none().then_some(())));
        free.with_context(|| {
            format!("{} is in use by process {:?}", self.folder.display(), holder().unwrap_or_default())
        })
    }

    fn main(&self) -> Vec<u32> {
        self.server.iter().map(Process::pid).collect()
    }

    fn processes(&self) -> Vec<u32> {
        self.main().into_iter().flat_map(|pid| [pid].into_iter().chain(children(pid))).collect()
    }

    /// A program of the server under the user that may run it.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", USER, "--regid", USER, "--init-groups", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC").current_dir("/");
        command
    }

    fn psql(&self, database: &str) -> Command {
        let mut command = Command::new(self.programs.join("psql"));
        command
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", self.host(), "-U", SUPERUSER])
            .args(["-p", &self.port.to_string(), "-d", database])
            .env("PGPASSWORD", &self.password)
            .env("PGCONNECT_TIMEOUT", "5");
        command
    }

    fn make(&self) -> Result<()> {
        let data = self.data();
        fs::create_dir_all(&data)?;
        let file = self.folder.join("password");
        own(&data)?;
        own(&file)?;
        let mut command = self.command("initdb");
        command.args(["-U", SUPERUSER, "-A", "scram-sha-256", "-E", "UTF8", "--locale", "C.UTF-8", "--no-sync", "-D"]);
        output(command.arg(&data).arg("--pwfile").arg(&file)).map(drop)
    }

    fn configure(&self, settings: &Settings) -> Result<()> {
        let mut text = format!(
            "listen_addresses = '{}'\nport = {}\nunix_socket_directories = ''\nmax_connections = 300\n\
             shared_buffers = 64MB\nlog_destination = stderr\nlogging_collector = off\n",
            self.host(),
            self.port
        );
        if !settings.durable {
            text.push_str("fsync = off\nfull_page_writes = off\n");
        }
        if let Some((chain, key)) = &settings.tls {
            for (name, content) in [("server.crt", chain), ("server.key", key)] {
                let path = self.data().join(name);
                fs::write(&path, content)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
                own(&path)?;
            }
            text.push_str("ssl = on\n");
        }
        for line in &settings.lines {
            let _ = writeln!(text, "{line}");
        }
        fs::write(self.data().join("postgresql.auto.conf"), text)?;
        Ok(())
    }

    /// A shell that waits for the end of its input, which is ours alone, and then clears up.
    fn keeper(&self, remove: bool) -> Result<Child> {
        // Bounded: an ended process that nobody asks about looks as if it lived.
        let script = "cat >/dev/null; [ \"$1\" = keep ] && how=INT || how=QUIT; \
                      read pid < \"$0/data/postmaster.pid\" && kill -\"$how\" \"$pid\" && \
                      for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do \
                      [ -e \"$0/data/postmaster.pid\" ] && kill -0 \"$pid\" && sleep 0.1; done; \
                      [ \"$1\" = keep ] || rm -rf \"$0\"";
        Command::new("sh")
            .args(["-c", script])
            .arg(&self.folder)
            .arg(if remove { "remove" } else { "keep" })
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("`sh` cannot be started")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.resume();
        let _ = self.stop();
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

fn temporary_folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("commpool-postgres-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    std::env::temp_dir().join(name)
}

/// The superuser's password: kept in the folder, made at first.
fn password(folder: &Path) -> Result<String> {
    let file = folder.join("password");
    if !file.exists() {
        let mut octets = [0; 16];
        std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut octets)?;
        let text = octets.iter().fold(String::new(), |text, octet| format!("{text}{octet:02x}"));
        fs::write(&file, text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    }
    fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
}

/// Gives a file to the user who runs the server.
fn own(path: &Path) -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let id = |kind: &str| -> Result<u32> { Ok(output(Command::new("id").args([kind, USER]))?.parse()?) };
    chown(path, Some(id("-u")?), Some(id("-g")?)).with_context(|| format!("cannot give away {}", path.display()))
}

/// Processes that a process has started and that have not ended.
fn children(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|pid| field(*pid, 1) == Some(u64::from(parent))).collect()
}

/// A numeric field of a process's status, counted from its state, which is 0.
fn field(pid: u32, place: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(place)?.parse().ok()
}

/// The first so many of: user and system time, the same of the ended children.
fn ticks(pid: u32, kinds: usize) -> u64 {
    (11..11 + kinds).filter_map(|place| field(pid, place)).sum()
}

/// Sends a signal to processes; those that have ended meanwhile do not mind.
fn send(pids: &[u32], signal: Signal) {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
        let _ = kill_process(pid, signal);
    }
}
