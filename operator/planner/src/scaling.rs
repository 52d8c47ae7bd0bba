//! How many replicas each model wants: what its spec says, or what its autoscaling decides.

use crate::autoscaler::{self, Decision, Situation, count};
use crate::observed::{ModelKey, ModelObserved};
use crate::status::model::percent_or_count;
use crate::view::{self, View};

/// What a model wants before anyone has looked for room.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub replicas: u32,
    /// Serving replicas below which the model is not available.
    pub minimum: u32,
    /// With `spec.autoscaling`: what was decided, from which number on.
    pub autoscaling: Option<(u32, Decision)>,
}

#[must_use]
pub fn wanted(view: &View, key: &ModelKey, model: &ModelObserved) -> Wanted {
    let spec = &model.spec.spec;
    let Some(autoscaling) = &spec.autoscaling else {
        let replicas = spec.replicas.unwrap_or(0);
        let spare = percent_or_count(&spec.rollout.max_unavailable, replicas);
        return Wanted {
            replicas: count(replicas),
            minimum: count((replicas - spare).max(i32::from(replicas > 0))),
            autoscaling: None,
        };
    };
    let pods = view.pods_of(key).filter(|pod| pod.ready && !pod.terminating);
    let ready: Vec<_> = pods
        .map(|pod| (pod.name.as_str(), pod.ready_since.unwrap_or(pod.created)))
        .collect();
    let current = current(model).unwrap_or(count(autoscaling.min_replicas));
    let situation = Situation {
        spec: autoscaling,
        load: view.observed.load.get(key),
        ready: &ready,
        current,
        max_age: view.observed.settings.load_max_age,
        now: view.now,
    };
    let decision = autoscaler::decide(&situation, view.observed.memories.get(key));
    Wanted {
        replicas: decision.desired,
        minimum: count(autoscaling.min_replicas),
        autoscaling: Some((current, decision)),
    }
}

/// What was decided last, by the status; without one what the Deployments ask for. A lost status shrinks nothing.
fn current(model: &ModelObserved) -> Option<u32> {
    let decided = model
        .spec
        .status
        .as_ref()
        .map(|status| count(status.replicas.desired));
    let deployments = model.deployments.iter().filter_map(view::deployment_replicas);
    let asked: u32 = deployments.map(|(_, replicas)| replicas).sum();
    decided.filter(|n| *n > 0).or(Some(asked)).filter(|n| *n > 0)
}
