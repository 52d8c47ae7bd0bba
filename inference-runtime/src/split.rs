//! Large runs in parts: engine threads that rest score pairs of a run that another one has begun.
//!
//! Whoever began the run scores its parts in order; a thread that has nothing else to do takes the next one, and the next,
//! and leaves as soon as a request waits. So nobody waits for a thread that is slow to wake, and a request never for more
//! than one part of another. Inputs are shared, and what belongs to the run's requests is computed once.

use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::{Begun, Engine, Outputs, merge};
use crate::inline::Pace;
use crate::load::EngineClock;
use crate::protocol::ApiError;
use crate::queue::Run;
use crate::worker;

/// What a part takes at the least, as planned: more than the way to another thread costs (15 to 70 us). Not much more,
/// because a request that comes meanwhile may wait for the end of a part.
const LEAST: Duration = Duration::from_micros(100);

/// Pairs of a part at the least; `None` if the engine's runs are not split.
pub fn least(engine: &mut dyn Engine, pace: Option<Pace>) -> Option<usize> {
    let row = pace?.row.as_nanos().max(1);
    let rows = usize::try_from(LEAST.as_nanos().div_ceil(row)).unwrap_or(usize::MAX);
    Some(engine.divisible()?.least().max(rows))
}

/// How many parts `threads` threads make of so many pairs: as many as have at least `least`, and the same number for each
/// thread if there is one for each.
pub fn parts(rows: usize, least: usize, threads: usize) -> usize {
    let most = rows / least.max(1);
    if most < threads {
        most
    } else {
        most / threads.max(1) * threads
    }
}

/// A run that is scored in parts.
pub struct Split {
    begun: Box<dyn Begun>,
    run: Run,
    parts: Vec<Range<usize>>,
    state: Mutex<State>,
    ended: Condvar,
}

struct State {
    /// The next part that nobody has taken.
    next: usize,
    /// Parts under way.
    running: usize,
    /// What came of each part.
    scored: Vec<Outputs>,
    /// The first part that failed.
    failed: Option<(usize, ApiError)>,
    engaged: Duration,
}

impl Split {
    /// Of `rows` pairs, in `count` parts, at least one.
    pub fn new(begun: Box<dyn Begun>, run: Run, rows: usize, count: usize) -> Self {
        let start = |part: usize| part * rows / count;
        Self {
            begun,
            run,
            parts: (0..count).map(|part| start(part)..start(part + 1)).collect(),
            state: Mutex::new(State {
                next: 0,
                running: 0,
                scored: vec![Outputs::default(); count],
                failed: None,
                engaged: Duration::ZERO,
            }),
            ended: Condvar::new(),
        }
    }

    /// What a thread that scores parts of it has taken.
    pub fn run(&self) -> Run {
        self.run
    }

    /// Whether there are parts that nobody has taken.
    pub fn has_parts(&self) -> bool {
        self.lock().next < self.parts.len()
    }

    /// Scores parts until there are no more, or after one of which `leaves` says so.
    pub fn work(&self, clock: &EngineClock, leaves: impl Fn() -> bool) {
        while let Some(part) = self.take() {
            let mut outputs = Outputs::default();
            let pairs = self.parts[part].clone();
            let scored = worker::timed((clock, Instant::now()), || self.begun.part(pairs, &mut outputs));
            self.end(part, scored.map(|took| (outputs, took)));
            if leaves() {
                return;
            }
        }
    }

    fn take(&self) -> Option<usize> {
        let mut state = self.lock();
        let part = (state.next < self.parts.len()).then_some(state.next)?;
        state.next += 1;
        state.running += 1;
        Some(part)
    }

    fn end(&self, part: usize, scored: Result<(Outputs, Duration), ApiError>) {
        let mut state = self.lock();
        state.running -= 1;
        match scored {
            Ok((outputs, took)) => {
                state.scored[part] = outputs;
                state.engaged += took;
            }
            Err(error) => {
                // Those before it were taken before it: so the error is the one that the whole run would have.
                if state.failed.as_ref().is_none_or(|(first, _)| part < *first) {
                    state.failed = Some((part, error));
                }
                state.next = self.parts.len();
            }
        }
        self.ended.notify_all();
    }

    /// Waits for the parts under way; gives all outputs in order, and the time of all engines.
    pub fn finish(&self) -> Result<(Outputs, Duration), ApiError> {
        let mut state = self.lock();
        while state.running > 0 {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some((_, error)) = state.failed.take() {
            return Err(error);
        }
        let whole = merge::concat(std::mem::take(&mut state.scored));
        let whole = whole.ok_or_else(|| ApiError::internal("parts of a run have outputs of other shapes"))?;
        Ok((whole, state.engaged))
    }

    // Parts run outside of the lock, and panics of theirs are caught.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
