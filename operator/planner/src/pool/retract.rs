//! Orders that are taken back: refused, not filled in time while something else could be asked, or needed by nobody.
//!
//! Auto Scaling goes on trying to fill an order for as long as it stands. Taking it back protects what lives and sets the
//! size to that, so that whatever arrives late ends itself and never a healthy node (reliability invariant I14).

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::Task;
use super::nodes::NodePlan;
use super::remove::lowerable;
use crate::observed::{CloudObserved, GroupObserved, ScalingObserved, Unfilled};
use crate::plan::{CloudAction, GroupName};
use crate::view::{self, View};

/// An offering that had nothing to sell is asked again this long after its last refusal, while another has not refused
/// (Cluster Autoscaler and Karpenter keep an offering out for 3 minutes too).
const REFUSAL_MEMORY: SignedDuration = SignedDuration::from_mins(3);

/// An order of which nothing comes for this long counts as refused. EC2 shows an instance within a minute of its order;
/// Karpenter gives up on a launch after 5 minutes too.
pub const ORDER_PATIENCE: SignedDuration = SignedDuration::from_mins(5);

/// The offering of this group has nothing to give at present.
#[must_use]
pub fn is_refused(view: &View, group: &GroupObserved) -> bool {
    let Some(scaling) = &group.scaling else {
        return false;
    };
    let recent = |at| view.now.duration_since(at) < REFUSAL_MEMORY;
    let since = scaling.unfilled.map(|u| u.since);
    // A refusal from before the order that waits now is old news.
    let of_this_order = |at| is_waiting(scaling) && since.is_none_or(|since| at >= since);
    let failure = scaling.launch_failure.as_ref();
    failure.is_some_and(|f| f.no_capacity && (recent(f.at) || of_this_order(f.at)))
        || scaling.unfilled.is_some_and(|u| is_overdue(u) && recent(u.seen))
}

/// What was ordered here has not come for too long, and AWS may not even have said why.
#[must_use]
pub fn is_stuck(group: &GroupObserved) -> bool {
    let scaling = group.scaling.as_ref();
    scaling.is_some_and(|s| is_waiting(s) && s.unfilled.is_some_and(is_overdue))
}

fn is_overdue(unfilled: Unfilled) -> bool {
    unfilled.seen.duration_since(unfilled.since) >= ORDER_PATIENCE
}

fn is_waiting(scaling: &ScalingObserved) -> bool {
    scaling.desired > view::living(scaling)
}

/// Takes back every order of `given_up`, and elsewhere what no pod needs.
#[must_use]
pub fn plan(view: &View, task: &Task, nodes: &NodePlan, given_up: &BTreeSet<&GroupName>) -> Vec<CloudAction> {
    if !view.inventory_is_fresh() {
        return vec![];
    }
    let groups = view.groups(task.uid);
    groups
        .filter_map(|group| {
            let needed = nodes.needed_orders.get(&group.name).copied().unwrap_or(0);
            let keep = if given_up.contains(&group.name) { 0 } else { needed };
            order(group, task.uid, keep)
        })
        .collect()
}

/// Takes back what is ordered beyond what lives and `keep`.
#[must_use]
pub fn order(group: &GroupObserved, uid: &str, keep: u32) -> Option<CloudAction> {
    let scaling = lowerable(group)?;
    let desired = view::live(group).saturating_add(keep);
    (desired < scaling.desired).then(|| CloudAction::Retract {
        group: group.name.clone(),
        pool_uid: uid.to_owned(),
        desired,
    })
}

/// Notes in a new inventory what it does not tell of itself, from the inventory before it: since when orders wait, and
/// refusals that a launch has blotted out whose instance came after its order had been taken back. An operator that has
/// just started knows neither, and asks once more.
pub fn note_waiting(cloud: &mut CloudObserved, before: Option<&CloudObserved>) {
    let read_at = cloud.read_at;
    for (name, group) in &mut cloud.groups {
        let Some(scaling) = &mut group.scaling else {
            continue;
        };
        let earlier = before.and_then(|b| b.groups.get(name)?.scaling.as_ref());
        let known = earlier.filter(|e| filled(scaling) <= filled(e));
        if scaling.launch_failure.is_none() {
            scaling.launch_failure = known.and_then(|e| e.launch_failure.clone());
        }
        let fresh = Unfilled {
            since: read_at,
            seen: read_at,
        };
        scaling.unfilled = match known {
            // Taken back: that it was not filled is remembered.
            Some(known) if !is_waiting(scaling) => known.unfilled,
            Some(known) if is_waiting(known) => known.unfilled.map(|u| Unfilled { seen: read_at, ..u }),
            _ => is_waiting(scaling).then_some(fresh),
        };
    }
}

/// Instances that were ordered and came.
fn filled(scaling: &ScalingObserved) -> u32 {
    view::living(scaling).min(scaling.desired)
}
