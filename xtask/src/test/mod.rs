//! `cargo xtask test`: the groups of tests, what they need, and what was real in them.

mod groups;
mod needs;
mod parts;

use std::fs::{self, File};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use commpool_harness::Workspace;
use commpool_harness::command::{TAIL, run as run_command, say, tail};
use commpool_harness::packages::Consent;

use crate::steps::Steps;
use groups::{GROUPS, Group, Need};
use needs::Needs;

/// Groups that run side by side; more would only take turns on two cores.
const SLOTS: usize = 2;

/// Time between two signs of life of a group that takes long.
const SIGN_OF_LIFE: Duration = Duration::from_secs(60);

/// Options of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct Options {
    /// Runs this group only; may be given more than once.
    #[arg(long, value_name = "GROUP", value_parser = clap::builder::PossibleValuesParser::new(names()))]
    only: Vec<String>,
    /// Installs what is missing without asking (as when CI is set).
    #[arg(long)]
    yes: bool,
    /// Leaves the tests' cluster running; `cargo xtask cluster --name test down` ends it.
    #[arg(long)]
    keep_cluster: bool,
}

/// Names of all groups, for the command line.
fn names() -> Vec<&'static str> {
    GROUPS.iter().map(|group| group.name).collect()
}

/// Runs the chosen groups.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let chosen: Vec<&Group> = match options.only.is_empty() {
        true => GROUPS.iter().collect(),
        false => options.only.iter().filter_map(|name| groups::named(name)).collect(),
    };
    announce(&chosen);
    let steps = Steps::new("test");
    let mut needs = Needs::new(workspace, options.keep_cluster);
    needs.install_packages(&chosen, Consent::from_flag(options.yes));
    needs.start_building(&chosen);
    let mut ran = Vec::new();
    if steps.run("compile", || compile(workspace)) {
        let (alone, shared): (Vec<&Group>, Vec<&Group>) = chosen.iter().copied().partition(|group| group.alone);
        ran = ready(&steps, &mut needs, shared);
        run_side_by_side(&needs, &steps, &ran);
        for group in alone {
            for group in ready(&steps, &mut needs, vec![group]) {
                steps.run(group.name, || run_group(&needs, group));
                ran.push(group);
            }
        }
    } else {
        for group in &chosen {
            steps.not_run(group.name, "the tests do not compile");
        }
    }
    if let Err(error) = needs.finish() {
        say(&format!("{error:#}"));
    }
    say(&parts::list(workspace, &ran));
    steps.finish()
}

/// Tells what will be run and how long that takes.
fn announce(chosen: &[&Group]) {
    say("groups, minutes on two cores once everything is built, and what they show:");
    for group in chosen {
        say(&format!("  {:10} {:3}  {}", group.name, group.minutes, group.about));
    }
    let minutes: u32 = chosen.iter().map(|group| group.minutes).sum();
    let mut first = 8;
    for need in [Need::Kubernetes, Need::Cluster] {
        first += if chosen.iter().any(|group| group.needs.contains(&need)) { 12 } else { 0 };
    }
    say(&format!("in all about {minutes} minutes, and about {first} more to build everything the first time"));
}

/// The groups whose needs are met. The others are noted as not run; under CI nothing may be left out, so they fail.
fn ready<'a>(steps: &Steps, needs: &mut Needs<'_>, groups: Vec<&'a Group>) -> Vec<&'a Group> {
    let mut ready = Vec::new();
    for group in groups {
        match needs.lacking(steps, group) {
            None => ready.push(group),
            Some(reason) if Consent::in_ci() => {
                steps.run(group.name, || bail!("not run: {reason}"));
            }
            Some(reason) => steps.not_run(group.name, &reason),
        }
    }
    ready
}

/// Builds every binary and test program, so that no group waits for another one's compiler.
fn compile(workspace: &Workspace) -> Result<()> {
    run_command(workspace.cargo().args(["build", "--locked", "--workspace", "--bins"]))?;
    run_command(workspace.cargo().args(["test", "--locked", "--workspace", "--no-run", "--quiet"]))
}

/// Tests at once in a group whose tests wait for clocks.
const WAITING_TESTS: &str = "16";

/// Runs groups side by side.
fn run_side_by_side(needs: &Needs<'_>, steps: &Steps, groups: &[&Group]) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..SLOTS.min(groups.len()) {
            scope.spawn(|| {
                while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                    steps.run(group.name, || run_group(needs, group));
                }
            });
        }
    });
}

/// Output of groups that run side by side is printed whole, one after the other.
static PRINTING: Mutex<()> = Mutex::new(());

/// Runs one group; its output is kept in the cache folder and printed when it has ended.
fn run_group(needs: &Needs<'_>, group: &Group) -> Result<()> {
    let workspace = needs.workspace();
    let path = workspace.logs("test")?.join(format!("{}.log", group.name));
    let log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let (ended, end) = mpsc::channel::<()>();
    let start = Instant::now();
    let result = thread::scope(|scope| {
        scope.spawn(move || {
            while end.recv_timeout(SIGN_OF_LIFE) == Err(mpsc::RecvTimeoutError::Timeout) {
                say(&format!("== test {}: still running after {} s", group.name, start.elapsed().as_secs()));
            }
        });
        let result = run_tests(needs, group, &log);
        drop(ended);
        result
    });
    let text = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
    let _whole = PRINTING.lock();
    say(&format!("-- output of test group {} ({})", group.name, path.display()));
    say(text.trim_end());
    if result.is_err() && group.needs.contains(&Need::Cluster) {
        say(&needs.diagnosis());
    }
    result.with_context(|| format!("the end of its output:\n{}", tail(&text, TAIL)))
}

/// Runs the parts of one group, the later ones also after one that failed.
fn run_tests(needs: &Needs<'_>, group: &Group, log: &File) -> Result<()> {
    let (mut ran, mut failed) = (0, Vec::new());
    for run in group.runs {
        let Some(arguments) = run.arguments(needs.workspace().root())? else { continue };
        let mut test = needs.workspace().cargo();
        test.args(["test", "--locked", "--no-fail-fast"]).args(arguments).envs(needs.environment(group));
        if group.waits {
            test.env("RUST_TEST_THREADS", WAITING_TESTS);
        }
        let result = run_command(test.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?));
        ran += 1;
        failed.extend(result.err());
    }
    match failed.into_iter().next() {
        Some(first) => Err(first),
        None if ran == 0 => bail!("this group has no tests"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_of_groups_are_unique() {
        let unique: BTreeSet<_> = names().into_iter().collect();
        assert_eq!(unique.len(), GROUPS.len());
    }
}
