//! The kinds of faults, and which calls each of them can meet.

use std::time::Duration;

use super::refusal;
use crate::wire::{Service, is_mutation};

/// What becomes of a connection whose call gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Stays open until the caller gives up, or the fault is removed.
    Held,
    Cut,
}

/// What launches run out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    Capacity,
    Addresses,
    VcpuQuota,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Throttled,
    InternalError,
    Unavailable,
    AccessDenied,
    ExpiredToken,
    Conflict,
    /// No answer, and nothing done.
    TimeoutBeforeCommit(Connection),
    /// Done, and no answer.
    TimeoutAfterCommit(Connection),
    NotFound,
    /// Pages of so many items, however many were asked for.
    Truncated {
        page_size: usize,
    },
    /// Reads are answered from a state so long ago.
    Stale {
        lag: Duration,
    },
    NeverJoins,
    /// Ready nodes show their GPUs so much later, or never.
    NoGpus {
        late_by: Option<Duration>,
    },
    /// Instances come so long after they were ordered, wanted or not.
    LateDelivery {
        delay: Duration,
    },
    /// So many launches succeed, those after them fail.
    PartialLaunch {
        launched: u32,
        reason: Shortage,
    },
    CreateFailed {
        code: &'static str,
    },
    DeleteFailed {
        code: &'static str,
    },
    Degraded {
        code: &'static str,
    },
}

pub const CALL_KINDS: &[&str] = &[
    "throttled",
    "internal-error",
    "unavailable",
    "access-denied",
    "expired-token",
    "conflict",
    "timeout-before-commit",
    "timeout-after-commit",
    "not-found",
    "truncated",
    "stale",
];

pub const GROUP_KINDS: &[&str] = &[
    "never-joins",
    "no-gpus",
    "late-delivery",
    "partial-launch",
    "create-failed",
    "delete-failed",
    "degraded",
];

/// Every action that this simulator answers.
pub const ACTIONS: &[(Service, &[&str])] = &[
    (
        Service::Eks,
        &[
            "CreateNodegroup",
            "DeleteNodegroup",
            "DescribeCluster",
            "DescribeNodegroup",
            "DescribeUpdate",
            "ListNodegroups",
            "ListTagsForResource",
            "ListUpdates",
            "TagResource",
            "UntagResource",
        ],
    ),
    (
        Service::Ec2,
        &[
            "CreateLaunchTemplate",
            "CreateLaunchTemplateVersion",
            "CreateTags",
            "DeleteLaunchTemplate",
            "DeleteTags",
            "DescribeInstanceTypeOfferings",
            "DescribeInstanceTypes",
            "DescribeInstances",
            "DescribeLaunchTemplateVersions",
            "DescribeLaunchTemplates",
            "DescribeSubnets",
            "TerminateInstances",
        ],
    ),
    (
        Service::AutoScaling,
        &[
            "DescribeAutoScalingGroups",
            "DescribeScalingActivities",
            "SetDesiredCapacity",
            "SetInstanceProtection",
            "TerminateInstanceInAutoScalingGroup",
        ],
    ),
];

/// Reads that come in pages.
const PAGED: &[&str] = &[
    "DescribeAutoScalingGroups",
    "DescribeInstanceTypeOfferings",
    "DescribeInstanceTypes",
    "DescribeInstances",
    "DescribeLaunchTemplateVersions",
    "DescribeLaunchTemplates",
    "DescribeScalingActivities",
    "DescribeSubnets",
    "ListNodegroups",
];

/// Calls that look for nothing that could be missing.
const FINDS_NOTHING: &[&str] = &[
    "CreateLaunchTemplate",
    "DescribeInstanceTypeOfferings",
    "DescribeInstanceTypes",
];

impl Kind {
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Throttled => "throttled",
            Kind::InternalError => "internal-error",
            Kind::Unavailable => "unavailable",
            Kind::AccessDenied => "access-denied",
            Kind::ExpiredToken => "expired-token",
            Kind::Conflict => "conflict",
            Kind::TimeoutBeforeCommit(_) => "timeout-before-commit",
            Kind::TimeoutAfterCommit(_) => "timeout-after-commit",
            Kind::NotFound => "not-found",
            Kind::Truncated { .. } => "truncated",
            Kind::Stale { .. } => "stale",
            Kind::NeverJoins => "never-joins",
            Kind::NoGpus { .. } => "no-gpus",
            Kind::LateDelivery { .. } => "late-delivery",
            Kind::PartialLaunch { .. } => "partial-launch",
            Kind::CreateFailed { .. } => "create-failed",
            Kind::DeleteFailed { .. } => "delete-failed",
            Kind::Degraded { .. } => "degraded",
        }
    }

    /// Whether this fault can meet this call at all.
    pub fn applies_to(&self, service: Service, action: &str) -> bool {
        match self {
            Kind::Conflict => refusal::conflict(service, action).is_some(),
            Kind::NotFound => !FINDS_NOTHING.contains(&action),
            Kind::Truncated { .. } => PAGED.contains(&action),
            Kind::Stale { .. } => !is_mutation(action),
            _ => true,
        }
    }

    /// The actions that this fault can meet.
    pub fn actions(&self) -> Vec<&'static str> {
        let all = ACTIONS
            .iter()
            .flat_map(|(service, actions)| actions.iter().map(|a| (*service, *a)));
        all.filter(|(service, action)| self.applies_to(*service, action))
            .map(|(_, action)| action)
            .collect()
    }
}

/// The service of an action.
pub fn service_of(action: &str) -> Option<Service> {
    let found = ACTIONS.iter().find(|(_, actions)| actions.contains(&action));
    found.map(|(service, _)| *service)
}
