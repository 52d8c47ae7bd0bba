//! The newest complete sample, and how old it is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::sample::Sample;

/// Five samples missed: not a slow call, the driver hangs.
const STALE: Duration = Duration::from_secs(5);

/// A sample, and when its last driver call had come back.
#[derive(Debug)]
pub struct Taken {
    pub at: Instant,
    pub sample: Sample,
}

impl Taken {
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at)
    }

    pub fn is_stale(&self, now: Instant) -> bool {
        self.age(now) > STALE
    }
}

#[derive(Debug, Default)]
pub struct Board {
    newest: Mutex<Option<Arc<Taken>>>,
    said_stale: AtomicBool,
}

impl Board {
    pub fn put(&self, at: Instant, sample: Sample) {
        *self.lock() = Some(Arc::new(Taken { at, sample }));
    }

    /// Nothing before the first sample, and without NVML.
    pub fn newest(&self) -> Option<Arc<Taken>> {
        self.lock().clone()
    }

    /// Says once that the driver hangs, and once that it answers again.
    pub fn watch(&self, now: Instant) {
        let Some(newest) = self.newest() else { return };
        let stale = newest.is_stale(now);
        if self.said_stale.swap(stale, Ordering::Relaxed) == stale {
            return;
        }
        if stale {
            let age = newest.age(now).as_secs();
            tracing::warn!(
                age,
                "the NVIDIA driver does not answer: GPU values are the last known; serving goes on"
            );
        } else {
            tracing::info!("the NVIDIA driver answers again");
        }
    }

    // Held for a pointer's copy, never during a driver call.
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Taken>>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_after_more_than_five_seconds() {
        let (board, now) = (Board::default(), Instant::now());
        assert!(board.newest().is_none());
        board.put(now, Sample::default());
        let taken = board.newest().unwrap();
        assert!(!taken.is_stale(now + STALE));
        assert!(taken.is_stale(now + STALE + Duration::from_millis(1)));
        assert_eq!(taken.age(now + Duration::from_secs(2)), Duration::from_secs(2));
        board.put(now + 2 * STALE, Sample::default());
        assert!(!board.newest().unwrap().is_stale(now + 2 * STALE));
    }
}
