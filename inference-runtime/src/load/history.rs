//! Snapshots of the last seconds.

use std::collections::VecDeque;
use std::time::Instant;

#[derive(Debug)]
pub struct History<T> {
    /// One more than the longest window has seconds: its begin and its end.
    capacity: usize,
    snapshots: VecDeque<(Instant, T)>,
}

/// Two snapshots, and how far apart they are.
#[derive(Debug)]
pub struct Span<T> {
    pub begin: T,
    pub end: T,
    pub seconds: f64,
}

impl<T: Clone> History<T> {
    pub fn new(seconds: usize) -> Self {
        let capacity = seconds + 1;
        Self {
            capacity,
            snapshots: VecDeque::with_capacity(capacity),
        }
    }

    pub fn clear(&mut self) {
        self.snapshots.clear();
    }

    pub fn push(&mut self, now: Instant, snapshot: T) {
        if self.snapshots.len() == self.capacity {
            self.snapshots.pop_front();
        }
        self.snapshots.push_back((now, snapshot));
    }

    /// The window that ends with the newest snapshot and begins `ticks` before it, or at the first one.
    ///
    /// The seconds are measured, not counted: ticks may come late on a busy machine. In the first second there is no
    /// window yet; then it ends `live`, now, and counts as a whole second: a request in the first millisecond is not
    /// a rate of a thousand a second.
    pub fn span(&self, ticks: usize, now: Instant, live: impl Fn() -> T) -> Span<T> {
        let newest = self.snapshots.len().saturating_sub(1);
        let begin = self.snapshots.get(newest.saturating_sub(ticks));
        let end = self.snapshots.back().filter(|_| newest > 0);
        let (end_at, end) = end.cloned().unwrap_or_else(|| (now, live()));
        let (begin_at, begin) = begin.cloned().unwrap_or_else(|| (now, live()));
        let seconds = end_at.saturating_duration_since(begin_at).as_secs_f64().max(1.0);
        Span { begin, end, seconds }
    }
}
