//! What is on disk when it is acknowledged, and what is not.

use commpool_harness::postgres::Settings;
use commpool_store::ops::front_ends::{Load, Renew, State};
use sqlx::{PgConnection, Row};

use crate::pool::{add, open, publish, register, start, superuser, with_cluster};

/// How far the log is written, and how far it is on disk.
async fn log(connection: &mut PgConnection) -> (i64, i64) {
    let text = "select (pg_current_wal_insert_lsn() - '0/0')::int8, (pg_current_wal_flush_lsn() - '0/0')::int8";
    let row = sqlx::query(text).fetch_one(connection).await.unwrap();
    (row.get(0), row.get(1))
}

#[test]
fn soft_writes_do_not_wait_for_the_disk_and_durable_ones_do() {
    // The writer in the background would get ahead of what is looked at.
    let lines =
        ["wal_writer_delay = 10000", "wal_writer_flush_after = 1GB", "autovacuum = off", "bgwriter_delay = 10000"];
    let settings = Settings { durable: true, lines: lines.map(str::to_owned).to_vec(), ..Settings::default() };
    with_cluster("classes of durability", &settings, |cluster| async move {
        let mut connection = superuser(&cluster).await;
        let store = open(&cluster);
        let fe = start(&store, 1).await.fe;
        let (_, on_disk) = log(&mut connection).await;
        let alice = add(&store, "alice").await;
        let (_, later) = log(&mut connection).await;
        assert!(later > on_disk, "a new account is on disk");
        for n in 1..40 {
            store.ask(register(alice, fe, 1, n)).await.unwrap();
            store.ask(publish(alice, fe, 1, n)).await.unwrap();
            store.ask(Renew { fe, state: State::Serving, load: Load::default() }).await.unwrap();
        }
        let (written, on_disk) = log(&mut connection).await;
        assert!(written > later + 10_000, "something was written");
        assert!(on_disk < written - 5_000, "most of it waits: {on_disk} of {written}");
        add(&store, "bob").await;
        let (_, after) = log(&mut connection).await;
        assert!(after >= written, "and goes along with what is durable");
        let stats = store.stats();
        assert_eq!(stats.synced_commits, 2);
        store.close();
    });
}
