//! `run`: Standard Edition on one machine in one command.

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
    StoreConfig,
};
use commpool_store::Store;
use commpool_store::ops::Outcome;
use commpool_store::ops::credentials;
use zeroize::Zeroizing;

use super::accounts::{add, call, set_password};
use super::serve::{boot_or_explain, explain, runtime, start_logs, stop_on_signal};
use super::{Done, EXIT_ADDRESS, EXIT_DATA, EXIT_OTHER, EXIT_USAGE, Failure, passwords};
use crate::pki;

const DEFAULT_PORT: u16 = 5060;
const DEMO_USERS: [&str; 2] = ["alice", "bob"];
const MEND_ADDRESS: &str =
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
    /// A user instead of the demo users; as often as wanted
    #[arg(long = "user", value_name = "NAME:PASSWORD")]
    users: Vec<String>,
    /// Digest algorithms offered, strongest first
    #[arg(long, value_name = "LIST", default_value = "SHA-256,MD5", value_delimiter = ',')]
    digest: Vec<String>,
    /// Print one line of JSON on standard output once it serves
    #[arg(long)]
    json: bool,
}

/// A user whose password is known and shown.
struct Known {
    address: Address,
    password: Zeroizing<String>,
}

pub(super) fn run(arguments: &Arguments) -> Done {
    let addresses = addresses(arguments.listen.as_deref())?;
    let folder = data_folder(arguments.data.clone())?;
    let domain = domain(&arguments.domain)?;
    let wanted = wanted_users(&arguments.users, &domain)?;
    let digest = digest(&arguments.digest)?;
    // The lock comes before anything in the folder is changed: another run may be using it.
    let config = config(&folder, &domain, &addresses, digest)?;
    start_logs(&config.log);
    let lock =
        commpool_store::lock_folder(&folder).map_err(|e| Failure::new(EXIT_DATA, format!("{e} (--data FOLDER)")))?;
    let own = prepare(&folder, &domain, &addresses)?;
    pki::write_file(&folder.join("config.yaml"), &yaml(&config)?, 0o600)?;
    drop(lock);
    runtime()?.block_on(async {
        let booted = boot_or_explain(config, MEND_ADDRESS)?;
        let users = users(booted.store(), &folder, wanted, &domain).await?;
        let stop = stop_on_signal().map_err(|e| Failure::new(EXIT_OTHER, e.to_string()))?;
        let shown = Shown { addresses: &addresses, domain: &domain, ca: &own.ca, folder: &folder, users: &users };
        let tell = || if arguments.json { println!("{}", shown.json()) } else { shown.print() };
        booted.serve(None, stop, tell).await.map_err(|e| explain(&e, MEND_ADDRESS))
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

fn at(address: SocketAddr, offset: u16) -> SocketAddr {
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

fn config(
    folder: &Path,
    domain: &str,
    addresses: &[SocketAddr],
    digest: Vec<DigestAlgorithm>,
) -> Result<PoolConfig, Failure> {
    let first = addresses.first().copied().ok_or_else(|| Failure::new(EXIT_USAGE, "no address to listen on"))?;
    let plain: Vec<_> = addresses.to_vec();
    let tls = addresses.iter().map(|a| at(*a, 1)).collect();
    let config = PoolConfig {
        pool: "local".to_owned(),
        edition: Edition::Standard,
        sip_domains: vec![domain.to_owned()],
        listeners: Listeners { udp: plain.clone(), tcp: plain, tls },
        outward: Outward::default(),
        tls: Some(commpool_model::config::TlsFiles {
            certificate_file: folder.join("tls.crt"),
            key_file: folder.join("tls.key"),
        }),
        key_file: folder.join("pool.key"),
        store: StoreConfig { sqlite: Some(SqliteStore { folder: folder.to_owned() }), postgres: None },
        peers: None,
        drain: Drain::default(),
        authentication: Authentication { digest },
        policy: Policy::default(),
        management: Some(at(first, 2)),
        log: LogConfig::default(),
    };
    // The same checks as for a file: what a flag broke is said in the same words.
    PoolConfig::from_yaml(&yaml(&config)?).map_err(|e| Failure::new(EXIT_USAGE, e.to_string()))
}

fn yaml(config: &PoolConfig) -> Result<String, Failure> {
    config.to_yaml().map_err(|e| Failure::new(EXIT_OTHER, e.to_string()))
}

fn prepare(folder: &Path, domain: &str, addresses: &[SocketAddr]) -> Result<pki::OwnPki, Failure> {
    let key_file = folder.join("pool.key");
    if !key_file.exists() {
        let mut key = Zeroizing::new([0_u8; 32]);
        getrandom::fill(&mut *key).map_err(|e| Failure::new(EXIT_OTHER, format!("no random octets: {e}")))?;
        let digits = Zeroizing::new(key.iter().map(|o| format!("{o:02x}")).collect::<String>());
        pki::write_file(&key_file, &digits, 0o600)?;
    }
    let ips: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()).collect();
    let names = if domain.parse::<IpAddr>().is_ok() { vec!["localhost".to_owned()] } else { vec![domain.to_owned()] };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    Ok(pki::ensure(folder, &names, &ips, now).context("certificate")?)
}

/// The users of this run: those given, else the demo users with the passwords they had before.
async fn users(store: &Store, folder: &Path, given: Vec<Known>, domain: &str) -> Result<Vec<Known>, Failure> {
    if !given.is_empty() {
        for user in &given {
            put(store, user).await?;
        }
        return Ok(given);
    }
    let file = folder.join("demo-users");
    let mut kept = read_demo(&file)?;
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
        let user = Known { address, password };
        put(store, &user).await?;
        users.push(user);
    }
    let lines: Vec<String> = kept.iter().map(|(a, p)| format!("{a} {}\n", p.as_str())).collect();
    pki::write_file(&file, &Zeroizing::new(lines.concat()), 0o600)?;
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

/// Adds a user, or gives an existing one this password if he has another.
async fn put(store: &Store, user: &Known) -> Done {
    let read = credentials::Request { address: user.address.to_string() };
    let Outcome::Credentials(reply) = call(store, read.into()).await? else { return Ok(()) };
    let Some(login) = reply.found else { return add(store, &user.address, "", &user.password).await };
    let wanted = passwords::verifiers(user.address.user(), user.address.domain(), &user.password);
    if wanted.iter().all(|v| login.verifiers.contains(v)) {
        return Ok(());
    }
    set_password(store, &user.address, &user.password).await
}

struct Shown<'a> {
    addresses: &'a [SocketAddr],
    domain: &'a str,
    ca: &'a Path,
    folder: &'a Path,
    users: &'a [Known],
}

impl Shown<'_> {
    fn first(&self) -> SocketAddr {
        self.addresses.first().copied().unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)))
    }

    fn json(&self) -> String {
        let first = self.first();
        let users: Vec<_> = self
            .users
            .iter()
            .map(|u| serde_json::json!({ "user": u.address.user(), "password": u.password.as_str() }))
            .collect();
        serde_json::json!({
            "domain": self.domain,
            "addresses": {
                "udp": first.to_string(), "tcp": first.to_string(), "tls": at(first, 1).to_string(),
                "management": at(first, 2).to_string(),
            },
            "ca": self.ca,
            "config": self.folder.join("config.yaml"),
            "users": users,
        })
        .to_string()
    }

    fn print(&self) {
        let first = self.first();
        println!("Commpool serves {} (Standard Edition, data in {})\n", self.domain, self.folder.display());
        for address in self.addresses {
            println!("  udp, tcp  {address}\n  tls       {}", at(*address, 1));
        }
        println!("  health    http://{}/readyz\n  CA        {}\n", at(first, 2), self.ca.display());
        for user in self.users {
            println!("  user {}  password {}", user.address.user(), user.password.as_str());
        }
        if self.domain != "localhost" {
            println!(
                "\nClients on this machine find the domain by this line in /etc/hosts:\n  {} {}",
                first.ip(),
                self.domain
            );
        }
        self.print_linphone();
        println!("\nMore users: commpool-server user add NAME --config {}", self.folder.join("config.yaml").display());
        println!("Ctrl-C ends it.");
    }

    fn print_linphone(&self) {
        let first = self.first();
        let user = self.users.first().map_or("alice", |u| u.address.user());
        println!("\nLinphone, for each user (Settings, SIP Accounts, Add a third-party account):");
        println!("  Username {user}   SIP domain {}   Password as above   Transport TLS", self.domain);
        println!("  SIP server address (Account, advanced): <sip:{}:{};transport=tls>", self.domain, first.port() + 1);
        println!("  so that it trusts the CA: quit it, and under [sip] in its linphonerc put");
        println!("  root_ca={}", self.ca.display());
        println!("  or, without the CA: Transport TCP and <sip:{}:{};transport=tcp>", self.domain, first.port());
    }
}
