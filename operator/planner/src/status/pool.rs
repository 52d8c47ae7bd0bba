//! Status and conditions of a `GpuPool`.

use crds::gpu_pool::{GpuPoolStatus, OfferingState, OfferingStatus, PoolNodeCounts};
use crds::{ConditionType, Reason};

use super::{Summary, events, wanted};
use crate::accept;
use crate::plan::{GroupName, PoolPlan};
use crate::pool::{self, Shortage, Task};
use crate::view::{self, View};

/// Fills in counts, conditions and events. `orphans`: groups of an earlier pool of this name.
pub fn fill(
    view: &View,
    task: &Task,
    shortage: Option<&Shortage>,
    orphans: Option<&Vec<GroupName>>,
    plan: &mut PoolPlan,
) {
    let old = task.pool.status.clone().unwrap_or_default();
    let (usd, groups) = pool::cost(view, task.uid);
    plan.status = GpuPoolStatus {
        nodes: counts(view, task, plan.nodes_wanted),
        groups,
        hourly_usd: usd.to_decimal(),
        offerings: offerings(view, task),
        ..GpuPoolStatus::default()
    };
    #[cfg(feature = "seeded-bugs")]
    if crate::seeded::is_planted(crate::seeded::Bug::ClockInStatus) {
        plan.absent_since = Some(view.now);
    }
    // Not known is not none.
    if view.cloud().is_none() {
        plan.status.groups = old.groups;
        plan.status.hourly_usd.clone_from(&old.hourly_usd);
        plan.status.nodes.launching = old.nodes.launching;
    }
    if accept::is_unasked(view, task.pool) {
        plan.status.offerings.clone_from(&old.offerings);
        plan.status.nodes.desired = old.nodes.desired;
    }
    if task.pool.metadata.deletion_timestamp.is_some() {
        plan.events = events(&old.conditions, &plan.conditions);
        return;
    }
    let refusal = accept::pool(view, task.pool);
    let accepted = match (&refusal, &view.observed.unread) {
        (Some((reason, message)), _) => wanted(ConditionType::Accepted, Some(false), *reason, message),
        (None, _) if !accept::is_unasked(view, task.pool) || pool::was_accepted(task.pool) => wanted(
            ConditionType::Accepted,
            Some(true),
            Reason::Accepted,
            "The spec can be used",
        ),
        (None, unread) => {
            let failed = unread.as_ref().map(|trouble| trouble.message.as_str());
            let message = failed.unwrap_or("AWS has not been asked about it yet");
            wanted(ConditionType::Accepted, None, Reason::CloudUnavailable, message)
        }
    };
    let capacity = match shortage {
        Some((reason, message)) => wanted(ConditionType::CapacityReady, Some(false), *reason, message),
        None => {
            let message = "Every pod that can run has a node";
            wanted(
                ConditionType::CapacityReady,
                Some(true),
                Reason::CapacityReady,
                message,
            )
        }
    };
    let generation = task.pool.metadata.generation.unwrap_or(0);
    let summary = Summary {
        old: &old.conditions,
        generation,
        settled: shortage.is_none()
            && accepted.status == Some(true)
            && plan.cloud.is_empty()
            && plan.conditions.iter().all(|c| c.status == Some(true)),
        stalled: refusal.is_some() || shortage.is_some_and(|(reason, _)| *reason == Reason::CloudDenied),
        blocker: refusal.or_else(|| shortage.cloned()),
    };
    plan.conditions.splice(0..0, [accepted, capacity]);
    plan.conditions.extend(orphaned(task, orphans));
    plan.events = events(&old.conditions, &plan.conditions);
    plan.conditions
        .extend(summary.conditions("Every pod that can run has a node"));
}

fn orphaned(task: &Task, orphans: Option<&Vec<GroupName>>) -> Option<crds::condition::WantedCondition> {
    let orphans = orphans.filter(|groups| !groups.is_empty())?;
    let message = format!(
        "{} node groups of an earlier pool named {} still run; adopt them with the annotation {}: <uid of that pool> (it is \
         the tag {} of the groups), or delete them in AWS",
        orphans.len(),
        task.name.0,
        crds::key::ADOPT,
        crds::key::POOL_UID
    );
    Some(wanted(
        ConditionType::Orphaned,
        Some(true),
        Reason::OrphanedGroups,
        &message,
    ))
}

fn counts(view: &View, task: &Task, wanted: u32) -> PoolNodeCounts {
    let int = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let usable = view
        .nodes(task.name)
        .filter(|(_, n)| n.ready && n.allocatable.gpus > 0);
    let ready = usable.filter(|(_, n)| n.victim_since.is_none()).count();
    let draining = view
        .nodes(task.name)
        .filter(|(_, n)| n.victim_since.is_some())
        .count();
    let requested: u32 = view.groups(task.uid).map(view::requested).sum();
    PoolNodeCounts {
        desired: i32::try_from(wanted).unwrap_or(i32::MAX),
        ready: int(ready),
        launching: int((requested as usize).saturating_sub(ready + draining)),
        draining: int(draining),
    }
}

fn offerings(view: &View, task: &Task) -> Vec<OfferingStatus> {
    let Some(cloud) = view.cloud() else { return vec![] };
    let spec = &task.pool.spec;
    let mut list = vec![];
    for instance_type in spec
        .instance_types
        .iter()
        .filter(|t| cloud.types.contains_key(*t))
    {
        let mut zones: Vec<&String> = spec
            .subnet_ids
            .iter()
            .filter_map(|s| cloud.subnets.get(s))
            .collect();
        zones.sort();
        zones.dedup();
        for zone in zones {
            let offered = cloud.offered.get(instance_type).is_some_and(|z| z.contains(zone));
            let mut here = view
                .groups(task.uid)
                .filter(|g| &g.instance_type == instance_type && &g.zone == zone);
            let refused = here.any(|g| {
                let failure = g.scaling.as_ref().and_then(|s| s.launch_failure.as_ref());
                failure.is_some_and(|f| f.no_capacity) && view::requested(g) > view::live(g)
            });
            let state = match (offered, refused) {
                (false, _) => OfferingState::NotOffered,
                (true, true) => OfferingState::NoCapacity,
                (true, false) => OfferingState::Available,
            };
            list.push(OfferingStatus {
                instance_type: instance_type.clone(),
                zone: zone.clone(),
                purchase: spec.purchase,
                state,
            });
        }
    }
    list
}
