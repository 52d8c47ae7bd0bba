//! New nodes: from the best offering that has them, spread over zones, within every limit.

use std::collections::{BTreeMap, BTreeSet};

use crds::Reason;

use super::nodes::NodePlan;
use super::{Budget, Shortage, Task, group, retract, roll};
use crate::capacity;
use crate::observed::{GroupObserved, GroupState};
use crate::plan::{CloudAction, GroupName};
use crate::price;
use crate::view::{self, View};

#[derive(Debug, Default)]
pub struct Growth {
    pub actions: Vec<CloudAction>,
    /// Nodes beyond those there or ordered.
    pub nodes_needed: u32,
    pub shortage: Option<Shortage>,
    /// Why nodes that only a roll needs cannot be bought.
    pub surge_blocked: Option<Shortage>,
}

/// An instance type in a subnet, with the pool's groups of today's spec there.
#[derive(Debug)]
struct Offering<'a> {
    instance_type: &'a str,
    subnet: &'a str,
    shards: Vec<&'a GroupObserved>,
    refused: bool,
    /// Nodes requested here, those of this plan included.
    nodes: u32,
    added: u32,
}

pub fn plan(view: &View, task: &Task, nodes: &NodePlan, budget: &mut Budget) -> Growth {
    let mut growth = Growth::default();
    let offerings = offerings(view, task);
    growth.actions = retract::plan(view, task, nodes, &given_up(&offerings));
    let tiers = tiers(view, task, offerings);
    let Some(room) = tiers
        .first()
        .and_then(|tier| view.new_node(task.name, tier[0].instance_type))
    else {
        return growth;
    };
    let (needed, _) = capacity::nodes_for(&nodes.unplaced, &room);
    growth.nodes_needed = needed;
    let surge = roll::surge(view, task, nodes, &room);
    if needed + surge == 0 {
        return growth;
    }
    let (allowed, blocked) = within_limits(view, task, needed + surge, budget);
    if allowed >= needed {
        // Demand gets all that it needs: what stands in the way, stands in the way of the roll.
        growth.surge_blocked = blocked;
    } else {
        growth.shortage = blocked;
    }
    let mut left = allowed;
    for mut tier in tiers {
        left = order(view, task, &mut tier, left, budget, &mut growth);
        if left == 0 {
            break;
        }
    }
    if needed == 0 {
        growth.surge_blocked = growth.surge_blocked.or(growth.shortage.take());
    } else if growth.shortage.is_none() {
        let message = format!("{needed} nodes are being ordered");
        growth.shortage = Some((Reason::NodesLaunching, message));
    }
    growth
}

/// The pool's and the operator's caps and the launch budget.
fn within_limits(view: &View, task: &Task, needed: u32, budget: &Budget) -> (u32, Option<Shortage>) {
    let mut shortage = None;
    let cap = u32::try_from(task.pool.spec.limits.max_nodes).unwrap_or(0);
    let requested: u32 = view.groups(task.uid).map(view::requested).sum();
    let by_pool = cap.saturating_sub(requested);
    if needed > by_pool {
        let message = format!(
            "{needed} more nodes are needed, but limits.maxNodes is {cap} and {requested} exist or are ordered; raise \
             it, or let models use another pool"
        );
        shortage = Some((Reason::PoolLimit, message));
    } else if needed > budget.nodes {
        let message = format!(
            "{needed} more nodes are needed, but the operator's --max-nodes leaves {}; raise it",
            budget.nodes
        );
        shortage = Some((Reason::PoolLimit, message));
    } else if needed > budget.launches {
        let message = format!(
            "{needed} more nodes are needed and {} may be launched now; the rest follows (--launch-per-second)",
            budget.launches
        );
        shortage = Some((Reason::LaunchBudget, message));
    }
    let allowed = needed.min(by_pool).min(budget.nodes).min(budget.launches);
    (allowed, shortage)
}

fn offerings<'a>(view: &View<'a>, task: &Task<'a>) -> Vec<Offering<'a>> {
    let Some(cloud) = view.cloud() else { return vec![] };
    let spec = &task.pool.spec;
    let mut offerings = vec![];
    for instance_type in &spec.instance_types {
        for subnet in &spec.subnet_ids {
            let zone = cloud.subnets.get(subnet);
            let offered = cloud.offered.get(instance_type);
            if !zone.is_some_and(|zone| offered.is_some_and(|zones| zones.contains(zone))) {
                continue;
            }
            let wanted = group::spec(view, task, instance_type, subnet, 0);
            let mut shards: Vec<_> = view.groups(task.uid).filter(|g| g.matches(&wanted)).collect();
            shards.sort_by_key(|g| g.owner.shard);
            offerings.push(Offering {
                instance_type,
                subnet,
                refused: shards.iter().any(|g| retract::is_refused(view, g)),
                nodes: shards.iter().map(|g| view::requested(g)).sum(),
                shards,
                added: 0,
            });
        }
    }
    offerings
}

/// Groups whose orders are taken back before another offering is asked. While all refuse, orders stand: AWS tries by itself.
fn given_up<'a>(offerings: &[Offering<'a>]) -> BTreeSet<&'a GroupName> {
    if offerings.iter().all(|o| o.refused) {
        return BTreeSet::new();
    }
    let refused = offerings.iter().filter(|o| o.refused);
    refused.flat_map(|o| &o.shards).map(|g| &g.name).collect()
}

/// Offerings by type, in order of price per GPU; those that refused lately come after all others.
fn tiers<'a>(view: &View, task: &Task, offerings: Vec<Offering<'a>>) -> Vec<Vec<Offering<'a>>> {
    let rank = |offering: &Offering| {
        let types = &task.pool.spec.instance_types;
        let gpus = view
            .instance_type(offering.instance_type)
            .map_or(1, |t| t.gpus.max(1));
        let price = price::on_demand(offering.instance_type).map_or(u64::MAX, |p| p.0 / u64::from(gpus));
        let listed = types.iter().position(|t| t == offering.instance_type);
        (offering.refused, price, listed)
    };
    let mut tiers = BTreeMap::<_, Vec<Offering>>::new();
    for offering in offerings {
        tiers.entry(rank(&offering)).or_default().push(offering);
    }
    tiers.into_values().collect()
}

/// Orders `count` nodes from one tier, the zone with the fewest first. Returns how many found no place.
fn order(
    view: &View,
    task: &Task,
    tier: &mut [Offering],
    count: u32,
    budget: &mut Budget,
    growth: &mut Growth,
) -> u32 {
    let cap = view.observed.settings.group_max_nodes;
    let mut left = count;
    let mut full = vec![false; tier.len()];
    // Levelling node by node is exact and cheap: a launch burst bounds `count`.
    while left > 0 {
        let open = (0..tier.len())
            .filter(|i| !full[*i])
            .min_by_key(|i| (tier[*i].nodes, *i));
        let Some(index) = open else { break };
        let offering = &mut tier[index];
        let room: u32 = offering.shards.iter().map(|g| room_in(g, cap)).sum();
        if offering.added >= room && !has_slot_for_new_shard(offering, room, cap, budget) {
            full[index] = true;
            continue;
        }
        offering.added += 1;
        offering.nodes += 1;
        left -= 1;
    }
    for offering in tier.iter().filter(|o| o.added > 0) {
        fill(view, task, offering, budget, growth);
    }
    if left > 0 && budget.slots == 0 && growth.shortage.is_none() {
        let message = format!(
            "Another node group is needed, but the cluster holds its {} (EKS quota of managed node groups); raise the \
             quota and the operator's --group-slots",
            view.observed.settings.group_slots
        );
        growth.shortage = Some((Reason::NodeGroupQuota, message));
    }
    left
}

/// Nodes that a group may still get: by today's limit, and by the one that it was made with.
fn room_in(group: &GroupObserved, cap: u32) -> u32 {
    let max = group.scaling.as_ref().map_or(cap, |s| s.max.min(cap));
    max.saturating_sub(view::requested(group))
}

/// One new shard an offering and plan is enough: it is created empty and filled when it is there.
fn has_slot_for_new_shard(offering: &Offering, room: u32, cap: u32, budget: &Budget) -> bool {
    budget.slots > 0 && offering.added < room + cap
}

/// Puts what an offering got into its shards, in order, and creates the next shard when they are full.
fn fill(view: &View, task: &Task, offering: &Offering, budget: &mut Budget, growth: &mut Growth) {
    let cap = view.observed.settings.group_max_nodes;
    let mut left = offering.added;
    for shard in &offering.shards {
        let here = room_in(shard, cap).min(left);
        left -= here;
        let changing = growth.actions.iter().any(|a| a.group() == Some(&shard.name));
        if here == 0 || changing {
            continue;
        }
        match shard.state {
            GroupState::Active | GroupState::Degraded if shard.scaling.is_some() => {
                budget.launches = budget.launches.saturating_sub(here);
                budget.nodes = budget.nodes.saturating_sub(here);
                growth.actions.push(CloudAction::Grow {
                    group: shard.name.clone(),
                    pool_uid: task.uid.to_owned(),
                    desired: view::requested(shard) + here,
                });
            }
            GroupState::CreateFailed | GroupState::DeleteFailed => {
                let (verb, reason) = match shard.state {
                    GroupState::CreateFailed => ("create", Reason::NodeGroupCreateFailed),
                    _ => ("delete", Reason::NodeGroupDeleteFailed),
                };
                let issue = shard.issues.first().map_or("no issue reported", String::as_str);
                let GroupName(name) = &shard.name;
                let message = format!("EKS could not {verb} node group {name}: {issue}");
                growth.shortage = Some((reason, message));
            }
            _ => {}
        }
    }
    if left > 0 && budget.slots > 0 {
        budget.slots -= 1;
        let shard = offering.shards.last().map_or(0, |g| g.owner.shard + 1);
        let spec = group::spec(view, task, offering.instance_type, offering.subnet, shard);
        growth.actions.push(CloudAction::Create(Box::new(spec)));
    }
}
