//! `cargo xtask test`: the groups of tests, what they need, and what was real in them.

mod groups;
mod needs;
mod parts;
mod programs;

use std::fs::{self, File};
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};
use clap::Args;
use commpool_harness::command::{TAIL, run as run_command, say, tail};
use commpool_harness::packages::Consent;
use commpool_harness::{Workspace, wait};

use crate::steps::Steps;
use groups::{GROUPS, Group, Need, Run};
use needs::Needs;
use programs::Program;

/// Groups that run side by side; more would only take turns on two cores.
const SLOTS: usize = 2;

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
    let (mut programs, mut ran) = (Vec::new(), Vec::new());
    if steps.run("compile", || compile(workspace, &mut programs)) {
        let (alone, shared): (Vec<&Group>, Vec<&Group>) = chosen.iter().copied().partition(|group| group.alone);
        ran = ready(&steps, &mut needs, shared);
        run_side_by_side(&needs, &programs, &steps, &ran);
        for group in alone {
            for group in ready(&steps, &mut needs, vec![group]) {
                steps.run(group.name, || run_group(&needs, &programs, group));
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

/// Builds every binary and test program; a test that no group runs, or that several do, is an error.
fn compile(workspace: &Workspace, programs: &mut Vec<Program>) -> Result<()> {
    *programs = programs::build(workspace)?;
    let wrong = programs.iter().filter(|program| groups::groups_of(program) != 1);
    let wrong: Vec<String> = wrong.map(|program| program.heading()).collect();
    if !wrong.is_empty() {
        bail!("these are in no group of xtask/src/test/groups.rs, or in several:\n{}", wrong.join("\n"));
    }
    Ok(())
}

/// Tests at once in a group whose tests wait for clocks.
const WAITING_TESTS: &str = "16";

/// Runs groups side by side.
fn run_side_by_side(needs: &Needs<'_>, programs: &[Program], steps: &Steps, groups: &[&Group]) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..SLOTS.min(groups.len()) {
            scope.spawn(|| {
                while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                    steps.run(group.name, || run_group(needs, programs, group));
                }
            });
        }
    });
}

/// Output of groups that run side by side is printed whole, one after the other.
static PRINTING: Mutex<()> = Mutex::new(());

/// Runs one group; its output is kept in the cache folder and printed when it has ended.
fn run_group(needs: &Needs<'_>, programs: &[Program], group: &Group) -> Result<()> {
    let workspace = needs.workspace();
    let path = workspace.logs("test")?.join(format!("{}.log", group.name));
    let mut log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let what = format!("== test {}", group.name);
    let result = wait::with_signs_of_life(&what, || run_tests(needs, programs, group, &mut log));
    let text = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
    let _whole = PRINTING.lock();
    say(&format!("-- output of test group {} ({})", group.name, path.display()));
    say(text.trim_end());
    if result.is_err() && group.needs.contains(&Need::Cluster) {
        say(&needs.diagnosis());
    }
    result.with_context(|| format!("the end of its output:\n{}", tail(&text, TAIL)))
}

/// Runs the test programs of one group, the later ones also after one that failed.
fn run_tests(needs: &Needs<'_>, programs: &[Program], group: &Group, log: &mut File) -> Result<()> {
    let (mut ran, mut failed) = (0, Vec::new());
    for run in group.runs {
        if matches!(run, Run::Documentation) {
            failed.extend(programs::documentation(needs.workspace(), log).err().map(|error| format!("{error:#}")));
            continue;
        }
        for program in programs.iter().filter(|program| run.chooses(program)) {
            writeln!(log, "{}", program.heading())?;
            let mut test = program.command(needs.workspace());
            test.envs(needs.environment(group)).envs(group.waits.then_some(("RUST_TEST_THREADS", WAITING_TESTS)));
            let result = run_command(test.stdout(log.try_clone()?).stderr(log.try_clone()?));
            ran += 1;
            failed.extend(result.err().map(|_| program.name.clone()));
        }
    }
    match (failed.is_empty(), ran) {
        (true, 0) => bail!("this group has no tests"),
        (true, _) => Ok(()),
        (false, _) => bail!("failed: {}", failed.join(", ")),
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
