//! Pull: what a lost push is healed by.

use commpool_model::ids::{Incarnation, UserRef, Version};
use commpool_model::presence::Availability;
use commpool_store::ops::presence::Of;
use commpool_store::ops::pull::{Cursor, Pull, Pulled};
use commpool_store::ops::subscribe::Unwatch;

use crate::bench::{Bench, contract, flow, publication};
use crate::subscribe::subscription;

fn pull(b: &Bench, fe: Incarnation, cursor: Option<Cursor>, limit: u32) -> Pulled {
    b.ask(Pull { fe, cursor, limit })
}

fn users(pulled: &Pulled) -> Vec<UserRef> {
    pulled.changes.iter().map(|change| change.user.unwrap()).collect()
}

/// A watcher and those whom he watches from a front end.
fn watched<const N: usize>(b: &Bench, fe: Incarnation, names: [&str; N]) -> [UserRef; N] {
    let users = names.map(|name| b.add(name));
    let watcher = b.add("watcher");
    b.ask(subscription(watcher, fe, 1, &names));
    users
}

fn publish(b: &Bench, fe: Incarnation, user: UserRef, n: u8) -> Version {
    b.publish(&publication(user, flow(fe, u32::from(n)), n, Availability::Busy)).1.version
}

contract! {
    changes_of_the_watched_are_pulled
    what_becomes_visible_late_is_not_missed
    many_changes_come_page_by_page
    a_round_of_pages_looks_back_from_where_it_began
}

fn changes_of_the_watched_are_pulled(b: &Bench) {
    let (fe, other) = (b.start(true), b.start(false));
    let [alice, bob] = watched(b, fe, ["alice", "bob"]);
    let carol = b.add("carol");
    publish(b, fe, alice, 1);
    let start = pull(b, fe, None, 10);
    assert_eq!((start.changes.as_slice(), start.more), ([].as_slice(), false), "from now on");
    b.pass(6);
    let version = publish(b, fe, bob, 2);
    publish(b, fe, carol, 3);
    let seen = pull(b, fe, Some(start.cursor), 10);
    assert_eq!((users(&seen), seen.more), (vec![alice, bob], false));
    let change = &seen.changes[1];
    assert_eq!((change.version, change.interest.as_slice()), (version, [fe].as_slice()));
    assert_eq!(change.state, b.ask(Of { fe, users: vec![bob] }).states[0].1);
    b.pass(6);
    assert_eq!(users(&pull(b, fe, Some(seen.cursor), 10)), [bob]);
    let quiet = pull(b, fe, Some(seen.cursor), 10);
    assert_eq!(users(&pull(b, fe, Some(quiet.cursor), 10)), []);
    assert_eq!(users(&pull(b, other, Some(start.cursor), 10)), [], "who watches nobody");
    b.ask(Unwatch { fe, users: vec![bob] });
    assert_eq!(users(&pull(b, fe, Some(start.cursor), 10)), [alice]);
}

fn what_becomes_visible_late_is_not_missed(b: &Bench) {
    let fe = b.start(true);
    let [alice] = watched(b, fe, ["alice"]);
    b.pass(60);
    let cursor = pull(b, fe, None, 10).cursor;
    b.back(4);
    publish(b, fe, alice, 1);
    b.pass(14);
    let seen = pull(b, fe, Some(cursor), 10);
    assert_eq!(users(&seen), [alice], "its version lies before the last pull");
}

fn many_changes_come_page_by_page(b: &Bench) {
    let fe = b.start(true);
    let all = watched(b, fe, ["a", "b", "c", "d", "e"]);
    let start = pull(b, fe, None, 10).cursor;
    b.pass(60);
    for (n, user) in all.into_iter().enumerate() {
        publish(b, fe, user, n as u8 + 1);
        b.pass(1);
    }
    let mut seen = Vec::new();
    let mut page = pull(b, fe, Some(start), 2);
    for more in [true, true, false] {
        assert_eq!(page.more, more);
        seen.extend(users(&page));
        page = pull(b, fe, Some(page.cursor), 2);
    }
    assert_eq!(seen, all);
    assert!(page.changes.iter().map(|change| change.version).is_sorted());
}

fn a_round_of_pages_looks_back_from_where_it_began(b: &Bench) {
    let fe = b.start(true);
    let [alice, bob, carol] = watched(b, fe, ["alice", "bob", "carol"]);
    let start = pull(b, fe, None, 10).cursor;
    b.pass(60);
    publish(b, fe, alice, 1);
    b.pass(1);
    publish(b, fe, bob, 2);
    let first = pull(b, fe, Some(start), 1);
    assert_eq!((users(&first), first.more), (vec![alice], true));
    b.pass(100);
    let last = pull(b, fe, Some(first.cursor), 1);
    assert_eq!((users(&last), last.more), (vec![bob], false));
    b.back(100);
    publish(b, fe, carol, 3);
    b.pass(200);
    let late = pull(b, fe, Some(last.cursor), 10);
    assert_eq!(users(&late), [alice, bob, carol], "the slow round did not move the mark");
}
