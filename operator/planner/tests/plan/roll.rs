//! Nodes of an earlier spec give way to nodes of today's: in waves, by surge, within every limit, and back again.

use expect_test::expect;
use planner::observed::{CloudMutations, Lifecycle};
use planner::plan::{GroupName, NodeMark};

use super::fixture::{Fixture, said, secs, start};
use super::render::{actions, render};
use super::world::World;

const NEW_IMAGE: &str = "1.34.2-20261201";

/// Two replicas on nodes of an earlier image, and an empty group of today's.
fn outdated() -> (Fixture, GroupName) {
    let mut fixture = Fixture::running(2);
    fixture.pool().spec.subnet_ids.truncate(1);
    fixture.pool().spec.image.release_version = NEW_IMAGE.into();
    let today = fixture.add_group("g5.xlarge", "subnet-0a1");
    (fixture, today)
}

/// A node of today's spec; without GPUs until `usable`.
fn replacement(fixture: &mut Fixture, group: &GroupName, usable: bool) {
    fixture.add_node(group, 9);
    if !usable {
        fixture.node("node-9").allocatable.gpus = 0;
    }
}

fn planned(fixture: &Fixture) -> (Vec<String>, Vec<String>, Vec<String>) {
    let plan = fixture.pool_plan();
    let marks = plan.node_marks.iter().map(|mark| match mark {
        NodeMark::Drain { node, .. } => format!("drain {node}"),
        NodeMark::Reclaim { node } => format!("reclaim {node}"),
    });
    let evicted = plan.evict.iter().map(|e| e.pod.clone());
    (
        marks.collect(),
        actions(&fixture.observed, &plan),
        evicted.collect(),
    )
}

fn image(fixture: &Fixture) -> String {
    said(
        &fixture.pool_plan().conditions,
        crds::ConditionType::ImageUpToDate,
    )
}

fn none() -> Vec<String> {
    vec![]
}

fn cordon(fixture: &mut Fixture, name: &str) {
    let now = fixture.now;
    let node = fixture.node(name);
    node.unschedulable = true;
    node.victim_since = Some(now);
}

#[test]
fn step_by_step() {
    let (mut fixture, today) = outdated();
    expect![[r#"
        pool g5: 2 nodes wanted
          grow g5.xlarge/us-east-1a/0 to 1
          Accepted=True Accepted: The spec can be used
          CapacityReady=True CapacityReady: Every pod that can run has a node
          ImageUpToDate=False RollingOut: 2 nodes are of an earlier spec; they are replaced 1 at a time
          Ready=True Ready: Every pod that can run has a node
          Reconciling=True NewGeneration: The spec is being brought into effect
          Stalled=False UpToDate: Nothing stands in the way
        model ranker: g5=2
          Accepted=True Accepted: The spec can be used
          CapacityReady=True CapacityReady: Every replica has a node
          ModelReady=True ModelLoaded: The model is loaded and serves
          Available=True Available: 2 replicas serve; 2 are asked for
          Ready=True Ready: 2 of 2 replicas serve
          Reconciling=False UpToDate: The spec is in effect
          Stalled=False UpToDate: Nothing stands in the way
    "#]]
    .assert_eq(&render(&fixture.observed, &fixture.plan()));
    // Ordered, launched, joined: waited for until it shows its GPUs.
    fixture.scaling(&today).desired = 1;
    assert_eq!(planned(&fixture), (none(), none(), none()));
    replacement(&mut fixture, &today, false);
    assert_eq!(planned(&fixture), (none(), none(), none()));
    fixture.node("node-9").allocatable.gpus = 1;
    assert_eq!(planned(&fixture), (vec!["drain node-0".into()], none(), none()));
    // Evicted when the cordon is seen, and again until the pod is on its way out.
    cordon(&mut fixture, "node-0");
    assert_eq!(planned(&fixture), (none(), none(), vec!["ranker-0".into()]));
    fixture.pod("ranker-0").terminating = true;
    assert_eq!(planned(&fixture), (none(), none(), none()));
    // The next wave waits until the emptied node is returned.
    fixture.observed.pods.retain(|p| p.name != "ranker-0");
    fixture.add_pod("ranker", 9, Some("node-9"));
    assert_eq!(planned(&fixture), (none(), none(), none()));
    fixture.pass(60);
    let remove = r#"remove g5.xlarge/us-east-1a/0 ["i-0000"] to 1"#;
    assert_eq!(planned(&fixture), (none(), vec![remove.into()], none()));
    fixture.observed.nodes.retain(|_, node| node.name != "node-0");
    let old = fixture.cloud().groups.keys().find(|name| **name != today);
    let old = old.unwrap().clone();
    let scaling = fixture.scaling(&old);
    scaling.desired = 1;
    scaling.instances.retain(|i| i.id != "i-0000");
    let grow = "grow g5.xlarge/us-east-1a/0 to 2";
    assert_eq!(planned(&fixture), (none(), vec![grow.into()], none()));
}

#[test]
fn what_keeps_a_roll_from_going_on() {
    type Change = fn(&mut Fixture, &GroupName);
    let table: [(&str, Change, &str); 7] = [
        (
            "no room",
            |f, _| f.pool().spec.limits.max_nodes = 2,
            "False PoolLimit",
        ),
        (
            "operator's limit",
            |f, _| f.observed.settings.max_nodes = 2,
            "False PoolLimit",
        ),
        (
            "no tokens",
            |f, _| f.observed.launch_tokens = 0,
            "False LaunchBudget",
        ),
        (
            "brake",
            |f, _| f.observed.settings.mutations = CloudMutations::GrowOnly,
            "False CloudMutationsOff",
        ),
        (
            "old news",
            |f, _| f.now = f.now.saturating_add(secs(61)).unwrap(),
            "False RollingOut",
        ),
        (
            "a replacement on its way",
            |f, today| {
                f.add_instance(today, 9, Lifecycle::Pending);
            },
            "False RollingOut",
        ),
        (
            "a refused spec",
            |f, _| f.pool().spec.instance_types.push("x9.large".into()),
            "False RollingOut",
        ),
    ];
    for (name, change, said) in table {
        let (mut fixture, today) = outdated();
        change(&mut fixture, &today);
        assert_eq!(planned(&fixture), (none(), none(), none()), "{name}");
        assert_eq!(image(&fixture), said, "{name}");
        let capacity = super::fixture::said(
            &fixture.pool_plan().conditions,
            crds::ConditionType::CapacityReady,
        );
        assert!(
            name == "a refused spec" || capacity == "True CapacityReady",
            "{name}"
        );
    }
}

#[test]
fn an_operator_that_did_not_read_aws_yet_takes_nothing_back() {
    let (mut fixture, today) = outdated();
    replacement(&mut fixture, &today, true);
    cordon(&mut fixture, "node-0");
    fixture.observed.cloud = None;
    assert_eq!(planned(&fixture), (none(), none(), none()));
}

#[test]
fn a_spec_that_is_changed_back_keeps_its_nodes() {
    let (mut fixture, today) = outdated();
    replacement(&mut fixture, &today, true);
    cordon(&mut fixture, "node-0");
    fixture.pool().spec.image.release_version = "1.34.2-20261101".into();
    let (marks, _, evicted) = planned(&fixture);
    assert_eq!(
        (marks, evicted),
        (vec!["reclaim node-0".into(), "drain node-9".into()], none())
    );
}

#[test]
fn waves_grow_with_the_pool() {
    let mut fixture = Fixture::running(100);
    fixture.pool().spec.limits.max_nodes = 200;
    fixture.pool().spec.subnet_ids.truncate(1);
    fixture.pool().spec.image.release_version = NEW_IMAGE.into();
    fixture.add_group("g5.xlarge", "subnet-0a1");
    assert_eq!(planned(&fixture).1, ["grow g5.xlarge/us-east-1a/0 to 3"]);
}

#[test]
fn orders_of_an_earlier_spec_are_taken_back() {
    let (mut fixture, today) = outdated();
    fixture.model().spec.replicas = Some(3);
    let mut names = fixture.cloud().groups.keys();
    let old = names.find(|name| **name != today).unwrap().clone();
    fixture.scaling(&old).desired = 3;
    let expected = [
        "retract g5.xlarge/us-east-1a/0 to 2",
        "grow g5.xlarge/us-east-1a/0 to 1",
    ];
    let (_, mut actions, _) = planned(&fixture);
    actions.sort();
    actions.reverse();
    assert_eq!(actions, expected);
}

/// `replicas` of `ranker` at rest, and then another image.
fn rolled(replicas: i32, prepare: impl FnOnce(&mut World)) -> World {
    let mut world = World::new(Fixture::with_model(replicas));
    world.settle();
    prepare(&mut world);
    world.edit_pool(|spec| spec.image.release_version = NEW_IMAGE.into());
    world
}

fn images(world: &World) -> Vec<(String, u32)> {
    let groups = world.aws.groups.values();
    let mut images: Vec<_> = groups
        .map(|g| (g.spec.release_version.clone(), g.live()))
        .collect();
    images.sort();
    images
}

#[test]
fn a_pool_is_rolled_with_one_node_beyond_demand() {
    let mut world = rolled(4, |world| {
        world.serving_floor = 3;
        world.nodes_ceiling = 5;
    });
    world.settle();
    assert_eq!(world.serving(), 4);
    let all: u32 = images(&world).iter().map(|(_, n)| n).sum();
    assert!(all == 4 && images(&world).iter().all(|(image, _)| image == NEW_IMAGE));
    assert_eq!(world.pods.made, 8, "each pod moves once");
    let status = world.fixture.pool().status.clone().unwrap();
    let condition = crds::find_condition(&status.conditions, crds::ConditionType::ImageUpToDate).unwrap();
    assert_eq!(condition.status, "True");
    assert!(condition.last_transition_time.0 > start());
}

#[test]
fn a_full_pool_waits_for_room() {
    let mut world = rolled(3, |world| {
        world.edit_pool(|spec| spec.limits.max_nodes = 3);
        world.settle();
        world.serving_floor = 3;
    });
    world.settle();
    let status = world.fixture.pool().status.clone().unwrap();
    let condition = crds::find_condition(&status.conditions, crds::ConditionType::ImageUpToDate).unwrap();
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("False", "PoolLimit")
    );
    world.serving_floor = 2;
    world.edit_pool(|spec| spec.limits.max_nodes = 4);
    world.settle();
    assert!(images(&world).iter().all(|(image, _)| image == NEW_IMAGE));
}

#[test]
fn without_capacity_for_replacements_everything_serves_on() {
    let mut world = rolled(3, |world| {
        world.serving_floor = 3;
        world.nodes_ceiling = 4;
        for zone in ["us-east-1a", "us-east-1b", "us-east-1c"] {
            world.aws.sold_out.insert(("g5.xlarge".into(), zone.into()));
        }
    });
    for _ in 0..200 {
        world.step();
    }
    world.aws.sold_out.clear();
    world.serving_floor = 2;
    world.settle();
    assert!(images(&world).iter().all(|(image, _)| image == NEW_IMAGE));
}

#[test]
fn a_roll_that_is_taken_back_ends_where_it_began() {
    for steps in [1, 15, 30, 45, 60] {
        let mut world = rolled(2, |world| {
            world.serving_floor = 1;
            world.nodes_ceiling = 3;
        });
        for _ in 0..steps {
            world.step();
        }
        world.edit_pool(|spec| spec.image.release_version = "1.34.2-20261101".into());
        world.settle();
        assert_eq!(world.serving(), 2);
        let groups = images(&world);
        assert!(
            groups.iter().all(|(image, _)| image != NEW_IMAGE),
            "{steps}: {groups:?}"
        );
    }
}

#[test]
fn demand_that_changes_during_a_roll_is_met() {
    let mut world = rolled(3, |world| world.serving_floor = 2);
    for replicas in [5, 2, 4] {
        for _ in 0..25 {
            world.step();
        }
        world.serving_floor = 1;
        world.edit(|spec| spec.replicas = Some(replicas));
    }
    world.settle();
    assert_eq!((world.serving(), world.aws.requested("g5")), (4, 4));
    assert!(images(&world).iter().all(|(image, _)| image == NEW_IMAGE));
}
