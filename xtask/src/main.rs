//! Developer verbs: `cargo xtask run | test | check | bench | images | cluster`.
//!
//! Thin on purpose: it runs cargo, the tools of the machine and the binaries, and links none of the product, so that
//! the first command of a fresh checkout is ready in seconds.
#![allow(clippy::print_stdout, reason = "results of the verbs go to standard output")]

mod check;
mod cluster;
mod steps;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use commpool_harness::Workspace;
use commpool_harness::command::say;

/// Developer verbs of Commpool.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Formatting, lints, documentation, licences and sources of dependencies, unused ones, generated files.
    Check,
    /// A real Kubernetes on this machine, in namespaces of its own, with the product on it.
    Cluster(cluster::Options),
    /// Runs the tests; needs root for the groups that use namespaces and the cluster.
    Test(test::Options),
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    let workspace = Workspace::find()?;
    match verb {
        Verb::Check => check::run(&workspace),
        Verb::Cluster(options) => cluster::run(&workspace, &options),
        Verb::Test(options) => test::run(&workspace, &options),
    }
}
