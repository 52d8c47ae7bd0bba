//! A moving average that threads update without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Weight 1/16: follows a change within some dozens of values, and one outlier does not spoil it.
const WEIGHT: u64 = 16;

/// In nanoseconds; 0 until there is a value.
#[derive(Debug, Default)]
pub struct Average(AtomicU64);

impl Average {
    pub fn observe(&self, value: Duration) {
        let new = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX / WEIGHT);
        // Lost updates between workers only slow the average a little.
        let old = self.ns();
        let average = if old == 0 {
            new
        } else {
            old - old / WEIGHT + new / WEIGHT
        };
        self.0.store(average, Ordering::Relaxed);
    }

    pub fn ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn get(&self) -> Duration {
        Duration::from_nanos(self.ns())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_as_it_is_then_a_sixteenth_of_each() {
        let average = Average::default();
        assert_eq!(average.ns(), 0);
        average.observe(Duration::from_nanos(1600));
        assert_eq!(average.ns(), 1600);
        average.observe(Duration::from_nanos(16_000));
        assert_eq!(average.ns(), 2500);
    }
}
