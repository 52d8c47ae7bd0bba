//! A pool that is being deleted: one more desired state, planned from what is left.

use std::collections::BTreeSet;

use crds::gpu_pool::DeletionPolicy;
use crds::{Reason, condition::WantedCondition};

use super::{Task, remove, retract};
use crate::observed::CloudMutations;
use crate::plan::{CloudAction, Finalizer, NodeMark, PoolPlan};
use crate::status::wanted;
use crate::view::{self, View};

pub fn plan(view: &View, task: &Task, plan: &mut PoolPlan) {
    let held = task.pool.metadata.finalizers.iter().flatten();
    if !held.into_iter().any(|f| f == crds::CAPACITY_FINALIZER) {
        return;
    }
    let (reason, message) = step(view, task, plan);
    plan.conditions = conditions(reason, message);
}

fn conditions(reason: Reason, message: String) -> Vec<WantedCondition> {
    use crds::ConditionType::{Ready, Reconciling};
    vec![
        wanted(Ready, Some(false), reason, &message),
        wanted(Reconciling, Some(true), reason, &message),
    ]
}

fn step(view: &View, task: &Task, plan: &mut PoolPlan) -> (Reason, String) {
    if let Some(user) = &task.user {
        let message = format!("ModelDeployment {user} refers to the pool; delete it or change its placement");
        return (Reason::InUse, message);
    }
    if !view.inventory_is_fresh() {
        let message = "The state of the node groups is not known at present".to_owned();
        return (Reason::CloudUnavailable, message);
    }
    match task.pool.spec.deletion_policy {
        DeletionPolicy::Retain => release(view, task, plan),
        DeletionPolicy::Delete => give_back(view, task, plan),
    }
}

/// `Retain`: every group is marked as let go on purpose, then the pool may go.
fn release(view: &View, task: &Task, plan: &mut PoolPlan) -> (Reason, String) {
    let kept: Vec<_> = view.groups(task.uid).filter(|g| !g.owner.released).collect();
    if kept.is_empty() {
        plan.finalizer = Finalizer::Remove;
        return (
            Reason::OrphanedGroups,
            "The node groups stay as they are".to_owned(),
        );
    }
    if view.observed.settings.mutations != CloudMutations::All {
        let message = "The operator's --cloud-mutations withholds the release of node groups; set it to All to let the pool go";
        return (Reason::CloudMutationsOff, message.to_owned());
    }
    plan.cloud.extend(kept.iter().map(|group| CloudAction::Release {
        group: group.name.clone(),
        pool_uid: task.uid.to_owned(),
    }));
    let message = format!("{} node groups are being released", kept.len());
    (Reason::OrphanedGroups, message)
}

/// `Delete`: nodes drain, instances end, groups and templates go, absence is confirmed twice.
fn give_back(view: &View, task: &Task, plan: &mut PoolPlan) -> (Reason, String) {
    if view.observed.settings.mutations != CloudMutations::All {
        let message = "The operator's --cloud-mutations withholds removals; set it to All to let the pool go";
        return (Reason::CloudMutationsOff, message.to_owned());
    }
    let groups: Vec<_> = view.groups(task.uid).collect();
    if !groups.is_empty() {
        let nodes: u32 = groups.iter().map(|g| view::requested(g)).sum();
        give_back_nodes(view, task, plan);
        let message = format!("{nodes} nodes in {} node groups are being returned", groups.len());
        return (Reason::ReturningNodes, message);
    }
    let templates = view.cloud().into_iter().flat_map(|c| c.templates.values());
    let templates: Vec<_> = templates.filter(|t| t.pool_uid == task.uid).collect();
    if !templates.is_empty() {
        plan.cloud
            .extend(templates.iter().map(|t| CloudAction::DeleteTemplate {
                name: t.name.clone(),
                pool_uid: task.uid.to_owned(),
            }));
        return (
            Reason::ReturningNodes,
            "Launch templates are being deleted".to_owned(),
        );
    }
    confirm_absence(view, task, plan);
    let message = "Nothing of the pool is left in AWS; this is confirmed once more".to_owned();
    (Reason::ConfirmingAbsence, message)
}

fn give_back_nodes(view: &View, task: &Task, plan: &mut PoolPlan) {
    let mut leaving = BTreeSet::new();
    for (id, node) in view.nodes(task.name) {
        if node.victim_since.is_none() || !node.unschedulable {
            let name = node.name.clone();
            plan.node_marks.push(NodeMark::Drain {
                node: name,
                since: view.now,
            });
        } else if view.model_pods_on(&node.name).next().is_none() {
            leaving.insert(id.instance_id());
        }
    }
    // Instances that never became a node, in a pool that nobody uses.
    let known: BTreeSet<&str> = view.nodes(task.name).map(|(id, _)| id.instance_id()).collect();
    for group in view.groups(task.uid) {
        let instances = group.scaling.iter().flat_map(|s| &s.instances);
        leaving.extend(instances.map(|i| i.id.as_str()).filter(|id| !known.contains(id)));
        if remove::is_empty(group) {
            plan.cloud.push(remove::delete(group, task.uid));
        } else {
            let retraction = retract::order(group, task.uid, 0);
            plan.cloud
                .extend(retraction.or_else(|| remove::shrink(group, task.uid, &leaving)));
        }
    }
}

/// The finalizer goes after two "absent" answers, `absent_twice` apart (reads of AWS lag behind its writes).
fn confirm_absence(view: &View, task: &Task, plan: &mut PoolPlan) {
    #[cfg(feature = "seeded-bugs")]
    if crate::seeded::is_planted(crate::seeded::Bug::FinalizerTooEarly) {
        plan.finalizer = Finalizer::Remove;
        return;
    }
    let status = task.pool.status.as_ref();
    let Some(since) = status.and_then(|s| s.absent_since.as_ref()) else {
        plan.absent_since = Some(view.now);
        return;
    };
    plan.absent_since = Some(since.0);
    let again = since.0.saturating_add(view.observed.settings.absent_twice);
    let again = again.unwrap_or(jiff::Timestamp::MAX);
    if view.cloud().is_some_and(|cloud| cloud.read_at >= again) {
        plan.finalizer = Finalizer::Remove;
    } else {
        plan.next_check = Some(again);
    }
}
