//! Owners that vanish or come back as others, and an AWS that cannot be read: nothing is removed for it (I5, I13). Instances that
//! arrive after their order was taken back: nothing healthy pays for it (I14).

use super::scenario::{RETRACT, at_rest};
use crate::plan::fixture::{pool, pool_name};
use crate::plan::world::World;

fn live(world: &World) -> u32 {
    world.aws.groups.values().map(crate::plan::aws::Group::live).sum()
}

fn steps(world: &mut World, count: u32) {
    for _ in 0..count {
        world.step();
    }
}

/// The pool is restored from a backup: same name, another uid.
pub fn an_owner_with_a_new_uid_removes_nothing() {
    let mut world = at_rest(3);
    world.serving_floor = 3;
    let restored = pool("g5", "pool-2", 20);
    world.fixture.observed.pools.insert(pool_name("g5"), restored);
    steps(&mut world, 300);
    assert_eq!((live(&world), world.aws.groups.len()), (3, 3), "I13");
    let annotation = (crds::key::ADOPT.to_owned(), "pool-1".to_owned());
    world.fixture.pool().metadata.annotations = Some([annotation].into());
    world.rest();
    assert!(world.aws.groups.values().all(|g| g.owner_uid == "pool-2"));
    assert_eq!((live(&world), world.aws.groups.len()), (3, 3), "I13");
}

/// The definition of the kind is deleted and installed again: every pool is gone at once.
pub fn owners_that_vanish_remove_nothing() {
    let mut world = at_rest(3);
    world.serving_floor = 3;
    let pools = std::mem::take(&mut world.fixture.observed.pools);
    steps(&mut world, 300);
    assert_eq!((live(&world), world.aws.groups.len()), (3, 3), "I13");
    world.fixture.observed.pools = pools;
    world.rest();
    assert_eq!((live(&world), world.aws.groups.len()), (3, 3), "I13");
}

/// AWS cannot be read while everything is scaled down.
pub fn an_unreadable_aws_shrinks_nothing() {
    let mut world = at_rest(3);
    world.serving_floor = 1;
    world.unreadable = true;
    world.edit(|spec| spec.replicas = Some(1));
    steps(&mut world, 100);
    assert_eq!(live(&world), 3, "I5");
    world.unreadable = false;
    world.rest();
    assert_eq!(live(&world), 1);
}

/// I14: what was ordered arrives after it was taken back, and ends itself.
#[test]
fn late_arrivals() {
    let mut world = RETRACT.prepared();
    world.aws.arrives_late = true;
    RETRACT.run(&mut world);
    assert_eq!((world.serving(), live(&world)), (3, 3));
    let lowered: u32 = world.aws.tally.values().map(|counts| counts[3]).sum();
    assert_eq!(lowered, 1, "taken back once: {:?}", world.aws.tally);
}

#[test]
fn restored() {
    an_owner_with_a_new_uid_removes_nothing();
}

#[test]
fn vanished() {
    owners_that_vanish_remove_nothing();
}

#[test]
fn unreadable() {
    an_unreadable_aws_shrinks_nothing();
}
