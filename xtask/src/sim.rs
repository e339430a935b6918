//! `cargo xtask sim`: builds the simulator and becomes it.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;
use commpool_harness::Workspace;
use commpool_harness::command::run as run_command;

/// The simulator's package and program.
const SIMULATOR: &str = "commpool-sim";

/// Options of `cargo xtask sim`.
#[derive(Args)]
pub(crate) struct Options {
    /// This seed alone; COMMPOOL_LOG=trace shows everything that happens in it
    #[arg(conflicts_with = "seeds")]
    seed: Option<u64>,
    /// So many seeds, from 1 on [default: 100]
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
}

/// Builds the simulator, then replaces this process by it.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    run_command(workspace.cargo().args(["build", "--locked", "-p", SIMULATOR]))
        .with_context(|| format!("{SIMULATOR} cannot be built"))?;
    let program = workspace.target().join("debug").join(SIMULATOR);
    let mut simulator = Command::new(&program);
    simulator.args(options.seed.map(|seed| seed.to_string()));
    simulator.args(options.seeds.map(|n| format!("--seeds={n}")));
    Err(simulator.exec()).with_context(|| format!("{} cannot be started", program.display()))
}
