//! What no living pool is responsible for. Nothing with instances in it is ever deleted for want of an owner: it is
//! reported as orphaned. Empty groups and templates are swept, unless owners vanished in a way that looks like a
//! mistake (a restore, a reinstalled CRD).

use std::collections::BTreeSet;

use crate::observed::{CloudMutations, GroupObserved};
use crate::plan::{AccountPlan, CloudAction};
use crate::pool::remove;
use crate::view::View;

/// More than one owner in this many vanished: sweeping stops (reliability invariant I13).
const VANISHED_OWNERS: usize = 10;

#[must_use]
pub fn plan(view: &View) -> AccountPlan {
    let mut plan = AccountPlan::default();
    let Some(cloud) = view.cloud() else { return plan };
    let living: BTreeSet<&str> = view
        .observed
        .pools
        .values()
        .filter_map(|p| p.metadata.uid.as_deref())
        .collect();
    let lost = |uid: &str| !living.contains(uid);
    let ownerless: Vec<&GroupObserved> = cloud
        .groups
        .values()
        .filter(|g| lost(&g.owner.pool_uid))
        .collect();
    for group in ownerless.iter().filter(|g| !remove::is_empty(g)) {
        let groups = plan.orphans.entry(group.owner.pool.clone()).or_default();
        groups.push(group.name.clone());
    }
    if view.observed.settings.mutations != CloudMutations::All || !view.inventory_is_fresh() {
        return plan;
    }
    #[cfg(feature = "seeded-bugs")]
    if crate::seeded::is_planted(crate::seeded::Bug::SweepByUidOnly) {
        let all = ownerless.iter();
        plan.sweep
            .extend(all.map(|g| remove::delete(g, &g.owner.pool_uid)));
        return plan;
    }
    plan.held = vanished(view, &living);
    if plan.held.is_some() {
        return plan;
    }
    let old = |created| view.now.duration_since(created) >= view.observed.settings.sweep_after;
    let empty = ownerless
        .iter()
        .filter(|g| remove::is_empty(g) && !g.owner.released && old(g.created));
    plan.sweep
        .extend(empty.map(|g| remove::delete(g, &g.owner.pool_uid)));
    let used: BTreeSet<(&str, &str)> = cloud
        .groups
        .values()
        .map(|g| (g.owner.pool_uid.as_str(), g.owner.spec_hash.as_str()))
        .collect();
    let templates = cloud.templates.values().filter(|t| {
        lost(&t.pool_uid) && old(t.created) && !used.contains(&(t.pool_uid.as_str(), t.spec_hash.as_str()))
    });
    plan.sweep.extend(templates.map(|t| CloudAction::DeleteTemplate {
        name: t.name.clone(),
        pool_uid: t.pool_uid.clone(),
    }));
    plan
}

/// Owners of groups with instances that are gone without having released them.
fn vanished(view: &View, living: &BTreeSet<&str>) -> Option<String> {
    let groups = view.cloud()?.groups.values().filter(|g| !remove::is_empty(g));
    let owners: BTreeSet<&str> = groups.clone().map(|g| g.owner.pool_uid.as_str()).collect();
    let gone: BTreeSet<&str> = groups
        .filter(|g| !g.owner.released && !living.contains(g.owner.pool_uid.as_str()))
        .map(|g| g.owner.pool_uid.as_str())
        .collect();
    (gone.len() * VANISHED_OWNERS > owners.len()).then(|| {
        format!(
            "{} of {} owners of node groups are gone without having let go of them; nothing is swept until their pools are \
             back or have been adopted ({})",
            gone.len(),
            owners.len(),
            crds::key::ADOPT
        )
    })
}
