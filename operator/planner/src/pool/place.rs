//! Where pods of a pool can go: nodes that are there, and those on their way.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::Task;
use super::roll::Roll;
use crate::observed::{Allocatable, Lifecycle, NodeObserved};
use crate::plan::GroupName;
use crate::view::View;

/// A removal may still be on its way to AWS this long after it could first be sent; a node is not reclaimed then.
const REMOVAL_IN_FLIGHT: jiff::SignedDuration = jiff::SignedDuration::from_mins(2);

/// What a place is, in the order in which places are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind<'a> {
    /// Holds something already.
    Occupied(&'a str),
    Empty(&'a str),
    Draining(&'a str),
    /// A node that is not usable yet; `true` when it is Ready and its GPUs are missing.
    Joining(&'a str, bool),
    /// An instance without a node yet.
    Instance,
    /// Ordered, not launched.
    Order(&'a GroupName),
}

#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub kind: Kind<'a>,
    pub free: Allocatable,
    /// Models have pods here that stay.
    pub holds: bool,
    /// Takes pods now.
    pub open: bool,
    /// Of an earlier spec of the pool: nothing moves here in a roll.
    pub outdated: bool,
}

impl<'a> Place<'a> {
    #[must_use]
    pub fn node(&self) -> Option<&'a str> {
        match self.kind {
            Kind::Occupied(name) | Kind::Empty(name) | Kind::Draining(name) | Kind::Joining(name, _) => {
                Some(name)
            }
            Kind::Instance | Kind::Order(_) => None,
        }
    }

    /// What is there comes before what is on its way, and today's spec before an earlier one.
    fn rank(&self) -> (bool, bool, Kind<'a>) {
        let coming = matches!(self.kind, Kind::Joining(..) | Kind::Instance | Kind::Order(_));
        (coming, self.outdated, self.kind)
    }
}

/// All places of a pool, in the order in which they are tried.
#[must_use]
pub fn places<'a>(view: &View<'a>, task: &Task<'a>, roll: &Roll<'a>) -> Vec<Place<'a>> {
    let mut places = of_nodes(view, task, roll);
    #[cfg(feature = "seeded-bugs")]
    if crate::seeded::is_planted(crate::seeded::Bug::RelativeSize) {
        return places;
    }
    places.extend(on_their_way(view, task, roll));
    places.sort_by_key(Place::rank);
    places
}

fn of_nodes<'a>(view: &View<'a>, task: &Task<'a>, roll: &Roll<'a>) -> Vec<Place<'a>> {
    let mut places = vec![];
    for (id, node) in view.nodes(task.name) {
        let name = node.name.as_str();
        // Pods that are on their way out leave their room to those that wait.
        let staying = view
            .pods_on(name)
            .iter()
            .filter(|p| !p.terminating && !task.shrink.is_victim(p));
        let taken = staying
            .clone()
            .fold(Allocatable::default(), |sum, p| sum.plus(&p.requests));
        let holds = staying.clone().any(|p| p.owner.is_some());
        let usable = node.ready && node.allocatable.gpus > 0;
        let emptied = task.shrink.emptied.contains(name);
        let mut place = Place {
            kind: Kind::Occupied(name),
            free: node.allocatable.minus(&taken),
            holds,
            open: usable && !node.unschedulable,
            outdated: roll.is_outdated(id),
        };
        if let Some(since) = node.victim_since {
            place.kind = Kind::Draining(name);
            if usable && !emptied && (holds || may_reclaim(view, node, since)) {
                places.push(place);
            }
        } else if node.unschedulable {
            // Cordoned by somebody else: holds what it holds, takes nothing.
            place.free = Allocatable::default();
            if holds {
                places.push(place);
            }
        } else if holds {
            places.push(place);
        } else if usable && !emptied {
            place.kind = Kind::Empty(name);
            places.push(place);
        } else if !usable {
            let room = view.type_of(id).and_then(|t| view.new_node(task.name, t));
            place.kind = Kind::Joining(name, node.ready);
            place.free = room.unwrap_or_default();
            places.push(place);
        }
    }
    places
}

/// A removal of the node cannot be on its way: it was never empty and due, or AWS has been read long after.
fn may_reclaim(view: &View, node: &NodeObserved, since: Timestamp) -> bool {
    let due = since
        .saturating_add(view.observed.settings.node_idle)
        .unwrap_or(Timestamp::MAX);
    let settled = due.saturating_add(REMOVAL_IN_FLIGHT).unwrap_or(Timestamp::MAX);
    view.now < due
        || view.model_pods_on(&node.name).next().is_some()
        || view.cloud().is_some_and(|cloud| cloud.read_at > settled)
}

fn on_their_way<'a>(view: &View<'a>, task: &Task<'a>, roll: &Roll<'a>) -> Vec<Place<'a>> {
    let known: BTreeSet<&str> = view.nodes(task.name).map(|(id, _)| id.instance_id()).collect();
    let mut places = vec![];
    for group in view.groups(task.uid) {
        let Some(scaling) = &group.scaling else { continue };
        let Some(free) = view.new_node(task.name, &group.instance_type) else {
            continue;
        };
        let place = |kind| Place {
            kind,
            free,
            holds: false,
            open: false,
            outdated: roll.has_group(&group.name),
        };
        let alive = |l: Lifecycle| matches!(l, Lifecycle::Pending | Lifecycle::InService);
        let living: Vec<_> = scaling.instances.iter().filter(|i| alive(i.lifecycle)).collect();
        let nodeless = living.iter().filter(|i| !known.contains(i.id.as_str()));
        places.extend(nodeless.map(|_| place(Kind::Instance)));
        // What an earlier spec ordered is taken back, and ordered anew where it is to be.
        if !(roll.is_on && roll.has_group(&group.name)) {
            let unfilled = (scaling.desired as usize).saturating_sub(living.len());
            places.extend((0..unfilled).map(|_| place(Kind::Order(&group.name))));
        }
    }
    places
}
