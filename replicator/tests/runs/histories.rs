//! Any history of a directory, with runs that die at any moment, ends where a full read into the same past would.

use std::collections::BTreeMap;

use commpool_model::directory::RunResult;
use commpool_replicator::cycle;
use commpool_replicator::entry::Entry;
use commpool_replicator::fault::{Fault, Kind};
use commpool_store::ops::accounts::State;
use commpool_store::ops::directory::{Change, LeaseTake, LeaseTaken, Stage};
use proptest::prelude::*;
use tokio::runtime::Runtime;

use crate::lists::{List, Pool, person};

/// One state of the directory, and what befalls the run that reads it.
#[derive(Clone, Debug)]
struct Chapter {
    /// Number of each entry: number of its address, whether it is switched off, number of its name.
    entries: BTreeMap<u8, (u8, bool, u8)>,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It comes to its end.
    Good,
    /// The directory is lost while it reads.
    Lost,
    /// It dies when so many rows are put aside, and nothing is applied.
    Dies(usize),
}

fn chapters() -> impl Strategy<Value = Vec<Chapter>> {
    let fate = prop_oneof![3 => Just(Fate::Good), 1 => Just(Fate::Lost), 2 => (0_usize..4).prop_map(Fate::Dies)];
    let entries = proptest::collection::btree_map(1_u8..7, (1_u8..6, proptest::bool::weighted(0.2), 0_u8..2), 1..7);
    let chapter = (entries, fate).prop_map(|(entries, fate)| Chapter { entries, fate });
    proptest::collection::vec(chapter, 1..6)
}

impl Chapter {
    fn list(&self) -> List {
        let entry = |(n, (address, off, name)): (&u8, &(u8, bool, u8))| {
            let control = if *off { "514" } else { "512" };
            let name = format!("Name {name}");
            person(*n, &format!("p{address}@example.com"), &[("userAccountControl", &[control]), ("cn", &[&name])])
        };
        let entries: Vec<Entry> = self.entries.iter().map(entry).collect();
        let fault = (self.fate == Fate::Lost).then(|| Fault::new(Kind::Broken, "lost"));
        List { entries, members: Vec::new(), fault }
    }
}

/// A run up to the moment at which it is killed: the lease is taken and some rows are put aside.
async fn die(pool: &Pool, list: &List, rows: usize) {
    let take = LeaseTake { name: "directory".to_owned(), holder: "doomed".to_owned(), ttl_ms: 60_000 };
    let LeaseTaken::Taken(token) = pool.store.ask(take).await.unwrap() else { panic!("the lease is held") };
    let mut changes: Vec<Change> = Vec::new();
    let visit = |_: &_, step: &commpool_replicator::plan::Step| changes.extend(step.change.clone());
    cycle::plan_from(list, &pool.job(), visit).await.unwrap();
    changes.truncate(rows);
    pool.store.ask(Stage { source: "directory".to_owned(), token, first: 0, rows: changes }).await.unwrap();
    pool.seconds(61);
}

async fn live(pool: &Pool, chapter: &Chapter) {
    let list = chapter.list();
    match chapter.fate {
        Fate::Dies(rows) => die(pool, &list, rows).await,
        Fate::Lost => assert_eq!(pool.run(&list).await.result, RunResult::ReadIncomplete),
        Fate::Good => assert_eq!(pool.run(&list).await.result, RunResult::Synced),
    }
}

/// Everybody with address, state, and name of whom has an address.
async fn picture(pool: &Pool) -> Vec<(u8, Option<String>, State, bool, String)> {
    let mut picture = Vec::new();
    for (key, user) in pool.known().await {
        let name = match &user.address {
            Some(address) => pool.shown(address).await,
            None => String::new(),
        };
        picture.push((key.0[0], user.address, user.state, user.purge_at.is_some(), name));
    }
    picture
}

async fn same_in_the_end(chapters: &[Chapter], pool: Pool) {
    let mut calm = Pool::new();
    calm.config = pool.config.clone();
    let mut last = chapters.last().unwrap().clone();
    last.fate = Fate::Good;
    for chapter in chapters {
        live(&pool, chapter).await;
        // In the other world nobody dies, and what did not happen here did not happen there.
        if chapter.fate == Fate::Good {
            live(&calm, chapter).await;
        }
    }
    live(&pool, &last).await;
    live(&calm, &last).await;
    let there = picture(&pool).await;
    assert_eq!(there, picture(&calm).await);
    assert!(!pool.run(&last.list()).await.counts.any());
    // Into an empty store: the same people may sign in at the same addresses, whoever of two gets the one they share.
    let fresh = Pool::new();
    live(&fresh, &last).await;
    let on = |picture: &[(u8, Option<String>, State, bool, String)]| -> Vec<String> {
        let mut on: Vec<String> = picture
            .iter()
            .filter(|(_, _, state, ..)| *state == State::On)
            .filter_map(|(_, address, ..)| address.clone())
            .collect();
        on.sort();
        on
    };
    let (here, fresh) = (on(&there), on(&picture(&fresh).await));
    let kept: Vec<&String> = there
        .iter()
        .filter(|(_, _, state, ..)| *state != State::On)
        .filter_map(|(_, address, ..)| address.as_ref())
        .collect();
    // Who is switched off keeps an address that he has, even from somebody new.
    let expected: Vec<String> = fresh.into_iter().filter(|address| !kept.contains(&address)).collect();
    assert_eq!(here, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_end_is_the_same(chapters in chapters(), sqlite in proptest::bool::weighted(0.2)) {
        let mut pool = if sqlite { Pool::sqlite() } else { Pool::new() };
        pool.config.removal.max_percent = 100;
        Runtime::new().unwrap().block_on(same_in_the_end(&chapters, pool));
    }
}
