//! The tick: a snapshot, one plan of everything, and its parts to whoever applies them.
//!
//! A tick comes when a watched object changed, when AWS was read, when the plan asked for it (`next_check`), and every
//! 10 s. Nobody is told why: what is to be done follows from the snapshot. An object whose last part is still being
//! applied is left alone, and one that failed waits for its back-off; both are planned again on the next tick.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use planner::autoscaler::Memory;
use planner::observed::{ModelKey, Observed, PoolName, Settings};
use planner::plan::{FleetPlan, ModelPlan};
use planner::workload::Settled;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use crate::admin::Health;
use crate::apply::{Applied, Applier};
use crate::cloud::NodeGroups;
use crate::inventory::Inventory;
use crate::launch::LaunchBucket;
use crate::load::{self, GpuLoad, Loads};
use crate::metrics::Metrics;
use crate::observe::Stores;

/// Changes that come in a burst are planned together.
const DEBOUNCE: Duration = Duration::from_millis(200);
const RESYNC: Duration = Duration::from_secs(10);
const SOONEST: Duration = Duration::from_millis(500);
/// Parts that are applied at once.
const CONCURRENCY: usize = 8;
/// Back-off of an object whose part failed: doubled from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// One snapshot and what was planned from it.
pub struct Round {
    pub observed: Observed,
    pub plan: FleetPlan,
    pub at: Timestamp,
}

/// An object that a part of the plan belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    Model(ModelKey),
    Pool(PoolName),
    /// What has no owner: groups and templates to sweep.
    Account,
}

impl Subject {
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Model(_) => "ModelDeployment",
            Self::Pool(_) => "GpuPool",
            Self::Account => "Account",
        }
    }
}

/// Everything that a tick needs.
pub struct Fleet<C, L> {
    pub stores: Stores,
    pub loads: Arc<Loads<L>>,
    pub inventory: Arc<Inventory>,
    pub bucket: Arc<LaunchBucket>,
    pub settings: Settings,
    pub applier: Arc<Applier<C>>,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub changed: Arc<Notify>,
    pub dry_run: bool,
}

/// Failures of one object in a row, and when it may be tried again.
#[derive(Clone, Copy, Debug)]
struct Backoff {
    failures: u32,
    until: Instant,
    generation: i64,
}

#[derive(Default)]
struct Dispatch {
    busy: BTreeSet<Subject>,
    backoff: BTreeMap<Subject, Backoff>,
    running: JoinSet<(Subject, i64, Applied)>,
    logged: BTreeMap<Subject, String>,
    /// For the next plan, from the last.
    settled: BTreeMap<ModelKey, Settled>,
    memories: BTreeMap<ModelKey, Memory>,
    /// Were busy when a newer plan came.
    missed: BTreeSet<Subject>,
}

impl<C: NodeGroups, L: GpuLoad> Fleet<C, L> {
    /// Ticks until `stop`; then no effect is begun any more, and those in flight finish.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut dispatch = Dispatch::default();
        let slots = Arc::new(Semaphore::new(CONCURRENCY));
        loop {
            let next_check = self.tick(&mut dispatch, &slots);
            tokio::select! {
                () = &mut stop => break,
                () = dispatch.until_due(next_check, &self.changed) => {}
            }
            tokio::time::sleep(DEBOUNCE).await;
        }
        self.applier.permission.withdraw();
        while dispatch.running.join_next().await.is_some() {}
    }

    fn tick(&self, dispatch: &mut Dispatch, slots: &Arc<Semaphore>) -> Option<Timestamp> {
        while let Some(done) = dispatch.running.try_join_next() {
            let _ = dispatch.finish(done);
        }
        self.tell_catalog();
        let tokens = self.bucket.available(Instant::now());
        let known = self.inventory.snapshot();
        let mut observed = self.stores.observe(&self.settings, known, tokens);
        observed.settled = std::mem::take(&mut dispatch.settled);
        observed.memories = std::mem::take(&mut dispatch.memories);
        self.loads.ask(load::targets(&observed));
        observed.load = self.loads.snapshot();
        let at = Timestamp::now();
        let started = Instant::now();
        let plan = planner::plan_fleet(&observed, at);
        self.metrics.plan_seconds.observe(started.elapsed().as_secs_f64());
        let settled = |(key, part): (&ModelKey, &ModelPlan)| Some((key.clone(), part.settled.clone()?));
        dispatch.settled = plan.models.iter().filter_map(settled).collect();
        let memory =
            |(key, part): (&ModelKey, &ModelPlan)| Some((key.clone(), part.scaling.clone()?.1.memory));
        dispatch.memories = plan.models.iter().filter_map(memory).collect();
        self.measure(&observed, &plan, at);
        self.health.tick();
        let next_check = plan.next_check;
        let round = Arc::new(Round { observed, plan, at });
        for subject in subjects(&round) {
            self.dispatch(dispatch, slots, &round, subject);
        }
        dispatch
            .backoff
            .retain(|subject, _| generation(&round, subject).is_some());
        next_check
    }

    fn dispatch(
        &self,
        dispatch: &mut Dispatch,
        slots: &Arc<Semaphore>,
        round: &Arc<Round>,
        subject: Subject,
    ) {
        let generation = generation(round, &subject).unwrap_or(0);
        let busy = dispatch.busy.contains(&subject);
        if busy || dispatch.waits(&subject, generation) {
            if busy {
                dispatch.missed.insert(subject.clone());
            }
            self.metrics.reconciled(subject.kind(), "waiting");
            return;
        }
        dispatch.log_decision(round, &subject);
        if self.dry_run {
            self.metrics.reconciled(subject.kind(), "quiet");
            return;
        }
        dispatch.busy.insert(subject.clone());
        let (applier, round, slots) = (Arc::clone(&self.applier), Arc::clone(round), Arc::clone(slots));
        let metrics = Arc::clone(&self.metrics);
        dispatch.running.spawn(async move {
            let _slot = slots.acquire_owned().await;
            let started = Instant::now();
            let applied = applier.apply(&round, &subject).await;
            metrics.took(subject.kind(), started.elapsed());
            let outcome = match applied {
                Applied::Quiet => "quiet",
                Applied::Changed => "applied",
                Applied::Failed => "failed",
            };
            metrics.reconciled(subject.kind(), outcome);
            (subject, generation, applied)
        });
    }

    fn tell_catalog(&self) {
        let pools = self.stores.pools.state();
        let specs = || pools.iter().map(|pool| &pool.spec);
        self.inventory.name(
            specs().flat_map(|s| s.instance_types.iter().cloned()).collect(),
            specs().flat_map(|s| s.subnet_ids.iter().cloned()).collect(),
        );
    }

    fn measure(&self, observed: &Observed, plan: &FleetPlan, now: Timestamp) {
        let label = |pool: &PoolName| crate::metrics::PoolLabels { pool: pool.0.clone() };
        self.metrics.objects("ModelDeployment", observed.models.len());
        self.metrics.objects("GpuPool", observed.pools.len());
        self.metrics.nodes_wanted.clear();
        for (name, pool) in &plan.pools {
            let gauge = self.metrics.nodes_wanted.get_or_create_owned(&label(name));
            gauge.set(i64::from(pool.nodes_wanted));
        }
        self.metrics.orphaned_groups.clear();
        for (name, groups) in &plan.account.orphans {
            let count = i64::try_from(groups.len()).unwrap_or(i64::MAX);
            self.metrics
                .orphaned_groups
                .get_or_create_owned(&label(name))
                .set(count);
        }
        if let Some(cloud) = &observed.cloud {
            self.metrics
                .inventory_age_seconds
                .set(now.duration_since(cloud.read_at).as_secs());
        }
    }
}

impl Dispatch {
    /// Returns when a new plan is due. A part that was applied is no reason for one: what it changed comes back through a
    /// watch or the inventory, and planning before that would decide on what was.
    async fn until_due(&mut self, next_check: Option<Timestamp>, changed: &Notify) {
        let now = Instant::now();
        let timer = now + until(next_check).min(RESYNC);
        loop {
            let due = self.soonest_retry().map_or(timer, |retry| retry.min(timer));
            tokio::select! {
                () = changed.notified() => return,
                () = tokio::time::sleep_until(due.into()) => return,
                Some(done) = self.running.join_next() => {
                    if self.finish(done) {
                        return;
                    }
                }
            }
        }
    }

    /// When the first of those that failed may be tried again.
    fn soonest_retry(&self) -> Option<Instant> {
        let idle = self
            .backoff
            .iter()
            .filter(|(subject, _)| !self.busy.contains(*subject));
        idle.map(|(_, backoff)| backoff.until).min()
    }

    /// `true`: a newer plan came while this part was being applied, so plan again.
    #[must_use]
    fn finish(&mut self, done: Result<(Subject, i64, Applied), tokio::task::JoinError>) -> bool {
        let (subject, generation, applied) = match done {
            Ok(done) => done,
            Err(error) => {
                // A panic in an applier: nothing is known of what it did, so start again from nothing.
                tracing::error!(%error, "applying a plan panicked");
                std::process::exit(70);
            }
        };
        self.busy.remove(&subject);
        let missed = self.missed.remove(&subject);
        if applied != Applied::Failed {
            self.backoff.remove(&subject);
            return missed;
        }
        let failures = self
            .backoff
            .get(&subject)
            .map_or(1, |b| b.failures.saturating_add(1));
        let wait = BACKOFF
            .0
            .saturating_mul(1 << (failures - 1).min(6))
            .min(BACKOFF.1);
        let until = Instant::now() + wait.mul_f64(jitter(&subject, failures));
        self.backoff.insert(
            subject,
            Backoff {
                failures,
                until,
                generation,
            },
        );
        // What failed is planned again when its back-off is over.
        false
    }

    /// A new generation is tried at once.
    fn waits(&self, subject: &Subject, generation: i64) -> bool {
        let backoff = self.backoff.get(subject);
        backoff.is_some_and(|b| b.generation == generation && Instant::now() < b.until)
    }

    /// One line per changed decision.
    fn log_decision(&mut self, round: &Round, subject: &Subject) {
        let decision = crate::apply::describe(&round.plan, subject);
        if self.logged.get(subject) != Some(&decision) {
            if !decision.is_empty() {
                tracing::info!(?subject, decision, "planned");
            }
            self.logged.insert(subject.clone(), decision);
        }
    }
}

/// 0.75 to 1.25, by subject and attempt, so that what failed together is not tried again together.
fn jitter(subject: &Subject, failures: u32) -> f64 {
    let mut hasher = DefaultHasher::new();
    (subject, failures).hash(&mut hasher);
    0.75 + 0.5 * (hasher.finish() % 1024) as f64 / 1024.0
}

fn until(next_check: Option<Timestamp>) -> Duration {
    let Some(at) = next_check else { return RESYNC };
    let wait = Duration::try_from(at.duration_since(Timestamp::now()));
    // A moment that has passed and is asked for again must not make a busy loop.
    wait.unwrap_or(Duration::ZERO).max(SOONEST)
}

fn subjects(round: &Round) -> Vec<Subject> {
    let models = round.plan.models.keys().cloned().map(Subject::Model);
    let pools = round.plan.pools.keys().cloned().map(Subject::Pool);
    // Pools first: their cordons come before the models' shrinks.
    pools.chain(models).chain([Subject::Account]).collect()
}

fn generation(round: &Round, subject: &Subject) -> Option<i64> {
    match subject {
        Subject::Model(key) => round
            .observed
            .models
            .get(key)
            .map(|m| m.spec.metadata.generation.unwrap_or(0)),
        Subject::Pool(name) => round
            .observed
            .pools
            .get(name)
            .map(|p| p.metadata.generation.unwrap_or(0)),
        Subject::Account => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Subject {
        Subject::Pool(PoolName("p".to_owned()))
    }

    fn done(applied: Applied) -> Result<(Subject, i64, Applied), tokio::task::JoinError> {
        Ok((pool(), 1, applied))
    }

    #[test]
    fn a_part_that_is_done_asks_for_no_plan_unless_one_was_missed() {
        let mut dispatch = Dispatch::default();
        for applied in [Applied::Quiet, Applied::Changed, Applied::Failed] {
            dispatch.busy.insert(pool());
            assert!(!dispatch.finish(done(applied)), "{applied:?}");
        }
        dispatch.busy.insert(pool());
        dispatch.missed.insert(pool());
        assert!(dispatch.finish(done(Applied::Changed)));
        assert!(dispatch.busy.is_empty() && dispatch.missed.is_empty());
    }

    #[test]
    fn failures_back_off_and_a_new_generation_is_tried_at_once() {
        let mut dispatch = Dispatch::default();
        let mut waits = vec![];
        for _ in 0..9 {
            let before = Instant::now();
            let _ = dispatch.finish(done(Applied::Failed));
            waits.push(
                dispatch
                    .soonest_retry()
                    .unwrap()
                    .duration_since(before)
                    .as_secs_f64(),
            );
        }
        assert!(
            (0.7..1.4).contains(&waits[0]) && (40.0..=76.0).contains(&waits[8]),
            "{waits:?}"
        );
        assert!(dispatch.waits(&pool(), 1) && !dispatch.waits(&pool(), 2));
        dispatch.busy.insert(pool());
        assert_eq!(dispatch.soonest_retry(), None);
        let _ = dispatch.finish(done(Applied::Quiet));
        assert!(!dispatch.waits(&pool(), 1));
    }
}
