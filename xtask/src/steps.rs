//! Steps of a verb: run one after the other or side by side, timed, and shown as a table at the end.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use commpool_harness::command::say;

/// Names a file to which every step appends `VERB<tab>STEP<tab>SECONDS<tab>OUTCOME`; `.ci/run` reads it.
const FILE_VARIABLE: &str = "COMMPOOL_STEPS";

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything in it is as it should be.
    Passed,
    /// Something is not.
    Failed,
    /// It was not run; the reason.
    NotRun(String),
}

/// The steps of one run of a verb.
pub(crate) struct Steps {
    verb: &'static str,
    /// File that is told of every step.
    file: Option<PathBuf>,
    done: Mutex<Vec<(String, Duration, Outcome)>>,
}

impl Steps {
    /// Starts without steps.
    pub(crate) fn new(verb: &'static str) -> Self {
        Self { verb, file: std::env::var_os(FILE_VARIABLE).map(PathBuf::from), done: Mutex::default() }
    }

    /// Runs a step; a failure is shown and remembered, and the next steps run all the same. Tells whether it passed.
    pub(crate) fn run(&self, name: &str, work: impl FnOnce() -> Result<()>) -> bool {
        say(&format!("== {} {name}", self.verb));
        let start = Instant::now();
        let result = work();
        let took = start.elapsed();
        let passed = result.is_ok();
        match result {
            Ok(()) => say(&format!("== {} {name}: passed in {:.1} s", self.verb, took.as_secs_f64())),
            Err(error) => say(&format!("== {} {name}: FAILED in {:.1} s: {error:#}", self.verb, took.as_secs_f64())),
        }
        self.add(name, took, if passed { Outcome::Passed } else { Outcome::Failed });
        passed
    }

    /// Notes a step that is not run, and why.
    pub(crate) fn not_run(&self, name: &str, reason: &str) {
        say(&format!("== {} {name}: not run: {reason}", self.verb));
        self.add(name, Duration::ZERO, Outcome::NotRun(reason.to_owned()));
    }

    /// Shows the table.
    ///
    /// # Errors
    /// When a step failed; the error names all that did.
    pub(crate) fn finish(self) -> Result<()> {
        let done = self.done.into_inner().unwrap_or_default();
        say(&table(self.verb, &done));
        let failed: Vec<&str> =
            done.iter().filter(|step| step.2 == Outcome::Failed).map(|step| step.0.as_str()).collect();
        if !failed.is_empty() {
            bail!("{} failed: {}", self.verb, failed.join(", "));
        }
        Ok(())
    }

    /// Remembers a step, and tells the file of the whole CI run.
    fn add(&self, name: &str, took: Duration, outcome: Outcome) {
        if let Some(path) = &self.file {
            let word = shown(&outcome);
            let file = OpenOptions::new().create(true).append(true).open(path);
            // The table is for people; a run is not spoilt by a folder that cannot be written.
            let _ =
                file.and_then(|mut file| writeln!(file, "{}\t{name}\t{:.1}\t{word}", self.verb, took.as_secs_f64()));
        }
        if let Ok(mut done) = self.done.lock() {
            done.push((name.to_owned(), took, outcome));
        }
    }
}

/// An outcome in words.
fn shown(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Passed => "passed".to_owned(),
        Outcome::Failed => "FAILED".to_owned(),
        Outcome::NotRun(reason) => format!("not run: {reason}"),
    }
}

/// The steps, one a line.
fn table(verb: &str, done: &[(String, Duration, Outcome)]) -> String {
    let width = done.iter().map(|step| step.0.len()).max().unwrap_or(0);
    let mut text = format!("\n{verb}: step, seconds, outcome\n");
    for (name, took, outcome) in done {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {name:width$} {:8.1}  {}", took.as_secs_f64(), shown(outcome));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_steps_run_after_a_failure_and_the_end_names_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let steps = Steps { verb: "trial", file: Some(file.path().to_owned()), done: Mutex::default() };
        assert!(!steps.run("first", || bail!("no")));
        assert!(steps.run("second", || Ok(())));
        steps.not_run("third", "not root");
        let error = steps.finish().unwrap_err().to_string();
        assert_eq!(error, "trial failed: first");
        let told = std::fs::read_to_string(file.path()).unwrap();
        let outcomes: Vec<&str> = told.lines().filter_map(|line| line.split('\t').nth(3)).collect();
        assert_eq!(outcomes, ["FAILED", "passed", "not run: not root"]);
    }

    #[test]
    fn the_table_shows_every_outcome() {
        let done = [
            ("fmt".to_owned(), Duration::from_millis(1500), Outcome::Passed),
            ("cluster".to_owned(), Duration::ZERO, Outcome::NotRun("not root".to_owned())),
        ];
        let text = table("test", &done);
        assert!(text.contains("fmt          1.5  passed"), "{text}");
        assert!(text.contains("not run: not root"), "{text}");
    }
}
