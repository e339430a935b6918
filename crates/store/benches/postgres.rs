//! Cost of the hot operations on PostgreSQL with 1, 8, 32 and 128 requests under way at any time: processor time of all
//! processes of the database, and of this one. A table, since the kernel's accounts of other processes are too coarse for
//! statistics over short runs.

#![allow(clippy::print_stdout, reason = "a table is its purpose")]

use std::time::{Duration, Instant};

use commpool_harness::postgres::{Cluster, Settings, can_run};
use commpool_store::Store;

#[allow(dead_code, reason = "each program uses its part")]
#[path = "../tests/support/database.rs"]
mod database;
mod load;

use load::{Bench, OPERATIONS, own_processor_time};

const CLIENTS: [usize; 4] = [1, 8, 32, 128];
/// How long each is measured, after half as long to warm up.
const TIME: Duration = Duration::from_secs(4);
/// Requests between two looks at the clock.
const ROUND: u64 = 512;
const NAME: &str = "bench";

fn main() {
    if !can_run("the cost of PostgreSQL") {
        return;
    }
    let cluster = Cluster::start(&Settings { durable: true, ..Settings::default() }).unwrap();
    cluster.sql("postgres", &format!("create database {NAME}")).unwrap();
    database::runtime().block_on(database::prepare(&cluster, NAME));
    let store = Store::open_postgres(database::as_server(&cluster, NAME)).unwrap();
    let mut bench = Bench::new(store.clone());
    println!("operation clients    ops/s  database ms/1000  front end ms/1000  requests a call");
    for (name, make, check) in OPERATIONS {
        for clients in CLIENTS {
            let mut run = |time: Duration| {
                let (begun, mut count) = (Instant::now(), 0);
                while begun.elapsed() < time {
                    bench.closed_loop(clients, ROUND, make, check);
                    count += ROUND;
                }
                count as f64
            };
            run(TIME / 2);
            let calls = || store.stats().operation(name).map_or(0, |of| of.batches) as f64;
            let (begun, theirs, ours, before) = (Instant::now(), cluster.cpu(), own_processor_time(), calls());
            let count = run(TIME);
            let rate = count / begun.elapsed().as_secs_f64();
            let each = |time: Duration| time.as_secs_f64() * 1e6 / count;
            let (theirs, ours) = (each(cluster.cpu() - theirs), each(own_processor_time() - ours));
            let together = count / (calls() - before);
            println!("{name:9} {clients:7} {rate:8.0} {theirs:17.0} {ours:18.0} {together:16.1}");
        }
    }
    store.close();
}
