//! Carries out one part of a plan. No choices: effects in the order of the plan's fields, each with a deadline, stopping
//! at the first that fails; then one status patch; then events.
//!
//! Before anything destructive the owner is read once more, uncached: another uid or generation ends the part.

mod cloud;
mod kubernetes;
mod owner;

use std::sync::{Arc, Mutex};

use crds::{GpuPool, ModelDeployment, Reason};
use kube::runtime::events::Reporter;
use kube::{Api, Client, ResourceExt as _};
use planner::autoscaler::Decision;
use planner::observed::{ModelKey, PoolName};
use planner::plan::{CloudAction, Finalizer, FleetPlan, ModelPlan, NodeMark, PoolPlan};
use planner::sent::Sent;
use planner::status::{self, Outcome};

use crate::cloud::NodeGroups;
use crate::fleet::{Round, Subject};
use crate::inventory::Inventory;
use crate::launch::LaunchBucket;
use crate::lease::Permission;
use crate::metrics::Metrics;
pub use kubernetes::ApplyError;

/// What came of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// There was nothing to do.
    Quiet,
    Changed,
    Failed,
}

pub struct Applier<C> {
    pub client: Client,
    pub cloud: Arc<C>,
    pub inventory: Arc<Inventory>,
    pub bucket: Arc<LaunchBucket>,
    pub permission: Permission,
    pub metrics: Arc<Metrics>,
    pub reporter: Reporter,
    /// What was sent to AWS: a plan from an inventory that does not show it yet is out of date.
    pub sent: Mutex<Sent>,
}

/// Effects of a part so far.
#[derive(Debug, Default)]
struct Progress {
    changes: u32,
    outcome: Outcome,
    failed: bool,
}

impl Progress {
    /// Notes an effect; `false` ends the part.
    fn note(&mut self, effect: Result<bool, ApplyError>) -> bool {
        match effect {
            Ok(changed) => {
                self.changes += u32::from(changed);
                true
            }
            Err(error) => {
                self.failed = true;
                self.outcome.trouble = error.trouble();
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    class = error.class(),
                    "an effect failed"
                );
                false
            }
        }
    }

    fn applied(&self) -> Applied {
        match (self.failed, self.changes) {
            (true, _) => Applied::Failed,
            (false, 0) => Applied::Quiet,
            (false, _) => Applied::Changed,
        }
    }
}

impl<C: NodeGroups> Applier<C> {
    pub async fn apply(&self, round: &Round, subject: &Subject) -> Applied {
        match subject {
            Subject::Model(key) => match (round.observed.models.get(key), round.plan.models.get(key)) {
                (Some(model), Some(plan)) => self.apply_model(round, key, &model.spec, plan).await,
                _ => Applied::Quiet,
            },
            Subject::Pool(name) => match (round.observed.pools.get(name), round.plan.pools.get(name)) {
                (Some(pool), Some(plan)) => self.apply_pool(round, name, pool, plan).await,
                _ => Applied::Quiet,
            },
            Subject::Account => self.apply_account(round).await,
        }
    }

    async fn apply_model(
        &self,
        round: &Round,
        key: &ModelKey,
        model: &ModelDeployment,
        plan: &ModelPlan,
    ) -> Applied {
        let api: Api<ModelDeployment> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut progress = Progress::default();
        let done = self.model_effects(&api, key, model, plan, &mut progress).await;
        if done && plan.finalizer == Finalizer::Remove {
            // The object is gone with its last finalizer: there is nothing to report on.
            return progress.applied();
        }
        let status = status::model_status(model, plan, &progress.outcome, round.at);
        if let Some(status) = status {
            let written = self.write_status(&api, model, &status).await;
            let told = matches!(written, Ok(true));
            progress.note(written);
            if told {
                self.emit(model, &plan.events).await;
            }
        }
        progress.applied()
    }

    async fn model_effects(
        &self,
        api: &Api<ModelDeployment>,
        key: &ModelKey,
        model: &ModelDeployment,
        plan: &ModelPlan,
        progress: &mut Progress,
    ) -> bool {
        if plan.finalizer == Finalizer::Add
            && !progress.note(
                self.set_finalizer(api, model, (crds::TRAFFIC_FINALIZER, true))
                    .await,
            )
        {
            return false;
        }
        for (pod, cost) in &plan.pod_costs {
            if !progress.note(self.write_pod_cost(&key.namespace, pod, *cost).await) {
                return false;
            }
        }
        for object in &plan.objects {
            if !progress.note(self.apply_object(object).await) {
                return false;
            }
        }
        let destroys = !plan.deletes.is_empty() || plan.finalizer == Finalizer::Remove;
        if destroys && !progress.note(self.check_owner(api, model).await) {
            return false;
        }
        for object in &plan.deletes {
            if !progress.note(self.delete_object(object).await) {
                return false;
            }
        }
        if plan.finalizer == Finalizer::Remove {
            return progress.note(
                self.set_finalizer(api, model, (crds::TRAFFIC_FINALIZER, false))
                    .await,
            );
        }
        true
    }

    async fn apply_pool(&self, round: &Round, name: &PoolName, pool: &GpuPool, plan: &PoolPlan) -> Applied {
        let api: Api<GpuPool> = Api::all(self.client.clone());
        let mut progress = Progress::default();
        let done = self.pool_effects(round, &api, pool, plan, &mut progress).await;
        tracing::trace!(pool = name.0, done, "pool applied");
        if done && plan.finalizer == Finalizer::Remove {
            return progress.applied();
        }
        let status = status::pool_status(pool, plan, &progress.outcome, round.at);
        if let Some(status) = status {
            let written = self.write_status(&api, pool, &status).await;
            let told = matches!(written, Ok(true));
            progress.note(written);
            if told {
                self.emit(pool, &plan.events).await;
            }
        }
        progress.applied()
    }

    async fn pool_effects(
        &self,
        round: &Round,
        api: &Api<GpuPool>,
        pool: &GpuPool,
        plan: &PoolPlan,
        progress: &mut Progress,
    ) -> bool {
        if plan.finalizer == Finalizer::Add
            && !progress.note(
                self.set_finalizer(api, pool, (crds::CAPACITY_FINALIZER, true))
                    .await,
            )
        {
            return false;
        }
        for mark in &plan.node_marks {
            if !progress.note(self.mark_node(mark).await) {
                return false;
            }
        }
        let mut checked = false;
        for action in &plan.cloud {
            if cloud::destroys(action) && !checked {
                checked = true;
                if !progress.note(self.check_owner(api, pool).await) {
                    return false;
                }
            }
            if !progress.note(self.execute(round, action).await) {
                return false;
            }
        }
        if !plan.evict.is_empty() && !progress.note(self.check_owner(api, pool).await) {
            return false;
        }
        for eviction in &plan.evict {
            if !progress.note(self.evict(eviction).await) {
                return false;
            }
        }
        if plan.finalizer == Finalizer::Remove {
            return progress.note(self.check_owner(api, pool).await)
                && progress.note(
                    self.set_finalizer(api, pool, (crds::CAPACITY_FINALIZER, false))
                        .await,
                );
        }
        true
    }

    async fn apply_account(&self, round: &Round) -> Applied {
        let mut progress = Progress::default();
        let sweep = &round.plan.account.sweep;
        if sweep.is_empty() || !progress.note(self.check_unowned(round, sweep).await) {
            return progress.applied();
        }
        for action in sweep {
            if !progress.note(self.execute(round, action).await) {
                break;
            }
        }
        progress.applied()
    }
}

/// A decision in words, for the log: what is to be done, and the conditions that are not as they should be.
#[must_use]
pub fn describe(plan: &FleetPlan, subject: &Subject) -> String {
    let mut words = vec![];
    match subject {
        Subject::Model(key) => {
            let Some(part) = plan.models.get(key) else {
                return String::new();
            };
            words.extend(part.scaling.as_ref().and_then(scaled));
            let names = part
                .objects
                .iter()
                .map(|o| format!("apply {}", kubernetes::name_of(o)));
            words.extend(names);
            words.extend(
                part.deletes
                    .iter()
                    .map(|d| format!("delete {} {}", d.kind, d.name)),
            );
            words.extend(
                part.pod_costs
                    .iter()
                    .map(|(pod, cost)| format!("cost {pod} {cost}")),
            );
            words.extend(
                part.conditions
                    .iter()
                    .filter(|c| c.status == Some(false))
                    .map(blame),
            );
        }
        Subject::Pool(name) => {
            let Some(part) = plan.pools.get(name) else {
                return String::new();
            };
            words.extend(part.node_marks.iter().map(|mark| match mark {
                NodeMark::Drain { node, .. } => format!("cordon {node}"),
                NodeMark::Reclaim { node } => format!("uncordon {node}"),
            }));
            words.extend(part.cloud.iter().map(action_words));
            words.extend(
                part.evict
                    .iter()
                    .map(|e| format!("evict {}/{}", e.namespace, e.pod)),
            );
            words.extend(
                part.conditions
                    .iter()
                    .filter(|c| c.status == Some(false))
                    .map(blame),
            );
        }
        Subject::Account => {
            words.extend(plan.account.sweep.iter().map(action_words));
            words.extend(plan.account.held.clone());
            let orphans = plan.account.orphans.iter();
            words.extend(
                orphans.map(|(pool, groups)| format!("{} orphaned groups of {}", groups.len(), pool.0)),
            );
        }
    }
    words.join("; ")
}

/// A changed number of replicas, and what each metric asks for.
fn scaled((before, decision): &(u32, Decision)) -> Option<String> {
    let asked = decision
        .recommendations
        .iter()
        .map(|(metric, replicas)| match replicas {
            Some(replicas) => format!("{metric} asks for {replicas}"),
            None => format!("{metric} is unknown"),
        });
    let asked: Vec<_> = asked.collect();
    (*before != decision.desired)
        .then(|| format!("scale {before} -> {}: {}", decision.desired, asked.join(", ")))
}

fn blame(condition: &crds::condition::WantedCondition) -> String {
    format!(
        "{} is false: {}",
        condition.type_.as_str(),
        condition.reason.name()
    )
}

fn action_words(action: &CloudAction) -> String {
    let target = action.group().map_or("template", |g| g.0.as_str());
    match action {
        CloudAction::Grow { desired, .. } => format!("grow {target} to {desired}"),
        CloudAction::Retract { desired, .. } => format!("retract the orders of {target}, {desired} stay"),
        CloudAction::Remove {
            instances, desired, ..
        } => {
            format!("remove {} from {target}, {desired} stay", instances.join(","))
        }
        other => format!("{} {target}", other.verb()),
    }
}

/// The reason that a failed effect gives a condition.
pub(crate) fn reason_of_cloud(class: planner::observed::CloudErrorClass) -> Option<Reason> {
    use planner::observed::CloudErrorClass::{
        Conflict, Denied, Invalid, NotFound, Quota, Throttled, Timeout, Unavailable,
    };
    match class {
        Denied => Some(Reason::CloudDenied),
        Quota => Some(Reason::NodeGroupQuota),
        Invalid => Some(Reason::SpecInvalid),
        Throttled | Timeout | Unavailable => Some(Reason::CloudUnavailable),
        // The world moved: the next plan sees it.
        Conflict | NotFound => None,
    }
}

pub(crate) fn identity<K: kube::Resource>(object: &K) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}
