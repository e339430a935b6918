//! The database away, killed, standing still, read-only, of another build.

use std::time::{Duration, Instant};

use commpool_harness::postgres::Settings;
use commpool_store::ops::front_ends::{Load, Renew, Renewed, State};
use commpool_store::ops::register::Reply;
use commpool_store::ops::{HealthRequest, Operation};
use commpool_store::postgres::migrate;
use commpool_store::{Store, StoreError};
use sqlx::{Connection, Row, raw_sql};

use crate::database::as_owner;
use crate::pool::{
    ANSWER, NAME, add, is_away, open, reason, register, route_to, start, superuser, until, with_cluster,
};

const BACK: Duration = Duration::from_secs(10);
const GOOD: fn(&Result<commpool_store::ops::route::Reply, StoreError>) -> bool = Result::is_ok;

#[test]
fn a_database_that_is_away_is_told_at_once_and_comes_back_by_itself() {
    with_cluster("the database away", &Settings::default(), |mut cluster| async move {
        let store = open(&cluster);
        let fe = start(&store, 1).await.fe;
        let alice = add(&store, "alice").await;
        for kill in [false, true] {
            if kill {
                cluster.kill9().unwrap()
            } else {
                cluster.stop().unwrap()
            }
            let _ = until(&store, BACK, || route_to("alice"), is_away).await;
            let asked = Instant::now();
            for _ in 0..20 {
                assert!(is_away(&store.ask(route_to("alice")).await));
                assert!(store.ask(register(alice, fe, 1, 1)).await.is_err());
            }
            assert!(asked.elapsed() < Duration::from_secs(1), "once known, it is told at once: {:?}", asked.elapsed());
            assert!(!store.ask(HealthRequest).await.unwrap().writable);
            cluster.start_again().unwrap();
            until(&store, BACK, || route_to("alice"), GOOD).await.unwrap();
            let health = until(&store, BACK, || HealthRequest, |health| health.as_ref().unwrap().writable).await;
            assert_eq!(health.unwrap().schema, store.schema());
        }
        store.close();
    });
}

#[test]
fn a_store_opens_while_the_database_is_away() {
    with_cluster("a store without its database", &Settings::default(), |mut cluster| async move {
        cluster.stop().unwrap();
        let store = open(&cluster);
        let told = reason(store.ask(route_to("alice")).await);
        assert!(told.contains("database pool at 127.0.0.1:"), "{told}");
        cluster.start_again().unwrap();
        until(&store, BACK, || route_to("alice"), GOOD).await.unwrap();
        store.close();
        assert_eq!(store.ask(route_to("alice")).await, Err(StoreError::Unavailable("it was closed".to_owned())));
    });
}

#[test]
fn a_database_that_stands_still_is_left_in_time() {
    with_cluster("the database standing still", &Settings::default(), |cluster| async move {
        let store = open(&cluster);
        let fe = start(&store, 1).await.fe;
        let alice = add(&store, "alice").await;
        cluster.pause();
        let asked = Instant::now();
        let answer = store.ask(register(alice, fe, 1, 1)).await;
        assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
        assert!(asked.elapsed() < ANSWER);
        let answers = (2..50).map(|n| store.ask(register(alice, fe, 1, n)));
        for answer in answers {
            assert!(is_away(&answer.await));
        }
        assert!(asked.elapsed() < ANSWER * 3, "{:?}", asked.elapsed());
        cluster.resume();
        let again = || register(alice, fe, 1, 60);
        let done = until(&store, BACK, again, Result::is_ok).await.unwrap();
        assert!(matches!(done, Reply::Done(_)), "{done:?}");
        store.close();
    });
}

#[test]
fn connections_that_are_cut_under_load_cost_no_false_answer() {
    with_cluster("connections cut under load", &Settings::default(), |cluster| async move {
        let store = open(&cluster);
        let fe = start(&store, 1).await.fe;
        let alice = add(&store, "alice").await;
        let cut = tokio::spawn(async move {
            let mut connection = superuser(&cluster).await;
            let text =
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'commpool %'";
            for _ in 0..8 {
                raw_sql(text).execute(&mut connection).await.unwrap();
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            (cluster, connection)
        });
        let (mut cseq, mut done, mut refused) = (0, 0, 0);
        while !cut.is_finished() {
            cseq += 1;
            match store.ask(register(alice, fe, 1, cseq)).await {
                Ok(Reply::Done(of)) => {
                    done += 1;
                    assert_eq!(of.bindings.len(), 1);
                }
                Ok(other) => panic!("{other:?}"),
                Err(StoreError::Unavailable(_) | StoreError::Unknown(_)) => {
                    refused += 1;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        let (cluster, mut connection) = cut.await.unwrap();
        assert!(done > refused, "most are carried out on the next connection: {done} against {refused}");
        let row = sqlx::query("select cseq from commpool.endpoint").fetch_one(&mut connection).await.unwrap();
        assert!(row.get::<i64, _>(0) >= i64::from(cseq) - 1);
        connection.close().await.unwrap();
        store.close();
        drop(cluster);
    });
}

#[test]
fn a_database_that_takes_no_writes_still_tells_where_people_are() {
    with_cluster("a read-only database", &Settings::default(), |cluster| async move {
        let store = open(&cluster);
        let fe = start(&store, 1).await.fe;
        let alice = add(&store, "alice").await;
        cluster.sql(NAME, &format!("alter database {NAME} set default_transaction_read_only = on")).unwrap();
        let cut = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'commpool %'";
        cluster.sql(NAME, cut).unwrap();
        let refused = until(&store, BACK, || register(alice, fe, 1, 1), Result::is_err).await;
        let told = refused.unwrap_err().to_string();
        assert!(told.contains("takes no writes") || told.contains("read-only"), "{told}");
        assert!(!store.ask(HealthRequest).await.unwrap().writable);
        until(&store, BACK, || route_to("alice"), GOOD).await.unwrap();
        cluster
            .sql(
                NAME,
                "set default_transaction_read_only = off; alter database pool reset default_transaction_read_only",
            )
            .unwrap();
        until(&store, BACK, || register(alice, fe, 1, 2), Result::is_ok).await.unwrap();
        store.close();
    });
}

#[test]
fn a_schema_of_another_build_is_not_served_and_the_mend_is_named() {
    with_cluster("a schema of another build", &Settings::default(), |cluster| async move {
        cluster.sql("postgres", "create database empty; grant create on database empty to commpool_owner").unwrap();
        let mut options = crate::database::as_server(&cluster, "empty");
        let store = Store::open_postgres(options.clone()).unwrap();
        let need = store.schema();
        let none = StoreError::Schema { need, found: 0 };
        assert_eq!(store.ask(route_to("alice")).await, Err(none.clone()));
        assert!(none.to_string().contains("run `commpool-server migrate`"), "{none}");
        let report = migrate(&as_owner(&cluster, "empty"), None).await.unwrap();
        assert_eq!((report.before, report.after), (0, need));
        // It looks again every ten seconds.
        until(&store, Duration::from_secs(15), || route_to("alice"), GOOD).await.unwrap();
        store.close();

        options.database = NAME.to_owned();
        let changes = [
            ("delete from commpool.function_set", "functions are those of another build"),
            ("update commpool.pool set floor = 2", "use a build at least as new"),
        ];
        for (change, mend) in changes {
            cluster.sql(NAME, change).unwrap();
            let store = Store::open_postgres(options.clone()).unwrap();
            let told = reason(store.ask(route_to("alice")).await);
            assert!(told.contains(mend), "{told}");
            assert!(!store.ask(HealthRequest).await.unwrap().writable);
            store.close();
        }
    });
}

#[test]
fn a_login_that_is_wrong_is_named() {
    with_cluster("a wrong login", &Settings::default(), |cluster| async move {
        let ask = |user: &str, password: &str| {
            let store = Store::open_postgres(crate::database::options(&cluster, NAME, user, password)).unwrap();
            async move {
                let told = reason(store.ask(route_to("alice")).await);
                store.close();
                told
            }
        };
        let told = ask("pool_server", "another").await;
        assert!(told.contains("check user and password files"), "{told}");
        cluster
            .sql("postgres", "create role stranger login password 'x'; grant connect on database pool to stranger")
            .unwrap();
        let told = ask("stranger", "x").await;
        assert!(told.contains("member of commpool_server"), "{told}");
    });
}

#[test]
fn a_crash_raises_the_epoch_once_and_a_restart_does_not() {
    let settings = Settings { durable: true, ..Settings::default() };
    with_cluster("a crash of the database", &settings, |mut cluster| async move {
        let store = open(&cluster);
        let started = start(&store, 1).await;
        let renew = || Renew { fe: started.fe, state: State::Serving, load: Load::default() };
        let epoch = |renewed: Result<Renewed, StoreError>| match renewed {
            Ok(Renewed::Held { epoch, .. }) => epoch,
            other => panic!("{other:?}"),
        };
        assert_eq!(epoch(store.ask(renew()).await), started.epoch);
        cluster.stop().unwrap();
        cluster.start_again().unwrap();
        assert_eq!(epoch(until(&store, BACK, renew, Result::is_ok).await), started.epoch);
        let alice = add(&store, "alice").await;
        assert!(matches!(store.ask(register(alice, started.fe, 1, 1)).await, Ok(Reply::Done(_))));
        cluster.kill9().unwrap();
        cluster.start_again().unwrap();
        let risen = epoch(until(&store, BACK, renew, Result::is_ok).await);
        assert!(risen > started.epoch);
        assert_eq!(epoch(store.ask(renew()).await), risen);
        assert!(store.ask(route_to("alice")).await.unwrap().found.is_some(), "what is durable was kept");
        store.close();
    });
}

#[test]
fn a_standby_is_not_served_until_it_is_the_primary() {
    with_cluster("a standby", &Settings::default(), |mut cluster| async move {
        let store = open(&cluster);
        let started = start(&store, 1).await;
        cluster.stop().unwrap();
        std::fs::write(cluster.data().join("standby.signal"), "").unwrap();
        cluster.start_again().unwrap();
        let refused = until(
            &store,
            BACK,
            || route_to("alice"),
            |answer| answer.as_ref().is_err_and(|error| error.to_string().contains("is a standby")),
        );
        let _ = refused.await;
        assert_eq!(cluster.sql(NAME, "select pg_promote()").unwrap(), "t");
        let renew = || Renew { fe: started.fe, state: State::Serving, load: Load::default() };
        let Ok(Renewed::Held { epoch, .. }) = until(&store, BACK, renew, Result::is_ok).await else { panic!() };
        assert!(epoch > started.epoch, "soft writes of the one before may be lost");
        store.close();
    });
}

#[test]
fn what_waits_is_answered_when_the_store_is_closed() {
    with_cluster("closing", &Settings::default(), |cluster| async move {
        let store = open(&cluster);
        let (answer, answers) = std::sync::mpsc::channel();
        let batch = (0..200).map(|_| {
            let answer = answer.clone();
            let reply: commpool_store::Reply = Box::new(move |outcome| answer.send(outcome).unwrap());
            (Operation::from(route_to("nobody")), reply)
        });
        store.submit_many(batch.collect());
        drop(answer);
        store.close();
        assert_eq!(answers.iter().filter(Result::is_ok).count(), 200);
        drop(cluster);
    });
}
