//! What a run comes to, without names that chance gave, uids and times: the end state, and what was made and unmade on the way.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::plan::world::World;

/// (end state, creates, deletes, nodes ordered and given back by resource)
pub fn of(world: &World) -> (String, String) {
    let mut end = String::new();
    let observed = &world.fixture.observed;
    for (name, pool) in &observed.pools {
        let status = pool.status.clone().unwrap_or_default();
        writeln!(end, "pool {} {:?}", name.0, pool.metadata.finalizers).unwrap();
        writeln!(
            end,
            "  {:?} {} groups {} USD/h",
            status.nodes, status.groups, status.hourly_usd
        )
        .unwrap();
        conditions(&mut end, &status.conditions);
    }
    for (key, model) in &observed.models {
        let status = model.spec.status.clone().unwrap_or_default();
        writeln!(end, "model {} {:?}", key.name, model.spec.metadata.finalizers).unwrap();
        writeln!(
            end,
            "  {:?} {:?} {:?}",
            status.replicas, status.nodes, status.assigned
        )
        .unwrap();
        conditions(&mut end, &status.conditions);
        for deployment in &model.deployments {
            let replicas = deployment.spec.as_ref().and_then(|s| s.replicas);
            writeln!(end, "  {:?} x{replicas:?}", deployment.metadata.name).unwrap();
        }
        let objects = (
            model.services.len(),
            model.service_accounts.len(),
            model.budgets.len(),
        );
        writeln!(end, "  services, accounts, budgets: {objects:?}").unwrap();
    }
    let mut pods = BTreeMap::<String, u32>::new();
    for pod in &world.pods.list {
        let owner = pod.owner.as_ref().unwrap();
        let text = format!(
            "{} {} {} {}",
            owner.model.name, owner.revision, pod.ready, pod.deletion_cost
        );
        *pods.entry(text).or_default() += 1;
    }
    let cordoned = observed.nodes.values().filter(|n| n.unschedulable).count();
    writeln!(
        end,
        "pods {pods:?}; {} nodes, {cordoned} cordoned",
        observed.nodes.len()
    )
    .unwrap();
    for (name, group) in &world.aws.groups {
        let sizes = (group.desired, group.live());
        writeln!(end, "group {} of {} {sizes:?}", name.0, group.owner_uid).unwrap();
    }
    writeln!(end, "templates {:?}", world.aws.templates.keys()).unwrap();
    let mut tally = String::new();
    for (resource, counts) in &world.aws.tally {
        writeln!(tally, "{resource} {counts:?}").unwrap();
    }
    writeln!(tally, "{} pods", world.pods.made).unwrap();
    (end, tally)
}

fn conditions(text: &mut String, conditions: &[Condition]) {
    for c in conditions {
        writeln!(text, "  {}={} {}", c.type_, c.status, c.reason).unwrap();
    }
}
