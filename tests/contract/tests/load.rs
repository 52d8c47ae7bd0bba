//! `/load`: the runtime's own answer, read by the operator.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use inference_runtime::load::{Load, QUEUE_DELAYS, State};
use planner::observed::{QUEUE_DELAY_BOUNDS_MS, ReplicaLoad};

const READY: State = State {
    ready: true,
    draining: false,
    in_flight: 1,
    gpus: None,
};

fn read(load: &Load, state: &State, now: Instant) -> ReplicaLoad {
    let answer = serde_json::to_vec(&load.report(state, now)).unwrap();
    operator::load::parse(&answer).unwrap()
}

#[test]
fn what_the_runtime_counts_is_what_the_operator_reads() {
    let begun = Instant::now();
    let load = Load::new("r1", begun);
    load.model_ready(begun);
    for _ in 0..30 {
        load.offered();
    }
    for _ in 0..6 {
        load.refused();
    }
    for _ in 0..24 {
        load.queued(Duration::from_millis(3));
        load.answered(Duration::from_millis(5));
    }
    load.queued(Duration::from_secs(2));
    let now = begun + Duration::from_secs(6);
    load.advance(now);
    let read = read(&load, &READY, now);
    assert!(read.ready);
    assert_eq!(
        (read.offered[0], read.refused[0], read.answered[0]),
        (5.0, 1.0, 4.0)
    );
    let bucket = QUEUE_DELAY_BOUNDS_MS
        .iter()
        .position(|bound| *bound >= 3.0)
        .unwrap();
    assert_eq!(
        (read.queue_delay_counts[bucket], read.queue_delay_counts[12]),
        (24, 1)
    );
    // Without an engine and without NVML: unknown, not 0.
    assert_eq!((read.busy_percent, read.gpu_percent), (None, None));
}

#[test]
fn both_have_the_same_buckets() {
    assert_eq!(QUEUE_DELAYS, QUEUE_DELAY_BOUNDS_MS.len() + 1);
    for (index, bound) in QUEUE_DELAY_BOUNDS_MS.iter().enumerate() {
        let begun = Instant::now();
        let load = Load::new("", begun);
        load.queued(Duration::from_secs_f64(bound / 1000.0));
        let now = begun + Duration::from_secs(1);
        load.advance(now);
        let counts = read(&load, &READY, now).queue_delay_counts;
        assert_eq!(
            counts.iter().position(|count| *count == 1),
            Some(index),
            "{bound} ms: {counts:?}"
        );
    }
}

#[test]
fn one_that_drains_takes_no_requests() {
    let now = Instant::now();
    let load = Load::new("", now);
    let draining = State {
        draining: true,
        ..READY
    };
    assert!(!read(&load, &draining, now).ready);
    let loading = State {
        ready: false,
        ..READY
    };
    assert!(!read(&load, &loading, now).ready);
}
