//! What a run came to, within the bounds of an [`Outcome`].

use commpool_model::directory::{Counts, MAX_OUTCOME, Outcome, RunResult};

use crate::fault::Fault;
use crate::text::shown;

/// Longest message, octets.
const MAX_MESSAGE: usize = 1024;
/// Longest line about a conflict, octets.
const MAX_CONFLICT: usize = 256;

/// The present moment, RFC 3339 in UTC, whole seconds.
pub fn moment() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// A run that did not come to its end.
pub fn failed(fault: &Fault, started: String) -> Outcome {
    fitted(Outcome {
        result: fault.result(),
        message: fault.text.clone(),
        started,
        finished: moment(),
        found: 0,
        counts: Counts::default(),
        conflicts: Vec::new(),
        plan_digest: String::new(),
    })
}

/// The outcome cut to its bounds.
pub fn fitted(mut outcome: Outcome) -> Outcome {
    outcome.message = shown(&outcome.message, MAX_MESSAGE);
    outcome.conflicts.truncate(commpool_model::directory::MAX_NAMED);
    for line in &mut outcome.conflicts {
        *line = shown(line, MAX_CONFLICT);
    }
    // What must be escaped in JSON takes more room than it had.
    while line(&outcome).len() > MAX_OUTCOME {
        if outcome.conflicts.pop().is_none() {
            outcome.message = shown(&outcome.message, outcome.message.len() / 2);
        }
    }
    outcome
}

/// The outcome as one line of JSON.
pub fn line(outcome: &Outcome) -> String {
    serde_json::to_string(outcome).unwrap_or_default()
}

/// What a plan does, in words.
pub fn summary(counts: &Counts) -> String {
    let parts = [
        (counts.added, "added"),
        (counts.changed, "changed"),
        (counts.disabled, "disabled"),
        (counts.missing, "missing"),
        (counts.removed, "removed"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    if parts.is_empty() { "nothing to change".to_owned() } else { parts.join(", ") }
}

/// The outcome as a text file for Prometheus' node exporter; `seconds`: how long the run took.
pub fn metrics(outcome: &Outcome, seconds: f64) -> String {
    let counts = &outcome.counts;
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, values: &[(String, f64)]| {
        text.push_str(&format!("# HELP commpool_directory_{name} {help}\n# TYPE commpool_directory_{name} gauge\n"));
        values
            .iter()
            .for_each(|(labels, value)| text.push_str(&format!("commpool_directory_{name}{labels} {value}\n")));
    };
    let one = |value: f64| vec![(String::new(), value)];
    let finished = outcome.finished.parse::<jiff::Timestamp>().map_or(0.0, |at| at.as_second() as f64);
    gauge("last_run_timestamp_seconds", "End of the last run", &one(finished));
    gauge("last_run_seconds", "How long the last run took", &one(seconds));
    let synced = f64::from(u8::from(outcome.result == RunResult::Synced));
    gauge("last_run_synced", "Whether the store is what the directory says", &one(synced));
    gauge("last_run_result", "Result of the last run", &[(format!("{{result=\"{:?}\"}}", outcome.result), 1.0)]);
    gauge("entries", "Entries that the filter found", &one(outcome.found as f64));
    let others = [("unchanged", counts.unchanged), ("conflict", counts.conflicts), ("ignored", counts.ignored)];
    let all = counts.changes().into_iter().chain(others);
    let changes: Vec<_> = all.map(|(change, count)| (format!("{{change=\"{change}\"}}"), count as f64)).collect();
    gauge("users", "Users by what the last run did to them, or in DeletionHeld would do", &changes);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Kind;

    #[test]
    fn whatever_is_said_fits() {
        for hostile in ["\"\\\u{1}", "ä\n", "\u{fffd}", "x"] {
            let text = hostile.repeat(3000);
            let mut outcome = failed(&Fault::new(Kind::Internal, text.clone()), moment());
            outcome.conflicts = vec![text; 9];
            let outcome = fitted(outcome);
            assert!(line(&outcome).len() <= MAX_OUTCOME && outcome.message.len() <= MAX_MESSAGE);
            assert!(outcome.conflicts.len() <= 5 && !outcome.message.contains('\n'));
            assert_eq!(serde_json::from_str::<Outcome>(&line(&outcome)).unwrap(), outcome);
        }
    }

    #[test]
    fn metrics_are_those_of_a_text_file() {
        let mut outcome = failed(&Fault::new(Kind::Busy, "x"), "2026-11-24T10:00:00Z".to_owned());
        outcome.counts.added = 3;
        let text = metrics(&outcome, 1.5);
        for line in [
            "commpool_directory_last_run_seconds 1.5",
            "commpool_directory_last_run_synced 0",
            "commpool_directory_last_run_result{result=\"Busy\"} 1",
            "commpool_directory_users{change=\"added\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
