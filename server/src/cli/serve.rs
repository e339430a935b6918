//! `serve` and `migrate`: a pool's front end by its configuration.

use std::path::{Path, PathBuf};

use commpool_model::config::PoolConfig;
use commpool_process::{start_logs, stop_on_signal};
use commpool_store::postgres::{self, Logins, PostgresOptions};
use commpool_store::{Report, StoreError};

use super::configuration::load;
use super::{Done, EXIT_ADDRESS, EXIT_CONFIG, EXIT_DATA, EXIT_OTHER, Failure};
use crate::boot::{self, BootError, Booted};
use crate::ports;

pub(super) fn serve(path: &Path) -> Done {
    let config = load(path)?;
    start_logs(&config.log);
    runtime()?.block_on(async {
        let booted = boot_or_explain(config, "change listeners or management in the configuration")?;
        let stop = stop_on_signal().map_err(|e| Failure::new(EXIT_OTHER, e.to_string()))?;
        let watched = Some(path.to_owned());
        booted.serve(watched, stop, || tracing::info!("serving")).await.map_err(|e| explain(&e, ""))
    })
}

/// `migrate`
#[derive(clap::Args, Debug)]
pub(super) struct Migrate {
    /// PostgreSQL: make groups and logins first. The login of the configuration is a superuser's; FOLDER has the files
    /// owner-username and owner-password, and the same of server and replicator.
    #[arg(long, value_name = "FOLDER")]
    bootstrap: Option<PathBuf>,
    /// PostgreSQL: show the statements by which an administrator makes groups and logins, and do nothing.
    #[arg(long, conflicts_with = "bootstrap")]
    print_roles: bool,
}

pub(super) fn migrate(path: &Path, arguments: &Migrate) -> Done {
    if arguments.print_roles {
        print!("{}", postgres::roles());
        return Ok(());
    }
    let config = load(path)?;
    let report = match (config.store.sqlite, config.store.postgres) {
        (Some(sqlite), _) => commpool_store::migrate(&sqlite.folder)
            .map_err(|e| Failure::new(EXIT_DATA, format!("{}: {e}", sqlite.folder.display())))?,
        (None, Some(postgres)) => migrate_postgres(&PostgresOptions::of(&postgres), arguments.bootstrap.as_deref())?,
        (None, None) => return Err(Failure::new(EXIT_CONFIG, "store is missing: nothing to migrate")),
    };
    if report.applied.is_empty() {
        println!("schema {}: nothing to do", report.after);
    } else {
        println!("schema {} is now {}: {}", report.before, report.after, report.applied.join(", "));
    }
    Ok(())
}

fn migrate_postgres(options: &PostgresOptions, logins: Option<&Path>) -> Result<Report, Failure> {
    // One line: it is what a Job's status shows.
    let failed = |e: StoreError| Failure::new(EXIT_DATA, e.to_string().replace('\n', " "));
    let logins = logins.map(Logins::read).transpose().map_err(failed)?;
    runtime()?.block_on(postgres::migrate(options, logins.as_ref())).map_err(failed)
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(EXIT_OTHER, format!("the runtime does not start: {e}")))
}

pub(super) fn boot_or_explain(config: PoolConfig, mend: &str) -> Result<Booted, Failure> {
    boot::boot(config).map_err(|e| explain(&e, mend))
}

/// Says who holds an address, and what to do about each cause.
pub(super) fn explain(error: &BootError, mend: &str) -> Failure {
    match error {
        BootError::Bind(bind) => {
            let taken = bind.error.kind() == std::io::ErrorKind::AddrInUse;
            let by = ports::holder(bind.transport, bind.address).map(|h| format!(" by {h}")).unwrap_or_default();
            let cause = if taken { format!("is taken{by}") } else { format!("cannot be bound: {}", bind.error) };
            Failure::new(EXIT_ADDRESS, format!("{} {} {cause}; {mend}", bind.transport, bind.address))
        }
        BootError::Management(address, error) => {
            let by = ports::holder("tcp", *address).map(|h| format!(" by {h}")).unwrap_or_default();
            let taken = error.kind() == std::io::ErrorKind::AddrInUse;
            let cause = if taken { format!("is taken{by}") } else { format!("cannot be bound: {error}") };
            Failure::new(EXIT_ADDRESS, format!("management {address} {cause}; {mend}"))
        }
        BootError::Folder(_) | BootError::Store(_) => Failure::new(EXIT_DATA, error.to_string()),
        BootError::Tls(_) | BootError::Peers(_) | BootError::Key(..) | BootError::Config(_) => {
            Failure::new(EXIT_CONFIG, error.to_string())
        }
        BootError::Io(_) => Failure::new(EXIT_OTHER, error.to_string()),
    }
}
