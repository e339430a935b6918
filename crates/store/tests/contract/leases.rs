//! Leases by name, and what they fence.

use commpool_store::ops::directory::{Applied, LeaseKeep, LeaseKept, LeaseTake, LeaseTaken, Staged};

use crate::bench::{Bench, contract};
use crate::directory::{apply, holders, keep, stage, take, user};

contract! {
    a_lease_has_one_holder_at_a_time
    a_lease_that_ran_out_is_kept_unless_somebody_took_it
    only_who_took_the_lease_last_may_write
}

fn a_lease_has_one_holder_at_a_time(b: &Bench) {
    let take = |holder: &str| b.ask(LeaseTake { name: "x".to_owned(), holder: holder.to_owned(), ttl_ms: 10_000 });
    let keep = |token, ttl_ms| b.ask(LeaseKeep { name: "x".to_owned(), token, ttl_ms });
    assert_eq!(keep(1, 1000), LeaseKept::Lost);
    assert_eq!(take("one"), LeaseTaken::Taken(1));
    assert_eq!(take("two"), LeaseTaken::Held { by: "one".to_owned(), ms_left: 10_000 });
    b.pass(4);
    assert_eq!(take("one"), LeaseTaken::Held { by: "one".to_owned(), ms_left: 6000 }, "also from itself");
    assert_eq!(
        (keep(1, 20_000), keep(2, 20_000), keep(0, 20_000)),
        (LeaseKept::Kept, LeaseKept::Lost, LeaseKept::Lost)
    );
    assert_eq!(take("two"), LeaseTaken::Held { by: "one".to_owned(), ms_left: 20_000 });
    assert_eq!(keep(1, 0), LeaseKept::Kept);
    assert_eq!(take("two"), LeaseTaken::Taken(2));
    assert_eq!(keep(1, 0), LeaseKept::Lost, "nobody gives back what another has taken");
    assert!(matches!(take("one"), LeaseTaken::Held { .. }));
    let other = LeaseTake { name: "y".to_owned(), holder: "one".to_owned(), ttl_ms: 1 };
    assert_eq!(b.ask(other), LeaseTaken::Taken(1));
    b.pass(10);
    assert_eq!(take("one"), LeaseTaken::Taken(3), "one that ran out is anybody's");
}

fn a_lease_that_ran_out_is_kept_unless_somebody_took_it(b: &Bench) {
    let token = take(b);
    b.pass(3600);
    assert_eq!(stage(b, token, 0, vec![user(1, "alice")]), Staged::Done);
    assert_eq!(keep(b, token, 1000), LeaseKept::Kept);
    b.pass(2);
    let next = take(b);
    assert!(next > token);
    assert_eq!((keep(b, token, 1000), keep(b, next, 1000)), (LeaseKept::Lost, LeaseKept::Kept));
}

fn only_who_took_the_lease_last_may_write(b: &Bench) {
    assert_eq!(stage(b, 0, 0, vec![user(1, "alice")]), Staged::Fenced, "nobody has taken it");
    assert_eq!(b.ask(apply(0, 0, 0)), Applied::Fenced);
    let first = take(b);
    assert_eq!(stage(b, first, 0, vec![user(1, "alice")]), Staged::Done);
    b.pass(61);
    let second = take(b);
    assert_eq!(stage(b, first, 1, vec![user(2, "bob")]), Staged::Fenced);
    assert_eq!(b.ask(apply(first, 0, 1)), Applied::Fenced);
    assert_eq!(b.ask(apply(second, 0, 1)), Applied::Incomplete, "what another has put aside is not applied");
    assert_eq!(stage(b, second, 0, vec![user(3, "carol")]), Staged::Done);
    assert_eq!(b.ask(apply(second, 0, 1)), Applied::Done { version: 1, refused: vec![] });
    assert_eq!(holders(b, &["alice", "bob", "carol"]), [0, 0, 3]);
}
