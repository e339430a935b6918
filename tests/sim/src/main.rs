//! `commpool-sim [SEED] [--seeds N]`: runs seeds; a failing one is named, and is all that is needed to see it again.

#![allow(clippy::print_stdout, reason = "a command line speaks by printing")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use clap::Parser;
use commpool_sim::run::run;

/// A whole pool in one process, from one seed.
#[derive(Parser, Debug)]
struct Arguments {
    /// This seed alone, with the engines' logs at the level of COMMPOOL_LOG.
    seed: Option<u64>,
    /// So many seeds, from 1 on.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (first, last) = arguments.seed.map_or((1, arguments.seeds), |seed| (seed, seed));
    if arguments.seed.is_some() {
        let filter = tracing_subscriber::EnvFilter::try_from_env("COMMPOOL_LOG").unwrap_or_default();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    }
    let next = AtomicU64::new(first);
    let failed = Mutex::new(Vec::new());
    let counts = Mutex::new(BTreeMap::<&'static str, u64>::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > last {
                        return;
                    }
                    match run(seed) {
                        Ok(report) => {
                            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                            for (what, n) in report.counts {
                                *counts.entry(what).or_default() += n;
                            }
                            if !report.broken.is_empty() {
                                failed.lock().unwrap_or_else(PoisonError::into_inner).push((seed, report.broken));
                            }
                        }
                        Err(error) => {
                            let broken = vec![format!("{error:#}")];
                            failed.lock().unwrap_or_else(PoisonError::into_inner).push((seed, broken));
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (what, n) in counts.into_inner().unwrap_or_else(PoisonError::into_inner) {
        println!("{n:>9}  {what}");
    }
    for (seed, broken) in &failed {
        println!("seed {seed} failed:");
        broken.iter().take(5).for_each(|line| println!("  {line}"));
    }
    println!("{} of {} seeds passed", last - first + 1 - failed.len() as u64, last - first + 1);
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
