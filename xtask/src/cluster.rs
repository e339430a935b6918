//! `cargo xtask cluster`: a real Kubernetes on this machine, with the product on it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use commpool_harness::Workspace;
use commpool_harness::cluster::{self, Cluster, Parts, balance};
use commpool_harness::command::{is_root, output, say};
use commpool_harness::deploy::{OPERATOR_NAMESPACE, Target};
use commpool_harness::images::{PARTS, PARTS_OF_STANDARD};
use commpool_harness::packages::{self, Consent};

use crate::images;

/// Name of the cluster when none is given.
const DEFAULT: &str = "dev";

/// Options of `cargo xtask cluster`.
#[derive(Args)]
pub(crate) struct Options {
    /// Name of the cluster; several can run side by side.
    #[arg(long, global = true, value_name = "NAME", default_value = DEFAULT)]
    name: String,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Builds what is missing, starts the cluster, installs the operator and applies a sample pool.
    Up(Up),
    /// Ends the cluster with everything in it.
    Down,
    /// Tells whether the cluster runs, and what is on it.
    Status,
    /// Ends the cluster and removes what was built for it; the next `up` builds it anew.
    Purge,
    /// Runs a command in the cluster's network, with kubectl, helm and KUBECONFIG set.
    Exec {
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Makes a client's own network, routed to the pools, with their names in its /etc/hosts; runs a command in it.
    Client {
        /// Name of the client.
        client: String,
        /// The command and its arguments; without one the network is only made.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Loads image archives into the node.
    Load {
        /// OCI archives.
        #[arg(required = true, value_name = "ARCHIVE", value_hint = clap::ValueHint::FilePath)]
        archives: Vec<PathBuf>,
    },
    /// Plays the cloud: addresses for Services, released volumes. Started by `up`.
    #[command(hide = true)]
    Balance,
}

/// Options of `up`.
#[derive(Args)]
struct Up {
    /// Uses the cluster of this context of the kubeconfig instead of one of our own.
    #[arg(long, value_name = "CONTEXT", requires = "registry")]
    context: Option<String>,
    /// Registry the images are pushed to for that cluster, such as registry.example.com/team.
    #[arg(long, value_name = "REGISTRY", requires = "context")]
    registry: Option<String>,
    /// Pool to apply: a file of samples/ without its ending, or `none`.
    #[arg(long, value_name = "SAMPLE", default_value = "standard")]
    sample: String,
    /// Starts the bare cluster, without images, operator and pool.
    #[arg(long, conflicts_with_all = ["context", "sample"])]
    bare: bool,
    /// Installs missing Debian packages without asking.
    #[arg(long)]
    yes: bool,
}

/// Runs the verb.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let cluster = Cluster::new(workspace, &options.name)?;
    match &options.verb {
        Verb::Up(up) => bring_up(workspace, cluster, up),
        Verb::Down => {
            cluster.down()?;
            say(&format!("the cluster {} has ended and left nothing", cluster.name()));
            Ok(())
        }
        Verb::Status => status(&cluster),
        Verb::Purge => purge(workspace, &cluster),
        Verb::Exec { command } => become_it(cluster.command("env")?.args(command)),
        Verb::Client { client, command } => enter_client(&cluster, client, command),
        Verb::Load { archives } => cluster.load(archives),
        Verb::Balance => balance(&cluster),
    }
}

/// Brings up a cluster with the product on it.
fn bring_up(workspace: &Workspace, cluster: Cluster, options: &Up) -> Result<()> {
    let sample = sample_file(workspace, &options.sample)?;
    if let (Some(name), Some(registry)) = (&options.context, &options.registry) {
        let parts = Parts::of(workspace);
        let target = Target::Context { name: name.clone(), registry: registry.clone(), parts };
        install(workspace, &target, sample.as_deref(), None)?;
        say(&format!("kubectl --context {name} get cpool -A"));
        return Ok(());
    }
    prepare_machine(Consent::from_flag(options.yes))?;
    timed("cluster", || cluster.up())?;
    if options.bare {
        return status(&cluster);
    }
    let (name, loaded) = (cluster.name().to_owned(), cluster.loaded_file());
    let target = Target::Own(cluster);
    install(workspace, &target, sample.as_deref(), Some(&loaded))?;
    show_pools(&target)?;
    let name = if name == DEFAULT { String::new() } else { format!("--name {name} ") };
    let front_end = front_end(sample.as_deref())?;
    println!(
        "\ngo on with\n  cargo xtask cluster {name}exec kubectl get cpool -A -o wide\n  \
         cargo xtask cluster {name}exec kubectl exec {front_end} -- /commpool-server user add alice\n  \
         cargo xtask cluster {name}client alice COMMAND   (a client's machine: its own network, the pool's names)\n  \
         cargo xtask cluster {name}down"
    );
    Ok(())
}

/// Puts images, operator and sample on the cluster. `loaded` keeps what the node already has.
fn install(workspace: &Workspace, target: &Target, sample: Option<&Path>, loaded: Option<&Path>) -> Result<()> {
    let parts = parts_for(sample)?;
    let archives = images::build(workspace, parts)?;
    let digests = digests(parts, &archives)?;
    let mut known: BTreeMap<String, String> = loaded.map(read_digests).unwrap_or_default();
    let new: Vec<&str> = parts.iter().copied().filter(|part| known.get(*part) != digests.get(*part)).collect();
    if !new.is_empty() {
        timed("images", || target.bring_images(&archives))?;
    }
    let stamp = digests.get("commpool-operator").cloned().unwrap_or_default();
    timed("operator", || target.install(workspace, &stamp))?;
    for part in new.into_iter().filter(|part| known.contains_key(*part)) {
        say(&format!("the image of {part} is new under the same tag: what runs it is started again"));
        target.take_up(part)?;
    }
    known.extend(digests);
    if let Some(file) = loaded {
        fs::write(file, serde_json::to_vec(&known)?)?;
    }
    match sample {
        Some(file) => timed("sample pool", || target.apply_pool(file)),
        None => Ok(()),
    }
}

/// What `kubectl exec` calls a front end of a sample's pool.
fn front_end(sample: Option<&Path>) -> Result<String> {
    let text = sample.map(fs::read_to_string).transpose()?.unwrap_or_default();
    let pool = text.lines().find_map(|line| line.strip_prefix("  name: ")).unwrap_or("POOL");
    Ok(if is_enterprise(&text) { format!("deploy/{pool}-front-end") } else { format!("{pool}-front-end-0") })
}

fn is_enterprise(sample: &str) -> bool {
    sample.lines().any(|line| line.trim() == "edition: Enterprise")
}

/// The parts whose images a sample needs: those of database and replicator only in Enterprise Edition.
fn parts_for(sample: Option<&Path>) -> Result<&'static [&'static str]> {
    let text = sample.map(fs::read_to_string).transpose()?.unwrap_or_default();
    Ok(if is_enterprise(&text) { PARTS } else { PARTS_OF_STANDARD })
}

/// Does work and tells how long it took.
fn timed(what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    work()?;
    say(&format!("{what}: ready after {:.1} s", start.elapsed().as_secs_f64()));
    Ok(())
}

/// Digests of the archives, by part.
fn digests(parts: &[&str], archives: &[PathBuf]) -> Result<BTreeMap<String, String>> {
    let digest = |(part, archive): (&&str, &PathBuf)| {
        let text = output(Command::new("sha256sum").arg(archive))?;
        Ok(((*part).to_owned(), text.chars().take(16).collect()))
    };
    parts.iter().zip(archives).map(digest).collect()
}

/// Digests noted at the last load.
fn read_digests(file: &Path) -> BTreeMap<String, String> {
    fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// File of a sample; none for `none`.
fn sample_file(workspace: &Workspace, name: &str) -> Result<Option<PathBuf>> {
    if name == "none" {
        return Ok(None);
    }
    let folder = workspace.root().join("samples");
    let file = folder.join(format!("{name}.yaml"));
    if !file.is_file() {
        let entries = fs::read_dir(&folder)?.flatten().map(|entry| entry.path());
        let mut names: Vec<String> = entries.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
        names.sort();
        bail!("there is no sample `{name}`; there are {} and none", names.join(", "));
    }
    Ok(Some(file))
}

/// Installs what a cluster needs of the machine, after asking.
fn prepare_machine(consent: Consent) -> Result<()> {
    if !is_root() {
        bail!("a cluster on this machine needs root; `--context` uses one that is there already without");
    }
    packages::provide(cluster::PACKAGES, consent)
}

/// Shows whether the cluster runs, and the pools on it.
fn status(cluster: &Cluster) -> Result<()> {
    let missing = cluster.parts().missing()?;
    let parts = match missing.is_empty() {
        true => "all built".to_owned(),
        false => format!("{} still to be built", missing.join(", ")),
    };
    println!("cluster {}: {}", cluster.name(), if cluster.is_up() { "up" } else { "down" });
    println!("parts in {}: {parts}", cluster.parts().bin.display());
    if !cluster.is_up() {
        return Ok(());
    }
    println!("logs in {}", cluster.logs().display());
    println!("{}", output(&mut cluster.kubectl(&["get", "nodes", "-o", "wide"])?)?);
    let target = Target::Own(cluster.clone());
    println!("{}", output(&mut target.kubectl(&["get", "pods", "-A", "-o", "wide"])?)?);
    show_pools(&target)
}

/// Shows the pools, where their kind is known.
fn show_pools(target: &Target) -> Result<()> {
    let kinds = output(&mut target.kubectl(&["get", "crd", "-o", "name"])?)?;
    if kinds.contains("communicationspools.commpool.dev") {
        println!("{}", output(&mut target.kubectl(&["get", "communicationspools", "-A"])?)?);
    } else {
        println!("no operator is installed (namespace {OPERATOR_NAMESPACE})");
    }
    Ok(())
}

/// Ends the cluster and removes the programs built for all clusters; others that still run are left alone.
fn purge(workspace: &Workspace, cluster: &Cluster) -> Result<()> {
    cluster.down()?;
    let others: Vec<String> = Cluster::running(workspace).iter().map(|other| other.name().to_owned()).collect();
    if !others.is_empty() {
        bail!("other clusters run on the same parts: {}; end them first", others.join(", "));
    }
    cluster.parts().purge()?;
    say(&format!("removed {}", cluster.parts().bin.display()));
    Ok(())
}

/// Makes a client's network and runs a command in it.
fn enter_client(cluster: &Cluster, name: &str, command: &[OsString]) -> Result<()> {
    let client = cluster.client(name)?;
    if command.is_empty() {
        println!("client {name}: address {}, network namespace {}", client.address(), client.namespace().name());
        println!("its /etc/hosts:\n{}", client.names()?);
        println!("run something there: cargo xtask cluster client {name} COMMAND");
        return Ok(());
    }
    become_it(client.command("env").args(command))
}

/// Replaces this process by a command, so that signals, terminal and exit code are the command's own.
fn become_it(command: &mut Command) -> Result<()> {
    Err(command.exec()).with_context(|| format!("`{}` cannot be started", commpool_harness::command::shown(command)))
}
