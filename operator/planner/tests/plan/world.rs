//! A cluster and an AWS account in memory, with virtual time: plans are carried out (`executor`), controllers and machines do
//! their part, and the invariants of the house are checked after every step (`judge`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use planner::observed::{Allocatable, CloudErrorClass, CloudObserved, CloudTrouble, NodeObserved, PoolName};
use planner::plan::{Finalizer, FleetPlan, GroupName};
use planner::pool::retract::note_waiting;
use planner::sent::Sent;
use planner::status::{Outcome, model_status, pool_status};

use super::aws::{Aws, Call, GPUS, JOIN};
use super::dice::Dice;
use super::executor::{Point, Weather};
use super::fixture::{Fixture, G5, key, pool_name, secs};
use super::judge;
use super::kube::Pods;

/// Seconds of a step, and between reads of AWS.
const STEP: i64 = 5;
pub const POLL: i64 = 10;

/// Steps without anything to do after which the world is at rest: longer than any wait of the planner (5 minutes of patience
/// with an order apart, which a world at rest has none of).
const QUIET: u32 = 60;

#[derive(Clone)]
pub struct World {
    /// What Kubernetes has, and what was read of AWS last.
    pub fixture: Fixture,
    pub aws: Aws,
    pub pods: Pods,
    pub sells: CloudObserved,
    /// At least this many replicas of `ranker` serve, from now on.
    pub serving_floor: usize,
    /// At most this many nodes are requested for pool `g5`, from now on.
    pub nodes_ceiling: u32,
    /// Status writes so far.
    pub status_writes: u32,
    /// Seconds between reads of AWS, and how old what they tell is without saying so.
    pub poll: i64,
    pub lag: i64,
    /// Reads of AWS fail.
    pub unreadable: bool,
    past: VecDeque<(Timestamp, CloudObserved)>,
    /// Effects so far, and what becomes of them.
    pub effects: u32,
    pub crash: Option<(u32, Point)>,
    pub weather: Weather,
    pub dice: Dice,
    pub dead: bool,
    /// What the operator remembers to have sent, and whether the answer to a call of this verb was lost.
    pub sent: Sent,
    pub lost: bool,
    pub late: Vec<(Timestamp, Call)>,
    /// Groups of somebody else.
    pub foreign: BTreeSet<GroupName>,
    /// Since when groups and templates have no owner.
    pub ownerless: BTreeMap<String, Timestamp>,
    /// Sweeping stopped because owners vanished.
    pub sweeping_held: bool,
    /// AWS told old news, and what was ordered on them is not given back yet.
    pub misled: bool,
    pub trace: Vec<String>,
    /// Prints the trace as it grows.
    pub loud: bool,
}

impl World {
    pub fn new(fixture: Fixture) -> Self {
        Self {
            sells: fixture.observed.cloud.clone().unwrap(),
            fixture,
            aws: Aws::default(),
            pods: Pods::default(),
            serving_floor: 0,
            nodes_ceiling: u32::MAX,
            status_writes: 0,
            poll: POLL,
            lag: 0,
            unreadable: false,
            past: VecDeque::new(),
            effects: 0,
            crash: None,
            weather: Weather::default(),
            dice: Dice::new(0),
            dead: false,
            sent: Sent::default(),
            lost: false,
            late: vec![],
            foreign: BTreeSet::new(),
            ownerless: BTreeMap::new(),
            sweeping_held: false,
            misled: false,
            trace: vec![],
            loud: false,
        }
    }

    pub fn now(&self) -> Timestamp {
        self.fixture.now
    }

    pub fn after(&self, seconds: u64) -> Timestamp {
        let seconds = i64::try_from(seconds).unwrap();
        self.now().saturating_add(secs(seconds)).unwrap()
    }

    pub fn note(&mut self, what: &str) {
        let line = format!("{} {what}", self.now());
        if self.loud {
            println!("{line}");
        }
        self.trace.push(line);
    }

    pub fn serving(&self) -> usize {
        self.pods.list.iter().filter(|p| p.ready).count()
    }

    /// Time passes for everything but the operator.
    pub fn pass(&mut self) {
        self.fixture.now = self.now().saturating_add(secs(STEP)).unwrap();
        let now = self.now();
        let due: Vec<_> = self.late.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, call) in due {
            self.note(&format!("arrives late: {call:?}"));
            self.call(&call);
        }
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
        self.fixture.observed.pods.clone_from(&self.pods.list);
        self.read_aws();
        judge::step(self);
    }

    fn read_aws(&mut self) {
        let now = self.now();
        if self.lag > 0 {
            self.past.push_back((now, self.aws.observed(&self.sells, now)));
            let horizon = now.saturating_sub(secs(self.lag)).unwrap();
            while self.past.len() > 1 && self.past[1].0 <= horizon {
                self.past.pop_front();
            }
        } else {
            self.past.clear();
        }
        let observed = &mut self.fixture.observed;
        let read = observed.cloud.as_ref().map(|c| c.read_at);
        if read.is_some_and(|t| now.duration_since(t).as_secs() < self.poll) {
            return;
        }
        if self.unreadable {
            if let Some(cloud) = &mut observed.cloud {
                cloud.trouble = Some(CloudTrouble {
                    class: CloudErrorClass::Timeout,
                    message: "DescribeAutoScalingGroups".into(),
                });
            }
            return;
        }
        let mut cloud = match self.past.front().filter(|_| self.lag > 0) {
            Some((_, old)) => old.clone(),
            None => self.aws.observed(&self.sells, now),
        };
        cloud.read_at = now;
        note_waiting(&mut cloud, observed.cloud.as_ref());
        observed.cloud = Some(cloud);
    }

    /// A plan from what is known now.
    pub fn plan(&mut self) -> FleetPlan {
        for model in self.fixture.observed.models.values_mut() {
            let meta = &mut model.spec.metadata;
            let (generation, deleting) = (meta.generation.unwrap_or(0), meta.deletion_timestamp.is_some());
            meta.resource_version = Some(format!("{generation}-{deleting}"));
        }
        let plan = self.fixture.plan();
        self.fixture.remember(&plan);
        self.sweeping_held = plan.account.held.is_some();
        plan
    }

    /// One round: time passes, a plan is made and carried out. Returns whether the plan had anything to do.
    pub fn step(&mut self) -> bool {
        self.pass();
        let plan = self.plan();
        let idle = self.is_empty(&plan);
        if !idle {
            self.carry_out(&plan);
            judge::step(self);
        }
        !idle
    }

    /// Steps until neither the operator nor the world has anything to do.
    pub fn rest(&mut self) {
        let mut quiet = 0;
        for _ in 0..2000 {
            let busy = self.step() || !self.aws.is_settled(self.now()) || !self.late.is_empty();
            quiet = if busy { 0 } else { quiet + 1 };
            if quiet > QUIET {
                return;
            }
        }
        let plan = self.plan();
        let text = super::render::render(&self.fixture.observed, &plan);
        panic!("I8: no rest: {text}\n{}", self.last_words());
    }

    /// Comes to rest, and shows that it stays so (I8).
    pub fn settle(&mut self) {
        self.rest();
        for _ in 0..100 {
            self.pass();
            let plan = self.plan();
            let text = super::render::render(&self.fixture.observed, &plan);
            assert!(self.is_empty(&plan), "I8: {text}");
        }
    }

    /// The end of the trace, for messages.
    pub fn last_words(&self) -> String {
        self.trace[self.trace.len().saturating_sub(40)..].join("\n")
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
                && (part.node_marks.is_empty() && part.cloud.is_empty() && part.evict.is_empty())
                && status.is_none()
        });
        models && pools && plan.account.sweep.is_empty()
    }

    fn update_nodes(&mut self) {
        let now = self.now();
        let nodes = &mut self.fixture.observed.nodes;
        let mut living = BTreeSet::new();
        for (name, group) in &self.aws.groups {
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
                        // Its owner keeps our pods off.
                        unschedulable: self.foreign.contains(name),
                        victim_since: None,
                        created: now,
                        allocatable: Allocatable { gpus: 0, ..G5 },
                    });
                if age >= GPUS {
                    node.allocatable = G5;
                }
            }
        }
        let lost = nodes.iter().filter(|(id, _)| !living.contains(id));
        let lost: Vec<NodeObserved> = lost.map(|(_, node)| node.clone()).collect();
        nodes.retain(|id, _| living.contains(id));
        for node in lost {
            judge::node_lost(self, &node);
        }
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

    /// Changes the spec of `ranker`, as a user does.
    pub fn edit(&mut self, change: impl FnOnce(&mut crds::ModelDeploymentSpec)) {
        let model = self.fixture.observed.models.get_mut(&key("ranker")).unwrap();
        change(&mut model.spec.spec);
        *model.spec.metadata.generation.as_mut().unwrap() += 1;
    }

    /// Groups that a plan may touch.
    pub fn ours(&self) -> impl Iterator<Item = (&GroupName, &super::aws::Group)> {
        self.aws
            .groups
            .iter()
            .filter(|(name, _)| !self.foreign.contains(name))
    }

    /// A group of our cluster and of a pool that was let go of, with nodes that carry the name of pool `g5`.
    pub fn add_foreign(&mut self) {
        let mut spec = self.fixture.group_spec("g5.xlarge", "subnet-0a1");
        spec.name = GroupName("pn-g5-g5-xlarge-0-000000000000".into());
        spec.template_name = "pinnace-g5-000000000000".into();
        self.foreign.insert(spec.name.clone());
        self.aws.insert(spec, "pool-0", 2, self.fixture.now);
    }

    /// Changes the spec of pool `g5`.
    pub fn edit_pool(&mut self, change: impl FnOnce(&mut crds::GpuPoolSpec)) {
        let pool = self.fixture.observed.pools.get_mut(&pool_name("g5")).unwrap();
        change(&mut pool.spec);
        *pool.metadata.generation.as_mut().unwrap() += 1;
    }
}
