//! How loaded this replica is: what the operator reads every few seconds to size its fleet.
//!
//! Requests and engines only add to counters (atomics, and one lock an engine thread that nobody else wants). Once a
//! second [`Load::advance`] takes a snapshot; a window is the difference between two snapshots. `report` words it.
//!
//! Time is an argument everywhere, so that tests need no clock.

mod engine;
mod histogram;
mod history;
mod report;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::RngExt;

pub use engine::EngineClock;
use histogram::Histogram;
use history::{History, Span};
pub use report::{QUEUE_DELAYS, Report, State};

/// How often snapshots are taken.
pub const TICK: Duration = Duration::from_secs(1);
const SHORT_SECONDS: usize = 6;
const LONG_SECONDS: usize = 60;
/// Bounds of the time in the queue, in microseconds; one more bucket takes what is longer.
const QUEUE_BOUNDS_US: [u64; QUEUE_DELAYS - 1] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
];

/// Threads that read requests and run short ones may have more to do than engines. Below this share of their time they
/// are not what limits the replica; and probes alone take a little of it.
const READING_COUNTS_PERCENT: f64 = 50.0;

#[derive(Debug)]
pub struct Load {
    /// Tells one process from the next behind the same address.
    boot_id: String,
    revision: Mutex<String>,
    started: Instant,
    offered: AtomicU64,
    refused: AtomicU64,
    answered: AtomicU64,
    queue_delays: [AtomicU64; QUEUE_DELAYS],
    latency: Histogram,
    engines: Mutex<Engines>,
    /// Of the threads that read requests: nanoseconds of all that were not spent waiting, and how many there are.
    reading_ns: AtomicU64,
    readers: AtomicUsize,
    windows: Mutex<Windows>,
}

#[derive(Debug, Default)]
struct Engines {
    clocks: Vec<Arc<EngineClock>>,
    /// Threads of their own, whose time is all that the engines have.
    threads: usize,
}

#[derive(Debug)]
struct Windows {
    rates: History<Rates>,
    details: History<Details>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rates {
    offered: u64,
    refused: u64,
    answered: u64,
}

#[derive(Clone, Debug)]
struct Details {
    queue_delays: [u64; QUEUE_DELAYS],
    latency: Vec<u64>,
    busy: Duration,
    reading: Duration,
}

impl Load {
    pub fn new(revision: &str, now: Instant) -> Self {
        let load = Self {
            boot_id: format!("{:016x}", rand::rng().random::<u64>()),
            revision: Mutex::new(revision.to_owned()),
            started: now,
            offered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            queue_delays: Default::default(),
            latency: Histogram::default(),
            engines: Mutex::default(),
            reading_ns: AtomicU64::new(0),
            readers: AtomicUsize::new(0),
            windows: Mutex::new(Windows {
                rates: History::new(LONG_SECONDS),
                details: History::new(SHORT_SECONDS),
            }),
        };
        load.advance(now);
        load
    }

    /// Another revision is served from now on.
    pub fn set_revision(&self, revision: &str) {
        revision.clone_into(&mut lock(&self.revision));
    }

    /// A request for inference has come.
    pub fn offered(&self) {
        self.offered.fetch_add(1, Ordering::Relaxed);
    }

    /// It was turned away for want of room or time, or because the model was not there yet.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// It got its scores, `latency` after it had come.
    pub fn answered(&self, latency: Duration) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.latency.observe(latency);
    }

    /// A request left the queue after `delay`, towards an engine or because its time was over.
    pub fn queued(&self, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        // A bound is inclusive to the microsecond.
        let bucket = QUEUE_BOUNDS_US.partition_point(|bound| *bound < micros);
        self.queue_delays[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// The clock of one more engine thread.
    pub fn engine(&self) -> Arc<EngineClock> {
        lock(&self.engines).threads += 1;
        self.borrowed_engine()
    }

    /// The clock of one more engine, which runs on other threads in the time that engine threads leave.
    pub fn borrowed_engine(&self) -> Arc<EngineClock> {
        let clock = Arc::new(EngineClock::default());
        lock(&self.engines).clocks.push(Arc::clone(&clock));
        clock
    }

    /// What the `threads` that read requests, and run the short ones, have spent at it since they began.
    pub fn reading(&self, busy: Duration, threads: usize) {
        let ns = u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX);
        self.reading_ns.store(ns, Ordering::Relaxed);
        self.readers.store(threads, Ordering::Relaxed);
    }

    /// Windows begin anew when the model becomes ready: what came before says nothing about its load.
    pub fn model_ready(&self, now: Instant) {
        let mut windows = lock(&self.windows);
        windows.rates.clear();
        windows.details.clear();
        drop(windows);
        self.advance(now);
    }

    /// To be called once a [`TICK`].
    pub fn advance(&self, now: Instant) {
        let (rates, details) = (self.rates(), self.details(now));
        let mut windows = lock(&self.windows);
        windows.rates.push(now, rates);
        windows.details.push(now, details);
    }

    /// What `/load` answers.
    pub fn report(&self, state: &State<'_>, now: Instant) -> Report {
        let windows = lock(&self.windows);
        let short = windows.rates.span(SHORT_SECONDS, now, || self.rates());
        let long = windows.rates.span(LONG_SECONDS, now, || self.rates());
        let details = windows.details.span(SHORT_SECONDS, now, || self.details(now));
        drop(windows);
        report::report(self, [&short, &long], &details, state, now)
    }

    fn rates(&self) -> Rates {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Rates {
            offered: read(&self.offered),
            refused: read(&self.refused),
            answered: read(&self.answered),
        }
    }

    fn details(&self, now: Instant) -> Details {
        let mut queue_delays = [0; QUEUE_DELAYS];
        for (count, bucket) in queue_delays.iter_mut().zip(&self.queue_delays) {
            *count = bucket.load(Ordering::Relaxed);
        }
        let engines = lock(&self.engines);
        let busy = engines.clocks.iter().map(|engine| engine.busy(now)).sum();
        drop(engines);
        Details {
            queue_delays,
            latency: self.latency.snapshot(),
            busy,
            reading: Duration::from_nanos(self.reading_ns.load(Ordering::Relaxed)),
        }
    }

    /// Engine threads, and those that read requests.
    fn threads(&self) -> [usize; 2] {
        [lock(&self.engines).threads, self.readers.load(Ordering::Relaxed)]
    }
}

impl Span<Details> {
    fn queue_delays(&self) -> [u64; QUEUE_DELAYS] {
        std::array::from_fn(|i| self.end.queue_delays[i].saturating_sub(self.begin.queue_delays[i]))
    }

    fn p99(&self) -> Option<Duration> {
        histogram::quantile(&self.begin.latency, &self.end.latency, 0.99)
    }

    /// Share of the time of the `engines` threads, 0 to 100, or of the `readers`; unknown while there is no engine.
    fn busy_percent(&self, [engines, readers]: [usize; 2]) -> Option<f64> {
        let share = |begin: Duration, end: Duration, threads: usize| {
            let busy = end.saturating_sub(begin).as_secs_f64();
            (100.0 * busy / (self.seconds * threads.max(1) as f64)).min(100.0)
        };
        let engine = share(self.begin.busy, self.end.busy, engines);
        let reading = share(self.begin.reading, self.end.reading, readers);
        let busy = if reading >= READING_COUNTS_PERCENT {
            engine.max(reading)
        } else {
            engine
        };
        (engines > 0).then_some(busy)
    }
}

// A panic while the lock was held cannot leave half a snapshot: each is pushed whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
