//! Carries plans out as the operator does: reads of AWS that are not cached before each change, one effect at a time, each with
//! a fate of its own. The verbs follow `operator/src/cloud/eks/{create,resize,retire}.rs` call by call.

use crds::Reason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use planner::observed::{ModelKey, PoolName};
use planner::plan::{CloudAction, Finalizer, FleetPlan, GroupName, NodeMark};
use planner::sent::Sent;
use planner::status::{Outcome, model_status, pool_status};

use super::aws::Call;
use super::judge;
use super::kube;
use super::world::World;

/// What happens at one effect: where the operator dies, or what it does not get to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Before the call.
    Before,
    /// It took effect; the answer is never read.
    Committed,
    /// The answer was read.
    After,
    /// It lives on, and the call is refused (throttled, no way to the server).
    Refused,
    /// It lives on; the call took effect, and its answer timed out.
    Unanswered,
}

pub const POINTS: [Point; 5] = [
    Point::Before,
    Point::Committed,
    Point::After,
    Point::Refused,
    Point::Unanswered,
];

/// What becomes of the calls of an operator that lives, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Refused: throttled, or no way to the server.
    pub refused: u64,
    /// Took effect; the answer timed out.
    pub unanswered: u64,
    /// Timed out, and takes effect up to 25 s later (calls of AWS only).
    pub late: u64,
}

impl World {
    pub fn carry_out(&mut self, plan: &FleetPlan) {
        for key in plan.models.keys() {
            self.carry_out_model(key, plan);
        }
        for name in plan.pools.keys() {
            self.carry_out_pool(name, plan);
        }
        for action in &plan.account.sweep {
            if !self.act(action) {
                break;
            }
        }
        if std::mem::take(&mut self.dead) {
            self.restart();
        }
    }

    /// Starts anew, and plans once before AWS is read.
    fn restart(&mut self) {
        self.crash = None;
        // Who leads next waited for the lease to run out, which takes as long as a call may be on its way.
        for (_, call) in std::mem::take(&mut self.late) {
            self.call(&call);
        }
        self.sent = Sent::default();
        self.fixture.observed.cloud = None;
        self.fixture.observed.settled.clear();
        let plan = self.plan();
        self.carry_out(&plan);
    }

    /// `false`: the part of the plan ends here.
    fn effect(&mut self, label: &str, commit: impl FnOnce(&mut Self)) -> bool {
        self.fate(label, None, commit)
    }

    fn fate(&mut self, label: &str, call: Option<&Call>, commit: impl FnOnce(&mut Self)) -> bool {
        if self.dead {
            return false;
        }
        let number = self.effects;
        self.effects += 1;
        let point = self.crash.filter(|(at, _)| *at == number).map(|(_, point)| point);
        let dice = if point.is_none() { self.dice.below(100) } else { 99 };
        let weather = self.weather;
        let lost = weather.refused + weather.unanswered;
        let what = match (point, call) {
            (Some(Point::Before), _) => "dies before",
            (Some(Point::Committed | Point::After), _) => "dies after",
            (Some(Point::Refused), _) => "refused",
            (Some(Point::Unanswered), _) => "unanswered",
            (None, _) if dice < weather.refused => "refused",
            (None, _) if dice < lost => "unanswered",
            (None, Some(_)) if dice < lost + weather.late => "late",
            _ => "done",
        };
        self.note(&format!("{what}: {label}"));
        self.dead = what.starts_with("dies");
        self.lost |= what == "unanswered" || what == "late";
        match (what, call) {
            ("late", Some(call)) => {
                let delay = 5 * (1 + self.dice.below(5));
                self.late.push((self.after(delay), call.clone()));
            }
            ("done" | "dies after" | "unanswered", _) => commit(self),
            _ => {}
        }
        what == "done"
    }

    fn carry_out_model(&mut self, key: &ModelKey, plan: &FleetPlan) {
        let (part, now) = (&plan.models[key], self.now());
        let name = &key.name;
        let mut lives = true;
        if part.finalizer != Finalizer::Keep {
            lives = self.effect(&format!("finalizer {name}"), |world| {
                let model = world.fixture.observed.models.get_mut(key).unwrap();
                if finalize(&mut model.spec.metadata, part.finalizer, crds::TRAFFIC_FINALIZER) {
                    world.fixture.observed.models.remove(key);
                }
            });
        }
        for (pod, cost) in &part.pod_costs {
            lives = lives
                && self.effect(&format!("cost {pod} {cost}"), |world| {
                    world.pods.price(pod, *cost)
                });
        }
        for (label, effect) in kube::effects(part) {
            lives = lives
                && self.effect(&label, |world| {
                    let model = world.fixture.observed.models.get_mut(key).unwrap();
                    kube::apply(model, &effect);
                });
        }
        let Some(model) = self.fixture.observed.models.get(key) else {
            return;
        };
        let outcome = outcome(lives);
        if let Some(status) = model_status(&model.spec, part, &outcome, now) {
            self.effect(&format!("status {name}"), |world| {
                let model = world.fixture.observed.models.get_mut(key).unwrap();
                model.spec.status = Some(status);
                world.status_writes += 1;
            });
        }
    }

    fn carry_out_pool(&mut self, name: &PoolName, plan: &FleetPlan) {
        let (part, now) = (&plan.pools[name], self.now());
        let lives = self.pool_effects(name, plan);
        let Some(pool) = self.fixture.observed.pools.get(name) else {
            return;
        };
        let outcome = outcome(lives);
        if let Some(status) = pool_status(pool, part, &outcome, now) {
            self.effect(&format!("status {}", name.0), |world| {
                world.fixture.observed.pools.get_mut(name).unwrap().status = Some(status);
                world.status_writes += 1;
            });
        }
    }

    fn pool_effects(&mut self, name: &PoolName, plan: &FleetPlan) -> bool {
        let part = &plan.pools[name];
        let finalizer = |world: &mut Self| {
            let pool = world.fixture.observed.pools.get_mut(name).unwrap();
            if finalize(&mut pool.metadata, part.finalizer, crds::CAPACITY_FINALIZER) {
                judge::pool_gone(world, name);
                world.fixture.observed.pools.remove(name);
            }
        };
        let mut lives = true;
        if part.finalizer == Finalizer::Add {
            lives = self.effect(&format!("finalizer {}", name.0), finalizer);
        }
        for mark in &part.node_marks {
            let (node, since) = match mark {
                NodeMark::Drain { node, since } => (node, Some(*since)),
                NodeMark::Reclaim { node } => (node, None),
            };
            let label = format!("{} {node}", if since.is_some() { "drain" } else { "reclaim" });
            lives = lives
                && self.effect(&label, |world| {
                    let node = world.fixture.node(node);
                    node.unschedulable = since.is_some();
                    node.victim_since = since;
                });
        }
        for action in &part.cloud {
            lives = lives && self.act(action);
        }
        for eviction in &part.evict {
            judge::evicted(self, eviction);
            lives = lives
                && self.effect(&format!("evict {}", eviction.pod), |world| {
                    let now = world.now();
                    world.pods.evict(&world.fixture.observed, eviction, now);
                });
        }
        if part.finalizer == Finalizer::Remove {
            lives = lives && self.effect(&format!("finalizer {}", name.0), finalizer);
        }
        lives
    }

    /// One verb: `false` when it failed, `true` when it was done, or not to be done after all.
    fn act(&mut self, action: &CloudAction) -> bool {
        if self.dead {
            return false;
        }
        judge::sends(self, action);
        let Some(cloud) = &self.fixture.observed.cloud else {
            return true;
        };
        let now = self.now();
        if !self.sent.allows(action, now, cloud.read_at) {
            return true;
        }
        let calls = self.calls(action);
        self.lost = false;
        let done = calls
            .iter()
            .all(|call| self.fate(&format!("{call:?}"), Some(call), |world| world.call(call)));
        let answered = !std::mem::take(&mut self.lost);
        self.sent.note(action, now, now, answered);
        done
    }

    pub fn call(&mut self, call: &Call) {
        let now = self.fixture.now;
        self.aws.call(call, &self.sells, now);
        judge::caps(self);
    }

    /// What the executor does for an action, from what it reads now.
    fn calls(&self, action: &CloudAction) -> Vec<Call> {
        let owned = |group: &GroupName, uid: &str| {
            let found = self.aws.groups.get(group);
            found.filter(|g| g.owner_uid == uid && g.deleted.is_none())
        };
        match action {
            CloudAction::Create(spec) => vec![
                Call::CreateTemplate(spec.clone()),
                Call::CreateGroup(spec.clone()),
            ],
            CloudAction::Grow {
                group: name,
                pool_uid,
                desired,
            } => owned(name, pool_uid)
                .filter(|g| g.desired < *desired)
                .map(|_| Call::SetSize(name.clone(), *desired))
                .into_iter()
                .collect(),
            CloudAction::Retract {
                group,
                pool_uid,
                desired,
            } => self.resize(group, pool_uid, &[], *desired),
            CloudAction::Remove {
                group,
                pool_uid,
                instances,
                desired,
            } => self.resize(group, pool_uid, instances, *desired),
            CloudAction::DeleteGroup { group, pool_uid } => owned(group, pool_uid)
                .filter(|g| g.is_empty())
                .map(|_| Call::DeleteGroup(group.clone()))
                .into_iter()
                .collect(),
            CloudAction::DeleteTemplate { name, pool_uid } => {
                let template = self.aws.templates.get(name);
                let owned = template.is_some_and(|t| &t.pool_uid == pool_uid);
                let used = self.aws.groups.values().any(|g| &g.spec.template_name == name);
                let calls = (owned && !used).then(|| Call::DeleteTemplate(name.clone()));
                calls.into_iter().collect()
            }
            CloudAction::Adopt {
                group: name,
                from_uid,
                to_uid,
            } => {
                let Some(group) = owned(name, from_uid).or(owned(name, to_uid)) else {
                    return vec![];
                };
                vec![
                    Call::TagTemplate(group.spec.template_name.clone(), to_uid.clone()),
                    Call::TagGroup(name.clone(), to_uid.clone(), false),
                ]
            }
            CloudAction::Release { group, pool_uid } => owned(group, pool_uid)
                .map(|_| Call::TagGroup(group.clone(), pool_uid.clone(), true))
                .into_iter()
                .collect(),
        }
    }

    /// What stays is protected, then the size is set to it.
    fn resize(&self, name: &GroupName, uid: &str, victims: &[String], desired: u32) -> Vec<Call> {
        let now = self.fixture.now;
        let group = self.aws.groups.get(name).filter(|g| g.owner_uid == uid);
        let Some(group) = group.filter(|g| g.active(now)) else {
            return vec![];
        };
        let is_victim = |id: &str| victims.iter().any(|v| v == id);
        let ids = |wanted: bool, protected: bool| -> Vec<String> {
            let living = group.living().filter(|i| i.protected == protected);
            let ids = living.map(|i| i.provider.instance_id().to_owned());
            ids.filter(|id| is_victim(id) == wanted).collect()
        };
        let dying = group
            .living()
            .filter(|i| is_victim(i.provider.instance_id()))
            .count();
        if group.living().any(|i| i.is_pending(now)) || (!victims.is_empty() && dying == 0) {
            return vec![];
        }
        let staying = group.live() - u32::try_from(dying).unwrap();
        let size = if victims.is_empty() {
            staying.max(desired).min(group.desired)
        } else {
            staying
        };
        let mut calls = vec![];
        let (exposed, spared) = (ids(false, false), ids(true, true));
        if !exposed.is_empty() {
            calls.push(Call::Protect(name.clone(), exposed, true));
        }
        if !spared.is_empty() {
            calls.push(Call::Protect(name.clone(), spared, false));
        }
        if size != group.desired {
            calls.push(Call::SetSize(name.clone(), size));
        }
        calls
    }
}

fn outcome(lives: bool) -> Outcome {
    let trouble = (Reason::CloudUnavailable, "a call failed".to_owned());
    Outcome {
        trouble: (!lives).then_some(trouble),
    }
}

/// Writes the finalizer; true when the object is gone by that.
fn finalize(meta: &mut ObjectMeta, finalizer: Finalizer, name: &str) -> bool {
    let list = meta.finalizers.get_or_insert_default();
    match finalizer {
        Finalizer::Keep => false,
        Finalizer::Add => {
            if !list.iter().any(|f| f == name) {
                list.push(name.to_owned());
            }
            false
        }
        Finalizer::Remove => {
            list.retain(|f| f != name);
            meta.deletion_timestamp.is_some()
        }
    }
}
