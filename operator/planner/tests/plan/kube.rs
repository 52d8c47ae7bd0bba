//! What the API server and the controllers of Kubernetes do with a model's objects.

use jiff::Timestamp;
use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use planner::observed::{ModelKey, ModelObserved, Observed, PodObserved, PodOwner, PoolName};
use planner::plan::{Eviction, ModelPlan};
use planner::view;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Applies objects and deletes, as one field manager that owns all it writes.
pub fn apply(model: &mut ModelObserved, plan: &ModelPlan) {
    for object in &plan.objects {
        match object["kind"].as_str().unwrap() {
            "Deployment" => put(&mut model.deployments, object),
            "Service" => put(&mut model.services, object),
            "ServiceAccount" => put(&mut model.service_accounts, object),
            "PodDisruptionBudget" => put(&mut model.budgets, object),
            "NetworkPolicy" => put(&mut model.network_policies, object),
            other => panic!("kind {other}"),
        }
    }
    for delete in &plan.deletes {
        match delete.kind.as_str() {
            "Deployment" => model.deployments.retain(|o| !is(o, &delete.name)),
            "Service" => model.services.retain(|o| !is(o, &delete.name)),
            "ServiceAccount" => model.service_accounts.retain(|o| !is(o, &delete.name)),
            other => panic!("delete of kind {other}"),
        }
    }
}

/// A plan's objects and deletes one by one, with their labels.
pub fn effects(plan: &ModelPlan) -> Vec<(String, ModelPlan)> {
    let objects = plan.objects.iter().map(|object| {
        let part = ModelPlan {
            objects: vec![object.clone()],
            ..ModelPlan::default()
        };
        let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
        (
            format!("apply {kind} {name} {}", object["spec"]["replicas"]),
            part,
        )
    });
    let deletes = plan.deletes.iter().map(|delete| {
        let part = ModelPlan {
            deletes: vec![delete.clone()],
            ..ModelPlan::default()
        };
        (format!("delete {} {}", delete.kind, delete.name), part)
    });
    objects.chain(deletes).collect()
}

fn is<K: Metadata<Ty = ObjectMeta>>(object: &K, name: &str) -> bool {
    object.metadata().name.as_deref() == Some(name)
}

fn put<K: Metadata<Ty = ObjectMeta> + DeserializeOwned>(list: &mut Vec<K>, object: &Value) {
    let mut new: K = serde_json::from_value(object.clone()).unwrap();
    let name = new.metadata().name.clone().unwrap();
    let old = list.iter().position(|o| is(o, &name));
    let generation = old.and_then(|i| list[i].metadata().generation).unwrap_or(0);
    new.metadata_mut().generation = Some(generation + 1);
    new.metadata_mut().uid = Some(format!("uid-{name}"));
    new.metadata_mut().resource_version = Some(format!("{}", generation + 1));
    match old {
        Some(index) => list[index] = new,
        None => list.push(new),
    }
}

/// Pods and when they end.
#[derive(Clone, Default)]
pub struct Pods {
    pub list: Vec<PodObserved>,
    ends: Vec<(String, Timestamp)>,
    bound: Vec<(String, Timestamp)>,
    pub made: u32,
    versions: u32,
}

/// Seconds that a pod drains, and from being bound to serving.
const DRAIN: i64 = 15;
const START: i64 = 10;

impl Pods {
    /// Pods that drained are gone, pods that started serve.
    pub fn pass(&mut self, now: Timestamp) {
        let gone: Vec<&String> = self
            .ends
            .iter()
            .filter(|(_, t)| *t <= now)
            .map(|(n, _)| n)
            .collect();
        self.list.retain(|p| !gone.contains(&&p.name));
        for pod in &mut self.list {
            let since = self.bound.iter().find(|(name, _)| *name == pod.name);
            let started = since.is_some_and(|(_, t)| now.duration_since(*t).as_secs() >= START);
            pod.ready = started && !pod.terminating;
        }
    }

    pub fn bind(&mut self, index: usize, node: &str, now: Timestamp) {
        let pod = &mut self.list[index];
        pod.node = Some(node.to_owned());
        pod.unschedulable = false;
        self.bound.push((pod.name.clone(), now));
    }

    /// Writes the deletion cost.
    pub fn price(&mut self, name: &str, cost: i32) {
        if let Some(pod) = self.list.iter_mut().find(|p| p.name == name) {
            pod.deletion_cost = cost;
        }
    }

    /// The eviction API: heeds the disruption budget of the pod's model.
    pub fn evict(&mut self, observed: &Observed, eviction: &Eviction, now: Timestamp) {
        let Some(pod) = self.list.iter().find(|p| p.uid == eviction.uid && !p.terminating) else {
            return;
        };
        let key = &pod.owner.as_ref().unwrap().model;
        let model = &observed.models[key];
        let deployments = model.deployments.iter().filter_map(view::deployment_replicas);
        let expected: u32 = deployments.map(|(_, replicas)| replicas).sum();
        let spec = model.budgets[0].spec.as_ref().unwrap();
        let Some(IntOrString::Int(spare)) = spec.max_unavailable else {
            panic!("a budget without a number");
        };
        let of_model = |p: &&PodObserved| p.owner.as_ref().is_some_and(|o| &o.model == key);
        let healthy = self.list.iter().filter(of_model).filter(|p| p.ready).count();
        let healthy = i64::try_from(healthy).unwrap();
        if !pod.ready || healthy > i64::from(expected) - i64::from(spare) {
            let name = pod.name.clone();
            self.end(&name, now);
        }
    }

    /// Pods whose Deployment or model is gone.
    pub fn collect_garbage(&mut self, now: Timestamp, lives: impl Fn(&PodOwner) -> bool) {
        let orphans: Vec<String> = self
            .live(|p| p.owner.as_ref().is_some_and(|o| !lives(o)))
            .map(|p| p.name.clone())
            .collect();
        for name in orphans {
            self.end(&name, now);
        }
    }

    /// A pod is evicted or its process dies for good.
    pub fn kill(&mut self, number: usize, now: Timestamp) {
        let names: Vec<String> = self.live(|_| true).map(|p| p.name.clone()).collect();
        if let Some(name) = names.get(number % names.len().max(1)) {
            self.end(name, now);
        }
    }

    fn live<'a>(
        &'a self,
        filter: impl Fn(&PodObserved) -> bool + 'a,
    ) -> impl Iterator<Item = &'a PodObserved> {
        self.list.iter().filter(move |p| !p.terminating && filter(p))
    }

    fn end(&mut self, name: &str, now: Timestamp) {
        let pod = self.list.iter_mut().find(|p| p.name == name).unwrap();
        pod.terminating = true;
        pod.ready = false;
        let drain = if pod.node.is_some() { DRAIN } else { 0 };
        self.ends.push((
            name.to_owned(),
            now.saturating_add(super::fixture::secs(drain)).unwrap(),
        ));
    }

    /// One pass of the Deployment controller.
    pub fn reconcile(&mut self, key: &ModelKey, model: &mut ModelObserved, now: Timestamp) {
        let requests = view::request_of(&model.spec);
        for deployment in &mut model.deployments {
            let owner = owner(key, deployment);
            let spec = deployment.spec.as_ref().unwrap();
            let replicas = usize::try_from(spec.replicas.unwrap()).unwrap();
            let (surge, unavailable) = bounds(deployment);
            let same_cell = |p: &PodObserved| {
                let o = p.owner.as_ref().unwrap();
                (&o.model, &o.pool, o.cell) == (&owner.model, &owner.pool, owner.cell)
            };
            let all: Vec<PodObserved> = self.live(same_cell).cloned().collect();
            let (new, mut old): (Vec<_>, Vec<_>) = all
                .iter()
                .partition(|p| p.owner.as_ref().unwrap().revision == owner.revision);
            let most = replicas + if old.is_empty() { 0 } else { surge };
            old.sort_by_key(|p| rank(p));
            let mut ready = all.iter().filter(|p| p.ready).count();
            let mut ends: Vec<&PodObserved> = vec![];
            let surplus = all.len().saturating_sub(most);
            if old.is_empty() {
                let mut sorted = new.clone();
                sorted.sort_by_key(|p| rank(p));
                ends.extend(sorted.into_iter().take(surplus));
            } else {
                for pod in old {
                    if pod.ready && ready <= replicas.saturating_sub(unavailable) {
                        continue;
                    }
                    ready -= usize::from(pod.ready);
                    ends.push(pod);
                }
            }
            let staying = all.len() - ends.len();
            let create = replicas
                .saturating_sub(new.len())
                .min(most.saturating_sub(staying));
            let ends: Vec<String> = ends.iter().map(|p| p.name.clone()).collect();
            for name in &ends {
                self.end(name, now);
            }
            for _ in 0..create {
                self.made += 1;
                self.list.push(new_pod(self.made, owner.clone(), requests, now));
            }
            let live: Vec<_> = self.live(same_cell).collect();
            let newest = live.iter().filter(|p| p.owner.as_ref() == Some(&owner)).count();
            let status = Some(DeploymentStatus {
                observed_generation: deployment.metadata.generation,
                replicas: i32::try_from(live.len()).ok(),
                updated_replicas: i32::try_from(newest).ok(),
                ..DeploymentStatus::default()
            });
            if deployment.status != status {
                deployment.status = status;
                self.versions += 1;
                deployment.metadata.resource_version = Some(format!("status-{}", self.versions));
            }
        }
    }
}

/// The order in which a ReplicaSet gives up pods.
fn rank(pod: &PodObserved) -> (bool, bool, i32, String) {
    (pod.node.is_some(), pod.ready, pod.deletion_cost, pod.name.clone())
}

fn owner(key: &ModelKey, deployment: &Deployment) -> PodOwner {
    let template = &deployment.spec.as_ref().unwrap().template;
    let meta = template.metadata.as_ref().unwrap();
    let labels = meta.labels.as_ref().unwrap();
    PodOwner {
        model: key.clone(),
        pool: PoolName(labels[crds::key::POOL].clone()),
        cell: labels[crds::key::CELL].parse().unwrap(),
        revision: meta.annotations.as_ref().unwrap()[crds::key::REVISION].clone(),
    }
}

fn bounds(deployment: &Deployment) -> (usize, usize) {
    let strategy = deployment.spec.as_ref().unwrap().strategy.as_ref().unwrap();
    let rolling = strategy.rolling_update.as_ref().unwrap();
    let count = |value: &Option<IntOrString>| match value {
        Some(IntOrString::Int(n)) => usize::try_from(*n).unwrap(),
        other => panic!("{other:?}"),
    };
    (count(&rolling.max_surge), count(&rolling.max_unavailable))
}

fn new_pod(
    number: u32,
    owner: PodOwner,
    requests: planner::observed::Allocatable,
    now: Timestamp,
) -> PodObserved {
    let name = format!("{}-{}-{number:03}", owner.model.name, owner.pool.0);
    PodObserved {
        namespace: owner.model.namespace.clone(),
        uid: format!("pod-{number}"),
        name,
        owner: Some(owner),
        daemon_set: false,
        node: None,
        ip: None,
        requests,
        created: now,
        ready: false,
        ready_since: None,
        terminating: false,
        finished: false,
        unschedulable: true,
        deletion_cost: 0,
        trouble: None,
    }
}

/// `kubectl delete`.
pub fn mark_deleted(meta: &mut ObjectMeta, now: Timestamp) {
    meta.deletion_timestamp = Some(Time(now));
}
