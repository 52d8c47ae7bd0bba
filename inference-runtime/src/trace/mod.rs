//! Traces of requests for an OpenTelemetry collector (OTLP over HTTP), if one is named.
//!
//! The threads that serve a request only note times. Its spans are made (`spans`) and sent (`export`) by a thread of their
//! own, behind a bounded queue: while a collector is slow or gone, traces are dropped and counted, and no request notices.

mod export;
mod spans;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, StatusCode};
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use rand::RngExt;
use tokio::sync::mpsc;

use crate::priority::Priority;
use crate::statistics::Phases;

pub use export::{Exporter, StartError, start};

/// What became of traces: `sent`, `dropped_queue` (too many waited) or `dropped_collector` (it did not take them).
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct TraceLabels {
    pub outcome: &'static str,
}

pub type TraceCounts = Family<TraceLabels, Counter>;

fn count(counts: &TraceCounts, outcome: &'static str, traces: usize) {
    counts
        .get_or_create(&TraceLabels { outcome })
        .inc_by(traces as u64);
}

/// Which way a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Http,
    Grpc,
}

/// A request that is traced, while it is served.
pub struct Trace {
    door: Door,
    /// The client's span; not valid if the request names none.
    parent: SpanContext,
    /// The same moment twice: spans have the time of day, and their lengths come from a clock that nobody sets.
    at: SystemTime,
    started: Instant,
    priority: OnceLock<Priority>,
    /// In order: a cascade's request has two.
    runs: [OnceLock<Run>; 2],
}

impl Trace {
    /// The request is parsed.
    pub fn asks(&self, priority: Priority) {
        let _ = self.priority.set(priority);
    }

    /// An engine has run it.
    pub fn ran(&self, run: Run) {
        let [first, second] = &self.runs;
        let _ = first.set(run).or_else(|run| second.set(run));
    }

    fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter_map(OnceLock::get)
    }
}

/// Where the time of a request went in a run, and how many requests shared it.
#[derive(Clone, Debug)]
pub struct Run {
    pub model: String,
    pub queued: Instant,
    pub waited: Duration,
    pub phases: Phases,
    pub shared_by: u32,
}

/// A request that is answered. It holds no model, only its name: it may wait for a collector longer than the model is served.
pub struct Ended {
    pub trace: Arc<Trace>,
    pub took: Duration,
    pub model: String,
    pub version: String,
    pub outcome: &'static str,
    pub status: StatusCode,
    pub pairs: u64,
    pub items: u64,
}

/// Where requests are traced.
pub struct Traces {
    /// Of requests whose client has not decided.
    share: f64,
    ended: mpsc::Sender<Ended>,
    counts: TraceCounts,
}

impl Traces {
    /// Begins the trace of a request, if it is to have one: as its `traceparent` says, else by chance.
    pub fn begin(&self, door: Door, headers: &HeaderMap, started: Instant) -> Option<Arc<Trace>> {
        let parent = parent(headers);
        let sampled = if parent.is_valid() {
            parent.is_sampled()
        } else {
            rand::rng().random_bool(self.share)
        };
        sampled.then(|| {
            Arc::new(Trace {
                door,
                parent,
                at: SystemTime::now(),
                started,
                priority: OnceLock::new(),
                runs: Default::default(),
            })
        })
    }

    /// Never waits.
    pub fn end(&self, ended: Ended) {
        if self.ended.try_send(ended).is_err() {
            count(&self.counts, "dropped_queue", 1);
        }
    }
}

/// The client's span as W3C has it; what is no `traceparent` counts as none.
fn parent(headers: &HeaderMap) -> SpanContext {
    let named =
        TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers));
    named.span().span_context().clone()
}

#[cfg(test)]
mod tests;
