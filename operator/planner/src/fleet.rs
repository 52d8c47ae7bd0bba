//! The fleet plan: all models and all pools from one snapshot, in one pass.
//!
//! ```text
//! accept -> scaling (replicas wanted) -> placement (replicas per model and pool) -> shrink (victims) -> pools (nodes, groups) -> models (objects)
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crds::Reason;
use jiff::Timestamp;

use crate::accept::{self, ModelVerdict};
use crate::observed::{CloudMutations, ModelKey, ModelObserved, Observed, PoolName};
use crate::placement::{self, Assignment, NODE, PoolOption, Wish};
use crate::plan::{FleetPlan, PoolPlan};
use crate::pool::{self, Budget, Shortage, Task};
use crate::scaling::{self, Wanted};
use crate::shrink::{Resize, Shrink};
use crate::view::{self, View};
use crate::{account, model, status};

/// Plans everything from one snapshot. Total: what is wrong becomes a condition.
#[must_use]
pub fn plan_fleet(observed: &Observed, now: Timestamp) -> FleetPlan {
    let view = View::new(observed, now);
    let verdicts: BTreeMap<&ModelKey, ModelVerdict> = observed
        .models
        .iter()
        .map(|(key, model)| (key, accept::model(&view, key, model)))
        .collect();
    let wanted: BTreeMap<&ModelKey, Wanted> = observed
        .models
        .iter()
        .map(|(key, model)| (key, scaling::wanted(&view, key, model)))
        .collect();
    let mut room = pool_room(&view);
    let assignment = assign(&view, &verdicts, &wanted, &mut room);
    let shrinks: BTreeMap<&PoolName, Shrink> = pool_names(&view, &assignment)
        .into_iter()
        .map(|name| {
            (
                name,
                Shrink::choose(&view, name, &resizes(&view, name, &assignment)),
            )
        })
        .collect();
    let mut plan = FleetPlan {
        account: account::plan(&view),
        ..FleetPlan::default()
    };
    let shortages = plan_pools(&view, &assignment, &shrinks, &mut plan);
    for (key, model) in &observed.models {
        let decided = model::Decided {
            key,
            model,
            verdict: &verdicts[key],
            wanted: &wanted[key],
            assigned: &assignment[key],
            shrinks: &shrinks,
            shortages: &shortages,
            surge: has_room_to_surge(&assignment[key], &room),
        };
        plan.models.insert(key.clone(), model::plan(&view, &decided));
    }
    let checks = plan.models.values().map(|m| m.next_check);
    plan.next_check = checks
        .chain(plan.pools.values().map(|p| p.next_check))
        .flatten()
        .min();
    plan
}

/// Pools that exist, and pools that still hold replicas of somebody.
fn pool_names<'a>(view: &View<'a>, assignment: &'a Assignment) -> BTreeSet<&'a PoolName> {
    let assigned = assignment.values().flat_map(BTreeMap::keys);
    let pods = view.observed.pods.iter().filter_map(|p| p.owner.as_ref());
    let existing = view.observed.pools.keys();
    existing
        .chain(assigned)
        .chain(pods.map(|owner| &owner.pool))
        .collect()
}

/// Nodes that each pool may have, in millionths. A pool whose groups AWS may not extend is still its limit: who waits
/// for nodes waits where it was placed.
fn pool_room(view: &View) -> BTreeMap<PoolName, u64> {
    let pools = view.observed.pools.iter();
    pools
        .map(|(name, pool)| {
            let nodes = u64::try_from(pool.spec.limits.max_nodes).unwrap_or(0);
            (name.clone(), nodes * NODE)
        })
        .collect()
}

fn assign(
    view: &View,
    verdicts: &BTreeMap<&ModelKey, ModelVerdict>,
    wanted: &BTreeMap<&ModelKey, Wanted>,
    room: &mut BTreeMap<PoolName, u64>,
) -> Assignment {
    let (mut wishes, mut fixed) = (vec![], Assignment::new());
    for (key, model) in &view.observed.models {
        let deleting = model.spec.metadata.deletion_timestamp.is_some();
        let verdict = &verdicts[key];
        if deleting {
            fixed.insert(key.clone(), BTreeMap::new());
        } else if verdict.frozen || verdict.pools.is_empty() {
            let current = current(model);
            hold(view, model, &current, room);
            fixed.insert(key.clone(), current);
        } else {
            wishes.push(wish(view, key, model, verdict, wanted[key].replicas));
        }
    }
    let mut all = placement::assign(&wishes, room);
    all.extend(fixed);
    all
}

/// Replicas by pool that the Deployments of a model ask for.
fn current(model: &ModelObserved) -> BTreeMap<PoolName, u32> {
    let mut current = BTreeMap::new();
    for (pool, replicas) in model.deployments.iter().filter_map(view::deployment_replicas) {
        *current.entry(pool).or_default() += replicas;
    }
    current.retain(|_, replicas| *replicas > 0);
    current
}

fn hold(
    view: &View,
    model: &ModelObserved,
    current: &BTreeMap<PoolName, u32>,
    room: &mut BTreeMap<PoolName, u64>,
) {
    for (pool, replicas) in current {
        let taken = u64::from(*replicas) * share(view, model, pool);
        if let Some(left) = room.get_mut(pool) {
            *left = left.saturating_sub(taken);
        }
    }
}

/// Part of a node that a replica takes, in millionths; a whole one where the node's size is not known.
fn share(view: &View, model: &ModelObserved, pool: &PoolName) -> u64 {
    let Some((name, spec)) = view.observed.pools.get_key_value(pool) else {
        return NODE;
    };
    let request = view::request_of(&model.spec);
    let per_node = view
        .any_new_node(name, spec)
        .map_or(1, |room| room.fits(&request));
    NODE / u64::from(per_node.max(1))
}

fn wish(view: &View, key: &ModelKey, model: &ModelObserved, verdict: &ModelVerdict, replicas: u32) -> Wish {
    let spec = &model.spec.spec;
    let class = spec.priority_class_name.as_ref();
    let current = current(model);
    let option = |(pool, max_replicas): &(PoolName, Option<u32>)| PoolOption {
        pool: pool.clone(),
        max_replicas: *max_replicas,
        share: share(view, model, pool),
        current: current.get(pool).copied().unwrap_or(0),
    };
    Wish {
        model: key.clone(),
        priority: class
            .and_then(|name| view.observed.priority_classes.get(name))
            .copied()
            .unwrap_or(0),
        replicas,
        options: verdict.pools.iter().map(option).collect(),
    }
}

/// A roll may start pods beyond the wish where any of its pools has room for one more node.
fn has_room_to_surge(assigned: &BTreeMap<PoolName, u32>, room: &BTreeMap<PoolName, u64>) -> bool {
    assigned
        .keys()
        .all(|pool| room.get(pool).is_some_and(|left| *left >= NODE))
}

fn resizes<'a>(view: &View<'a>, name: &PoolName, assignment: &Assignment) -> Vec<Resize<'a>> {
    let mut resizes = vec![];
    for (model, observed) in &view.observed.models {
        let mut cells = BTreeMap::new();
        for deployment in &observed.deployments {
            let Some((pool, replicas)) = view::deployment_replicas(deployment) else {
                continue;
            };
            if &pool == name {
                let labels = deployment.metadata.labels.as_ref();
                let cell = labels
                    .and_then(|l| l.get(crds::key::CELL)?.parse().ok())
                    .unwrap_or(0);
                *cells.entry(cell).or_default() += replicas;
            }
        }
        let wanted = assignment[model].get(name).copied().unwrap_or(0);
        resizes.push(Resize { model, cells, wanted });
    }
    resizes
}

/// Plans the pools, in order of name. Returns why each falls short.
fn plan_pools(
    view: &View,
    assignment: &Assignment,
    shrinks: &BTreeMap<&PoolName, Shrink>,
    plan: &mut FleetPlan,
) -> BTreeMap<PoolName, Shortage> {
    let observed = view.observed;
    let groups = observed.cloud.iter().flat_map(|c| c.groups.values());
    let requested: u32 = groups.map(view::requested).sum();
    let used_slots = observed.cloud.as_ref().map_or(0, |c| c.group_count);
    let mut budget = Budget {
        launches: observed.launch_tokens,
        slots: observed.settings.group_slots.saturating_sub(used_slots),
        nodes: observed.settings.max_nodes.saturating_sub(requested),
    };
    let mut shortages = BTreeMap::new();
    for (name, pool) in &observed.pools {
        let task = Task {
            name,
            pool,
            uid: pool.metadata.uid.as_deref().unwrap_or_default(),
            demand: demand(view, name, assignment, &shrinks[name]),
            shrink: &shrinks[name],
            user: user_of(observed, name),
        };
        let (mut part, shortage) = pool::plan(view, &task, &mut budget);
        status::pool::fill(
            view,
            &task,
            shortage.as_ref(),
            plan.account.orphans.get(name),
            &mut part,
        );
        shortages.extend(shortage.map(|s| (name.clone(), s)));
        plan.pools.insert(name.clone(), PoolPlan { ..part });
    }
    shortages
}

fn user_of(observed: &Observed, pool: &PoolName) -> Option<String> {
    let uses = |model: &&ModelObserved| view::placement_pools(&model.spec).contains(pool);
    let (key, _) = observed.models.iter().find(|(_, model)| uses(model))?;
    Some(format!("{}/{}", key.namespace, key.name))
}

/// Pods of the pool that have no node, and replicas that are wanted and not created yet. Where creation is being refused,
/// only pods that exist count.
fn demand<'a>(
    view: &View<'a>,
    name: &'a PoolName,
    assignment: &Assignment,
    shrink: &Shrink,
) -> Vec<crate::capacity::Demand> {
    let mut requests = vec![];
    for (key, model) in &view.observed.models {
        let live = view.pods(key, name).iter().filter(|p| !p.terminating);
        let staying: Vec<_> = live.filter(|p| !shrink.is_victim(p)).collect();
        let waiting = staying.iter().filter(|p| p.node.is_none());
        requests.extend(waiting.map(|p| (p.requests, 1)));
        let refused = model
            .deployments
            .iter()
            .any(|d| view::replica_failure(d).is_some());
        if !refused {
            let wanted = assignment[key].get(name).copied().unwrap_or(0);
            let missing = wanted.saturating_sub(u32::try_from(staying.len()).unwrap_or(u32::MAX));
            requests.push((view::request_of(&model.spec), missing));
        }
    }
    view::grouped(requests)
}

/// Nodes are cordoned before their pods go only where they may be removed afterwards.
#[must_use]
pub fn cordons_first(view: &View) -> bool {
    view.observed.settings.mutations == CloudMutations::All
}

/// Why a model lacks capacity, from its pools' shortages: the first pool of its placement that has one.
#[must_use]
pub fn shortage_of<'s>(
    pools: impl IntoIterator<Item = &'s PoolName>,
    shortages: &'s BTreeMap<PoolName, Shortage>,
) -> Option<&'s (Reason, String)> {
    pools.into_iter().find_map(|pool| shortages.get(pool))
}
