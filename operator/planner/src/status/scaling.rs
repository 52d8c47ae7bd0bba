//! Conditions of a model that scales itself.

use crds::autoscaling::{AutoscalingStatus, Recommendation};
use crds::condition::WantedCondition;
use crds::{ConditionType, Reason};

use super::wanted;
use crate::autoscaler::{Decision, Freshness, Limited};

#[must_use]
pub fn conditions(decision: &Decision) -> Vec<WantedCondition> {
    vec![active(decision), limited(decision), fresh(decision)]
}

#[must_use]
pub fn status(decision: &Decision) -> AutoscalingStatus {
    let recommendation = |(metric, replicas): &(String, Option<u32>)| Recommendation {
        metric: metric.clone(),
        replicas: replicas.map(|n| i32::try_from(n).unwrap_or(i32::MAX)),
    };
    AutoscalingStatus {
        recommendations: decision.recommendations.iter().map(recommendation).collect(),
    }
}

fn active(decision: &Decision) -> WantedCondition {
    let say = |status, reason, message: &str| wanted(ConditionType::ScalingActive, status, reason, message);
    match (&decision.unavailable, decision.fresh) {
        (_, Freshness::NobodyReady) => say(
            None,
            Reason::NoReadyReplicas,
            "No replica serves yet; the number of replicas is held",
        ),
        (_, Freshness::Unasked) => say(
            None,
            Reason::MetricsMissing,
            "No replica was asked for its load yet; the number of replicas is held",
        ),
        (_, Freshness::Stale { .. }) => say(
            Some(false),
            Reason::MetricsMissing,
            "Too few replicas tell their load: replicas may be added, none is taken away",
        ),
        (Some(metric), Freshness::Fresh) => {
            let message = format!(
                "autoscaling.metrics: {metric} cannot be read from the replicas (no NVML, MIG mode, or no request yet); \
                 while this lasts no replica is taken away; mend it, or remove the metric"
            );
            say(Some(false), Reason::MetricUnavailable, &message)
        }
        (None, Freshness::Fresh) => say(
            Some(true),
            Reason::FollowingMetrics,
            "The number of replicas follows the metrics",
        ),
    }
}

fn limited(decision: &Decision) -> WantedCondition {
    let (status, message) = match decision.limited {
        Limited::No => (false, "The metrics ask for a number within the bounds"),
        Limited::ByMinimum => (
            true,
            "The metrics ask for fewer replicas than autoscaling.minReplicas",
        ),
        Limited::ByMaximum => (
            true,
            "The metrics ask for more replicas than autoscaling.maxReplicas; raise it if the load is to be served",
        ),
    };
    wanted(
        ConditionType::ScalingLimited,
        Some(status),
        decision.limited.reason(),
        message,
    )
}

fn fresh(decision: &Decision) -> WantedCondition {
    let say = |status, reason, message: &str| wanted(ConditionType::MetricsFresh, status, reason, message);
    match decision.fresh {
        Freshness::Fresh => say(Some(true), Reason::MetricsRead, "The replicas tell their load"),
        Freshness::NobodyReady => say(None, Reason::NoReadyReplicas, "No replica serves yet"),
        Freshness::Unasked => say(
            None,
            Reason::MetricsMissing,
            "No replica was asked for its load yet",
        ),
        Freshness::Stale { answered, asked } => {
            let message = format!(
                "{answered} of {asked} replicas told their load lately; see whether the operator reaches port 8002 of the \
                 pods (NetworkPolicy, security groups) and what the runtime's log says"
            );
            say(Some(false), Reason::MetricsMissing, &message)
        }
    }
}
