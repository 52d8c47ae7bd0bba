//! One model: from its part of the fleet's decision to the objects to apply.

use std::collections::BTreeMap;

use crds::Reason;

use crate::accept::ModelVerdict;
use crate::fleet;
use crate::observed::{ModelKey, ModelObserved, PoolName};
use crate::plan::{Finalizer, ModelPlan, ObjectRef};
use crate::pool::Shortage;
use crate::shrink::{Shrink, VICTIM_COST};
use crate::status;
use crate::view::{self, View};
use crate::workload::{self, Shape};

/// What was decided for one model.
pub struct Decided<'a> {
    pub key: &'a ModelKey,
    pub model: &'a ModelObserved,
    pub verdict: &'a ModelVerdict,
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
        let objects = workload::objects(&Shape {
            key: decided.key,
            model: decided.model,
            settings: &view.observed.settings,
            replicas: &replicas,
            pools: &view.observed.pools,
            surge: decided.surge,
        });
        plan.objects = objects.apply;
        plan.deletes = objects.deletes;
        plan.status.selector = objects.selector;
        revision = Some(objects.revision);
    }
    status::model::fill(view, decided, revision.as_deref(), &mut plan);
    plan
}

/// Replicas to ask for now: a shrink waits until the nodes that it empties are cordoned.
fn replicas_now(view: &View, decided: &Decided) -> BTreeMap<PoolName, u32> {
    let mut replicas = decided.assigned.clone();
    for deployment in &decided.model.deployments {
        if let Some((pool, _)) = view::deployment_replicas(deployment) {
            replicas.entry(pool).or_insert(0);
        }
    }
    if !fleet::cordons_first(view) {
        return replicas;
    }
    for (pool, wanted) in &mut replicas {
        let existing = view.observed.pools.contains_key(pool);
        let shrink = decided.shrinks.get(pool);
        let waits = shrink.is_some_and(|s| s.waits_for(view, decided.key).next().is_some());
        if existing && waits {
            let of_pool = decided
                .model
                .deployments
                .iter()
                .filter_map(view::deployment_replicas);
            let have: u32 = of_pool.filter(|(p, _)| p == pool).map(|(_, n)| n).sum();
            *wanted = have.max(*wanted);
        }
    }
    replicas
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
