//! `cargo xtask images`: the images of the product, and how to get them into a cluster.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use commpool_harness::Workspace;
use commpool_harness::command::say;
use commpool_harness::images::{self, DATABASE, PARTS};
use commpool_harness::workspace::VERSION;

/// Largest image of one of our programs that is still small, in octets.
const LIMIT: u64 = 25 << 20;

/// Options of `cargo xtask images`.
#[derive(Args)]
pub(crate) struct Options {
    /// Also pushes the images to this registry, such as registry.example.com/team
    #[arg(long, value_name = "REGISTRY")]
    push: Option<String>,
}

/// Builds the images, shows sizes and how to load them, and pushes them if asked.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let archives = build(workspace, PARTS)?;
    println!("{}", load_lines(&archives));
    if let Some(registry) = &options.push {
        for reference in push(&archives, registry)? {
            println!("pushed {reference}");
        }
    }
    Ok(())
}

/// Builds the images of these parts and shows their sizes.
pub(crate) fn build(workspace: &Workspace, parts: &[&str]) -> Result<Vec<PathBuf>> {
    say("building static release programs (the first time 10 to 15 minutes on two cores)");
    let archives = images::build(workspace, parts)?;
    for (part, archive) in parts.iter().zip(&archives) {
        let size = std::fs::metadata(archive)?.len();
        say(&format!("{}  {:.1} MB  {}", images::reference(part), megabytes(size), archive.display()));
        if size > LIMIT && *part != DATABASE {
            bail!("{} is larger than {:.0} MB", archive.display(), megabytes(LIMIT));
        }
    }
    Ok(archives)
}

/// Where the archives are once built.
pub(crate) fn archives(workspace: &Workspace) -> Vec<PathBuf> {
    PARTS.iter().map(|part| images::archive(workspace, part)).collect()
}

/// Pushes all images; gives their names in the registry.
pub(crate) fn push(archives: &[PathBuf], registry: &str) -> Result<Vec<String>> {
    let push = |(part, archive): (&&str, &PathBuf)| images::push(archive, registry, &format!("{part}:{VERSION}"));
    PARTS.iter().zip(archives).map(push).collect()
}

/// What to type to load the archives, by kind of cluster.
fn load_lines(archives: &[PathBuf]) -> String {
    let each = |line: &dyn Fn(&Path) -> String| -> String {
        archives.iter().map(|archive| format!("    {}\n", line(archive))).collect()
    };
    format!(
        "load them:\n  kind\n{}  k3d\n{}  minikube\n{}  the cluster of `cargo xtask cluster up` (it does so itself)\n{}",
        each(&|archive| format!("kind load image-archive {}", archive.display())),
        each(&|archive| format!("k3d image import {}", archive.display())),
        each(&|archive| format!("minikube image load {}", archive.display())),
        each(&|archive| format!("cargo xtask cluster load {}", archive.display())),
    )
}

/// Octets as 2²⁰ octets.
fn megabytes(octets: u64) -> f64 {
    octets as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_archive_is_loaded_in_every_way() {
        let lines = load_lines(&["a.tar".into(), "b.tar".into()]);
        for line in ["kind load image-archive b.tar", "k3d image import a.tar", "minikube image load a.tar"] {
            assert!(lines.contains(line), "{lines}");
        }
    }
}
