//! Short runs on the thread that read the request: the way to an engine's thread and back costs more than they do.
//!
//! Only while nothing waits and an engine's thread rests, so that nobody is overtaken; with engines of their own, so that no
//! thread waits for another. This is the one exception to "no engine on a thread of the reactor": [`LONGEST`] bounds it.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::admission::Permit;
use crate::engine::{Batch, Engine, Outputs};
use crate::load::{EngineClock, Load};
use crate::model::{ServedModel, warmup};
use crate::protocol::ApiError;
use crate::queue::{self, Queue};
use crate::ready::Engines;
use crate::statistics::{Phases, Statistics};
use crate::worker::{self, Done};

/// The estimated time of a run that a reactor's thread may be held up for: about what the way to an engine's thread costs
/// under load (15 to 70 us), so that other connections of the thread wait no longer than their own requests would.
pub const LONGEST: Duration = Duration::from_micros(100);

/// Rows of the larger of the two runs that are measured.
const MEASURED_ROWS: usize = 64;
/// The fastest counts: other runs were interrupted.
const MEASURED_RUNS: usize = 5;
/// No further run is measured after this time: where runs are long, an interruption weighs little.
const MEASURED_FOR: Duration = Duration::from_millis(20);

/// What runs take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// A request with its first row.
    pub request: Duration,
    /// Each further row.
    pub row: Duration,
}

impl Pace {
    /// Measures a warm engine on zeros; `None` if it does not run on them.
    pub fn measure(engine: &mut dyn Engine, model: &ServedModel) -> Option<Self> {
        let mut fastest = |rows: usize| {
            let mut fastest = Duration::MAX;
            let began = Instant::now();
            for _ in 0..MEASURED_RUNS {
                if fastest < Duration::MAX && began.elapsed() > MEASURED_FOR {
                    break;
                }
                let batch = warmup::zeros(model, rows);
                let started = Instant::now();
                engine.run(batch, &mut Outputs::default()).ok()?;
                fastest = fastest.min(started.elapsed());
            }
            Some(fastest)
        };
        let request = fastest(1)?;
        let many = fastest(MEASURED_ROWS)?;
        let further = u32::try_from(MEASURED_ROWS - 1).unwrap_or(1);
        let row = many.saturating_sub(request) / further;
        Some(Self { request, row })
    }

    /// Whether a request of one row may run at once.
    pub fn is_short(&self) -> bool {
        self.request <= LONGEST
    }

    /// The time of a run, as expected.
    pub fn of(&self, batch: &Batch) -> Duration {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        // A body may hold the lists of several users.
        let requests = self.request.saturating_mul(count(batch.lists.len().max(1)));
        requests.saturating_add(self.row.saturating_mul(count(batch.rows)))
    }
}

/// Clocks of the threads that read requests, for the time in which they run engines.
pub type Clocks = Arc<[Arc<EngineClock>]>;

/// Engines for the threads that read requests.
pub struct Inline {
    engines: Engines,
    pace: Pace,
    statistics: Arc<Statistics>,
    load: Arc<Load>,
    clocks: Clocks,
}

impl Inline {
    /// `engines` are warm, one for each thread that may run one.
    pub fn new(
        engines: Vec<Box<dyn Engine>>,
        pace: Pace,
        statistics: Arc<Statistics>,
        load: Arc<Load>,
        clocks: Clocks,
    ) -> Self {
        Self {
            engines: Engines::new(engines),
            pace,
            statistics,
            load,
            clocks,
        }
    }

    /// Runs a request that came to an empty `queue`, if that is short; else gives its batch back.
    pub fn try_run(
        &self,
        queue: &Queue,
        batch: Batch,
        (queued, deadline): (Instant, Instant),
        permit: &Arc<Permit>,
    ) -> Result<Result<Done, ApiError>, Batch> {
        // One that was admitted beyond a limit has to take the place of another first.
        if permit.is_beyond() || self.pace.of(&batch) > LONGEST || !queue.is_at_rest() {
            return Err(batch);
        }
        // As a rule each thread gets the same engine again, whose memory its cache has.
        let seat = seat();
        let clock = self.clocks.get(seat % self.clocks.len().max(1));
        let (Some(mut engine), Some(clock)) = (self.engines.try_checkout(seat), clock) else {
            return Err(batch);
        };
        // Nothing was waited for, so that this is also when the run begins.
        let waited = Duration::ZERO;
        self.load.queued(waited);
        if queued >= deadline {
            return Ok(Err(queue::too_late()));
        }
        let rows = batch.rows;
        let mut outputs = Outputs::default();
        let run = worker::timed((clock, queued), || engine.run(batch, &mut outputs));
        Ok(run.map(|ran| {
            let phases = Phases {
                infer: ran,
                ..Phases::default()
            };
            self.statistics.ran(rows, std::iter::once(waited), phases);
            Done {
                outputs,
                waited,
                phases,
                engaged: ran,
                parts: 1,
                shared_by: 1,
                permit: Arc::clone(permit),
            }
        }))
    }
}

/// A number for each thread.
fn seat() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<Option<usize>> = const { Cell::new(None) };
    }
    OWN.with(|own| {
        let seat = own.get().unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed));
        own.set(Some(seat));
        seat
    })
}

#[cfg(test)]
#[path = "inline_tests.rs"]
mod tests;
