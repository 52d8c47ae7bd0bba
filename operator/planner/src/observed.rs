//! The snapshot that a decision is made from. Everything the planner knows is here; what could not be read is
//! `None` or marked stale, never an empty list.

use std::collections::{BTreeMap, BTreeSet};

use crds::{GpuPool, ModelDeployment};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::{Deserialize, Serialize};

mod load;

use crate::autoscaler::Memory;
use crate::plan::{GroupName, GroupSpec};
use crate::workload::Settled;

pub use load::{ModelLoad, QUEUE_DELAY_BOUNDS_MS, ReplicaLoad, Sample};

/// Namespace and name of a `ModelDeployment`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModelKey {
    pub namespace: String,
    pub name: String,
}

/// Name of a `GpuPool`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PoolName(pub String);

/// Everything a plan is made from.
#[derive(Clone, Debug)]
pub struct Observed {
    pub settings: Settings,
    pub models: BTreeMap<ModelKey, ModelObserved>,
    pub pools: BTreeMap<PoolName, GpuPool>,
    /// Labels of every namespace.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// `value` of every PriorityClass.
    pub priority_classes: BTreeMap<String, i32>,
    /// Nodes that carry the label `pinnace.dev/pool`, by provider id.
    pub nodes: BTreeMap<ProviderId, NodeObserved>,
    /// Pods of all models, and every other pod that is bound to a node of a pool (DaemonSets marked as such).
    pub pods: Vec<PodObserved>,
    /// What AWS has; `None` until it was read for the first time.
    pub cloud: Option<CloudObserved>,
    /// Why AWS could not be read, while it never was.
    pub unread: Option<CloudTrouble>,
    /// Instances that may be launched now (a token bucket the shell keeps, see `--launch-burst`).
    pub launch_tokens: u32,
    /// What replicas say of their load, of models that scale themselves.
    pub load: BTreeMap<ModelKey, ModelLoad>,
    /// Recommendations of the last plans; without them a window starts anew.
    pub memories: BTreeMap<ModelKey, Memory>,
    /// What the last plan found to be as wanted; may be empty, which costs time only.
    pub settled: BTreeMap<ModelKey, Settled>,
}

/// Operator flags that decide something. Defaults are those of production.
#[derive(Clone, Debug)]
pub struct Settings {
    /// EKS cluster name: part of every derived name and tag.
    pub cluster: String,
    pub runtime_image: String,
    /// Prefixes that a model's own `runtime.builtin.image` must start with; empty refuses none.
    pub allowed_runtime_images: Vec<String>,
    /// Environment of every runtime container (region, endpoint, unsigned reads), from operator flags.
    pub runtime_env: BTreeMap<String, String>,
    /// Namespace of the operator: the only one that may reach the admin port of runtime pods.
    pub operator_namespace: String,
    pub mutations: CloudMutations,
    /// A node stays this long after it became unneeded before it is cordoned (60 s).
    pub node_idle: SignedDuration,
    /// An empty group without an owner lives at most this long (10 min).
    pub sweep_after: SignedDuration,
    /// Time between the two "absent" answers that let a finalizer go (60 s).
    pub absent_twice: SignedDuration,
    /// What a replica said of its load counts for this long (three periods of asking, 15 s).
    pub load_max_age: SignedDuration,
    /// A cloud inventory older than this is stale: nothing shrinks on it (60 s).
    pub inventory_max_age: SignedDuration,
    /// Node groups that the cluster may hold (EKS quota, 30) and nodes a group may hold (450).
    pub group_slots: u32,
    pub group_max_nodes: u32,
    /// Nodes the operator may hold in all pools together.
    pub max_nodes: u32,
}

/// `--cloud-mutations`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloudMutations {
    All,
    GrowOnly,
    None,
}

/// A model and the objects of its own that exist.
#[derive(Clone, Debug)]
pub struct ModelObserved {
    pub spec: ModelDeployment,
    pub deployments: Vec<Deployment>,
    pub services: Vec<Service>,
    pub service_accounts: Vec<ServiceAccount>,
    pub budgets: Vec<PodDisruptionBudget>,
    pub network_policies: Vec<NetworkPolicy>,
    /// The ServiceAccount that `runtime.serviceAccountName` names, if it exists: may models use it?
    pub named_account: Option<AccountObserved>,
    /// Budgets of others that select this model's pods.
    pub foreign_budgets: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountObserved {
    pub allows_runtime: bool,
}

/// `aws:///ZONE/i-...`, the only thing by which nodes and instances are matched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProviderId(pub String);

impl ProviderId {
    /// The EC2 instance id: the last segment.
    #[must_use]
    pub fn instance_id(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct NodeObserved {
    pub name: String,
    pub pool: PoolName,
    pub ready: bool,
    pub unschedulable: bool,
    pub victim_since: Option<Timestamp>,
    pub created: Timestamp,
    pub allocatable: Allocatable,
}

/// What pods may ask of a node, or what a pod asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocatable {
    pub gpus: u32,
    pub milli_cpu: u64,
    pub memory_mib: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PodObserved {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// `None`: not a pod of ours.
    pub owner: Option<PodOwner>,
    pub daemon_set: bool,
    /// Node name, once bound.
    pub node: Option<String>,
    pub ip: Option<String>,
    pub requests: Allocatable,
    pub created: Timestamp,
    pub ready: bool,
    /// Since when it has been as ready, or not, as it is.
    pub ready_since: Option<Timestamp>,
    pub terminating: bool,
    /// Succeeded or Failed: holds nothing any more.
    pub finished: bool,
    /// The scheduler found no node.
    pub unschedulable: bool,
    /// `controller.kubernetes.io/pod-deletion-cost`; 0 when absent.
    pub deletion_cost: i32,
    /// Why a container of the pod waits or died: image pull, crash loop, OOM, or what the runtime says of its model.
    pub trouble: Option<PodTrouble>,
}

/// Which model, pool, cell and revision a pod belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodOwner {
    pub model: ModelKey,
    pub pool: PoolName,
    pub cell: u32,
    pub revision: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTrouble {
    /// `ImagePull`, `CrashLoop`, `OutOfMemory`, `ModelLoading`, `ModelNotFound`, `DigestMismatch`, ...
    pub reason: crds::Reason,
    pub message: String,
}

/// What AWS has that carries our tags, and what it sells.
#[derive(Clone, Debug, Default)]
pub struct CloudObserved {
    /// When the read that this is from began.
    pub read_at: Timestamp,
    pub groups: BTreeMap<GroupName, GroupObserved>,
    /// Node groups of the cluster in all, ours and others': the quota counts them together.
    pub group_count: u32,
    /// Our launch templates, by name.
    pub templates: BTreeMap<String, TemplateObserved>,
    /// Hardware of the instance types that pools name; a type that AWS does not know is absent.
    pub types: BTreeMap<String, InstanceType>,
    /// Zones in which a type is offered.
    pub offered: BTreeMap<String, BTreeSet<String>>,
    /// Zone of each subnet that pools name; a subnet that does not exist is absent.
    pub subnets: BTreeMap<String, String>,
    /// Types and subnets that pools name and AWS has not been asked about yet: nothing is known of them.
    pub unasked: BTreeSet<String>,
    /// Why the last read or mutation failed, if it did: the values above are then those of an earlier read.
    pub trouble: Option<CloudTrouble>,
}

/// Static classes of cloud errors; what back-off, conditions and metric labels look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CloudErrorClass {
    Throttled,
    Unavailable,
    Timeout,
    Denied,
    Quota,
    Conflict,
    NotFound,
    Invalid,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudTrouble {
    pub class: CloudErrorClass,
    /// The operation that failed and AWS's message.
    pub message: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct GroupObserved {
    pub name: GroupName,
    /// From the group's tags.
    pub owner: GroupOwner,
    pub state: GroupState,
    pub created: Timestamp,
    pub instance_type: String,
    pub subnet: String,
    pub zone: String,
    /// Absent while EKS has not made the Auto Scaling group yet.
    pub scaling: Option<ScalingObserved>,
    /// Codes and messages of EKS's health issues.
    pub issues: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOwner {
    pub pool: PoolName,
    pub pool_uid: String,
    pub shard: u32,
    pub spec_hash: String,
    /// Let go of on purpose by a pool with `Retain`.
    pub released: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    Creating,
    Active,
    Updating,
    Deleting,
    CreateFailed,
    DeleteFailed,
    Degraded,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ScalingObserved {
    pub name: String,
    pub desired: u32,
    pub max: u32,
    pub instances: Vec<InstanceObserved>,
    /// The newest launch that failed after the newest that succeeded.
    pub launch_failure: Option<LaunchFailure>,
    /// The newest order of which nothing came, see `pool::retract::note_waiting`.
    pub unfilled: Option<Unfilled>,
}

/// How long nothing came of an order: when it was first and when it was last seen waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfilled {
    pub since: Timestamp,
    pub seen: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceObserved {
    pub id: String,
    pub lifecycle: Lifecycle,
    pub protected: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    Pending,
    InService,
    Terminating,
    /// Terminated, detached, standby or unknown.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchFailure {
    pub at: Timestamp,
    pub no_capacity: bool,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateObserved {
    pub id: String,
    pub name: String,
    pub pool: PoolName,
    pub pool_uid: String,
    pub spec_hash: String,
    pub created: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceType {
    pub name: String,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub gpus: u32,
}

/// How a group would look: kept here so that tests can make one from the other.
impl GroupObserved {
    #[must_use]
    pub fn matches(&self, spec: &GroupSpec) -> bool {
        self.owner.spec_hash == spec.spec_hash
            && self.instance_type == spec.instance_type
            && self.subnet == spec.subnet
    }
}
