//! Which pods, and with them which nodes, go when a model gets fewer replicas in a pool.
//!
//! The order of a shrink is: cordon the nodes that will be empty, write deletion costs on the victims, lower `replicas`,
//! let the pods drain, remove the empty nodes. Every step is planned from what is observed, so that it can be taken up
//! again after a crash: nodes that are cordoned and pods that carry a cost are chosen again first.

use std::collections::{BTreeMap, BTreeSet};

use crate::observed::{ModelKey, PodObserved, PoolName};
use crate::view::View;
use crate::workload::CELL_REPLICAS;

/// `controller.kubernetes.io/pod-deletion-cost` of a victim; everybody else has 0.
pub const VICTIM_COST: i32 = -100;

/// Victims in one pool.
#[derive(Debug, Default)]
pub struct Shrink<'a> {
    victims: BTreeSet<(&'a str, &'a str)>,
    /// Nodes on which only victims live.
    pub emptied: BTreeSet<&'a str>,
    /// Models with a victim on a node of `emptied` that is not cordoned yet.
    waiting: BTreeSet<&'a ModelKey>,
}

/// Replicas of a model in a pool: what its Deployments ask for by cell, and what is wanted.
#[derive(Clone, Debug)]
pub struct Resize<'a> {
    pub model: &'a ModelKey,
    pub cells: BTreeMap<u32, u32>,
    pub wanted: u32,
}

impl<'a> Shrink<'a> {
    #[must_use]
    pub fn choose(view: &View<'a>, pool: &'a PoolName, resizes: &[Resize<'a>]) -> Self {
        let mut shrink = Self::default();
        for resize in resizes {
            let live: Vec<_> = view
                .pods(resize.model, pool)
                .iter()
                .filter(|p| !p.terminating)
                .collect();
            let mut cells: BTreeMap<u32, Vec<&PodObserved>> = BTreeMap::new();
            for pod in live {
                let cell = pod.owner.as_ref().map_or(0, |owner| owner.cell);
                cells.entry(cell).or_default().push(pod);
            }
            for (cell, pods) in cells {
                let have = resize.cells.get(&cell).copied().unwrap_or(0);
                let wanted = cell_replicas(resize.wanted, cell);
                shrink.choose_in_cell(view, pods, have, wanted);
            }
        }
        shrink.find_emptied(view, pool);
        shrink
    }

    #[must_use]
    pub fn is_victim(&self, pod: &PodObserved) -> bool {
        self.victims
            .contains(&(pod.namespace.as_str(), pod.name.as_str()))
    }

    fn choose_in_cell(&mut self, view: &View<'a>, mut pods: Vec<&'a PodObserved>, have: u32, wanted: u32) {
        let live = u32::try_from(pods.len()).unwrap_or(u32::MAX);
        let surplus = live.saturating_sub(wanted);
        if have <= wanted {
            // `replicas` is lowered already; the condemned ones are about to go.
            pods.retain(|p| p.deletion_cost < 0);
        }
        pods.sort_by_cached_key(|pod| {
            let node = pod.node.as_deref();
            let draining = node.is_some_and(|n| view.is_draining(n));
            let neighbours = node.map_or(0, |n| view.model_pods_on(n).count());
            let rank = (pod.node.is_some(), pod.ready, pod.deletion_cost >= 0, !draining);
            (rank, neighbours, node, pod.name.as_str())
        });
        let chosen = pods.into_iter().take(surplus as usize);
        self.victims
            .extend(chosen.map(|p| (p.namespace.as_str(), p.name.as_str())));
    }

    fn find_emptied(&mut self, view: &View<'a>, pool: &PoolName) {
        for (_, node) in view.nodes(pool) {
            let live: Vec<_> = view
                .model_pods_on(&node.name)
                .filter(|p| !p.terminating)
                .collect();
            if !live.is_empty() && live.iter().all(|p| self.is_victim(p)) {
                self.emptied.insert(&node.name);
                if !view.is_cordoned(&node.name) {
                    let owners = live.iter().filter_map(|p| p.owner.as_ref());
                    self.waiting.extend(owners.map(|o| &o.model));
                }
            }
        }
    }

    /// Nodes have to be cordoned before this model may shrink here. A cordon of somebody else is as good.
    #[must_use]
    pub fn waits_for_cordons(&self, model: &ModelKey) -> bool {
        self.waiting.contains(model)
    }
}

/// Replicas of one cell when a model has `total` in a pool: the first cells are full.
#[must_use]
pub fn cell_replicas(total: u32, cell: u32) -> u32 {
    total
        .saturating_sub(cell.saturating_mul(CELL_REPLICAS))
        .min(CELL_REPLICAS)
}
