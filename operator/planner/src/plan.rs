//! What to do. A plan leaves the executor no choice: Kubernetes objects are desired state (server-side apply), AWS is
//! a list of absolute actions, and waiting is a value: `next_check` with a typed reason.

use std::collections::BTreeMap;

use crds::condition::WantedCondition;
use crds::gpu_pool::{ImageFamily, Purchase, Taint};
use crds::{GpuPoolStatus, ModelDeploymentStatus, Reason};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::autoscaler::Decision;
use crate::observed::{ModelKey, PodObserved, PoolName};
use crate::workload::Settled;

/// The plan of everything, made at one moment from one snapshot.
#[derive(Clone, Debug, Default)]
pub struct FleetPlan {
    pub models: BTreeMap<ModelKey, ModelPlan>,
    pub pools: BTreeMap<PoolName, PoolPlan>,
    /// What no living pool is responsible for: empty groups and templates of ours to sweep, orphans to report.
    pub account: AccountPlan,
    /// When to look again even if nothing happens.
    pub next_check: Option<Timestamp>,
}

/// Part of one `ModelDeployment`. Effects are applied in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelPlan {
    pub finalizer: Finalizer,
    /// Deletion cost to write on pods before a Deployment shrinks: (pod name, cost).
    pub pod_costs: Vec<(String, i32)>,
    /// Objects to apply, whole, as JSON with `apiVersion`, `kind` and `metadata`.
    pub objects: Vec<serde_json::Value>,
    /// Objects of ours that are no longer wanted.
    pub deletes: Vec<ObjectRef>,
    /// Of a model that scales itself: the number of replicas before, and what was decided.
    pub scaling: Option<(u32, Decision)>,
    /// Found on this plan: the objects are as wanted. The next snapshot brings it back ([`crate::observed::Observed`]).
    pub settled: Option<Settled>,
    /// Replicas given to each pool; what `status.assigned` shows.
    pub assigned: BTreeMap<PoolName, u32>,
    pub status: ModelDeploymentStatus,
    pub conditions: Vec<WantedCondition>,
    pub events: Vec<PlannedEvent>,
    pub next_check: Option<Timestamp>,
}

/// Part of one `GpuPool`. Effects are applied in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolPlan {
    pub finalizer: Finalizer,
    pub node_marks: Vec<NodeMark>,
    pub cloud: Vec<CloudAction>,
    /// Pods that a roll moves off cordoned nodes. Disruption budgets may refuse; planned again until the pod is gone.
    pub evict: Vec<Eviction>,
    /// Nodes that the pods need.
    pub nodes_wanted: u32,
    /// Of a pool being deleted: since when nothing of it was found in AWS.
    pub absent_since: Option<Timestamp>,
    pub status: GpuPoolStatus,
    pub conditions: Vec<WantedCondition>,
    pub events: Vec<PlannedEvent>,
    pub next_check: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccountPlan {
    /// Deletes of empty groups and of templates only.
    pub sweep: Vec<CloudAction>,
    /// Groups with instances whose owner is gone, by the pool's name.
    pub orphans: BTreeMap<PoolName, Vec<GroupName>>,
    /// Why nothing is swept, if something could be.
    pub held: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Finalizer {
    /// As it is.
    #[default]
    Keep,
    Add,
    Remove,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    /// Precondition of the delete.
    pub uid: String,
}

/// A cordon and its annotation, always together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeMark {
    /// Cordon, and note since when the node is wanted back.
    Drain { node: String, since: Timestamp },
    /// Uncordon and remove the note: the node is needed after all.
    Reclaim { node: String },
}

/// A graceful eviction of exactly this pod, through the API that heeds disruption budgets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Eviction {
    pub namespace: String,
    pub pod: String,
    /// Precondition: a pod of the same name made anew is another one.
    pub uid: String,
}

impl Eviction {
    #[must_use]
    pub fn of(pod: &PodObserved) -> Self {
        Self {
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            uid: pod.uid.clone(),
        }
    }
}

/// Name of an EKS node group of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupName(pub String);

/// A mutation of AWS in absolute values. Repeating one is harmless.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CloudAction {
    /// Launch template and node group, at size 0.
    Create(Box<GroupSpec>),
    /// Desired size, never lower than what it was in the snapshot.
    Grow {
        group: GroupName,
        pool_uid: String,
        desired: u32,
    },
    /// Take back an order that is not filled: protect what lives, then lower the desired size, never below what lives.
    Retract {
        group: GroupName,
        pool_uid: String,
        desired: u32,
    },
    /// End exactly these instances, which are empty and cordoned: protect the others, then lower the desired size.
    Remove {
        group: GroupName,
        pool_uid: String,
        instances: Vec<String>,
        desired: u32,
    },
    /// Delete a node group that holds no instance and whose desired size is 0.
    DeleteGroup {
        group: GroupName,
        pool_uid: String,
    },
    DeleteTemplate {
        name: String,
        pool_uid: String,
    },
    /// Write a new owner's uid on an orphaned group and its template.
    Adopt {
        group: GroupName,
        from_uid: String,
        to_uid: String,
    },
    /// Note that a pool with `Retain` let go of this group on purpose.
    Release {
        group: GroupName,
        pool_uid: String,
    },
}

impl CloudAction {
    /// The node group that the action changes; `None` for templates.
    #[must_use]
    pub fn group(&self) -> Option<&GroupName> {
        match self {
            Self::Create(spec) => Some(&spec.name),
            Self::Grow { group, .. }
            | Self::Retract { group, .. }
            | Self::Remove { group, .. }
            | Self::DeleteGroup { group, .. }
            | Self::Adopt { group, .. }
            | Self::Release { group, .. } => Some(group),
            Self::DeleteTemplate { .. } => None,
        }
    }

    /// Name of the group or template that the action changes.
    #[must_use]
    pub fn target(&self) -> &str {
        match self {
            Self::DeleteTemplate { name, .. } => name,
            other => other.group().map_or("", |group| &group.0),
        }
    }

    /// Uid of the pool whose group or template it is (before an adoption: of the earlier one).
    #[must_use]
    pub fn owner_uid(&self) -> &str {
        match self {
            Self::Create(spec) => &spec.pool_uid,
            Self::Adopt { from_uid, .. } => from_uid,
            Self::Grow { pool_uid, .. }
            | Self::Retract { pool_uid, .. }
            | Self::Remove { pool_uid, .. }
            | Self::DeleteGroup { pool_uid, .. }
            | Self::DeleteTemplate { pool_uid, .. }
            | Self::Release { pool_uid, .. } => pool_uid,
        }
    }

    /// Static name, for metrics and logs.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Grow { .. } => "grow",
            Self::Retract { .. } => "retract",
            Self::Remove { .. } => "remove",
            Self::DeleteGroup { .. } => "delete_group",
            Self::DeleteTemplate { .. } => "delete_template",
            Self::Adopt { .. } => "adopt",
            Self::Release { .. } => "release",
        }
    }
}

/// Everything a node group and its launch template are made from. Immutable: another spec is another group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupSpec {
    pub name: GroupName,
    pub template_name: String,
    pub pool: PoolName,
    pub pool_uid: String,
    pub shard: u32,
    /// Over all fields below, with a hash version in front.
    pub spec_hash: String,
    pub instance_type: String,
    pub subnet: String,
    pub purchase: Purchase,
    pub node_role: String,
    pub image: ImageFamily,
    pub release_version: String,
    pub disk_gib: u32,
    pub kms_key_id: String,
    pub security_groups: Vec<String>,
    /// The user's tags; the operator's own are added by the executor from the fields above.
    pub tags: BTreeMap<String, String>,
    /// Node labels, `pinnace.dev/pool` included.
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    /// Maximum size of the group.
    pub max_nodes: u32,
}

/// An event to emit once per change of state: the executor emits it when the condition's reason changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedEvent {
    pub warning: bool,
    pub reason: Reason,
    pub message: String,
}
