//! Accounts: adding, changing, finding, and hearing of changes.

use commpool_store::ops::accounts::{Changed, ChangedSince, Find, Put, PutReply, State};
use commpool_store::ops::credentials;

use crate::bench::{Bench, contract};
use crate::credentials::password;

fn change(name: &str, state: Option<State>, display_name: Option<&str>) -> Put {
    Put::Change { address: format!("{name}@example.com"), state, display_name: display_name.map(str::to_owned) }
}

fn changed(b: &Bench, cursor: Option<u64>) -> Changed {
    b.ask(ChangedSince { cursor })
}

contract! {
    an_address_belongs_to_one_account
    accounts_are_found_by_text_page_by_page
    every_change_is_told
    many_changes_come_in_parts
}

fn an_address_belongs_to_one_account(b: &Bench) {
    let (alice, bob) = (b.add("alice"), b.add("bob"));
    assert!(bob.id > alice.id && alice.id.0 > 0);
    let again = Put::Add { address: "alice@example.com".to_owned(), display_name: String::new() };
    assert_eq!(b.ask(again.clone()), PutReply::Exists);
    assert_eq!(b.ask(change("nobody", Some(State::On), None)), PutReply::NotFound);
    assert_eq!(b.ask(change("alice", Some(State::Removed), None)), PutReply::Done(alice));
    assert_eq!(b.ask(again), PutReply::Exists, "also when its account has been removed");
}

fn accounts_are_found_by_text_page_by_page(b: &Bench) {
    for name in ["carol", "alice", "bob", "alan"] {
        b.add(name);
    }
    b.ask(change("bob", Some(State::Disabled), Some("Robert Álvarez")));
    b.ask(password("alice", "main", "aa"));
    let find = |text: &str, after: Option<&str>, limit| {
        let page = b.ask(Find { text: text.to_owned(), after: after.map(str::to_owned), limit });
        (page.accounts.iter().map(|a| a.address.replace("@example.com", "")).collect::<Vec<_>>(), page.more)
    };
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(find("", None, 1000), (names(&["alan", "alice", "bob", "carol"]), false));
    assert_eq!(find("", None, 2), (names(&["alan", "alice"]), true));
    assert_eq!(find("", Some("alice@example.com"), 2), (names(&["bob", "carol"]), false));
    assert_eq!(find("AL", None, 10), (names(&["alan", "alice"]), false));
    assert_eq!(find("álv", None, 10), (names(&["bob"]), false));
    assert_eq!(find("%", None, 10), (vec![], false));
    let page = b.ask(Find { limit: 10, ..Find::default() }).accounts;
    let seen: Vec<_> = page.iter().map(|a| (a.display_name.as_str(), a.state, a.has_password)).collect();
    assert_eq!(
        seen,
        [
            ("ALAN", State::On, false),
            ("ALICE", State::On, true),
            ("Robert Álvarez", State::Disabled, false),
            ("CAROL", State::On, false),
        ]
    );
}

fn every_change_is_told(b: &Bench) {
    let start = changed(b, None);
    assert_eq!((start.accounts.as_slice(), start.more), ([].as_slice(), false));
    let (alice, bob) = (b.add("alice"), b.add("bob"));
    let seen = changed(b, Some(start.cursor));
    let who: Vec<_> = seen.accounts.iter().map(|(address, user, state, _)| (address.as_str(), *user, *state)).collect();
    assert_eq!(who, [("alice@example.com", alice, State::On), ("bob@example.com", bob, State::On)]);
    assert_eq!(changed(b, Some(seen.cursor)), Changed { cursor: seen.cursor, ..Changed::default() });

    let mut cursor = seen.cursor;
    let mut stamps = vec![seen.accounts[0].3, seen.accounts[1].3];
    b.back(3600);
    let credentials::PutReply::Done(stamp) = b.ask(password("alice", "main", "aa")) else { panic!() };
    for _ in 0..2 {
        let seen = changed(b, Some(cursor));
        assert_eq!(seen.accounts, [("alice@example.com".to_owned(), alice, State::On, stamp)]);
        stamps.push(stamp);
    }
    cursor = changed(b, Some(cursor)).cursor;
    b.set_state("bob", State::Disabled);
    let seen = changed(b, Some(cursor));
    assert_eq!((seen.accounts[0].1, seen.accounts[0].2, seen.accounts.len()), (bob, State::Disabled, 1));
    let revoke = credentials::Revoke { address: "alice@example.com".to_owned(), label: "main".to_owned() };
    assert!(matches!(b.ask(revoke), credentials::Revoked::Done(_)));
    let after = changed(b, Some(seen.cursor));
    assert_eq!(after.accounts.len(), 1);
    stamps.extend([seen.accounts[0].3, after.accounts[0].3]);
    assert!(stamps.is_sorted(), "stamps rise in the order of the changes, whatever the clock does: {stamps:?}");
    assert_eq!(changed(b, None).cursor, after.cursor);
}

fn many_changes_come_in_parts(b: &Bench) {
    let start = changed(b, None).cursor;
    let add = |n| Put::Add { address: format!("user-{n:04}@example.com"), display_name: String::new() };
    for outcome in b.many((0..1500).map(|n| add(n).into()).collect()) {
        outcome.unwrap();
    }
    let first = changed(b, Some(start));
    assert_eq!((first.accounts.len(), first.more), (1000, true));
    let rest = changed(b, Some(first.cursor));
    assert_eq!((rest.accounts.len(), rest.more), (500, false));
    assert_eq!(rest.accounts[499].0, "user-1499@example.com");
}
