//! Tables of one decision, timelines of several, and what must hold for any answers.

mod case;
mod window;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::observed::{ReplicaLoad, Sample};
use case::*;

#[test]
fn the_request_rate_asks_in_proportion() {
    for (each, replicas, expected) in [
        (100.0, 4, 4),
        (109.0, 4, 4), // within the tolerance
        (91.0, 4, 4),
        (120.0, 4, 5),
        (88.889, 9, 8), // 800.001 in all
        (250.0, 4, 10),
        (50.0, 4, 2),
        (51.0, 4, 3),
        (0.0, 4, 0), // bounds come later
    ] {
        let case = Case::new(json!([rate()]), all(replicas, &replica(each)));
        assert_eq!(case.asked(), Some(expected), "{each} on each of {replicas}");
    }
}

#[test]
fn refused_requests_were_offered_too() {
    let mut load = replica(300.0);
    load.answered = [100.0; 2];
    load.refused = [200.0; 2];
    assert_eq!(Case::new(json!([rate()]), all(1, &load)).asked(), Some(3));
}

#[test]
fn a_rise_is_seen_at_once_and_a_fall_when_it_lasts() {
    let mut rising = replica(100.0);
    rising.offered = [300.0, 120.0];
    assert_eq!(Case::new(json!([rate()]), all(2, &rising)).asked(), Some(6));
    let mut falling = replica(100.0);
    falling.offered = [10.0, 95.0];
    assert_eq!(Case::new(json!([rate()]), all(2, &falling)).asked(), Some(2));
}

#[test]
fn who_does_not_answer_is_idle_when_growing_and_busy_when_shrinking() {
    // 3 x 200 and one unknown: at least 600.
    let growing = all(3, &replica(200.0)).into_iter().chain([None]);
    assert_eq!(Case::new(json!([rate()]), growing).asked(), Some(6));
    // 4 x 20 and one unknown: at most 180, not 100.
    let shrinking = all(4, &replica(20.0)).into_iter().chain([None]);
    assert_eq!(Case::new(json!([rate()]), shrinking).asked(), Some(2));
    // 9 x 105 and one unknown: neither more nor fewer.
    let level = all(9, &replica(105.0)).into_iter().chain([None]);
    assert_eq!(Case::new(json!([rate()]), level).asked(), Some(10));
}

#[test]
fn who_was_not_asked_is_like_the_others() {
    let mut case = Case::new(json!([rate()]), all(50, &replica(200.0)));
    (case.ready, case.current, case.load.population) = (100, 100, 100);
    assert_eq!(case.asked(), Some(200));
}

#[test]
fn who_has_just_come_brings_no_load_along() {
    // 2 replicas had 400 each; 6 more serve since, and were not asked yet.
    let mut case = Case::new(json!([rate()]), all(2, &replica(400.0)));
    (case.ready, case.current) = (8, 8);
    assert_eq!(case.asked(), Some(8));
    // They were asked after 1 s, or after a moment: times are cut off to seconds.
    let mut case = Case::new(
        json!([rate()]),
        all(2, &replica(400.0)).into_iter().chain(all(6, &replica(100.0))),
    );
    case.young = 6;
    assert_eq!(case.asked(), Some(8));
}

#[test]
fn the_delay_moves_in_small_steps() {
    let base = replica(90.0);
    for (bucket, replicas, ready, young, expected) in [
        (7, 40, 40, 0, 44), // 20 ms: a tenth more
        (7, 40, 39, 0, 40), // the last step does not serve yet
        (7, 40, 40, 4, 40), // the delays are from before it served
        (5, 40, 40, 0, 40), // 5 ms: between half the target and the target
        (1, 40, 40, 0, 36),
        (12, 1, 1, 0, 2),
    ] {
        let mut case = Case::new(
            json!([queue()]),
            all(replicas, &delayed(base.clone(), bucket, 100)),
        );
        (case.ready, case.young) = (ready, young);
        assert_eq!(
            case.asked(),
            Some(expected),
            "bucket {bucket}, {ready} of {replicas} ready, {young} young"
        );
    }
    // Without delays replicas go only if the others can take over.
    let mut busy = delayed(base, 0, 100);
    busy.busy_percent = Some(65.0);
    assert_eq!(Case::new(json!([queue()]), all(10, &busy)).asked(), Some(10));
}

#[test]
fn a_few_slow_requests_say_nothing() {
    let few = delayed(replica(1.0), 11, 3);
    assert_eq!(Case::new(json!([queue()]), all(1, &few)).asked(), Some(1));
}

#[test]
fn a_stuck_gpu_adds_nothing_by_itself() {
    let mut idle = replica(10.0);
    idle.gpu_percent = Some(100.0);
    assert_eq!(Case::new(json!([gpu()]), all(4, &idle)).asked(), Some(4));
    assert_eq!(Case::new(json!([gpu(), rate()]), all(4, &idle)).asked(), Some(4));
    // With a queue, with refused requests, or at the rate's target it is believed.
    let queueing = delayed(idle.clone(), 6, 100);
    assert_eq!(Case::new(json!([gpu()]), all(4, &queueing)).asked(), Some(8));
    let mut refusing = idle.clone();
    refusing.refused = [1.0; 2];
    assert_eq!(Case::new(json!([gpu()]), all(4, &refusing)).asked(), Some(8));
    idle.offered = [95.0; 2];
    assert_eq!(Case::new(json!([gpu(), rate()]), all(4, &idle)).asked(), Some(8));
}

#[test]
fn an_unread_metric_holds_and_is_named() {
    let mut blind = replica(10.0);
    blind.gpu_percent = None;
    let mut case = Case::new(json!([rate(), gpu()]), all(4, &blind));
    let decision = case.decide(at(10), None);
    assert_eq!(
        decision.recommendations,
        [("rate".into(), Some(1)), ("gpu".into(), None)]
    );
    assert_eq!(
        (decision.desired, decision.unavailable.as_deref()),
        (4, Some("gpu"))
    );
    // For ever: the window is over, and still nothing goes.
    case.spec.stabilization.scale_down = "0s".into();
    assert_eq!(case.decide(at(10), None).desired, 4);
}

#[test]
fn the_largest_metric_wins() {
    let busy = delayed(replica(90.0), 9, 100);
    let decision = Case::new(json!([rate(), queue()]), all(10, &busy)).decide(T0, None);
    assert_eq!(
        decision.recommendations,
        [("rate".into(), Some(10)), ("queue".into(), Some(11))]
    );
    assert_eq!(decision.desired, 11);
}

#[test]
fn bounds_are_kept_and_said() {
    let mut case = Case::new(json!([rate()]), all(2, &replica(500.0)));
    case.spec.max_replicas = 4;
    let decision = case.decide(T0, None);
    assert_eq!((decision.desired, decision.limited), (4, Limited::ByMaximum));
    case = Case::new(json!([rate()]), all(4, &replica(1.0)));
    (case.spec.min_replicas, case.spec.stabilization.scale_down) = (3, "0s".into());
    let decision = case.decide(T0, None);
    assert_eq!((decision.desired, decision.limited), (3, Limited::ByMinimum));
    // A raised minimum is followed at once, whatever the window says.
    case.spec.min_replicas = 9;
    assert_eq!(case.decide(T0, None).desired, 9);
}

#[test]
fn bad_answers_take_nothing_away() {
    let impossible: [fn(&mut ReplicaLoad); 6] = [
        |l| l.offered[0] = f64::NAN,
        |l| l.offered[1] = -1.0,
        |l| l.offered[0] = f64::INFINITY,
        |l| l.gpu_percent = Some(101.0),
        |l| l.busy_percent = Some(f64::NAN),
        |l| l.ready = false,
    ];
    for (index, spoil) in impossible.into_iter().enumerate() {
        let mut bad = replica(0.0);
        spoil(&mut bad);
        // Three of ten: fewer than 80 % can be believed.
        let answers = all(7, &replica(1.0)).into_iter().chain(all(3, &bad));
        let mut case = Case::new(json!([rate()]), answers);
        case.spec.stabilization.scale_down = "0s".into();
        let decision = case.decide(T0, None);
        let stale = Freshness::Stale {
            answered: 7,
            asked: 10,
        };
        assert_eq!((decision.desired, decision.fresh), (10, stale), "{index}");
    }
}

#[test]
fn old_answers_are_none() {
    let mut case = Case::new(json!([rate()]), all(4, &replica(1.0)));
    case.spec.stabilization.scale_down = "0s".into();
    assert_eq!(case.decide(at(15), None).desired, 1);
    let decision = case.decide(at(16), None);
    assert_eq!(
        (decision.desired, decision.fresh),
        (
            4,
            Freshness::Stale {
                answered: 0,
                asked: 4
            }
        )
    );
}

#[test]
fn with_little_known_replicas_may_still_be_added() {
    let answers = all(2, &replica(1000.0)).into_iter().chain([None, None]);
    let decision = Case::new(json!([rate()]), answers).decide(T0, None);
    assert_eq!(
        (decision.desired, decision.fresh),
        (
            20,
            Freshness::Stale {
                answered: 2,
                asked: 4
            }
        )
    );
}

fn any_load() -> impl Strategy<Value = Option<ReplicaLoad>> {
    let numbers = prop_oneof![
        4 => 0.0..500.0f64,
        1 => prop_oneof![Just(f64::NAN), Just(-1.0), Just(f64::INFINITY), Just(1e30)],
    ];
    let percent = prop_oneof![4 => (0.0..100.0f64).prop_map(Some), 1 => Just(None), 1 => Just(Some(250.0))];
    let counts = proptest::array::uniform13(0..1000u64);
    proptest::option::weighted(0.9, (numbers.clone(), numbers, percent, counts)).prop_map(|answer| {
        let (short, long, percent, counts) = answer?;
        Some(ReplicaLoad {
            ready: true,
            offered: [short, long],
            busy_percent: percent,
            gpu_percent: percent,
            queue_delay_counts: counts,
            ..ReplicaLoad::default()
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_answers_keep_the_bounds_and_stale_ones_shrink_nothing(
        answers in proptest::collection::vec(any_load(), 0..12),
        current in 1..40u32,
        age in 0..30i64,
    ) {
        let mut case = Case::new(json!([rate(), queue(), gpu()]), answers);
        case.current = current;
        (case.spec.min_replicas, case.spec.max_replicas) = (2, 30);
        case.spec.stabilization.scale_down = "0s".into();
        let decision = case.decide(at(age), None);
        prop_assert!((2..=30).contains(&decision.desired));
        if decision.fresh != Freshness::Fresh || decision.unavailable.is_some() {
            prop_assert!(decision.desired >= current.clamp(2, 30));
        }
    }

    #[test]
    fn more_load_never_asks_for_fewer(
        rates in proptest::collection::vec(0.0..400.0f64, 1..12),
        more in 1.0..3.0f64,
    ) {
        let asked = |factor: f64| {
            let loads = rates.iter().map(|rate| Some(replica(rate * factor)));
            Case::new(json!([rate()]), loads).asked().unwrap()
        };
        prop_assert!(asked(1.0) <= asked(more));
    }

    #[test]
    fn what_was_followed_is_a_fixpoint(each in 1.0..400.0f64, replicas in 1..20usize) {
        let total = each * replicas as f64;
        let first = Case::new(json!([rate()]), all(replicas, &replica(each))).asked().unwrap().max(1);
        let settled = Case::new(json!([rate()]), all(first as usize, &replica(total / f64::from(first))));
        let again = settled.asked().unwrap().max(1);
        // Rounding up may leave one replica that the tolerance does not give back.
        prop_assert!(again == first, "{replicas} -> {first} -> {again}");
    }
}
