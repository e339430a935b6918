//! One run: faults, calm, a look at what everybody sees, leaving, a look at what is left.

use std::collections::BTreeMap;
use std::time::Duration;

use commpool_model::presence::{Availability, aggregate};
use commpool_store::ops::presence::Of;
use commpool_store::ops::{Outcome, route};

use crate::client::{LIFETIME, Watch};
use crate::rng::Rng;
use crate::sip::DOMAIN;
use crate::world::{Shape, World};

/// After the faults everything must be right again within this: a grace, a pull, a lease, a client's patience.
const CALM: Duration = Duration::from_secs(75);
/// After the last traffic every table of a front end is empty within this.
const EMPTY: Duration = Duration::from_secs(200);
/// And what is left in the store then is past its time after this: rows of dialogs live three times as long as those.
const OVER: Duration = Duration::from_secs(3 * LIFETIME as u64 + 60);

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Broken promises.
    pub broken: Vec<String>,
    /// What happened.
    pub counts: BTreeMap<&'static str, u64>,
}

/// Runs one seed.
///
/// # Errors
/// When the world cannot be set up.
pub fn run(seed: u64) -> anyhow::Result<Report> {
    let mut rng = Rng::new(seed ^ 0x5eed);
    let shape = Shape {
        front_ends: 2 + usize::try_from(rng.below(3))?,
        users: 3 + usize::try_from(rng.below(5))?,
        faulty: Duration::from_secs(60 + rng.below(90)),
    };
    let mut world = World::new(seed, shape)?;
    world.run_until(world.faults_until());
    world.calm();
    world.run_until(world.now() + CALM);
    everybody_sees_the_truth(&mut world);
    world.check.leaving = true;
    world.everybody_leaves();
    world.run_until(world.now() + EMPTY);
    tables_are_empty(&mut world);
    store_is_empty(&mut world);
    Ok(Report { seed, broken: world.check.broken, counts: world.check.counts })
}

/// I16: what each watcher was shown last equals what the store adds up to.
fn everybody_sees_the_truth(world: &mut World) {
    let views = world.check.views.clone();
    for ((watcher, call_id), (user, view)) in views {
        let alive = world
            .clients()
            .get(watcher)
            .is_some_and(|c| c.registered && c.watches.get(&call_id).is_some_and(Watch::goes_on));
        if !alive {
            continue;
        }
        let Some((open, note)) = truth(world, &user) else { continue };
        if view.open != open || view.note != note {
            let now = world.now();
            let owners: Vec<String> = world.engines().filter_map(|e| e.describe_dialog(&call_id)).collect();
            if view.pending && owners.is_empty() {
                // Its front end died before it was decided: its client finds out at its next refresh.
                continue;
            }
            let what = format!(
                "{owners:#?} device {watcher} sees {user} as {view:?} ({call_id}), the store says open {open}, note {note:?}"
            );
            world.check.broke(now, "I16", what);
        }
    }
}

fn truth(world: &mut World, user: &str) -> Option<(bool, Option<u64>)> {
    let target = format!("{user}@{DOMAIN}");
    let read = route::Request { target: target.clone(), sender: target };
    let Some(Outcome::Route(reply)) = world.execute(read.into()) else { return None };
    let user = reply.found?.user;
    let fe = world.engines().next()?.incarnation();
    let Some(Outcome::PresenceOf(states)) = world.execute(Of { fe, users: vec![user] }.into()) else { return None };
    let (_, facts, _) = states.states.into_iter().next()?;
    let total = aggregate(&facts);
    let note = total.note.as_deref().and_then(|n| n.strip_prefix('n')?.parse().ok());
    Some((total.availability != Availability::Closed, note))
}

/// I17 of the store: a sweep removes what nobody ended, once it is past its time. Interest has none: it goes with its
/// front end at the latest.
fn store_is_empty(world: &mut World) {
    world.sweep_in(OVER);
    let left: Vec<_> = world.soft_rows().into_iter().filter(|(table, n)| *n > 0 && *table != "interest").collect();
    if !left.is_empty() {
        let now = world.now();
        world.check.broke(now, "I17", format!("left behind in the store: {left:?}"));
    }
}

/// I17: nothing is left behind.
fn tables_are_empty(world: &mut World) {
    let left: Vec<String> = world
        .engines()
        .flat_map(|engine| {
            let fe = engine.incarnation().0;
            engine.tables().into_iter().filter(|(_, n)| *n > 0).map(move |(name, n)| format!("{fe}: {name} {n}"))
        })
        .collect();
    if !left.is_empty() {
        let now = world.now();
        world.check.broke(now, "I17", format!("left behind: {left:?}"));
    }
    let (sent, answered) = world.check.messages();
    world.check.counts.insert("messages answered", answered as u64);
    debug_assert!(answered <= sent, "answers without messages");
}
