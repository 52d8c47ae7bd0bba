//! Status and conditions of a `ModelDeployment`.

use std::collections::BTreeSet;

use crds::condition::WantedCondition;
use crds::model_deployment::{NodeCounts, ReplicaCounts};
use crds::{ConditionType, Reason};

use super::{Summary, events, scaling, wanted};
use crate::capacity::{self, Demand};
use crate::fleet;
use crate::model::Decided;
use crate::observed::PodObserved;
use crate::plan::ModelPlan;
use crate::view::{self, View};

/// Fills in counts, conditions and events. `revision`: the newest, when it is known.
pub fn fill(view: &View, decided: &Decided, revision: Option<&str>, plan: &mut ModelPlan) {
    let model = &decided.model.spec;
    let old = model.status.clone().unwrap_or_default();
    let pods: Vec<&PodObserved> = view.pods_of(decided.key).filter(|p| !p.terminating).collect();
    if plan.status.selector.is_empty() {
        plan.status.selector.clone_from(&old.selector);
    }
    plan.status.replicas = counts(decided, &pods, revision);
    plan.status.nodes = nodes(view, decided, &pods);
    plan.status.assigned = decided
        .assigned
        .iter()
        .map(|(pool, n)| (pool.0.clone(), int(*n)))
        .collect();
    let replicas = plan.status.replicas;
    let capacity = capacity_condition(decided, &pods, replicas);
    if let Some((_, decision)) = &decided.wanted.autoscaling {
        plan.status.autoscaling = Some(scaling::status(decision));
    }
    let model_ready = model_condition(&pods, replicas, revision);
    let available = available(decided, replicas);
    let accepted = accepted(decided);
    let minimum_missing = available.status != Some(true);
    let chain = [&accepted, &model_ready, &capacity, &available];
    let cause = chain
        .iter()
        .find(|c| c.status == Some(false) && (minimum_missing || c.type_ == ConditionType::Accepted))
        .map(|c| (c.reason, c.message.clone()));
    let troubled = model_ready.status == Some(false);
    let generation = model.metadata.generation.unwrap_or(0);
    let summary = Summary {
        old: &old.conditions,
        generation,
        stalled: decided.verdict.refusal.is_some() || (troubled && minimum_missing),
        settled: revision.is_some()
            && plan.objects.is_empty()
            && [replicas.current, replicas.ready, replicas.updated]
                .iter()
                .all(|n| *n == replicas.desired),
        blocker: cause,
    };
    plan.conditions = vec![accepted, capacity, model_ready, available];
    let decision = decided.wanted.autoscaling.iter();
    plan.conditions
        .extend(decision.flat_map(|(_, decision)| scaling::conditions(decision)));
    plan.events = events(&old.conditions, &plan.conditions);
    let done = format!("{} of {} replicas serve", replicas.ready, replicas.desired);
    plan.conditions.extend(summary.conditions(&done));
}

fn accepted(decided: &Decided) -> WantedCondition {
    let type_ = ConditionType::Accepted;
    if let Some((reason, message)) = &decided.verdict.refusal {
        return wanted(type_, Some(false), *reason, message);
    }
    let foreign = &decided.model.foreign_budgets;
    if foreign.is_empty() {
        return wanted(type_, Some(true), Reason::Accepted, "The spec can be used");
    }
    // Serving is not hurt, but no pod can be evicted: Kubernetes refuses where two budgets match (kubernetes#75957).
    let message = format!(
        "The spec can be used, but PodDisruptionBudget {} selects this model's pods too, and where two budgets match no \
         pod can be evicted; delete it, or narrow its selector",
        foreign.join(", ")
    );
    wanted(type_, Some(true), Reason::PdbConflict, &message)
}

fn int(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn len<T>(items: impl Iterator<Item = T>) -> i32 {
    i32::try_from(items.count()).unwrap_or(i32::MAX)
}

fn counts(decided: &Decided, pods: &[&PodObserved], revision: Option<&str>) -> ReplicaCounts {
    let newest = |p: &&&PodObserved| {
        p.owner
            .as_ref()
            .is_some_and(|o| Some(o.revision.as_str()) == revision)
    };
    ReplicaCounts {
        current: len(pods.iter()),
        desired: int(decided.wanted.replicas),
        ready: len(pods.iter().filter(|p| p.ready)),
        updated: len(pods.iter().filter(newest)),
        unschedulable: len(pods.iter().filter(|p| p.node.is_none())),
    }
}

fn nodes(view: &View, decided: &Decided, pods: &[&PodObserved]) -> NodeCounts {
    let holding: BTreeSet<&str> = pods.iter().filter_map(|p| p.node.as_deref()).collect();
    let request = view::request_of(&decided.model.spec);
    let desired = decided.assigned.iter().filter_map(|(pool, count)| {
        let (name, spec) = view.observed.pools.get_key_value(pool)?;
        let room = view.any_new_node(name, spec)?;
        Some(
            capacity::nodes_for(
                &[Demand {
                    request,
                    count: *count,
                }],
                &room,
            )
            .0,
        )
    });
    NodeCounts {
        desired: int(desired.sum()),
        ready: len(holding.into_iter()),
    }
}

fn capacity_condition(decided: &Decided, pods: &[&PodObserved], replicas: ReplicaCounts) -> WantedCondition {
    let assigned: u32 = decided.assigned.values().sum();
    let missing = replicas.desired - int(assigned);
    let refused = decided.model.deployments.iter().find_map(view::replica_failure);
    let waiting = pods.iter().filter(|p| p.node.is_none()).count();
    let bound = replicas.current - int(u32::try_from(waiting).unwrap_or(u32::MAX));
    let say = |reason, message: &str| wanted(ConditionType::CapacityReady, Some(false), reason, message);
    if let Some(message) = refused {
        return say(
            Reason::ReplicaFailure,
            &format!("Kubernetes refuses to create pods: {message}"),
        );
    }
    if missing <= 0 && waiting == 0 && bound >= replicas.desired {
        let message = "Every replica has a node";
        return wanted(
            ConditionType::CapacityReady,
            Some(true),
            Reason::CapacityReady,
            message,
        );
    }
    let pools = view::placement_pools(&decided.model.spec);
    if let Some((reason, message)) = fleet::shortage_of(&pools, decided.shortages) {
        return say(*reason, message);
    }
    if missing > 0 {
        let names: Vec<&str> = pools.iter().map(|p| p.0.as_str()).collect();
        let message = format!(
            "{missing} replicas find no room in {}: limits.maxNodes, maxReplicas or models of higher priority stand in the \
             way; raise a limit or add a pool to the placement",
            names.join(", ")
        );
        return say(Reason::PoolLimit, &message);
    }
    let stuck = pods.iter().filter(|p| p.unschedulable).count();
    if stuck > 0 {
        let message = format!("{stuck} pods wait for a node that can take them");
        return say(Reason::PodUnschedulable, &message);
    }
    say(Reason::PodsStarting, "Pods are being created and bound to nodes")
}

/// What the pods of the newest revision say of their model; while none speaks, it is not known.
fn model_condition(
    pods: &[&PodObserved],
    replicas: ReplicaCounts,
    revision: Option<&str>,
) -> WantedCondition {
    let newest = pods.iter().filter(|p| {
        p.owner
            .as_ref()
            .is_some_and(|o| Some(o.revision.as_str()) == revision)
    });
    let newest: Vec<_> = newest.collect();
    let troubled: Vec<_> = newest
        .iter()
        .filter_map(|p| p.trouble.as_ref().map(|t| (p, t)))
        .collect();
    let serving = newest.iter().filter(|p| p.ready).count();
    let type_ = ConditionType::ModelReady;
    if let Some((pod, trouble)) = troubled.first()
        && serving == 0
    {
        let message = format!("pod {}: {}", pod.name, trouble.message);
        return wanted(type_, Some(false), trouble.reason, &message);
    }
    if serving > 0 {
        return wanted(
            type_,
            Some(true),
            Reason::ModelLoaded,
            "The model is loaded and serves",
        );
    }
    if replicas.desired == 0 {
        return wanted(type_, None, Reason::NoReplicas, "replicas is 0");
    }
    wanted(
        type_,
        None,
        Reason::ModelLoading,
        "No replica of the newest revision serves yet",
    )
}

/// Serving replicas against the minimum: `replicas` less `rollout.maxUnavailable`.
fn available(decided: &Decided, replicas: ReplicaCounts) -> WantedCondition {
    let minimum = int(decided.wanted.minimum);
    let type_ = ConditionType::Available;
    if replicas.desired == 0 {
        return wanted(type_, Some(true), Reason::NoReplicas, "replicas is 0, as asked");
    }
    let message = format!(
        "{} replicas serve; {} are asked for",
        replicas.ready, replicas.desired
    );
    if replicas.ready >= minimum {
        return wanted(type_, Some(true), Reason::Available, &message);
    }
    wanted(type_, Some(false), Reason::PodsStarting, &message)
}

/// `3` or `5%` of `total`, rounded down.
#[must_use]
pub fn percent_or_count(text: &str, total: i32) -> i32 {
    match text.strip_suffix('%') {
        Some(percent) => {
            let percent: i64 = percent.parse().unwrap_or(0);
            i32::try_from(i64::from(total) * percent / 100).unwrap_or(0)
        }
        None => text.parse().unwrap_or(0),
    }
}
