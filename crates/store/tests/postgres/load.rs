//! Many front ends at once: no deadlocks, plans by index, one call per request.

use std::collections::BTreeMap;
use std::time::Duration;

use commpool_harness::postgres::Settings;
use commpool_model::ids::{Incarnation, Key128, Origin, UserRef};
use commpool_store::ops::endpoints::{FlowsLost, SweepLost};
use commpool_store::ops::subscribe::{Dialog, Kind, Request};
use commpool_store::ops::{Operation, Outcome};
use commpool_store::{Store, StoreError};
use sqlx::{PgConnection, Row};
use tokio::sync::oneshot;

use crate::pool::{add, open, publish, register, route_to, start, superuser, until, with_cluster};

async fn users(store: &Store, count: u32) -> Vec<UserRef> {
    let mut users = Vec::new();
    for n in 0..count {
        users.push(add(store, &format!("user-{n}")).await);
    }
    users
}

/// Hands over operations at once and waits for all answers.
async fn together(store: &Store, operations: Vec<Operation>) -> Vec<Result<Outcome, StoreError>> {
    let mut answers = Vec::new();
    let batch = operations.into_iter().map(|operation| {
        let (answer, answered) = oneshot::channel();
        answers.push(answered);
        let reply: commpool_store::Reply = Box::new(move |outcome| drop(answer.send(outcome)));
        (operation, reply)
    });
    store.submit_many(batch.collect());
    let mut outcomes = Vec::new();
    for answer in answers {
        outcomes.push(answer.await.unwrap());
    }
    outcomes
}

fn watch(watcher: UserRef, fe: Incarnation, n: u32, target: u32) -> Request {
    Request {
        watcher,
        watcher_address: "w@example.com".to_owned(),
        origin: Origin(u128::from(n).to_be_bytes()),
        fe,
        endpoint: None,
        sub_id: Key128(u128::from(target).to_be_bytes()),
        initial: false,
        kind: Kind::Presence,
        presentities: (target..target + 5).map(|n| format!("user-{n}@example.com")).collect(),
        held: vec![],
        expires: 600,
        first_cseq: 1,
        dialog: Dialog { remote_cseq: n, ..Dialog::default() },
    }
}

#[test]
fn many_front_ends_get_in_nobodys_way() {
    const FRONT_ENDS: u8 = 16;
    const USERS: u32 = 60;
    with_cluster("many front ends", &Settings::default(), |cluster| async move {
        let first = open(&cluster);
        let users = users(&first, USERS).await;
        let mut workers = Vec::new();
        for n in 1..=FRONT_ENDS {
            let (store, users) = (open(&cluster), users.clone());
            workers.push(tokio::spawn(async move {
                let fe = start(&store, n).await.fe;
                // All of it goes by the lane that is connected then.
                let limit = Duration::from_secs(30);
                until(&store, limit, || register(users[0], fe, n, 1), Result::is_ok).await.unwrap();
                let mut dice = u64::from(n);
                let mut roll = move |sides: u32| {
                    dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    u32::try_from(dice >> 40).unwrap() % sides
                };
                let mut refused = Vec::new();
                for round in 1..=12_u32 {
                    let batch = (0..32).map(|place| {
                        let user = users[roll(USERS) as usize];
                        let serial = u32::from(n) << 16 | round << 8 | place;
                        match roll(16) {
                            0..6 => register(user, fe, n, serial).into(),
                            6..10 => publish(user, fe, n, serial).into(),
                            10..14 => watch(user, fe, serial, roll(USERS - 5)).into(),
                            14 => FlowsLost { fe, flows: vec![(user, u32::from(n))] }.into(),
                            _ => SweepLost { fe, limit: 10 }.into(),
                        }
                    });
                    let outcomes = together(&store, batch.collect()).await;
                    refused.extend(outcomes.into_iter().filter_map(Result::err));
                }
                store.close();
                refused
            }));
        }
        let mut refused: BTreeMap<String, usize> = BTreeMap::new();
        for worker in workers {
            for error in worker.await.unwrap() {
                *refused.entry(error.to_string()).or_default() += 1;
            }
        }
        let mut connection = superuser(&cluster).await;
        let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
        let row = sqlx::query(deadlocks).fetch_one(&mut connection).await.unwrap();
        assert_eq!(row.get::<i64, _>(0), 0, "{refused:?}");
        // A machine that does much else may be too slow for some, and says so.
        let late = refused.iter().filter(|(text, _)| text.contains("slow") || text.contains("in time"));
        assert_eq!(late.map(|(_, count)| count).sum::<usize>(), refused.values().sum::<usize>(), "{refused:?}");
        first.close();
    });
}

/// Scans of a table so far: whole, and by index.
async fn scans(connection: &mut PgConnection, table: &str) -> (i64, i64) {
    let text = "select seq_scan, coalesce(idx_scan, 0) from pg_stat_user_tables where relname = $1";
    let row = sqlx::query(text).bind(table).fetch_one(connection).await.unwrap();
    (row.get(0), row.get(1))
}

#[test]
fn an_empty_database_is_searched_by_index_from_the_first_call_on() {
    with_cluster("plans of an empty database", &Settings::default(), |cluster| async move {
        let store = open(&cluster);
        let fe = start(&store, 1).await.fe;
        let users = users(&store, 50).await;
        let mut connection = superuser(&cluster).await;
        const TABLES: [&str; 7] =
            ["account", "address", "endpoint", "publication", "presence", "interest", "subscription"];
        let mut before = Vec::new();
        for table in TABLES {
            before.push(scans(&mut connection, table).await.0);
        }
        for (n, user) in (1_u32..).zip(&users) {
            store.ask(register(*user, fe, 1, n)).await.unwrap();
            store.ask(publish(*user, fe, 1, n)).await.unwrap();
            store.ask(watch(*user, fe, n, n % 40)).await.unwrap();
            store.ask(route_to(&format!("user-{n}"))).await.unwrap();
        }
        store.close();
        for (table, before) in TABLES.into_iter().zip(before) {
            // What a session has counted is told when it ends.
            let (whole, by_index) = loop {
                let scans = scans(&mut connection, table).await;
                if scans.1 >= 50 {
                    break scans;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            };
            assert!(whole - before < 10, "{table}: {whole} whole, {by_index} by index");
        }
    });
}

#[test]
fn requests_are_calls_of_functions_and_one_at_most_for_each() {
    let lines = ["shared_preload_libraries = 'pg_stat_statements'", "pg_stat_statements.track = top"];
    let settings = Settings { lines: lines.map(str::to_owned).to_vec(), ..Settings::default() };
    with_cluster("statements of a front end", &settings, |cluster| async move {
        let store = open(&cluster);
        let fe = start(&store, 1).await.fe;
        let users = users(&store, 20).await;
        let mut connection = superuser(&cluster).await;
        sqlx::query("create extension pg_stat_statements").execute(&mut connection).await.unwrap();
        sqlx::query("select pg_stat_statements_reset()").execute(&mut connection).await.unwrap();
        for n in 0..100 {
            let user = users[n as usize % 20];
            store.ask(register(user, fe, 1, n + 1)).await.unwrap();
            store.ask(route_to(&format!("user-{}", n % 20))).await.unwrap();
            store.ask(publish(user, fe, 1, n + 1)).await.unwrap();
        }
        let batch: Vec<Operation> = users.iter().map(|user| register(*user, fe, 2, 1).into()).collect();
        assert!(together(&store, batch).await.iter().all(Result::is_ok));
        let text = "select s.query, s.calls from pg_stat_statements s
                    where s.userid = 'pool_server'::regrole order by s.query";
        let rows = sqlx::query(text).fetch_all(&mut connection).await.unwrap();
        let calls: BTreeMap<String, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let of = |name: &str| {
            let called = format!("select * from commpool_api_1.{name}(");
            calls.iter().filter(|(query, _)| query.starts_with(&called)).map(|(_, calls)| calls).sum::<i64>()
        };
        assert_eq!((of("route"), of("publish")), (100, 100), "{calls:?}");
        assert!((101..110).contains(&of("register")), "what waits shares a call: {calls:?}");
        assert_eq!(calls.len(), 3, "nothing else: {calls:?}");
        store.close();
    });
}
