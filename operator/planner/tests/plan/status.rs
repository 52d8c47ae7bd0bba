//! What is said, and when it is worth a write.

use crds::ConditionType::{Accepted, Available, CapacityReady, ModelReady, Ready, Reconciling, Stalled};
use crds::{ModelDeploymentStatus, Reason};
use planner::observed::PodTrouble;
use planner::status::{Outcome, model_status, pool_status};

use super::fixture::{Fixture, key, pool_name, said};

fn summary(fixture: &Fixture) -> [String; 3] {
    let plan = fixture.model_plan();
    [Ready, Reconciling, Stalled].map(|type_| said(&plan.conditions, type_))
}

fn written(fixture: &Fixture, outcome: &Outcome) -> Option<ModelDeploymentStatus> {
    let model = &fixture.observed.models[&key("ranker")].spec;
    model_status(model, &fixture.model_plan(), outcome, fixture.now)
}

/// Writes what is worth it; whether anything was.
pub fn write(fixture: &mut Fixture) -> (bool, bool) {
    let (model, plan) = (written(fixture, &Outcome::default()), fixture.pool_plan());
    let pool = pool_status(
        &fixture.observed.pools[&pool_name("g5")],
        &plan,
        &Outcome::default(),
        fixture.now,
    );
    let worth = (model.is_some(), pool.is_some());
    if model.is_some() {
        fixture.model().status = model;
    }
    if pool.is_some() {
        fixture.pool().status = pool;
    }
    worth
}

#[test]
fn running_is_ready() {
    let fixture = Fixture::running(3);
    assert_eq!(
        summary(&fixture),
        ["True Ready", "False UpToDate", "False UpToDate"]
    );
    let plan = fixture.model_plan();
    let row = [Accepted, CapacityReady, ModelReady, Available].map(|t| said(&plan.conditions, t));
    assert_eq!(
        row,
        [
            "True Accepted",
            "True CapacityReady",
            "True ModelLoaded",
            "True Available"
        ]
    );
    let counts = plan.status.replicas;
    assert_eq!(
        (counts.current, counts.ready, counts.updated, counts.unschedulable),
        (3, 3, 3, 0)
    );
    let pool = fixture.pool_plan();
    assert_eq!(said(&pool.conditions, Ready), "True Ready");
    assert_eq!((pool.status.hourly_usd.as_str(), pool.status.groups), ("3.02", 1));
}

#[test]
fn on_the_way_is_reconciling_and_a_broken_model_is_stalled() {
    let mut fixture = Fixture::running(3);
    for pod in &mut fixture.observed.pods {
        pod.ready = false;
    }
    assert_eq!(
        summary(&fixture),
        ["False PodsStarting", "True NewGeneration", "False UpToDate"]
    );
    fixture.observed.pods[1].trouble = Some(PodTrouble {
        reason: Reason::DigestMismatch,
        message: "sha256 differs".into(),
    });
    assert_eq!(
        summary(&fixture),
        ["False DigestMismatch", "False UpToDate", "True DigestMismatch"]
    );
}

#[test]
fn a_trouble_of_one_replica_does_not_take_ready() {
    let mut fixture = Fixture::running(3);
    fixture.model().spec.rollout.max_unavailable = "1".into();
    fixture.observed.pods[1].ready = false;
    fixture.observed.pods[1].trouble = Some(PodTrouble {
        reason: Reason::CrashLoop,
        message: "exit 1".into(),
    });
    assert_eq!(summary(&fixture)[0], "True Ready");
}

#[test]
fn a_generation_that_settled_stays_settled() {
    let mut fixture = Fixture::running(3);
    assert_eq!(write(&mut fixture), (true, true));
    fixture.observed.pods[0].ready = false;
    assert_eq!(
        summary(&fixture),
        ["False PodsStarting", "False UpToDate", "False UpToDate"]
    );
    fixture.model().metadata.generation = Some(2);
    assert_eq!(summary(&fixture)[1], "True NewGeneration");
}

#[test]
fn numbers_alone_are_not_worth_a_write() {
    let mut fixture = Fixture::running(30);
    fixture.pool().spec.limits.max_nodes = 100;
    fixture.model().spec.rollout.max_unavailable = "50%".into();
    assert_eq!(write(&mut fixture), (true, true));
    assert_eq!(write(&mut fixture), (false, false));
    // Two of thirty are within the band, whatever the message counts.
    for pod in &mut fixture.observed.pods[..2] {
        pod.ready = false;
    }
    assert_eq!(write(&mut fixture), (false, false));
    for pod in &mut fixture.observed.pods[..4] {
        pod.ready = false;
    }
    assert_eq!(write(&mut fixture), (true, false));
    // Time alone neither.
    fixture.pass(3600);
    assert_eq!(write(&mut fixture), (false, false));
    // Settled again: exact.
    for pod in &mut fixture.observed.pods {
        pod.ready = true;
    }
    assert_eq!(write(&mut fixture), (true, false));
    assert_eq!(fixture.model().status.as_ref().unwrap().replicas.ready, 30);
}

#[test]
fn a_transition_keeps_its_time_and_makes_one_event() {
    let mut fixture = Fixture::running(1);
    write(&mut fixture);
    fixture.pass(60);
    let lost = fixture.now;
    fixture.observed.pods[0].ready = false;
    let events = fixture.model_plan().events;
    assert_eq!(
        events.iter().map(|e| e.reason).collect::<Vec<_>>(),
        [Reason::ModelLoading, Reason::PodsStarting]
    );
    write(&mut fixture);
    assert!(fixture.model_plan().events.is_empty());
    fixture.pass(60);
    fixture.model().metadata.generation = Some(2);
    write(&mut fixture);
    let status = fixture.model().status.clone().unwrap();
    let ready = crds::find_condition(&status.conditions, Ready).unwrap();
    assert_eq!(
        (ready.last_transition_time.0, ready.observed_generation),
        (lost, Some(2))
    );
}

#[test]
fn an_operator_that_did_not_read_aws_yet_takes_nothing_back() {
    let mut fixture = Fixture::running(2);
    write(&mut fixture);
    fixture.observed.cloud = None;
    assert_eq!(write(&mut fixture), (false, false));
    fixture.model().spec.replicas = Some(3);
    let plan = fixture.pool_plan();
    assert_eq!(said(&plan.conditions, Ready), "False CloudUnavailable");
    // A new pool is not accepted blindly.
    fixture.pool().status = None;
    assert_eq!(
        said(&fixture.pool_plan().conditions, Accepted),
        "Unknown CloudUnavailable"
    );
}

#[test]
fn a_failed_call_is_said_while_something_is_missing() {
    let outcome = |reason| Outcome {
        trouble: Some((reason, "apply failed".into())),
    };
    let mut fixture = Fixture::running(1);
    write(&mut fixture);
    assert_eq!(written(&fixture, &outcome(Reason::CloudUnavailable)), None);
    fixture.observed.pods[0].ready = false;
    let status = written(&fixture, &outcome(Reason::CloudUnavailable)).unwrap();
    let ready = crds::find_condition(&status.conditions, Ready).unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("False", "CloudUnavailable")
    );
    let status = written(&fixture, &outcome(Reason::CloudDenied)).unwrap();
    let stalled = crds::find_condition(&status.conditions, Stalled).unwrap();
    assert_eq!(
        (stalled.status.as_str(), stalled.reason.as_str()),
        ("True", "CloudDenied")
    );
}

#[test]
fn no_replicas_are_ready_as_asked() {
    let mut fixture = Fixture::with_model(0);
    fixture.apply_objects();
    assert_eq!(
        summary(&fixture),
        ["True Ready", "False UpToDate", "False UpToDate"]
    );
    assert_eq!(fixture.plan().pools[&pool_name("g5")].nodes_wanted, 0);
}

/// An operator that has just started: AWS was read before it knew what the pools name.
fn forget_catalog(fixture: &mut Fixture) {
    let names = fixture.pool().spec.instance_types.clone();
    let subnets = fixture.pool().spec.subnet_ids.clone();
    let cloud = fixture.cloud();
    (cloud.types, cloud.offered, cloud.subnets) = Default::default();
    cloud.unasked = names.into_iter().chain(subnets).collect();
}

#[test]
fn a_start_writes_nothing_that_was_said_before() {
    let mut fixture = Fixture::running(2);
    write(&mut fixture);
    let known = fixture.cloud().clone();
    fixture.observed.cloud = None;
    assert_eq!(write(&mut fixture), (false, false), "AWS was not read yet");
    fixture.observed.cloud = Some(known.clone());
    forget_catalog(&mut fixture);
    assert_eq!(
        write(&mut fixture),
        (false, false),
        "the catalog was not asked for yet"
    );
    fixture.observed.cloud = Some(known);
    assert_eq!(write(&mut fixture), (false, false));
}

#[test]
fn a_start_while_nodes_are_on_their_way_takes_no_order_back() {
    let mut fixture = Fixture::with_model(3);
    let group = fixture.add_group("g5.xlarge", "subnet-0a1");
    fixture.scaling(&group).desired = 3;
    forget_catalog(&mut fixture);
    assert_eq!(
        super::render::actions(&fixture.observed, &fixture.pool_plan()),
        [""; 0]
    );
}
