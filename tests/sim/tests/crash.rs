//! The database crashes and loses its last soft writes: front ends say again what they hold, and nothing more.

use std::time::Duration;

use commpool_sim::world::{Shape, World};

/// Everybody is signed in by then.
const SETTLED: Duration = Duration::from_secs(20);
/// After it everything is right again: the outage, a renewal, a grace and its sweep.
const AFTER: Duration = Duration::from_secs(90);

#[test]
fn who_left_while_the_database_crashed_is_not_brought_back() {
    for seed in 1..=60 {
        let mut world = World::new(seed, Shape { front_ends: 3, users: 6, faulty: Duration::ZERO }).unwrap();
        world.run_until(world.now() + SETTLED + Duration::from_millis(83) * u32::try_from(seed).unwrap());
        world.calm();
        // Whoever is silent over UDP is expected back as long as his binding lives.
        let leavers: Vec<usize> =
            world.clients().iter().filter(|c| !c.udp && c.index % 2 == 0).map(|c| c.index).collect();
        let stay = world.clients().iter().filter(|c| c.registered).count() - leavers.len();
        world.lose_last_writes(Duration::from_millis(400));
        leavers.iter().for_each(|client| world.vanish(*client));
        world.run_until(world.now() + AFTER);
        let left = world.soft_rows()[0];
        assert_eq!(left, ("endpoint", stay), "seed {seed}");
        assert_eq!(world.check.broken, Vec::<String>::new(), "seed {seed}");
    }
}
