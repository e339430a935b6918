//! `cargo xtask pool`: Enterprise Edition on this machine: starts PostgreSQL, builds the server and becomes it.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use commpool_harness::Workspace;
use commpool_harness::command::{is_root, say};
use commpool_harness::packages::{self, Consent};
use commpool_harness::postgres::{self, Cluster, Settings};

use crate::run;

/// Database of the pool.
const DATABASE: &str = "commpool";

/// Options of `cargo xtask pool`: those of `run`, and how many front ends.
#[derive(Args)]
#[command(after_help = run::AFTER_HELP)]
#[group(skip)]
pub(crate) struct Options {
    /// How many front ends share the address. Front end K alone is reached at PORT+4K, by TLS at the port after that;
    /// health and metrics are one further
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    front_ends: u16,
    /// Installs PostgreSQL without asking where it is missing (as when CI is set).
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    run: run::Options,
}

/// Builds the server and starts its database, then replaces this process by the server, so that signals and exit codes
/// are the server's own. The database ends after it.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    install(Consent::from_flag(options.yes))?;
    let folder = folder(options.run.data.as_deref())?;
    let program = run::build(workspace, options.run.release)?;
    say(&format!("PostgreSQL is started, its data in {}", folder.join("database").display()));
    let cluster =
        Cluster::start(&Settings { durable: true, folder: Some(folder.join("database")), ..Settings::default() })?;
    cluster.make_database(DATABASE)?;
    let served = cluster.leave()?;
    let mut arguments = options.run.arguments(Some(&folder));
    arguments.extend(["--front-ends".to_owned(), options.front_ends.to_string()]);
    arguments.extend(["--postgres".to_owned(), served.address]);
    arguments.extend(["--postgres-password".to_owned(), served.password.display().to_string()]);
    run::become_server(&program, &arguments)
}

/// Sees to PostgreSQL's programs.
fn install(consent: Consent) -> Result<()> {
    let Err(error) = postgres::programs() else { return Ok(()) };
    if !is_root() || std::env::var_os(postgres::PROGRAMS_VARIABLE).is_some() {
        return Err(error);
    }
    let package = postgres::PACKAGE;
    if !consent.allows(&format!("Debian package to be installed (no service of its is started): {package}")) {
        return Err(error);
    }
    packages::install(&[package])?;
    postgres::programs().map(drop)
}

/// The data folder, made if it is missing; PostgreSQL's user must get through to his part of it.
fn folder(given: Option<&Path>) -> Result<PathBuf> {
    let folder = match given {
        Some(folder) => std::path::absolute(folder)?,
        None if is_root() => PathBuf::from("/var/lib/commpool-pool"),
        None => data_of_user().context("no home folder: name a data folder with --data FOLDER")?,
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(&folder)
        .with_context(|| format!("cannot make {}; choose another with --data FOLDER", folder.display()))?;
    let folder = fs::canonicalize(&folder)?;
    let closed = |part: &&Path| fs::metadata(part).is_ok_and(|known| known.mode() & 0o001 == 0);
    match folder.ancestors().find(closed) {
        Some(part) if is_root() => bail!(
            "PostgreSQL's own user must get through {}, and nobody does but its owner; choose another folder with --data",
            part.display()
        ),
        _ => Ok(folder),
    }
}

fn data_of_user() -> Option<PathBuf> {
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let data = data.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share")));
    data.map(|data| data.join("commpool-pool"))
}
