//! The store is away: from everybody, then whoever is signed in stays; from one front end alone, then its clients go to
//! the others. However the outage falls between the renewals of the leases.

use std::time::Duration;

use commpool_sim::world::{Shape, World};

/// Everybody is signed in by then.
const SETTLED: Duration = Duration::from_secs(20);
/// After it everything is right again.
const AFTER: Duration = Duration::from_secs(40);
/// Whoever is cut off alone has told its clients so by then.
const TOLD: Duration = Duration::from_secs(18);

/// A pool in which everybody has signed in, each time at another point of everybody's rhythm.
fn settled(seed: u32) -> World {
    let mut world = World::new(seed.into(), Shape { front_ends: 3, users: 6, faulty: Duration::ZERO }).unwrap();
    world.run_until(world.now() + SETTLED + Duration::from_millis(83) * seed);
    world.calm();
    world
}

/// For each rhythm, with calls that fail at once and calls that are not answered.
fn each(go: impl Fn(u32, Duration)) {
    for seed in 1..=60 {
        [Duration::ZERO, Duration::from_secs(2)].into_iter().for_each(|hang| go(seed, hang));
    }
}

fn closed(world: &World) -> u64 {
    world.check.counts.get("connections closed by front ends").copied().unwrap_or_default()
}

#[test]
fn nobody_is_sent_elsewhere_where_nobody_is_better_off() {
    each(|seed, hang| {
        let mut world = settled(seed);
        let lasts = Duration::from_secs(9) + Duration::from_millis(200) * seed;
        world.outage(None, lasts, hang);
        world.run_until(world.now() + lasts + AFTER);
        assert_eq!(world.check.broken, Vec::<String>::new(), "seed {seed}");
        assert_eq!(closed(&world), 0, "seed {seed}, unanswered for {hang:?}");
    });
}

#[test]
fn who_is_cut_off_alone_sends_everybody_to_the_others() {
    each(|seed, hang| {
        let mut world = settled(seed);
        let (cut_off, before) = (1, world.connections(1));
        world.outage(Some(cut_off), TOLD + AFTER, hang);
        world.run_until(world.now() + TOLD);
        assert!(closed(&world) > 0 || before == 0, "seed {seed}, unanswered for {hang:?}: nobody was told");
        world.run_until(world.now() + AFTER);
        assert_eq!(world.connections(cut_off), 0, "seed {seed}, unanswered for {hang:?}");
        assert_eq!(closed(&world), before as u64, "seed {seed}, unanswered for {hang:?}");
        assert_eq!(world.check.broken, Vec::<String>::new(), "seed {seed}");
    });
}
