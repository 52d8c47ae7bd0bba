//! `spec.autoscaling` of a `ModelDeployment`. Doc comments here are what `kubectl explain mdep.spec.autoscaling` prints.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model_deployment::DURATION;

/// How the number of replicas follows the load. Every metric asks for a number of replicas; the largest wins.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.minReplicas <= self.maxReplicas").message("autoscaling: minReplicas must not be above maxReplicas"))]
pub struct Autoscaling {
    /// Never fewer replicas than these.
    #[schemars(range(min = 1, max = 20000))]
    pub min_replicas: i32,
    /// Never more replicas than these.
    #[schemars(range(min = 1, max = 20000))]
    pub max_replicas: i32,
    /// What the number of replicas follows.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub metrics: Vec<Metric>,
    /// How long a recommendation must stand before it is followed.
    #[serde(default)]
    pub stabilization: Stabilization,
}

/// One metric; the settings of its type stand in the field of the same name.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.type == 'RequestRate') == has(self.requestRate)").message("metrics: requestRate must be set for type RequestRate, and for no other"))]
#[x_kube(validation = Rule::new("(self.type == 'QueueDelay') == has(self.queueDelay)").message("metrics: queueDelay must be set for type QueueDelay, and for no other"))]
#[x_kube(validation = Rule::new("(self.type == 'GpuUtilization') == has(self.gpuUtilization)").message("metrics: gpuUtilization must be set for type GpuUtilization, and for no other"))]
pub struct Metric {
    /// Name of the metric, for people and for the status.
    #[schemars(
        length(min = 1, max = 40),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// RequestRate, QueueDelay or GpuUtilization.
    #[serde(rename = "type")]
    pub type_: MetricType,
    /// Settings of type RequestRate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_rate: Option<RequestRate>,
    /// Settings of type QueueDelay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_delay: Option<QueueDelay>,
    /// Settings of type GpuUtilization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_utilization: Option<GpuUtilization>,
}

#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetricType {
    RequestRate,
    QueueDelay,
    GpuUtilization,
}

/// Requests a second that were offered, refused ones included.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestRate {
    /// Requests a second that one replica is to get.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub target_per_replica: i32,
}

/// Time that requests wait before they are scored: the 95th percentile over all replicas. It is not proportional to
/// the number of replicas, so it moves that number in small steps.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueDelay {
    /// The delay to stay under: `5ms`, `1s`.
    #[schemars(regex(pattern = DURATION), length(max = 16))]
    #[x_kube(validation = Rule::new("self != '0s'").message("queueDelay.target: must be above 0s"))]
    pub target: String,
}

/// Share of time in which the GPU ran anything (NVML), as the mean over ready replicas. It raises the number of replicas
/// only while requests or the queue rise too: a stuck GPU shows 100 % without any load.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GpuUtilization {
    /// Percent to stay at.
    #[schemars(range(min = 1, max = 100))]
    pub target_percent: i32,
}

/// How long a recommendation must stand before it is followed.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stabilization {
    /// Replicas are added when all recommendations of this time are above their number.
    #[serde(default = "default_up")]
    #[schemars(regex(pattern = DURATION), length(max = 16))]
    pub scale_up: String,
    /// Replicas are taken away down to the highest recommendation of this time.
    #[serde(default = "default_down")]
    #[schemars(regex(pattern = DURATION), length(max = 16))]
    pub scale_down: String,
}

impl Default for Stabilization {
    fn default() -> Self {
        Self {
            scale_up: default_up(),
            scale_down: default_down(),
        }
    }
}

/// What the metrics ask for, when the status was written.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalingStatus {
    /// Replicas that each metric asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub recommendations: Vec<Recommendation>,
}

/// What one metric asks for.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recommendation {
    /// Name of the metric.
    pub metric: String,
    /// Replicas; absent while the metric cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
}

fn default_up() -> String {
    "0s".into()
}
fn default_down() -> String {
    "5m".into()
}
