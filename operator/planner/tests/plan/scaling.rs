//! A model that scales itself: from what its replicas say to Deployments, node groups, status and silence.

use crds::ConditionType::{
    Available, CapacityReady, MetricsFresh, Ready, Reconciling, ScalingActive, ScalingLimited,
};
use planner::observed::{ModelLoad, ReplicaLoad, Sample};
use planner::plan::CloudAction;
use serde_json::json;

use super::fixture::{Fixture, key, said, secs};
use super::status::write;

/// Replicas at rest whose number follows 100 requests a second each.
fn scaled(replicas: u32) -> Fixture {
    let mut fixture = Fixture::running(replicas);
    let spec = &mut fixture.model().spec;
    spec.replicas = None;
    let autoscaling = json!({"minReplicas": 2, "maxReplicas": 12, "metrics": [
        {"name": "rate", "type": "RequestRate", "requestRate": {"targetPerReplica": 100}}]});
    spec.autoscaling = serde_json::from_value(autoscaling).unwrap();
    answer(&mut fixture, 100.0);
    let mut fixture = tick(fixture, 0);
    while write(&mut fixture) != (false, false) {}
    fixture
}

/// Every pod that serves says so many requests a second.
fn answer(fixture: &mut Fixture, rate: f64) {
    let load = ReplicaLoad {
        ready: true,
        offered: [rate; 2],
        busy_percent: Some(50.0),
        ..ReplicaLoad::default()
    };
    let serving = fixture.observed.pods.iter().filter(|p| p.ready);
    let samples = serving.map(|pod| Sample {
        pod: pod.name.clone(),
        read_at: fixture.now,
        load: Some(load.clone()),
    });
    let samples: Vec<_> = samples.collect();
    let population = u32::try_from(samples.len()).unwrap();
    let load = ModelLoad { samples, population };
    fixture.observed.load.insert(key("ranker"), load);
}

/// Some seconds later: AWS was read again, and what the plan remembers comes back to it.
fn tick(mut fixture: Fixture, seconds: i64) -> Fixture {
    fixture.now += secs(seconds);
    let now = fixture.now;
    fixture.cloud().read_at = now;
    let plan = fixture.plan();
    let memory = |(_, decision): &(u32, planner::autoscaler::Decision)| decision.memory.clone();
    let scaling = plan.models[&key("ranker")].scaling.as_ref().unwrap();
    fixture.observed.memories.insert(key("ranker"), memory(scaling));
    fixture
}

#[test]
fn more_load_asks_for_replicas_and_nodes_in_one_plan() {
    let mut fixture = scaled(3);
    answer(&mut fixture, 200.0);
    let plan = fixture.plan();
    let model = &plan.models[&key("ranker")];
    assert_eq!(model.status.replicas.desired, 6);
    let replicas = |object: &serde_json::Value| object["spec"]["replicas"].as_i64();
    assert!(
        model.objects.iter().any(|object| replicas(object) == Some(6)),
        "{:?}",
        model.objects
    );
    let ordered = fixture.pool_plan().cloud;
    assert!(
        matches!(ordered[..], [CloudAction::Grow { desired, .. }] if desired > 3) || ordered.len() > 1,
        "{ordered:?}"
    );
    // No new generation: Flux must not wait for it.
    assert_eq!(said(&model.conditions, Reconciling), "False UpToDate");
    assert_eq!(said(&model.conditions, ScalingActive), "True FollowingMetrics");
    assert_eq!(model.events.len(), 1, "{:?}", model.events);
}

#[test]
fn what_is_above_the_minimum_is_no_reason_not_to_be_ready() {
    let mut fixture = scaled(3);
    fixture.pool().spec.limits.max_nodes = 3;
    answer(&mut fixture, 200.0);
    let plan = fixture.model_plan();
    let row = [CapacityReady, Available, Ready].map(|t| said(&plan.conditions, t));
    assert_eq!(row, ["False PoolLimit", "True Available", "True Ready"]);
}

#[test]
fn bounds_are_said() {
    let mut fixture = scaled(3);
    answer(&mut fixture, 2000.0);
    let plan = fixture.model_plan();
    assert_eq!(plan.status.replicas.desired, 12);
    assert_eq!(said(&plan.conditions, ScalingLimited), "True TooManyReplicas");
}

#[test]
fn a_blackout_is_said_and_shrinks_nothing() {
    let mut fixture = scaled(4);
    answer(&mut fixture, 10.0);
    for _ in 0..100 {
        fixture = tick(fixture, 5);
        let plan = fixture.model_plan();
        assert_eq!(plan.status.replicas.desired, 4);
        assert!(plan.objects.is_empty() && fixture.pool_plan().cloud.is_empty());
        if fixture.observed.load[&key("ranker")].samples[0].read_at + secs(15) < fixture.now {
            assert_eq!(said(&plan.conditions, MetricsFresh), "False MetricsMissing");
            assert_eq!(said(&plan.conditions, Ready), "True Ready");
        }
    }
}

#[test]
fn a_lasting_fall_shrinks_after_the_window() {
    let mut fixture = scaled(4);
    let mut sizes = vec![];
    for _ in 0..64 {
        answer(&mut fixture, 10.0);
        fixture = tick(fixture, 5);
        sizes.push(fixture.model_plan().status.replicas.desired);
    }
    assert_eq!((sizes[58], sizes[63]), (4, 2), "{sizes:?}");
}

#[test]
fn noise_writes_nothing() {
    let mut fixture = scaled(4);
    for index in 0..100 {
        let noise = 1.0 + 0.05 * (f64::from(index) * 2.399).sin();
        answer(&mut fixture, 97.0 * noise);
        fixture = tick(fixture, 5);
        let plan = fixture.plan();
        let model = &plan.models[&key("ranker")];
        assert!(
            model.objects.is_empty() && model.deletes.is_empty(),
            "tick {index}: {:?}",
            model.objects
        );
        assert!(fixture.pool_plan().cloud.is_empty());
        assert_eq!(write(&mut fixture), (false, false), "tick {index}");
    }
}

#[test]
fn a_new_operator_takes_nothing_away() {
    let mut fixture = scaled(4);
    answer(&mut fixture, 10.0);
    for _ in 0..3 {
        // Restarted again and again, each time before the window is over.
        fixture.observed.memories.clear();
        for _ in 0..59 {
            answer(&mut fixture, 10.0);
            fixture = tick(fixture, 5);
        }
        assert_eq!(fixture.model_plan().status.replicas.desired, 4);
    }
    // With its status lost as well, what the Deployments ask for counts.
    fixture.observed.memories.clear();
    fixture.model().status = None;
    assert_eq!(fixture.model_plan().status.replicas.desired, 4);
}
