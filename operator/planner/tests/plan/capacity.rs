//! Who gets how much: packing, priorities, several pools, several GPUs a node.

use planner::observed::{Allocatable, PodObserved};
use planner::plan::CloudAction;

use super::fixture::{Fixture, key, model, pool, pool_name};

fn ordered(fixture: &Fixture) -> u32 {
    let sizes = fixture.pool_plan().cloud.into_iter().map(|a| match a {
        CloudAction::Grow { desired, .. } => desired,
        other => panic!("{other:?}"),
    });
    sizes.sum()
}

#[test]
fn four_gpus_a_node() {
    let mut fixture = Fixture::with_model(9);
    fixture.pool().spec.instance_types = vec!["g5.12xlarge".into()];
    fixture.pool().spec.subnet_ids.truncate(1);
    fixture.add_group("g5.12xlarge", "subnet-0a1");
    assert_eq!(ordered(&fixture), 3);
    fixture.model().spec.runtime.resources.gpus = 3;
    assert_eq!(ordered(&fixture), 9);
    // CPU counts too: 47.7 cores hold two replicas of 20.
    fixture.model().spec.runtime.resources.gpus = 1;
    fixture.model().spec.runtime.resources.cpu = "20".into();
    assert_eq!(ordered(&fixture), 5);
}

#[test]
fn daemon_sets_take_their_part_of_new_nodes() {
    let mut fixture = Fixture::running(1);
    let daemon = PodObserved {
        owner: None,
        daemon_set: true,
        requests: Allocatable {
            gpus: 0,
            milli_cpu: 1_000,
            memory_mib: 100,
        },
        name: "agent".into(),
        ..fixture.observed.pods[0].clone()
    };
    fixture.observed.pods.push(daemon);
    let plan = fixture.model_plan();
    let accepted = super::fixture::said(&plan.conditions, crds::ConditionType::Accepted);
    assert_eq!(accepted, "False ResourcesDoNotFit");
}

#[test]
fn priority_decides_who_is_short() {
    let mut fixture = Fixture::with_model(4);
    fixture.pool().spec.limits.max_nodes = 5;
    fixture.observed.priority_classes.insert("high".into(), 1000);
    let mut urgent = model("urgent", 4, &["g5"]);
    urgent.spec.priority_class_name = Some("high".into());
    fixture.add_model(urgent);
    let plan = fixture.plan();
    let given = |name: &str| plan.models[&key(name)].assigned[&pool_name("g5")];
    assert_eq!((given("urgent"), given("ranker")), (4, 1));
}

#[test]
fn the_second_pool_takes_what_the_first_cannot() {
    let mut fixture = Fixture::new();
    fixture.pool().spec.limits.max_nodes = 2;
    fixture
        .observed
        .pools
        .insert(pool_name("g6"), pool("g6", "pool-2", 20));
    fixture.add_model(model("ranker", 5, &["g5", "g6"]));
    let assigned = fixture.model_plan().assigned;
    assert_eq!((assigned[&pool_name("g5")], assigned[&pool_name("g6")]), (2, 3));
}

#[test]
fn surge_only_where_a_node_is_left() {
    let surge = |max_nodes: i32| {
        let mut fixture = Fixture::with_model(3);
        fixture.pool().spec.limits.max_nodes = max_nodes;
        let plan = fixture.model_plan();
        let deployment = plan.objects.iter().find(|o| o["kind"] == "Deployment").unwrap();
        let rolling = &deployment["spec"]["strategy"]["rollingUpdate"];
        (
            rolling["maxSurge"].as_u64().unwrap(),
            rolling["maxUnavailable"].as_u64().unwrap(),
        )
    };
    assert_eq!((surge(4), surge(3)), ((1, 0), (0, 1)));
}

#[test]
fn pods_of_others_hold_room_but_no_node() {
    let mut fixture = Fixture::running(1);
    let group = fixture.cloud().groups.keys().next().unwrap().clone();
    fixture.add_node(&group, 1);
    let foreign = PodObserved {
        owner: None,
        name: "notebook".into(),
        node: Some("node-1".into()),
        ..fixture.observed.pods[0].clone()
    };
    fixture.observed.pods.push(foreign);
    fixture.model().spec.replicas = Some(2);
    let plan = fixture.pool_plan();
    assert!(
        matches!(plan.cloud[..], [CloudAction::Create(_)]),
        "the GPU is taken: {:?}",
        plan.cloud
    );
}

/// Four replicas a node in a pool that is full by `maxNodes`.
#[test]
fn what_is_not_known_of_aws_shrinks_no_model() {
    type Change = fn(&mut Fixture);
    let table: [Change; 2] = [
        |f| f.observed.cloud = None,
        |f| f.pool().spec.instance_types = vec!["x9.large".into()],
    ];
    for change in table {
        let mut fixture = Fixture::with_model(8);
        fixture.pool().spec.instance_types = vec!["g5.12xlarge".into()];
        fixture.pool().spec.limits.max_nodes = 2;
        let group = fixture.add_group("g5.12xlarge", "subnet-0a1");
        for index in 0..2 {
            let node = fixture.add_node(&group, index);
            fixture.node(&node).allocatable = super::fixture::G5.times(4);
            for pod in 0..4 {
                fixture.add_pod("ranker", index * 4 + pod, Some(&node));
            }
        }
        fixture.apply_objects();
        change(&mut fixture);
        let plan = fixture.model_plan();
        assert_eq!(plan.assigned[&pool_name("g5")], 8);
        assert!(plan.objects.is_empty(), "{:?}", plan.objects);
    }
}
