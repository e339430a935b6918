//! Steps and plans as people and programs read them.

use std::fmt::Write as _;

use commpool_model::ids::Micros;
use commpool_store::ops::accounts::State;
use commpool_store::ops::directory::Change;
use serde_json::{Map, Value, json};

use crate::check::{Line, Status};
use crate::cycle::Planned;
use crate::plan::{Act, Case, Step};
use crate::report;
use crate::text::shown;

/// Longest name in a line, octets.
const MAX_NAME: usize = 120;

pub(super) fn line(line: &Line) -> String {
    let mark = match line.status {
        Status::Good => "good   ",
        Status::Warning => "warning",
        Status::Failed => "FAILED ",
    };
    format!("{mark}  {:<10}  {}", line.step, shown(&line.detail, 1024))
}

const fn word(act: Act) -> &'static str {
    match act {
        Act::Add => "add",
        Act::Return => "return",
        Act::Change => "change",
        Act::Disable => "disable",
        Act::Lapse => "missing",
        Act::Remove => "remove",
        Act::Keep => "keep",
        Act::Ignore => "ignore",
        Act::Refuse => "conflict",
    }
}

/// What a user had and what he gets.
struct Seen<'a> {
    before: Option<&'a str>,
    after: Option<&'a str>,
    state: Option<State>,
    purge_at: Option<Micros>,
}

fn seen<'a>(case: &'a Case, step: &'a Step) -> Seen<'a> {
    let before = case.known.as_ref().and_then(|known| known.address.as_deref());
    match &step.change {
        Some(Change::Put { address, state, .. }) => {
            Seen { before, after: address.as_deref(), state: Some(*state), purge_at: None }
        }
        Some(Change::Lapse { purge_at, .. }) => {
            Seen { before, after: before, state: Some(State::Disabled), purge_at: Some(*purge_at) }
        }
        Some(Change::Remove { .. }) | None => Seen { before, after: None, state: None, purge_at: None },
    }
}

/// Whether a step is worth a line: something is written, or somebody does not get what he asks for.
const fn matters(step: &Step) -> bool {
    step.change.is_some() || step.conflict.is_some()
}

pub(super) fn step_text(case: &Case, step: &Step) -> Option<String> {
    if !matters(step) {
        return None;
    }
    let Seen { before, after, purge_at, .. } = seen(case, step);
    let mut text = String::new();
    if step.change.is_some() {
        let who = match (before, after) {
            (Some(before), Some(after)) if before != after => format!("{before} -> {after}"),
            (Some(address), _) | (None, Some(address)) => address.to_owned(),
            (None, None) => format!("{:?}", case.key),
        };
        let _ = write!(text, "{:<8}  {who}", word(step.act));
        if let Some(found) = &case.found {
            let _ = write!(text, "  {}", shown(&found.dn, MAX_NAME));
        }
        if let Some(at) = purge_at {
            let _ = write!(text, "  (removed after {})", moment(at));
        }
        if step.drops_passwords {
            text.push_str("  (the passwords of the old address go)");
        }
    }
    if let Some(conflict) = &step.conflict {
        let gap = if text.is_empty() { "" } else { "\n" };
        let _ = write!(text, "{gap}{:<8}  {conflict}", "conflict");
    }
    Some(text)
}

pub(super) fn step_json(case: &Case, step: &Step) -> Option<String> {
    if !matters(step) {
        return None;
    }
    let Seen { before, after, state, purge_at } = seen(case, step);
    let mut object = Map::new();
    let mut put = |name: &str, value: Option<Value>| value.map(|value| object.insert(name.to_owned(), value));
    put("step", Some(json!(word(step.act))));
    put("key", Some(json!(format!("{:?}", case.key))));
    put("dn", case.found.as_ref().map(|found| json!(found.dn)));
    put("displayName", case.found.as_ref().map(|found| json!(found.display_name)));
    put("before", before.map(|address| json!(address)));
    put("address", after.map(|address| json!(address)));
    put("state", state.map(|state| json!(if state == State::On { "on" } else { "disabled" })));
    put("removedAfter", purge_at.map(|at| json!(moment(at))));
    put("losing", step.loss.map(|_| json!(true)));
    put("dropsPasswords", step.drops_passwords.then_some(json!(true)));
    put("conflict", step.conflict.as_ref().map(|conflict| json!(conflict)));
    Some(Value::Object(object).to_string())
}

pub(super) fn plan_text(planned: &Planned) -> String {
    let counts = &planned.tally.counts;
    let mut text = format!(
        "{} entries: {}; {} unchanged, {} conflicts, {} ignored",
        planned.survey.found,
        report::summary(counts),
        counts.unchanged,
        counts.conflicts,
        counts.ignored
    );
    for line in &planned.survey.named {
        text = format!("conflict  {line}\n{text}");
    }
    if planned.held {
        let _ = write!(text, "\nheld: {}", planned.why_held());
    }
    text
}

pub(super) fn plan_json(planned: &Planned) -> String {
    let tally = &planned.tally;
    let message = if planned.held { planned.why_held() } else { report::summary(&tally.counts) };
    let plan = json!({
        "found": planned.survey.found,
        "counts": tally.counts,
        "losing": tally.losing,
        "users": tally.users,
        "held": planned.held,
        "planDigest": planned.held.then(|| tally.digest()),
        "conflicts": tally.conflicts,
        "message": message,
    });
    json!({ "plan": plan }).to_string()
}

fn moment(at: Micros) -> String {
    let seconds = i64::try_from(at.0 / 1_000_000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map(|at| at.to_string()).unwrap_or_default()
}
