//! Nodes that are cordoned, empty and idle leave; groups and templates that nobody needs are deleted.

use std::collections::BTreeSet;

use super::Task;
use super::nodes::NodePlan;
use super::roll::Roll;
use crate::observed::{GroupObserved, GroupState, Lifecycle, ScalingObserved};
use crate::plan::{CloudAction, GroupName};
use crate::view::{self, View};

/// Removals of a pool that stays. One mutation per group at a time: groups in `planned` are left alone.
#[must_use]
pub fn plan(
    view: &View,
    task: &Task,
    nodes: &NodePlan,
    roll: &Roll,
    planned: &[CloudAction],
) -> Vec<CloudAction> {
    if !view.inventory_is_fresh() {
        return vec![];
    }
    let busy: BTreeSet<&GroupName> = planned.iter().filter_map(CloudAction::group).collect();
    let leaving: BTreeSet<&str> = nodes.removable.iter().map(|id| id.instance_id()).collect();
    let mut actions = vec![];
    for group in view.groups(task.uid).filter(|g| !busy.contains(&g.name)) {
        let outdated = !roll.current.contains(group.owner.spec_hash.as_str());
        let failed = matches!(group.state, GroupState::CreateFailed | GroupState::DeleteFailed);
        if (outdated || failed) && is_empty(group) {
            actions.push(delete(group, task.uid));
            continue;
        }
        actions.extend(shrink(group, task.uid, &leaving));
    }
    actions.extend(delete_templates(view, task, &roll.current));
    actions
}

/// Ends exactly the instances that left, where nothing is ordered beside.
pub(super) fn shrink(group: &GroupObserved, uid: &str, leaving: &BTreeSet<&str>) -> Option<CloudAction> {
    let scaling = lowerable(group)?;
    if scaling.desired > view::live(group) {
        return None;
    }
    let in_service = scaling
        .instances
        .iter()
        .filter(|i| i.lifecycle == Lifecycle::InService);
    let victims: Vec<String> = in_service
        .filter(|i| leaving.contains(i.id.as_str()))
        .map(|i| i.id.clone())
        .collect();
    let desired = view::live(group).saturating_sub(u32::try_from(victims.len()).unwrap_or(u32::MAX));
    (desired < scaling.desired).then(|| CloudAction::Remove {
        group: group.name.clone(),
        pool_uid: uid.to_owned(),
        instances: victims,
        desired,
    })
}

/// The size of a group that may be lowered now.
pub(super) fn lowerable(group: &GroupObserved) -> Option<&ScalingObserved> {
    if !matches!(group.state, GroupState::Active | GroupState::Degraded) {
        return None;
    }
    let scaling = group.scaling.as_ref()?;
    // A pending instance cannot be protected, so a lower size could end it, or another when one more arrives: wait for it.
    let mut instances = scaling.instances.iter();
    (!instances.any(|i| i.lifecycle == Lifecycle::Pending)).then_some(scaling)
}

/// Holds nothing and is ordered nothing.
#[must_use]
pub fn is_empty(group: &GroupObserved) -> bool {
    let settled = !matches!(
        group.state,
        GroupState::Creating | GroupState::Updating | GroupState::Deleting
    );
    let instances = group.scaling.as_ref().map_or(0, |s| s.instances.len());
    settled && instances == 0 && view::requested(group) == 0
}

pub fn delete(group: &GroupObserved, uid: &str) -> CloudAction {
    CloudAction::DeleteGroup {
        group: group.name.clone(),
        pool_uid: uid.to_owned(),
    }
}

/// Templates of hashes that no group has and none will have.
fn delete_templates(view: &View, task: &Task, current: &BTreeSet<String>) -> Vec<CloudAction> {
    let in_use: BTreeSet<&str> = view
        .groups(task.uid)
        .map(|g| g.owner.spec_hash.as_str())
        .collect();
    let Some(cloud) = view.cloud() else { return vec![] };
    let old = cloud.templates.values().filter(|t| {
        let age = view.now.duration_since(t.created);
        t.pool_uid == task.uid
            && age >= view.observed.settings.sweep_after
            && !current.contains(&t.spec_hash)
            && !in_use.contains(t.spec_hash.as_str())
    });
    old.map(|t| CloudAction::DeleteTemplate {
        name: t.name.clone(),
        pool_uid: task.uid.to_owned(),
    })
    .collect()
}
