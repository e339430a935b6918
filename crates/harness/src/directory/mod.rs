//! Real directories for tests and developers: Samba as an Active Directory's domain controller, and OpenLDAP.
//!
//! Each listens on one address only, of this machine or of a network namespace, so that several stand side by side.
//! A domain of Samba takes seconds to make; it is kept in the cache folder and copied for each server.

mod access;
mod kind;
pub mod ldif;
mod openldap;
pub mod people;
mod place;
mod samba;

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::command::{is_root, output, output_of, succeeds, which};
use crate::netns::Namespace;
use crate::pki::Authority;
use crate::process::{Left, Process, Stream};
use crate::skip::not_run;
use crate::{Workspace, wait};

pub use access::Access;
pub use kind::Kind;
pub use ldif::{Entry, Ldif};
pub use people::Person;
pub use place::Place;

/// Debian packages with all programs of both directories and their tools.
pub const PACKAGES: &[&str] = &[
    "samba-ad-dc",
    "samba-ad-provision",
    "samba-common-bin",
    "python3-samba",
    "ldb-tools",
    "slapd",
    "ldap-utils",
    "openssl",
    "iproute2",
];

/// Name under which a server proves who it is, beside its address.
pub const HOST: &str = "dc.lab.commpool.test";

/// Name of the file that tells the process of a server.
const PID_FILE: &str = "pid";

/// Name of the file that tells where it stands.
const PLACE_FILE: &str = "place";

/// How long a server may take to start on a busy machine.
const START: Duration = Duration::from_secs(60);

/// How long a server may take to end.
const STOP: Duration = Duration::from_secs(20);

/// Most entries that are written in one transaction: both servers grow slow with larger ones.
const TRANSACTION: usize = 1000;

/// What a directory is to be like.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it stands.
    pub place: Place,
    /// Folder that stays when the server goes, empty or missing at first; none: a temporary one.
    pub folder: Option<PathBuf>,
    /// SIP domain of the people in it.
    pub domain: String,
    /// How many people of a crowd ([`Person::numbered`]) it has from the beginning.
    pub crowd: u32,
    /// Names that its certificate is good for, as `DNS:…,IP:…`; none: [`HOST`] and its address.
    pub names: Option<String>,
}

impl Settings {
    /// An empty directory on an address, with people's addresses in a SIP domain.
    #[must_use]
    pub fn new(place: Place, domain: &str) -> Self {
        Self { place, folder: None, domain: domain.to_owned(), crowd: 0, names: None }
    }
}

/// A running directory. It ends when this is dropped, and when our own program ends in any way, unless it is left.
#[derive(Debug)]
pub struct Directory {
    kind: Kind,
    place: Place,
    folder: PathBuf,
    access: Access,
    server: Option<Process>,
    /// Clears up when its standard input ends, so after our own death too.
    keeper: Option<Child>,
}

/// Whether a test that needs both directories can be run; says so if not.
///
/// # Panics
/// Under CI, where nothing may be left out.
#[must_use]
pub fn can_run(test: &str) -> bool {
    let missing: Vec<&str> = ["samba", "samba-tool", "ldbmodify", "slapd", "ldapmodify", "openssl"]
        .into_iter()
        .filter(|name| which(name).is_none())
        .collect();
    let reason = match (is_root(), missing.as_slice()) {
        (true, []) => return true,
        (false, _) => "it needs root".to_owned(),
        (true, missing) => format!("it needs {}; the packages: {}", missing.join(", "), PACKAGES.join(" ")),
    };
    not_run(test, &reason);
    false
}

impl Directory {
    /// Makes a directory and starts it.
    ///
    /// # Errors
    /// When programs are missing or fail, or when a port is taken; the message shows what they said.
    pub fn start(workspace: &Workspace, kind: Kind, settings: &Settings) -> Result<Self> {
        if !is_root() {
            bail!("a directory needs root: its ports are privileged");
        }
        let folder = settings.folder.clone().unwrap_or_else(temporary_folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let folder = fs::canonicalize(&folder)?;
        // The server's own user must get through; what is secret lies in files of its own.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        let access = Access::new(kind, &settings.place, &folder);
        let mut directory = Self { kind, place: settings.place.clone(), access, server: None, keeper: None, folder };
        directory.keeper = Some(directory.keeper(settings.folder.is_none())?);
        fs::write(directory.folder.join(PLACE_FILE), directory.place.text())?;
        let (ldap, ldaps) = kind.ports();
        directory.place.check_free(&[ldap, ldaps])?;
        directory.make_certificate(settings)?;
        secret(&directory.access.password_file, &password()?)?;
        match kind {
            Kind::Samba => directory.make_samba(workspace, settings)?,
            Kind::OpenLdap => directory.make_openldap(settings)?,
        }
        directory.start_again()?;
        Ok(directory)
    }

    /// Starts one in a network namespace, where programs of that network reach it.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_in(
        workspace: &Workspace,
        kind: Kind,
        namespace: &Namespace,
        address: Ipv4Addr,
        domain: &str,
    ) -> Result<Self> {
        Self::start(workspace, kind, &Settings::new(Place::within(namespace, address), domain))
    }

    /// Starts a directory that was stopped or killed, as it was.
    ///
    /// # Errors
    /// When it does not answer in time; the message shows the end of its log.
    pub fn start_again(&mut self) -> Result<()> {
        let mut command = match self.kind {
            Kind::Samba => self.samba_command()?,
            Kind::OpenLdap => self.openldap_command()?,
        };
        let mut server = Process::start(self.kind.name(), &self.log_folder(), &mut command)?;
        fs::write(self.folder.join(PID_FILE), format!("{}\n", server.pid()))?;
        let answers = wait::until("the directory's first answer", START, || {
            if let Some(status) = server.try_status()? {
                bail!("{} ended: {status}", self.kind.name());
            }
            Ok(self.answers()?.then_some(()))
        });
        answers.with_context(|| format!("{}{}", server.text(Stream::Out), server.text(Stream::Err)))?;
        self.server = Some(server);
        Ok(())
    }

    /// How programs get at it.
    #[must_use]
    pub const fn access(&self) -> &Access {
        &self.access
    }

    /// Which one it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Folder of its logs.
    #[must_use]
    pub fn log_folder(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Makes changes, all of them or none where the server can do that (Samba), else one after the other.
    ///
    /// # Errors
    /// When one of them is refused; the message shows why.
    pub fn apply(&self, changes: &Ldif) -> Result<()> {
        let mut command = match self.kind {
            Kind::Samba => self.ldb("ldbmodify")?,
            Kind::OpenLdap => self.openldap_change()?,
        };
        output_of(&mut command, changes.changes().as_bytes()).map(drop)
    }

    /// Adds people, also many.
    ///
    /// # Errors
    /// When one of them is refused.
    pub fn add(&self, people: &[Person]) -> Result<()> {
        people.chunks(TRANSACTION).try_for_each(|some| self.apply(&entries(some, self.kind)))
    }

    /// Deletes people.
    ///
    /// # Errors
    /// When one of them is not there.
    pub fn delete<'a>(&self, logins: impl IntoIterator<Item = &'a str>) -> Result<()> {
        self.apply(&logins.into_iter().fold(Ldif::new(), |ldif, login| ldif.delete(&self.kind.dn(login))))
    }

    /// The command that makes changes read from its standard input, as one would type it as root.
    ///
    /// # Errors
    /// When its program is not there.
    pub fn change_command(&self) -> Result<String> {
        let command = match self.kind {
            Kind::Samba => self.ldb("ldbmodify")?,
            Kind::OpenLdap => self.openldap_change()?,
        };
        Ok(crate::command::shown(&command))
    }

    /// Lets it stand still: connections stay, nothing is answered.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&mut self) -> Result<()> {
        self.running()?.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&mut self) -> Result<()> {
        self.running()?.signal(Signal::CONT)
    }

    /// Ends it at once, as a power failure would.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill9(&mut self) -> Result<()> {
        let mut server = self.server.take().context("the directory does not run")?;
        server.signal(Signal::KILL)?;
        server.wait(STOP).map(drop)
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(&mut self) -> Result<()> {
        match self.server.take() {
            Some(mut server) => server.stop(STOP).map(drop),
            None => Ok(()),
        }
    }

    /// One that was left running with its folder, for looking and changing; none when nothing runs there.
    ///
    /// # Errors
    /// When the folder's files cannot be read.
    pub fn attach(kind: Kind, folder: &Path) -> Result<Option<Self>> {
        if left(folder).is_none() {
            return Ok(None);
        }
        let file = folder.join(PLACE_FILE);
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let place = Place::read(&text).with_context(|| format!("{} tells no place", file.display()))?;
        let access = Access::new(kind, &place, folder);
        Ok(Some(Self { kind, place, folder: folder.to_owned(), access, server: None, keeper: None }))
    }

    /// Lets it run on without us; [`left`] and [`Self::attach`] find it again by its folder.
    ///
    /// # Errors
    /// When it does not run.
    pub fn leave(mut self) -> Result<()> {
        let server = self.server.take().context("the directory does not run")?;
        server.leave()?.note(&self.folder.join(PID_FILE))?;
        if let Some(mut keeper) = self.keeper.take() {
            // Killed before its input ends, or it would end the server.
            keeper.kill()?;
            keeper.wait()?;
        }
        Ok(())
    }

    fn running(&mut self) -> Result<&mut Process> {
        self.server.as_mut().context("the directory does not run")
    }

    /// Whether it answers a question that anybody may ask.
    fn answers(&self) -> Result<bool> {
        let mut search = self.place.command("ldapsearch")?;
        search.args(["-x", "-H", &self.access.ldap, "-o", "nettimeout=2", "-b", "", "-s", "base", "namingContexts"]);
        Ok(succeeds(&mut search))
    }

    /// An authority of its own, and the server's certificate in `tls/server.crt`.
    fn make_certificate(&self, settings: &Settings) -> Result<()> {
        let folder = self.folder.join("tls");
        let authority = Authority::make(&folder, "ca")?;
        let own = || format!("DNS:{HOST},IP:{}", self.place.address());
        let names = settings.names.clone().unwrap_or_else(own);
        authority.issue("server", &format!("/CN={HOST}"), "serverAuth", Some(&names))
    }

    /// Writes a file of the folder with the server's paths put in: `@FOLDER@`, `@ADDRESS@`, and what else is given.
    fn write(&self, name: &str, text: &str, more: &[(&str, &str)]) -> Result<PathBuf> {
        let address = self.place.address().to_string();
        let folder = self.folder.display().to_string();
        let known = [("@FOLDER@", folder.as_str()), ("@ADDRESS@", &address)];
        let text = known.iter().chain(more).fold(text.to_owned(), |text, (mark, value)| text.replace(mark, value));
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// A shell that waits for the end of its input, which is ours alone, and then clears up.
    fn keeper(&self, remove: bool) -> Result<Child> {
        let script = "cat >/dev/null; read pid rest < \"$0/pid\" && \
                      [ \"$(readlink -f \"/proc/$pid/exe\")\" = \"$(readlink -f \"$1\")\" ] && kill -KILL -\"$pid\"; \
                      [ \"$2\" = keep ] || rm -rf \"$0\"";
        let program = match self.kind {
            Kind::Samba => "samba",
            Kind::OpenLdap => "slapd",
        };
        Command::new("sh")
            .args(["-c", script])
            .arg(&self.folder)
            .arg(which(program).with_context(|| format!("there is no program {program}"))?)
            .arg(if remove { "remove" } else { "keep" })
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("`sh` cannot be started")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Killed, and before the folder goes.
        self.server = None;
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

/// The server that was left with a folder, if it runs.
#[must_use]
pub fn left(folder: &Path) -> Option<Left> {
    Left::find(&folder.join(PID_FILE))
}

/// Entries that are to be added.
fn entries(people: &[Person], kind: Kind) -> Ldif {
    people.iter().fold(Ldif::new(), |ldif, person| ldif.insert(&person.entry(kind)))
}

fn temporary_folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("commpool-directory-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    std::env::temp_dir().join(name)
}

/// A password that every policy takes.
fn password() -> Result<String> {
    let mut octets = [0; 16];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut octets)?;
    Ok(octets.iter().fold("Lab-".to_owned(), |text, octet| format!("{text}{octet:02x}")))
}

/// Writes a file that only its owner reads.
fn secret(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// Copies a folder with the holes of its files.
fn copy(from: &Path, to: &Path) -> Result<()> {
    output(Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to)).map(drop)
}
