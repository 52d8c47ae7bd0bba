//! From a plan and what came of it to the status to write.

use crds::{GpuPool, GpuPoolStatus, ModelDeployment, ModelDeploymentStatus, Reason};
use jiff::Timestamp;

use crate::plan::{ModelPlan, PoolPlan};

/// What came of applying a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The first effect that failed: its reason and message.
    pub trouble: Option<(Reason, String)>,
}

/// The whole status to write; `None` when nothing is worth a write.
#[must_use]
pub fn model_status(
    model: &ModelDeployment,
    plan: &ModelPlan,
    outcome: &Outcome,
    now: Timestamp,
) -> Option<ModelDeploymentStatus> {
    let _ = (model, plan, outcome, now);
    None
}

/// The whole status to write; `None` when nothing is worth a write.
#[must_use]
pub fn pool_status(
    pool: &GpuPool,
    plan: &PoolPlan,
    outcome: &Outcome,
    now: Timestamp,
) -> Option<GpuPoolStatus> {
    let _ = (pool, plan, outcome, now);
    None
}
