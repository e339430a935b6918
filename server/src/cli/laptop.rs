//! `run`: the product on one machine in one command; Standard Edition unless a number of front ends is given.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Args;
use commpool_model::address::Address;
use commpool_model::config::{
    Authentication, DigestAlgorithm, Drain, Edition, Listeners, LogConfig, Outward, Policy, PoolConfig, SqliteStore,
    StoreConfig, TlsFiles,
};
use commpool_process::{start_logs, stop_on_signal};
use commpool_store::ops::Outcome;
use commpool_store::ops::accounts::State;
use commpool_store::ops::credentials;
use commpool_store::{FolderLock, Store, lock_folder};
use zeroize::Zeroizing;

use super::accounts::{add, call, set_password, unexpected};
use super::serve::{boot_or_explain, explain, runtime};
use super::shown::Shown;
use super::{Done, EXIT_ADDRESS, EXIT_DATA, EXIT_OTHER, EXIT_USAGE, Failure, passwords, several};
use crate::pki::{self, Purpose};

pub(super) const DEFAULT_PORT: u16 = 5060;
const DEMO_USERS: [&str; 2] = ["alice", "bob"];
pub(super) const MEND_ADDRESS: &str =
    "stop it, or choose another with --listen ADDRESS:PORT (TLS takes PORT+1, management PORT+2)";

/// `run …`
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Address to listen on, with or without a port: UDP and TCP there, TLS on the next port, health and metrics on the
    /// one after [default: 127.0.0.1:5060, and ::1 where it exists]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// SIP domain of the users
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    domain: String,
    /// Folder for database, certificates and keys [default: commpool in the user's data folder]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// A user instead of the demo users, who has this password from now on; as often as wanted
    #[arg(long = "user", value_name = "NAME:PASSWORD")]
    users: Vec<String>,
    /// Digest algorithms offered, strongest first
    #[arg(long, value_name = "LIST", default_value = "SHA-256,MD5", value_delimiter = ',')]
    digest: Vec<String>,
    /// Print one line of JSON on standard output once it serves; a user whose password was changed since has none there
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pool: several::Arguments,
}

/// A user whose password is known and shown.
#[derive(Clone)]
pub(super) struct Known {
    /// Who.
    pub(super) address: Address,
    /// The password.
    pub(super) password: Zeroizing<String>,
}

/// A user of this run as the store has him.
pub(super) struct Ready {
    /// Who.
    pub(super) address: Address,
    /// His password; `None` where somebody gave him one that is not known here.
    pub(super) password: Option<Zeroizing<String>>,
    /// Whether he was shut out.
    pub(super) disabled: bool,
}

/// What is to be served, whatever serves it.
pub(super) struct Plan {
    /// Addresses to listen on.
    pub(super) addresses: Vec<SocketAddr>,
    /// Folder of everything that stays.
    pub(super) folder: PathBuf,
    /// SIP domain.
    pub(super) domain: String,
    /// Users asked for.
    pub(super) wanted: Vec<Known>,
    digest: Vec<DigestAlgorithm>,
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Done {
    let domain = domain(&arguments.domain)?;
    let plan = Plan {
        addresses: addresses(arguments.listen.as_deref())?,
        folder: data_folder(arguments.data.clone())?,
        wanted: wanted_users(&arguments.users, &domain)?,
        digest: digest(&arguments.digest)?,
        json: arguments.json,
        domain,
    };
    match arguments.pool.wanted() {
        Some(pool) => several::run(plan, &pool),
        None => alone(plan),
    }
}

fn alone(plan: Plan) -> Done {
    // The lock comes before anything in the folder is changed: another run may be using it.
    let config = plan.checked(plan.standard())?;
    start_logs(&config.log);
    let lock = plan.lock()?;
    let own = plan.prepare()?;
    let file = plan.folder.join("config.yaml");
    pki::write_file(&file, &yaml(&config)?, 0o600)?;
    drop(lock);
    runtime()?.block_on(async {
        let booted = boot_or_explain(config, MEND_ADDRESS)?;
        let users = plan.users(booted.store()).await?;
        let stop = stop_on_signal().map_err(|e| Failure::new(EXIT_OTHER, e.to_string()))?;
        let shown = Shown { plan: &plan, ca: &own.ca, config: &file, users: &users, front_ends: &[] };
        booted.serve(None, stop, || plan.tell(&shown)).await.map_err(|e| explain(&e, MEND_ADDRESS))
    })
}

fn addresses(listen: Option<&str>) -> Result<Vec<SocketAddr>, Failure> {
    let Some(text) = listen else {
        let mut both = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT))];
        if std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            both.push(SocketAddr::from((Ipv6Addr::LOCALHOST, DEFAULT_PORT)));
        }
        return Ok(both);
    };
    let address = text
        .parse::<SocketAddr>()
        .or_else(|_| text.trim_matches(['[', ']']).parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DEFAULT_PORT)))
        .map_err(|_| Failure::new(EXIT_USAGE, format!("--listen {text}: give an IP address, or ADDRESS:PORT")))?;
    if address.port() == 0 || address.port() > u16::MAX - 2 {
        let text = format!("--listen {text}: give a port from 1 to {}; three in a row are used", u16::MAX - 2);
        return Err(Failure::new(EXIT_ADDRESS, text));
    }
    Ok(vec![address])
}

/// The address with a port further on.
pub(super) fn at(address: SocketAddr, offset: u16) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port() + offset)
}

fn data_folder(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let of_user = || {
        let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
        data.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share"))).map(|p| p.join("commpool"))
    };
    let folder = given
        .or_else(of_user)
        .ok_or_else(|| Failure::new(EXIT_DATA, "no home folder: name a data folder with --data FOLDER"))?;
    let mend = "choose a folder you may write with --data FOLDER";
    let fail = |e: std::io::Error| Failure::new(EXIT_DATA, format!("{}: {e}; {mend}", folder.display()));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(fail)?;
    let probe = folder.join(".writable");
    fs::write(&probe, b"").and_then(|()| fs::remove_file(&probe)).map_err(fail)?;
    fs::canonicalize(&folder).map_err(fail)
}

fn domain(text: &str) -> Result<String, Failure> {
    let probe = Address::new("user", text);
    probe.map(|a| a.domain().to_owned()).map_err(|e| Failure::new(EXIT_USAGE, format!("--domain {text}: {e}")))
}

fn digest(names: &[String]) -> Result<Vec<DigestAlgorithm>, Failure> {
    let parse = |name: &String| match name.to_ascii_uppercase().as_str() {
        "SHA-256" => Ok(DigestAlgorithm::Sha256),
        "MD5" => Ok(DigestAlgorithm::Md5),
        _ => Err(Failure::new(EXIT_USAGE, format!("--digest {name}: give SHA-256, MD5, or both with a comma"))),
    };
    names.iter().map(parse).collect()
}

fn wanted_users(given: &[String], domain: &str) -> Result<Vec<Known>, Failure> {
    let parse = |text: &String| {
        let (name, password) =
            text.split_once(':').ok_or_else(|| Failure::new(EXIT_USAGE, "--user: give NAME:PASSWORD".to_owned()))?;
        let address =
            Address::parse(name, Some(domain)).map_err(|e| Failure::new(EXIT_USAGE, format!("--user {name}: {e}")))?;
        if address.domain() != domain {
            return Err(Failure::new(EXIT_USAGE, format!("--user {name}: the domain is {domain} (--domain)")));
        }
        passwords::check(password).map_err(|f| Failure::new(EXIT_USAGE, format!("--user {name}: {}", f.text)))?;
        Ok(Known { address, password: Zeroizing::new(password.to_owned()) })
    };
    given.iter().map(parse).collect()
}

pub(super) fn yaml(config: &PoolConfig) -> Result<String, Failure> {
    config.to_yaml().map_err(|e| Failure::new(EXIT_OTHER, e.to_string()))
}

fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

impl Plan {
    /// The first address; the others have the same port.
    pub(super) fn first(&self) -> SocketAddr {
        self.addresses.first().copied().unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)))
    }

    /// Standard Edition.
    pub(super) fn standard(&self) -> PoolConfig {
        let plain = self.addresses.clone();
        let tls = plain.iter().map(|a| at(*a, 1)).collect();
        let in_folder = |name: &str| self.folder.join(name);
        PoolConfig {
            pool: "local".to_owned(),
            edition: Edition::Standard,
            sip_domains: vec![self.domain.clone()],
            listeners: Listeners { udp: plain.clone(), tcp: plain, tls, shared: false },
            outward: Outward::default(),
            tls: Some(TlsFiles { certificate_file: in_folder("tls.crt"), key_file: in_folder("tls.key") }),
            key_file: in_folder("pool.key"),
            store: StoreConfig { sqlite: Some(SqliteStore { folder: self.folder.clone() }), postgres: None },
            peers: None,
            directory: None,
            drain: Drain::default(),
            authentication: Authentication { digest: self.digest.clone() },
            policy: Policy::default(),
            management: Some(at(self.first(), 2)),
            log: LogConfig::default(),
        }
    }

    /// The same checks as for a file: what a flag broke is said in the same words.
    pub(super) fn checked(&self, config: PoolConfig) -> Result<PoolConfig, Failure> {
        PoolConfig::from_yaml(&yaml(&config)?).map_err(|e| Failure::new(EXIT_USAGE, e.to_string()))
    }

    /// Keeps other runs from the folder.
    pub(super) fn lock(&self) -> Result<FolderLock, Failure> {
        lock_folder(&self.folder).map_err(|e| Failure::new(EXIT_DATA, format!("{e} (--data FOLDER)")))
    }

    /// Makes the pool's key and the certificate towards clients, unless they are there.
    pub(super) fn prepare(&self) -> Result<pki::OwnPki, Failure> {
        let key_file = self.folder.join("pool.key");
        if !key_file.exists() {
            pki::write_file(&key_file, &secret::<32>()?, 0o600)?;
        }
        let ips: Vec<IpAddr> = self.addresses.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()).collect();
        let is_address = self.domain.parse::<IpAddr>().is_ok();
        let names = vec![if is_address { "localhost".to_owned() } else { self.domain.clone() }];
        self.certificate(Purpose::Clients, &names, &ips)
    }

    /// A certificate of a CA of our own.
    pub(super) fn certificate(
        &self,
        purpose: Purpose,
        names: &[String],
        addresses: &[IpAddr],
    ) -> Result<pki::OwnPki, Failure> {
        let made = pki::ensure(&self.folder, purpose, names, addresses, seconds_since_1970());
        Ok(made.context("certificate")?)
    }

    /// The users of this run: those given, with the passwords given; else the demo users, of whom only those who are
    /// missing are made, so that what an administrator changed stays changed.
    pub(super) async fn users(&self, store: &Store) -> Result<Vec<Ready>, Failure> {
        let demo = match self.wanted.as_slice() {
            [] => demo_users(&self.folder.join("demo-users"), &self.domain)?,
            _ => Vec::new(),
        };
        let mut users = Vec::new();
        for user in &self.wanted {
            users.push(put(store, user, Other::Replace).await?);
        }
        for user in &demo {
            users.push(put(store, user, Other::Keep).await?);
        }
        Ok(users)
    }

    /// Tells whoever started it how it is reached.
    pub(super) fn tell(&self, shown: &Shown<'_>) {
        if self.json { println!("{}", shown.json()) } else { shown.print() }
    }
}

/// So many random octets as hexadecimal digits.
pub(super) fn secret<const OCTETS: usize>() -> Result<Zeroizing<String>, Failure> {
    let mut octets = Zeroizing::new([0_u8; OCTETS]);
    getrandom::fill(&mut *octets).map_err(|e| Failure::new(EXIT_OTHER, format!("no random octets: {e}")))?;
    Ok(Zeroizing::new(octets.iter().map(|o| format!("{o:02x}")).collect()))
}

/// The demo users; passwords are made once and kept in a file.
fn demo_users(file: &Path, domain: &str) -> Result<Vec<Known>, Failure> {
    let mut kept = read_demo(file)?;
    let mut users = Vec::new();
    for name in DEMO_USERS {
        let address = Address::new(name, domain).map_err(|e| Failure::new(EXIT_USAGE, e.to_string()))?;
        let known = kept.iter().find(|(a, _)| *a == address.to_string()).map(|(_, p)| p.clone());
        let password = match known {
            Some(password) => password,
            None => {
                let password = passwords::made()?;
                kept.push((address.to_string(), password.clone()));
                password
            }
        };
        users.push(Known { address, password });
    }
    let lines: Vec<String> = kept.iter().map(|(a, p)| format!("{a} {}\n", p.as_str())).collect();
    pki::write_file(file, &Zeroizing::new(lines.concat()), 0o600)?;
    Ok(users)
}

fn read_demo(file: &Path) -> Result<Vec<(String, Zeroizing<String>)>, Failure> {
    let text = match fs::read_to_string(file) {
        Ok(text) => Zeroizing::new(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Failure::new(EXIT_DATA, format!("{}: {e}", file.display()))),
    };
    let _ = fs::set_permissions(file, fs::Permissions::from_mode(0o600));
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    Ok(pairs.map(|(a, p)| (a.to_owned(), Zeroizing::new(p.to_owned()))).collect())
}

/// What becomes of a password that is not the one we know.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Other {
    /// It gives way.
    Replace,
    /// It stays.
    Keep,
}

/// Adds a user who is missing. One who is there has this password afterwards, or keeps his own.
async fn put(store: &Store, user: &Known, other: Other) -> Result<Ready, Failure> {
    let read = credentials::Request { address: user.address.to_string() };
    let found = match call(store, read.into()).await? {
        Outcome::Credentials(reply) => reply.found,
        outcome => return Err(unexpected(&outcome)),
    };
    let disabled = found.as_ref().is_some_and(|login| login.state != State::On);
    let mut password = Some(user.password.clone());
    match found {
        None => add(store, &user.address, "", &user.password).await?,
        Some(login) if has(&login, user) => {}
        Some(login) if other == Other::Keep && !login.verifiers.is_empty() => password = None,
        Some(_) => set_password(store, &user.address, &user.password).await?,
    }
    Ok(Ready { address: user.address.clone(), password, disabled })
}

fn has(login: &credentials::Login, user: &Known) -> bool {
    let wanted = passwords::verifiers(user.address.user(), user.address.domain(), &user.password);
    wanted.iter().all(|v| login.verifiers.contains(v))
}
