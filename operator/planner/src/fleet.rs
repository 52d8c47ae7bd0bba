//! The fleet plan.

use jiff::Timestamp;

use crate::observed::Observed;
use crate::plan::FleetPlan;

/// Plans everything from one snapshot.
#[must_use]
pub fn plan_fleet(observed: &Observed, now: Timestamp) -> FleetPlan {
    let _ = (observed, now);
    FleetPlan::default()
}
