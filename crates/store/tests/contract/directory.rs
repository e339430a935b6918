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
    a_run_makes_users_and_the_next_one_finds_them
    users_of_a_source_come_page_by_page
    a_source_that_has_moved_on_is_left_alone
    rows_that_are_missing_or_anothers_apply_nothing
    front_ends_hear_of_states_and_addresses_only
    a_user_who_comes_back_finds_everything_as_it_was
    a_removed_user_leaves_nothing_behind
    only_who_has_lapsed_is_removed
    who_comes_from_a_directory_is_changed_there
    a_user_without_an_address_is_found_nowhere
    sources_have_nothing_to_do_with_each_other
}

pub(crate) fn key(n: u8) -> Key128 {
    Key128([n; 16])
}

pub(crate) fn address(name: &str) -> String {
    format!("{name}@example.com")
}

/// A user who is on.
pub(crate) fn user(n: u8, name: &str) -> Change {
    put(n, Some(name), State::On)
}

pub(crate) fn put(n: u8, name: Option<&str>, state: State) -> Change {
    Change::Put {
        key: key(n),
        address: name.map(address),
        state,
        display_name: format!("Number {n}"),
        card: Card { phone: format!("+{n}"), office: "Büro 1".to_owned(), ..Card::default() },
        fingerprint: key(n.wrapping_add(100)),
    }
}

pub(crate) fn lapse(n: u8) -> Change {
    Change::Lapse { key: key(n), purge_at: Micros(5) }
}

pub(crate) fn remove(n: u8) -> Change {
    Change::Remove { key: key(n) }
}

pub(crate) fn take(b: &Bench) -> u64 {
    let take = LeaseTake { name: SOURCE.to_owned(), holder: "a test".to_owned(), ttl_ms: 60_000 };
    match b.ask(take) {
        LeaseTaken::Taken(token) => token,
        held => panic!("{held:?}"),
    }
}

pub(crate) fn keep(b: &Bench, token: u64, ttl_ms: u32) -> LeaseKept {
    b.ask(LeaseKeep { name: SOURCE.to_owned(), token, ttl_ms })
}

pub(crate) fn source(b: &Bench) -> Source {
    b.ask(SourceGet { source: SOURCE.to_owned() })
}

pub(crate) fn stage(b: &Bench, token: u64, first: u32, rows: Vec<Change>) -> Staged {
    b.ask(Stage { source: SOURCE.to_owned(), token, first, rows })
}

pub(crate) fn apply(token: u64, version: u64, rows: usize) -> Apply {
    Apply { source: SOURCE.to_owned(), token, version, rows: rows as u32, state: vec![7, 0, version as u8] }
}

/// A whole run: keys that did not get their address.
pub(crate) fn run(b: &Bench, rows: Vec<Change>) -> Vec<Key128> {
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

pub(crate) fn known(b: &Bench) -> Vec<Known> {
    let page = b.ask(SourceUsers { source: SOURCE.to_owned(), after: None, limit: 1000 });
    assert!(!page.more);
    page.users
}

pub(crate) fn of(b: &Bench, n: u8) -> Known {
    known(b).into_iter().find(|known| known.key == key(n)).unwrap()
}

/// Numbers of the keys that have these addresses; 0: somebody else or nobody.
pub(crate) fn holders(b: &Bench, names: &[&str]) -> Vec<u8> {
    let found = b.ask(Holders { addresses: names.iter().map(|name| address(name)).collect() });
    assert_eq!(found.holders.len(), names.len());
    let number = |holder: Option<Holder>| holder.and_then(|of| of.origin).map_or(0, |(_, key)| key.0[0]);
    found.holders.into_iter().map(number).collect()
}

pub(crate) fn mark(b: &Bench) -> u64 {
    b.ask(ChangedSince { cursor: None }).cursor
}

/// Who changed since a mark, in the order of the users.
pub(crate) fn told(b: &Bench, since: u64) -> Vec<(String, UserRef, State)> {
    let changed = b.ask(ChangedSince { cursor: Some(since) });
    let stamps: Vec<u64> = changed.accounts.iter().map(|(_, _, _, stamp)| *stamp).collect();
    assert!(stamps.windows(2).all(|pair| pair[0] < pair[1]), "{stamps:?}");
    let mut told: Vec<_> =
        changed.accounts.into_iter().map(|(address, user, state, _)| (address, user, state)).collect();
    told.sort_by_key(|(_, user, _)| *user);
    told
}

pub(crate) fn has_password(b: &Bench, name: &str) -> bool {
    let found = b.ask(credentials::Request { address: address(name) }).found;
    found.is_some_and(|login| !login.verifiers.is_empty())
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
