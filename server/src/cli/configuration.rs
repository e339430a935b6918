//! `config check`, and reading the configuration for every other command.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use commpool_model::config::PoolConfig;
use commpool_store::postgres::PostgresOptions;
use commpool_store::{SqliteOptions, Store, system_clock};

use super::{Done, EXIT_CONFIG, EXIT_DATA, Failure};
use crate::boot;

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
    boot::pool_key(&config.key_file).map_err(|e| Failure::new(EXIT_CONFIG, e.to_string()))?;
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
pub(super) fn open_store(path: &Path) -> Result<(PoolConfig, Store), Failure> {
    let config = load(path)?;
    let store = match (&config.store.sqlite, &config.store.postgres) {
        (Some(sqlite), _) => Store::open_sqlite(&sqlite.folder, &SqliteOptions::beside(), system_clock())
            .map_err(|e| Failure::new(EXIT_DATA, format!("{}: {e}", sqlite.folder.display())))?,
        (None, Some(postgres)) => Store::open_postgres(PostgresOptions::administrator(postgres))
            .map_err(|e| Failure::new(EXIT_DATA, e.to_string()))?,
        (None, None) => return Err(Failure::new(EXIT_CONFIG, "store is missing")),
    };
    Ok((config, store))
}
