//! What the replicas of models say of their load, read by a task of its own.
//!
//! ```text
//! runtime.rs   one replica: GET /load -> the planner's words
//! targets      the pods that serve, of every model that scales itself; of a large one a random sample each round
//! round        healthy pods, 64 at a time; those that failed last time in a lane of their own, so that one dead zone
//!              delays nobody
//! ```
//!
//! A pod that fails keeps its last answer and that answer's time, which says how old it is. Answers are told by whole
//! rounds: load that moved from old replicas to new ones between two rounds would count twice in a mixture of both.

mod runtime;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use planner::observed::{ModelKey, ModelLoad, Observed, ReplicaLoad, Sample};
use rand::seq::IndexedRandom as _;
use tokio::sync::{Notify, Semaphore};

use crate::metrics::Metrics;
pub use runtime::{LoadError, RuntimeLoad, parse};

/// Pods of a model that are asked in a round: the mean of 500 random ones whose load varies by half of it is within
/// 5 % of the mean of all, 39 times of 40 (1.96 * 0.5 / sqrt(500) = 4.4 %).
const SAMPLE: usize = 500;
/// Requests at once, and those to pods that failed last time.
const CONCURRENCY: (usize, usize) = (64, 16);
/// A replica answers from memory; one that takes longer has other troubles.
pub const DEADLINE: Duration = Duration::from_secs(2);

/// The seam to the replicas.
pub trait GpuLoad: Send + Sync + 'static {
    /// Asks the replica at `address` (`IP:port` of its admin port).
    fn read(&self, address: &str) -> impl Future<Output = Result<ReplicaLoad, LoadError>> + Send;
}

/// A pod that serves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    pub pod: String,
    pub address: String,
}

pub type Targets = BTreeMap<ModelKey, Vec<Target>>;

/// Pods that are asked in a round.
type Asked = Vec<(ModelKey, Target)>;

/// Pods that serve, of the models that scale themselves.
#[must_use]
pub fn targets(observed: &Observed) -> Targets {
    let scaled = |key: &ModelKey| {
        let model = observed.models.get(key);
        model.is_some_and(|m| m.spec.spec.autoscaling.is_some())
    };
    let mut targets = Targets::new();
    for pod in observed.pods.iter().filter(|p| p.ready && !p.terminating) {
        let Some((owner, ip)) = pod.owner.as_ref().zip(pod.ip.as_ref()) else {
            continue;
        };
        if scaled(&owner.model) {
            // An address of version 6 stands in brackets.
            let ip = if ip.contains(':') {
                format!("[{ip}]")
            } else {
                ip.clone()
            };
            let address = format!("{ip}:{}", planner::workload::ADMIN_PORT);
            let pod = pod.name.clone();
            targets
                .entry(owner.model.clone())
                .or_default()
                .push(Target { pod, address });
        }
    }
    targets
}

#[derive(Default)]
struct State {
    targets: Targets,
    /// Replicas asked in the last round.
    asked: BTreeMap<ModelKey, ModelAsked>,
    /// Pods that did not answer when they were asked last.
    failing: BTreeSet<String>,
    /// What was known at the end of the last round.
    told: BTreeMap<ModelKey, ModelLoad>,
}

#[derive(Default)]
struct ModelAsked {
    /// By pod.
    samples: BTreeMap<String, Sample>,
    /// How many served when the round began.
    population: u32,
}

pub struct Loads<L> {
    reader: L,
    metrics: Arc<Metrics>,
    deadline: Duration,
    state: Mutex<State>,
    /// Its one permit is taken while the failing are being asked.
    failing_lane: Arc<Semaphore>,
}

impl<L: GpuLoad> Loads<L> {
    #[must_use]
    pub fn new(reader: L, metrics: Arc<Metrics>, deadline: Duration) -> Arc<Self> {
        Arc::new(Self {
            reader,
            metrics,
            deadline,
            state: Mutex::default(),
            failing_lane: Arc::new(Semaphore::new(1)),
        })
    }

    /// What the last whole round brought.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<ModelKey, ModelLoad> {
        self.lock().told.clone()
    }

    /// Whom to ask from now on.
    pub fn ask(&self, targets: Targets) {
        self.lock().targets = targets;
    }

    /// Asks for ever, every `period`. `changed` is told after every round that asked somebody.
    pub async fn run(self: Arc<Self>, period: Duration, changed: &Notify) {
        let mut clock = tokio::time::interval(period);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            if self.round().await {
                changed.notify_one();
            }
        }
    }

    /// Asks everybody once. The failing have a task of their own, which the round does not wait for. `false`: there was
    /// nobody to ask.
    async fn round(self: &Arc<Self>) -> bool {
        let (healthy, failing) = self.begin();
        if healthy.is_empty() && failing.is_empty() {
            self.tell();
            return false;
        }
        if !failing.is_empty()
            && let Ok(lane) = Arc::clone(&self.failing_lane).try_acquire_owned()
        {
            let this = Arc::clone(self);
            tokio::spawn(async move {
                this.lane(failing, CONCURRENCY.1).await;
                drop(lane);
            });
        }
        self.lane(healthy, CONCURRENCY.0).await;
        self.tell();
        true
    }

    fn tell(&self) {
        let state = &mut *self.lock();
        let known = state.asked.iter().map(|(model, asked)| {
            let load = ModelLoad {
                samples: asked.samples.values().cloned().collect(),
                population: asked.population,
            };
            (model.clone(), load)
        });
        state.told = known.collect();
    }

    /// Chooses whom to ask, the healthy and the failing, and forgets everybody else. Who is new has said nothing yet.
    fn begin(&self) -> (Asked, Asked) {
        let now = Timestamp::now();
        let state = &mut *self.lock();
        let mut chosen = vec![];
        let mut asked = BTreeMap::new();
        for (model, targets) in &state.targets {
            let mut known = state.asked.remove(model).unwrap_or_default().samples;
            let now_asked = choose(targets);
            let samples = now_asked.iter().map(|target| {
                let new = || Sample {
                    pod: target.pod.clone(),
                    read_at: now,
                    load: None,
                };
                (target.pod.clone(), known.remove(&target.pod).unwrap_or_else(new))
            });
            let samples = samples.collect();
            let population = u32::try_from(targets.len()).unwrap_or(u32::MAX);
            asked.insert(model.clone(), ModelAsked { samples, population });
            chosen.extend(
                now_asked
                    .into_iter()
                    .map(|target| (model.clone(), target.clone())),
            );
        }
        state.asked = asked;
        let pods: BTreeSet<&String> = chosen.iter().map(|(_, target)| &target.pod).collect();
        state.failing.retain(|pod| pods.contains(pod));
        let fails = |(_, target): &(ModelKey, Target)| !state.failing.contains(&target.pod);
        chosen.into_iter().partition(fails)
    }

    async fn lane(&self, pods: Asked, concurrency: usize) {
        let asked = futures::stream::iter(pods).map(|(model, target)| async move {
            let answer = tokio::time::timeout(self.deadline, self.reader.read(&target.address)).await;
            (model, target, answer.unwrap_or(Err(LoadError::Timeout)))
        });
        let mut answers = asked.buffer_unordered(concurrency);
        while let Some((model, target, answer)) = answers.next().await {
            self.metrics
                .load_read(answer.as_ref().err().map(LoadError::class));
            self.note(&model, target, answer);
        }
    }

    fn note(&self, model: &ModelKey, target: Target, answer: Result<ReplicaLoad, LoadError>) {
        let state = &mut *self.lock();
        match answer {
            Ok(load) => {
                state.failing.remove(&target.pod);
                let asked = state.asked.get_mut(model);
                // One that is no longer known of left while it was answering.
                if let Some(sample) = asked.and_then(|asked| asked.samples.get_mut(&target.pod)) {
                    (sample.read_at, sample.load) = (Timestamp::now(), Some(load));
                }
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                if state.failing.insert(target.pod.clone()) {
                    tracing::info!(
                        pod = target.pod,
                        address = target.address,
                        error,
                        "a replica does not tell its load"
                    );
                }
            }
        }
    }

    // Whoever panicked left whole samples behind.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All of a few, random ones of many.
fn choose(targets: &[Target]) -> Vec<&Target> {
    if targets.len() <= SAMPLE {
        return targets.iter().collect();
    }
    targets.sample(&mut rand::rng(), SAMPLE).collect()
}
