//! Prometheus metrics. Labels are static words and the model's name; never the text of an error.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets, linear_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::items::metrics::ItemTableMetrics;
use crate::model::ServedModel;
use crate::nvml::{Board, GpuMetrics};
use crate::trace::TraceCounts;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Labels {
    pub model: String,
    pub version: String,
    pub outcome: &'static str,
}

/// What is counted with the same [`Labels`].
#[derive(Debug)]
pub struct Counted {
    pub requests: Counter,
    pub pairs: Counter,
    pub items: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Phase {
    pub model: String,
    pub phase: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ModelLabels {
    pub model: String,
    pub version: String,
}

/// One of a model's inputs.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct InputLabels {
    pub model: String,
    pub version: String,
    pub input: String,
}

/// What became of a request that a shadow was to see too.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ShadowLabels {
    pub model: String,
    pub shadow: String,
    pub outcome: &'static str,
}

/// How a load ended: `loaded`, `unchanged`, or the reason of a failure.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LoadLabels {
    pub model: String,
    pub outcome: &'static str,
}

/// Which engine a model runs on, and the class of the reason why that is not `rank`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct EngineLabels {
    pub model: String,
    pub version: String,
    pub engine: &'static str,
    pub not_rank: &'static str,
}

pub type Seconds = Gauge<f64, std::sync::atomic::AtomicU64>;

pub struct Metrics {
    registry: Registry,
    pub requests: Family<Labels, Counter>,
    pub pairs: Family<Labels, Counter>,
    pub items: Family<Labels, Counter>,
    pub dropped: Family<ModelLabels, Counter>,
    pub replaced_ids: Family<InputLabels, Counter>,
    pub request_seconds: Histogram,
    pub queue_seconds: Histogram,
    pub compute_seconds: Histogram,
    pub batch_requests: Histogram,
    pub inline: Counter,
    pub split: Counter,
    pub load_seconds: Family<Phase, Seconds>,
    pub loads: Family<LoadLabels, Counter>,
    pub shadows: Family<ShadowLabels, Counter>,
    pub shadow_overlap: Histogram,
    pub shadow_difference: Histogram,
    pub engine: Family<EngineLabels, Gauge>,
    pub model_ready: Family<ModelLabels, Gauge>,
    /// Versions in memory, those included that only finish their last requests.
    pub in_memory: Gauge,
    pub admitted: Gauge,
    pub admitted_bytes: Gauge,
    pub waiting: Gauge,
    pub connections: Gauge,
    pub ready: Gauge,
    pub item_table: ItemTableMetrics,
    pub traces: TraceCounts,
}

/// 50 us to 13 s, each bound half as large again as the one before.
fn latency() -> Histogram {
    Histogram::new(exponential_buckets(50e-6, 1.5, 32))
}

impl Metrics {
    pub fn new(gpus: Arc<Board>) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("pinnace"),
            requests: Family::default(),
            pairs: Family::default(),
            items: Family::default(),
            dropped: Family::default(),
            replaced_ids: Family::default(),
            request_seconds: latency(),
            queue_seconds: latency(),
            compute_seconds: latency(),
            batch_requests: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            inline: Counter::default(),
            split: Counter::default(),
            load_seconds: Family::default(),
            loads: Family::default(),
            shadows: Family::default(),
            shadow_overlap: Histogram::new(linear_buckets(0.0, 0.1, 11)),
            shadow_difference: Histogram::new(exponential_buckets(1e-7, 10.0, 9)),
            engine: Family::default(),
            model_ready: Family::default(),
            in_memory: Gauge::default(),
            admitted: Gauge::default(),
            admitted_bytes: Gauge::default(),
            waiting: Gauge::default(),
            connections: Gauge::default(),
            ready: Gauge::default(),
            item_table: ItemTableMetrics::default(),
            traces: TraceCounts::default(),
        };
        metrics.register();
        metrics.register_models();
        metrics.register_shadows();
        metrics.registry.register_collector(Box::new(GpuMetrics(gpus)));
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "requests",
            "Infer requests (lists) by outcome",
            self.requests.clone(),
        );
        registry.register("pairs", "Candidates scored, by outcome", self.pairs.clone());
        registry.register("items", "Candidates returned, by outcome", self.items.clone());
        registry.register(
            "dropped_candidates",
            "Candidates left out of an answer because an output of theirs was NaN or infinity",
            self.dropped.clone(),
        );
        registry.register(
            "replaced_ids",
            "Ids outside of their vocabulary that a default row stood in for",
            self.replaced_ids.clone(),
        );
        let seconds = || Unit::Seconds;
        let time = self.request_seconds.clone();
        registry.register_with_unit(
            "request",
            "From the header read to the answer made",
            seconds(),
            time,
        );
        let time = self.queue_seconds.clone();
        registry.register_with_unit("queue", "Waiting for an engine", seconds(), time);
        let time = self.compute_seconds.clone();
        registry.register_with_unit("compute", "In the engine", seconds(), time);
        registry.register(
            "batch_requests",
            "Requests that shared a run of the engine, by request",
            self.batch_requests.clone(),
        );
        registry.register(
            "inline",
            "Requests that ran at once on the thread that read them",
            self.inline.clone(),
        );
        registry.register(
            "split",
            "Requests whose run was split into parts for several engine threads",
            self.split.clone(),
        );
        registry.register(
            "in_flight",
            "Requests admitted and not yet answered",
            self.admitted.clone(),
        );
        registry.register(
            "in_flight_bytes",
            "Bytes of their bodies",
            self.admitted_bytes.clone(),
        );
        registry.register(
            "queue_length",
            "Requests waiting for an engine",
            self.waiting.clone(),
        );
        registry.register(
            "connections",
            "Open connections on the serving port",
            self.connections.clone(),
        );
        registry.register("ready", "1 while the replica takes requests", self.ready.clone());
        registry.register(
            "traces",
            "Traces of requests, by what became of them",
            self.traces.clone(),
        );
        self.item_table.register(registry);
    }

    fn register_models(&mut self) {
        let registry = &mut self.registry;
        let time = self.load_seconds.clone();
        registry.register_with_unit("load", "Making the model ready, by phase", Unit::Seconds, time);
        registry.register("loads", "Loads of a model, by their end", self.loads.clone());
        registry.register(
            "model_ready",
            "1 for each version of each model that is served",
            self.model_ready.clone(),
        );
        registry.register(
            "versions_in_memory",
            "Versions in memory, those included that finish their last requests",
            self.in_memory.clone(),
        );
        registry.register(
            "engine_info",
            "The engine that serves the model, and the class of the reason why it is not rank",
            self.engine.clone(),
        );
    }

    fn register_shadows(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "shadow_requests",
            "Requests that a shadow was to see too, by what became of that",
            self.shadows.clone(),
        );
        registry.register(
            "shadow_overlap_ratio",
            "Share of the best candidates that a shadow ranks among the best too",
            self.shadow_overlap.clone(),
        );
        registry.register(
            "shadow_difference",
            "Largest difference of a shadow's scores in a request",
            self.shadow_difference.clone(),
        );
    }

    /// Adds how many ids of a model were replaced.
    pub fn observe_ids(&self, model: &ServedModel) {
        for (input, replaced) in model.ids.take_replaced() {
            let counter = self.replaced_ids.get_or_create(&InputLabels {
                model: model.name.clone(),
                version: model.version.clone(),
                input: input.to_owned(),
            });
            counter.inc_by(replaced);
        }
    }

    pub fn counted(&self, labels: &Labels) -> Counted {
        Counted {
            requests: self.requests.get_or_create(labels).clone(),
            pairs: self.pairs.get_or_create(labels).clone(),
            items: self.items.get_or_create(labels).clone(),
        }
    }

    /// The text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(error) => {
                tracing::error!(%error, "metrics not encoded");
                String::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let metrics = Metrics::new(Arc::default());
        let labels = Labels {
            model: "m".into(),
            version: "1".into(),
            outcome: "ok",
        };
        metrics.requests.get_or_create(&labels).inc();
        metrics
            .load_seconds
            .get_or_create(&Phase {
                model: "m".into(),
                phase: "fetch",
            })
            .set(0.5);
        let text = metrics.encode();
        for line in [
            "pinnace_requests_total{model=\"m\",version=\"1\",outcome=\"ok\"} 1",
            "pinnace_load_seconds{model=\"m\",phase=\"fetch\"} 0.5",
            "pinnace_queue_seconds_count 0",
            "pinnace_inline_total 0",
            "pinnace_split_total 0",
            "pinnace_ready 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
