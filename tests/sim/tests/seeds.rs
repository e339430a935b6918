//! The promises of a pool hold in many worlds, and every world can be seen again.

use commpool_sim::run::run;
use commpool_sim::seeds::run_all;

#[test]
fn five_hundred_worlds_keep_every_promise() {
    let summary = run_all(1..=500);
    assert!(summary.failed.is_empty(), "`cargo xtask sim SEED` shows one again\n{summary}");
    // What is never tried proves nothing.
    for what in [
        "front ends killed",
        "front ends frozen",
        "links cut",
        "store outages",
        "datagrams lost",
        "messages accepted",
        "notifies",
        "publications",
    ] {
        assert!(summary.counts.get(what).is_some_and(|n| *n >= 500), "too little of this: {what}\n{summary}");
    }
}

#[test]
fn a_seed_is_one_world() {
    let (first, again) = (run(7).unwrap(), run(7).unwrap());
    assert_eq!((first.counts, first.broken), (again.counts, again.broken));
}
