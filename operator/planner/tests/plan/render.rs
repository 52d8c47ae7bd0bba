//! A plan as text, for goldens.

use std::fmt::Write as _;

use planner::observed::Observed;
use planner::plan::{CloudAction, Finalizer, FleetPlan, GroupName, ModelPlan, NodeMark, PoolPlan};

/// Effects only, in the order in which they are applied, and what the conditions say.
pub fn render(observed: &Observed, plan: &FleetPlan) -> String {
    let mut text = String::new();
    for (name, part) in &plan.pools {
        writeln!(text, "pool {}: {} nodes wanted", name.0, part.nodes_wanted).unwrap();
        pool(observed, part, &mut text);
    }
    for (key, part) in &plan.models {
        let assigned: Vec<_> = part
            .assigned
            .iter()
            .map(|(p, n)| format!("{}={n}", p.0))
            .collect();
        writeln!(text, "model {}: {}", key.name, assigned.join(" ")).unwrap();
        model(part, &mut text);
    }
    for action in &plan.account.sweep {
        writeln!(text, "sweep {}", describe(observed, action)).unwrap();
    }
    text
}

pub fn actions(observed: &Observed, plan: &PoolPlan) -> Vec<String> {
    plan.cloud.iter().map(|a| describe(observed, a)).collect()
}

fn pool(observed: &Observed, part: &PoolPlan, text: &mut String) {
    finalizer(part.finalizer, text);
    for mark in &part.node_marks {
        match mark {
            NodeMark::Drain { node, .. } => writeln!(text, "  drain {node}"),
            NodeMark::Reclaim { node } => writeln!(text, "  reclaim {node}"),
        }
        .unwrap();
    }
    for action in actions(observed, part) {
        writeln!(text, "  {action}").unwrap();
    }
    conditions(&part.conditions, text);
}

fn model(part: &ModelPlan, text: &mut String) {
    finalizer(part.finalizer, text);
    for (pod, cost) in &part.pod_costs {
        writeln!(text, "  cost {pod} {cost}").unwrap();
    }
    for object in &part.objects {
        let replicas = object["spec"]["replicas"].as_u64();
        let replicas = replicas.map_or_else(String::new, |n| format!(" x{n}"));
        let kind = object["kind"].as_str().unwrap();
        let name = object["metadata"]["name"].as_str().unwrap();
        writeln!(text, "  apply {kind} {name}{replicas}").unwrap();
    }
    for delete in &part.deletes {
        writeln!(text, "  delete {} {}", delete.kind, delete.name).unwrap();
    }
    conditions(&part.conditions, text);
}

fn finalizer(finalizer: Finalizer, text: &mut String) {
    match finalizer {
        Finalizer::Keep => {}
        Finalizer::Add => text.push_str("  add finalizer\n"),
        Finalizer::Remove => text.push_str("  remove finalizer\n"),
    }
}

fn conditions(conditions: &[crds::condition::WantedCondition], text: &mut String) {
    for c in conditions {
        let status = c.status.map_or("Unknown", |s| if s { "True" } else { "False" });
        let (type_, reason) = (c.type_.as_str(), c.reason.name());
        writeln!(text, "  {type_}={status} {reason}: {}", c.message).unwrap();
    }
}

fn describe(observed: &Observed, action: &CloudAction) -> String {
    let place = |name: &GroupName| {
        let groups = observed.cloud.as_ref().map(|c| &c.groups);
        groups.and_then(|g| g.get(name)).map_or_else(
            || name.0.clone(),
            |g| format!("{}/{}/{}", g.instance_type, g.zone, g.owner.shard),
        )
    };
    match action {
        CloudAction::Create(spec) => format!("create {}/{}/{}", spec.instance_type, spec.subnet, spec.shard),
        CloudAction::Grow { group, desired, .. } => format!("grow {} to {desired}", place(group)),
        CloudAction::Retract { group, desired, .. } => format!("retract {} to {desired}", place(group)),
        CloudAction::Remove {
            group,
            instances,
            desired,
            ..
        } => format!("remove {} {instances:?} to {desired}", place(group)),
        CloudAction::DeleteGroup { group, .. } => format!("delete {}", place(group)),
        CloudAction::DeleteTemplate { pool_uid, .. } => format!("delete template of {pool_uid}"),
        CloudAction::Adopt {
            group,
            from_uid,
            to_uid,
        } => format!("adopt {} from {from_uid} to {to_uid}", place(group)),
        CloudAction::Release { group, .. } => format!("release {}", place(group)),
    }
}
