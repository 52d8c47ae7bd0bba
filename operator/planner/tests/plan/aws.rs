//! AWS as the planner sees it: groups that take their time, launches that fail, arrive late or are never tried, and an Auto
//! Scaling group that ends whichever unprotected instance it likes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use planner::observed::{
    CloudObserved, GroupObserved, GroupState, InstanceObserved, LaunchFailure, Lifecycle, ProviderId,
    TemplateObserved,
};
use planner::plan::{GroupName, GroupSpec};

use super::fixture::{observed_group, observed_template, secs};

/// Seconds from create to ACTIVE, from delete to gone; from launch to InService, to a Node, to its GPUs; from the end to gone.
const CREATE: i64 = 60;
const DELETE: i64 = 60;
const IN_SERVICE: i64 = 20;
pub const JOIN: i64 = 40;
pub const GPUS: i64 = 60;
const END: i64 = 30;

/// One call that changes something.
#[derive(Clone, Debug)]
pub enum Call {
    CreateTemplate(Box<GroupSpec>),
    CreateGroup(Box<GroupSpec>),
    Protect(GroupName, Vec<String>, bool),
    SetSize(GroupName, u32),
    DeleteGroup(GroupName),
    DeleteTemplate(String),
    /// Owner's uid and the mark of being let go of.
    TagGroup(GroupName, String, bool),
    TagTemplate(String, String),
}

#[derive(Clone, Default)]
pub struct Aws {
    pub groups: BTreeMap<GroupName, Group>,
    pub templates: BTreeMap<String, TemplateObserved>,
    /// (type, zone) without capacity.
    pub sold_out: BTreeSet<(String, String)>,
    /// Zones in which nothing is launched, and nothing said.
    pub silent: BTreeSet<String>,
    /// A launch that was tried for an order arrives although the order was taken back.
    pub arrives_late: bool,
    arriving: Vec<(GroupName, Timestamp)>,
    launched: u32,
    /// What was made and unmade, by resource: (creates, deletes, nodes ordered, nodes given back).
    pub tally: BTreeMap<String, [u32; 4]>,
}

#[derive(Clone)]
pub struct Group {
    pub spec: GroupSpec,
    pub owner_uid: String,
    pub zone: String,
    pub created: Timestamp,
    pub deleted: Option<Timestamp>,
    pub released: bool,
    pub desired: u32,
    pub instances: Vec<Instance>,
    failure: Option<LaunchFailure>,
}

#[derive(Clone)]
pub struct Instance {
    pub provider: ProviderId,
    pub launched: Timestamp,
    pub ended: Option<Timestamp>,
    pub protected: bool,
}

pub fn age(since: Timestamp, now: Timestamp) -> i64 {
    now.duration_since(since).as_secs()
}

impl Instance {
    pub fn is_pending(&self, now: Timestamp) -> bool {
        self.ended.is_none() && age(self.launched, now) < IN_SERVICE
    }
}

impl Group {
    pub fn active(&self, now: Timestamp) -> bool {
        age(self.created, now) >= CREATE && self.deleted.is_none()
    }

    pub fn living(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(|i| i.ended.is_none())
    }

    pub fn live(&self) -> u32 {
        u32::try_from(self.living().count()).unwrap()
    }

    pub fn requested(&self) -> u32 {
        self.desired.max(self.live())
    }

    /// Holds nothing, not even on its way out, and is ordered nothing.
    pub fn is_empty(&self) -> bool {
        self.desired == 0 && self.instances.is_empty()
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
            None if i.is_pending(now) => Lifecycle::Pending,
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

    /// A released group of `owner` with nodes.
    pub fn insert(&mut self, spec: GroupSpec, owner: &str, nodes: u32, now: Timestamp) {
        let group = Group {
            spec: spec.clone(),
            owner_uid: owner.into(),
            zone: "us-east-1a".into(),
            created: now.saturating_sub(secs(3600)).unwrap(),
            deleted: None,
            released: true,
            desired: nodes,
            instances: vec![],
            failure: None,
        };
        let created = group.created;
        self.groups.insert(spec.name.clone(), group);
        for _ in 0..nodes {
            self.launch(&spec.name, created);
        }
    }

    pub fn requested(&self, pool: &str) -> u32 {
        let groups = self.groups.values().filter(|g| g.pool() == pool);
        groups.map(Group::requested).sum()
    }

    pub fn is_settled(&self, now: Timestamp) -> bool {
        let groups = self.groups.values().all(|g| {
            let old = g
                .instances
                .iter()
                .all(|i| i.ended.is_none() && age(i.launched, now) > GPUS);
            g.active(now) && (g.live() == g.desired) && old
        });
        let used = |name: &String| self.groups.values().any(|g| &g.spec.template_name == name);
        // One that nobody uses is deleted after ten minutes, or is of today's spec and stays.
        let mut templates = self.templates.values();
        let templates = templates.all(|t| used(&t.name) || age(t.created, now) > 700);
        groups && self.arriving.is_empty() && templates
    }

    pub fn pass(&mut self, now: Timestamp) {
        self.groups
            .retain(|_, g| g.deleted.is_none_or(|t| age(t, now) < DELETE));
        let due = self.arriving.extract_if(.., |(_, at)| *at <= now);
        let late: Vec<GroupName> = due.map(|(name, _)| name).collect();
        for name in late {
            self.launch(&name, now);
        }
        let names: Vec<GroupName> = self.groups.keys().cloned().collect();
        for name in &names {
            let group = self.groups.get_mut(name).unwrap();
            group
                .instances
                .retain(|i| i.ended.is_none_or(|t| age(t, now) < END));
            if !group.active(now) {
                continue;
            }
            let offering = (group.spec.instance_type.clone(), group.zone.clone());
            if self.sold_out.contains(&offering) && group.live() < group.desired {
                group.failure = Some(LaunchFailure {
                    at: now,
                    no_capacity: true,
                    message: "InsufficientInstanceCapacity".into(),
                });
            } else if !self.silent.contains(&group.zone) {
                for _ in group.live()..group.desired {
                    self.launch(name, now);
                }
            }
            self.scale_in(name, now);
        }
    }

    fn launch(&mut self, name: &GroupName, now: Timestamp) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        self.launched += 1;
        group.failure = None;
        group.instances.push(Instance {
            provider: ProviderId(format!("aws:///{}/i-{:04}", group.zone, self.launched)),
            launched: now,
            ended: None,
            protected: false,
        });
    }

    /// The oldest that is not protected: the worst choice for us.
    fn scale_in(&mut self, name: &GroupName, now: Timestamp) {
        let group = self.groups.get_mut(name).unwrap();
        while group.live() > group.desired {
            let free = |i: &&mut Instance| i.ended.is_none() && !i.protected;
            let Some(victim) = group.instances.iter_mut().find(free) else {
                break;
            };
            victim.ended = Some(now);
        }
    }

    fn tally(&mut self, resource: &str, what: usize, count: u32) {
        self.tally.entry(resource.to_owned()).or_default()[what] += count;
    }

    /// Carries out a call. Repeating one changes nothing.
    pub fn call(&mut self, call: &Call, sells: &CloudObserved, now: Timestamp) {
        match call {
            Call::CreateTemplate(spec) => {
                if !self.templates.contains_key(&spec.template_name) {
                    self.tally(&spec.template_name, 0, 1);
                    let template = observed_template(spec, now);
                    self.templates.insert(spec.template_name.clone(), template);
                }
            }
            Call::CreateGroup(spec) => self.create(spec, sells, now),
            Call::Protect(name, ids, protected) => {
                let group = self.groups.get_mut(name);
                for instance in group.into_iter().flat_map(|g| &mut g.instances) {
                    if ids.iter().any(|id| id == instance.provider.instance_id()) {
                        instance.protected = *protected;
                    }
                }
            }
            Call::SetSize(name, desired) => self.set_size(name, *desired, now),
            Call::DeleteGroup(name) => {
                let Some(group) = self.groups.get_mut(name).filter(|g| g.deleted.is_none()) else {
                    return;
                };
                assert!(group.is_empty(), "I3: delete of {} with nodes", name.0);
                group.deleted = Some(now);
                self.tally(&name.0, 1, 1);
            }
            Call::DeleteTemplate(name) => {
                if self.templates.remove(name).is_some() {
                    self.tally(name, 1, 1);
                }
            }
            Call::TagGroup(name, uid, released) => {
                if let Some(group) = self.groups.get_mut(name) {
                    group.owner_uid.clone_from(uid);
                    group.released = *released;
                }
            }
            Call::TagTemplate(name, uid) => {
                if let Some(template) = self.templates.get_mut(name) {
                    template.pool_uid.clone_from(uid);
                }
            }
        }
    }

    fn set_size(&mut self, name: &GroupName, desired: u32, now: Timestamp) {
        let Some(group) = self.groups.get_mut(name).filter(|g| g.active(now)) else {
            return;
        };
        assert!(desired <= group.spec.max_nodes, "{} above its maximum", name.0);
        let before = group.desired;
        let tried = before > group.live() && !self.silent.contains(&group.zone);
        group.desired = desired;
        self.tally(&name.0, 2, desired.saturating_sub(before));
        self.tally(&name.0, 3, before.saturating_sub(desired));
        if self.arrives_late && tried && desired < before {
            let at = now.saturating_add(secs(10)).unwrap();
            self.arriving.push((name.clone(), at));
        }
    }

    fn create(&mut self, spec: &GroupSpec, sells: &CloudObserved, now: Timestamp) {
        if self.groups.contains_key(&spec.name) {
            return;
        }
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
        self.tally(&spec.name.0, 0, 1);
    }
}
