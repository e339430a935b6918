//! What a front end says again while the same comes in elsewhere: the newer row stays, whoever commits first.

use std::time::Duration;

use commpool_model::ids::{Incarnation, Key128, Micros, Origin, UserRef};
use commpool_model::presence::State;
use commpool_store::ops::assert::{Assert, Asserted, HeldEndpoint, HeldPublication, HeldSubscription, Kept};
use commpool_store::ops::presence::Published;
use commpool_store::ops::register::{Contacts, Reply};
use commpool_store::ops::subscribe::{self, Dialog, Kind};
use commpool_store::{Store, StoreError};
use sqlx::{Connection, Row, raw_sql};

use crate::database::Database;
use crate::pool::{add, publish, register, start};

/// Newer rows of another front end, not committed yet.
const NEWER: &str = "
    create temporary table e as select * from commpool.endpoint;
    create temporary table p as select * from commpool.publication;
    create temporary table s as select * from commpool.subscription;
    update e set fe = 2, serial = 9, cseq = cseq + 1, refreshed_at = refreshed_at + 1;
    update p set fe = 2, serial = 9, tag = gen_random_uuid(), updated = updated + 1;
    update s set fe = 2, remote_cseq = remote_cseq + 1;
    delete from commpool.endpoint;
    delete from commpool.publication;
    delete from commpool.subscription;
    begin;
    insert into commpool.endpoint select * from e;
    insert into commpool.publication select * from p;
    insert into commpool.subscription select * from s;
";

fn watching(watcher: UserRef, fe: Incarnation) -> subscribe::Request {
    subscribe::Request {
        watcher,
        watcher_address: "alice@example.com".to_owned(),
        origin: Origin([5; 16]),
        fe,
        endpoint: None,
        sub_id: Key128([5; 16]),
        initial: true,
        kind: Kind::Presence,
        presentities: vec!["alice@example.com".to_owned()],
        held: Vec::new(),
        expires: 600,
        first_cseq: 1,
        dialog: Dialog { remote_cseq: 1, ..Dialog::default() },
    }
}

/// Signs in, publishes, watches; what the front end remembers of it.
async fn hold(store: &Store, fe: Incarnation, alice: UserRef) -> Assert {
    let write = register(alice, fe, 1, 1);
    let Ok(Reply::Done(mut done)) = store.ask(write.clone()).await else { panic!("not registered") };
    let Contacts::Each(bindings) = &write.contacts else { unreachable!() };
    let endpoint = done.bindings.remove(0);
    let endpoints = vec![HeldEndpoint {
        key: bindings[0].key,
        origin: write.origin,
        cseq: write.cseq,
        refreshed_ms: 0,
        endpoint: endpoint.clone(),
    }];
    let published = publish(alice, fe, 1, 1);
    assert!(matches!(store.ask(published.clone()).await, Ok(Published::Done { .. })));
    let publications = vec![HeldPublication {
        user: alice,
        id: published.tag,
        tag: published.tag,
        serial: 1,
        endpoint: Some(endpoint.id),
        state: State::default(),
        document: Vec::new(),
        since_ms: 0,
        updated_ms: 0,
        expires_ms: 3_600_000,
    }];
    let watch = watching(alice, fe);
    assert!(matches!(store.ask(watch.clone()).await, Ok(subscribe::Reply::Done { .. })));
    let subscriptions = vec![HeldSubscription {
        watcher: alice,
        sub_id: watch.sub_id,
        origin: watch.origin,
        endpoint: None,
        kind: watch.kind,
        presentities: watch.presentities,
        expires: watch.expires,
        cseq: watch.first_cseq,
        dialog: watch.dialog,
    }];
    Assert { fe, endpoints, publications, interest: Vec::new(), subscriptions }
}

#[test]
fn what_comes_in_elsewhere_at_the_same_time_is_not_overwritten() {
    let Some(database) = Database::new() else { return };
    database.set_clock(Micros(1_000_000_000));
    let store = database.store();
    crate::database::runtime().block_on(async {
        let fe = start(&store, 1).await.fe;
        let other = start(&store, 2).await.fe;
        let alice = add(&store, "alice").await;
        let held = hold(&store, fe, alice).await;
        let (mut write, mut look) = (database.connect().await, database.connect().await);
        let newer = NEWER.replace("fe = 2", &format!("fe = {}", other.0));
        raw_sql(sqlx::AssertSqlSafe(newer)).execute(&mut write).await.unwrap();
        let (asserted, ()): (Result<Asserted, StoreError>, ()) = tokio::join!(store.ask(held.clone()), async {
            let waits =
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
            while sqlx::query(waits).fetch_one(&mut look).await.unwrap().get::<i64, _>(0) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            raw_sql("commit").execute(&mut write).await.unwrap();
        });
        let lost = Kept {
            lost_endpoints: vec![held.endpoints[0].endpoint.id],
            lost_publications: vec![(alice, held.publications[0].id)],
            lost_subscriptions: vec![(alice, held.subscriptions[0].sub_id)],
            ..Kept::default()
        };
        assert_eq!(asserted, Ok(Asserted::Done(lost)));
        for table in ["endpoint", "publication", "subscription"] {
            let owners = format!("select fe from commpool.{table}");
            let owner: i32 = sqlx::query(sqlx::AssertSqlSafe(owners)).fetch_one(&mut look).await.unwrap().get(0);
            assert_eq!(owner.cast_unsigned(), other.0, "{table}");
        }
        write.close().await.unwrap();
        look.close().await.unwrap();
    });
    store.close();
}
