//! Orders that are taken back: refused, overdue, or needed by nobody; never at the cost of what lives.

use planner::observed::{CloudObserved, Lifecycle};
use planner::plan::GroupName;
use planner::pool::retract::{ORDER_PATIENCE, note_waiting};

use super::fixture::{Fixture, said, secs};
use super::render::actions;

fn planned(fixture: &Fixture) -> Vec<String> {
    actions(&fixture.observed, &fixture.pool_plan())
}

/// `seconds` pass, AWS is read again, and what was read before is remembered.
fn read_again(fixture: &mut Fixture, seconds: i64, change: impl FnOnce(&mut CloudObserved)) {
    let before = fixture.cloud().clone();
    fixture.pass(seconds);
    change(fixture.cloud());
    note_waiting(fixture.cloud(), Some(&before));
}

/// Two subnets, and an order of two nodes in the first that AWS says nothing of.
fn ordered(replicas: i32) -> (Fixture, GroupName, GroupName) {
    let mut fixture = Fixture::with_model(replicas);
    fixture.pool().spec.subnet_ids.truncate(2);
    let a = fixture.add_group("g5.xlarge", "subnet-0a1");
    let b = fixture.add_group("g5.xlarge", "subnet-0b2");
    fixture.scaling(&a).desired = 2;
    note_waiting(fixture.cloud(), None);
    (fixture, a, b)
}

#[test]
fn what_demand_no_longer_needs_is_taken_back_to_what_it_does() {
    for (replicas, kept) in [(2, None), (1, Some(1)), (0, Some(0))] {
        let (fixture, _, _) = ordered(replicas);
        let expected: Vec<String> = kept
            .map(|n| format!("retract g5.xlarge/us-east-1a/0 to {n}"))
            .into_iter()
            .collect();
        assert_eq!(planned(&fixture), expected, "{replicas} replicas");
    }
}

#[test]
fn what_lives_is_kept_and_what_is_pending_is_waited_for() {
    let (mut fixture, a, _) = ordered(0);
    fixture.scaling(&a).desired = 4;
    fixture.add_node(&a, 0);
    fixture.add_instance(&a, 1, Lifecycle::Pending);
    assert_eq!(planned(&fixture), [""; 0]);
    fixture.scaling(&a).instances[1].lifecycle = Lifecycle::InService;
    assert_eq!(planned(&fixture), ["retract g5.xlarge/us-east-1a/0 to 2"]);
    fixture.now = fixture.now.saturating_add(secs(61)).unwrap();
    assert_eq!(planned(&fixture), [""; 0], "not on old data");
}

#[test]
fn an_order_that_is_not_filled_in_time_is_given_to_another_offering() {
    let patience = ORDER_PATIENCE.as_secs();
    let (mut fixture, a, _) = ordered(2);
    read_again(&mut fixture, patience - 1, |_| {});
    assert_eq!(planned(&fixture), [""; 0]);
    read_again(&mut fixture, 1, |_| {});
    assert_eq!(planned(&fixture), ["retract g5.xlarge/us-east-1a/0 to 0"]);
    assert_eq!(
        said(
            &fixture.pool_plan().conditions,
            crds::ConditionType::CapacityReady
        ),
        "False NodeGroupUnhealthy"
    );
    // Taken back: the other one gets the order, until three minutes have passed.
    read_again(&mut fixture, 10, |cloud| {
        cloud
            .groups
            .get_mut(&a)
            .unwrap()
            .scaling
            .as_mut()
            .unwrap()
            .desired = 0;
    });
    assert_eq!(planned(&fixture), ["grow g5.xlarge/us-east-1b/0 to 2"]);
    read_again(&mut fixture, 170, |_| {});
    assert_eq!(
        planned(&fixture),
        [
            "grow g5.xlarge/us-east-1a/0 to 1",
            "grow g5.xlarge/us-east-1b/0 to 1"
        ]
    );
    // While nobody delivers, orders stand where they are.
    read_again(&mut fixture, 10, |cloud| {
        for group in cloud.groups.values_mut() {
            group.scaling.as_mut().unwrap().desired = 1;
        }
    });
    read_again(&mut fixture, patience, |_| {});
    assert_eq!(planned(&fixture), [""; 0]);
}

#[test]
fn an_order_that_makes_progress_has_time() {
    let patience = ORDER_PATIENCE.as_secs();
    let (mut fixture, a, _) = ordered(2);
    read_again(&mut fixture, patience - 10, |_| {});
    fixture.add_node(&a, 0);
    let node = fixture.scaling(&a).instances.pop().unwrap();
    read_again(&mut fixture, 5, |cloud| {
        let scaling = cloud.groups.get_mut(&a).unwrap().scaling.as_mut().unwrap();
        scaling.instances.push(node);
    });
    read_again(&mut fixture, 30, |_| {});
    assert_eq!(planned(&fixture), [""; 0]);
    read_again(&mut fixture, patience, |_| {});
    assert_eq!(planned(&fixture), ["retract g5.xlarge/us-east-1a/0 to 1"]);
}
