//! Pools that are being deleted, kept, adopted.

use crds::ConditionType::Ready;
use crds::gpu_pool::DeletionPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use planner::observed::{CloudMutations, GroupState};
use planner::plan::{Finalizer, NodeMark};
use planner::status::{Outcome, pool_status};

use super::fixture::{Fixture, key, model, pool, pool_name, said, secs};
use super::render::actions;

fn step(fixture: &Fixture) -> (Vec<String>, String, Finalizer) {
    let plan = fixture.pool_plan();
    (
        actions(&fixture.observed, &plan),
        said(&plan.conditions, Ready),
        plan.finalizer,
    )
}

fn unused() -> Fixture {
    let mut fixture = Fixture::running(2);
    fixture.observed.models.clear();
    fixture.observed.pods.clear();
    fixture.delete_pool();
    fixture
}

#[test]
fn in_use() {
    for policy in [DeletionPolicy::Delete, DeletionPolicy::Retain] {
        let mut fixture = Fixture::running(2);
        fixture.pool().spec.deletion_policy = policy;
        fixture.delete_pool();
        assert_eq!(step(&fixture), (vec![], "False InUse".into(), Finalizer::Keep));
        let plan = fixture.model_plan();
        assert_eq!(
            said(&plan.conditions, crds::ConditionType::Accepted),
            "False PoolDeleting"
        );
        assert!(plan.objects.is_empty(), "what serves goes on");
    }
}

#[test]
fn delete_gives_back_everything_in_order() {
    let mut fixture = unused();
    let group = fixture.cloud().groups.keys().next().unwrap().clone();
    let plan = fixture.pool_plan();
    assert!(plan.cloud.is_empty());
    assert!(matches!(
        plan.node_marks[..],
        [NodeMark::Drain { .. }, NodeMark::Drain { .. }]
    ));
    let now = fixture.now;
    for name in ["node-0", "node-1"] {
        fixture.node(name).unschedulable = true;
        fixture.node(name).victim_since = Some(now);
    }
    let returning = |actions: &[&str]| {
        let actions = actions.iter().map(|a| (*a).to_owned()).collect();
        (actions, "False ReturningNodes".to_owned(), Finalizer::Keep)
    };
    let remove = r#"remove g5.xlarge/us-east-1a/0 ["i-0000", "i-0001"] to 0"#;
    assert_eq!(step(&fixture), returning(&[remove]));
    fixture.scaling(&group).desired = 0;
    for instance in &mut fixture.scaling(&group).instances {
        instance.lifecycle = planner::observed::Lifecycle::Terminating;
    }
    assert_eq!(step(&fixture), returning(&[]));
    fixture.scaling(&group).instances.clear();
    fixture.observed.nodes.clear();
    assert_eq!(step(&fixture), returning(&["delete g5.xlarge/us-east-1a/0"]));
    fixture.group(&group).state = GroupState::Deleting;
    assert_eq!(step(&fixture), returning(&[]));
    fixture.cloud().groups.clear();
    assert_eq!(step(&fixture), returning(&["delete template of pool-1"]));
    fixture.cloud().templates.clear();
    absent_twice(&mut fixture);
}

/// I4
fn absent_twice(fixture: &mut Fixture) {
    let confirming = (vec![], "False ConfirmingAbsence".to_owned(), Finalizer::Keep);
    assert_eq!(step(fixture), confirming);
    let since = fixture.now;
    let plan = fixture.pool_plan();
    let status = pool_status(fixture.pool(), &plan, &Outcome::default(), since).unwrap();
    assert_eq!(status.absent_since, Some(Time(since)));
    fixture.pool().status = Some(status);
    fixture.pass(59);
    assert_eq!(step(fixture), confirming);
    // The clock alone is no second answer.
    fixture.now = fixture.now.saturating_add(secs(10)).unwrap();
    assert_eq!(step(fixture), confirming);
    // Something turned up: it starts anew.
    let late = fixture.add_group("g5.xlarge", "subnet-0c3");
    fixture.pass(1);
    assert_eq!(fixture.pool_plan().absent_since, None);
    fixture.cloud().groups.remove(&late);
    fixture.cloud().templates.clear();
    assert_eq!(step(fixture).2, Finalizer::Remove);
}

#[test]
fn delete_waits_for_pods_knowledge_and_leave() {
    let drained = || {
        let mut fixture = unused();
        let now = fixture.now;
        for name in ["node-0", "node-1"] {
            fixture.node(name).unschedulable = true;
            fixture.node(name).victim_since = Some(now);
        }
        fixture
    };
    let mut fixture = drained();
    fixture.add_model(super::fixture::model("other", 1, &["g5"]));
    fixture.add_pod("other", 0, Some("node-0"));
    fixture.observed.models.clear();
    let remove = r#"remove g5.xlarge/us-east-1a/0 ["i-0001"] to 1"#;
    assert_eq!(step(&fixture).0, [remove]);
    let mut fixture = drained();
    fixture.now = fixture.now.saturating_add(secs(61)).unwrap();
    assert_eq!(
        step(&fixture),
        (vec![], "False CloudUnavailable".into(), Finalizer::Keep)
    );
    for policy in [DeletionPolicy::Delete, DeletionPolicy::Retain] {
        let mut fixture = drained();
        fixture.pool().spec.deletion_policy = policy;
        fixture.observed.settings.mutations = CloudMutations::GrowOnly;
        assert_eq!(
            step(&fixture),
            (vec![], "False CloudMutationsOff".into(), Finalizer::Keep)
        );
    }
}

#[test]
fn an_order_that_was_never_filled_is_withdrawn() {
    let mut fixture = Fixture::new();
    let group = fixture.add_group("g5.xlarge", "subnet-0a1");
    fixture.scaling(&group).desired = 3;
    fixture.delete_pool();
    assert_eq!(step(&fixture).0, ["retract g5.xlarge/us-east-1a/0 to 0"]);
}

#[test]
fn retain_lets_go_of_groups_as_they_are() {
    let mut fixture = unused();
    fixture.pool().spec.deletion_policy = DeletionPolicy::Retain;
    assert_eq!(step(&fixture).0, ["release g5.xlarge/us-east-1a/0"]);
    assert!(fixture.pool_plan().node_marks.is_empty());
    let group = fixture.cloud().groups.keys().next().unwrap().clone();
    fixture.group(&group).owner.released = true;
    assert_eq!(step(&fixture).2, Finalizer::Remove);
}

#[test]
fn an_empty_node_of_an_earlier_pool_is_left_alone_and_adopted_before_anything_is_bought() {
    let mut fixture = Fixture::running(1);
    fixture.observed.pods.clear();
    fixture.observed.models.clear();
    fixture
        .observed
        .pools
        .insert(pool_name("g5"), pool("g5", "pool-2", 20));
    let plan = fixture.pool_plan();
    assert!(plan.node_marks.is_empty() && plan.cloud.is_empty(), "{plan:?}");
    let annotation = (crds::key::ADOPT.to_owned(), "pool-1".to_owned());
    fixture.pool().metadata.annotations = Some([annotation].into());
    fixture.add_model(model("ranker", 1, &["g5"]));
    assert_eq!(
        step(&fixture).0,
        ["adopt g5.xlarge/us-east-1a/0 from pool-1 to pool-2"]
    );
}

#[test]
fn a_pool_of_the_same_name_adopts_by_annotation_only() {
    let mut fixture = Fixture::running(2);
    fixture
        .observed
        .pools
        .insert(pool_name("g5"), pool("g5", "pool-2", 20));
    let plan = fixture.pool_plan();
    assert!(
        plan.cloud.is_empty() && plan.node_marks.is_empty(),
        "I13: {plan:?}"
    );
    assert_eq!(
        said(&plan.conditions, crds::ConditionType::Orphaned),
        "True OrphanedGroups"
    );
    let annotation = (crds::key::ADOPT.to_owned(), "pool-1".to_owned());
    fixture.pool().metadata.annotations = Some([annotation].into());
    assert_eq!(
        step(&fixture).0,
        ["adopt g5.xlarge/us-east-1a/0 from pool-1 to pool-2"]
    );
    // Not from a pool that lives.
    fixture
        .observed
        .pools
        .insert(pool_name("other"), pool("other", "pool-1", 20));
    assert_eq!(step(&fixture).0, [""; 0]);
}

#[test]
fn a_pool_without_its_finalizer_buys_nothing() {
    let mut fixture = Fixture::with_model(1);
    fixture.pool().metadata.finalizers = None;
    assert_eq!(
        step(&fixture),
        (vec![], "False NodesLaunching".into(), Finalizer::Add)
    );
    fixture.delete_pool();
    assert_eq!(step(&fixture).2, Finalizer::Keep);
    assert!(fixture.observed.models.contains_key(&key("ranker")));
}
