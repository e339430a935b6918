//! The clock of a front end: time since boot, suspended time included.

use commpool_sip::time::Moment;
use rustix::time::{ClockId, clock_gettime};

/// Now, by the boot-time clock.
pub fn now() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Moment::from_micros(seconds.saturating_mul(1_000_000) + nanos / 1000)
}
