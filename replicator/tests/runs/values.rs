//! Values of every kind, ordinary and hostile, each with the exact state of the store afterwards.

use std::slice::from_ref;

use commpool_model::directory::RunResult;
use commpool_replicator::entry::Entry;

use crate::lists::{List, Pool, key, people, person, plain};

/// Runs over these entries on both kinds of store; returns what is there then.
async fn after(histories: &[&[Entry]]) -> Vec<String> {
    let mut seen: Vec<Vec<String>> = Vec::new();
    for pool in Pool::both() {
        for entries in histories {
            pool.synced(entries).await;
        }
        seen.push(pool.users().await);
    }
    assert_eq!(seen[0], seen[1]);
    seen.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn new_users_are_added_and_the_rest_is_left_alone() {
    let pool = Pool::new();
    pool.add_by_hand("hand@example.com").await;
    let outcome = pool.synced(&people(1..=3)).await;
    assert_eq!((outcome.found, outcome.counts.added, outcome.counts.conflicts), (3, 3, 0));
    assert_eq!(pool.users().await, ["p1 on", "p2 on", "p3 on"]);
    assert_eq!(pool.shown("hand@example.com").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_in_six_scripts() {
    let names = ["Ирина Ёлкина", "Αλέξης Ω", "יעל כהן", "عمر الفارسي", "田中 太郎", "अनीता शर्मा"];
    let entries: Vec<Entry> = (1..=6)
        .zip(names)
        .map(|(n, name)| person(n, &format!("p{n}@example.com"), &[("displayName", &[name]), ("title", &[name])]))
        .collect();
    for pool in Pool::both() {
        pool.synced(&entries).await;
        for (n, name) in (1..=6).zip(names) {
            assert_eq!(pool.shown(&format!("p{n}@example.com")).await, name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_in_other_scripts_and_capitals() {
    let entries = [person(1, "ÄRGER@Example.COM", &[]), person(2, "Иван@example.com", &[])];
    assert_eq!(after(&[&entries]).await, ["ärger on", "иван on"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_values() {
    let mut entry = plain(1);
    entry.add("displayName", vec![vec![0xff, 0xd8, 0xff, 0xe0]]);
    entry.add("cn", vec![b"Ada".to_vec()]);
    entry.add("jpegPhoto", vec![(0..=255).collect()]);
    let mut nameless = person(2, "", &[]);
    nameless.add("mail", vec![vec![0xc3, 0x28]]);
    let pool = Pool::sqlite();
    let outcome = pool.synced(&[entry, nameless]).await;
    assert_eq!(pool.users().await, ["p1 on"]);
    assert_eq!(pool.shown("p1@example.com").await, "Ada");
    assert_eq!(outcome.conflicts, ["CN=Person 2,DC=example,DC=com: mail is not UTF-8"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn overlong_values() {
    let long = "ä".repeat(5000);
    let mut entry =
        person(1, "p1@example.com", &[("displayName", &[&long]), ("title", &[&long]), ("company", &[&long])]);
    entry.dn = long.clone();
    let overlong = person(2, &format!("{long}@example.com"), &[]);
    let pool = Pool::sqlite();
    let outcome = pool.synced(&[entry, overlong]).await;
    assert_eq!(pool.users().await, ["p1 on"]);
    assert_eq!(pool.shown("p1@example.com").await, "ä".repeat(128));
    assert!(outcome.conflicts[0].contains("is too long") && outcome.conflicts[0].len() <= 256, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nul_and_other_control_characters() {
    let name = "Ada\0 \u{202e}Love\r\nlace\u{7f}";
    let entries = [person(1, "p1@example.com", &[("displayName", &[name])]), person(2, "p\x002@example.com", &[])];
    let pool = Pool::sqlite();
    let outcome = pool.synced(&entries).await;
    assert_eq!(pool.users().await, ["p1 on"]);
    assert_eq!(pool.shown("p1@example.com").await, "Ada Lovelace");
    assert!(outcome.counts.conflicts == 1 && !outcome.conflicts[0].contains('\0'), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_and_several_values() {
    let entries = [
        person(1, "", &[("mail", &["", "z1@example.com", "a1@example.com"]), ("displayName", &["", "b", "a"])]),
        person(2, "", &[]),
    ];
    let pool = Pool::new();
    let outcome = pool.synced(&entries).await;
    assert_eq!((pool.users().await, outcome.counts.ignored), (vec!["a1 on".to_owned()], 1));
    assert_eq!(pool.shown("a1@example.com").await, "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_in_other_letter_case_have_one_stable_winner() {
    let (first, second) = (person(1, "ADA@example.com", &[]), person(2, "ada@Example.com", &[]));
    for pool in Pool::both() {
        let outcome = pool.synced(&[second.clone(), first.clone()]).await;
        assert_eq!(pool.users().await, ["ada on"]);
        let line =
            "ada@example.com: CN=Person 1,DC=example,DC=com has it, CN=Person 2,DC=example,DC=com asks for it too";
        assert_eq!((outcome.counts.conflicts, outcome.conflicts), (1, vec![line.to_owned()]));
    }
    // Who has it keeps it, though his key is the higher one.
    assert_eq!(after(&[from_ref(&second), &[first.clone(), second.clone()]]).await, ["ada on"]);
    let pool = Pool::new();
    pool.synced(from_ref(&second)).await;
    pool.synced(&[first.clone(), second.clone()]).await;
    assert!(pool.known().await.keys().all(|known| known.0[..] == key(2)[..]));
    // And when he goes, the other one gets it.
    assert_eq!(
        after(&[&[first.clone(), second], &[person(2, "bob@example.com", &[]), first]]).await,
        ["ada on", "bob on"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_a_user_added_by_hand_stays_with_him() {
    for pool in Pool::both() {
        pool.add_by_hand("p1@example.com").await;
        let outcome = pool.synced(&people(1..=2)).await;
        assert_eq!((pool.users().await, outcome.counts.conflicts), (vec!["p2 on".to_owned()], 1));
        let line = &outcome.conflicts[0];
        assert!(line.contains("CN=Person 1") && line.contains("added by hand: remove or rename that user"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_changes_nothing() {
    let mut moved = plain(1);
    moved.dn = "CN=Person 1,OU=Elsewhere,DC=example,DC=com".to_owned();
    let pool = Pool::new();
    pool.synced(&[plain(1)]).await;
    assert!(!pool.synced(&[moved]).await.counts.any());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_keeps_the_user() {
    for pool in Pool::both() {
        pool.synced(&[plain(1)]).await;
        let before = pool.known().await.into_values().next().unwrap().user;
        let outcome = pool.synced(&[person(1, "new@example.com", &[])]).await;
        assert_eq!((outcome.counts.changed, pool.users().await), (1, vec!["new on".to_owned()]));
        assert_eq!(pool.known().await.into_values().next().unwrap().user, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_swap_their_addresses() {
    let swapped = [person(1, "p2@example.com", &[]), person(2, "p1@example.com", &[])];
    assert_eq!(after(&[&people(1..=2), &swapped]).await, ["p2 on", "p1 on"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_pass_their_addresses_on() {
    let turned = [person(1, "p2@example.com", &[]), person(2, "p3@example.com", &[]), person(3, "p1@example.com", &[])];
    assert_eq!(after(&[&people(1..=3), &turned]).await, ["p2 on", "p3 on", "p1 on"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_made_anew_gets_the_address_of_the_old_one() {
    // Key above and key below the old one: the order of rows must not matter.
    for new in [1, 9] {
        let pool = Pool::sqlite();
        pool.synced(&[plain(5)]).await;
        pool.synced(&[person(new, "p5@example.com", &[])]).await;
        let expected = if new == 1 { ["p5 on", "- lapsed"] } else { ["- lapsed", "p5 on"] };
        assert_eq!(pool.users().await, expected);
        // The old entry comes back: the address has another holder now, and both are named.
        let outcome = pool.synced(&[person(new, "p5@example.com", &[]), plain(5)]).await;
        assert_eq!(outcome.counts.conflicts, 1);
        assert_eq!(pool.users().await, expected.map(|user| user.replace("lapsed", "off")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_taken_away_disables_and_given_back_enables() {
    let without = person(1, "", &[("displayName", &["Ada"])]);
    let other = plain(7);
    let [with, without_it] = [[plain(1), other.clone()], [without.clone(), other]];
    assert_eq!(after(&[&with, &without_it]).await, ["p1 off", "p7 on"]);
    assert_eq!(after(&[&with, &without_it, &with]).await, ["p1 on", "p7 on"]);
    // Who asks for it meanwhile gets it.
    assert_eq!(after(&[&[plain(1)], &[without, person(2, "p1@example.com", &[])]]).await, ["- off", "p1 on"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn disabled_and_enabled_again() {
    let off = person(1, "p1@example.com", &[("userAccountControl", &["514"])]);
    assert_eq!(after(&[&[plain(1)], from_ref(&off)]).await, ["p1 off"]);
    assert_eq!(after(&[&[plain(1)], from_ref(&off), &[plain(1)]]).await, ["p1 on"]);
    // Who was never a user does not become one by being switched off.
    assert_eq!(after(&[&[off]]).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_and_back_within_the_grace() {
    for pool in Pool::both() {
        pool.synced(&people(1..=2)).await;
        let before = pool.known().await;
        let outcome = pool.synced(&[plain(2)]).await;
        assert_eq!((outcome.counts.missing, pool.users().await), (1, vec!["p1 lapsed".to_owned(), "p2 on".to_owned()]));
        pool.days(6);
        assert!(!pool.synced(&[plain(2)]).await.counts.any());
        let outcome = pool.synced(&people(1..=2)).await;
        assert_eq!((outcome.counts.added, pool.known().await), (1, before));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_until_the_grace_is_over() {
    for pool in Pool::both() {
        pool.synced(&people(1..=2)).await;
        let before = pool.known().await.into_values().next().unwrap().user;
        pool.synced(&[plain(2)]).await;
        pool.days(8);
        let outcome = pool.synced(&[plain(2)]).await;
        assert_eq!((outcome.counts.removed, pool.users().await), (1, vec!["p2 on".to_owned()]));
        pool.synced(&people(1..=2)).await;
        assert_ne!(pool.known().await.into_values().next().unwrap().user, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn name_and_card_follow() {
    let pool = Pool::sqlite();
    pool.synced(&[person(1, "p1@example.com", &[("cn", &["Ada"])])]).await;
    let outcome = pool.synced(&[person(1, "p1@example.com", &[("cn", &["Ada"]), ("telephoneNumber", &["+1"])])]).await;
    assert_eq!((outcome.counts.changed, pool.shown("p1@example.com").await), (1, "Ada".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_group_alone_may_sign_in() {
    let mut pool = Pool::new();
    pool.config.mapping.enabled.group = "CN=Users".to_owned();
    let list = |members: &[u8]| List {
        entries: people(1..=3),
        members: members.iter().map(|n| plain(*n)).collect(),
        fault: None,
    };
    assert_eq!(pool.run(&list(&[1, 3])).await.result, RunResult::Synced);
    assert_eq!(pool.users().await, ["p1 on", "p3 on"]);
    assert_eq!(pool.run(&list(&[3])).await.counts.disabled, 1);
    assert_eq!(pool.users().await, ["p1 off", "p3 on"]);
    // A group without anybody is taken for one that could not be read.
    let outcome = pool.run(&list(&[])).await;
    assert_eq!((outcome.result, pool.users().await.len()), (RunResult::ReadIncomplete, 2), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_without_a_key_are_conflicts_and_none_with_one_is_no_answer() {
    let pool = Pool::new();
    let keyless = Entry::new("CN=Keyless", &[("mail", &["k@example.com"])]);
    let outcome = pool.synced(&[plain(1), keyless.clone()]).await;
    assert_eq!((outcome.counts.conflicts, pool.users().await), (1, vec!["p1 on".to_owned()]));
    assert!(outcome.conflicts[0].starts_with("CN=Keyless has no key"), "{outcome:?}");
    let outcome = pool.run(&List { entries: vec![keyless], ..List::default() }).await;
    assert_eq!((outcome.result, pool.users().await), (RunResult::ReadIncomplete, vec!["p1 on".to_owned()]));
}
