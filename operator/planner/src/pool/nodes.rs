//! Which of the pool's nodes are needed, which are surplus, and what finds no room on any.

use std::collections::BTreeSet;

use crds::Reason;
use jiff::Timestamp;

use super::{Shortage, Task};
use crate::capacity::{self, Bin, Demand};
use crate::observed::{Allocatable, Lifecycle, NodeObserved, ProviderId};
use crate::plan::{GroupName, NodeMark};
use crate::view::{self, View};

/// A removal may still be on its way to AWS this long after it could first be sent; a node is not reclaimed then.
const REMOVAL_IN_FLIGHT: jiff::SignedDuration = jiff::SignedDuration::from_mins(2);

/// What becomes of the nodes of a pool.
#[derive(Debug, Default)]
pub struct NodePlan<'a> {
    pub marks: Vec<NodeMark>,
    /// Demand that finds no room on a node that is there or ordered.
    pub unplaced: Vec<Demand>,
    /// Nodes that are needed, of those there or ordered.
    pub needed: u32,
    /// Nodes to give back now: cordoned, empty, and idle for long enough.
    pub removable: Vec<&'a ProviderId>,
    /// Orders not filled that nobody needs any more, by group.
    pub surplus_orders: BTreeSet<GroupName>,
    /// Nodes that are on their way and needed, and those of them that are Ready and lack GPUs.
    pub arriving: u32,
    pub without_gpus: u32,
    pub next_check: Option<Timestamp>,
}

/// A place where pods can go, in the order in which places are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place<'a> {
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

impl<'a> NodePlan<'a> {
    #[must_use]
    pub fn of(view: &View<'a>, task: &Task<'a>) -> Self {
        let mut places = node_places(view, task);
        places.extend(ordered_places(view, task));
        places.sort_by(|a, b| a.0.cmp(&b.0));
        let mut bins: Vec<Bin> = places
            .iter()
            .map(|(_, free)| Bin {
                free: *free,
                used: false,
            })
            .collect();
        let mut plan = Self {
            unplaced: capacity::pack(&task.demand, &mut bins),
            ..Self::default()
        };
        let used: Vec<(Place, bool)> = places
            .iter()
            .map(|(p, _)| *p)
            .zip(bins.iter().map(|b| b.used))
            .collect();
        plan.count(&used);
        let filled: BTreeSet<&str> = used
            .iter()
            .filter(|(_, used)| *used)
            .filter_map(|(p, _)| p.node())
            .collect();
        for (id, node) in view.nodes(task.name) {
            plan.mark(view, task, (id, node), filled.contains(node.name.as_str()));
        }
        plan
    }

    fn count(&mut self, used: &[(Place<'a>, bool)]) {
        let mut needed_orders = BTreeSet::new();
        for (place, used) in used {
            match place {
                Place::Occupied(_) => self.needed += 1,
                Place::Order(group) if !used => {
                    self.surplus_orders.insert((*group).clone());
                }
                _ if !used => {}
                Place::Empty(_) | Place::Draining(_) => self.needed += 1,
                Place::Joining(_, lacks_gpus) => {
                    self.needed += 1;
                    self.arriving += 1;
                    self.without_gpus += u32::from(*lacks_gpus);
                }
                Place::Instance => {
                    self.needed += 1;
                    self.arriving += 1;
                }
                Place::Order(group) => {
                    needed_orders.insert(*group);
                    self.needed += 1;
                    self.arriving += 1;
                }
            }
        }
        self.surplus_orders.retain(|group| !needed_orders.contains(group));
    }

    /// `wanted`: pods were packed into it.
    fn mark(
        &mut self,
        view: &View<'a>,
        task: &Task<'a>,
        node: (&'a ProviderId, &'a NodeObserved),
        wanted: bool,
    ) {
        let (id, node) = node;
        let holds = view
            .model_pods_on(&node.name)
            .any(|p| !p.terminating && !task.shrink.is_victim(p));
        let empty = view.model_pods_on(&node.name).next().is_none();
        let Some(since) = node.victim_since else {
            let usable = node.ready && node.allocatable.gpus > 0;
            let surplus = !holds && !wanted && !node.unschedulable && (usable || !empty);
            if surplus && view.observed.settings.mutations == crate::observed::CloudMutations::All {
                let name = node.name.clone();
                self.marks.push(NodeMark::Drain {
                    node: name,
                    since: view.now,
                });
            }
            return;
        };
        if holds || wanted {
            self.marks.push(NodeMark::Reclaim {
                node: node.name.clone(),
            });
        } else if !node.unschedulable {
            // Somebody uncordoned it by hand: cordon it again, the clock starts anew.
            self.marks.push(NodeMark::Drain {
                node: node.name.clone(),
                since: view.now,
            });
        } else if empty {
            let due = since
                .saturating_add(view.observed.settings.node_idle)
                .unwrap_or(Timestamp::MAX);
            if due <= view.now {
                self.removable.push(id);
            } else {
                self.next_check = Some(self.next_check.map_or(due, |t| t.min(due)));
            }
        }
    }

    /// Why the pool has less than it needs although enough is ordered.
    #[must_use]
    pub fn shortage(&self, view: &View, task: &Task) -> Option<Shortage> {
        if self.arriving == 0 {
            return None;
        }
        let failures = view.groups(task.uid).filter_map(|g| {
            let failure = g.scaling.as_ref()?.launch_failure.as_ref()?;
            // A group that waits for nothing keeps its last failure: old news.
            (view::requested(g) > view::live(g)).then_some((g, failure))
        });
        if let Some((group, failure)) = failures.max_by_key(|(_, f)| f.at) {
            let what = format!("{} in {}", group.instance_type, group.zone);
            return Some(if failure.no_capacity {
                let message = format!(
                    "AWS has no {what} to sell at present ({}); it is asked again by itself; add instance types, \
                     subnets in other zones, or a second pool to the placement",
                    failure.message
                );
                (Reason::NoCapacity, message)
            } else {
                (
                    Reason::NodeGroupUnhealthy,
                    format!("Launching {what} fails: {}", failure.message),
                )
            });
        }
        if let Some(issue) = view.groups(task.uid).find_map(|g| g.issues.first()) {
            return Some((Reason::NodeGroupUnhealthy, format!("EKS reports: {issue}")));
        }
        if self.without_gpus == self.arriving {
            let message = format!(
                "{} nodes are Ready, but show no GPUs yet; if it stays so, install the NVIDIA device plugin",
                self.without_gpus
            );
            return Some((Reason::GpusNotAllocatable, message));
        }
        let message = format!("{} nodes are being launched", self.arriving);
        Some((Reason::NodesLaunching, message))
    }
}

impl<'a> Place<'a> {
    fn node(&self) -> Option<&'a str> {
        match self {
            Place::Occupied(name) | Place::Empty(name) | Place::Draining(name) | Place::Joining(name, _) => {
                Some(name)
            }
            Place::Instance | Place::Order(_) => None,
        }
    }
}

fn node_places<'a>(view: &View<'a>, task: &Task<'a>) -> Vec<(Place<'a>, Allocatable)> {
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
        if let Some(since) = node.victim_since {
            if usable && !emptied && (holds || may_reclaim(view, node, since)) {
                places.push((Place::Draining(name), node.allocatable.minus(&taken)));
            }
        } else if node.unschedulable {
            // Cordoned by somebody else: holds what it holds, takes nothing.
            if holds {
                places.push((Place::Occupied(name), Allocatable::default()));
            }
        } else if holds {
            places.push((Place::Occupied(name), node.allocatable.minus(&taken)));
        } else if usable && !emptied {
            places.push((Place::Empty(name), node.allocatable.minus(&taken)));
        } else if !usable {
            let room = view.type_of(id).and_then(|t| view.new_node(task.name, t));
            places.push((Place::Joining(name, node.ready), room.unwrap_or_default()));
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

fn ordered_places<'a>(view: &View<'a>, task: &Task<'a>) -> Vec<(Place<'a>, Allocatable)> {
    let known: BTreeSet<&str> = view.nodes(task.name).map(|(id, _)| id.instance_id()).collect();
    let mut places = vec![];
    for group in view.groups(task.uid) {
        let Some(scaling) = &group.scaling else { continue };
        let Some(room) = view.new_node(task.name, &group.instance_type) else {
            continue;
        };
        let alive = |l: Lifecycle| matches!(l, Lifecycle::Pending | Lifecycle::InService);
        let living: Vec<_> = scaling.instances.iter().filter(|i| alive(i.lifecycle)).collect();
        let nodeless = living.iter().filter(|i| !known.contains(i.id.as_str()));
        places.extend(nodeless.map(|_| (Place::Instance, room)));
        let unfilled = (scaling.desired as usize).saturating_sub(living.len());
        places.extend((0..unfilled).map(|_| (Place::Order(&group.name), room)));
    }
    places
}
