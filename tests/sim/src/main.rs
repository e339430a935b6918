//! `commpool-sim [SEED] [--seeds N]`: runs seeds; a failing one is named, and is all that is needed to see it again.

#![allow(clippy::print_stdout, reason = "a command line speaks by printing")]

use std::process::ExitCode;

use clap::Parser;
use commpool_sim::seeds::run_all;

/// A whole pool in one process, from one seed.
#[derive(Parser, Debug)]
struct Arguments {
    /// This seed alone, with the engines' logs at the level of COMMPOOL_LOG.
    seed: Option<u64>,
    /// So many seeds, from 1 on.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.seed.is_some() {
        let filter = tracing_subscriber::EnvFilter::try_from_env("COMMPOOL_LOG").unwrap_or_default();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    }
    let summary = run_all(arguments.seed.map_or(1..=arguments.seeds, |seed| seed..=seed));
    println!("{summary}");
    if summary.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
