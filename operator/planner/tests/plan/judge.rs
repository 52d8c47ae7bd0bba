//! The invariants of the house (design page "reliability"), judged from what really is, not from what the planner sees.

use std::collections::BTreeSet;

use crds::gpu_pool::DeletionPolicy;
use planner::observed::{NodeObserved, PoolName};
use planner::plan::{CloudAction, Eviction};

use super::aws::age;
use super::world::World;

/// A sweep waits for the next read of AWS, a plan, and a group that is being made.
const SWEEP_SLACK: i64 = 180;

/// After every step.
pub fn step(world: &mut World) {
    // What AWS does not tell of yet, nobody can count.
    world.misled = world.lag > 0 || (world.misled && over_cap(world));
    caps(world);
    twins(world);
    leftovers(world);
    foreign(world);
    statuses(world);
    let (serving, floor) = (world.serving(), world.serving_floor);
    assert!(
        serving >= floor,
        "{serving} replicas serve, not {floor}\n{}",
        world.last_words()
    );
}

fn living_uids(world: &World) -> BTreeSet<String> {
    let pools = world.fixture.observed.pools.values();
    pools.filter_map(|p| p.metadata.uid.clone()).collect()
}

fn over_cap(world: &World) -> bool {
    let mut pools = world.fixture.observed.pools.values();
    pools.any(|pool| {
        let uid = pool.metadata.uid.as_ref();
        let groups = world.aws.groups.values().filter(|g| Some(&g.owner_uid) == uid);
        let requested: u32 = groups.map(super::aws::Group::requested).sum();
        i64::from(requested) > i64::from(pool.spec.limits.max_nodes)
    })
}

/// I1, also after every call.
pub fn caps(world: &World) {
    let observed = &world.fixture.observed;
    for pool in observed.pools.values() {
        let of_pool = world
            .ours()
            .filter(|(_, g)| Some(&g.owner_uid) == pool.metadata.uid.as_ref());
        let requested: u32 = of_pool.map(|(_, g)| g.requested()).sum();
        let cap = pool.spec.limits.max_nodes;
        if world.misled {
            continue;
        }
        assert!(
            i64::from(requested) <= i64::from(cap),
            "I1: {requested} nodes, cap {cap}\n{}",
            world.last_words()
        );
    }
    let all: u32 = world.ours().map(|(_, g)| g.requested()).sum();
    assert!(all <= observed.settings.max_nodes, "I1: {all} nodes in all");
    let ceiling = world.nodes_ceiling;
    assert!(
        all <= ceiling,
        "I9: {all} nodes, not {ceiling}\n{}",
        world.last_words()
    );
}

/// I2
fn twins(world: &World) {
    let mut seen = BTreeSet::new();
    for group in world.aws.groups.values().filter(|g| g.deleted.is_none()) {
        let identity = (
            &group.owner_uid,
            group.pool(),
            group.spec.shard,
            &group.spec.spec_hash,
        );
        assert!(
            seen.insert(identity),
            "I2: two of {identity:?}\n{}",
            world.last_words()
        );
    }
}

/// I3: what is empty and has no owner does not stay.
fn leftovers(world: &mut World) {
    let living = living_uids(world);
    let used: BTreeSet<&str> = world
        .aws
        .groups
        .values()
        .map(|g| g.spec.template_name.as_str())
        .collect();
    let groups = world.aws.groups.iter().filter(|(_, g)| {
        g.is_empty() && g.deleted.is_none() && !g.released && !living.contains(&g.owner_uid)
    });
    let templates = world.aws.templates.values();
    let templates = templates.filter(|t| !used.contains(t.name.as_str()) && !living.contains(&t.pool_uid));
    let names = groups.map(|(name, _)| name.0.clone());
    let names: BTreeSet<String> = names.chain(templates.map(|t| t.name.clone())).collect();
    let now = world.now();
    world.ownerless.retain(|name, _| names.contains(name));
    for name in names {
        let since = *world.ownerless.entry(name.clone()).or_insert(now);
        let bound = world.fixture.observed.settings.sweep_after.as_secs() + SWEEP_SLACK + world.lag;
        let free = world.sweeping_held || world.unreadable;
        assert!(
            free || age(since, now) <= bound,
            "I3: {name} is left\n{}",
            world.last_words()
        );
    }
}

/// I10
fn foreign(world: &World) {
    for name in &world.foreign {
        let group = &world.aws.groups[name];
        let as_it_was = (
            group.desired,
            group.live(),
            group.deleted,
            group.owner_uid.as_str(),
        );
        assert_eq!(as_it_was, (2, 2, None, "pool-0"), "I10\n{}", world.last_words());
        for instance in &group.instances {
            let node = world.fixture.observed.nodes.get(&instance.provider);
            let marked = node.is_some_and(|n| n.victim_since.is_some());
            assert!(!marked && !instance.protected, "I10\n{}", world.last_words());
        }
    }
}

/// I7, as far as a status says of itself.
fn statuses(world: &World) {
    for model in world.fixture.observed.models.values() {
        let status = model.spec.status.as_ref();
        let ready = status.and_then(|s| crds::find_condition(&s.conditions, crds::ConditionType::Ready));
        let deleting = model.spec.metadata.deletion_timestamp.is_some();
        if !deleting && ready.is_some_and(|c| c.status == "True") {
            let generation = model.spec.metadata.generation;
            assert!(ready.and_then(|c| c.observed_generation) <= generation, "I7");
        }
    }
}

/// Before an action is sent: I3, I5, I13, and what a removal may take.
pub fn sends(world: &World, action: &CloudAction) {
    let observed = &world.fixture.observed;
    let cloud = observed.cloud.as_ref().expect("no action without an inventory");
    let text = || format!("{action:?}\n{}", world.last_words());
    let taken = match action {
        CloudAction::Retract { pool_uid, .. } => Some((pool_uid, &[][..])),
        CloudAction::Remove {
            pool_uid, instances, ..
        } => Some((pool_uid, instances.as_slice())),
        _ => None,
    };
    let destroys = taken.is_some()
        || matches!(
            action,
            CloudAction::DeleteGroup { .. } | CloudAction::DeleteTemplate { .. }
        );
    if destroys {
        assert!(cloud.trouble.is_none(), "I5: after a failed read: {}", text());
        let old = age(cloud.read_at, world.now());
        assert!(old <= 60, "I5: on an inventory of {old} s ago: {}", text());
    }
    if let Some((uid, instances)) = taken {
        assert!(living_uids(world).contains(uid), "I13: no owner: {}", text());
        for (provider, node) in &observed.nodes {
            if instances.iter().any(|id| id == provider.instance_id()) {
                assert!(
                    node.unschedulable && node.victim_since.is_some(),
                    "not cordoned: {}",
                    text()
                );
                let pods = world
                    .pods
                    .list
                    .iter()
                    .filter(|p| p.node.as_ref() == Some(&node.name));
                assert_eq!(pods.count(), 0, "{} holds pods: {}", node.name, text());
            }
        }
    }
    if let CloudAction::DeleteGroup { group, .. } = action {
        let seen = cloud.groups.get(group).and_then(|g| g.scaling.as_ref());
        let empty = seen.is_none_or(|s| s.desired == 0 && s.instances.is_empty());
        assert!(empty, "I3: a group with nodes: {}", text());
    }
    if let CloudAction::Grow { group, desired, .. } = action {
        let known = world.aws.groups.get(group);
        let active = known.is_some_and(|g| g.active(world.now()));
        assert!(active || world.lag > 0, "not active: {}", text());
        growth(
            world,
            known.map_or(0, |g| desired.saturating_sub(g.requested())),
            &text(),
        );
    }
}

/// I9: what is on its way is not more than what is missing and max(2, 20 %). Not judged while AWS tells old news.
fn growth(world: &World, more: u32, text: &str) {
    if world.lag > 0 || !world.late.is_empty() {
        return;
    }
    let observed = &world.fixture.observed;
    let requested: u32 = world.ours().map(|(_, g)| g.requested()).sum();
    let useful = observed
        .nodes
        .values()
        .filter(|n| n.allocatable.gpus > 0 && !n.unschedulable);
    let coming = (requested + more).saturating_sub(u32::try_from(useful.count()).unwrap());
    let wish = observed
        .models
        .values()
        .map(|m| u32::try_from(m.spec.spec.replicas.unwrap()).unwrap())
        .sum::<u32>();
    let staying = || world.pods.list.iter().filter(|p| !p.terminating);
    let count = |n: usize| u32::try_from(n).unwrap();
    let waiting = count(staying().filter(|p| p.node.is_none()).count());
    let missing = waiting + wish.saturating_sub(count(staying().count()));
    // Nodes that drain are on their way out, not in.
    let draining = observed.nodes.values().filter(|n| n.unschedulable).count();
    let leaving = world
        .aws
        .groups
        .values()
        .flat_map(|g| &g.instances)
        .filter(|i| i.ended.is_some())
        .count();
    let most = missing + 2.max(wish / 5) + u32::try_from(draining + leaving).unwrap();
    assert!(
        coming <= most,
        "I9: {coming} on their way, {missing} missing: {text}"
    );
}

pub fn evicted(world: &World, eviction: &Eviction) {
    let pod = world.pods.list.iter().find(|p| p.uid == eviction.uid);
    let node = pod.and_then(|p| p.node.clone());
    let mut nodes = world.fixture.observed.nodes.values();
    let cordoned =
        nodes.any(|n| Some(&n.name) == node.as_ref() && n.unschedulable && n.victim_since.is_some());
    assert!(
        cordoned,
        "{eviction:?} from a node that takes pods\n{}",
        world.last_words()
    );
    let cloud = world.fixture.observed.cloud.as_ref().unwrap();
    assert!(age(cloud.read_at, world.now()) <= 60, "I5: {eviction:?}");
}

/// I14: what ends by scale-in is cordoned and empty, whatever arrived late.
pub fn node_lost(world: &World, node: &NodeObserved) {
    let words = world.last_words();
    let holds = world
        .pods
        .list
        .iter()
        .any(|p| p.node.as_ref() == Some(&node.name));
    assert!(!holds, "I14: {} ended under its pods\n{words}", node.name);
    assert!(
        node.victim_since.is_some(),
        "I14: {} was healthy\n{words}",
        node.name
    );
}

/// I4: the pool's last finalizer goes.
pub fn pool_gone(world: &World, name: &PoolName) {
    let pool = &world.fixture.observed.pools[name];
    if pool.spec.deletion_policy == DeletionPolicy::Retain {
        return;
    }
    let uid = pool.metadata.uid.as_deref().unwrap();
    let words = world.last_words();
    let since = pool.status.as_ref().and_then(|s| s.absent_since.clone());
    let waited = since.map_or(0, |t| age(t.0, world.now()));
    assert!(waited >= 60, "I4: absent for {waited} s\n{words}");
    let groups = world.aws.groups.values().filter(|g| g.owner_uid == uid);
    if world.lag == 0 {
        assert_eq!(groups.count(), 0, "I4: groups are left\n{words}");
        let mut templates = world.aws.templates.values();
        assert!(
            !templates.any(|t| t.pool_uid == uid),
            "I4: a template is left\n{words}"
        );
    } else {
        // A group that was made and not told of yet is empty, and swept.
        let nodes: u32 = groups.map(super::aws::Group::requested).sum();
        assert_eq!(nodes, 0, "I4: nodes are left\n{words}");
    }
}
