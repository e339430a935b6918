//! A cluster with the product on it: how soon pools are ready, what the operator writes at rest, how large images are.

use std::fmt::Write as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use commpool_harness::Workspace;
use commpool_harness::cluster::Cluster;
use commpool_harness::command::output;
use commpool_harness::deploy::{OPERATOR_NAMESPACE, Target};
use commpool_harness::{images, wait};

use super::spread;

/// How long pools at rest are watched.
const QUIET: Duration = Duration::from_secs(300);
/// After this a pool that has just become ready is at rest.
const SETTLED: Duration = Duration::from_secs(20);
/// For something to come about.
const PATIENCE: Duration = Duration::from_secs(120);
/// Samples: file, pool, aim for becoming ready in seconds.
const SAMPLES: [(&str, &str, f64); 2] = [("standard", "demo", 60.0), ("enterprise", "office", 120.0)];

/// What was measured.
#[derive(Debug)]
pub struct Figures {
    /// Of each sample the seconds from `kubectl apply` to Ready.
    ready: Vec<(&'static str, f64, Vec<f64>)>,
    /// Seconds until a third front end is there.
    scaled: Vec<f64>,
    /// Objects and statuses that the operator wrote for both pools at rest.
    writes: u64,
    /// Sizes of the images by part, octets.
    sizes: Vec<(&'static str, u64)>,
}

/// Measures on a cluster of its own, which goes afterwards. The images must have been built.
///
/// # Errors
/// When an image is not there, or something does not become ready.
pub fn run(workspace: &Workspace, rounds: u32) -> Result<Figures> {
    let archives: Vec<_> = images::PARTS.iter().map(|part| images::archive(workspace, part)).collect();
    let size = |(part, archive): (&&'static str, &std::path::PathBuf)| {
        let file = std::fs::metadata(archive).with_context(|| format!("{} is not built", archive.display()))?;
        Ok((*part, file.len()))
    };
    let sizes = images::PARTS.iter().zip(&archives).map(size).collect::<Result<_>>()?;
    let cluster = Cluster::new(workspace, "bench")?;
    cluster.down()?;
    cluster.up()?;
    let target = Target::Own(cluster);
    let measured = target
        .bring_images(&archives)
        .and_then(|()| target.install(workspace, "bench"))
        .and_then(|()| measure(workspace, &target, rounds, sizes));
    let Target::Own(cluster) = target else { bail!("not a cluster of our own") };
    cluster.down()?;
    measured
}

fn measure(workspace: &Workspace, target: &Target, rounds: u32, sizes: Vec<(&'static str, u64)>) -> Result<Figures> {
    let kubectl = |arguments: &[&str]| output(&mut target.kubectl(arguments)?);
    let mut ready: Vec<_> = SAMPLES.iter().map(|(sample, _, aim)| (*sample, *aim, Vec::new())).collect();
    let mut scaled = Vec::new();
    for _ in 0..rounds {
        // The pools of a round are gone when it begins; those of the last one stay, to be watched.
        kubectl(&["delete", "cpool,pvc", "--all", "--wait"])?;
        wait::until("the end of the pools before", PATIENCE, || {
            Ok(kubectl(&["get", "pods", "-o", "name"])?.is_empty().then_some(()))
        })?;
        for ((sample, pool, _), (_, _, took)) in SAMPLES.iter().zip(&mut ready) {
            took.push(seconds(|| target.apply_pool(&file(workspace, sample)))?);
            if *sample == "enterprise" {
                scaled.push(seconds(|| scale(target, pool, 3))?);
            }
        }
    }
    thread::sleep(SETTLED);
    let before = writes(target)?;
    thread::sleep(QUIET);
    Ok(Figures { ready, scaled, writes: writes(target)? - before, sizes })
}

fn file(workspace: &Workspace, sample: &str) -> std::path::PathBuf {
    workspace.root().join(Path::new("samples").join(format!("{sample}.yaml")))
}

fn seconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

fn scale(target: &Target, pool: &str, replicas: u32) -> Result<()> {
    let name = format!("cpool/{pool}");
    output(&mut target.kubectl(&["scale", &name, &format!("--replicas={replicas}")])?)?;
    let there = ["get", &name, "-o=jsonpath={.status.frontEnd.readyReplicas}"];
    wait::until("the third front end", PATIENCE, || {
        Ok((output(&mut target.kubectl(&there)?)? == replicas.to_string()).then_some(()))
    })
}

/// How much the operator has written so far, by its own count.
fn writes(target: &Target) -> Result<u64> {
    let find = ["-n", OPERATOR_NAMESPACE, "get", "pods", "-o=jsonpath={.items[0].metadata.name}"];
    let pod = output(&mut target.kubectl(&find)?)?;
    let path = format!("/api/v1/namespaces/{OPERATOR_NAMESPACE}/pods/{pod}:9090/proxy/metrics");
    let text = output(&mut target.kubectl(&["get", "--raw", &path])?)?;
    let counts = text.lines().filter(|line| line.starts_with("commpool_operator_writes_total{"));
    let counts: Vec<u64> =
        counts.map(|line| line.rsplit(' ').next().unwrap_or_default().parse()).collect::<Result<_, _>>()?;
    if counts.is_empty() {
        bail!("the operator does not tell what it wrote: {text}");
    }
    Ok(counts.iter().sum())
}

/// The figures as Markdown.
#[must_use]
pub fn markdown(command: &str, figures: &Figures) -> String {
    let mut out = format!(
        "## On a cluster\n\nCommand: `{command}`, on a cluster of one node that has two cores and the images. Median \
         (least–most); sizes in MB.\n\n| what | figure | aim |\n|---|---|---|\n"
    );
    // Writing to a string does not fail.
    for (sample, aim, took) in &figures.ready {
        let took = spread(took.iter().copied());
        let _ = writeln!(out, "| `kubectl apply` of `samples/{sample}.yaml` to Ready | {took} s | ≤ {aim:.0} s |");
    }
    let scaled = spread(figures.scaled.iter().copied());
    let _ = writeln!(out, "| `kubectl scale cpool` from 2 to 3, to the third that is ready | {scaled} s | |");
    let (writes, minutes) = (figures.writes, QUIET.as_secs() / 60);
    let _ = writeln!(out, "| writes of the operator in {minutes} quiet minutes, Lease apart | {writes} | 0 |");
    for (part, size) in &figures.sizes {
        let aim = if part.ends_with("database") { "" } else { "≤ 25" };
        let _ = writeln!(out, "| image of {part} | {:.1} | {aim} |", *size as f64 / 1e6);
    }
    out
}
