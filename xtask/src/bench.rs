//! `cargo xtask bench`: the figures beside a peer, written to `docs/benchmarks.md`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use commpool_harness::Workspace;
use commpool_harness::command::run as run_command;
use commpool_harness::images::PARTS;
use commpool_harness::packages::{self, Consent};
use commpool_harness::{cluster, directory, postgres};

use crate::images;

/// The peer we are measured beside, and its modules.
const PEER: &[&str] = &[
    "kamailio",
    "kamailio-sqlite-modules",
    "kamailio-postgres-modules",
    "kamailio-tls-modules",
    "sqlite3",
    "postgresql-15",
];

/// Options of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// Where the report goes.
    #[arg(long, value_name = "FILE", default_value = "docs/benchmarks.md", value_hint = clap::ValueHint::FilePath)]
    out: PathBuf,
    /// Installs the peer without asking if it is missing.
    #[arg(long)]
    yes: bool,
    /// What is measured, and how; `cargo xtask bench -- --help` shows what there is [default: all]
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

/// Builds server and bench with optimisation and runs the bench.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let consent = Consent::from_flag(options.yes);
    match options.arguments.first().map(String::as_str) {
        Some("directory") => packages::provide(&[directory::PACKAGES, &[postgres::PACKAGE]].concat(), consent)?,
        Some("cluster") => {
            packages::provide(cluster::PACKAGES, consent)?;
            images::build(workspace, PARTS).map(drop)?;
        }
        _ => packages::provide(PEER, consent).context("the bench compares with a peer")?,
    }
    let ours = ["-p", "commpool-server", "-p", "commpool-replicator"];
    run_command(workspace.cargo().args(["build", "--locked", "--release", "--bins"]).args(ours))?;
    let mut bench = workspace.cargo();
    bench.args(["run", "--locked", "--release", "-p", "commpool-tests", "--bin", "bench", "--"]);
    let everything = ["all".to_owned()];
    let arguments = if options.arguments.is_empty() { &everything[..] } else { &options.arguments };
    run_command(bench.args(arguments).arg("--out").arg(&options.out))
}
