//! From a plan and what came of it to the status to write.
//!
//! A status is written on a transition, or when a count leaves a band of 10 % around the one written, or when what was
//! under way has settled; never for a clock.

pub mod model;
pub mod pool;
pub mod scaling;

use crds::condition::{WantedCondition, set_condition};
use crds::{ConditionType, GpuPool, GpuPoolStatus, ModelDeployment, ModelDeploymentStatus, Reason};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::plan::{ModelPlan, PlannedEvent, PoolPlan};

/// What came of applying a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The first effect that failed: its reason and message.
    pub trouble: Option<(Reason, String)>,
}

#[must_use]
pub fn wanted(type_: ConditionType, status: Option<bool>, reason: Reason, message: &str) -> WantedCondition {
    WantedCondition {
        type_,
        status,
        reason,
        message: message.to_owned(),
    }
}

/// The whole status to write; `None` when nothing is worth a write.
#[must_use]
pub fn model_status(
    model: &ModelDeployment,
    plan: &ModelPlan,
    outcome: &Outcome,
    now: Timestamp,
) -> Option<ModelDeploymentStatus> {
    let old = model.status.clone().unwrap_or_default();
    let generation = model.metadata.generation.unwrap_or(0);
    let deleting = model.metadata.deletion_timestamp.is_some();
    let mut new = if deleting {
        old.clone()
    } else {
        plan.status.clone()
    };
    new.observed_generation = Some(generation);
    new.conditions = merge(&old.conditions, &plan.conditions, outcome, (generation, now));
    let settled = |r: &crds::model_deployment::ReplicaCounts| r.ready == r.desired && r.current == r.desired;
    let counts = [
        (old.replicas.current, new.replicas.current),
        (old.replicas.ready, new.replicas.ready),
        (old.replicas.updated, new.replicas.updated),
        (old.replicas.unschedulable, new.replicas.unschedulable),
        (old.nodes.ready, new.nodes.ready),
        (old.nodes.desired, new.nodes.desired),
    ];
    let worth = model.status.is_none()
        || old.observed_generation != new.observed_generation
        || conditions_moved(&old.conditions, &new.conditions)
        || old.replicas.desired != new.replicas.desired
        || old.assigned != new.assigned
        || old.selector != new.selector
        || (settled(&new.replicas) && counts.iter().any(|(a, b)| a != b))
        || counts.iter().any(|(a, b)| left_band(*a, *b));
    (worth && !plan.conditions.is_empty()).then_some(new)
}

/// The whole status to write; `None` when nothing is worth a write.
#[must_use]
pub fn pool_status(
    pool: &GpuPool,
    plan: &PoolPlan,
    outcome: &Outcome,
    now: Timestamp,
) -> Option<GpuPoolStatus> {
    let old = pool.status.clone().unwrap_or_default();
    let generation = pool.metadata.generation.unwrap_or(0);
    let mut new = plan.status.clone();
    new.observed_generation = Some(generation);
    new.absent_since = plan.absent_since.map(Time);
    new.conditions = merge(&old.conditions, &plan.conditions, outcome, (generation, now));
    let (a, b) = (&old.nodes, &new.nodes);
    let counts = [
        (a.desired, b.desired),
        (a.ready, b.ready),
        (a.launching, b.launching),
        (a.draining, b.draining),
    ];
    let settled = b.launching == 0 && b.draining == 0;
    let worth = pool.status.is_none()
        || old.observed_generation != new.observed_generation
        || conditions_moved(&old.conditions, &new.conditions)
        || old.absent_since != new.absent_since
        || old.groups != new.groups
        || old.offerings != new.offerings
        || (settled && (a != b || old.hourly_usd != new.hourly_usd))
        || counts.iter().any(|(a, b)| left_band(*a, *b));
    (worth && !plan.conditions.is_empty()).then_some(new)
}

fn left_band(written: i32, now: i32) -> bool {
    written != now && (i64::from(written) - i64::from(now)).abs() * 10 > i64::from(written).abs()
}

/// The plan's conditions over those that stand; a condition that the plan does not speak of goes.
fn merge(
    old: &[Condition],
    planned: &[WantedCondition],
    outcome: &Outcome,
    (generation, now): (i64, Timestamp),
) -> Vec<Condition> {
    let mut list = old.to_vec();
    list.retain(|c| planned.iter().any(|p| p.type_.as_str() == c.type_));
    for condition in planned {
        set_condition(&mut list, condition, generation, now);
    }
    let Some((reason, message)) = &outcome.trouble else {
        return list;
    };
    if *reason == Reason::CloudDenied {
        let denied = wanted(ConditionType::Stalled, Some(true), *reason, message);
        set_condition(&mut list, &denied, generation, now);
    }
    for type_ in [ConditionType::CapacityReady, ConditionType::Ready] {
        let Some(stands) = planned.iter().find(|p| p.type_ == type_) else {
            continue;
        };
        // A failed call matters to the reader only while something is missing.
        if stands.status != Some(true) {
            set_condition(
                &mut list,
                &wanted(type_, stands.status, *reason, message),
                generation,
                now,
            );
        }
    }
    list
}

/// A change worth a write: status, reason or generation, or a message that differs in more than its numbers.
fn conditions_moved(old: &[Condition], new: &[Condition]) -> bool {
    let words = |message: &str| {
        message
            .chars()
            .filter(|c| !c.is_ascii_digit())
            .collect::<String>()
    };
    old.len() != new.len()
        || old.iter().zip(new).any(|(a, b)| {
            a.type_ != b.type_
                || a.status != b.status
                || a.reason != b.reason
                || a.observed_generation != b.observed_generation
                || words(&a.message) != words(&b.message)
        })
}

/// One event for each condition whose status or reason changes.
fn events(old: &[Condition], planned: &[WantedCondition]) -> Vec<PlannedEvent> {
    use ConditionType::{
        Accepted, Available, CapacityReady, ImageUpToDate, MetricsFresh, ModelReady, Orphaned, Ready,
        Reconciling, ScalingActive, ScalingLimited, Stalled,
    };
    let told = planned.iter().filter(|p| match p.type_ {
        Accepted | CapacityReady | Available | ImageUpToDate | ModelReady | Orphaned | ScalingActive => true,
        // They say once more what others say, or what is no news.
        Ready | Reconciling | Stalled | MetricsFresh | ScalingLimited => false,
    });
    told.filter(|p| {
        let stands = crds::find_condition(old, p.type_);
        let status = p.status.map_or("Unknown", |s| if s { "True" } else { "False" });
        // A condition that starts well, or starts unknown, is no news.
        stands.map_or(p.status == Some(false), |c| {
            c.status != status || c.reason != p.reason.name()
        })
    })
    .map(|p| PlannedEvent {
        warning: p.reason == Reason::PdbConflict
            || p.status == Some(false)
                && ![Reason::NodesLaunching, Reason::PodsStarting, Reason::RollingOut].contains(&p.reason),
        reason: p.reason,
        message: format!("{}: {}", p.type_.as_str(), p.message),
    })
    .collect()
}

/// `Ready`, `Reconciling` and `Stalled` follow from the others.
struct Summary<'a> {
    old: &'a [Condition],
    generation: i64,
    /// The first thing that keeps the object from being ready.
    blocker: Option<(Reason, String)>,
    /// What the spec asks for has been brought about.
    settled: bool,
    /// Nothing will change until somebody changes something.
    stalled: bool,
}

impl Summary<'_> {
    fn conditions(self, done: &str) -> Vec<WantedCondition> {
        let ready = match &self.blocker {
            None => wanted(ConditionType::Ready, Some(true), Reason::Ready, done),
            Some((reason, message)) => wanted(ConditionType::Ready, Some(false), *reason, message),
        };
        // Once settled, a generation stays settled: autoscaling and lost nodes are no new generation.
        let before = crds::find_condition(self.old, ConditionType::Reconciling)
            .is_some_and(|c| c.status == "False" && c.observed_generation == Some(self.generation));
        let reconciling = if self.settled || before || self.stalled {
            wanted(
                ConditionType::Reconciling,
                Some(false),
                Reason::UpToDate,
                "The spec is in effect",
            )
        } else {
            let message = "The spec is being brought into effect";
            wanted(
                ConditionType::Reconciling,
                Some(true),
                Reason::NewGeneration,
                message,
            )
        };
        let stalled = match (&self.blocker, self.stalled) {
            (Some((reason, message)), true) => wanted(ConditionType::Stalled, Some(true), *reason, message),
            _ => wanted(
                ConditionType::Stalled,
                Some(false),
                Reason::UpToDate,
                "Nothing stands in the way",
            ),
        };
        vec![ready, reconciling, stalled]
    }
}
