//! A replicator at the database: what it may, two of them, and runs that are ended in the middle.

use std::time::Duration;

use commpool_harness::postgres::{Cluster, Settings};
use commpool_model::ids::{Key128, Micros};
use commpool_store::ops::HealthRequest;
use commpool_store::ops::accounts::State;
use commpool_store::ops::directory::{
    Applied, Apply, Card, Change, Known, LeaseKeep, LeaseKept, LeaseTake, LeaseTaken, SourceGet, SourceUsers, Stage,
    Staged,
};
use commpool_store::{Store, StoreError};
use sqlx::raw_sql;

use crate::database::as_replicator;
use crate::pool::{NAME, add, open, reason, route_to, start, superuser, until, with_cluster};

const SOURCE: &str = "directory";
const BACK: Duration = Duration::from_secs(20);

fn replicator(cluster: &Cluster) -> Store {
    Store::open_postgres(as_replicator(cluster, NAME)).unwrap()
}

fn key(n: u32) -> Key128 {
    Key128(u128::from(n).to_be_bytes())
}

/// A user in one of the states that a directory is in, one after the other.
fn user(n: u32, generation: u32) -> Change {
    Change::Put {
        key: key(n),
        address: Some(format!("user-{n}-{generation}@example.com")),
        state: State::On,
        display_name: format!("Generation {generation}"),
        card: Card::default(),
        fingerprint: key(generation),
    }
}

fn lease(holder: &str) -> LeaseTake {
    LeaseTake { name: SOURCE.to_owned(), holder: holder.to_owned(), ttl_ms: 60_000 }
}

async fn take(store: &Store) -> u64 {
    match store.ask(lease("a test")).await.unwrap() {
        LeaseTaken::Taken(token) => token,
        held => panic!("{held:?}"),
    }
}

async fn stage(store: &Store, token: u64, rows: &[Change]) -> Result<Staged, StoreError> {
    let mut staged = Staged::Done;
    for (n, chunk) in (0..).zip(rows.chunks(1000)) {
        let (source, rows) = (SOURCE.to_owned(), chunk.to_vec());
        staged = store.ask(Stage { source, token, first: n * 1000, rows }).await?;
    }
    Ok(staged)
}

fn apply(token: u64, version: u64, rows: u32) -> Apply {
    Apply { source: SOURCE.to_owned(), token, version, rows, state: version.to_be_bytes().to_vec() }
}

async fn version(store: &Store) -> u64 {
    let get = || SourceGet { source: SOURCE.to_owned() };
    until(store, BACK, get, Result::is_ok).await.unwrap().version
}

async fn known(store: &Store) -> Vec<Known> {
    let (mut users, mut after) = (Vec::new(), None);
    loop {
        let page = || SourceUsers { source: SOURCE.to_owned(), after, limit: 1000 };
        let page = until(store, BACK, page, Result::is_ok).await.unwrap();
        users.extend(page.users);
        after = users.last().map(|known| known.key);
        if !page.more {
            return users;
        }
    }
}

#[test]
fn a_replicator_has_all_it_needs_and_nothing_else() {
    with_cluster("a replicator's store", &Settings::default(), |cluster| async move {
        let store = replicator(&cluster);
        let health = store.ask(HealthRequest).await.unwrap();
        assert!(health.writable && health.schema == store.schema());
        let token = take(&store).await;
        assert_eq!(stage(&store, token, &[user(1, 0), user(2, 0)]).await, Ok(Staged::Done));
        assert_eq!(store.ask(apply(token, 0, 2)).await, Ok(Applied::Done { version: 1, refused: vec![] }));
        assert_eq!(known(&store).await.len(), 2);
        let keep = LeaseKeep { name: SOURCE.to_owned(), token, ttl_ms: 0 };
        assert_eq!(store.ask(keep).await, Ok(LeaseKept::Kept));
        let stats = store.stats();
        assert_eq!(stats.synced_commits, 3, "lease and rows are on disk, what is put aside need not be");
        let told = reason(store.ask(route_to("alice")).await);
        assert!(told.contains("permission denied") && told.contains("commpool_server"), "{told}");
        store.close();
        let front_end = open(&cluster);
        let told = reason(front_end.ask(lease("a front end")).await);
        assert!(told.contains("permission denied") && told.contains("commpool_replicator"), "{told}");
        assert!(front_end.ask(route_to("user-1-0")).await.unwrap().found.is_some());
        front_end.close();
    });
}

#[test]
fn of_many_that_begin_at_once_one_runs() {
    with_cluster("replicators at once", &Settings::default(), |cluster| async move {
        let stores: Vec<Store> = (0..4).map(|_| replicator(&cluster)).collect();
        let mut last = 0;
        for round in 0..5 {
            let all = stores.iter().enumerate().map(|(n, store)| {
                let (store, holder) = (store.clone(), format!("{n}"));
                tokio::spawn(async move { store.ask(lease(&holder)).await.unwrap() })
            });
            let all: Vec<_> = all.collect();
            let mut taken = Vec::new();
            for answer in all {
                match answer.await.unwrap() {
                    LeaseTaken::Taken(token) => taken.push(token),
                    LeaseTaken::Held { ms_left, .. } => assert!(ms_left <= 60_000),
                }
            }
            assert!(taken.len() == 1 && taken[0] > last, "round {round}: {taken:?}");
            last = taken[0];
            let give_back = LeaseKeep { name: SOURCE.to_owned(), token: last, ttl_ms: 0 };
            assert_eq!(stores[round % 4].ask(give_back).await, Ok(LeaseKept::Kept));
        }
        stores.iter().for_each(Store::close);
    });
}

#[test]
fn a_run_that_is_ended_anywhere_is_whole_or_nothing() {
    with_cluster("runs ended in the middle", &Settings::default(), |cluster| async move {
        const USERS: u32 = 1500;
        let store = replicator(&cluster);
        let mut connection = superuser(&cluster).await;
        let mut token = take(&store).await;
        let (mut generation, mut done, mut ended) = (0, 0, 0);
        for round in 0..14_u64 {
            let before = version(&store).await;
            let rows: Vec<Change> = (0..USERS).map(|n| user(n, generation + 1)).collect();
            let run = {
                let store = store.clone();
                tokio::spawn(async move {
                    stage(&store, token, &rows).await?;
                    store.ask(apply(token, before, USERS)).await
                })
            };
            if round % 2 == 0 {
                // A little later each time: while rows are put aside, in the apply, after it.
                tokio::time::sleep(Duration::from_millis(20 + 35 * round)).await;
                let end = "select pg_terminate_backend(pid) from pg_stat_activity
                           where application_name in ('commpool soft writes', 'commpool durable writes')";
                raw_sql(end).execute(&mut connection).await.unwrap();
            } else {
                // As soon as it is seen to apply.
                let end = "select pg_terminate_backend(pid) from pg_stat_activity
                           where state = 'active' and query like '%commpool_api_1.apply(%' and pid <> pg_backend_pid()";
                while !run.is_finished() && raw_sql(end).fetch_all(&mut connection).await.unwrap().is_empty() {}
            }
            match run.await.unwrap() {
                Ok(Applied::Done { version, .. }) => assert_eq!(version, before + 1),
                Ok(other) => panic!("{other:?}"),
                Err(StoreError::Unavailable(_) | StoreError::Unknown(_)) => ended += 1,
                Err(other) => panic!("{other:?}"),
            }
            let after = version(&store).await;
            assert!(after == before || after == before + 1);
            if after > before {
                generation += 1;
                done += 1;
            }
            let users = known(&store).await;
            assert_eq!(users.len(), if generation == 0 { 0 } else { USERS as usize });
            for (n, of) in (0..).zip(users) {
                let address = format!("user-{n}-{generation}@example.com");
                assert_eq!((of.address, of.fingerprint), (Some(address), key(generation)));
            }
            if round == 7 {
                // Another takes over in the middle of everything.
                let lost = token;
                raw_sql("update commpool.lease set until = 0").execute(&mut connection).await.unwrap();
                token = until(&store, BACK, || lease("another"), Result::is_ok)
                    .await
                    .map(|taken| match taken {
                        LeaseTaken::Taken(token) => token,
                        held => panic!("{held:?}"),
                    })
                    .unwrap();
                let stale = until(&store, BACK, || apply(lost, after, 0), Result::is_ok).await;
                assert_eq!(stale, Ok(Applied::Fenced));
            }
        }
        assert!(ended > 0 && done > 0, "{ended} ended, {done} done");
        store.close();
    });
}

#[test]
fn what_was_put_aside_is_lost_with_the_database_and_that_is_noticed() {
    let settings = Settings { durable: true, ..Settings::default() };
    with_cluster("a crash between stage and apply", &settings, |mut cluster| async move {
        let store = replicator(&cluster);
        let token = take(&store).await;
        assert_eq!(stage(&store, token, &[user(1, 0), user(2, 0)]).await, Ok(Staged::Done));
        cluster.kill9().unwrap();
        cluster.start_again().unwrap();
        let applied = until(&store, BACK, || apply(token, 0, 2), Result::is_ok).await;
        assert_eq!(applied, Ok(Applied::Incomplete), "the lease is there still, the rows are not");
        assert_eq!(stage(&store, token, &[user(1, 0), user(2, 0)]).await, Ok(Staged::Done));
        assert_eq!(store.ask(apply(token, 0, 2)).await, Ok(Applied::Done { version: 1, refused: vec![] }));
        store.close();
    });
}

#[test]
fn front_ends_go_on_while_a_directory_is_applied() {
    with_cluster("a run beside front ends", &Settings::default(), |cluster| async move {
        const USERS: u32 = 5000;
        let (store, front_end) = (replicator(&cluster), open(&cluster));
        let fe = start(&front_end, 1).await.fe;
        let alice = add(&front_end, "alice").await;
        let token = take(&store).await;
        let rows: Vec<Change> = (0..USERS).map(|n| user(n, 0)).collect();
        stage(&store, token, &rows).await.unwrap();
        let run = {
            let store = store.clone();
            tokio::spawn(async move { store.ask(apply(token, 0, USERS)).await })
        };
        let mut cseq = 0;
        while !run.is_finished() {
            cseq += 1;
            front_end.ask(crate::pool::register(alice, fe, 1, cseq)).await.unwrap();
            front_end.ask(route_to("alice")).await.unwrap();
        }
        assert_eq!(run.await.unwrap(), Ok(Applied::Done { version: 1, refused: vec![] }));
        assert!(front_end.ask(route_to("user-4999-0")).await.unwrap().found.is_some());
        let lapse = |n| Change::Lapse { key: key(n), purge_at: Micros(1) };
        let rows: Vec<Change> = (0..USERS).map(lapse).collect();
        stage(&store, token, &rows).await.unwrap();
        assert!(matches!(store.ask(apply(token, 1, USERS)).await, Ok(Applied::Done { version: 2, .. })));
        let rows: Vec<Change> = (0..USERS).map(|n| Change::Remove { key: key(n) }).collect();
        stage(&store, token, &rows).await.unwrap();
        assert!(matches!(store.ask(apply(token, 2, USERS)).await, Ok(Applied::Done { version: 3, .. })));
        let left = "select (select count(*) from commpool.account) || ' ' || (select count(*) from commpool.address)
                        || ' ' || (select count(*) from commpool.identity) || ' ' || (select count(*) from commpool.incoming)";
        assert_eq!(cluster.sql(NAME, left).unwrap(), "1 1 0 0");
        store.close();
        front_end.close();
    });
}
