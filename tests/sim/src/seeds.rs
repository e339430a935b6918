//! Many seeds on all processors.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::run::run;

/// Most broken promises told of one seed.
const TOLD: usize = 5;

/// What came of many seeds.
#[derive(Debug, Default)]
pub struct Summary {
    /// How many ran.
    pub seeds: u64,
    /// Seeds that broke a promise, with what they broke.
    pub failed: BTreeMap<u64, Vec<String>>,
    /// What happened in all of them.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Summary {
    fn add(&mut self, seed: u64) {
        self.seeds += 1;
        match run(seed) {
            Ok(report) => {
                for (what, n) in report.counts {
                    *self.counts.entry(what).or_default() += n;
                }
                if !report.broken.is_empty() {
                    self.failed.insert(seed, report.broken);
                }
            }
            Err(error) => {
                self.failed.insert(seed, vec![format!("{error:#}")]);
            }
        }
    }

    fn join(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.failed.extend(other.failed);
        for (what, n) in other.counts {
            *self.counts.entry(what).or_default() += n;
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, n) in &self.counts {
            writeln!(f, "{n:>9}  {what}")?;
        }
        for (seed, broken) in &self.failed {
            writeln!(f, "seed {seed} failed:")?;
            broken.iter().take(TOLD).try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        write!(f, "{} of {} seeds passed", self.seeds - self.failed.len() as u64, self.seeds)
    }
}

/// Runs them, side by side.
pub fn run_all(seeds: RangeInclusive<u64>) -> Summary {
    let (next, last) = (AtomicU64::new(*seeds.start()), *seeds.end());
    let summary = Mutex::new(Summary::default());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut own = Summary::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > last {
                        break;
                    }
                    own.add(seed);
                }
                summary.lock().unwrap_or_else(PoisonError::into_inner).join(own);
            });
        }
    });
    summary.into_inner().unwrap_or_else(PoisonError::into_inner)
}
