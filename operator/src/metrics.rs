//! Prometheus metrics. Labels are static words, and namespace and name; never error text.

use std::sync::atomic::{AtomicI64, AtomicU64};

use planner::observed::CloudErrorClass;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReconcileLabels {
    pub kind: &'static str,
    /// `quiet`, `applied`, `failed` or `waiting` (backing off).
    pub outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabels {
    pub kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CallLabels {
    pub verb: &'static str,
    /// `ok` or the class of the error.
    pub class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// `ok` or the class of the error.
    pub class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PoolLabels {
    pub pool: String,
}

#[derive(Debug)]
pub struct Metrics {
    pub registry: Registry,
    pub reconciles: Family<ReconcileLabels, Counter<u64, AtomicU64>>,
    pub reconcile_seconds: Family<KindLabels, Histogram, fn() -> Histogram>,
    pub observed_objects: Family<KindLabels, Gauge<i64, AtomicI64>>,
    pub cloud_calls: Family<CallLabels, Counter<u64, AtomicU64>>,
    pub load_reads: Family<OutcomeLabels, Counter<u64, AtomicU64>>,
    pub plan_seconds: Histogram,
    pub nodes_wanted: Family<PoolLabels, Gauge<i64, AtomicI64>>,
    pub orphaned_groups: Family<PoolLabels, Gauge<i64, AtomicI64>>,
    pub leader: Gauge<i64, AtomicI64>,
    pub inventory_age_seconds: Gauge<i64, AtomicI64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("pinnace_operator"),
            reconciles: Family::default(),
            // 1 ms (nothing to do) to 16 s.
            reconcile_seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 4.0, 8))
            }),
            observed_objects: Family::default(),
            cloud_calls: Family::default(),
            load_reads: Family::default(),
            plan_seconds: Histogram::new(exponential_buckets(0.000_1, 4.0, 8)),
            nodes_wanted: Family::default(),
            orphaned_groups: Family::default(),
            leader: Gauge::default(),
            inventory_age_seconds: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "reconciles",
            "Objects reconciled, by kind and outcome",
            metrics.reconciles.clone(),
        );
        registry.register(
            "reconcile_seconds",
            "Time to apply an object's part of the plan, by kind",
            metrics.reconcile_seconds.clone(),
        );
        registry.register(
            "observed_objects",
            "Objects of our kinds that exist",
            metrics.observed_objects.clone(),
        );
        registry.register(
            "cloud_calls",
            "Verbs sent to AWS, by verb and class",
            metrics.cloud_calls.clone(),
        );
        registry.register(
            "load_reads",
            "Replicas asked for their load, by outcome",
            metrics.load_reads.clone(),
        );
        registry.register(
            "plan_seconds",
            "Time to plan the fleet",
            metrics.plan_seconds.clone(),
        );
        registry.register(
            "nodes_wanted",
            "Nodes that pods need, by pool",
            metrics.nodes_wanted.clone(),
        );
        registry.register(
            "orphaned_node_groups",
            "Node groups with instances whose pool is gone",
            metrics.orphaned_groups.clone(),
        );
        registry.register("leader", "1 while this replica leads", metrics.leader.clone());
        registry.register(
            "inventory_age_seconds",
            "Age of what is known of AWS",
            metrics.inventory_age_seconds.clone(),
        );
        metrics
    }
}

impl Metrics {
    pub fn reconciled(&self, kind: &'static str, outcome: &'static str) {
        self.reconciles
            .get_or_create(&ReconcileLabels { kind, outcome })
            .inc();
    }

    /// `error`: its class.
    pub fn load_read(&self, error: Option<&'static str>) {
        let class = error.unwrap_or("ok");
        self.load_reads.get_or_create(&OutcomeLabels { class }).inc();
    }

    pub fn took(&self, kind: &'static str, time: std::time::Duration) {
        let seconds = self.reconcile_seconds.get_or_create(&KindLabels { kind });
        seconds.observe(time.as_secs_f64());
    }

    pub fn objects(&self, kind: &'static str, count: usize) {
        let gauge = self.observed_objects.get_or_create(&KindLabels { kind });
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub fn called(&self, verb: &'static str, error: Option<CloudErrorClass>) {
        let class = error.map_or("ok", class_name);
        self.cloud_calls.get_or_create(&CallLabels { verb, class }).inc();
    }
}

fn class_name(class: CloudErrorClass) -> &'static str {
    match class {
        CloudErrorClass::Throttled => "throttled",
        CloudErrorClass::Unavailable => "unavailable",
        CloudErrorClass::Timeout => "timeout",
        CloudErrorClass::Denied => "denied",
        CloudErrorClass::Quota => "quota",
        CloudErrorClass::Conflict => "conflict",
        CloudErrorClass::NotFound => "not_found",
        CloudErrorClass::Invalid => "invalid",
    }
}
