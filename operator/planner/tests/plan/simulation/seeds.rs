//! R9: a life follows from its seed alone. A seed that fails is replayed by
//! `PINNACE_SEED=<seed> cargo test -p planner --test plan one_seed -- --nocapture`.

use crate::plan::chaos::{Event, crowded, live};
use crate::plan::dice::Dice;
use crate::plan::executor::POINTS;
use crate::plan::world::{POLL, World};

fn life(seed: u64, loud: bool) -> World {
    let mut dice = Dice::new(seed);
    let mut world = crowded();
    world.loud = loud;
    world.dice = Dice::new(dice.next());
    let count = 2 + dice.below(12);
    let events: Vec<(Event, u32)> = (0..count)
        .map(|_| (event(&mut dice), u32::try_from(dice.below(40)).unwrap()))
        .collect();
    live(&mut world, &events);
    world
}

fn event(dice: &mut Dice) -> Event {
    let pick = |dice: &mut Dice, count: u64| usize::try_from(dice.below(count)).unwrap();
    match dice.below(20) {
        0..4 => Event::Scale(i32::try_from(dice.below(7)).unwrap()),
        4 => Event::Roll,
        5..7 => Event::Image(u8::try_from(dice.below(3)).unwrap()),
        7 => Event::SellOut(pick(dice, 3)),
        8 => Event::Silence(pick(dice, 3)),
        9 => Event::Restock,
        10..14 => {
            let number = u32::try_from(dice.below(8)).unwrap();
            Event::Crash(number, POINTS[pick(dice, POINTS.len() as u64)])
        }
        14 => Event::KillPod(pick(dice, 9)),
        15 => Event::Rival(i32::try_from(dice.below(4)).unwrap()),
        16 => Event::Poll([5, POLL, 30, 50][pick(dice, 4)]),
        17 => Event::Lag(i64::try_from(dice.below(121)).unwrap()),
        18 => Event::Weather(dice.below(20)),
        _ => Event::Outage(dice.below(2) == 0),
    }
}

#[test]
fn the_same_seed_is_the_same_life() {
    for seed in 0..2 {
        let (a, b) = (life(seed, false), life(seed, false));
        assert!(a.trace.len() > 20);
        assert_eq!(a.trace, b.trace, "seed {seed}");
    }
}

fn seeds(range: std::ops::Range<u64>) {
    let fails = |seed: &u64| std::panic::catch_unwind(|| drop(life(*seed, false))).is_err();
    let failed: Vec<u64> = range.filter(fails).collect();
    assert!(failed.is_empty(), "seeds {failed:?}");
}

#[test]
fn some_seeds() {
    seeds(100..116);
}

#[test]
#[ignore = "minutes"]
fn many_seeds() {
    seeds(1_000..3_000);
}

#[test]
#[ignore = "replays one seed"]
#[allow(clippy::disallowed_methods, reason = "the seed is given from outside")]
fn one_seed() {
    if let Some(seed) = std::env::var_os("PINNACE_SEED") {
        life(seed.to_str().unwrap().parse().unwrap(), true);
    }
}
