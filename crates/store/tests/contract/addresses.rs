//! Users from a directory: who gets which address.

use commpool_model::ids::Micros;
use commpool_store::ops::accounts::State;
use commpool_store::ops::credentials;
use commpool_store::ops::directory::{Holder, Holders, Known};

use crate::bench::{Bench, contract};
use crate::credentials::password;
use crate::directory::{
    address, has_password, holders, key, known, lapse, mark, of, put, remove, run, source, told, user,
};

contract! {
    another_address_drops_the_passwords
    addresses_change_places_in_any_order_of_the_rows
    the_address_of_a_lapsed_user_goes_to_the_newcomer
    an_entry_made_anew_takes_its_address_over
    an_address_that_is_somebody_elses_is_refused
    two_who_want_one_address_do_not_both_get_it
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
