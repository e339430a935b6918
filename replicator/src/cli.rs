//! The command line.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line speaks by printing")]

mod shown;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand, ValueEnum};
use commpool_model::config::{Directory, PoolConfig};
use commpool_model::directory::{Outcome, RunResult};
use commpool_process::{start_logs, stop_on_signal};
use commpool_store::postgres::PostgresOptions;
use commpool_store::{SqliteOptions, Store, system_clock};
use tokio::runtime::Runtime;

use crate::check::{self, Line};
use crate::cycle::{self, Job};
use crate::fault::{Fault, Kind};
use crate::report;

/// Ended as asked; nothing is left to do.
pub const EXIT_OK: u8 = 0;
/// Failed, with a reason.
pub const EXIT_FAILED: u8 = 1;
/// The command line or the configuration cannot be used.
pub const EXIT_CONFIG: u8 = 2;
/// `plan`: there is something to do.
pub const EXIT_CHANGES: u8 = 10;
/// Held, because too many would lose the service.
pub const EXIT_HELD: u8 = 11;
/// Another run is active.
pub const EXIT_BUSY: u8 = 12;

const AFTER_HELP: &str = "Exit codes: 0 done or nothing to do, 1 failed, 2 command line or configuration, \
                          10 there is something to do (plan), 11 held, 12 another run is active";
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("COMMPOOL_COMMIT"), ")");

#[derive(Parser, Debug)]
#[command(name = "commpool-replicator", version = VERSION, about, after_help = AFTER_HELP)]
/// Users from a directory into the store of a pool.
struct Arguments {
    /// Configuration of the pool, with a section `directory`.
    #[arg(long, global = true, env = "COMMPOOL_CONFIG", default_value = "/etc/commpool/config.yaml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Try the servers, TLS, the bind and the read, and say what is in the way.
    Check {
        /// Form of the answer; JSON: one object a step.
        #[arg(long, default_value = "text")]
        format: Format,
    },
    /// Show what a run would do; changes nothing.
    Plan {
        /// Form of the answer; JSON: one object a step, at last one with the key `plan`.
        #[arg(long, default_value = "text")]
        format: Format,
    },
    /// Make the users of the store what the directory says; prints what came of it as one line of JSON.
    Run(Run),
}

#[derive(clap::Args, Debug)]
struct Run {
    /// Write what came of it there too.
    #[arg(long, value_name = "FILE")]
    termination_log: Option<PathBuf>,
    /// Write metrics there, for the text file collector of Prometheus' node exporter.
    #[arg(long, value_name = "FILE")]
    metrics_file: Option<PathBuf>,
    /// Who runs, for people; default: this machine's name and the process.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    holder: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let code = match arguments.command {
        Command::Check { format } => check(&arguments.config, format),
        Command::Plan { format } => plan(&arguments.config, format),
        Command::Run(run) => run_once(&arguments.config, &run),
    };
    ExitCode::from(code)
}

/// Prints a line; whoever has stopped reading is not told more.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

fn complain(fault: &Fault) -> u8 {
    eprintln!("commpool-replicator: {}", fault.text);
    code(fault.result())
}

const fn code(result: RunResult) -> u8 {
    match result {
        RunResult::Synced => EXIT_OK,
        RunResult::DeletionHeld => EXIT_HELD,
        RunResult::Busy => EXIT_BUSY,
        RunResult::ConfigurationInvalid => EXIT_CONFIG,
        _ => EXIT_FAILED,
    }
}

/// The configuration, and its part about the directory.
fn load(path: &Path) -> Result<(PoolConfig, Directory), Fault> {
    let bad = |why: String| Fault::new(Kind::Configuration, format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| bad(format!("{e}; name the file with --config")))?;
    let config = PoolConfig::from_yaml(&text).map_err(|error| bad(error.to_string()))?;
    let missing = || bad("directory: is missing; say where the users come from".to_owned());
    let directory = config.directory.clone().ok_or_else(missing)?;
    start_logs(&config.log);
    Ok((config, directory))
}

fn job((config, directory): (PoolConfig, Directory)) -> Result<Job, Fault> {
    let fault = |error: commpool_store::StoreError| Fault::from(error);
    let store = match (&config.store.sqlite, &config.store.postgres) {
        (Some(sqlite), _) => {
            Store::open_sqlite(&sqlite.folder, &SqliteOptions::beside(), system_clock()).map_err(fault)?
        }
        (None, Some(postgres)) => Store::open_postgres(PostgresOptions::replicator(postgres)).map_err(fault)?,
        (None, None) => return Err(Fault::new(Kind::Configuration, "store: is missing")),
    };
    Ok(Job { store, config: directory, domains: config.sip_domains, folder: None })
}

fn runtime() -> Result<Runtime, Fault> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|error| Fault::new(Kind::Internal, format!("the runtime does not start: {error}")))
}

fn check(path: &Path, format: Format) -> u8 {
    let tell = |line: &Line| match format {
        Format::Json => say(&serde_json::to_string(line).unwrap_or_default()),
        Format::Text => say(&shown::line(line)),
    };
    let checked = load(path)
        .and_then(|(config, directory)| runtime()?.block_on(check::check(&directory, &config.sip_domains, None, tell)));
    match checked {
        Ok(true) => EXIT_OK,
        Ok(false) => EXIT_FAILED,
        Err(fault) => complain(&fault),
    }
}

fn plan(path: &Path, format: Format) -> u8 {
    let planned = load(path).and_then(job).and_then(|job| {
        let visit = |case: &_, step: &_| {
            let line = match format {
                Format::Json => shown::step_json(case, step),
                Format::Text => shown::step_text(case, step),
            };
            line.into_iter().for_each(|line| say(&line));
        };
        runtime()?.block_on(cycle::plan(job, visit))
    });
    let planned = match planned {
        Ok(planned) => planned,
        Err(fault) => return complain(&fault),
    };
    say(&match format {
        Format::Json => shown::plan_json(&planned),
        Format::Text => shown::plan_text(&planned),
    });
    match (planned.held, planned.tally.counts.any()) {
        (true, _) => EXIT_HELD,
        (false, true) => EXIT_CHANGES,
        (false, false) => EXIT_OK,
    }
}

fn run_once(path: &Path, run: &Run) -> u8 {
    let (begun, started) = (Instant::now(), report::moment());
    let outcome = load(path).and_then(job).and_then(|job| {
        let store = job.store.clone();
        let outcome = runtime()?.block_on(async {
            let stop = stop_on_signal().map_err(|error| Fault::new(Kind::Internal, error.to_string()))?;
            Ok(cycle::run(job, &holder(run), &stop).await)
        });
        store.close();
        outcome
    });
    let outcome = outcome.unwrap_or_else(|fault| report::failed(&fault, started));
    say(&report::line(&outcome));
    let wrote = [write_log(run, &outcome), write_metrics(run, &outcome, begun.elapsed().as_secs_f64())];
    for error in wrote.into_iter().filter_map(Result::err) {
        eprintln!("commpool-replicator: {error}");
    }
    code(outcome.result)
}

fn holder(run: &Run) -> String {
    let given = run.holder.clone().filter(|name| !name.is_empty());
    let name = given.unwrap_or_else(|| {
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        format!("{machine} process {}", std::process::id())
    });
    crate::text::shown(&name, 253)
}

fn write_log(run: &Run, outcome: &Outcome) -> Result<(), String> {
    let Some(path) = &run.termination_log else { return Ok(()) };
    // Kubernetes mounts this very file: it must be written in its place.
    std::fs::write(path, report::line(outcome)).map_err(|error| format!("{}: {error}", path.display()))
}

fn write_metrics(run: &Run, outcome: &Outcome, seconds: f64) -> Result<(), String> {
    let Some(path) = &run.metrics_file else { return Ok(()) };
    // The collector must never see half of it.
    let new = path.with_extension("new");
    let written = std::fs::write(&new, report::metrics(outcome, seconds)).and_then(|()| std::fs::rename(&new, path));
    written.map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }
}
