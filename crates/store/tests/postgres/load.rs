//! Many front ends at once: no deadlocks, plans by index, one call per request.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use commpool_harness::postgres::Settings;
use commpool_model::ids::{EndpointId, Incarnation, Key128, Origin, UserRef};
use commpool_model::presence::State;
use commpool_store::ops::adopt::Adopt;
use commpool_store::ops::assert::{Assert, HeldEndpoint, HeldPublication};
use commpool_store::ops::endpoints::{Expire, FlowsLost, SweepLost};
use commpool_store::ops::presence::Publish;
use commpool_store::ops::register::Unregister;
use commpool_store::ops::subscribe::{self, Dialog, Kind, Request, Unwatch};
use commpool_store::ops::{Endpoint, Operation, Outcome};
use commpool_store::{Store, StoreError};
use sqlx::Row;
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

fn endpoint(user: UserRef, device: u8) -> EndpointId {
    EndpointId::new(user.id, Key128([device; 16]), 0)
}

/// A change of what the device published first, which may be gone.
fn changed(user: UserRef, fe: Incarnation, device: u8, n: u32) -> Publish {
    Publish { if_match: Some(publish(user, fe, device, n - 1).tag), ..publish(user, fe, device, n) }
}

fn distinct(users: &[UserRef]) -> Vec<UserRef> {
    users.iter().copied().collect::<BTreeSet<_>>().into_iter().collect()
}

fn due(fe: Incarnation, users: &[UserRef], device: u8, target: u32) -> Expire {
    let users = distinct(users);
    Expire {
        fe,
        endpoints: users.iter().map(|user| endpoint(*user, device)).collect(),
        publications: users.iter().map(|user| (*user, Key128([device; 16]))).collect(),
        subscriptions: users.iter().map(|user| (*user, Key128(u128::from(target).to_be_bytes()))).collect(),
    }
}

/// What a front end holds of users: their endpoints and publications, some of them long over.
fn held(fe: Incarnation, users: &[UserRef], device: u8, n: u32) -> Assert {
    let endpoint = |user: &UserRef| {
        let of = register(*user, fe, device, n);
        HeldEndpoint {
            key: Key128([device; 16]),
            origin: of.origin,
            cseq: n,
            refreshed_ms: 1,
            endpoint: Endpoint {
                id: endpoint(*user, device),
                flow: of.flow,
                lost_ms: None,
                contact: "sip:a@192.0.2.1".to_owned(),
                contact_value: "<sip:a@192.0.2.1>".to_owned(),
                q: 1000,
                path: vec![],
                instance: None,
                reg_id: None,
                agent: String::new(),
                expires_ms: u64::from(n % 3),
                age_ms: 1000,
                call_id: of.call_id,
            },
        }
    };
    let publication = |user: &UserRef| HeldPublication {
        user: *user,
        id: Key128([device; 16]),
        tag: publish(*user, fe, device, n).tag,
        serial: u32::from(device),
        endpoint: None,
        state: State::default(),
        document: vec![],
        since_ms: 1,
        updated_ms: 1,
        expires_ms: u64::from(n % 3),
    };
    let users = distinct(users);
    Assert {
        fe,
        endpoints: users.iter().map(endpoint).collect(),
        publications: users.iter().map(publication).collect(),
        interest: users,
        subscriptions: vec![],
    }
}

#[test]
fn many_front_ends_get_in_nobodys_way() {
    const FRONT_ENDS: u8 = 16;
    const USERS: u32 = 30;
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
                        let some: Vec<UserRef> = (0..4).map(|_| users[roll(USERS) as usize]).collect();
                        match roll(20) {
                            0..5 => register(user, fe, n, serial).into(),
                            5..7 => publish(user, fe, n, serial).into(),
                            7..9 => changed(user, fe, n, serial).into(),
                            9..12 => watch(user, fe, serial, roll(USERS - 5)).into(),
                            12 => subscribe::Request { expires: 0, ..watch(user, fe, serial, roll(USERS - 5)) }.into(),
                            13 => FlowsLost { fe, flows: vec![(user, u32::from(n))] }.into(),
                            14 => SweepLost { fe, limit: 10 }.into(),
                            15 => Unregister { fe, user, endpoints: None }.into(),
                            16 => due(fe, &some, n, roll(USERS - 5)).into(),
                            17 => held(fe, &some, n, serial).into(),
                            18 => Adopt { fe, endpoint: endpoint(user, n), first_cseq: 1, held: vec![], after: None }
                                .into(),
                            _ => Unwatch { fe, users: distinct(&some) }.into(),
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
        let all = usize::from(FRONT_ENDS) * 12 * 32;
        assert!(refused.values().sum::<usize>() < all / 2, "{refused:?}");
        assert_eq!(late.map(|(_, count)| count).sum::<usize>(), refused.values().sum::<usize>(), "{refused:?}");
        first.close();
    });
}

#[test]
fn tables_that_grow_from_nothing_are_searched_by_key_before_long() {
    const USERS: u32 = 100;
    // Nobody else looks at the tables meanwhile.
    let settings = Settings { lines: vec!["autovacuum = off".to_owned()], ..Settings::default() };
    with_cluster("plans of a growing database", &settings, |cluster| async move {
        let mut connection = superuser(&cluster).await;
        // The least that can be believed of a table that is about to grow.
        sqlx::raw_sql("analyze").execute(&mut connection).await.unwrap();
        let store = open(&cluster);
        let fe = start(&store, 1).await.fe;
        let users = users(&store, USERS).await;
        // Processor time of the database for a request of each kind by each user.
        let round = async |round: u32| {
            let before = cluster.cpu();
            for (n, user) in (1_u32..).zip(&users) {
                let serial = round * 1000 + n;
                store.ask(register(*user, fe, 1, serial)).await.unwrap();
                store.ask(publish(*user, fe, 1, serial)).await.unwrap();
                store.ask(watch(*user, fe, serial, n % 90)).await.unwrap();
            }
            cluster.cpu() - before
        };
        round(1).await;
        let grown = "insert into commpool.interest select n, 1, 1 from generate_series(10000, 60000) n;
            insert into commpool.publication
            select n, gen_random_uuid(), gen_random_uuid(), 1, 1, 1, 1, null, 1, 1, 1, '', null, ''
            from generate_series(10000, 60000) n";
        sqlx::raw_sql(grown).execute(&mut connection).await.unwrap();
        let before = round(2).await;
        let flows: Vec<Operation> = (0..2000).map(|n| register(users[n % 100], fe, 2, n as u32 + 1).into()).collect();
        tokio::time::sleep(Duration::from_secs(2)).await;
        for some in flows.chunks(100) {
            together(&store, some.to_vec()).await;
        }
        let after = round(3).await;
        assert!(after * 3 < before, "{before:?} at first, {after:?} by plans made anew");
        store.close();
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
