//! What is done to a world that has come to rest.

use crate::plan::fixture::Fixture;
use crate::plan::kube::mark_deleted;
use crate::plan::world::World;

pub struct Scenario {
    pub name: &'static str,
    prepare: fn() -> World,
    act: fn(&mut World),
}

impl Scenario {
    /// The world before, at rest.
    pub fn prepared(&self) -> World {
        (self.prepare)()
    }

    /// From there to rest again.
    pub fn run(&self, world: &mut World) {
        (self.act)(world);
        world.rest();
    }
}

pub const CREATE: Scenario = Scenario {
    name: "create",
    prepare: || {
        let mut fixture = Fixture::with_model(2);
        // As users write them: the operator adds its finalizers first.
        fixture.pool().metadata.finalizers = None;
        fixture.model().metadata.finalizers = None;
        World::new(fixture)
    },
    act: |_| {},
};

pub const GROW: Scenario = Scenario {
    name: "grow",
    prepare: || at_rest(1),
    act: |world| {
        world.serving_floor = 1;
        world.edit(|spec| spec.replicas = Some(5));
    },
};

pub const SHRINK: Scenario = Scenario {
    name: "shrink",
    prepare: || at_rest(3),
    act: |world| {
        world.serving_floor = 1;
        world.edit(|spec| spec.replicas = Some(1));
    },
};

pub const ROLL: Scenario = Scenario {
    name: "roll",
    prepare: || at_rest(2),
    act: |world| {
        // What is evicted serves again elsewhere before the next one goes.
        world.serving_floor = 1;
        world.nodes_ceiling = 3;
        world.edit_pool(|spec| spec.image.release_version = "1.34.2-20261201".into());
    },
};

/// The first of two zones has one node and then no more.
pub const RETRACT: Scenario = Scenario {
    name: "retract",
    prepare: || {
        let mut fixture = Fixture::with_model(1);
        fixture.pool().spec.subnet_ids.truncate(2);
        let mut world = World::new(fixture);
        world.rest();
        world
    },
    act: |world| {
        world.serving_floor = 1;
        world
            .aws
            .sold_out
            .insert(("g5.xlarge".into(), "us-east-1a".into()));
        world.edit(|spec| spec.replicas = Some(3));
    },
};

pub const DELETE: Scenario = Scenario {
    name: "delete",
    prepare: || at_rest(2),
    act: |world| {
        let now = world.now();
        mark_deleted(&mut world.fixture.model().metadata, now);
        mark_deleted(&mut world.fixture.pool().metadata, now);
    },
};

/// `ranker` with so many replicas, each on a node.
pub fn at_rest(replicas: i32) -> World {
    let mut world = World::new(Fixture::with_model(replicas));
    world.rest();
    assert_eq!(world.serving(), usize::try_from(replicas).unwrap());
    world
}
