//! Users from a directory: one run at a time, all of its rows or none, and who gets which address.

use commpool_model::acl::Right;
use commpool_model::ids::{Key128, Micros, UserRef};
use commpool_store::StoreError;
use commpool_store::ops::accounts::{ChangedSince, Find, Put, PutReply, State};
use commpool_store::ops::directory::{
    Applied, Apply, Card, Change, Holder, Holders, Known, LeaseKeep, LeaseKept, LeaseTake, LeaseTaken, Source,
    SourceGet, SourceUsers, Stage, Staged,
};
use commpool_store::ops::{credentials, endpoints, presence, route};

use crate::bench::{Bench, Registration, ace, contract, flow, publication};
use crate::credentials::password;

const SOURCE: &str = "directory";

contract! {
    a_lease_has_one_holder_at_a_time
    a_lease_that_ran_out_is_kept_unless_somebody_took_it
    only_who_took_the_lease_last_may_write
    a_run_makes_users_and_the_next_one_finds_them
    users_of_a_source_come_page_by_page
    a_source_that_has_moved_on_is_left_alone
    rows_that_are_missing_or_anothers_apply_nothing
    front_ends_hear_of_states_and_addresses_only
    a_user_who_comes_back_finds_everything_as_it_was
    another_address_drops_the_passwords
    addresses_change_places_in_any_order_of_the_rows
    the_address_of_a_lapsed_user_goes_to_the_newcomer
    an_entry_made_anew_takes_its_address_over
    an_address_that_is_somebody_elses_is_refused
    two_who_want_one_address_do_not_both_get_it
    a_removed_user_leaves_nothing_behind
    only_who_has_lapsed_is_removed
    who_comes_from_a_directory_is_changed_there
    a_user_without_an_address_is_found_nowhere
    sources_have_nothing_to_do_with_each_other
}

pub(crate) fn key(n: u8) -> Key128 {
    Key128([n; 16])
}

fn address(name: &str) -> String {
    format!("{name}@example.com")
}

/// A user who is on.
fn user(n: u8, name: &str) -> Change {
    put(n, Some(name), State::On)
}

fn put(n: u8, name: Option<&str>, state: State) -> Change {
    Change::Put {
        key: key(n),
        address: name.map(address),
        state,
        display_name: format!("Number {n}"),
        card: Card { phone: format!("+{n}"), office: "Büro 1".to_owned(), ..Card::default() },
        fingerprint: key(n.wrapping_add(100)),
    }
}

fn lapse(n: u8) -> Change {
    Change::Lapse { key: key(n), purge_at: Micros(5) }
}

fn remove(n: u8) -> Change {
    Change::Remove { key: key(n) }
}

fn take(b: &Bench) -> u64 {
    let take = LeaseTake { name: SOURCE.to_owned(), holder: "a test".to_owned(), ttl_ms: 60_000 };
    match b.ask(take) {
        LeaseTaken::Taken(token) => token,
        held => panic!("{held:?}"),
    }
}

fn keep(b: &Bench, token: u64, ttl_ms: u32) -> LeaseKept {
    b.ask(LeaseKeep { name: SOURCE.to_owned(), token, ttl_ms })
}

fn source(b: &Bench) -> Source {
    b.ask(SourceGet { source: SOURCE.to_owned() })
}

fn stage(b: &Bench, token: u64, first: u32, rows: Vec<Change>) -> Staged {
    b.ask(Stage { source: SOURCE.to_owned(), token, first, rows })
}

fn apply(token: u64, version: u64, rows: usize) -> Apply {
    Apply { source: SOURCE.to_owned(), token, version, rows: rows as u32, state: vec![7, 0, version as u8] }
}

/// A whole run: keys that did not get their address.
fn run(b: &Bench, rows: Vec<Change>) -> Vec<Key128> {
    let token = take(b);
    let before = source(b);
    let count = rows.len();
    for (n, chunk) in (0..).zip(rows.chunks(2)) {
        assert_eq!(stage(b, token, 2 * n, chunk.to_vec()), Staged::Done);
    }
    if count == 0 {
        stage(b, token, 0, vec![]);
    }
    let applied = b.ask(apply(token, before.version, count));
    assert_eq!(keep(b, token, 0), LeaseKept::Kept);
    match applied {
        Applied::Done { version, refused } => {
            assert_eq!(version, before.version + 1);
            assert_eq!((source(b).version, source(b).state), (version, vec![7, 0, before.version as u8]));
            refused
        }
        other => panic!("{other:?}"),
    }
}

fn known(b: &Bench) -> Vec<Known> {
    let page = b.ask(SourceUsers { source: SOURCE.to_owned(), after: None, limit: 1000 });
    assert!(!page.more);
    page.users
}

fn of(b: &Bench, n: u8) -> Known {
    known(b).into_iter().find(|known| known.key == key(n)).unwrap()
}

/// Numbers of the keys that have these addresses; 0: somebody else or nobody.
fn holders(b: &Bench, names: &[&str]) -> Vec<u8> {
    let found = b.ask(Holders { addresses: names.iter().map(|name| address(name)).collect() });
    assert_eq!(found.holders.len(), names.len());
    let number = |holder: Option<Holder>| holder.and_then(|of| of.origin).map_or(0, |(_, key)| key.0[0]);
    found.holders.into_iter().map(number).collect()
}

fn mark(b: &Bench) -> u64 {
    b.ask(ChangedSince { cursor: None }).cursor
}

/// Who changed since a mark, in the order of the users.
fn told(b: &Bench, since: u64) -> Vec<(String, UserRef, State)> {
    let changed = b.ask(ChangedSince { cursor: Some(since) });
    let stamps: Vec<u64> = changed.accounts.iter().map(|(_, _, _, stamp)| *stamp).collect();
    assert!(stamps.windows(2).all(|pair| pair[0] < pair[1]), "{stamps:?}");
    let mut told: Vec<_> =
        changed.accounts.into_iter().map(|(address, user, state, _)| (address, user, state)).collect();
    told.sort_by_key(|(_, user, _)| *user);
    told
}

fn has_password(b: &Bench, name: &str) -> bool {
    let found = b.ask(credentials::Request { address: address(name) }).found;
    found.is_some_and(|login| !login.verifiers.is_empty())
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

fn a_run_makes_users_and_the_next_one_finds_them(b: &Bench) {
    assert_eq!(source(b), Source { now: b.now(), ..Source::default() });
    assert_eq!(known(b), []);
    let by_hand = b.add("bob");
    let since = mark(b);
    let token = take(b);
    assert_eq!(stage(b, token, 0, vec![user(2, "carol"), put(1, Some("alice"), State::Disabled)]), Staged::Done);
    assert_eq!(stage(b, token, 2, vec![put(3, None, State::On), lapse(9), remove(8)]), Staged::Done);
    assert_eq!(holders(b, &["alice", "carol"]), [0, 0], "until it is applied nothing is to be seen");
    assert_eq!(b.ask(apply(token, 0, 5)), Applied::Done { version: 1, refused: vec![] });
    assert_eq!(source(b), Source { version: 1, state: vec![7, 0, 0], users: 3, now: b.now() });
    let users = known(b);
    let (alice, carol, nameless) = (users[0].user, users[1].user, users[2].user);
    let row = |n: u8, user, name: Option<&str>, state| Known {
        key: key(n),
        user,
        address: name.map(address),
        state,
        fingerprint: key(100 + n),
        purge_at: None,
    };
    assert_eq!(
        users,
        [
            row(1, alice, Some("alice"), State::Disabled),
            row(2, carol, Some("carol"), State::On),
            row(3, nameless, None, State::On),
        ]
    );
    let of_hand = Holder { user: by_hand, origin: None };
    let of_alice = Holder { user: alice, origin: Some((SOURCE.to_owned(), key(1))) };
    let asked = Holders { addresses: vec![address("bob"), address("nobody"), address("alice")] };
    assert_eq!(b.ask(asked).holders, [Some(of_hand), None, Some(of_alice)]);
    let mut fresh = vec![
        (address("alice"), alice, State::Disabled),
        (address("carol"), carol, State::On),
        (String::new(), nameless, State::On),
    ];
    fresh.sort_by_key(|(_, user, _)| *user);
    assert_eq!(told(b, since), fresh);
    let listed = b.ask(Find { limit: 10, ..Find::default() }).accounts;
    let seen: Vec<_> = listed.iter().map(|of| (of.address.as_str(), of.managed, of.card.phone.as_str())).collect();
    assert_eq!(
        seen,
        [("alice@example.com", true, "+1"), ("bob@example.com", false, ""), ("carol@example.com", true, "+2")]
    );
    assert_eq!((listed[0].display_name.as_str(), listed[0].card.office.as_str()), ("Number 1", "Büro 1"));
    let target = b.ask(route::Request { target: address("carol"), sender: address("bob") }).found.unwrap();
    assert_eq!((target.user, target.state), (carol, State::On));
}

fn users_of_a_source_come_page_by_page(b: &Bench) {
    run(b, (0..5).map(|n| user(if n == 4 { 255 } else { n }, &format!("user{n}"))).collect());
    let page = |after: Option<u8>, limit| {
        let page = b.ask(SourceUsers { source: SOURCE.to_owned(), after: after.map(key), limit });
        (page.users.iter().map(|known| known.key.0[0]).collect::<Vec<_>>(), page.more)
    };
    assert_eq!(page(None, 5), (vec![0, 1, 2, 3, 255], false));
    assert_eq!(page(None, 2), (vec![0, 1], true));
    assert_eq!(page(Some(1), 2), (vec![2, 3], true));
    assert_eq!(page(Some(3), 2), (vec![255], false));
    assert_eq!(page(Some(255), 2), (vec![], false));
}

fn a_source_that_has_moved_on_is_left_alone(b: &Bench) {
    let token = take(b);
    stage(b, token, 0, vec![user(1, "alice")]);
    assert_eq!(b.ask(apply(token, 1, 1)), Applied::Moved);
    assert_eq!(b.ask(apply(token, 0, 1)), Applied::Done { version: 1, refused: vec![] });
    assert_eq!(b.ask(apply(token, 0, 1)), Applied::Moved, "so one whose answer was lost is not applied again");
    assert_eq!(b.ask(apply(token, 1, 1)), Applied::Incomplete, "what was applied is gone");
    assert_eq!(b.ask(apply(token, 1, 0)), Applied::Done { version: 2, refused: vec![] });
    assert_eq!((source(b).version, source(b).users), (2, 1));
}

fn rows_that_are_missing_or_anothers_apply_nothing(b: &Bench) {
    let token = take(b);
    stage(b, token, 0, vec![user(9, "left-over"), user(8, "another")]);
    assert_eq!(stage(b, token, 0, vec![user(1, "alice"), user(2, "bob")]), Staged::Done);
    assert_eq!(stage(b, token, 3, vec![user(4, "dave")]), Staged::Done);
    for count in [2, 3, 4] {
        assert_eq!(b.ask(apply(token, 0, count)), Applied::Incomplete, "{count}");
    }
    assert_eq!(stage(b, token, 2, vec![user(2, "carol")]), Staged::Done);
    assert_eq!(b.ask(apply(token, 0, 4)), Applied::Incomplete, "two rows of one key");
    assert_eq!(source(b).version, 0);
    assert_eq!(stage(b, token, 2, vec![user(3, "carol")]), Staged::Done, "a row that is sent again replaces itself");
    assert_eq!(b.ask(apply(token, 0, 3)), Applied::Incomplete);
    assert_eq!(b.ask(apply(token, 0, 4)), Applied::Done { version: 1, refused: vec![] });
    assert_eq!(holders(b, &["alice", "bob", "carol", "dave", "left-over"]), [1, 2, 3, 4, 0]);
}

fn front_ends_hear_of_states_and_addresses_only(b: &Bench) {
    run(b, vec![user(1, "alice"), user(2, "bob")]);
    let (alice, bob) = (of(b, 1).user, of(b, 2).user);
    let since = mark(b);
    let other = |name: &str, phone: &str| match user(1, "alice") {
        Change::Put { key, address, state, .. } => Change::Put {
            key,
            address,
            state,
            display_name: name.to_owned(),
            card: Card { phone: phone.to_owned(), ..Card::default() },
            fingerprint: key,
        },
        _ => unreachable!(),
    };
    run(b, vec![other("Álice", "+9"), user(2, "bob")]);
    run(b, vec![]);
    assert_eq!((told(b, since), mark(b)), (vec![], since), "name and card are no reason to sign anybody out");
    let found = b.ask(Find { text: "ÁLI".to_owned(), limit: 2, after: None }).accounts;
    assert_eq!((found.len(), found[0].card.phone.as_str()), (1, "+9"));
    assert_eq!(of(b, 1).fingerprint, key(1));
    run(b, vec![put(1, Some("alice"), State::Disabled)]);
    assert_eq!(told(b, since), [(address("alice"), alice, State::Disabled)]);
    let since = mark(b);
    run(b, vec![lapse(1), lapse(2)]);
    assert_eq!(told(b, since), [(address("bob"), bob, State::Disabled)], "alice was disabled before");
    let since = mark(b);
    b.back(3600);
    run(b, vec![user(1, "alice"), put(2, Some("robert"), State::Disabled)]);
    assert_eq!(told(b, since), [(address("alice"), alice, State::On), (address("robert"), bob, State::Disabled)]);
    let since = mark(b);
    run(b, vec![put(1, None, State::On)]);
    assert_eq!(told(b, since), [(String::new(), alice, State::On)]);
}

fn a_user_who_comes_back_finds_everything_as_it_was(b: &Bench) {
    run(b, vec![user(1, "alice")]);
    let before = of(b, 1);
    b.ask(password("alice", "main", "aa"));
    b.set_aces(before.user, vec![ace("bob@example.com", Right::Allow, Right::Deny)]);
    run(b, vec![lapse(1)]);
    let lapsed = Known { state: State::Disabled, purge_at: Some(Micros(5)), ..before.clone() };
    assert_eq!(of(b, 1), lapsed);
    let target = |state| {
        let target = b.ask(route::Request { target: address("alice"), sender: address("bob") }).found.unwrap();
        assert_eq!((target.user, target.state, target.aces.len()), (before.user, state, 1));
    };
    target(State::Disabled);
    let account = &b.ask(Find { limit: 2, ..Find::default() }).accounts[0];
    assert_eq!((account.display_name.as_str(), account.card.phone.as_str()), ("Number 1", "+1"));
    run(b, vec![user(1, "alice")]);
    assert_eq!(of(b, 1), before);
    target(State::On);
    assert!(has_password(b, "alice"));
}

fn another_address_drops_the_passwords(b: &Bench) {
    run(b, vec![user(1, "alice"), user(2, "bob")]);
    for name in ["alice", "bob"] {
        b.ask(password(name, "main", "aa"));
        b.ask(password(name, "phone", "bb"));
    }
    let since = mark(b);
    let before = of(b, 1);
    run(b, vec![user(1, "alina"), put(2, Some("bob"), State::On)]);
    assert_eq!(of(b, 1), Known { address: Some(address("alina")), ..before.clone() });
    assert_eq!(told(b, since), [(address("alina"), before.user, State::On)]);
    assert!(!has_password(b, "alina") && has_password(b, "bob"));
    assert_eq!(b.ask(credentials::Request { address: address("alice") }).found, None);
    run(b, vec![put(2, None, State::On)]);
    run(b, vec![user(2, "bob")]);
    assert!(!has_password(b, "bob"), "also when it is the old one that he gets anew");
}

fn orders<T: Clone>(things: &[T]) -> Vec<Vec<T>> {
    if things.is_empty() {
        return vec![vec![]];
    }
    let mut all = Vec::new();
    for n in 0..things.len() {
        let mut rest = things.to_vec();
        let first = rest.remove(n);
        all.extend(orders(&rest).into_iter().map(|mut order| {
            order.insert(0, first.clone());
            order
        }));
    }
    all
}

fn addresses_change_places_in_any_order_of_the_rows(b: &Bench) {
    run(b, vec![user(1, "a"), user(2, "b"), user(3, "c"), user(4, "d")]);
    let users: Vec<_> = known(b).iter().map(|known| known.user).collect();
    let mut have = ["a", "b", "c"];
    for order in orders(&[0_usize, 1, 2]) {
        have.rotate_left(1);
        let rows = order.into_iter().map(|n| user(n as u8 + 1, have[n])).collect();
        assert_eq!(run(b, rows), []);
        assert_eq!(holders(b, &have), [1, 2, 3]);
        have.swap(0, 2);
        assert_eq!(run(b, vec![user(3, have[2]), user(1, have[0])]), []);
        assert_eq!(holders(b, &have), [1, 2, 3]);
    }
    // A chain whose end is free, and a new one at its beginning.
    for (n, order) in (0..).zip(orders(&[(1, 0), (2, 1), (3, 2)])) {
        let start = 10 + 4 * n;
        run(b, (0..3).map(|i| user(start + i + 1, &format!("x{n}-{i}"))).collect());
        let rows = order.into_iter().map(|(who, place): (u8, u8)| user(start + who, &format!("x{n}-{}", place + 1)));
        let rows = rows.chain([user(start, &format!("x{n}-0"))]).collect();
        assert_eq!(run(b, rows), []);
        let names: Vec<String> = (0..4).map(|i| format!("x{n}-{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(holders(b, &names), [start, start + 1, start + 2, start + 3]);
    }
    assert_eq!(known(b)[..4].iter().map(|known| known.user).collect::<Vec<_>>(), users);
    assert_eq!(holders(b, &["d"]), [4]);
}

fn the_address_of_a_lapsed_user_goes_to_the_newcomer(b: &Bench) {
    run(b, vec![user(5, "alice"), user(6, "bob")]);
    b.ask(password("alice", "main", "aa"));
    let (alice, bob) = (of(b, 5).user, of(b, 6).user);
    run(b, vec![lapse(5)]);
    let since = mark(b);
    // One had lapsed before, the other does now.
    assert_eq!(run(b, vec![user(7, "alice"), lapse(6), user(1, "bob")]), []);
    assert_eq!(holders(b, &["alice", "bob"]), [7, 1]);
    assert!(!has_password(b, "alice"), "who has it now has none of his");
    let lapsed = of(b, 5);
    assert_eq!(
        (lapsed.user, lapsed.address, lapsed.state, lapsed.purge_at),
        (alice, None, State::Disabled, Some(Micros(5)))
    );
    assert_eq!((of(b, 6).address, of(b, 6).state), (None, State::Disabled));
    let (new_bob, new_alice) = (of(b, 1).user, of(b, 7).user);
    assert_eq!(
        told(b, since),
        [
            (String::new(), alice, State::Disabled),
            (String::new(), bob, State::Disabled),
            (address("bob"), new_bob, State::On),
            (address("alice"), new_alice, State::On),
        ]
    );
    assert_eq!(run(b, vec![user(5, "alice")]), [key(5)], "his address is another's now");
    assert_eq!((of(b, 5).address, of(b, 5).state, of(b, 5).purge_at), (None, State::On, None));
    assert_eq!(of(b, 5).fingerprint, key(0));
    assert_eq!(run(b, vec![user(5, "alice-2")]), []);
    assert_eq!((of(b, 5).user, of(b, 5).address), (alice, Some(address("alice-2"))));
    // A lapsed user who is found again in the same run keeps his address.
    run(b, vec![lapse(7)]);
    assert_eq!(run(b, vec![user(2, "alice"), user(7, "alice")]), [key(2)]);
    assert_eq!(holders(b, &["alice"]), [7]);
}

fn an_entry_made_anew_takes_its_address_over(b: &Bench) {
    run(b, vec![user(1, "alice"), user(2, "bob"), user(9, "zoe")]);
    run(b, vec![lapse(1), lapse(9)]);
    let old = of(b, 1).user;
    assert_eq!(run(b, vec![remove(9), user(5, "alice"), remove(1), lapse(2), user(3, "zoe")]), []);
    assert_eq!(holders(b, &["alice", "bob", "zoe"]), [5, 2, 3]);
    assert_eq!(known(b).iter().map(|known| known.key.0[0]).collect::<Vec<_>>(), [2, 3, 5]);
    assert!(of(b, 5).user > old);
    assert_eq!(source(b).users, 3);
}

fn an_address_that_is_somebody_elses_is_refused(b: &Bench) {
    let by_hand = b.add("carol");
    run(b, vec![user(1, "alice"), user(2, "bob"), put(3, Some("dave"), State::Disabled)]);
    b.ask(password("alice", "main", "aa"));
    let before = of(b, 1);
    let since = mark(b);
    // By hand; of a user who stays; of one who is disabled but still there; a new one.
    assert_eq!(
        run(b, vec![user(1, "carol"), user(7, "carol"), user(8, "bob"), user(9, "dave")]),
        [key(1), key(7), key(8), key(9)]
    );
    assert_eq!(of(b, 1), Known { fingerprint: key(0), ..before.clone() });
    assert_eq!(known(b).len(), 3, "a new user without his address is not made");
    assert!(has_password(b, "alice"));
    assert_eq!(told(b, since), []);
    let held = b.ask(Holders { addresses: vec![address("carol")] }).holders;
    assert_eq!(held, [Some(Holder { user: by_hand, origin: None })]);
    // Everything else of him is as wanted.
    assert_eq!(run(b, vec![put(1, Some("carol"), State::Disabled)]), [key(1)]);
    assert_eq!((of(b, 1).address, of(b, 1).state), (Some(address("alice")), State::Disabled));
    // His old address is given to another: it was his to give up.
    assert_eq!(run(b, vec![user(1, "carol"), user(4, "alice")]), [key(1)]);
    assert_eq!((of(b, 1).address, of(b, 1).fingerprint, of(b, 4).address), (None, key(0), Some(address("alice"))));
    assert!(!has_password(b, "alice"));
    assert_eq!(run(b, vec![user(1, "carla")]), []);
    assert_eq!((of(b, 1).user, of(b, 1).address), (before.user, Some(address("carla"))));
}

fn two_who_want_one_address_do_not_both_get_it(b: &Bench) {
    assert_eq!(run(b, vec![user(3, "a"), user(2, "a"), user(4, "a")]), [key(3), key(4)]);
    assert_eq!(holders(b, &["a"]), [2], "the lowest key");
    assert_eq!(run(b, vec![user(2, "a"), user(1, "a")]), [key(1)], "unless another has it");
    assert_eq!(run(b, vec![user(1, "b"), user(3, "c")]), []);
    assert_eq!(run(b, vec![user(1, "a"), user(2, "b"), user(3, "b")]), [key(3)]);
    assert_eq!(holders(b, &["a", "b", "c"]), [1, 2, 3]);
}

fn a_removed_user_leaves_nothing_behind(b: &Bench) {
    let fe = b.start(false);
    let watcher = b.add("watcher");
    run(b, vec![user(1, "alice"), user(2, "bob")]);
    let (alice, bob) = (of(b, 1).user, of(b, 2).user);
    b.ask(password("bob", "main", "aa"));
    b.set_aces(bob, vec![ace("", Right::Allow, Right::Allow)]);
    b.register(&Registration::new(bob, fe, 1));
    b.publish(&publication(bob, flow(fe, 1), 1, commpool_model::presence::Availability::Busy));
    b.ask(crate::subscribe::subscription(watcher, fe, 1, &["bob"]));
    b.ask(crate::subscribe::subscription(bob, fe, 2, &["watcher"]));
    run(b, vec![lapse(2)]);
    let latest = mark(b);
    assert_eq!(run(b, vec![remove(2)]), []);
    assert_eq!((holders(b, &["bob"]), source(b).users, known(b).len()), (vec![0], 1, 1));
    assert_eq!(b.ask(credentials::Request { address: address("bob") }).found, None);
    let left = b.ask(endpoints::Timers { after: None, after_publication: None, limit: 10 });
    assert_eq!((left.endpoints.len(), left.publications.len()), (0, 0));
    let states = b.ask(presence::Of { fe, users: vec![bob] }).states;
    assert_eq!((states[0].1.devices.len(), states[0].2.0), (0, 0));
    assert!(mark(b) >= latest, "no stamp is given twice");
    b.back(7200);
    let carol = b.add("carol");
    assert!(carol.id > bob.id && bob.id > alice.id, "nor is a number");
    assert_eq!(told(b, latest), [(address("carol"), carol, State::On)]);
    assert_eq!(run(b, vec![user(2, "bob")]), []);
    assert!(of(b, 2).user.id > carol.id);
    assert!(!has_password(b, "bob"));
    let target = b.ask(route::Request { target: address("bob"), sender: address("carol") }).found.unwrap();
    assert_eq!((target.aces.len(), target.endpoints.len()), (0, 0));
}

fn only_who_has_lapsed_is_removed(b: &Bench) {
    run(b, vec![user(1, "alice"), put(2, Some("bob"), State::Disabled)]);
    let before = known(b);
    assert_eq!(run(b, vec![remove(1), remove(2), remove(3)]), []);
    assert_eq!(known(b), before);
    assert_eq!(run(b, vec![remove(1), user(3, "alice")]), [key(3)], "nor does he give his address up");
    assert_eq!(known(b), before);
}

fn who_comes_from_a_directory_is_changed_there(b: &Bench) {
    run(b, vec![user(1, "alice")]);
    let change = |state, name: Option<&str>| {
        b.ask(Put::Change { address: address("alice"), state, display_name: name.map(str::to_owned) })
    };
    assert_eq!(change(Some(State::Disabled), None), PutReply::Managed);
    assert_eq!(change(None, Some("Alice")), PutReply::Managed);
    assert_eq!(b.ask(Put::Add { address: address("alice"), display_name: String::new() }), PutReply::Managed);
    let before = b.ask(Find { limit: 10, ..Find::default() }).accounts;
    assert_eq!((before.len(), before[0].display_name.as_str(), before[0].state), (1, "Number 1", State::On));
    run(b, vec![put(1, Some("alice"), State::Disabled)]);
    assert!(
        matches!(b.ask(password("alice", "main", "aa")), credentials::PutReply::Done(_)),
        "passwords are given here"
    );
    assert!(b.ask(Find { limit: 10, ..Find::default() }).accounts[0].has_password);
    let revoke = credentials::Revoke { address: address("alice"), label: "main".to_owned() };
    assert!(matches!(b.ask(revoke), credentials::Revoked::Done(_)));
    // Requests that go to the store together.
    let put = |name: &str| Put::Change { address: address(name), state: None, display_name: Some("X".to_owned()) };
    let bob = b.add("bob");
    let together = b.many(vec![put("alice").into(), put("bob").into(), put("nobody").into()]);
    let replies: Vec<_> = together.into_iter().map(Result::unwrap).collect();
    use commpool_store::ops::Outcome::AccountPut;
    assert_eq!(
        replies,
        [AccountPut(PutReply::Managed), AccountPut(PutReply::Done(bob)), AccountPut(PutReply::NotFound)]
    );
}

fn a_user_without_an_address_is_found_nowhere(b: &Bench) {
    let fe = b.start(false);
    run(b, vec![user(1, "alice")]);
    let alice = of(b, 1).user;
    b.register(&Registration::new(alice, fe, 1));
    run(b, vec![put(1, None, State::On)]);
    assert_eq!(b.ask(route::Request { target: address("alice"), sender: address("bob") }).found, None);
    assert_eq!(b.ask(credentials::Request { address: address("alice") }).found, None);
    assert_eq!(b.ask(Find { limit: 10, ..Find::default() }).accounts, []);
    let page = b.ask(endpoints::Find { address: None, after: None, limit: 10 });
    assert_eq!(page.rows.len(), 1, "his device is there until its front end has heard of it");
    assert_eq!(page.rows[0].0, "");
    let put = b.ask(password("alice", "main", "aa"));
    assert_eq!(put, credentials::PutReply::NotFound);
    assert!(matches!(b.ask(Put::Add { address: address("alice"), display_name: String::new() }), PutReply::Done(_)));
    assert_eq!(run(b, vec![user(1, "alice")]), [key(1)]);
}

fn sources_have_nothing_to_do_with_each_other(b: &Bench) {
    run(b, vec![user(1, "alice"), user(2, "bob")]);
    run(b, vec![lapse(2)]);
    let take = LeaseTake { name: "other".to_owned(), holder: "a test".to_owned(), ttl_ms: 60_000 };
    let LeaseTaken::Taken(token) = b.ask(take) else { panic!() };
    let other = |version, rows: Vec<Change>| {
        let count = rows.len() as u32;
        let here = take_aside(b);
        b.ask(Stage { source: "other".to_owned(), token, first: 0, rows });
        let applied = b.ask(Apply { source: "other".to_owned(), token, version, rows: count, state: vec![] });
        assert_eq!(
            b.ask(apply(here, source(b).version, 1)),
            Applied::Done { version: source(b).version, refused: vec![] }
        );
        keep(b, here, 0);
        applied
    };
    let rows = vec![user(1, "carol"), user(2, "bob"), user(3, "alice"), lapse(1)];
    assert!(b.try_ask(Stage { source: "other".to_owned(), token, first: 0, rows: rows.clone() }.into()).is_err());
    let done = other(0, rows[..3].to_vec());
    assert_eq!(
        done,
        Applied::Done { version: 1, refused: vec![key(2), key(3)] },
        "lapsed or not, it is another source's"
    );
    let get = |source: &str| b.ask(SourceGet { source: source.to_owned() });
    assert_eq!((get("other").users, get("other").version, get(SOURCE).users), (1, 1, 3));
    assert_eq!(of(b, 1).address, Some(address("alice")));
    assert_eq!(other(1, vec![lapse(1)]), Applied::Done { version: 2, refused: vec![] });
    assert_eq!(of(b, 1).state, State::On);
}

/// Rows of a run that is under way.
fn take_aside(b: &Bench) -> u64 {
    let token = take(b);
    assert_eq!(stage(b, token, 0, vec![user(77, "waits")]), Staged::Done);
    token
}

#[test]
fn requests_keep_their_bounds() {
    let b = Bench::memory();
    let card = Card { phone: "1".repeat(257), ..Card::default() };
    let row = |change: &dyn Fn(&mut Change)| {
        let mut row = user(1, "alice");
        change(&mut row);
        Stage { source: SOURCE.to_owned(), token: 1, first: 0, rows: vec![row] }
    };
    let field = |refused: Result<_, StoreError>| match refused {
        Err(StoreError::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let stages: [(&str, Stage); 7] = [
        ("rows", Stage { rows: vec![user(1, "a"), lapse(1)], ..row(&|_| ()) }),
        ("rows", Stage { first: 1_000_000, ..row(&|_| ()) }),
        ("rows", Stage { rows: vec![lapse(1); 1001], ..row(&|_| ()) }),
        ("source", Stage { source: "s".repeat(65), ..row(&|_| ()) }),
        (
            "phone",
            Stage {
                rows: vec![Change::Put {
                    key: key(1),
                    address: None,
                    state: State::On,
                    display_name: String::new(),
                    card,
                    fingerprint: key(1),
                }],
                ..row(&|_| ())
            },
        ),
        (
            "address",
            row(&|row| {
                if let Change::Put { address, .. } = row {
                    *address = Some("Alice@EXAMPLE.com".to_owned())
                }
            }),
        ),
        (
            "state",
            row(&|row| {
                if let Change::Put { state, .. } = row {
                    *state = State::Removed
                }
            }),
        ),
    ];
    for (wrong, stage) in stages {
        assert_eq!(field(b.try_ask(stage.into())), wrong);
    }
    let lease = |holder: &str, ttl_ms| LeaseTake { name: "x".to_owned(), holder: holder.to_owned(), ttl_ms };
    assert_eq!(field(b.try_ask(lease("", 1).into())), "holder");
    assert_eq!(field(b.try_ask(lease("a", 0).into())), "ttl_ms");
    assert_eq!(field(b.try_ask(lease("a", 3_600_001).into())), "ttl_ms");
    assert_eq!(field(b.try_ask(apply(1, 0, 1_000_001).into())), "rows");
    assert_eq!(field(b.try_ask(Apply { state: vec![0; 65_537], ..apply(1, 0, 0) }.into())), "state");
    assert_eq!(field(b.try_ask(SourceUsers { source: SOURCE.to_owned(), after: None, limit: 1001 }.into())), "limit");
    assert_eq!(field(b.try_ask(Holders { addresses: vec![address("a"); 1001] }.into())), "addresses");
}
