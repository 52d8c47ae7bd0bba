//! Whole lives in the world.

use planner::observed::CloudMutations;

use super::fixture::{Fixture, key, model, pool, pool_name};
use super::kube::mark_deleted;
use super::world::World;

fn settled(replicas: i32) -> World {
    let mut fixture = Fixture::with_model(replicas);
    // As users write them: the operator adds its finalizers first.
    fixture.pool().metadata.finalizers = None;
    fixture.model().metadata.finalizers = None;
    let mut world = World::new(fixture);
    world.settle();
    assert_eq!(world.serving(), usize::try_from(replicas).unwrap());
    world
}

fn ready(world: &World) -> bool {
    let observed = &world.fixture.observed;
    let model = observed.models[&key("ranker")].spec.status.as_ref().unwrap();
    let pool = observed.pools[&pool_name("g5")].status.as_ref().unwrap();
    [&model.conditions, &pool.conditions].iter().all(|conditions| {
        let ready = crds::find_condition(conditions, crds::ConditionType::Ready).unwrap();
        ready.status == "True"
    })
}

#[test]
fn three_replicas_from_nothing() {
    let world = settled(3);
    assert!(ready(&world));
    assert_eq!(world.aws.requested("g5"), 3);
    assert_eq!(world.aws.groups.len(), 3, "one a zone");
    assert!(world.status_writes < 30, "{} status writes", world.status_writes);
}

#[test]
fn one_to_three_to_one() {
    let mut world = settled(1);
    world.serving_floor = 1;
    world.edit(|spec| spec.replicas = Some(3));
    world.settle();
    assert_eq!((world.serving(), world.aws.requested("g5")), (3, 3));
    world.edit(|spec| spec.replicas = Some(1));
    world.settle();
    assert_eq!((world.serving(), world.aws.requested("g5")), (1, 1));
    assert!(ready(&world));
}

#[test]
fn scaled_up_again_while_nodes_drain() {
    let mut world = settled(3);
    world.serving_floor = 1;
    for steps in [1, 2, 3, 5, 8, 13, 16, 20, 30] {
        world.edit(|spec| spec.replicas = Some(1));
        for _ in 0..steps {
            world.step();
        }
        world.edit(|spec| spec.replicas = Some(3));
        world.settle();
        assert_eq!(
            (world.serving(), world.aws.requested("g5")),
            (3, 3),
            "after {steps} steps"
        );
    }
}

#[test]
fn a_roll_with_surge_keeps_every_replica_serving() {
    let mut world = settled(3);
    world.serving_floor = 3;
    world.edit(|spec| spec.model.uri = "s3://models/ranker/2".into());
    world.settle();
    assert_eq!((world.serving(), world.aws.requested("g5")), (3, 3));
    let revisions: std::collections::BTreeSet<_> = world
        .pods
        .list
        .iter()
        .map(|p| p.owner.as_ref().unwrap().revision.clone())
        .collect();
    assert_eq!(revisions.len(), 1);
    assert!(ready(&world));
}

#[test]
fn a_roll_in_a_full_pool_goes_one_by_one() {
    let mut world = settled(3);
    world.fixture.pool().spec.limits.max_nodes = 3;
    world.settle();
    world.serving_floor = 2;
    world.edit(|spec| spec.model.uri = "s3://models/ranker/2".into());
    world.settle();
    assert_eq!((world.serving(), world.aws.requested("g5")), (3, 3));
}

#[test]
fn a_move_to_another_pool_keeps_every_replica_serving() {
    let mut world = settled(3);
    world
        .fixture
        .observed
        .pools
        .insert(pool_name("g6"), pool("g6", "pool-2", 20));
    world.serving_floor = 3;
    world.edit(|spec| spec.placement[0].pool = "g6".into());
    world.settle();
    assert_eq!(world.serving(), 3);
    assert_eq!((world.aws.requested("g5"), world.aws.requested("g6")), (0, 3));
}

#[test]
fn a_zone_without_capacity_is_left_for_another() {
    let mut world = World::new(Fixture::with_model(3));
    for zone in ["us-east-1a", "us-east-1b"] {
        world.aws.sold_out.insert(("g5.xlarge".into(), zone.into()));
    }
    world.settle();
    assert_eq!((world.serving(), world.aws.requested("g5")), (3, 3));
}

#[test]
fn no_capacity_anywhere_heals() {
    let mut world = World::new(Fixture::with_model(3));
    let zones = ["us-east-1a", "us-east-1b", "us-east-1c"];
    for zone in zones {
        world.aws.sold_out.insert(("g5.xlarge".into(), zone.into()));
    }
    for _ in 0..200 {
        world.step();
    }
    let status = world.fixture.model().status.clone().unwrap();
    let capacity = crds::find_condition(&status.conditions, crds::ConditionType::CapacityReady).unwrap();
    assert_eq!(capacity.reason, "NoCapacity");
    world.aws.sold_out.clear();
    world.settle();
    assert_eq!((world.serving(), world.aws.requested("g5")), (3, 3));
}

#[test]
fn more_than_the_pool_may_hold() {
    let mut fixture = Fixture::with_model(7);
    fixture.pool().spec.limits.max_nodes = 5;
    let mut world = World::new(fixture);
    world.settle();
    assert_eq!((world.serving(), world.aws.requested("g5")), (5, 5));
    let status = world.fixture.model().status.clone().unwrap();
    let ready = crds::find_condition(&status.conditions, crds::ConditionType::Ready).unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("False", "PoolLimit")
    );
}

#[test]
fn a_higher_priority_takes_the_place_of_a_lower_one() {
    let mut fixture = Fixture::with_model(4);
    fixture.pool().spec.limits.max_nodes = 4;
    fixture.observed.priority_classes.insert("high".into(), 1000);
    let mut world = World::new(fixture);
    world.settle();
    let mut urgent = model("urgent", 3, &["g5"]);
    urgent.spec.priority_class_name = Some("high".into());
    world.fixture.add_model(urgent);
    world.settle();
    let of = |name: &str| {
        let pods = world
            .pods
            .list
            .iter()
            .filter(|p| p.owner.as_ref().unwrap().model == key(name));
        pods.filter(|p| p.ready).count()
    };
    assert_eq!((of("urgent"), of("ranker")), (3, 1));
}

#[test]
fn model_then_pool_deleted_leave_nothing() {
    let mut world = settled(3);
    let now = world.now();
    mark_deleted(&mut world.fixture.model().metadata, now);
    world.settle();
    assert!(world.fixture.observed.models.is_empty());
    assert_eq!(world.aws.requested("g5"), 0);
    let now = world.now();
    mark_deleted(&mut world.fixture.pool().metadata, now);
    world.settle();
    assert!(world.fixture.observed.pools.is_empty() && world.aws.is_bare());
}

#[test]
fn pool_and_model_deleted_at_once_leave_nothing() {
    let mut world = settled(3);
    let now = world.now();
    mark_deleted(&mut world.fixture.pool().metadata, now);
    mark_deleted(&mut world.fixture.model().metadata, now);
    world.settle();
    assert!(world.fixture.observed.models.is_empty() && world.fixture.observed.pools.is_empty());
    assert!(world.aws.is_bare());
}

#[test]
fn a_pool_deleted_while_it_is_being_filled_leaves_nothing() {
    for steps in [1, 5, 13, 15, 20, 26] {
        let mut world = World::new(Fixture::with_model(3));
        for _ in 0..steps {
            world.step();
        }
        let now = world.now();
        mark_deleted(&mut world.fixture.pool().metadata, now);
        mark_deleted(&mut world.fixture.model().metadata, now);
        world.settle();
        assert!(world.fixture.observed.pools.is_empty(), "after {steps} steps");
        assert!(world.aws.is_bare(), "after {steps} steps");
    }
}

#[test]
fn retained_groups_are_adopted_by_the_next_pool() {
    let mut world = settled(3);
    world.serving_floor = 3;
    world.fixture.pool().spec.deletion_policy = crds::gpu_pool::DeletionPolicy::Retain;
    let now = world.now();
    mark_deleted(&mut world.fixture.pool().metadata, now);
    world.settle();
    assert!(
        world.fixture.observed.pools.contains_key(&pool_name("g5")),
        "in use"
    );
    world.serving_floor = 0;
    let now = world.now();
    mark_deleted(&mut world.fixture.model().metadata, now);
    world.fixture.observed.settings.node_idle = super::fixture::secs(100_000);
    world.settle();
    assert!(world.fixture.observed.pools.is_empty());
    assert_eq!(world.aws.requested("g5"), 3, "the nodes stay");

    let mut next = pool("g5", "pool-2", 20);
    let annotation = (crds::key::ADOPT.to_owned(), "pool-1".to_owned());
    next.metadata.annotations = Some([annotation].into());
    world.fixture.observed.pools.insert(pool_name("g5"), next);
    world.fixture.add_model(model("ranker", 3, &["g5"]));
    world.settle();
    assert_eq!((world.serving(), world.aws.requested("g5")), (3, 3));
    assert_eq!(world.aws.groups.len(), 3, "the old groups serve on");
    assert!(ready(&world));
}

#[test]
fn without_leave_to_shrink_nodes_stay() {
    let mut world = settled(3);
    world.fixture.observed.settings.mutations = CloudMutations::GrowOnly;
    world.serving_floor = 1;
    world.edit(|spec| spec.replicas = Some(1));
    world.settle();
    assert_eq!((world.serving(), world.aws.requested("g5")), (1, 3));
    world.edit(|spec| spec.replicas = Some(4));
    world.settle();
    assert_eq!((world.serving(), world.aws.requested("g5")), (4, 4));
    assert!(ready(&world));
}
