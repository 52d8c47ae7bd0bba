//! The API contract of Pinnace: the kinds of group `pinnace.dev`, their status vocabulary, and the names that
//! everything else agrees on. The YAML beside this crate's manifest is generated from these types
//! (`make crds`); a test fails when it is stale, and the charts ship those very files.

pub mod autoscaling;
pub mod condition;
pub mod gpu_pool;
pub mod model_deployment;
pub mod yaml;

pub use condition::{ConditionType, Reason, find_condition, set_condition};
pub use gpu_pool::{GpuPool, GpuPoolSpec, GpuPoolStatus};
pub use model_deployment::{ModelDeployment, ModelDeploymentSpec, ModelDeploymentStatus};

pub const GROUP: &str = "pinnace.dev";
pub const VERSION: &str = "v1alpha1";

/// Server-side apply field manager of the operator.
pub const FIELD_MANAGER: &str = "pinnace";

/// Held by a `GpuPool` until its node groups are gone (`Delete`) or released (`Retain`).
pub const CAPACITY_FINALIZER: &str = "pinnace.dev/capacity";
/// Held by a `ModelDeployment` until its pods have drained, so that Services outlive the pods behind them.
pub const TRAFFIC_FINALIZER: &str = "pinnace.dev/traffic";

/// Labels, annotations and AWS tag keys. The same key serves as a label and as a tag where both exist.
pub mod key {
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    pub const MANAGED_BY_VALUE: &str = "pinnace";
    /// Name of the `ModelDeployment`; on pods, Deployments and Services.
    pub const MODEL: &str = "pinnace.dev/model";
    /// Name of the `GpuPool`; on nodes, pods, Deployments and node groups.
    pub const POOL: &str = "pinnace.dev/pool";
    /// Index of the cell (at most 1,000 replicas) of a model in a pool; on pods and Deployments.
    pub const CELL: &str = "pinnace.dev/cell";
    /// Hash of the spec inputs that make a pod what it is; annotation of the pod template.
    pub const REVISION: &str = "pinnace.dev/revision";
    /// On a Node: the operator wants it back since this RFC 3339 time. Always together with a cordon.
    pub const VICTIM_SINCE: &str = "pinnace.dev/victim-since";
    /// On a new `GpuPool`: the uid of the pool whose orphaned node groups it takes over.
    pub const ADOPT: &str = "pinnace.dev/adopt";
    /// On a ServiceAccount: `"true"` lets a `ModelDeployment` of its namespace run under it.
    pub const ALLOW_RUNTIME: &str = "pinnace.dev/allow-runtime";
    /// AWS tags: EKS cluster name, uid of the owning pool, shard index, hash of the group's spec inputs.
    pub const CLUSTER: &str = "pinnace.dev/cluster";
    pub const POOL_UID: &str = "pinnace.dev/pool-uid";
    pub const SHARD: &str = "pinnace.dev/shard";
    pub const SPEC_HASH: &str = "pinnace.dev/spec-hash";
    /// AWS tag set when a pool with `deletionPolicy: Retain` lets go of a group on purpose.
    pub const RELEASED: &str = "pinnace.dev/released";
}
