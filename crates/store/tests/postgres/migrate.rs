//! Migration: once, beside others, ended at any statement, under load.

use std::time::Duration;

use commpool_harness::postgres::Settings;
use commpool_store::ops::accounts::{Find, Put, PutReply, State};
use commpool_store::ops::directory::{Card, LeaseTake, LeaseTaken};
use commpool_store::postgres::migrate;
use commpool_store::{Store, StoreError};
use sqlx::Row;

use crate::database::{as_owner, as_server, connect, prepare};
use crate::pool::{NAME, add, open, register, route_to, start, superuser, with_cluster};

#[test]
fn a_repeat_does_nothing_and_a_newer_schema_is_left_alone() {
    with_cluster("migrating again", &Settings::default(), |cluster| async move {
        let owner = as_owner(&cluster, NAME);
        let again = migrate(&owner, None).await.unwrap();
        assert_eq!((again.before, again.after, again.applied), (3, 3, vec![]));
        prepare(&cluster, NAME).await;
        cluster.sql(NAME, "insert into commpool.migration values (99, 'of the future')").unwrap();
        let newer = migrate(&owner, None).await.unwrap();
        assert_eq!((newer.before, newer.after), (99, 99), "it offers this build's functions still");
        let store = open(&cluster);
        assert!(store.ask(route_to("alice")).await.is_ok());
        store.close();
        cluster.sql(NAME, "delete from commpool.function_set").unwrap();
        assert_eq!(migrate(&owner, None).await, Err(StoreError::Schema { need: 3, found: 99 }));
    });
}

#[test]
fn what_is_missing_is_named() {
    with_cluster("a database without roles", &Settings::default(), |cluster| async move {
        cluster.sql("postgres", "create role stranger login password 'x' connection limit 1").unwrap();
        cluster.sql("postgres", "grant connect on database pool to stranger").unwrap();
        let stranger = crate::database::options(&cluster, NAME, "stranger", "x");
        let told = migrate(&stranger, None).await.unwrap_err().to_string();
        assert!(told.contains("--print-roles") && !told.contains('\n'), "{told}");
        let nowhere = as_owner(&cluster, "nowhere");
        let told = migrate(&nowhere, None).await.unwrap_err().to_string();
        assert!(told.contains("create the database"), "{told}");
        // What is shown to administrators is enough.
        cluster.sql("postgres", "drop owned by commpool_owner; create database theirs").unwrap();
        let roles = commpool_store::postgres::roles().replace(" pool_", " their_");
        let roles: String = roles
            .lines()
            .filter(|line| !line.starts_with("create role commpool_"))
            .map(|line| format!("{line}\n"))
            .collect();
        cluster.sql("theirs", &roles).unwrap();
        migrate(&crate::database::options(&cluster, "theirs", "their_owner", "CHANGE-1"), None).await.unwrap();
        let server = crate::database::options(&cluster, "theirs", "their_server", "CHANGE-2");
        let store = Store::open_postgres(server).unwrap();
        assert!(store.ask(route_to("alice")).await.is_ok());
        store.close();
    });
}

#[test]
fn runs_beside_each_other_wait_for_one_another() {
    with_cluster("migrations beside each other", &Settings::default(), |cluster| async move {
        cluster.sql("postgres", "create database fresh; grant create on database fresh to commpool_owner").unwrap();
        let owner = as_owner(&cluster, "fresh");
        let run = || {
            let owner = owner.clone();
            tokio::spawn(async move { migrate(&owner, None).await.unwrap().applied.len() })
        };
        let runs = [run(), run(), run(), run()];
        let mut applied = Vec::new();
        for run in runs {
            applied.push(run.await.unwrap());
        }
        applied.sort_unstable();
        assert_eq!(applied, [0, 0, 0, 4]);
    });
}

/// Ends the session at its so-manieth statement that defines something.
const KILLER: &str = "
    create schema test;
    grant usage on schema test to public;
    create table test.deadly (n int not null);
    insert into test.deadly values (1);
    create sequence test.statements;
    create function test.kill() returns event_trigger language plpgsql security definer as $$
    begin
        if nextval('test.statements') = (select d.n from test.deadly d) then
            perform pg_terminate_backend(pg_backend_pid());
        end if;
    end $$;
    create event trigger killer on ddl_command_end execute function test.kill();
";

#[test]
fn a_run_ended_at_any_statement_is_taken_up_by_the_next() {
    with_cluster("migrations that are ended", &Settings::default(), |cluster| async move {
        cluster.sql("postgres", "create database fresh; grant create on database fresh to commpool_owner").unwrap();
        cluster.sql("fresh", KILLER).unwrap();
        let owner = as_owner(&cluster, "fresh");
        let mut connection = connect(&cluster, "fresh").await;
        let mut ended = 0;
        // Each run gets one statement further than the one before it.
        while let Err(error) = migrate(&owner, None).await {
            ended += 1;
            assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
            let next = "with n as (update test.deadly set n = n + 1) select setval('test.statements', 1, false)";
            sqlx::query(next).execute(&mut connection).await.unwrap();
            let there = "select to_regclass('commpool.endpoint') is not null";
            if sqlx::query(there).fetch_one(&mut connection).await.unwrap().get(0) {
                let logged = "select count(*) from commpool.migration";
                let logged: i64 = sqlx::query(logged).fetch_one(&mut connection).await.unwrap().get(0);
                let further =
                    "select num_nonnulls(to_regclass('commpool.incoming'), to_regclass('commpool.publication_fe'))";
                let further: i32 = sqlx::query(further).fetch_one(&mut connection).await.unwrap().get(0);
                assert_eq!(logged, 1 + i64::from(further), "a step and its row in the log are one");
            }
        }
        assert!(ended > 60, "{ended}");
        let store = Store::open_postgres(as_server(&cluster, "fresh")).unwrap();
        start(&store, 1).await;
        store.close();
    });
}

#[test]
fn functions_are_replaced_under_load_without_a_failure() {
    with_cluster("functions replaced under load", &Settings::default(), |cluster| async move {
        let owner = as_owner(&cluster, NAME);
        let mut connection = superuser(&cluster).await;
        let stores = [open(&cluster), open(&cluster), open(&cluster)];
        let fe = start(&stores[0], 1).await.fe;
        let alice = add(&stores[0], "alice").await;
        for (n, store) in (1_u32..).zip(&stores) {
            store.ask(register(alice, fe, 1, n)).await.unwrap();
        }
        // Their second connections for reads, which are not asked at once.
        let connected = "select count(*) from pg_stat_activity where application_name like 'commpool %'";
        while sqlx::query(connected).fetch_one(&mut connection).await.unwrap().get::<i64, _>(0) < 15 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let replacing = tokio::spawn(async move {
            for _ in 0..20 {
                sqlx::query("delete from commpool.function_set").execute(&mut connection).await.unwrap();
                assert_eq!(migrate(&owner, None).await.unwrap().applied, ["functions"]);
            }
        });
        let mut cseq = 3;
        while !replacing.is_finished() {
            for store in &stores {
                cseq += 1;
                store.ask(register(alice, fe, 1, cseq)).await.unwrap();
                store.ask(route_to("alice")).await.unwrap();
            }
        }
        replacing.await.unwrap();
        stores.iter().for_each(Store::close);
        assert!(cseq > 20, "{cseq}");
    });
}

#[test]
fn a_pool_of_the_schema_before_keeps_its_users() {
    with_cluster("migrating from the first schema", &Settings::default(), |cluster| async move {
        cluster.sql("postgres", "create database old; grant create on database old to commpool_owner").unwrap();
        let first = format!(
            "set role commpool_owner; create schema commpool; create table commpool.migration (
                 version int4 primary key, name text not null, applied_at timestamptz not null default now()
             );
             create table commpool.function_set (hash text primary key, applied_at timestamptz not null default now());
             {}
             insert into commpool.migration (version, name) values (1, '0001_pool');
             insert into commpool.account values (nextval('commpool.user_number'), 1, 'Alice', 'alice', 5);
             insert into commpool.address values ('alice@example.com', 1);",
            include_str!("../../src/postgres/migrations/0001_pool.sql")
        );
        cluster.sql("old", &first).unwrap();
        let report = migrate(&as_owner(&cluster, "old"), None).await.unwrap();
        assert_eq!(
            (report.before, report.after, report.applied),
            (1, 3, vec!["0002_directory", "0003_expiry", "functions"])
        );
        let store = Store::open_postgres(as_server(&cluster, "old")).unwrap();
        let page = store.ask(Find { limit: 10, ..Find::default() }).await.unwrap().accounts;
        assert_eq!((page.len(), page[0].address.as_str(), page[0].managed), (1, "alice@example.com", false));
        assert_eq!(page[0].card, Card::default());
        let change = Put::Change { address: page[0].address.clone(), state: Some(State::Disabled), display_name: None };
        assert!(matches!(store.ask(change).await, Ok(PutReply::Done(_))));
        store.close();
        let replicator = Store::open_postgres(crate::database::as_replicator(&cluster, "old")).unwrap();
        let take = LeaseTake { name: "directory".to_owned(), holder: "a test".to_owned(), ttl_ms: 1000 };
        assert_eq!(replicator.ask(take).await, Ok(LeaseTaken::Taken(1)));
        replicator.close();
    });
}
