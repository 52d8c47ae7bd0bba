//! Plans that buy: from zero, by absolute sizes, within every limit, around what is sold out.

use crds::ConditionType::CapacityReady;
use crds::Reason;
use expect_test::expect;
use planner::observed::{CloudErrorClass, CloudMutations, CloudTrouble, GroupState, Lifecycle};
use planner::plan::CloudAction;

use super::fixture::{Fixture, said};
use super::render::{actions, render};

fn bought(fixture: &Fixture) -> (Vec<String>, String) {
    let plan = fixture.pool_plan();
    (
        actions(&fixture.observed, &plan),
        said(&plan.conditions, CapacityReady),
    )
}

#[test]
fn from_zero() {
    let fixture = Fixture::with_model(3);
    expect![[r#"
        pool g5: 3 nodes wanted
          create g5.xlarge/subnet-0a1/0
          create g5.xlarge/subnet-0b2/0
          create g5.xlarge/subnet-0c3/0
          Accepted=True Accepted: The spec can be used
          CapacityReady=False NodesLaunching: 3 nodes are being ordered
          ImageUpToDate=True UpToDate: Every node is of the pool's spec
          Ready=False NodesLaunching: 3 nodes are being ordered
          Reconciling=True NewGeneration: The spec is being brought into effect
          Stalled=False UpToDate: Nothing stands in the way
        model ranker: g5=3
          apply ServiceAccount pinnace-ranker
          apply NetworkPolicy pinnace-ranker
          apply PodDisruptionBudget pinnace-ranker
          apply Service ranker
          apply Service ranker-g5-0-8a1fab
          apply Deployment ranker-g5-0-8a1fab x3
          Accepted=True Accepted: The spec can be used
          CapacityReady=False NodesLaunching: 3 nodes are being ordered
          ModelReady=Unknown ModelLoading: No replica of the newest revision serves yet
          Available=False PodsStarting: 0 replicas serve; 3 are asked for
          Ready=False NodesLaunching: 3 nodes are being ordered
          Reconciling=True NewGeneration: The spec is being brought into effect
          Stalled=False UpToDate: Nothing stands in the way
    "#]]
    .assert_eq(&render(&fixture.observed, &fixture.plan()));
}

#[test]
fn creating_groups_are_waited_for() {
    let mut fixture = Fixture::with_model(1);
    let group = fixture.add_group("g5.xlarge", "subnet-0a1");
    let observed = fixture.group(&group);
    observed.state = GroupState::Creating;
    observed.scaling = None;
    assert_eq!(bought(&fixture), (vec![], "False NodesLaunching".into()));
}

#[test]
fn sizes_are_absolute_and_count_what_is_on_its_way() {
    let mut fixture = Fixture::with_model(5);
    let group = fixture.add_group("g5.xlarge", "subnet-0a1");
    fixture.pool().spec.subnet_ids.truncate(1);
    let grow = |to: u32| {
        (
            vec![format!("grow g5.xlarge/us-east-1a/0 to {to}")],
            "False NodesLaunching".into(),
        )
    };
    assert_eq!(bought(&fixture), grow(5));
    // Two run, one has no node yet, two are ordered and not launched.
    fixture.add_node(&group, 0);
    fixture.add_node(&group, 1);
    fixture.add_instance(&group, 2, Lifecycle::Pending);
    fixture.scaling(&group).desired = 5;
    assert_eq!(bought(&fixture), (vec![], "False NodesLaunching".into()));
    fixture.scaling(&group).desired = 3;
    assert_eq!(bought(&fixture), grow(5));
    // What is on its way out is no capacity.
    fixture.scaling(&group).desired = 2;
    fixture.scaling(&group).instances[2].lifecycle = Lifecycle::Terminating;
    assert_eq!(bought(&fixture), grow(5));
}

#[test]
fn zones_are_levelled() {
    let mut fixture = Fixture::with_model(7);
    let first = fixture.add_group("g5.xlarge", "subnet-0a1");
    fixture.add_group("g5.xlarge", "subnet-0b2");
    fixture.add_group("g5.xlarge", "subnet-0c3");
    for index in 0..3 {
        fixture.add_node(&first, index);
    }
    let grow = |zone: &str| format!("grow g5.xlarge/us-east-1{zone}/0 to 2");
    assert_eq!(bought(&fixture).0, [grow("b"), grow("c")]);
}

#[test]
fn limits_and_their_reasons() {
    type Change = fn(&mut Fixture);
    let table: [(&str, Change, u32, &str); 5] = [
        ("none", |_| {}, 9, "False NodesLaunching"),
        (
            "tokens",
            |f| f.observed.launch_tokens = 4,
            4,
            "False LaunchBudget",
        ),
        (
            "maxNodes",
            |f| f.pool().spec.limits.max_nodes = 5,
            5,
            "False NodesLaunching",
        ),
        (
            "operator",
            |f| f.observed.settings.max_nodes = 6,
            6,
            "False PoolLimit",
        ),
        (
            "no tokens",
            |f| f.observed.launch_tokens = 0,
            0,
            "False LaunchBudget",
        ),
    ];
    for (name, change, nodes, reason) in table {
        let mut fixture = Fixture::with_model(9);
        for subnet in ["subnet-0a1", "subnet-0b2", "subnet-0c3"] {
            fixture.add_group("g5.xlarge", subnet);
        }
        change(&mut fixture);
        let plan = fixture.pool_plan();
        let sizes = plan.cloud.iter().map(|a| match a {
            CloudAction::Grow { desired, .. } => *desired,
            other => panic!("{other:?}"),
        });
        assert_eq!(
            (sizes.sum::<u32>(), said(&plan.conditions, CapacityReady)),
            (nodes, reason.into()),
            "{name}"
        );
    }
}

#[test]
fn a_model_beyond_max_nodes_says_so() {
    let mut fixture = Fixture::running(3);
    fixture.pool().spec.limits.max_nodes = 3;
    fixture.model().spec.replicas = Some(5);
    let plan = fixture.model_plan();
    assert_eq!(said(&plan.conditions, CapacityReady), "False PoolLimit");
    assert_eq!(bought(&fixture), (vec![], "True CapacityReady".into()));
}

#[test]
fn group_slots_run_out() {
    let mut fixture = Fixture::with_model(3);
    fixture.observed.settings.group_slots = 2;
    let (actions, reason) = bought(&fixture);
    assert_eq!(
        actions,
        ["create g5.xlarge/subnet-0a1/0", "create g5.xlarge/subnet-0b2/0"]
    );
    assert_eq!(reason, "False NodesLaunching");
    fixture.cloud().group_count = 2;
    assert_eq!(bought(&fixture), (vec![], "False NodeGroupQuota".into()));
}

#[test]
fn a_full_group_gets_a_second_shard() {
    let mut fixture = Fixture::with_model(4);
    fixture.observed.settings.group_max_nodes = 2;
    fixture.pool().spec.subnet_ids.truncate(1);
    let group = fixture.add_group("g5.xlarge", "subnet-0a1");
    let grow = "grow g5.xlarge/us-east-1a/0 to 2";
    assert_eq!(bought(&fixture).0, [grow, "create g5.xlarge/subnet-0a1/1"]);
    // A group that was made smaller is not overfilled.
    fixture.observed.settings.group_max_nodes = 450;
    fixture.scaling(&group).max = 2;
    assert_eq!(bought(&fixture).0, [grow, "create g5.xlarge/subnet-0a1/1"]);
}

#[test]
fn what_is_sold_out_is_withdrawn_and_bought_elsewhere() {
    let mut fixture = Fixture::with_model(2);
    fixture.pool().spec.subnet_ids.truncate(2);
    let a = fixture.add_group("g5.xlarge", "subnet-0a1");
    let b = fixture.add_group("g5.xlarge", "subnet-0b2");
    fixture.refuse(&a, 2);
    let withdraw = "retract g5.xlarge/us-east-1a/0 to 0";
    assert_eq!(
        bought(&fixture),
        (vec![withdraw.into()], "False NoCapacity".into())
    );
    // Withdrawn: the other zone gets all, though it is the less preferred one by count.
    fixture.scaling(&a).desired = 0;
    let (actions, reason) = bought(&fixture);
    assert_eq!(actions, ["grow g5.xlarge/us-east-1b/0 to 2"]);
    assert_eq!(reason, "False NodesLaunching");
    // Old news do not speak of what launches in the other zone.
    fixture.scaling(&b).desired = 2;
    assert_eq!(bought(&fixture), (vec![], "False NodesLaunching".into()));
    // All refuse: the order stays, AWS is asked again by itself.
    fixture.refuse(&b, 2);
    assert_eq!(bought(&fixture), (vec![], "False NoCapacity".into()));
    // Three minutes later the first zone is worth another try.
    fixture.pass(181);
    assert_eq!(bought(&fixture).0, ["retract g5.xlarge/us-east-1b/0 to 0"]);
}

#[test]
fn a_withdrawal_waits_for_what_is_pending_and_keeps_what_lives() {
    let mut fixture = Fixture::with_model(4);
    fixture.pool().spec.subnet_ids.truncate(2);
    let group = fixture.add_group("g5.xlarge", "subnet-0a1");
    fixture.add_group("g5.xlarge", "subnet-0b2");
    fixture.add_node(&group, 0);
    fixture.add_instance(&group, 1, Lifecycle::Pending);
    fixture.refuse(&group, 4);
    assert_eq!(bought(&fixture).0, [""; 0]);
    fixture.scaling(&group).instances[1].lifecycle = Lifecycle::InService;
    assert_eq!(bought(&fixture).0, ["retract g5.xlarge/us-east-1a/0 to 2"]);
    // Not on old data.
    fixture.now = fixture.now.saturating_add(super::fixture::secs(61)).unwrap();
    assert_eq!(bought(&fixture).0, [""; 0]);
}

#[test]
fn the_cheaper_type_comes_first() {
    let mut fixture = Fixture::with_model(1);
    fixture.pool().spec.instance_types = vec!["g5.2xlarge".into(), "g5.xlarge".into()];
    assert_eq!(bought(&fixture).0, ["create g5.xlarge/subnet-0a1/0"]);
    for subnet in ["subnet-0a1", "subnet-0b2", "subnet-0c3"] {
        let group = fixture.add_group("g5.xlarge", subnet);
        fixture.refuse(&group, 0);
    }
    assert_eq!(bought(&fixture).0, ["create g5.2xlarge/subnet-0a1/0"]);
}

#[test]
fn groups_that_failed_are_deleted_and_said() {
    for (state, reason) in [
        (GroupState::CreateFailed, "False NodeGroupCreateFailed"),
        (GroupState::DeleteFailed, "False NodeGroupDeleteFailed"),
    ] {
        let mut fixture = Fixture::with_model(1);
        let group = fixture.add_group("g5.xlarge", "subnet-0a1");
        fixture.group(&group).state = state;
        fixture.group(&group).scaling = None;
        let expected = vec!["delete g5.xlarge/us-east-1a/0".to_owned()];
        assert_eq!(bought(&fixture), (expected, reason.into()));
    }
}

#[test]
fn brakes() {
    let mut fixture = Fixture::with_model(1);
    fixture.observed.settings.mutations = CloudMutations::None;
    assert_eq!(bought(&fixture), (vec![], "False CloudMutationsOff".into()));
    fixture.observed.settings.mutations = CloudMutations::GrowOnly;
    assert_eq!(bought(&fixture).0, ["create g5.xlarge/subnet-0a1/0"]);
    // Nothing missing, nothing to say.
    let mut fixture = Fixture::running(1);
    fixture.observed.settings.mutations = CloudMutations::None;
    assert_eq!(bought(&fixture), (vec![], "True CapacityReady".into()));
}

#[test]
fn trouble_with_aws_is_said_where_something_is_missing() {
    let trouble = |class| {
        Some(CloudTrouble {
            class,
            message: "CreateNodegroup: no".into(),
        })
    };
    for (replicas, class, reason) in [
        (2, CloudErrorClass::Throttled, "False CloudUnavailable"),
        (1, CloudErrorClass::Throttled, "True CapacityReady"),
        (2, CloudErrorClass::Denied, "False CloudDenied"),
        (1, CloudErrorClass::Denied, "False CloudDenied"),
    ] {
        let mut fixture = Fixture::running(1);
        fixture.model().spec.replicas = Some(replicas);
        fixture.cloud().trouble = trouble(class);
        assert_eq!(bought(&fixture).1, reason, "{replicas} {class:?}");
    }
}

#[test]
fn replicas_that_kubernetes_refuses_buy_no_nodes() {
    let mut fixture = Fixture::with_model(3);
    fixture.apply_objects();
    let model = fixture.observed.models.values_mut().next().unwrap();
    let failure = serde_json::from_value(serde_json::json!({
        "conditions": [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}],
    }));
    model.deployments[0].status = Some(failure.unwrap());
    fixture.add_pod("ranker", 0, None);
    fixture.add_group("g5.xlarge", "subnet-0a1");
    assert_eq!(bought(&fixture).0, ["grow g5.xlarge/us-east-1a/0 to 1"]);
    let conditions = fixture.model_plan().conditions;
    assert_eq!(said(&conditions, CapacityReady), "False ReplicaFailure");
}

#[test]
fn ready_nodes_without_gpus_are_a_reason() {
    let mut fixture = Fixture::running(1);
    fixture.observed.pods[0].node = None;
    fixture.node("node-0").allocatable.gpus = 0;
    let (actions, reason) = bought(&fixture);
    assert_eq!((actions.len(), reason.as_str()), (0, "False GpusNotAllocatable"));
    let reasons = fixture.pool_plan().events;
    assert!(
        reasons
            .iter()
            .any(|e| e.warning && e.reason == Reason::GpusNotAllocatable)
    );
}
