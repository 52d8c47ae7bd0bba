//! Conditions: their types, their reasons, and the one function that writes them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::{Deserialize, Serialize};

/// Condition types of both kinds. `Ready` is derived from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConditionType {
    /// The spec is understood and everything it names exists and may be used.
    Accepted,
    /// GPUs for every wanted replica are there.
    CapacityReady,
    /// At least the minimum of replicas serve.
    Available,
    /// The model could be fetched, verified and loaded by the runtime.
    ModelReady,
    /// Every metric of `spec.autoscaling` can be read, and the number of replicas follows them.
    ScalingActive,
    /// A bound keeps the number of replicas from what the metrics ask for.
    ScalingLimited,
    /// At least 80 % of the replicas that were asked for their load have answered lately.
    MetricsFresh,
    /// Every node of the pool is made from its spec as it is now.
    ImageUpToDate,
    /// Node groups with this pool's name exist that belong to a pool that is gone.
    Orphaned,
    /// All that the user waits for is done.
    Ready,
    /// A new generation is being brought about.
    Reconciling,
    /// Nothing will change until somebody changes something; the message says what.
    Stalled,
}

/// Reasons of conditions, one primary reason at a time, each with a remedy in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    // Everything is as wanted.
    Accepted,
    CapacityReady,
    Available,
    ModelLoaded,
    Ready,
    UpToDate,
    // The spec, or what it refers to.
    PoolNotFound,
    PoolDeleting,
    NamespaceNotAllowed,
    ServiceAccountNotAllowed,
    ImageNotAllowed,
    ResourcesDoNotFit,
    UnknownInstanceType,
    InstanceTypeNotOffered,
    MixedGpuCounts,
    SubnetNotFound,
    SpecInvalid,
    // Capacity.
    NodesLaunching,
    GpusNotAllocatable,
    NoCapacity,
    PoolLimit,
    NodeGroupQuota,
    LaunchBudget,
    NodeGroupUnhealthy,
    NodeGroupCreateFailed,
    NodeGroupDeleteFailed,
    CloudDenied,
    CloudUnavailable,
    CloudMutationsOff,
    ReplicaFailure,
    NameTaken,
    // Pods and the model.
    PodsStarting,
    PodUnschedulable,
    ImagePull,
    CrashLoop,
    OutOfMemory,
    ModelLoading,
    ModelNotFound,
    ModelUnreachable,
    DigestMismatch,
    ModelInvalid,
    ConfigInvalid,
    NoGpuProvider,
    PdbConflict,
    NoReplicas,
    // Autoscaling.
    FollowingMetrics,
    MetricsRead,
    MetricsMissing,
    MetricUnavailable,
    NoReadyReplicas,
    WithinBounds,
    TooFewReplicas,
    TooManyReplicas,
    // Deletion.
    InUse,
    Draining,
    ReturningNodes,
    ConfirmingAbsence,
    OrphanedGroups,
    // Rollout.
    RollingOut,
    NewGeneration,
}

impl ConditionType {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::CapacityReady => "CapacityReady",
            Self::Available => "Available",
            Self::ModelReady => "ModelReady",
            Self::ScalingActive => "ScalingActive",
            Self::ScalingLimited => "ScalingLimited",
            Self::MetricsFresh => "MetricsFresh",
            Self::ImageUpToDate => "ImageUpToDate",
            Self::Orphaned => "Orphaned",
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
        }
    }
}

impl Reason {
    /// The reason as it stands in a condition: the name of the variant.
    #[must_use]
    pub fn name(self) -> String {
        format!("{self:?}")
    }
}

/// One condition as the planner wants it; `None` as status means `Unknown`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedCondition {
    pub type_: ConditionType,
    pub status: Option<bool>,
    pub reason: Reason,
    pub message: String,
}

#[must_use]
pub fn find_condition(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|c| c.type_ == type_.as_str())
}

/// Writes one condition into the list, sorted by type. The transition time changes only when the status changes.
pub fn set_condition(
    conditions: &mut Vec<Condition>,
    wanted: &WantedCondition,
    generation: i64,
    now: Timestamp,
) {
    let status = match wanted.status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let since = find_condition(conditions, wanted.type_)
        .filter(|c| c.status == status)
        .map_or(Time(now), |c| c.last_transition_time.clone());
    conditions.retain(|c| c.type_ != wanted.type_.as_str());
    conditions.push(Condition {
        type_: wanted.type_.as_str().to_owned(),
        status: status.to_owned(),
        reason: wanted.reason.name(),
        message: wanted.message.clone(),
        observed_generation: Some(generation),
        last_transition_time: since,
    });
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(status: bool, message: &str) -> WantedCondition {
        WantedCondition {
            type_: ConditionType::Ready,
            status: Some(status),
            reason: Reason::Ready,
            message: message.into(),
        }
    }

    #[test]
    fn the_transition_time_changes_only_on_a_transition() {
        let (t0, t1) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(60).unwrap());
        let mut list = vec![];
        set_condition(&mut list, &wanted(false, "a"), 1, t0);
        set_condition(&mut list, &wanted(false, "b"), 2, t1);
        assert_eq!(list[0].last_transition_time, Time(t0));
        assert_eq!(
            (list[0].message.as_str(), list[0].observed_generation),
            ("b", Some(2))
        );
        set_condition(&mut list, &wanted(true, "c"), 2, t1);
        assert_eq!(list[0].last_transition_time, Time(t1));
        assert_eq!(list.len(), 1);
    }
}
