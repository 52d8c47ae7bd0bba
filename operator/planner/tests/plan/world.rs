//! A cluster and an AWS account in memory, with virtual time: plans are carried out, controllers and machines do their part,
//! and the invariants of the house are checked after every step.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use planner::observed::{Allocatable, CloudObserved, ModelKey, NodeObserved, PoolName};
use planner::plan::{CloudAction, Finalizer, FleetPlan, NodeMark};
use planner::status::{Outcome, model_status, pool_status};

use super::aws::{Aws, GPUS, JOIN};
use super::fixture::{Fixture, G5, key, secs};
use super::kube::{self, Pods};

/// Seconds of a step, and between reads of AWS.
const STEP: i64 = 5;
pub const POLL: i64 = 10;

pub struct World {
    /// What Kubernetes has, and what was read of AWS last.
    pub fixture: Fixture,
    pub aws: Aws,
    pub pods: Pods,
    sells: CloudObserved,
    /// At least this many replicas of `ranker` serve, from now on.
    pub serving_floor: usize,
    /// Status writes so far.
    pub status_writes: u32,
    /// Seconds between reads of AWS.
    pub poll: i64,
    /// The operator dies before it carries out more effects than this.
    pub effects_left: u32,
}

impl World {
    pub fn new(fixture: Fixture) -> Self {
        Self {
            sells: fixture.observed.cloud.clone().unwrap(),
            fixture,
            aws: Aws::default(),
            pods: Pods::default(),
            serving_floor: 0,
            status_writes: 0,
            poll: POLL,
            effects_left: u32::MAX,
        }
    }

    pub fn now(&self) -> Timestamp {
        self.fixture.now
    }

    pub fn serving(&self) -> usize {
        self.pods.list.iter().filter(|p| p.ready).count()
    }

    /// Time passes for everything but the operator.
    pub fn pass(&mut self) {
        self.fixture.now = self.now().saturating_add(secs(STEP)).unwrap();
        let now = self.now();
        self.aws.pass(now);
        self.update_nodes();
        self.pods.pass(now);
        let observed = &mut self.fixture.observed;
        for (key, model) in &mut observed.models {
            self.pods.reconcile(key, model, now);
        }
        let models = &observed.models;
        self.pods.collect_garbage(now, |owner| {
            models.get(&owner.model).is_some_and(|m| {
                let cells = m
                    .deployments
                    .iter()
                    .filter_map(planner::view::deployment_replicas);
                cells.into_iter().any(|(pool, _)| pool == owner.pool)
            })
        });
        self.schedule();
        let observed = &mut self.fixture.observed;
        observed.pods.clone_from(&self.pods.list);
        let read = observed.cloud.as_ref().map(|c| c.read_at);
        if read.is_none_or(|t| now.duration_since(t).as_secs() >= self.poll) {
            observed.cloud = Some(self.aws.observed(&self.sells, now));
        }
        self.check();
    }

    /// One round: time passes, a plan is made and carried out. Returns whether the plan had anything to do.
    pub fn step(&mut self) -> bool {
        self.pass();
        let plan = self.fixture.plan();
        let idle = self.is_empty(&plan);
        self.carry_out(&plan);
        self.check();
        !idle
    }

    /// Steps until neither the operator nor the world has anything to do, then shows that it stays so.
    pub fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..2000 {
            let busy = self.step() || !self.aws.is_settled(self.now());
            quiet = if busy { 0 } else { quiet + 1 };
            if quiet > 60 {
                return self.stays_quiet();
            }
        }
        let plan = self.fixture.plan();
        panic!(
            "no rest: {}",
            super::render::render(&self.fixture.observed, &plan)
        );
    }

    /// I8
    fn stays_quiet(&mut self) {
        for _ in 0..100 {
            self.pass();
            let plan = self.fixture.plan();
            let text = super::render::render(&self.fixture.observed, &plan);
            assert!(self.is_empty(&plan), "I8: {text}");
        }
    }

    fn is_empty(&self, plan: &FleetPlan) -> bool {
        let (observed, now) = (&self.fixture.observed, self.now());
        let models = plan.models.iter().all(|(key, part)| {
            let status = model_status(&observed.models[key].spec, part, &Outcome::default(), now);
            part.finalizer == Finalizer::Keep
                && (part.pod_costs.is_empty() && part.objects.is_empty() && part.deletes.is_empty())
                && status.is_none()
        });
        let pools = plan.pools.iter().all(|(name, part)| {
            let status = pool_status(&observed.pools[name], part, &Outcome::default(), now);
            part.finalizer == Finalizer::Keep
                && (part.node_marks.is_empty() && part.cloud.is_empty())
                && status.is_none()
        });
        models && pools && plan.account.sweep.is_empty()
    }

    /// One effect more, if the operator still lives.
    fn lives(&mut self) -> bool {
        let lives = self.effects_left > 0;
        self.effects_left = self.effects_left.saturating_sub(1);
        lives
    }

    pub fn carry_out(&mut self, plan: &FleetPlan) {
        for key in plan.models.keys() {
            self.carry_out_model(key, plan);
        }
        for name in plan.pools.keys() {
            self.carry_out_pool(name, plan);
        }
        for action in &plan.account.sweep {
            self.act(action);
        }
        self.effects_left = u32::MAX;
    }

    fn carry_out_model(&mut self, key: &ModelKey, plan: &FleetPlan) {
        let (part, now) = (&plan.models[key], self.now());
        if part.finalizer != Finalizer::Keep && !self.lives() {
            return;
        }
        let model = self.fixture.observed.models.get_mut(key).unwrap();
        if finalize(&mut model.spec.metadata, part.finalizer, crds::TRAFFIC_FINALIZER) {
            self.fixture.observed.models.remove(key);
            return;
        }
        for (name, cost) in &part.pod_costs {
            let lives = self.lives();
            let pod = self.pods.list.iter_mut().find(|p| &p.name == name);
            if let Some(pod) = pod.filter(|_| lives) {
                pod.deletion_cost = *cost;
            }
        }
        for effect in kube::effects(part) {
            if self.lives() {
                kube::apply(self.fixture.observed.models.get_mut(key).unwrap(), &effect);
            }
        }
        let model = &self.fixture.observed.models[key].spec;
        let status = model_status(model, part, &Outcome::default(), now);
        if let Some(status) = status.filter(|_| self.lives()) {
            let model = self.fixture.observed.models.get_mut(key).unwrap();
            model.spec.status = Some(status);
            self.status_writes += 1;
        }
    }

    fn carry_out_pool(&mut self, name: &PoolName, plan: &FleetPlan) {
        let (part, now) = (&plan.pools[name], self.now());
        for mark in &part.node_marks {
            let (name, since) = match mark {
                NodeMark::Drain { node, since } => (node, Some(*since)),
                NodeMark::Reclaim { node } => (node, None),
            };
            if !self.lives() {
                continue;
            }
            let node = self.fixture.node(name);
            node.unschedulable = since.is_some();
            node.victim_since = since;
        }
        for action in &part.cloud {
            self.act(action);
        }
        if !self.lives() {
            return;
        }
        let pool = self.fixture.observed.pools.get_mut(name).unwrap();
        if finalize(&mut pool.metadata, part.finalizer, crds::CAPACITY_FINALIZER) {
            self.fixture.observed.pools.remove(name);
        } else if let Some(status) = pool_status(pool, part, &Outcome::default(), now) {
            pool.status = Some(status);
            self.status_writes += 1;
        }
    }

    fn act(&mut self, action: &CloudAction) {
        if !self.lives() {
            return;
        }
        if let CloudAction::Remove { instances, .. } = action {
            for (provider, node) in &self.fixture.observed.nodes {
                if instances.iter().any(|id| id == provider.instance_id()) {
                    assert!(node.unschedulable && node.victim_since.is_some(), "not cordoned");
                    let pods = self
                        .pods
                        .list
                        .iter()
                        .filter(|p| p.node.as_ref() == Some(&node.name));
                    assert_eq!(pods.count(), 0, "removal of {}, which holds pods", node.name);
                }
            }
        }
        self.aws.act(action, &self.sells, self.fixture.now);
    }

    fn update_nodes(&mut self) {
        let now = self.now();
        let nodes = &mut self.fixture.observed.nodes;
        let mut living = BTreeSet::new();
        for group in self.aws.groups.values() {
            for instance in group.instances.iter().filter(|i| i.ended.is_none()) {
                let age = now.duration_since(instance.launched).as_secs();
                living.insert(instance.provider.clone());
                if age < JOIN {
                    continue;
                }
                let node = nodes
                    .entry(instance.provider.clone())
                    .or_insert_with(|| NodeObserved {
                        name: format!("node-{}", instance.provider.instance_id()),
                        pool: PoolName(group.pool().to_owned()),
                        ready: true,
                        unschedulable: false,
                        victim_since: None,
                        created: now,
                        allocatable: Allocatable { gpus: 0, ..G5 },
                    });
                if age >= GPUS {
                    node.allocatable = G5;
                }
            }
        }
        for (_, node) in nodes.iter().filter(|(id, _)| !living.contains(id)) {
            let holds = self.pods.list.iter().any(|p| p.node.as_ref() == Some(&node.name));
            assert!(!holds, "an instance ended under {}, which holds pods", node.name);
        }
        nodes.retain(|id, _| living.contains(id));
    }

    fn schedule(&mut self) {
        let now = self.now();
        for index in 0..self.pods.list.len() {
            let pod = &self.pods.list[index];
            if pod.node.is_some() || pod.terminating {
                continue;
            }
            let pool = pod.owner.as_ref().map(|o| &o.pool);
            let open = |n: &&NodeObserved| n.ready && !n.unschedulable && Some(&n.pool) == pool;
            let room = |n: &&NodeObserved| {
                let here = self.pods.list.iter().filter(|p| p.node.as_ref() == Some(&n.name));
                let taken = here.fold(Allocatable::default(), |sum, p| sum.plus(&p.requests));
                n.allocatable.minus(&taken).fits(&pod.requests) > 0
            };
            let mut nodes = self.fixture.observed.nodes.values();
            if let Some(node) = nodes.find(|n| open(n) && room(n)) {
                self.pods.bind(index, &node.name, now);
            }
        }
    }

    fn check(&self) {
        let observed = &self.fixture.observed;
        for (name, pool) in &observed.pools {
            let (requested, cap) = (self.aws.requested(&name.0), pool.spec.limits.max_nodes);
            assert!(
                i64::from(requested) <= i64::from(cap),
                "I1: {requested} nodes, cap {cap}"
            );
        }
        let (serving, floor) = (self.serving(), self.serving_floor);
        assert!(serving >= floor, "{serving} replicas serve, not {floor}");
        for model in observed.models.values() {
            let status = model.spec.status.as_ref();
            let ready = status.and_then(|s| crds::find_condition(&s.conditions, crds::ConditionType::Ready));
            let deleting = model.spec.metadata.deletion_timestamp.is_some();
            if !deleting && ready.is_some_and(|c| c.status == "True") {
                let generation = model.spec.metadata.generation;
                assert!(ready.and_then(|c| c.observed_generation) <= generation, "I7");
            }
        }
    }

    /// Changes the spec of `ranker`, as a user does.
    pub fn edit(&mut self, change: impl FnOnce(&mut crds::ModelDeploymentSpec)) {
        let model = self.fixture.observed.models.get_mut(&key("ranker")).unwrap();
        change(&mut model.spec.spec);
        *model.spec.metadata.generation.as_mut().unwrap() += 1;
    }
}

/// Writes the finalizer; true when the object is gone by that.
fn finalize(meta: &mut ObjectMeta, finalizer: Finalizer, name: &str) -> bool {
    let list = meta.finalizers.get_or_insert_default();
    match finalizer {
        Finalizer::Keep => false,
        Finalizer::Add => {
            list.push(name.to_owned());
            false
        }
        Finalizer::Remove => {
            list.retain(|f| f != name);
            meta.deletion_timestamp.is_some()
        }
    }
}
