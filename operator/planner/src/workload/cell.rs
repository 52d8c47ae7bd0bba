//! Replicas of a model cut into cells, and the bounds of a roll cut into the cells' shares.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;

use super::{CELL_REPLICAS, Shape};
use crate::observed::PoolName;
use crate::shrink::cell_replicas;

/// One Deployment of a model.
#[derive(Debug)]
pub(super) struct Cell<'a> {
    pub pool: PoolName,
    pub index: u32,
    pub replicas: u32,
    pub max_surge: u32,
    pub max_unavailable: u32,
    /// The Deployment, if it exists.
    pub deployment: Option<&'a Deployment>,
    /// Nothing will be placed here as things are: a cell behind the last one, or a pool that left the placement.
    pub surplus: bool,
}

impl Cell<'_> {
    /// Surplus and empty: it can go. It is emptied first, so that its pods leave as those of any other shrink do.
    pub fn is_over(&self) -> bool {
        let Some(deployment) = self.deployment else {
            return self.replicas == 0;
        };
        let asked = deployment.spec.as_ref().and_then(|s| s.replicas);
        let status = deployment.status.as_ref();
        let seen = status.and_then(|s| s.observed_generation) >= deployment.metadata.generation;
        let pods = status.and_then(|s| s.replicas).unwrap_or(0);
        self.surplus && self.replicas == 0 && asked == Some(0) && seen && pods == 0
    }
}

/// The cells that are wanted or exist, by pool and index.
pub(super) fn cells<'a>(shape: &Shape<'a>) -> Vec<Cell<'a>> {
    let mut existing: BTreeMap<(PoolName, u32), &Deployment> = BTreeMap::new();
    for deployment in &shape.model.deployments {
        existing.extend(place(deployment).map(|place| (place, deployment)));
    }
    let mut places: BTreeMap<(PoolName, u32), Option<&Deployment>> = existing
        .into_iter()
        .map(|(place, deployment)| (place, Some(deployment)))
        .collect();
    for (pool, replicas) in shape.replicas {
        for index in 0..replicas.div_ceil(CELL_REPLICAS) {
            places.entry((pool.clone(), index)).or_default();
        }
    }
    let cells = places.into_iter().map(|((pool, index), deployment)| Cell {
        replicas: cell_replicas(shape.replicas.get(&pool).copied().unwrap_or(0), index),
        surplus: index > 0 || !shape.model.spec.spec.placement.iter().any(|p| p.pool == pool.0),
        max_surge: 0,
        max_unavailable: 0,
        pool,
        index,
        deployment,
    });
    let mut cells: Vec<Cell> = cells.collect();
    share_bounds(shape, &mut cells);
    cells
}

fn place(deployment: &Deployment) -> Option<(PoolName, u32)> {
    let labels = deployment.metadata.labels.as_ref()?;
    let pool = labels.get(crds::key::POOL)?.clone();
    Some((PoolName(pool), labels.get(crds::key::CELL)?.parse().ok()?))
}

/// Each cell gets its part of the model's bounds, in whole replicas, so that the parts add up to the whole. Kubernetes wants
/// one of the two above 0 in every Deployment, so a model in more cells than its bounds have replicas exceeds them.
fn share_bounds(shape: &Shape, cells: &mut [Cell]) {
    let total: u64 = cells.iter().map(|c| u64::from(c.replicas)).sum();
    let rollout = &shape.model.spec.spec.rollout;
    let surge = if shape.surge {
        bound(&rollout.max_surge, total, Rounding::Up)
    } else {
        0
    };
    let unavailable = bound(&rollout.max_unavailable, total, Rounding::Down);
    let mut before = 0;
    for cell in cells {
        let after = before + u64::from(cell.replicas);
        cell.max_surge = share(surge, before, after, total);
        cell.max_unavailable = share(unavailable, before, after, total);
        if cell.max_surge == 0 && cell.max_unavailable == 0 {
            if shape.surge && surge > 0 {
                cell.max_surge = 1;
            } else {
                cell.max_unavailable = 1;
            }
        }
        before = after;
    }
}

fn share(whole: u64, before: u64, after: u64, total: u64) -> u32 {
    let upto = |n: u64| (whole * n).checked_div(total).unwrap_or(0);
    u32::try_from(upto(after) - upto(before)).unwrap_or(u32::MAX)
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Rounding {
    Up,
    Down,
}

/// A count, or a percentage of the replicas.
pub(super) fn bound(text: &str, replicas: u64, rounding: Rounding) -> u64 {
    let Some(percent) = text.strip_suffix('%') else {
        return text.parse().unwrap_or(0);
    };
    let hundredfold = percent.parse::<u64>().unwrap_or(0) * replicas;
    match rounding {
        Rounding::Up => hundredfold.div_ceil(100),
        Rounding::Down => hundredfold / 100,
    }
}
