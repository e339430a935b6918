//! A front end is declared dead only when none of its writes is under way, and then it writes no more.

use std::time::{Duration, Instant};

use commpool_model::ids::Micros;
use commpool_store::Store;
use commpool_store::ops::front_ends::{Load, Reap, Reaped, Renew, Renewed, State};
use commpool_store::ops::register::Reply;
use sqlx::{AssertSqlSafe, Connection, raw_sql};

use crate::database::Database;
use crate::pool::{add, register, start};

/// Asks until no write stands in the way; how often it had to.
async fn reap_at_last(store: &Store, reap: Reap) -> usize {
    for asked in 1.. {
        match store.ask(reap).await {
            Ok(Reaped::Busy) if asked < 20 => {}
            done => {
                assert_eq!(done, Ok(Reaped::Done));
                return asked;
            }
        }
    }
    0
}

#[test]
fn a_front_end_whose_write_is_under_way_is_not_reaped() {
    let Some(database) = Database::new() else { return };
    database.set_clock(Micros(1_000_000_000));
    let store = database.store();
    let runtime = crate::database::runtime();
    let (by, target, alice) =
        runtime.block_on(async { (start(&store, 1).await.fe, start(&store, 2).await.fe, add(&store, "alice").await) });
    let reap = Reap { by, target };
    let mut write = runtime.block_on(database.connect());

    database.set_clock(Micros(1_020_000_000));
    runtime.block_on(async {
        let fence = format!("begin; select pg_advisory_xact_lock_shared(1129335884, {})", target.0);
        raw_sql(AssertSqlSafe(fence)).execute(&mut write).await.unwrap();
        let asked = Instant::now();
        assert_eq!(store.ask(reap).await, Ok(Reaped::Busy));
        assert!((200..1800).contains(&asked.elapsed().as_millis()), "{:?}", asked.elapsed());
        let renewed = store.ask(Renew { fe: target, state: State::Serving, load: Load::default() }).await;
        assert!(matches!(renewed, Ok(Renewed::Held { .. })), "a write does not keep a lease from being renewed");
    });

    // A write begun while somebody waits for the fence waits with it, and finds the front end dead.
    database.set_clock(Micros(1_040_000_000));
    runtime.block_on(async {
        let (reaped, written) = tokio::join!(reap_at_last(&store, reap), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let release = async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                raw_sql("rollback").execute(&mut write).await.unwrap();
            };
            tokio::join!(store.ask(register(alice, target, 1, 1)), release).0
        });
        // Where the machine stood still for longer than the fence is waited for, the write came first.
        match reaped {
            1 => assert_eq!(written, Ok(Reply::Gone)),
            _ => assert!(matches!(written, Ok(Reply::Gone | Reply::Done(_))), "{written:?}"),
        }
        assert_eq!(store.ask(register(alice, target, 1, 2)).await, Ok(Reply::Gone));
        write.close().await.unwrap();
    });
    store.close();
}
