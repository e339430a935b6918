//! `cargo xtask directory`: a Samba as Active Directory and an OpenLDAP with people in them, for the User Replicator.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use commpool_harness::Workspace;
use commpool_harness::cluster::Cluster;
use commpool_harness::command::{is_root, say};
use commpool_harness::directory::{Directory, Kind, PACKAGES, Place, Settings, left, people};
use commpool_harness::packages::{self, Consent};
use serde_json::{Value, json};

/// Name of the client's network in which directories of a cluster stand.
const CLIENT: &str = "directory";

/// How long a directory may take to end.
const GRACE: Duration = Duration::from_secs(20);

/// Options of `cargo xtask directory`.
#[derive(Args)]
pub(crate) struct Options {
    /// Those beside the cluster of this name, in a network that its pods reach, instead of those of this machine.
    #[arg(long, global = true, value_name = "NAME")]
    cluster: Option<String>,
    /// One of the two only.
    #[arg(long, global = true, value_name = "DIRECTORY")]
    only: Option<Which>,
    /// Print JSON on standard output.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// Samba as a domain controller of an Active Directory.
    Samba,
    /// OpenLDAP.
    Openldap,
}

#[derive(Subcommand)]
enum Verb {
    /// Starts both with demo users, and prints how to get at them.
    Up(Up),
    /// Ends them and removes what they held.
    Down,
    /// Tells whether they run, and how to get at them.
    Status,
    /// Disables a user, as an administrator of the directory would.
    Disable {
        /// Login of the user, such as alice.
        user: String,
    },
    /// Enables a user again.
    Enable {
        /// Login of the user.
        user: String,
    },
    /// Deletes users.
    Delete {
        /// Logins of the users.
        #[arg(required = true)]
        users: Vec<String>,
    },
}

#[derive(Args)]
struct Up {
    /// Users user00000, user00001, … beside the demo users
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100_000))]
    users: u32,
    /// Address of this machine to listen on; Samba takes ports 389 and 636 of it, OpenLDAP 1389 and 1636
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.77", conflicts_with = "cluster")]
    listen: Ipv4Addr,
    /// SIP domain of the users' addresses
    #[arg(long, value_name = "NAME", default_value = "example.com")]
    domain: String,
    /// Installs missing Debian packages without asking.
    #[arg(long)]
    yes: bool,
}

/// Runs the verb.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let lab = Lab { workspace, options };
    match &options.verb {
        Verb::Up(up) => lab.up(up),
        Verb::Down => lab.down(),
        Verb::Status => lab.status(),
        Verb::Disable { user } => lab.change(|directory| directory.apply(&directory.kind().enable(user, false))),
        Verb::Enable { user } => lab.change(|directory| directory.apply(&directory.kind().enable(user, true))),
        Verb::Delete { users } => lab.change(|directory| directory.delete(users.iter().map(String::as_str))),
    }
}

/// The directories that the options mean.
struct Lab<'a> {
    workspace: &'a Workspace,
    options: &'a Options,
}

impl Lab<'_> {
    fn up(&self, up: &Up) -> Result<()> {
        prepare_machine(Consent::from_flag(up.yes))?;
        let place = self.place(up.listen)?;
        for kind in self.kinds() {
            let folder = self.folder(kind);
            if Directory::attach(kind, &folder)?.is_some() {
                say(&format!("{} runs already, as it was started; `down` ends it", kind.name()));
                continue;
            }
            let start = Instant::now();
            remove(&folder)?;
            let settings =
                Settings { folder: Some(folder.clone()), crowd: up.users, ..Settings::new(place.clone(), &up.domain) };
            let started = Directory::start(self.workspace, kind, &settings).and_then(|directory| {
                directory.add(&people::demo(&up.domain))?;
                directory.leave()
            });
            if let Err(error) = started {
                // What failed is told; what is left of the attempt goes.
                let _ = remove(&folder);
                return Err(error.context(format!("{} could not be started", kind.name())));
            }
            say(&format!("{}: ready after {:.1} s", kind.name(), start.elapsed().as_secs_f64()));
        }
        self.status()
    }

    fn down(&self) -> Result<()> {
        for kind in self.kinds() {
            let folder = self.folder(kind);
            if let Some(server) = left(&folder) {
                server.end(GRACE)?;
                say(&format!("{} has ended", kind.name()));
            } else {
                say(&format!("{} does not run", kind.name()));
            }
            remove(&folder)?;
        }
        Ok(())
    }

    fn status(&self) -> Result<()> {
        let mut all = serde_json::Map::new();
        for kind in self.kinds() {
            let directory = Directory::attach(kind, &self.folder(kind))?;
            if self.options.json {
                all.insert(kind.name().to_owned(), directory.as_ref().map_or(Ok(Value::Null), as_json)?);
            } else if let Some(directory) = directory {
                println!("{}", self.as_text(&directory)?);
            } else {
                println!("{}: down", kind.name());
            }
        }
        if self.options.json {
            println!("{}", Value::Object(all));
        }
        Ok(())
    }

    /// Makes a change in each directory that runs.
    fn change(&self, change: impl Fn(&Directory) -> Result<()>) -> Result<()> {
        let mut changed = 0;
        for kind in self.kinds() {
            if let Some(directory) = Directory::attach(kind, &self.folder(kind))? {
                change(&directory).with_context(|| format!("{} refuses", kind.name()))?;
                say(&format!("{}: done", kind.name()));
                changed += 1;
            }
        }
        if changed == 0 {
            bail!("no directory runs; `cargo xtask directory up` starts them");
        }
        Ok(())
    }

    fn kinds(&self) -> Vec<Kind> {
        match self.options.only {
            None => vec![Kind::Samba, Kind::OpenLdap],
            Some(Which::Samba) => vec![Kind::Samba],
            Some(Which::Openldap) => vec![Kind::OpenLdap],
        }
    }

    /// Where they are to stand.
    fn place(&self, listen: Ipv4Addr) -> Result<Place> {
        let Some(name) = &self.options.cluster else { return Ok(Place::here(listen)) };
        let client = Cluster::new(self.workspace, name)?.client(CLIENT)?;
        let address = client.address().parse().context("the client's network has no address")?;
        Ok(Place::within(client.namespace(), address))
    }

    /// Folder of a directory's files.
    fn folder(&self, kind: Kind) -> PathBuf {
        let name = self.options.cluster.as_ref().map_or("lab".to_owned(), |cluster| format!("lab-{cluster}"));
        self.workspace.cache().join("directory").join(name).join(kind.name())
    }

    /// How to get at a directory, for people.
    fn as_text(&self, directory: &Directory) -> Result<String> {
        let access = directory.access();
        let mut text = format!("{}: up\n", directory.kind().name());
        let bind = access.bind_dn()?;
        for (name, value) in [
            ("LDAP over TLS", access.ldaps.clone()),
            ("LDAP, StartTLS", access.ldap.clone()),
            ("base DN", directory.kind().base().to_owned()),
            ("bind DN", format!("{bind}  (in {})", access.bind_dn_file.display())),
            ("password in", access.password_file.display().to_string()),
            ("CA in", access.ca_file.display().to_string()),
            ("logs in", directory.log_folder().display().to_string()),
        ] {
            let _ = writeln!(text, "  {name:15} {value}");
        }
        let _ = writeln!(
            text,
            "  changes by hand, as LDIF on standard input, as root:\n    {}",
            directory.change_command()?
        );
        match &self.options.cluster {
            None => {
                let _ = write!(
                    text,
                    "  for a pool's configuration (Standard Edition: with schedule: {{cron: \"* * * * *\"}} below directory):\n\
                     {}  then\n    commpool-replicator --config FILE check\n    commpool-replicator --config FILE plan\n    \
                     commpool-replicator --config FILE run\n",
                    indented(&access.yaml())
                );
            }
            Some(cluster) => {
                let _ = write!(
                    text,
                    "  for a pool on the cluster:\n    cargo xtask cluster --name {cluster} exec kubectl create secret generic {secret} \
                     --from-file=bindDN={} --from-file=password={} --from-file=ca.crt={}\n{}",
                    access.bind_dn_file.display(),
                    access.password_file.display(),
                    access.ca_file.display(),
                    indented(&access.pool_yaml(&secret(directory.kind()))),
                    secret = secret(directory.kind()),
                );
            }
        }
        Ok(text)
    }
}

/// Name of the Secret that the printed lines make.
fn secret(kind: Kind) -> String {
    format!("directory-{}", kind.name())
}

/// How to get at a directory, for programs.
fn as_json(directory: &Directory) -> Result<Value> {
    let access = directory.access();
    Ok(json!({
        "ldaps": access.ldaps,
        "ldap": access.ldap,
        "baseDN": directory.kind().base(),
        "bindDN": access.bind_dn()?,
        "bindDNFile": access.bind_dn_file,
        "passwordFile": access.password_file,
        "caFile": access.ca_file,
        "directory": access.yaml(),
    }))
}

fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |all, line| all + "    " + line + "\n")
}

/// Removes a folder, if it is there.
fn remove(folder: &std::path::Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Installs what directories need of the machine, after asking.
fn prepare_machine(consent: Consent) -> Result<()> {
    if !is_root() {
        bail!("directories need root: their ports are privileged");
    }
    packages::provide(PACKAGES, consent)
}
