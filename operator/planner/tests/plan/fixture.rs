//! A snapshot to start from: one pool with three zones, models in one namespace, and what AWS sells.

mod objects;

use std::collections::{BTreeMap, BTreeSet};

use crds::condition::WantedCondition;
use crds::{ConditionType, GpuPool, ModelDeployment};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use planner::observed::{
    Allocatable, CloudMutations, CloudObserved, GroupObserved, GroupOwner, GroupState, InstanceObserved,
    InstanceType, LaunchFailure, Lifecycle, ModelKey, ModelObserved, NodeObserved, Observed, PodObserved,
    PodOwner, PoolName, ProviderId, ScalingObserved, Settings, TemplateObserved,
};
use planner::plan::{FleetPlan, GroupName, GroupSpec, ModelPlan, PoolPlan};
use planner::pool::{Task, group};
use planner::shrink::Shrink;
use planner::view::View;
use serde::Serialize;
use serde_json::json;

use super::kube;
pub use objects::*;

pub const SUBNETS: [(&str, &str); 3] = [
    ("subnet-0a1", "us-east-1a"),
    ("subnet-0b2", "us-east-1b"),
    ("subnet-0c3", "us-east-1c"),
];

/// What pods may ask of a g5.xlarge.
pub const G5: Allocatable = Allocatable {
    gpus: 1,
    milli_cpu: 3_920,
    memory_mib: 14_162,
};

#[derive(Clone)]
pub struct Fixture {
    pub observed: Observed,
    pub now: Timestamp,
}

pub fn start() -> Timestamp {
    "2026-03-01T00:00:00Z".parse().unwrap()
}

pub fn secs(n: i64) -> SignedDuration {
    SignedDuration::from_secs(n)
}

pub fn key(name: &str) -> ModelKey {
    ModelKey {
        namespace: "recsys".into(),
        name: name.into(),
    }
}

pub fn pool_name(name: &str) -> PoolName {
    PoolName(name.into())
}

impl Fixture {
    /// Pool `g5` (uid `pool-1`, at most 20 nodes), no model, nothing in AWS.
    pub fn new() -> Self {
        let now = start();
        let observed = Observed {
            settings: settings(),
            models: BTreeMap::new(),
            pools: BTreeMap::from([(pool_name("g5"), pool("g5", "pool-1", 20))]),
            namespaces: BTreeMap::from([("recsys".into(), BTreeMap::new())]),
            priority_classes: BTreeMap::new(),
            nodes: BTreeMap::new(),
            pods: vec![],
            cloud: Some(cloud(now)),
            unread: None,
            launch_tokens: 100,
            load: BTreeMap::new(),
            memories: BTreeMap::new(),
            settled: BTreeMap::new(),
        };
        Self { observed, now }
    }

    /// With model `ranker` in pool `g5`.
    pub fn with_model(replicas: i32) -> Self {
        let mut fixture = Self::new();
        fixture.add_model(model("ranker", replicas, &["g5"]));
        fixture
    }

    /// `replicas` of `ranker` run, each on a node of its own, in one group; nothing is left to do but statuses.
    pub fn running(replicas: u32) -> Self {
        let mut fixture = Self::with_model(i32::try_from(replicas).unwrap());
        let group = fixture.add_group("g5.xlarge", "subnet-0a1");
        for index in 0..replicas {
            let node = fixture.add_node(&group, index);
            fixture.add_pod("ranker", index, Some(&node));
        }
        fixture.apply_objects();
        fixture
    }

    pub fn add_model(&mut self, spec: ModelDeployment) {
        let key = key(spec.metadata.name.as_deref().unwrap());
        self.observed.models.insert(
            key,
            ModelObserved {
                spec,
                deployments: vec![],
                services: vec![],
                service_accounts: vec![],
                budgets: vec![],
                network_policies: vec![],
                named_account: None,
                foreign_budgets: vec![],
            },
        );
    }

    pub fn pool(&mut self) -> &mut GpuPool {
        self.observed.pools.get_mut(&pool_name("g5")).unwrap()
    }

    pub fn model(&mut self) -> &mut ModelDeployment {
        &mut self.observed.models.get_mut(&key("ranker")).unwrap().spec
    }

    pub fn cloud(&mut self) -> &mut CloudObserved {
        self.observed.cloud.as_mut().unwrap()
    }

    pub fn group(&mut self, name: &GroupName) -> &mut GroupObserved {
        self.cloud().groups.get_mut(name).unwrap()
    }

    pub fn scaling(&mut self, name: &GroupName) -> &mut ScalingObserved {
        self.group(name).scaling.as_mut().unwrap()
    }

    /// What the planner would create for this offering.
    pub fn group_spec(&self, instance_type: &str, subnet: &str) -> GroupSpec {
        let view = View::new(&self.observed, self.now);
        let name = pool_name("g5");
        let pool = &self.observed.pools[&name];
        let (uid, shrink) = (pool.metadata.uid.as_deref().unwrap(), Shrink::default());
        let task = Task {
            name: &name,
            pool,
            uid,
            demand: vec![],
            shrink: &shrink,
            user: None,
        };
        group::spec(&view, &task, instance_type, subnet, 0)
    }

    /// An empty group that is Active, and its template.
    pub fn add_group(&mut self, instance_type: &str, subnet: &str) -> GroupName {
        let spec = self.group_spec(instance_type, subnet);
        let created = self.now.saturating_sub(secs(3600)).unwrap();
        let cloud = self.cloud();
        let group = observed_group(&spec, &cloud.subnets[subnet], created);
        cloud.groups.insert(spec.name.clone(), group);
        cloud.group_count += 1;
        cloud
            .templates
            .insert(spec.template_name.clone(), observed_template(&spec, created));
        spec.name
    }

    /// An instance in service with a node of its own that is ready. Returns the node's name.
    pub fn add_node(&mut self, group: &GroupName, index: u32) -> String {
        let id = self.add_instance(group, index, Lifecycle::InService);
        let zone = self.group(group).zone.clone();
        let name = format!("node-{index}");
        let node = NodeObserved {
            name: name.clone(),
            pool: pool_name("g5"),
            ready: true,
            unschedulable: false,
            victim_since: None,
            created: start(),
            allocatable: G5,
        };
        let provider = ProviderId(format!("aws:///{zone}/{id}"));
        self.observed.nodes.insert(provider, node);
        name
    }

    pub fn add_instance(&mut self, group: &GroupName, index: u32, lifecycle: Lifecycle) -> String {
        let id = format!("i-{index:04}");
        let scaling = self.scaling(group);
        scaling.instances.push(InstanceObserved {
            id: id.clone(),
            lifecycle,
            protected: false,
        });
        scaling.desired = scaling
            .desired
            .max(u32::try_from(scaling.instances.len()).unwrap());
        id
    }

    pub fn node(&mut self, name: &str) -> &mut NodeObserved {
        self.observed.nodes.values_mut().find(|n| n.name == name).unwrap()
    }

    pub fn pod(&mut self, name: &str) -> &mut PodObserved {
        self.observed.pods.iter_mut().find(|p| p.name == name).unwrap()
    }

    /// A pod of the model's first cell; ready when it has a node.
    pub fn add_pod(&mut self, model: &str, index: u32, node: Option<&str>) {
        let spec = &self.observed.models[&key(model)].spec;
        let revision = planner::workload::revision(spec, &self.observed.settings.runtime_image);
        self.observed.pods.push(PodObserved {
            namespace: "recsys".into(),
            name: format!("{model}-{index}"),
            uid: format!("pod-{model}-{index}"),
            owner: Some(PodOwner {
                model: key(model),
                pool: pool_name("g5"),
                cell: 0,
                revision,
            }),
            daemon_set: false,
            node: node.map(str::to_owned),
            ip: node.map(|_| format!("10.0.0.{index}")),
            requests: planner::view::request_of(spec),
            created: start(),
            ready: node.is_some(),
            ready_since: node.map(|_| start().saturating_sub(secs(3600)).unwrap()),
            terminating: false,
            finished: false,
            unschedulable: node.is_none(),
            deletion_cost: 0,
            trouble: None,
        });
    }

    pub fn refuse(&mut self, group: &GroupName, desired: u32) {
        let at = self.now;
        let scaling = self.scaling(group);
        scaling.desired = desired;
        scaling.launch_failure = Some(LaunchFailure {
            at,
            no_capacity: true,
            message: "InsufficientInstanceCapacity".into(),
        });
    }

    pub fn delete_pool(&mut self) {
        let now = self.now;
        self.pool().metadata.deletion_timestamp = Some(Time(now));
    }

    /// Time passes, and AWS is read again.
    pub fn pass(&mut self, seconds: i64) {
        self.now = self.now.saturating_add(secs(seconds)).unwrap();
        let now = self.now;
        self.cloud().read_at = now;
    }

    pub fn plan(&self) -> FleetPlan {
        planner::plan_fleet(&self.observed, self.now)
    }

    /// Gives every object of the models a resource version that follows from its content, as an API server does.
    pub fn stamp_versions(&mut self) {
        fn version(object: &impl Serialize) -> Option<String> {
            Some(planner::name::hash(
                &[&serde_json::to_string(object).unwrap()],
                16,
            ))
        }
        fn stamp<K: Metadata<Ty = ObjectMeta> + Serialize>(object: &mut K) {
            object.metadata_mut().resource_version = None;
            object.metadata_mut().resource_version = version(object);
        }
        for model in self.observed.models.values_mut() {
            model.spec.metadata.resource_version = None;
            model.spec.metadata.resource_version = version(&model.spec);
            model.deployments.iter_mut().for_each(stamp);
            model.services.iter_mut().for_each(stamp);
            model.service_accounts.iter_mut().for_each(stamp);
            model.budgets.iter_mut().for_each(stamp);
            model.network_policies.iter_mut().for_each(stamp);
        }
    }

    /// What the next snapshot brings back of a plan.
    pub fn remember(&mut self, plan: &FleetPlan) {
        let settled = plan
            .models
            .iter()
            .filter_map(|(key, part)| Some((key.clone(), part.settled.clone()?)));
        self.observed.settled = settled.collect();
    }

    pub fn pool_plan(&self) -> PoolPlan {
        self.plan().pools[&pool_name("g5")].clone()
    }

    pub fn model_plan(&self) -> ModelPlan {
        self.plan().models[&key("ranker")].clone()
    }

    /// Applies the objects of all models.
    pub fn apply_objects(&mut self) {
        for (key, plan) in self.plan().models {
            kube::apply(self.observed.models.get_mut(&key).unwrap(), &plan);
        }
    }
}

/// Status and reason of a planned condition: `False NoCapacity`.
pub fn said(conditions: &[WantedCondition], type_: ConditionType) -> String {
    let condition = conditions.iter().find(|c| c.type_ == type_);
    condition.map_or_else(
        || "absent".to_owned(),
        |c| {
            let status = c.status.map_or("Unknown", |s| if s { "True" } else { "False" });
            format!("{status} {}", c.reason.name())
        },
    )
}
