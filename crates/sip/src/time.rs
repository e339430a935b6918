//! Points in time on a clock of the caller's.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time: microseconds of a clock that the caller chooses and that never goes back.
///
/// Nothing in this crate reads a clock; every function that needs the time takes a `Moment`. All arithmetic saturates,
/// so a moment near either end of the clock is late or early but never wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// The beginning of the clock.
    pub const ZERO: Self = Self(0);
    /// Later than everything that will happen.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment `micros` microseconds after the beginning of the clock.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the beginning of the clock.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero if `earlier` is in fact later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Whole microseconds of `duration`, the largest number if they do not fit.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Moment(5) + Duration::from_micros(7), Moment(12));
        assert_eq!(Moment(5) - Duration::from_micros(7), Moment::ZERO);
        assert_eq!(Moment(u64::MAX - 1) + Duration::from_secs(1), Moment::NEVER);
        assert_eq!(Moment(1) + Duration::MAX, Moment::NEVER);
    }

    #[test]
    fn since_is_zero_for_the_future() {
        assert_eq!(Moment(2_000_000).since(Moment(500_000)), Duration::from_millis(1500));
        assert_eq!(Moment(1).since(Moment(2)), Duration::ZERO);
    }
}
