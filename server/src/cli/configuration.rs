//! `config check`, and reading the configuration for every other command.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use commpool_model::config::PoolConfig;

use super::{Done, EXIT_CONFIG, EXIT_DATA, Failure};

/// `config …`
#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Say whether a configuration can be served, and if not, which field is wrong and what mends it.
    Check {
        /// The file; the one of --config if absent.
        file: Option<PathBuf>,
    },
}

pub(super) fn run(path: &Path, command: &Command) -> Done {
    let Command::Check { file } = command;
    let path = file.as_deref().unwrap_or(path);
    let config = load(path)?;
    if let Some(tls) = &config.tls {
        crate::transport::tls::Identity::load(tls).map_err(|e| Failure::new(EXIT_CONFIG, format!("tls: {e}")))?;
    }
    println!("{}: good; pool {}, domains {}", path.display(), config.pool, config.sip_domains.join(", "));
    Ok(())
}

pub(super) fn load(path: &Path) -> Result<PoolConfig, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::new(EXIT_CONFIG, format!("{}: {e}; name the file with --config", path.display())))?;
    PoolConfig::from_yaml(&text).map_err(|e| Failure::new(EXIT_CONFIG, format!("{}: {e}", path.display())))
}

/// The store of a configuration, opened beside a running server.
pub(super) fn open_store(path: &Path) -> Result<(PoolConfig, commpool_store::Store), Failure> {
    let config = load(path)?;
    let Some(sqlite) = &config.store.sqlite else {
        return Err(Failure::new(EXIT_CONFIG, "store.sqlite is missing"));
    };
    let store = commpool_store::Store::open_sqlite(
        &sqlite.folder,
        &commpool_store::SqliteOptions::beside(),
        commpool_store::system_clock(),
    )
    .map_err(|e| Failure::new(EXIT_DATA, format!("{}: {e}", sqlite.folder.display())))?;
    Ok((config, store))
}
