//! `GpuPool`: what a platform team owns. One pool is many EKS node groups and is shared by many models.
//! Doc comments here are what `kubectl explain gpool` prints.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// GPU nodes of equal kind that Pinnace buys and returns as EKS node groups.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "pinnace.dev",
    version = "v1alpha1",
    kind = "GpuPool",
    cel,
    derive = "PartialEq",
    status = "GpuPoolStatus",
    shortname = "gpool",
    category = "pinnace",
    doc = "GPU nodes of equal kind that Pinnace buys and returns as EKS node groups.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.nodes.desired"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes.ready"),
    printcolumn(name = "Groups", type_ = "integer", json_path = ".status.groups"),
    printcolumn(name = "USD/h", type_ = "string", json_path = ".status.hourlyUsd"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 40").message("metadata.name: at most 40 characters, because it is a label and part of Deployment names"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name: lower case letters, digits and '-' only, because it is a label value and part of Deployment names")
)]
#[serde(rename_all = "camelCase")]
pub struct GpuPoolSpec {
    /// What the nodes are for. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("purpose: immutable; create a second pool instead"))]
    pub purpose: Purpose,
    /// EC2 instance types with equal numbers of GPUs. Each gets node groups of its own; they are tried in order of
    /// price per GPU.
    #[schemars(
        length(min = 1, max = 20),
        inner(length(min = 3, max = 32), regex(pattern = r"^[a-z0-9-]+\.[a-z0-9-]+$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub instance_types: Vec<String>,
    /// How the nodes are bought. Immutable.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("purchase: immutable; create a second pool instead"))]
    pub purchase: Purchase,
    /// Subnets for the nodes, one node group per subnet and type, so that each group lies in one zone.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 8, max = 32), regex(pattern = r"^subnet-[a-z0-9]+$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub subnet_ids: Vec<String>,
    /// Security groups of the nodes. Empty: the cluster's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 5),
        inner(length(min = 4, max = 32), regex(pattern = r"^sg-[a-z0-9]+$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub security_group_ids: Vec<String>,
    /// ARN of the IAM role of the nodes.
    #[schemars(
        length(max = 256),
        regex(pattern = r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$")
    )]
    pub node_role: String,
    /// Machine image, pinned. A changed image is a new set of node groups.
    pub image: NodeImage,
    /// Size of the root volume (gp3, encrypted), in GiB: `100Gi`.
    #[serde(default = "default_disk_size")]
    #[schemars(regex(pattern = r"^[1-9][0-9]{1,4}Gi$"), length(max = 7))]
    #[x_kube(validation = Rule::new("self.matches('^(2[0-9]|[3-9][0-9]|[1-9][0-9]{2,3}|1[0-5][0-9]{3}|16[0-2][0-9]{2}|163[0-7][0-9]|1638[0-4])Gi$')").message("diskSize: from 20Gi to 16384Gi"))]
    pub disk_size: String,
    /// KMS key (ARN or id) for the root volume. Empty: the account's default key for EBS.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub kms_key_id: String,
    /// Tags for node groups, launch templates, instances and volumes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 30), schema_with = "tag_map")]
    #[x_kube(validation = Rule::new("self.all(k, size(k) >= 1 && size(k) <= 128 && !k.startsWith('aws:') && !k.startsWith('pinnace.dev/') && !k.startsWith('eks:'))").message("tags: keys of 1 to 128 characters, not starting with aws:, eks: or pinnace.dev/"))]
    pub tags: BTreeMap<String, String>,
    /// Upper bounds.
    pub limits: Limits,
    /// What becomes of the nodes when the pool is deleted. Retain: the groups stay as they are and are orphaned; a pool
    /// of the same name with the annotation `pinnace.dev/adopt: <uid of the old pool>` takes them back.
    /// Delete: the nodes are drained and returned. Either way the deletion waits while a model refers to the pool.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// Namespaces whose models may use the pool; `{}` allows all.
    pub namespace_selector: LabelSelector,
    /// Labels of the nodes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "label_map")]
    #[x_kube(validation = Rule::new("self.all(k, size(k) >= 1 && size(k) <= 63 && !k.contains('kubernetes.io/') && !k.contains('k8s.io/') && !k.startsWith('pinnace.dev/') && !k.startsWith('eks.amazonaws.com/'))").message("labels: keys of 1 to 63 characters outside kubernetes.io, k8s.io, eks.amazonaws.com and pinnace.dev"))]
    pub labels: BTreeMap<String, String>,
    /// Taints of the nodes. The pods of models in this pool tolerate them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["key".to_string(), "effect".to_string()]))]
    pub taints: Vec<Taint>,
}

#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    Inference,
    Training,
}

#[derive(
    JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Purchase {
    #[default]
    OnDemand,
}

#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeletionPolicy {
    #[default]
    Retain,
    Delete,
}

/// Machine image of the nodes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeImage {
    /// Family of EKS images.
    pub family: ImageFamily,
    /// Release of the image, pinned: `1.34.2-20261101`. Never "latest".
    #[schemars(
        length(min = 5, max = 64),
        regex(pattern = r"^[0-9]+\.[0-9]+(\.[0-9]+)?-[0-9A-Za-z.]+$")
    )]
    pub release_version: String,
}

#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageFamily {
    Al2023Nvidia,
    BottlerocketNvidia,
}

/// Upper bounds of a pool.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Nodes that exist or are ordered, at any moment.
    #[schemars(range(min = 0, max = 13500))]
    pub max_nodes: i32,
}

/// A taint of the nodes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taint {
    #[schemars(length(min = 1, max = 63))]
    pub key: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub value: String,
    pub effect: TaintEffect,
}

#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaintEffect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

/// What was observed of a GpuPool.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GpuPoolStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Counts of nodes.
    #[serde(default)]
    pub nodes: PoolNodeCounts,
    /// Node groups that the pool owns.
    #[serde(default)]
    pub groups: i32,
    /// Price of the instances that exist, in USD an hour, as a decimal string.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hourly_usd: String,
    /// While the pool is being deleted: since when nothing of it was found in AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent_since: Option<Time>,
    /// State of each instance type in each zone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offerings: Vec<OfferingStatus>,
    /// Conditions; `Ready` is derived from the others.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
}

/// Counts of nodes.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolNodeCounts {
    /// Nodes that the pods need.
    pub desired: i32,
    /// Nodes with allocatable GPUs.
    pub ready: i32,
    /// Nodes ordered or started whose GPUs are not allocatable yet.
    pub launching: i32,
    /// Nodes that are being emptied and returned.
    pub draining: i32,
}

/// State of an instance type in a zone.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OfferingStatus {
    #[serde(rename = "type")]
    pub instance_type: String,
    pub zone: String,
    pub purchase: Purchase,
    pub state: OfferingState,
}

#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OfferingState {
    /// Nothing speaks against buying.
    Available,
    /// AWS has none to sell at present.
    NoCapacity,
    /// The type does not exist in the zone.
    NotOffered,
}

fn default_disk_size() -> String {
    "100Gi".into()
}

fn tag_map(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "maxProperties": 30, "additionalProperties": {"type": "string", "maxLength": 256}})
}

fn label_map(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "maxProperties": 30, "additionalProperties": {"type": "string", "maxLength": 63, "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"}})
}
