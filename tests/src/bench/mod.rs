//! Figures beside a peer: a closed loop of clients against ours and Debian's Kamailio in turn.
//!
//! The figure to hold on to is processor time of the server for 1,000 operations: throughput and latency of a shared
//! machine are noise. Ours and the peer run one after the other, several rounds, each on a fresh process.

pub mod calls;
pub mod cluster;
pub mod directory;
pub mod idle;
pub mod kamailio;
pub mod load;
pub mod report;
pub mod subject;
pub mod wire;

use std::time::Duration;

/// What one run of a load showed.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Processor seconds of the server's processes for 1,000 operations.
    pub cpu_per_thousand: f64,
    /// What of it the database server spent.
    pub database: f64,
    /// Operations a second.
    pub rate: f64,
    /// Median latency.
    pub median: Duration,
    /// Latency that one in a hundred operations exceeds.
    pub slow: Duration,
    /// Operations that failed.
    pub failed: u64,
    /// Processor seconds of the generator for 1,000 operations.
    pub generator: f64,
}

/// Median of some figures, with the least and the most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Least.
    pub least: f64,
    /// Most.
    pub most: f64,
}

impl Spread {
    /// Spread of figures; `None` of none.
    #[must_use]
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            *sorted.get(middle)?
        } else {
            f64::midpoint(*sorted.get(middle - 1)?, *sorted.get(middle)?)
        };
        Some(Self { median, least, most })
    }
}

/// A spread in words; one figure stands alone.
fn spread(figures: impl Iterator<Item = f64>) -> String {
    match Spread::of(figures) {
        Some(one) if one.least == one.most => format!("{:.1}", one.median),
        Some(many) => format!("{:.1} ({:.1}–{:.1})", many.median, many.least, many.most),
        None => "–".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn the_middle_of_odd_and_even() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, most: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { median: 2.5, least: 1.0, most: 4.0 }));
        assert_eq!(Spread::of([]), None);
    }
}
