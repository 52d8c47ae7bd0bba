//! Plans that give back: cordon, deletion costs, fewer replicas, removal of the empty node; and what forbids each.

use expect_test::expect;
use planner::observed::{CloudErrorClass, CloudMutations, CloudTrouble};
use planner::plan::{NodeMark, ObjectRef};

use super::fixture::{Fixture, key, secs};
use super::render::{actions, render};

fn replicas_applied(fixture: &Fixture) -> Option<u64> {
    let plan = fixture.model_plan();
    let deployment = plan.objects.iter().find(|o| o["kind"] == "Deployment")?;
    deployment["spec"]["replicas"].as_u64()
}

fn cordon(fixture: &mut Fixture, name: &str) {
    let now = fixture.now;
    let node = fixture.node(name);
    node.unschedulable = true;
    node.victim_since = Some(now);
}

/// 3 -> 1: both victims' nodes are cordoned.
fn cordoned() -> Fixture {
    let mut fixture = Fixture::running(3);
    fixture.model().spec.replicas = Some(1);
    for mark in fixture.pool_plan().node_marks {
        let NodeMark::Drain { node, .. } = mark else {
            panic!("{mark:?}")
        };
        cordon(&mut fixture, &node);
    }
    fixture
}

/// The pods are gone, the nodes are empty and idle for long enough.
fn emptied() -> Fixture {
    let mut fixture = cordoned();
    fixture.apply_objects();
    fixture.observed.pods.truncate(0);
    fixture.add_pod("ranker", 2, Some("node-2"));
    fixture.pass(60);
    fixture
}

#[test]
fn the_whole_sequence() {
    let mut fixture = Fixture::running(3);
    fixture.model().spec.replicas = Some(1);
    let plan = fixture.plan();
    expect![[r#"
        pool g5: 1 nodes wanted
          drain node-0
          drain node-1
          Accepted=True Accepted: The spec can be used
          CapacityReady=True CapacityReady: Every pod that can run has a node
          ImageUpToDate=True UpToDate: Every node is of the pool's spec
          Ready=True Ready: Every pod that can run has a node
          Reconciling=False UpToDate: The spec is in effect
          Stalled=False UpToDate: Nothing stands in the way
        model ranker: g5=1
          cost ranker-0 -100
          cost ranker-1 -100
          Accepted=True Accepted: The spec can be used
          CapacityReady=True CapacityReady: Every replica has a node
          ModelReady=True ModelLoaded: The model is loaded and serves
          Available=True Available: 3 replicas serve; 1 are asked for
          Ready=True Ready: 3 of 1 replicas serve
          Reconciling=True NewGeneration: The spec is being brought into effect
          Stalled=False UpToDate: Nothing stands in the way
    "#]]
    .assert_eq(&render(&fixture.observed, &plan));

    let mut fixture = cordoned();
    assert_eq!(replicas_applied(&fixture), Some(1));
    assert!(fixture.pool_plan().node_marks.is_empty());
    fixture.apply_objects();
    assert_eq!(
        actions(&fixture.observed, &fixture.pool_plan()),
        [""; 0],
        "pods drain"
    );

    let mut fixture = emptied();
    expect![[r#"
        pool g5: 1 nodes wanted
          remove g5.xlarge/us-east-1a/0 ["i-0000", "i-0001"] to 1
          Accepted=True Accepted: The spec can be used
          CapacityReady=True CapacityReady: Every pod that can run has a node
          ImageUpToDate=True UpToDate: Every node is of the pool's spec
          Ready=True Ready: Every pod that can run has a node
          Reconciling=True NewGeneration: The spec is being brought into effect
          Stalled=False UpToDate: Nothing stands in the way
        model ranker: g5=1
          Accepted=True Accepted: The spec can be used
          CapacityReady=True CapacityReady: Every replica has a node
          ModelReady=True ModelLoaded: The model is loaded and serves
          Available=True Available: 1 replicas serve; 1 are asked for
          Ready=True Ready: 1 of 1 replicas serve
          Reconciling=False UpToDate: The spec is in effect
          Stalled=False UpToDate: Nothing stands in the way
    "#]]
    .assert_eq(&render(&fixture.observed, &fixture.plan()));
    // Repeated while AWS did not tell of it yet; not any more when it did.
    let group = fixture.cloud().groups.keys().next().unwrap().clone();
    fixture.scaling(&group).desired = 1;
    assert_eq!(actions(&fixture.observed, &fixture.pool_plan()), [""; 0]);
}

#[test]
fn idle_time_is_waited_for() {
    let mut fixture = emptied();
    let due = fixture.now;
    fixture.now = due.saturating_sub(secs(1)).unwrap();
    let plan = fixture.pool_plan();
    assert!(plan.cloud.is_empty());
    assert_eq!(plan.next_check, Some(due));
}

#[test]
fn a_cordon_by_somebody_else_is_enough() {
    let mut fixture = Fixture::running(3);
    fixture.model().spec.replicas = Some(2);
    fixture.node("node-0").unschedulable = true;
    assert_eq!(replicas_applied(&fixture), Some(2));
}

#[test]
fn wanted_again_before_the_pods_went() {
    let mut fixture = cordoned();
    fixture.pod("ranker-0").deletion_cost = -100;
    fixture.model().spec.replicas = Some(3);
    let plan = fixture.plan();
    expect![[r#"
        pool g5: 3 nodes wanted
          reclaim node-0
          reclaim node-1
          Accepted=True Accepted: The spec can be used
          CapacityReady=True CapacityReady: Every pod that can run has a node
          ImageUpToDate=True UpToDate: Every node is of the pool's spec
          Ready=True Ready: Every pod that can run has a node
          Reconciling=False UpToDate: The spec is in effect
          Stalled=False UpToDate: Nothing stands in the way
        model ranker: g5=3
          cost ranker-0 0
          Accepted=True Accepted: The spec can be used
          CapacityReady=True CapacityReady: Every replica has a node
          ModelReady=True ModelLoaded: The model is loaded and serves
          Available=True Available: 3 replicas serve; 3 are asked for
          Ready=True Ready: 3 of 3 replicas serve
          Reconciling=False UpToDate: The spec is in effect
          Stalled=False UpToDate: Nothing stands in the way
    "#]]
    .assert_eq(&render(&fixture.observed, &plan));
}

#[test]
fn wanted_again_after_the_pods_went() {
    let mut fixture = emptied();
    fixture.model().spec.replicas = Some(3);
    // The removal may have been sent already: the node is not counted on, another is bought.
    let plan = fixture.pool_plan();
    assert!(plan.node_marks.is_empty());
    assert_eq!(
        actions(&fixture.observed, &plan)[0],
        "create g5.xlarge/subnet-0b2/0"
    );
    // Before it is due, or long after, it is taken back.
    let taken_back = |fixture: &Fixture| {
        let plan = fixture.pool_plan();
        let marks = plan
            .node_marks
            .iter()
            .filter(|m| matches!(m, NodeMark::Reclaim { .. }));
        (marks.count(), plan.cloud.len())
    };
    fixture.pass(121);
    assert_eq!(taken_back(&fixture), (2, 0));
    fixture.now = fixture.now.saturating_sub(secs(150)).unwrap();
    assert_eq!(taken_back(&fixture), (2, 0));
}

#[test]
fn what_is_not_known_removes_nothing() {
    type Change = fn(&mut Fixture);
    let table: [(&str, Change, usize); 8] = [
        ("as it is", |_| {}, 1),
        ("stale", |f| f.now = f.now.saturating_add(secs(61)).unwrap(), 0),
        (
            "trouble",
            |f| {
                f.cloud().trouble = Some(CloudTrouble {
                    class: CloudErrorClass::Timeout,
                    message: "DescribeAutoScalingGroups".into(),
                });
            },
            0,
        ),
        ("never read", |f| f.observed.cloud = None, 0),
        (
            "grow only",
            |f| f.observed.settings.mutations = CloudMutations::GrowOnly,
            0,
        ),
        (
            "no mutations",
            |f| f.observed.settings.mutations = CloudMutations::None,
            0,
        ),
        (
            "refused spec",
            |f| f.pool().spec.instance_types.push("x9.large".into()),
            0,
        ),
        (
            "uncordoned by hand",
            |f| {
                for name in ["node-0", "node-1"] {
                    f.node(name).unschedulable = false;
                }
            },
            0,
        ),
    ];
    for (name, change, removals) in table {
        let mut fixture = emptied();
        change(&mut fixture);
        assert_eq!(fixture.pool_plan().cloud.len(), removals, "{name}");
    }
}

#[test]
fn nothing_is_removed_while_an_instance_is_pending_or_ordered() {
    let mut fixture = emptied();
    let group = fixture.cloud().groups.keys().next().unwrap().clone();
    fixture.scaling(&group).desired += 1;
    let retraction = "retract g5.xlarge/us-east-1a/0 to 3";
    assert_eq!(
        actions(&fixture.observed, &fixture.pool_plan()),
        [retraction],
        "one thing at a time"
    );
    fixture.add_instance(&group, 9, planner::observed::Lifecycle::Pending);
    assert!(fixture.pool_plan().cloud.is_empty());
}

#[test]
fn pods_of_a_model_that_nobody_knows_hold_their_node() {
    let mut fixture = Fixture::running(2);
    fixture.observed.models.clear();
    let plan = fixture.pool_plan();
    assert!(plan.node_marks.is_empty() && plan.cloud.is_empty());
}

#[test]
fn without_deployments_in_sight_nobody_is_a_victim() {
    let mut fixture = Fixture::running(3);
    let model = fixture.observed.models.get_mut(&key("ranker")).unwrap();
    model.deployments.clear();
    model.spec.spec.replicas = Some(1);
    let plan = fixture.plan();
    assert!(
        plan.pools
            .values()
            .all(|p| p.node_marks.is_empty() && p.cloud.is_empty())
    );
}

#[test]
fn an_old_revision_of_the_group_goes_when_it_is_empty() {
    let mut fixture = Fixture::running(1);
    let old = fixture.add_group("g5.xlarge", "subnet-0b2");
    fixture.group(&old).owner.spec_hash = "0".repeat(16);
    assert_eq!(
        actions(&fixture.observed, &fixture.pool_plan()),
        ["delete g5.xlarge/us-east-1b/0"]
    );
    fixture.scaling(&old).desired = 1;
    let retraction = ["retract g5.xlarge/us-east-1b/0 to 0"];
    assert_eq!(actions(&fixture.observed, &fixture.pool_plan()), retraction);
    fixture.add_instance(&old, 9, planner::observed::Lifecycle::InService);
    assert_eq!(actions(&fixture.observed, &fixture.pool_plan()), [""; 0]);
}

#[test]
fn a_deleted_model_drains_behind_its_services() {
    let mut fixture = Fixture::running(2);
    let now = fixture.now;
    super::kube::mark_deleted(&mut fixture.model().metadata, now);
    let plan = fixture.model_plan();
    let kinds: Vec<&ObjectRef> = plan.deletes.iter().collect();
    assert!(kinds.len() == 1 && kinds[0].kind == "Deployment");
    let marks = fixture.pool_plan().node_marks;
    assert_eq!(marks.len(), 2);
    let model = fixture.observed.models.get_mut(&key("ranker")).unwrap();
    model.deployments.clear();
    assert_eq!(fixture.model_plan().finalizer, planner::plan::Finalizer::Keep);
    fixture.observed.pods.clear();
    assert_eq!(fixture.model_plan().finalizer, planner::plan::Finalizer::Remove);
}
