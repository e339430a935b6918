//! Tests that need more than cargo gives: they say why they are not run, and under CI they fail instead.

use crate::command::{is_root, say, which};
use crate::packages::Consent;

/// What a test may need of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Root.
    Root,
    /// A program.
    Program(&'static str),
}

/// Whether a test can be run. If not, it says so on standard error, which the test harness does not keep to itself as
/// it keeps what passing tests print.
///
/// # Panics
/// Under CI, where nothing may be left out.
#[must_use]
pub fn can_run(test: &str, needs: &[Need]) -> bool {
    let lacking = needs.iter().find_map(|need| match need {
        Need::Root if !is_root() => Some("root".to_owned()),
        Need::Program(name) if which(name).is_none() => Some(format!("the program {name}")),
        _ => None,
    });
    lacking.is_none_or(|what| {
        not_run(test, &format!("it needs {what}"));
        false
    })
}

/// Says that a test is not run, and why.
///
/// # Panics
/// Under CI, where nothing may be left out.
pub fn not_run(test: &str, reason: &str) {
    assert!(!Consent::in_ci(), "CI: {test} must be run: {reason}");
    say(&format!("not run: {test}: {reason}"));
}
