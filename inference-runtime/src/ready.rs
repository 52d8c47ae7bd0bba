//! A model in one version, loaded and warm. Whoever holds it works on this version to the end, whatever is served then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use prometheus_client::metrics::gauge::Gauge;

use crate::average::Average;
use crate::engine::Engine;
use crate::inline::{Clocks, Inline, Pace};
use crate::load::Load;
use crate::metrics::Counted;
use crate::model::ServedModel;
use crate::model::digest::Digest;
use crate::model::loading::Loaded;
use crate::shadow;
use crate::statistics::Statistics;

pub struct Ready {
    /// No other model or version in this process has it.
    pub id: u64,
    pub model: ServedModel,
    pub digest: Digest,
    pub engines: Engines,
    pub statistics: Arc<Statistics>,
    /// Pairs of a part at the least, where runs are split.
    pub part: Option<usize>,
    /// For short requests, if the engine allows it.
    pub inline: Option<Inline>,
    /// The engine's time a request, and a row.
    pub request: Average,
    pub row: Average,
    pub shadowed: shadow::Counter,
    /// Of its requests that were answered: looked up with the first.
    pub answered: OnceLock<Counted>,
    in_memory: Gauge,
}

impl Ready {
    /// `in_memory` counts it until the last who holds it lets go.
    pub fn new(loaded: Loaded, digest: Digest, in_memory: Gauge) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        in_memory.inc();
        let row = Average::default();
        row.observe(loaded.row);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            model: loaded.model,
            digest,
            engines: Engines::new(loaded.engines),
            statistics: Arc::default(),
            part: loaded.part,
            inline: None,
            request: Average::default(),
            shadowed: shadow::Counter::default(),
            answered: OnceLock::new(),
            row,
            in_memory,
        }
    }

    /// Lets short requests run at once.
    pub fn with_inline(
        mut self,
        engines: Vec<Box<dyn Engine>>,
        pace: Pace,
        load: &Arc<Load>,
        clocks: &Clocks,
    ) -> Self {
        let statistics = Arc::clone(&self.statistics);
        self.inline = Some(Inline::new(
            engines,
            pace,
            statistics,
            Arc::clone(load),
            Arc::clone(clocks),
        ));
        self
    }

    /// Weight among the models of the process, at least 1.
    pub fn share(&self) -> u64 {
        u64::from(self.model.config.share.get())
    }

    /// What a run of so many rows takes of an engine, in nanoseconds.
    pub fn cost(&self, rows: usize) -> u64 {
        self.row.ns().max(1).saturating_mul(rows as u64)
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        self.in_memory.dec();
        tracing::info!(model = self.model.name, version = self.model.version, digest = %self.digest, "out of memory");
        let engines = std::mem::take(&mut self.engines);
        // Giving gigabytes back takes a while; the reactor has other things to do.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(engines));
        }
    }
}

/// Engines of one model; each run has one for itself.
#[derive(Default)]
pub struct Engines(Vec<Mutex<Box<dyn Engine>>>);

pub type Checkout<'a> = MutexGuard<'a, Box<dyn Engine>>;

impl Engines {
    pub fn new(engines: Vec<Box<dyn Engine>>) -> Self {
        Self(engines.into_iter().map(Mutex::new).collect())
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// An engine that is free: `preferred` if it can be, so that a thread finds its memory in its cache.
    pub fn try_checkout(&self, preferred: usize) -> Option<Checkout<'_>> {
        let count = self.count();
        (0..count).find_map(|step| match self.0[(preferred + step) % count].try_lock() {
            Ok(engine) => Some(engine),
            // A run that panicked is over, and engines take each batch anew.
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        })
    }

    /// An engine, as soon as one is free. `None` when there are none at all.
    pub fn checkout(&self, preferred: usize) -> Option<Checkout<'_>> {
        self.try_checkout(preferred).or_else(|| {
            let engine = self.0.get(preferred % self.count().max(1))?;
            Some(engine.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }
}

#[cfg(test)]
#[path = "ready_tests.rs"]
pub mod tests;
