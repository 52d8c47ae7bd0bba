//! What no living pool is responsible for.

use super::fixture::{Fixture, pool, pool_name, secs};
use super::render::render;
use planner::observed::CloudMutations;
use planner::plan::GroupName;

/// Living pool `g5` with one group of two nodes, and a group of pool `lost`.
fn with_lost(instances: u32) -> (Fixture, GroupName) {
    let mut fixture = Fixture::running(2);
    let group = fixture.add_group("g5.xlarge", "subnet-0b2");
    let lost = |uid: &mut String| "lost".clone_into(uid);
    fixture.group(&group).owner.pool = pool_name("old");
    lost(&mut fixture.group(&group).owner.pool_uid);
    for index in 0..instances {
        fixture.add_instance(&group, 100 + index, planner::observed::Lifecycle::InService);
    }
    let hash = fixture.group(&group).owner.spec_hash.clone();
    let templates = fixture.cloud().templates.values_mut();
    templates
        .filter(|t| t.spec_hash == hash)
        .for_each(|t| lost(&mut t.pool_uid));
    (fixture, group)
}

fn sweep(fixture: &Fixture) -> Vec<String> {
    let text = render(&fixture.observed, &fixture.plan());
    text.lines()
        .filter_map(|l| l.strip_prefix("sweep "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn empty_groups_are_swept_when_they_are_old_enough() {
    let (mut fixture, group) = with_lost(0);
    assert_eq!(sweep(&fixture), ["delete g5.xlarge/us-east-1b/0"]);
    fixture.group(&group).created = fixture.now.saturating_sub(secs(599)).unwrap();
    assert_eq!(sweep(&fixture), [""; 0]);
    fixture.cloud().groups.remove(&group);
    assert_eq!(sweep(&fixture), ["delete template of lost"]);
}

#[test]
fn what_was_released_is_not_swept() {
    let (mut fixture, group) = with_lost(0);
    fixture.group(&group).owner.released = true;
    assert_eq!(sweep(&fixture), [""; 0]);
}

#[test]
fn nothing_is_swept_without_leave_or_knowledge() {
    let (mut fixture, _) = with_lost(0);
    fixture.observed.settings.mutations = CloudMutations::GrowOnly;
    assert_eq!(sweep(&fixture), [""; 0]);
    fixture.observed.settings.mutations = CloudMutations::All;
    fixture.now = fixture.now.saturating_add(secs(61)).unwrap();
    assert_eq!(sweep(&fixture), [""; 0]);
}

#[test]
fn groups_with_instances_are_orphans() {
    let (fixture, group) = with_lost(1);
    let account = fixture.plan().account;
    assert_eq!(account.orphans[&pool_name("old")], [group]);
    assert!(account.sweep.is_empty());
}

/// I13
#[test]
fn sweeping_stops_when_too_many_owners_vanished() {
    let (mut fixture, _) = with_lost(0);
    assert!(fixture.plan().account.held.is_none());
    fixture.observed.pools.clear();
    let account = fixture.plan().account;
    assert!(account.held.is_some() && account.sweep.is_empty());
    // Let go on purpose: no mistake.
    for group in fixture.cloud().groups.values_mut() {
        group.owner.released = true;
    }
    assert!(fixture.plan().account.held.is_none());
    // Back with another uid: still nobody's.
    for group in fixture.cloud().groups.values_mut() {
        group.owner.released = false;
    }
    fixture
        .observed
        .pools
        .insert(pool_name("g5"), pool("g5", "pool-2", 20));
    assert!(fixture.plan().account.held.is_some());
}
