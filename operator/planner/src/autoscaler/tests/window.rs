//! Decisions one after the other.

use super::*;

/// Answers as they would be read at `seconds`, with a total of `rate`.
fn step(case: &mut Case, memory: &mut Option<Memory>, seconds: i64, rate: f64) -> u32 {
    let load = replica(rate / f64::from(case.current));
    let fresh = Case::new(json!([self::rate()]), all(case.current as usize, &load));
    (case.load, case.ready) = (fresh.load, fresh.ready);
    for sample in &mut case.load.samples {
        sample.read_at = at(seconds);
    }
    let decision = case.decide(at(seconds), memory.as_ref());
    *memory = Some(decision.memory);
    case.current = decision.desired;
    case.current
}

#[test]
fn down_only_after_the_window_and_to_its_highest() {
    let mut case = Case::new(json!([rate()]), all(10, &replica(100.0)));
    let mut memory = None;
    let timeline = [
        (0, 1000.0, 10),
        (10, 200.0, 10),
        (60, 600.0, 10),
        (70, 200.0, 10),
        (299, 200.0, 10),
        (300, 200.0, 6), // what was asked for at 0 s has left the window; the peak at 60 s has not
        (359, 200.0, 6),
        (360, 200.0, 2),
        (362, 900.0, 9),
    ];
    for (seconds, rate, expected) in timeline {
        assert_eq!(
            step(&mut case, &mut memory, seconds, rate),
            expected,
            "at {seconds} s"
        );
    }
}

#[test]
fn a_restart_waits_for_a_whole_window() {
    let mut case = Case::new(json!([rate()]), all(10, &replica(100.0)));
    let mut memory = None;
    step(&mut case, &mut memory, 0, 100.0);
    assert_eq!(step(&mut case, &mut memory, 299, 100.0), 10);
    memory = None;
    assert_eq!(step(&mut case, &mut memory, 305, 100.0), 10);
    assert_eq!(step(&mut case, &mut memory, 604, 100.0), 10);
    assert_eq!(step(&mut case, &mut memory, 605, 100.0), 1);
}

#[test]
fn up_only_when_all_of_the_window_asks_for_it() {
    let mut case = Case::new(json!([rate()]), all(2, &replica(100.0)));
    case.spec.stabilization.scale_up = "30s".into();
    let mut memory = None;
    for (seconds, rate, expected) in [(0, 200.0, 2), (10, 600.0, 2), (20, 900.0, 2), (41, 700.0, 7)] {
        assert_eq!(
            step(&mut case, &mut memory, seconds, rate),
            expected,
            "at {seconds} s"
        );
    }
}

#[test]
fn noise_of_five_percent_changes_nothing() {
    for base in [95.0, 100.0, 104.0, 150.0, 195.0] {
        let mut case = Case::new(json!([rate()]), all(3, &replica(base)));
        let (mut memory, mut seen) = (None, vec![]);
        for tick in 0..400 {
            // A fixed sequence that visits the whole band.
            let noise = 1.0 + 0.05 * (f64::from(tick) * 2.399).sin();
            seen.push(step(
                &mut case,
                &mut memory,
                i64::from(tick) * 5,
                base * 3.0 * noise,
            ));
        }
        let changes = seen.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(changes <= 1, "{changes} changes at {base} a replica: {seen:?}");
    }
}

#[test]
fn the_window_says_when_to_look_again() {
    let case = Case::new(json!([rate()]), all(4, &replica(10.0)));
    let decision = case.decide(at(10), None);
    assert_eq!(decision.next_check, Some(at(310)));
    let level = Case::new(json!([rate()]), all(4, &replica(100.0)));
    assert_eq!(level.decide(at(10), None).next_check, None);
}
