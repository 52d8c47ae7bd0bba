//! `ModelDeployment`: what a model team owns. Doc comments here are what `kubectl explain mdep` prints.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::autoscaling::{Autoscaling, AutoscalingStatus};

/// A recommendation model served on GPU nodes that Pinnace buys and returns.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "pinnace.dev",
    version = "v1alpha1",
    kind = "ModelDeployment",
    namespaced,
    cel,
    derive = "PartialEq",
    status = "ModelDeploymentStatus",
    shortname = "mdep",
    category = "pinnace",
    doc = "A recommendation model served on GPU nodes that Pinnace buys and returns.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas.current",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.replicas.desired"),
    printcolumn(name = "Ready-Replicas", type_ = "integer", json_path = ".status.replicas.ready"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes.ready"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.model.version"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 40").message("metadata.name: at most 40 characters, because the names of Deployments and Services are built from it"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name: a lower case letter, then lower case letters, digits and '-', because the Service has the same name")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.replicas) != has(self.autoscaling)").message("spec: exactly one of replicas and autoscaling must be set; with autoscaling, change minReplicas and maxReplicas"))]
pub struct ModelDeploymentSpec {
    /// PriorityClass of the pods; its value is also the order in which models get GPUs when there are too few.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub priority_class_name: Option<String>,
    /// The model to serve.
    pub model: Model,
    /// How each replica runs. Default: the built-in runtime with one GPU.
    #[serde(default)]
    pub runtime: Runtime,
    /// Number of replicas. `kubectl scale` and HPA change this field. Exactly one of `replicas` and `autoscaling` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 20000))]
    pub replicas: Option<i32>,
    /// Lets the number of replicas follow the load. Exactly one of `replicas` and `autoscaling` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// Pools that may hold replicas, in order of preference: the first with room is used first.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["pool".to_string()]))]
    pub placement: Vec<Placement>,
    /// How a changed model or runtime reaches the replicas.
    #[serde(default)]
    pub rollout: Rollout,
}

/// The model to serve. A changed model is a new revision and rolls through `rollout`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// Where the model is: a folder (`config.yaml`, `model.onnx`, `manifest.json`) or a single `.onnx` file,
    /// as `s3://bucket/path`, `https://host/path` or `file:///path` (a path inside the runtime image).
    #[schemars(length(min = 8, max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^(s3|https|file)://[^ ]+$')").message("model.uri: must start with s3://, https:// or file://"))]
    pub uri: String,
    /// Version of the model, shown to people. It does not by itself select what is loaded: `uri` does.
    #[schemars(
        length(min = 1, max = 64),
        regex(pattern = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
    )]
    pub version: String,
    /// `sha256:<64 hex digits>` of the folder's `manifest.json`, or of the file. Verified before the model is loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^sha256:[0-9a-f]{64}$"), length(max = 71))]
    pub digest: Option<String>,
}

/// How each replica runs.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Runtime {
    /// The inference runtime that comes with Pinnace.
    #[serde(default)]
    pub builtin: Builtin,
    /// ServiceAccount of the pods, for models in private buckets (IRSA, Pod Identity). It must carry the label
    /// `pinnace.dev/allow-runtime: "true"`. Default: an account of this model's own, without any rights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub service_account_name: Option<String>,
    /// Secrets for pulling the image, by name, in this namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub image_pull_secrets: Vec<SecretName>,
    /// What each replica asks for.
    #[serde(default)]
    pub resources: Resources,
    /// How long a replica may take from start to ready (download and warm-up included) before it is restarted.
    #[serde(default = "default_startup_timeout")]
    #[schemars(regex(pattern = DURATION), length(max = 16))]
    pub startup_timeout: String,
    /// How long a replica that is told to stop may finish what it has accepted.
    #[serde(default = "default_drain_timeout")]
    #[schemars(regex(pattern = DURATION), length(max = 16))]
    pub drain_timeout: String,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            builtin: Builtin::default(),
            service_account_name: None,
            image_pull_secrets: vec![],
            resources: Resources::default(),
            startup_timeout: default_startup_timeout(),
            drain_timeout: default_drain_timeout(),
        }
    }
}

/// The inference runtime that comes with Pinnace.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Builtin {
    /// Image of the runtime. Default: the operator's, resolved once per revision and kept from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Requests that a replica holds, running and waiting, before it refuses more (429). Default: 4096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_queue: Option<i32>,
}

/// Name of a Secret in the namespace of the model.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretName {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What each replica asks for. CPU and memory are requests, memory is also the limit.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// GPUs (`nvidia.com/gpu`).
    #[serde(default = "default_gpus")]
    #[schemars(range(min = 1, max = 16))]
    pub gpus: i32,
    /// CPU, as a Kubernetes quantity: `3` or `250m`.
    #[serde(default = "default_cpu")]
    #[schemars(regex(pattern = r"^([1-9][0-9]{0,3}|[1-9][0-9]{0,6}m)$"), length(max = 8))]
    pub cpu: String,
    /// Memory, as a Kubernetes quantity in Mi or Gi: `12Gi`.
    #[serde(default = "default_memory")]
    #[schemars(regex(pattern = r"^[1-9][0-9]{0,6}(Mi|Gi)$"), length(max = 9))]
    pub memory: String,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            gpus: default_gpus(),
            cpu: default_cpu(),
            memory: default_memory(),
        }
    }
}

/// One pool that may hold replicas.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Name of a GpuPool with `purpose: Inference`.
    #[schemars(
        length(min = 1, max = 40),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub pool: String,
    /// At most this many replicas in this pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 20000))]
    pub max_replicas: Option<i32>,
}

/// How a changed model or runtime reaches the replicas.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(self.maxSurge in ['0', '0%'] && self.maxUnavailable in ['0', '0%'])").message("rollout: maxSurge and maxUnavailable cannot both be 0"))]
pub struct Rollout {
    /// Rolling: replicas are replaced a few at a time.
    #[serde(default)]
    pub strategy: Strategy,
    /// Replicas above `replicas` during a roll: a count or a percentage, rounded up. Falls to 0 by itself when the
    /// pools are full.
    #[serde(default = "default_max_surge")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}|(100|[0-9]{1,2})%)$"), length(max = 5))]
    pub max_surge: String,
    /// Replicas that may be missing during a roll or an eviction: a count or a percentage, rounded down (never below 1
    /// where `maxSurge` has fallen to 0).
    #[serde(default = "default_max_unavailable")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}|(100|[0-9]{1,2})%)$"), length(max = 5))]
    pub max_unavailable: String,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            strategy: Strategy::Rolling,
            max_surge: default_max_surge(),
            max_unavailable: default_max_unavailable(),
        }
    }
}

#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    #[default]
    Rolling,
}

/// What was observed of a ModelDeployment.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelDeploymentStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Label selector of the pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// Counts of replicas.
    #[serde(default)]
    pub replicas: ReplicaCounts,
    /// Nodes that hold replicas of this model, and those wanted for it.
    #[serde(default)]
    pub nodes: NodeCounts,
    /// What the metrics of `spec.autoscaling` ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingStatus>,
    /// Replicas assigned to each pool of the placement.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub assigned: BTreeMap<String, i32>,
    /// Conditions; `Ready` is derived from the others.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
}

/// Counts of replicas.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaCounts {
    /// Pods that exist and are not terminating.
    pub current: i32,
    /// Replicas that the spec, or the autoscaling, asks for.
    pub desired: i32,
    /// Pods that serve.
    pub ready: i32,
    /// Pods of the newest revision.
    pub updated: i32,
    /// Pods that wait for a node.
    pub unschedulable: i32,
}

/// Nodes that hold replicas of this model, and those wanted for it.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeCounts {
    pub desired: i32,
    pub ready: i32,
}

/// Durations are whole numbers with one unit: `500ms`, `60s`, `10m`, `2h`.
pub const DURATION: &str = "^(0s|[1-9][0-9]{0,6}(ms|s|m|h))$";

fn default_startup_timeout() -> String {
    "10m".into()
}
fn default_drain_timeout() -> String {
    "60s".into()
}
fn default_gpus() -> i32 {
    1
}
/// g5.xlarge has 3,920m CPU and 14,162Mi allocatable; this leaves room for DaemonSets.
fn default_cpu() -> String {
    "3".into()
}
fn default_memory() -> String {
    "12Gi".into()
}
fn default_max_surge() -> String {
    "2%".into()
}
fn default_max_unavailable() -> String {
    "1%".into()
}
