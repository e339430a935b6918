//! Developer verbs: `cargo xtask run | pool | sim | test | check | bench | images | cluster |
//! directory`.
//!
//! Thin on purpose: it runs cargo, the tools of the machine and the binaries, and links none of the product, so that
//! the first command of a fresh checkout is ready in seconds.
#![allow(clippy::print_stdout, reason = "results of the verbs go to standard output")]

mod bench;
mod check;
mod cluster;
mod directory;
mod images;
mod pool;
mod run;
mod sim;
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
    /// Standard Edition on this machine in one command: builds the server and becomes it.
    Run(run::Options),
    /// Enterprise Edition on this machine in one command: a PostgreSQL and several front ends on one address.
    Pool(pool::Options),
    /// A whole pool in one process, from one seed, under faults.
    Sim(sim::Options),
    /// Formatting, lints, documentation, licences and sources of dependencies, unused ones, generated files.
    Check,
    /// Figures beside a peer, written to docs/benchmarks.md.
    Bench(bench::Options),
    /// Images of the product: static, without shell or base, 25 MB at most.
    Images(images::Options),
    /// A real Kubernetes on this machine, in namespaces of its own, with the product on it.
    Cluster(cluster::Options),
    /// Real directories for the User Replicator: a Samba as Active Directory and an OpenLDAP, with people in them.
    Directory(directory::Options),
    /// Runs the tests; needs root for the groups that use namespaces and the cluster.
    Test(test::Options),
}

fn main() -> ExitCode {
    match run_verb(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run_verb(verb: Verb) -> Result<()> {
    let workspace = Workspace::find()?;
    match verb {
        Verb::Run(options) => run::run(&workspace, &options),
        Verb::Pool(options) => pool::run(&workspace, &options),
        Verb::Sim(options) => sim::run(&workspace, &options),
        Verb::Bench(options) => bench::run(&workspace, &options),
        Verb::Images(options) => images::run(&workspace, &options),
        Verb::Check => check::run(&workspace),
        Verb::Cluster(options) => cluster::run(&workspace, &options),
        Verb::Directory(options) => directory::run(&workspace, &options),
        Verb::Test(options) => test::run(&workspace, &options),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
