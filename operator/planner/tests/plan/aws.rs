//! AWS as the planner sees it: groups that take their time, launches that fail, and an Auto Scaling group that ends whichever
//! unprotected instance it likes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use planner::observed::{
    CloudObserved, GroupObserved, GroupState, InstanceObserved, LaunchFailure, Lifecycle, ProviderId,
};
use planner::plan::{CloudAction, GroupName, GroupSpec};

use super::fixture::{observed_group, observed_template};

/// Seconds from create to ACTIVE, from delete to gone; from launch to InService, to a Node, to its GPUs; from the end to gone.
const CREATE: i64 = 60;
const DELETE: i64 = 60;
const IN_SERVICE: i64 = 20;
pub const JOIN: i64 = 40;
pub const GPUS: i64 = 60;
const END: i64 = 30;

#[derive(Default)]
pub struct Aws {
    pub groups: BTreeMap<GroupName, Group>,
    templates: BTreeMap<String, planner::observed::TemplateObserved>,
    /// (type, zone) without capacity.
    pub sold_out: BTreeSet<(String, String)>,
    launched: u32,
}

pub struct Group {
    spec: GroupSpec,
    pub owner_uid: String,
    zone: String,
    created: Timestamp,
    deleted: Option<Timestamp>,
    pub released: bool,
    pub desired: u32,
    pub instances: Vec<Instance>,
    failure: Option<LaunchFailure>,
}

pub struct Instance {
    pub provider: ProviderId,
    pub launched: Timestamp,
    pub ended: Option<Timestamp>,
    protected: bool,
}

fn age(since: Timestamp, now: Timestamp) -> i64 {
    now.duration_since(since).as_secs()
}

impl Group {
    fn active(&self, now: Timestamp) -> bool {
        age(self.created, now) >= CREATE && self.deleted.is_none()
    }

    pub fn live(&self) -> u32 {
        u32::try_from(self.instances.iter().filter(|i| i.ended.is_none()).count()).unwrap()
    }

    pub fn requested(&self) -> u32 {
        self.desired.max(self.live())
    }

    /// From what is read at this moment: what stays is protected, then the size is lowered to it.
    fn remove(&mut self, victims: &[String], desired: u32, now: Timestamp) {
        let is_victim = |i: &Instance| victims.iter().any(|v| v == i.provider.instance_id());
        let living = || self.instances.iter().filter(|i| i.ended.is_none());
        let pending = living().any(|i| age(i.launched, now) < IN_SERVICE);
        if pending || !(victims.is_empty() || living().any(is_victim)) {
            return;
        }
        let staying = u32::try_from(living().filter(|i| !is_victim(i)).count()).unwrap();
        for instance in &mut self.instances {
            instance.protected = !is_victim(instance);
        }
        self.desired = if victims.is_empty() {
            staying.max(desired).min(self.desired)
        } else {
            staying
        };
    }

    pub fn pool(&self) -> &str {
        &self.spec.pool.0
    }

    fn observed(&self, now: Timestamp) -> GroupObserved {
        let mut group = observed_group(&self.spec, &self.zone, self.created);
        group.owner.pool_uid.clone_from(&self.owner_uid);
        group.owner.released = self.released;
        group.state = match self.deleted {
            Some(_) => GroupState::Deleting,
            None if self.active(now) => GroupState::Active,
            None => GroupState::Creating,
        };
        let Some(scaling) = group
            .scaling
            .as_mut()
            .filter(|_| age(self.created, now) >= CREATE)
        else {
            group.scaling = None;
            return group;
        };
        scaling.desired = self.desired;
        scaling.launch_failure.clone_from(&self.failure);
        let lifecycle = |i: &Instance| match i.ended {
            Some(_) => Lifecycle::Terminating,
            None if age(i.launched, now) < IN_SERVICE => Lifecycle::Pending,
            None => Lifecycle::InService,
        };
        let instances = self.instances.iter().map(|i| InstanceObserved {
            id: i.provider.instance_id().to_owned(),
            lifecycle: lifecycle(i),
            protected: i.protected,
        });
        scaling.instances = instances.collect();
        group
    }
}

impl Aws {
    pub fn observed(&self, sells: &CloudObserved, now: Timestamp) -> CloudObserved {
        CloudObserved {
            read_at: now,
            groups: self
                .groups
                .iter()
                .map(|(n, g)| (n.clone(), g.observed(now)))
                .collect(),
            group_count: u32::try_from(self.groups.len()).unwrap(),
            templates: self.templates.clone(),
            ..sells.clone()
        }
    }

    /// No group, no template.
    pub fn is_bare(&self) -> bool {
        self.groups.is_empty() && self.templates.is_empty()
    }

    pub fn requested(&self, pool: &str) -> u32 {
        let groups = self.groups.values().filter(|g| g.pool() == pool);
        groups.map(Group::requested).sum()
    }

    pub fn is_settled(&self, now: Timestamp) -> bool {
        self.groups.values().all(|g| {
            let old = g
                .instances
                .iter()
                .all(|i| i.ended.is_none() && age(i.launched, now) > GPUS);
            g.active(now) && (g.live() == g.desired) && old
        })
    }

    pub fn pass(&mut self, now: Timestamp) {
        self.groups
            .retain(|_, g| g.deleted.is_none_or(|t| age(t, now) < DELETE));
        for group in self.groups.values_mut() {
            group
                .instances
                .retain(|i| i.ended.is_none_or(|t| age(t, now) < END));
            if !group.active(now) {
                continue;
            }
            while group.live() < group.desired {
                let offering = (group.spec.instance_type.clone(), group.zone.clone());
                if self.sold_out.contains(&offering) {
                    group.failure = Some(LaunchFailure {
                        at: now,
                        no_capacity: true,
                        message: "InsufficientInstanceCapacity".into(),
                    });
                    break;
                }
                self.launched += 1;
                group.failure = None;
                group.instances.push(Instance {
                    provider: ProviderId(format!("aws:///{}/i-{:04}", group.zone, self.launched)),
                    launched: now,
                    ended: None,
                    protected: false,
                });
            }
            while group.live() > group.desired {
                let free = |i: &&mut Instance| i.ended.is_none() && !i.protected;
                let Some(victim) = group.instances.iter_mut().find(free) else {
                    break;
                };
                victim.ended = Some(now);
            }
        }
    }

    /// Carries out an action as the executor does. Repeating one changes nothing.
    pub fn act(&mut self, action: &CloudAction, sells: &CloudObserved, now: Timestamp) {
        match action {
            CloudAction::Create(spec) => self.create(spec, sells, now),
            CloudAction::Grow { group, desired, .. } => {
                let group = self.groups.get_mut(group).unwrap();
                assert!(group.active(now), "grow of a group that is not active");
                assert!(*desired <= group.spec.max_nodes);
                group.desired = group.desired.max(*desired);
            }
            CloudAction::Retract { group, desired, .. } => {
                self.groups.get_mut(group).unwrap().remove(&[], *desired, now);
            }
            CloudAction::Remove {
                group,
                instances,
                desired,
                ..
            } => self
                .groups
                .get_mut(group)
                .unwrap()
                .remove(instances, *desired, now),
            CloudAction::DeleteGroup { group, .. } => {
                let Some(group) = self.groups.get_mut(group) else {
                    return;
                };
                assert_eq!(group.requested(), 0, "delete of a group with nodes");
                group.deleted.get_or_insert(now);
            }
            CloudAction::DeleteTemplate { name, .. } => {
                self.templates.remove(name);
            }
            CloudAction::Adopt {
                group,
                from_uid,
                to_uid,
            } => {
                let group = self.groups.get_mut(group).unwrap();
                assert!(&group.owner_uid == from_uid || &group.owner_uid == to_uid);
                group.owner_uid.clone_from(to_uid);
                group.released = false;
                let template = self.templates.get_mut(&group.spec.template_name).unwrap();
                template.pool_uid.clone_from(to_uid);
            }
            CloudAction::Release { group, .. } => self.groups.get_mut(group).unwrap().released = true,
        }
    }

    fn create(&mut self, spec: &GroupSpec, sells: &CloudObserved, now: Timestamp) {
        let twins = self.groups.values().filter(|g| {
            let s = &g.spec;
            (&s.pool_uid, s.shard, &s.spec_hash) == (&spec.pool_uid, spec.shard, &spec.spec_hash)
        });
        assert!(
            twins.clone().all(|g| g.spec.name == spec.name),
            "I2: a second group"
        );
        if twins.count() > 0 {
            return;
        }
        self.templates
            .insert(spec.template_name.clone(), observed_template(spec, now));
        let group = Group {
            spec: spec.clone(),
            owner_uid: spec.pool_uid.clone(),
            zone: sells.subnets[&spec.subnet].clone(),
            created: now,
            deleted: None,
            released: false,
            desired: 0,
            instances: vec![],
            failure: None,
        };
        self.groups.insert(spec.name.clone(), group);
    }
}
