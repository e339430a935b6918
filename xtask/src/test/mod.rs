//! `cargo xtask test`: the groups of tests, what they need, and what was real in them.

mod groups;
mod parts;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use commpool_harness::Workspace;
use commpool_harness::command::{is_root, run as run_command, say, tail};
use commpool_harness::packages::{self, Consent};

use crate::check::cargo;
use crate::steps::Steps;
use groups::{GROUPS, Group, Need};

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
    let minutes: u32 = chosen.iter().map(|group| group.minutes).sum();
    say("groups, minutes on two cores once built, what they show:");
    for group in &chosen {
        say(&format!("  {:10} {:3}  {}", group.name, group.minutes, group.about));
    }
    say(&format!(
        "in all about {minutes} minutes, some of them side by side, and 5 to 15 more to compile the first time"
    ));
    let refused = prepare(&chosen, Consent::from_flag(options.yes));
    let steps = Steps::new("test");
    let ready = runnable(&steps, &chosen, refused);
    if steps.run("compile", || compile(workspace)) {
        run_all(workspace, &steps, &ready);
    } else {
        for group in &ready {
            steps.not_run(group.name, "it does not compile");
        }
    }
    if !ready.is_empty() {
        say(&parts::list(workspace, &ready));
    }
    steps.finish()
}

/// Installs the packages that are missing, if that is allowed. Gives why not, else nothing.
fn prepare(chosen: &[&Group], consent: Consent) -> Option<String> {
    let needed: BTreeSet<&str> = chosen.iter().flat_map(|group| group.needs).filter_map(package).collect();
    let missing = packages::missing(&needed.into_iter().collect::<Vec<_>>());
    if missing.is_empty() {
        return None;
    }
    let what = format!("Debian packages to be installed (no service of theirs is started): {}", missing.join(" "));
    if !consent.allows(&what) {
        return Some("packages are missing and were not to be installed".to_owned());
    }
    packages::install(&missing).err().map(|error| format!("{error:#}"))
}

/// The package a need stands for.
fn package(need: &Need) -> Option<&'static str> {
    match need {
        Need::Package(name) => Some(name),
        Need::Root => None,
    }
}

/// The groups whose needs are met; the others are noted as not run, or as failed where nothing may be left out.
fn runnable<'a>(steps: &Steps, chosen: &[&'a Group], refused: Option<String>) -> Vec<&'a Group> {
    let must_run = std::env::var_os("CI").is_some();
    let lacks = |group: &Group| {
        let missing = packages::missing(&group.needs.iter().filter_map(package).collect::<Vec<_>>());
        if group.needs.contains(&Need::Root) && !is_root() {
            return Some("it needs root (namespaces, the cluster); run it as root".to_owned());
        }
        let reason = refused.as_deref().unwrap_or("they could not be installed");
        (!missing.is_empty()).then(|| format!("it needs the packages {}: {reason}", missing.join(" ")))
    };
    let met = |group: &&&'a Group| match lacks(group) {
        None => true,
        Some(reason) if must_run => steps.run(group.name, || bail!("{reason}")),
        Some(reason) => {
            steps.not_run(group.name, &reason);
            false
        }
    };
    chosen.iter().filter(met).copied().collect()
}

/// Builds every binary and test program, so that no group waits for another one's compiler.
fn compile(workspace: &Workspace) -> Result<()> {
    run_command(cargo(workspace).args(["build", "--locked", "--workspace", "--bins"]))?;
    run_command(cargo(workspace).args(["test", "--locked", "--workspace", "--no-run", "--quiet"]))
}

/// Runs groups side by side, those that want the machine to themselves after the others.
fn run_all(workspace: &Workspace, steps: &Steps, ready: &[&Group]) {
    let (alone, shared): (Vec<&Group>, Vec<&Group>) = ready.iter().copied().partition(|group| group.alone);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..SLOTS.min(shared.len()) {
            scope.spawn(|| {
                while let Some(group) = shared.get(next.fetch_add(1, Ordering::Relaxed)) {
                    steps.run(group.name, || run_group(workspace, group));
                }
            });
        }
    });
    for group in alone {
        steps.run(group.name, || run_group(workspace, group));
    }
}

/// Output of groups that run side by side is printed whole, one after the other.
static PRINTING: Mutex<()> = Mutex::new(());

/// Runs one group; its output is kept in the cache folder and printed when it has ended.
fn run_group(workspace: &Workspace, group: &Group) -> Result<()> {
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
        let result = group.runs.iter().try_for_each(|run| {
            let Some(arguments) = run.arguments(workspace.root())? else { return Ok(()) };
            let mut test = cargo(workspace);
            test.args(["test", "--locked"]).args(arguments).env("INSTA_UPDATE", "no");
            run_command(test.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?))
        });
        drop(ended);
        result
    });
    let text = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
    let _whole = PRINTING.lock();
    say(&format!("-- output of test group {} ({})", group.name, path.display()));
    say(text.trim_end());
    result.with_context(|| format!("the end of its output:\n{}", tail(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_groups_are_unique() {
        let unique: BTreeSet<_> = names().into_iter().collect();
        assert_eq!(unique.len(), GROUPS.len());
    }
}
