//! R1: at every effect of a scenario the operator dies before the call, after it took effect, or after its answer; or it lives
//! and the call is refused, or its answer is lost. The end and what was done on the way are those of the undisturbed run.

use super::scenario::{CREATE, DELETE, GROW, RETRACT, ROLL, SHRINK, Scenario};
use super::summary;
use crate::plan::executor::POINTS;

fn every_effect(scenario: &Scenario) {
    let before = scenario.prepared();
    let mut undisturbed = before.clone();
    scenario.run(&mut undisturbed);
    let expected = summary::of(&undisturbed);
    undisturbed.settle();
    let effects = undisturbed.effects - before.effects;
    assert!(effects > 5, "{} has only {effects} effects", scenario.name);
    for number in 0..effects {
        for point in POINTS {
            let mut world = before.clone();
            world.crash = Some((before.effects + number, point));
            scenario.run(&mut world);
            let (end, tally) = summary::of(&world);
            let what = format!("{}, effect {number}, {point:?}", scenario.name);
            let words = world.last_words();
            assert!(expected.0 == end, "{what}\n{}---\n{end}---\n{words}", expected.0);
            assert!(
                expected.1 == tally,
                "{what}\n{}---\n{tally}---\n{words}",
                expected.1
            );
        }
    }
}

/// R2: what AWS tells is older than it says. The end is the same, and nothing healthy is lost on the way.
#[test]
fn old_news() {
    for scenario in [CREATE, GROW, SHRINK, ROLL, RETRACT, DELETE] {
        let before = scenario.prepared();
        let mut undisturbed = before.clone();
        scenario.run(&mut undisturbed);
        let (expected, _) = summary::of(&undisturbed);
        for lag in [1, 15, 60, 120] {
            let mut world = before.clone();
            world.lag = lag;
            world.nodes_ceiling = u32::MAX;
            scenario.run(&mut world);
            world.lag = 0;
            world.rest();
            let (end, _) = summary::of(&world);
            let what = format!("{}, {lag} s", scenario.name);
            let words = world.last_words();
            assert!(expected == end, "{what}\n{expected}---\n{end}---\n{words}");
        }
    }
}

#[test]
fn create() {
    every_effect(&CREATE);
}

#[test]
fn grow() {
    every_effect(&GROW);
}

#[test]
fn shrink() {
    every_effect(&SHRINK);
}

#[test]
fn roll() {
    every_effect(&ROLL);
}

#[test]
fn retract() {
    every_effect(&RETRACT);
}

#[test]
fn delete() {
    every_effect(&DELETE);
}
