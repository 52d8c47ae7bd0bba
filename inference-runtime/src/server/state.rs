//! What the handlers share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::admission::Admission;
use crate::inline::Inline;
use crate::load::Load;
use crate::metrics::Metrics;
use crate::model::ServedModel;
use crate::nvml::Board;
use crate::statistics::Statistics;
use crate::worker::Workers;

/// A model with its engines.
pub struct Ready {
    pub model: ServedModel,
    pub workers: Arc<Workers>,
    /// For short requests, if the engine allows it.
    pub inline: Option<Inline>,
}

/// One process's serving: at first without a model, then with one, at last draining.
pub struct Serving {
    pub model_name: String,
    pub model_version: String,
    pub admission: Arc<Admission>,
    pub load: Arc<Load>,
    pub gpus: Arc<Board>,
    pub metrics: Metrics,
    pub statistics: Arc<Statistics>,
    pub max_body_bytes: usize,
    pub body_timeout: Duration,
    pub request_timeout: Duration,
    ready: OnceLock<Ready>,
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
        Self {
            model_name: args.model_name.clone(),
            model_version: args.model_version.clone(),
            admission: Admission::new(limits),
            load: Arc::new(Load::new(&args.revision, Instant::now())),
            metrics: Metrics::new(Arc::clone(&gpus)),
            gpus,
            statistics: Arc::default(),
            max_body_bytes: args.max_body_bytes,
            body_timeout: args.body_timeout,
            request_timeout: args.request_timeout,
            ready: OnceLock::new(),
            draining: AtomicBool::new(false),
        }
    }

    /// The model, once it is loaded and warm; also while draining.
    pub fn model(&self) -> Option<&Ready> {
        self.ready.get()
    }

    pub fn set_model(&self, ready: Ready) {
        if self.ready.set(ready).is_ok() {
            self.load.model_ready(Instant::now());
            self.metrics.ready.set(1);
        }
    }

    /// Whether new requests should be sent here.
    pub fn is_ready(&self) -> bool {
        self.ready.get().is_some() && !self.is_draining()
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.metrics.ready.set(0);
    }
}
