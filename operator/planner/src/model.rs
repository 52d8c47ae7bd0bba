//! One model: from its part of the fleet's decision to the objects to apply.

use std::collections::BTreeMap;

use crds::Reason;

use crate::accept::ModelVerdict;
use crate::fleet;
use crate::observed::{ModelKey, ModelObserved, PodObserved, PoolName};
use crate::plan::{Finalizer, ModelPlan, ObjectRef};
use crate::pool::Shortage;
use crate::scaling::Wanted;
use crate::shrink::{Shrink, VICTIM_COST};
use crate::status;
use crate::view::{self, View};
use crate::workload::{self, Shape};

/// What was decided for one model.
pub struct Decided<'a> {
    pub key: &'a ModelKey,
    pub model: &'a ModelObserved,
    pub verdict: &'a ModelVerdict,
    pub wanted: &'a Wanted,
    pub assigned: &'a BTreeMap<PoolName, u32>,
    pub shrinks: &'a BTreeMap<&'a PoolName, Shrink<'a>>,
    pub shortages: &'a BTreeMap<PoolName, Shortage>,
    pub surge: bool,
}

#[must_use]
pub fn plan(view: &View, decided: &Decided) -> ModelPlan {
    let meta = &decided.model.spec.metadata;
    let held = meta
        .finalizers
        .iter()
        .flatten()
        .any(|f| f == crds::TRAFFIC_FINALIZER);
    let mut plan = ModelPlan {
        assigned: decided.assigned.clone(),
        scaling: decided.wanted.autoscaling.clone(),
        ..ModelPlan::default()
    };
    if meta.deletion_timestamp.is_some() {
        if held {
            delete(view, decided, &mut plan);
        }
        return plan;
    }
    if !held {
        plan.finalizer = Finalizer::Add;
    }
    let mut revision = None;
    if !decided.verdict.frozen && held {
        plan.pod_costs = pod_costs(view, decided);
        let replicas = replicas_now(view, decided);
        let shape = Shape {
            key: decided.key,
            model: decided.model,
            settings: &view.observed.settings,
            replicas: &replicas,
            pools: &view.observed.pools,
            surge: decided.surge,
        };
        let objects = workload::objects_unless_settled(&shape, view.observed.settled.get(decided.key));
        plan.settled = objects.settled;
        plan.objects = objects.apply;
        plan.deletes = objects.deletes;
        plan.status.selector = objects.selector;
        revision = Some(objects.revision);
    }
    plan.next_check = plan
        .scaling
        .as_ref()
        .and_then(|(_, decision)| decision.next_check);
    status::model::fill(view, decided, revision.as_deref(), &mut plan);
    plan
}

/// Replicas to ask for now. A shrink waits until the nodes that it empties are cordoned, and a move to another pool until
/// replicas serve there: what serves falls below the minimum by no decision of ours.
fn replicas_now(view: &View, decided: &Decided) -> BTreeMap<PoolName, u32> {
    let mut have = BTreeMap::<PoolName, u32>::new();
    for (pool, replicas) in decided
        .model
        .deployments
        .iter()
        .filter_map(view::deployment_replicas)
    {
        *have.entry(pool).or_default() += replicas;
    }
    let mut replicas = decided.assigned.clone();
    let mut spare = spare(view, decided);
    for (pool, have) in have {
        let wanted = replicas.entry(pool.clone()).or_insert(0);
        if have <= *wanted {
            continue;
        }
        let shrink = decided.shrinks.get(&pool);
        if cordons(view, &pool) && shrink.is_some_and(|s| s.waits_for_cordons(decided.key)) {
            *wanted = have;
            continue;
        }
        let here = view.pods_of(decided.key).filter(|p| serves(p));
        let here = here.filter(|p| p.owner.as_ref().is_some_and(|o| o.pool == pool));
        let idle = have.saturating_sub(u32::try_from(here.count()).unwrap_or(u32::MAX));
        let leaving = (have - *wanted).min(idle.saturating_add(spare));
        spare -= leaving.saturating_sub(idle);
        *wanted = have - leaving;
    }
    replicas
}

/// Serving replicas beyond the minimum of what the model was given.
fn spare(view: &View, decided: &Decided) -> u32 {
    let serving = view.pods_of(decided.key).filter(|p| serves(p)).count();
    let given: u32 = decided.assigned.values().sum();
    let given = i32::try_from(given).unwrap_or(i32::MAX);
    let text = &decided.model.spec.spec.rollout.max_unavailable;
    let minimum = (given - status::model::percent_or_count(text, given)).max(i32::from(given > 0));
    u32::try_from(serving)
        .unwrap_or(u32::MAX)
        .saturating_sub(u32::try_from(minimum).unwrap_or(0))
}

fn serves(pod: &PodObserved) -> bool {
    pod.ready && !pod.terminating
}

/// Nodes of the pool are cordoned when they are to be emptied. Nothing new comes to a pool that is being deleted anyway.
fn cordons(view: &View, pool: &PoolName) -> bool {
    let stays = |p: &crds::GpuPool| p.metadata.deletion_timestamp.is_none();
    fleet::cordons_first(view) && view.observed.pools.get(pool).is_some_and(stays)
}

/// Victims are told apart by their deletion cost; the mark goes when the model has settled.
fn pod_costs(view: &View, decided: &Decided) -> Vec<(String, i32)> {
    let mut costs = vec![];
    for (pool, shrink) in decided.shrinks {
        let live: Vec<_> = view
            .pods(decided.key, pool)
            .iter()
            .filter(|p| !p.terminating)
            .collect();
        let wanted = decided.assigned.get(*pool).copied().unwrap_or(0);
        let settled = live.len() <= wanted as usize;
        for pod in live {
            if shrink.is_victim(pod) && pod.deletion_cost != VICTIM_COST {
                costs.push((pod.name.clone(), VICTIM_COST));
            } else if settled && pod.deletion_cost == VICTIM_COST {
                costs.push((pod.name.clone(), 0));
            }
        }
    }
    costs
}

/// Deployments go first; Services stay until the last pod has drained.
fn delete(view: &View, decided: &Decided, plan: &mut ModelPlan) {
    let deployments = &decided.model.deployments;
    plan.deletes = deployments
        .iter()
        .filter(|d| d.metadata.deletion_timestamp.is_none())
        .map(|d| ObjectRef {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            namespace: decided.key.namespace.clone(),
            name: d.metadata.name.clone().unwrap_or_default(),
            uid: d.metadata.uid.clone().unwrap_or_default(),
        })
        .collect();
    let pods = view.pods_of(decided.key).count();
    if deployments.is_empty() && pods == 0 {
        plan.finalizer = Finalizer::Remove;
        return;
    }
    let message = format!("{pods} pods finish what they accepted");
    plan.conditions = vec![
        status::wanted(
            crds::ConditionType::Ready,
            Some(false),
            Reason::Draining,
            &message,
        ),
        status::wanted(
            crds::ConditionType::Reconciling,
            Some(true),
            Reason::Draining,
            &message,
        ),
    ];
}
