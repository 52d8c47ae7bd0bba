//! How fast nodes may be bought: a token bucket, one token an instance, over all pools.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

#[derive(Debug)]
pub struct LaunchBucket {
    burst: f64,
    per_second: f64,
    state: Mutex<(f64, Instant)>,
}

impl LaunchBucket {
    #[must_use]
    pub fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        let burst = f64::from(burst);
        Self {
            burst,
            per_second: f64::from(per_second),
            state: Mutex::new((burst, now)),
        }
    }

    /// Whole tokens that are there now.
    #[must_use]
    pub fn available(&self, now: Instant) -> u32 {
        self.refilled(now).0 as u32
    }

    /// Takes `count` tokens; a bucket that holds fewer is empty afterwards.
    pub fn take(&self, count: u32, now: Instant) {
        let mut state = self.refilled(now);
        state.0 = (state.0 - f64::from(count)).max(0.0);
    }

    fn refilled(&self, now: Instant) -> MutexGuard<'_, (f64, Instant)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_duration_since(state.1).as_secs_f64();
        *state = ((state.0 + elapsed * self.per_second).min(self.burst), now);
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_bucket_refills_up_to_its_burst() {
        let t0 = Instant::now();
        let bucket = LaunchBucket::new(10, 2, t0);
        assert_eq!(bucket.available(t0), 10);
        bucket.take(9, t0);
        assert_eq!(bucket.available(t0), 1);
        assert_eq!(bucket.available(t0 + Duration::from_secs(2)), 5);
        bucket.take(50, t0 + Duration::from_secs(2));
        assert_eq!(bucket.available(t0 + Duration::from_secs(2)), 0);
        assert_eq!(bucket.available(t0 + Duration::from_secs(60)), 10);
    }
}
