//! The store's clock: every time in a row is its time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use commpool_model::ids::Micros;
use rustix::time::{ClockId, clock_gettime};

/// Tells the present moment.
pub type Clock = Arc<dyn Fn() -> Micros + Send + Sync>;

/// Wall clock at the call, from then on the boot-time clock: never set back, and it goes on while the machine sleeps.
pub fn system_clock() -> Clock {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let start = since_boot();
    Arc::new(move || {
        let now = wall + since_boot().saturating_sub(start);
        Micros(u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
    })
}

fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_time_of_day_and_never_goes_back() {
        let clock = system_clock();
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros();
        let told: Vec<u64> = (0..1000).map(|_| clock().0).collect();
        assert!(u128::from(told[0]).abs_diff(wall) < 10_000_000, "{} {wall}", told[0]);
        assert!(told.is_sorted() && told[999] > told[0]);
    }
}
