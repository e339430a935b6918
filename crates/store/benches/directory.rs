//! How long it takes to put a whole directory aside and to apply it, on SQLite and PostgreSQL.

#![allow(clippy::print_stdout, reason = "a table is its purpose")]

use std::time::Instant;

use commpool_harness::postgres::{Cluster, Settings, can_run};
use commpool_model::ids::{Key128, Micros};
use commpool_store::ops::accounts::State;
use commpool_store::ops::directory::{Applied, Apply, Card, Change, LeaseTake, LeaseTaken, SourceUsers, Stage, Staged};
use commpool_store::{SqliteOptions, Store, system_clock};

#[allow(dead_code, reason = "each program uses its part")]
#[path = "../tests/support/database.rs"]
mod database;

const SOURCE: &str = "directory";
const USERS: [u64; 2] = [10_000, 100_000];

fn key(n: u64) -> Key128 {
    // As GUIDs come: in no order.
    Key128(u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).rotate_left(61).to_be_bytes())
}

fn user(n: u64, name: u64, generation: u32) -> Change {
    Change::Put {
        key: key(n),
        address: Some(format!("first.last-{name}@example.com")),
        state: State::On,
        display_name: format!("First Last {n} {generation}"),
        card: Card {
            phone: "+49 30 1234567".to_owned(),
            title: "Clerk".to_owned(),
            company: "Example".to_owned(),
            office: format!("Room {}", n % 1000),
        },
        fingerprint: key(n + u64::from(generation)),
    }
}

struct Bench {
    store: Store,
    token: u64,
    version: u64,
}

impl Bench {
    async fn new(store: Store) -> Self {
        let take = LeaseTake { name: SOURCE.to_owned(), holder: "a bench".to_owned(), ttl_ms: 3_600_000 };
        let LeaseTaken::Taken(token) = store.ask(take).await.unwrap() else { panic!("somebody holds the lease") };
        Self { store, token, version: 0 }
    }

    /// Puts rows aside and applies them; seconds for each.
    async fn run(&mut self, rows: impl Iterator<Item = Change>) -> (f64, f64) {
        let rows: Vec<Change> = rows.collect();
        let begun = Instant::now();
        for (n, chunk) in (0..).zip(rows.chunks(1000)) {
            let stage = Stage { source: SOURCE.to_owned(), token: self.token, first: n * 1000, rows: chunk.to_vec() };
            assert_eq!(self.store.ask(stage).await.unwrap(), Staged::Done);
        }
        let staged = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let count = u32::try_from(rows.len()).unwrap();
        let (source, token, version) = (SOURCE.to_owned(), self.token, self.version);
        let applied = self.store.ask(Apply { source, token, version, rows: count, state: vec![0; 64] }).await.unwrap();
        self.version += 1;
        assert_eq!(applied, Applied::Done { version: self.version, refused: vec![] });
        (staged, begun.elapsed().as_secs_f64())
    }

    /// Reads all that is known; seconds.
    async fn read(&self, users: u64) -> f64 {
        let (begun, mut count, mut after) = (Instant::now(), 0, None);
        loop {
            let ask = SourceUsers { source: SOURCE.to_owned(), after, limit: 1000 };
            let page = self.store.ask(ask).await.unwrap();
            count += page.users.len() as u64;
            after = page.users.last().map(|known| known.key);
            if !page.more {
                break;
            }
        }
        assert_eq!(count, users);
        begun.elapsed().as_secs_f64()
    }
}

async fn measure(backend: &str, store: Store, users: u64) {
    let mut bench = Bench::new(store).await;
    let show = |what: &str, (stage, apply): (f64, f64)| {
        println!("{backend:10} {users:7} {what:34} {stage:8.2} {apply:8.2}");
    };
    show("all are new", bench.run((0..users).map(|n| user(n, n, 0))).await);
    let read = bench.read(users).await;
    println!("{backend:10} {users:7} {:34} {:>8} {read:8.2}", "all are read", "");
    show("every name changes", bench.run((0..users).map(|n| user(n, n, 1))).await);
    show("every address passes to the next", bench.run((0..users).map(|n| user(n, (n + 1) % users, 2))).await);
    show("ten change", bench.run((0..10).map(|n| user(n, n + 1, 3))).await);
    show("all lapse", bench.run((0..users).map(|n| Change::Lapse { key: key(n), purge_at: Micros(1) })).await);
    show("all are removed", bench.run((0..users).map(|n| Change::Remove { key: key(n) })).await);
    bench.store.close();
}

fn main() {
    println!("backend      users what                                  stage s  apply s");
    let runtime = database::runtime();
    for users in USERS {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_sqlite(folder.path(), &SqliteOptions::default(), system_clock()).unwrap();
        runtime.block_on(measure("SQLite", store, users));
    }
    if !can_run("a directory on PostgreSQL") {
        return;
    }
    for users in USERS {
        let cluster = Cluster::start(&Settings { durable: true, ..Settings::default() }).unwrap();
        cluster.sql("postgres", "create database bench").unwrap();
        runtime.block_on(database::prepare(&cluster, "bench"));
        let store = Store::open_postgres(database::as_replicator(&cluster, "bench")).unwrap();
        runtime.block_on(measure("PostgreSQL", store, users));
    }
}
