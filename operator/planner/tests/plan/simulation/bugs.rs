//! R19: bugs planted in the planner are found by the checks that the planner passes without them.

use std::panic::catch_unwind;

use planner::seeded::{Bug, plant};

use super::owners;
use super::scenario::{CREATE, DELETE, GROW, Scenario};

fn passes(scenario: &Scenario) {
    let mut world = scenario.prepared();
    scenario.run(&mut world);
}

/// Fails by the invariant that the bug breaks, and passes without the bug.
fn found(bug: Bug, by: &str, check: fn()) {
    check();
    plant(Some(bug));
    let broken = catch_unwind(check);
    plant(None);
    let message = broken.expect_err("the bug is not found");
    let message = message.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(message.starts_with(by), "found by another invariant: {message}");
}

#[test]
fn a_random_name() {
    found(Bug::RandomName, "I2:", || passes(&CREATE));
}

#[test]
fn a_finalizer_that_goes_too_early() {
    found(Bug::FinalizerTooEarly, "I4:", || passes(&DELETE));
}

#[test]
fn a_relative_size() {
    found(Bug::RelativeSize, "I9:", || passes(&GROW));
}

#[test]
fn a_sweep_by_uid_only() {
    let check = owners::an_owner_with_a_new_uid_removes_nothing;
    found(Bug::SweepByUidOnly, "I3:", check);
}

#[test]
fn a_shrink_on_empty_data() {
    found(
        Bug::ShrinkOnEmptyData,
        "I5:",
        owners::an_unreadable_aws_shrinks_nothing,
    );
}

#[test]
fn a_clock_in_the_status() {
    found(Bug::ClockInStatus, "I8:", || passes(&CREATE));
}
