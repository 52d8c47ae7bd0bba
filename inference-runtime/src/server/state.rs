//! What the handlers share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::HeaderMap;

use crate::admission::Admission;
use crate::cascade;
use crate::catalog::Catalog;
use crate::inline::Clocks;
use crate::load::Load;
use crate::metrics::Metrics;
use crate::nvml::Board;
use crate::queue::Queue;
use crate::trace::{Door, Trace, Traces};

/// One process's serving: at first without a model, then with some, at last draining.
pub struct Serving {
    pub catalog: Catalog,
    pub queue: Arc<Queue>,
    /// Of the threads that read requests.
    pub reader_clocks: Clocks,
    pub admission: Arc<Admission>,
    pub load: Arc<Load>,
    pub gpus: Arc<Board>,
    pub metrics: Metrics,
    /// If there is a collector.
    pub traces: Option<Traces>,
    pub max_body_bytes: usize,
    pub body_timeout: Duration,
    pub request_timeout: Duration,
    /// Models without which the replica is not ready; known once the repository was read.
    required: OnceLock<Vec<String>>,
    draining: AtomicBool,
}

impl Serving {
    pub fn new(args: &crate::args::Serve) -> Self {
        let workers = args.worker_count();
        let limits = crate::admission::Limits {
            requests: args.max_queue,
            bytes: args.max_queue_bytes,
            workers,
        };
        let gpus = Arc::new(Board::default());
        let load = Arc::new(Load::new(&args.revision, Instant::now()));
        Self {
            reader_clocks: (0..workers).map(|_| load.borrowed_engine()).collect(),
            catalog: Catalog::default(),
            queue: Arc::new(Queue::new(workers)),
            admission: Admission::new(limits),
            load,
            metrics: Metrics::new(Arc::clone(&gpus)),
            gpus,
            traces: None,
            max_body_bytes: args.max_body_bytes,
            body_timeout: args.body_timeout,
            request_timeout: args.request_timeout,
            required: OnceLock::new(),
            draining: AtomicBool::new(false),
        }
    }

    /// Says without which models the replica is not ready.
    pub fn require(&self, models: Vec<String>) {
        let _ = self.required.set(models);
    }

    /// Begins the trace of a request, if it is to have one.
    pub fn trace(&self, door: Door, headers: &HeaderMap, started: Instant) -> Option<Arc<Trace>> {
        self.traces.as_ref()?.begin(door, headers, started)
    }

    /// Whether new requests should be sent here.
    pub fn is_ready(&self) -> bool {
        let required = self.required.get();
        !self.is_draining()
            && required.is_some_and(|models| {
                self.catalog.all_ready(models) && cascade::all_fed(&self.catalog, models)
            })
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}
