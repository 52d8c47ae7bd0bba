//! Which of the pool's nodes are needed, which are surplus, and what finds no room on any.

use std::collections::{BTreeMap, BTreeSet};

use crds::Reason;
use jiff::Timestamp;

use super::place::{self, Kind, Place};
use super::roll::{self, Moves, Roll};
use super::{Shortage, Task, retract};
use crate::capacity::{self, Bin, Demand};
use crate::observed::{NodeObserved, ProviderId};
use crate::plan::{GroupName, NodeMark};
use crate::view::{self, View};

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
    /// Orders not filled that are needed, by group.
    pub needed_orders: BTreeMap<GroupName, u32>,
    /// Nodes that are on their way and needed, and those of them that are Ready and lack GPUs.
    pub arriving: u32,
    pub without_gpus: u32,
    /// The next step of a roll, if one is due.
    pub moves: Moves<'a>,
    pub next_check: Option<Timestamp>,
}

impl<'a> NodePlan<'a> {
    #[must_use]
    pub fn of(view: &View<'a>, task: &Task<'a>, roll: &Roll<'a>) -> Self {
        let places = place::places(view, task, roll);
        let bins = places.iter().map(|place| Bin {
            free: place.free,
            used: false,
        });
        let mut bins: Vec<Bin> = bins.collect();
        let unplaced = capacity::pack(&task.demand, &mut bins);
        let by_demand: Vec<bool> = bins.iter().map(|b| b.used).collect();
        let mut plan = Self {
            unplaced,
            moves: roll::moves(view, task, roll, &places, &mut bins),
            ..Self::default()
        };
        let mut filled = BTreeSet::new();
        for ((place, demanded), bin) in places.iter().zip(by_demand).zip(&bins) {
            plan.count(place, demanded, bin.used);
            if demanded || bin.used {
                filled.extend(place.node());
            }
        }
        for (id, node) in view.nodes(task.name) {
            let wanted = filled.contains(node.name.as_str());
            plan.mark(view, task, roll, (id, node), wanted);
        }
        plan
    }

    /// `demanded`: the pool's own demand needs it; `moved`: a roll does.
    fn count(&mut self, place: &Place<'a>, demanded: bool, moved: bool) {
        if let Kind::Order(group) = place.kind
            && (demanded || moved)
        {
            *self.needed_orders.entry(group.clone()).or_default() += 1;
        }
        if !demanded && !place.holds {
            return;
        }
        self.needed += 1;
        match place.kind {
            Kind::Occupied(_) | Kind::Empty(_) | Kind::Draining(_) => {}
            Kind::Joining(_, lacks_gpus) => {
                self.arriving += 1;
                self.without_gpus += u32::from(lacks_gpus);
            }
            Kind::Instance | Kind::Order(_) => self.arriving += 1,
        }
    }

    /// `wanted`: pods were packed into it.
    fn mark(
        &mut self,
        view: &View<'a>,
        task: &Task<'a>,
        roll: &Roll<'a>,
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
            // An empty one may be a replacement that a roll waits for: only AWS can say.
            let spare = usable && view.cloud().is_some();
            let surplus = !holds && !wanted && !node.unschedulable && (spare || !empty);
            let surplus = surplus && view.observed.settings.mutations == crate::observed::CloudMutations::All;
            if surplus || self.moves.drain.contains(node.name.as_str()) {
                let name = node.name.clone();
                self.marks.push(NodeMark::Drain {
                    node: name,
                    since: view.now,
                });
            }
            return;
        };
        // What is being emptied for a roll goes on; whether it is, only AWS can say.
        let leaves = roll.is_outdated(id) || view.cloud().is_none();
        if wanted || (holds && !leaves) {
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
        if let Some(group) = view.groups(task.uid).find(|g| retract::is_stuck(g)) {
            let message = format!(
                "An order of {} in {} has not been filled for {} minutes and AWS gives no reason; see the activity of its Auto \
                 Scaling group, and whether its Launch process is suspended",
                group.instance_type,
                group.zone,
                retract::ORDER_PATIENCE.as_mins()
            );
            return Some((Reason::NodeGroupUnhealthy, message));
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
