//! The time that one engine thread spends in its engine, a run that is under way included.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Only its thread and the snapshot of each second take the lock.
#[derive(Debug, Default)]
pub struct EngineClock {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    done: Duration,
    running_since: Option<Instant>,
}

impl EngineClock {
    pub fn begin(&self, now: Instant) {
        self.lock().running_since = Some(now);
    }

    pub fn end(&self, now: Instant) {
        let mut state = self.lock();
        if let Some(since) = state.running_since.take() {
            state.done += now.saturating_duration_since(since);
        }
    }

    /// Time in the engine up to `now`. A run of minutes, or one that never ends, counts while it lasts.
    pub fn busy(&self, now: Instant) -> Duration {
        let state = self.lock();
        let running = state
            .running_since
            .map(|since| now.saturating_duration_since(since));
        state.done + running.unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
