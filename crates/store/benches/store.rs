//! Cost of the hot operations on SQLite with 1, 32 and 128 requests under way at any time: by the clock on the wall,
//! and by the processor time of the whole process.

use std::time::Duration;

use commpool_store::{SqliteOptions, Store, system_clock};
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkId, Criterion, Throughput};

mod load;

use load::{Bench, OPERATIONS, own_processor_time};

const CLIENTS: [usize; 3] = [1, 32, 128];

/// Processor time of the process, user and system.
struct ProcessorTime;

impl Measurement for ProcessorTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        own_processor_time()
    }

    fn end(&self, start: Duration) -> Duration {
        self.start() - start
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn run<M: Measurement<Value = Duration>>(bench: &mut Bench, criterion: &mut Criterion<M>, measure: &M, name: &str) {
    for (operation, make, check) in OPERATIONS {
        let mut group = criterion.benchmark_group(format!("{operation} {name}"));
        group.throughput(Throughput::Elements(1));
        for clients in CLIENTS {
            group.bench_function(BenchmarkId::from_parameter(clients), |b| {
                b.iter_custom(|count| {
                    let start = measure.start();
                    bench.closed_loop(clients, count, make, check);
                    measure.end(start)
                });
            });
        }
        group.finish();
    }
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_sqlite(folder.path(), &SqliteOptions::default(), system_clock()).unwrap();
    let mut bench = Bench::new(store);
    let mut wall = Criterion::default().configure_from_args();
    run(&mut bench, &mut wall, &WallTime, "wall");
    let mut processor = Criterion::default().with_measurement(ProcessorTime).configure_from_args();
    run(&mut bench, &mut processor, &ProcessorTime, "cpu");
    wall.final_summary();
}
