//! Nodes of an earlier spec of the pool (another image, role, disk, tag, type or subnet) give way to nodes of today's.
//!
//! ```text
//! a wave of outdated nodes  ->  do their pods fit on nodes of today's spec that take pods now?
//!   yes                         cordon, then evict (the pods' disruption budgets decide how fast); removed when empty
//!   on nodes that are coming    wait: nothing more is bought until these show their GPUs
//!   no                          buy nodes beyond demand, never more than a wave of them
//! ```
//!
//! Nothing is noted anywhere: a node is outdated because its group's hash is not one of today's, and the wave is chosen anew
//! from what is seen, draining nodes first. A spec that is changed back makes the same nodes current again.

use std::collections::BTreeSet;

use crds::condition::WantedCondition;
use crds::{ConditionType, Reason};

use super::nodes::NodePlan;
use super::place::Place;
use super::{Shortage, Task, group};
use crate::accept;
use crate::capacity::{self, Bin, Demand};
use crate::observed::{Allocatable, CloudMutations, NodeObserved, PodObserved, ProviderId};
use crate::plan::{Eviction, GroupName};
use crate::status::wanted;
use crate::view::{self, View};

/// Nodes that are replaced at a time, in percent of the pool's nodes, and at least one: a bad image shows on few nodes, and a
/// pool of any size is through after 34 waves, about three hours when nodes take five minutes.
const WAVE_PERCENT: u32 = 3;

/// What of the pool is of an earlier spec.
#[derive(Debug, Default)]
pub struct Roll<'a> {
    /// Hashes of the groups that the spec asks for.
    pub current: BTreeSet<String>,
    groups: BTreeSet<&'a GroupName>,
    instances: BTreeSet<&'a str>,
    /// Nodes may be replaced now: AWS was read lately, and nothing forbids it.
    pub is_on: bool,
}

impl<'a> Roll<'a> {
    #[must_use]
    pub fn of(view: &View<'a>, task: &Task<'a>) -> Self {
        let mut roll = Self {
            current: current_hashes(view, task),
            ..Self::default()
        };
        if view.observed.settings.mutations != CloudMutations::All {
            return roll;
        }
        for group in view.groups(task.uid) {
            if roll.current.contains(&group.owner.spec_hash) {
                continue;
            }
            roll.groups.insert(&group.name);
            let instances = group.scaling.iter().flat_map(|s| &s.instances);
            roll.instances.extend(instances.map(|i| i.id.as_str()));
        }
        roll.is_on = view.inventory_is_fresh() && accept::pool(view, task.pool).is_none();
        roll
    }

    #[must_use]
    pub fn is_outdated(&self, node: &ProviderId) -> bool {
        self.instances.contains(node.instance_id())
    }

    #[must_use]
    pub fn has_group(&self, group: &GroupName) -> bool {
        self.groups.contains(group)
    }
}

fn current_hashes(view: &View, task: &Task) -> BTreeSet<String> {
    let spec = &task.pool.spec;
    let pairs = spec
        .instance_types
        .iter()
        .flat_map(|t| spec.subnet_ids.iter().map(move |s| (t, s)));
    pairs
        .map(|(t, s)| group::spec(view, task, t, s, 0).spec_hash)
        .collect()
}

/// The step of a roll that can be taken now.
#[derive(Debug, Default)]
pub struct Moves<'a> {
    /// Outdated nodes to cordon, because their pods have somewhere to go.
    pub drain: BTreeSet<&'a str>,
    pub evict: Vec<Eviction>,
    /// Pods of the wave that no node of today's spec can take, there or coming.
    unplaced: Vec<Demand>,
    /// A replacement is on its way.
    waiting: bool,
}

/// Plans the wave. `bins` hold what the pool's own demand leaves free; those that the wave needs are marked as used.
#[must_use]
pub fn moves<'a>(
    view: &View<'a>,
    task: &Task<'a>,
    roll: &Roll<'a>,
    places: &[Place<'a>],
    bins: &mut [Bin],
) -> Moves<'a> {
    let mut moves = Moves::default();
    if !roll.is_on || roll.instances.is_empty() {
        return moves;
    }
    let room = |bin: &Bin, fits: bool| Bin {
        free: if fits { bin.free } else { Allocatable::default() },
        used: false,
    };
    let pairs = || places.iter().zip(bins.iter());
    let mut open: Vec<Bin> = pairs().map(|(p, b)| room(b, p.open && !p.outdated)).collect();
    let mut all: Vec<Bin> = pairs().map(|(p, b)| room(b, !p.outdated)).collect();
    let size = wave(view, task) as usize;
    for (node, pods) in candidates(view, task, roll).into_iter().take(size) {
        let demand = view::grouped(pods.iter().map(|p| (p.requests, 1)));
        let mut packed = open.clone();
        if capacity::pack(&demand, &mut packed).is_empty() {
            capacity::pack(&demand, &mut all);
            open = packed;
            if view.is_draining(&node.name) {
                moves.evict.extend(pods.iter().map(|p| Eviction::of(p)));
            } else {
                moves.drain.insert(&node.name);
            }
            continue;
        }
        let before: Vec<bool> = all.iter().map(|b| b.used).collect();
        moves.unplaced.extend(capacity::pack(&demand, &mut all));
        let mut newly = all.iter().zip(before).zip(places);
        moves.waiting |= newly.any(|((bin, before), place)| bin.used && !before && !place.open);
    }
    for (bin, (open, all)) in bins.iter_mut().zip(open.iter().zip(&all)) {
        bin.used = open.used || all.used;
    }
    moves
}

/// Outdated nodes that hold pods, with the pods: those that drain already first, then the emptiest. A node with a pod whose
/// model is not known is left alone.
fn candidates<'a>(
    view: &View<'a>,
    task: &Task<'a>,
    roll: &Roll<'a>,
) -> Vec<(&'a NodeObserved, Vec<&'a PodObserved>)> {
    let known = |p: &&PodObserved| {
        let owner = p.owner.as_ref();
        owner.is_some_and(|o| view.observed.models.contains_key(&o.model))
    };
    let nodes = view.nodes(task.name).filter(|(id, _)| roll.is_outdated(id));
    let with_pods = nodes.map(|(_, node)| {
        let pods = view.model_pods_on(&node.name);
        let staying = pods.filter(|p| !p.terminating && !task.shrink.is_victim(p));
        (node, staying.collect::<Vec<_>>())
    });
    let mut list: Vec<_> = with_pods
        .filter(|(_, pods)| !pods.is_empty() && pods.iter().all(known))
        .collect();
    list.sort_by_key(|(node, pods)| (!view.is_draining(&node.name), pods.len(), &node.name));
    list
}

/// Nodes that may be replaced at a time.
#[must_use]
pub fn wave(view: &View, task: &Task) -> u32 {
    (requested(view, task) * WAVE_PERCENT / 100).max(1)
}

fn requested(view: &View, task: &Task) -> u32 {
    view.groups(task.uid).map(view::requested).sum()
}

/// Nodes to buy beyond demand, so that the wave's pods have somewhere to go. What is there or ordered and needed by nobody
/// (a replacement that waits, a node that was emptied) counts against the wave.
#[must_use]
pub fn surge(view: &View, task: &Task, nodes: &NodePlan, room: &Allocatable) -> u32 {
    if nodes.moves.waiting {
        return 0;
    }
    let (wanted, _) = capacity::nodes_for(&nodes.moves.unplaced, room);
    let extra = requested(view, task).saturating_sub(nodes.needed);
    wanted.min(wave(view, task).saturating_sub(extra))
}

/// `ImageUpToDate`. `blocked`: why the next nodes of the roll cannot be bought.
#[must_use]
pub fn condition(
    view: &View,
    task: &Task,
    roll: &Roll,
    blocked: Option<Shortage>,
) -> Option<WantedCondition> {
    let type_ = ConditionType::ImageUpToDate;
    if view.cloud().is_none() {
        return stands(task, type_);
    }
    let outdated = view
        .groups(task.uid)
        .filter(|g| !roll.current.contains(&g.owner.spec_hash));
    let nodes: u32 = outdated.map(view::requested).sum();
    if nodes == 0 {
        let message = "Every node is of the pool's spec";
        return Some(wanted(type_, Some(true), Reason::UpToDate, message));
    }
    let size = wave(view, task);
    let mut reason = Reason::RollingOut;
    let mut message = format!("{nodes} nodes are of an earlier spec; they are replaced {size} at a time");
    if view.observed.settings.mutations != CloudMutations::All {
        reason = Reason::CloudMutationsOff;
        message = format!(
            "{nodes} nodes are of an earlier spec; the operator's --cloud-mutations keeps them from being replaced, set it to All"
        );
    } else if let Some((why, what)) = blocked {
        reason = why;
        message = format!("{nodes} nodes are of an earlier spec and wait for their replacements: {what}");
    }
    Some(wanted(type_, Some(false), reason, &message))
}

/// The condition as it was written last, while nothing newer is known.
fn stands(task: &Task, type_: ConditionType) -> Option<WantedCondition> {
    let conditions = task.pool.status.as_ref().map(|s| s.conditions.as_slice());
    let old = crds::find_condition(conditions.unwrap_or_default(), type_)?;
    let reason = serde_json::from_value(serde_json::Value::from(old.reason.as_str())).ok()?;
    Some(wanted(type_, Some(old.status == "True"), reason, &old.message))
}
