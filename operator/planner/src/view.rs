//! The snapshot, indexed once for everything that plans from it.

use std::collections::{BTreeMap, BTreeSet};

use crds::{GpuPool, ModelDeployment};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;

use crate::capacity::{self, Demand};
use crate::observed::{
    Allocatable, CloudObserved, GroupObserved, InstanceType, ModelKey, NodeObserved, Observed, PodObserved,
    PoolName, ProviderId, ScalingObserved,
};

/// Sorts before the name of any pool.
static FIRST_POOL: PoolName = PoolName(String::new());

/// Indices over one `Observed`.
pub struct View<'a> {
    pub observed: &'a Observed,
    pub now: Timestamp,
    /// Unfinished pods of ours by (model, pool).
    pods: BTreeMap<(&'a ModelKey, &'a PoolName), Vec<&'a PodObserved>>,
    pods_on: BTreeMap<&'a str, Vec<&'a PodObserved>>,
    /// Nodes that are cordoned because the operator wants them back.
    draining: BTreeSet<&'a str>,
    /// Nodes that are cordoned, by whomever.
    cordoned: BTreeSet<&'a str>,
    nodes: BTreeMap<&'a PoolName, Vec<(&'a ProviderId, &'a NodeObserved)>>,
    /// What DaemonSets take on a node of each pool.
    overhead: BTreeMap<&'a PoolName, Allocatable>,
    /// Room for models on the smallest node of each pool that shows its GPUs.
    smallest: BTreeMap<&'a PoolName, Allocatable>,
    /// Node groups by the uid of their pool.
    groups: BTreeMap<&'a str, Vec<&'a GroupObserved>>,
    /// Instance type by instance id.
    types: BTreeMap<&'a str, &'a str>,
}

impl<'a> View<'a> {
    #[must_use]
    pub fn new(observed: &'a Observed, now: Timestamp) -> Self {
        let (mut pods, mut pods_on) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
        // One that finished because it was told to is there until its kubelet has taken it away: a node that goes
        // before that leaves the object behind for a minute.
        for pod in observed.pods.iter().filter(|p| !p.finished || p.terminating) {
            if let Some(owner) = &pod.owner {
                pods.entry((&owner.model, &owner.pool)).or_default().push(pod);
            }
            if let Some(node) = &pod.node {
                pods_on.entry(node.as_str()).or_default().push(pod);
            }
        }
        let cordoned = || observed.nodes.values().filter(|node| node.unschedulable);
        let wanted_back = cordoned().filter(|node| node.victim_since.is_some());
        let mut nodes = BTreeMap::<_, Vec<_>>::new();
        let (mut groups, mut types) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::new());
        let mut owners = BTreeMap::new();
        for group in observed.cloud.iter().flat_map(|c| c.groups.values()) {
            let instances = group.scaling.iter().flat_map(|s| &s.instances);
            let owner = group.owner.pool_uid.as_str();
            owners.extend(instances.clone().map(|i| (i.id.as_str(), owner)));
            types.extend(instances.map(|i| (i.id.as_str(), group.instance_type.as_str())));
            groups.entry(owner).or_default().push(group);
        }
        for (id, node) in &observed.nodes {
            // The label names the pool; a node of an earlier pool of that name is not this one's to cordon or return.
            let uid = observed
                .pools
                .get(&node.pool)
                .and_then(|p| p.metadata.uid.as_deref());
            let owner = owners.get(id.instance_id()).copied();
            if owner.is_none() || uid.is_none() || owner == uid {
                nodes.entry(&node.pool).or_default().push((id, node));
            }
        }
        let overhead = overhead(&nodes, &pods_on);
        Self {
            observed,
            now,
            draining: wanted_back.map(|node| node.name.as_str()).collect(),
            cordoned: cordoned().map(|node| node.name.as_str()).collect(),
            smallest: smallest(&nodes, &overhead),
            overhead,
            pods,
            pods_on,
            nodes,
            groups,
            types,
        }
    }

    /// The node is cordoned because the operator wants it back.
    #[must_use]
    pub fn is_draining(&self, node: &str) -> bool {
        self.draining.contains(node)
    }

    /// The node takes no new pods, whoever cordoned it.
    #[must_use]
    pub fn is_cordoned(&self, node: &str) -> bool {
        self.cordoned.contains(node)
    }

    #[must_use]
    pub fn cloud(&self) -> Option<&'a CloudObserved> {
        self.observed.cloud.as_ref()
    }

    /// The cloud inventory is young and whole enough to give something back on.
    #[must_use]
    pub fn inventory_is_fresh(&self) -> bool {
        #[cfg(feature = "seeded-bugs")]
        if crate::seeded::is_planted(crate::seeded::Bug::ShrinkOnEmptyData) {
            return true;
        }
        self.cloud().is_some_and(|cloud| {
            cloud.trouble.is_none()
                && self.now.duration_since(cloud.read_at) <= self.observed.settings.inventory_max_age
        })
    }

    /// Unfinished pods of a model in a pool, terminating ones included.
    #[must_use]
    pub fn pods(&self, model: &'a ModelKey, pool: &'a PoolName) -> &[&'a PodObserved] {
        self.pods.get(&(model, pool)).map_or(&[], Vec::as_slice)
    }

    /// Unfinished pods of a model in all pools, terminating ones included.
    pub fn pods_of(&self, model: &'a ModelKey) -> impl Iterator<Item = &'a PodObserved> + '_ {
        self.pods
            .range((model, &FIRST_POOL)..)
            .take_while(move |((m, _), _)| *m == model)
            .flat_map(|(_, pods)| pods.iter().copied())
    }

    #[must_use]
    pub fn pods_on(&self, node: &str) -> &[&'a PodObserved] {
        self.pods_on.get(node).map_or(&[], Vec::as_slice)
    }

    /// Unfinished pods of models on a node, terminating ones included.
    pub fn model_pods_on(&self, node: &str) -> impl Iterator<Item = &'a PodObserved> + '_ {
        self.pods_on(node).iter().copied().filter(|p| p.owner.is_some())
    }

    pub fn nodes(&self, pool: &PoolName) -> impl Iterator<Item = (&'a ProviderId, &'a NodeObserved)> {
        self.nodes.get(pool).into_iter().flatten().copied()
    }

    /// Node groups that carry the uid of this pool.
    pub fn groups(&self, uid: &str) -> impl Iterator<Item = &'a GroupObserved> {
        self.groups.get(uid).into_iter().flatten().copied()
    }

    /// Instance type of a node that AWS knows as one of ours.
    #[must_use]
    pub fn type_of(&self, node: &ProviderId) -> Option<&'a str> {
        self.types.get(node.instance_id()).copied()
    }

    #[must_use]
    pub fn instance_type(&self, name: &str) -> Option<&'a InstanceType> {
        self.cloud()?.types.get(name)
    }

    /// Room for models on a new node of this type in this pool.
    #[must_use]
    pub fn new_node(&self, pool: &PoolName, instance_type: &str) -> Option<Allocatable> {
        let instance = self.instance_type(instance_type)?;
        let overhead = self.overhead.get(pool).copied().unwrap_or_default();
        Some(capacity::allocatable(instance).minus(&overhead))
    }

    /// Room for models on a new node of the pool, whichever of its types it will be: the least of each resource. While AWS was
    /// not read, or knows none of the types, new nodes are taken to be as those that are there.
    #[must_use]
    pub fn any_new_node(&self, name: &PoolName, pool: &GpuPool) -> Option<Allocatable> {
        let types = pool.spec.instance_types.iter();
        types
            .filter_map(|t| self.new_node(name, t))
            .reduce(least)
            .or_else(|| self.smallest.get(name).copied())
    }
}

fn least(a: Allocatable, b: Allocatable) -> Allocatable {
    Allocatable {
        gpus: a.gpus.min(b.gpus),
        milli_cpu: a.milli_cpu.min(b.milli_cpu),
        memory_mib: a.memory_mib.min(b.memory_mib),
    }
}

fn smallest<'a>(
    nodes: &BTreeMap<&'a PoolName, Vec<(&'a ProviderId, &'a NodeObserved)>>,
    overhead: &BTreeMap<&'a PoolName, Allocatable>,
) -> BTreeMap<&'a PoolName, Allocatable> {
    let pools = nodes.iter();
    pools
        .filter_map(|(pool, nodes)| {
            let rooms = nodes.iter().map(|(_, node)| node.allocatable);
            let smallest = rooms.filter(|room| room.gpus > 0).reduce(least)?;
            Some((*pool, smallest.minus(&overhead[pool])))
        })
        .collect()
}

/// What DaemonSets take on a node of each pool: the largest sum seen on any node of it.
fn overhead<'a>(
    nodes: &BTreeMap<&'a PoolName, Vec<(&'a ProviderId, &'a NodeObserved)>>,
    pods_on: &BTreeMap<&'a str, Vec<&'a PodObserved>>,
) -> BTreeMap<&'a PoolName, Allocatable> {
    let on_node = |node: &NodeObserved| {
        let pods = pods_on.get(node.name.as_str()).into_iter().flatten();
        let daemons = pods.filter(|p| p.daemon_set);
        daemons.fold(Allocatable::default(), |sum, pod| sum.plus(&pod.requests))
    };
    let most = |a: Allocatable, b: Allocatable| Allocatable {
        gpus: a.gpus.max(b.gpus),
        milli_cpu: a.milli_cpu.max(b.milli_cpu),
        memory_mib: a.memory_mib.max(b.memory_mib),
    };
    let pools = nodes.iter();
    pools
        .map(|(pool, nodes)| {
            let sums = nodes.iter().map(|(_, node)| on_node(node));
            (*pool, sums.fold(Allocatable::default(), most))
        })
        .collect()
}

/// Nodes that a group has or has ordered: the larger of its desired size and what lives in it.
#[must_use]
pub fn requested(group: &GroupObserved) -> u32 {
    group.scaling.as_ref().map_or(0, |s| s.desired.max(live(group)))
}

/// Instances of a group that are not on their way out.
#[must_use]
pub fn live(group: &GroupObserved) -> u32 {
    group.scaling.as_ref().map_or(0, living)
}

/// Instances of an Auto Scaling group that are not on their way out.
#[must_use]
pub fn living(scaling: &ScalingObserved) -> u32 {
    use crate::observed::Lifecycle::{InService, Pending};
    let instances = scaling.instances.iter();
    let alive = instances.filter(|i| matches!(i.lifecycle, Pending | InService));
    u32::try_from(alive.count()).unwrap_or(u32::MAX)
}

/// What one replica of a model asks for.
#[must_use]
pub fn request_of(model: &ModelDeployment) -> Allocatable {
    let resources = &model.spec.runtime.resources;
    Allocatable {
        gpus: u32::try_from(resources.gpus).unwrap_or(0),
        milli_cpu: milli_cpu(&resources.cpu),
        memory_mib: memory_mib(&resources.memory),
    }
}

/// The schema admits `3` and `250m` only.
fn milli_cpu(quantity: &str) -> u64 {
    match quantity.strip_suffix('m') {
        Some(milli) => milli.parse().unwrap_or(u64::MAX),
        None => quantity.parse::<u64>().map_or(u64::MAX, |cores| cores * 1000),
    }
}

/// The schema admits `512Mi` and `12Gi` only.
fn memory_mib(quantity: &str) -> u64 {
    match (quantity.strip_suffix("Gi"), quantity.strip_suffix("Mi")) {
        (Some(gib), _) => gib.parse::<u64>().map_or(u64::MAX, |g| g * 1024),
        (_, Some(mib)) => mib.parse().unwrap_or(u64::MAX),
        _ => u64::MAX,
    }
}

/// A Deployment's pool, and the replicas that its spec asks for.
#[must_use]
pub fn deployment_replicas(deployment: &Deployment) -> Option<(PoolName, u32)> {
    let labels = deployment.metadata.labels.as_ref()?;
    let pool = PoolName(labels.get(crds::key::POOL)?.clone());
    let replicas = deployment.spec.as_ref()?.replicas.unwrap_or(1);
    Some((pool, u32::try_from(replicas).unwrap_or(0)))
}

/// The API refuses to create pods of this Deployment (quota, policy).
#[must_use]
pub fn replica_failure(deployment: &Deployment) -> Option<String> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let failing = conditions
        .iter()
        .find(|c| c.type_ == "ReplicaFailure" && c.status == "True")?;
    Some(without_pod_name(failing.message.as_deref().unwrap_or_default()))
}

/// Every attempt is refused for a pod of another random name: `pods "ranker-5d8f-x7k2p" is forbidden: ...`. The name tells
/// nothing, and would make each attempt a change.
fn without_pod_name(message: &str) -> String {
    let (Some(start), Some(end)) = (message.find("pods \""), message.find("\" is ")) else {
        return message.to_owned();
    };
    match message.get(..start).zip(message.get(end + 1..)) {
        Some((before, after)) if start < end => format!("{before}pods{after}"),
        _ => message.to_owned(),
    }
}

/// Demands that are alike, put together.
#[must_use]
pub fn grouped(requests: impl IntoIterator<Item = (Allocatable, u32)>) -> Vec<Demand> {
    let mut by_request = BTreeMap::<(u32, u64, u64), Demand>::new();
    for (request, count) in requests.into_iter().filter(|(_, count)| *count > 0) {
        let key = (request.gpus, request.milli_cpu, request.memory_mib);
        by_request
            .entry(key)
            .or_insert(Demand { request, count: 0 })
            .count += count;
    }
    by_request.into_values().collect()
}

/// Names of the pools that a model's placement lists, in order.
#[must_use]
pub fn placement_pools(model: &ModelDeployment) -> Vec<PoolName> {
    let mut seen = BTreeSet::new();
    let names = model.spec.placement.iter().map(|p| PoolName(p.pool.clone()));
    names.filter(|name| seen.insert(name.clone())).collect()
}
