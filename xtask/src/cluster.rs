//! `cargo xtask cluster`: a real Kubernetes on this machine, with the product on it.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use commpool_harness::Workspace;
use commpool_harness::cluster::{Cluster, balance};

/// Name of the cluster when none is given.
const DEFAULT: &str = "dev";

/// Options of `cargo xtask cluster`.
#[derive(Args)]
pub(crate) struct Options {
    /// Name of the cluster; several can run side by side.
    #[arg(long, global = true, default_value = DEFAULT)]
    name: String,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Builds what is missing, starts the cluster and puts the product on it.
    Up,
    /// Ends the cluster with everything in it.
    Down,
    /// Loads image archives into the node.
    Load {
        /// OCI archives.
        #[arg(required = true, value_hint = clap::ValueHint::FilePath)]
        archives: Vec<PathBuf>,
    },
    /// Plays the cloud: addresses for Services, released volumes. Started by `up`.
    #[command(hide = true)]
    Balance,
}

/// Runs the verb.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let cluster = Cluster::new(workspace, &options.name)?;
    match &options.verb {
        Verb::Up => cluster.up(),
        Verb::Down => cluster.down(),
        Verb::Load { archives } => cluster.load(archives),
        Verb::Balance => balance(&cluster),
    }
}
