//! Windows on an injected clock, and the size of the answer.

use std::collections::BTreeMap;

use super::*;
use crate::nvml::{Gpu, Memory, Reading, Sample, Taken, Throttle};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A process and its clock.
struct Process {
    load: Load,
    now: Instant,
}

impl Process {
    fn new() -> Self {
        let now = Instant::now();
        let load = Load::new("r1", now);
        Self { load, now }
    }

    fn tick(&mut self) {
        self.now += TICK;
        self.load.advance(self.now);
    }

    /// Seconds with so many requests each, the first `refused` of them refused.
    fn seconds(&mut self, seconds: usize, offered: u64, refused: u64) {
        for _ in 0..seconds {
            for request in 0..offered {
                self.load.offered();
                if request < refused {
                    self.load.refused();
                } else {
                    self.load.answered(ms(4));
                }
            }
            self.tick();
        }
    }

    fn report(&self) -> serde_json::Value {
        let state = State {
            ready: true,
            draining: false,
            in_flight: 3,
            gpus: None,
        };
        serde_json::to_value(self.load.report(&state, self.now)).unwrap()
    }

    fn rates(&self) -> serde_json::Value {
        self.report()["requestsPerSecond"].clone()
    }
}

#[test]
fn refused_requests_are_offered_too() {
    let mut process = Process::new();
    process.seconds(10, 100, 20);
    let expected =
        serde_json::json!({"offered": [100.0, 100.0], "refused": [20.0, 20.0], "answered": [80.0, 80.0]});
    assert_eq!(process.rates(), expected);
}

#[test]
fn windows_slide_each_second() {
    let mut process = Process::new();
    process.seconds(60, 10, 0);
    process.seconds(3, 40, 0);
    // 3 of 6 seconds, 3 of 60.
    assert_eq!(process.rates()["offered"], serde_json::json!([25.0, 11.5]));
    process.seconds(1, 40, 0);
    assert_eq!(process.rates()["offered"], serde_json::json!([30.0, 12.0]));
    process.seconds(6, 0, 0);
    assert_eq!(process.rates()["offered"][0], 0.0);
    process.seconds(60, 0, 0);
    assert_eq!(process.rates()["offered"], serde_json::json!([0.0, 0.0]));
}

#[test]
fn one_request_a_minute_is_not_none() {
    let mut process = Process::new();
    process.seconds(70, 0, 0);
    process.seconds(1, 1, 0);
    assert_eq!(process.rates()["offered"], serde_json::json!([0.167, 0.017]));
}

#[test]
fn a_window_is_no_longer_than_the_model_is_ready() {
    let mut process = Process::new();
    process.seconds(20, 500, 500);
    process.load.model_ready(process.now);
    assert_eq!(process.rates()["offered"], serde_json::json!([0.0, 0.0]));
    // In the first second a request counts for a whole second.
    process.now += ms(10);
    process.load.offered();
    assert_eq!(process.rates()["offered"], serde_json::json!([1.0, 1.0]));
    process.now += ms(990);
    process.load.advance(process.now);
    process.seconds(9, 1, 0);
    assert_eq!(process.rates()["offered"], serde_json::json!([1.0, 1.0]));
    assert_eq!(process.rates()["refused"], serde_json::json!([0.0, 0.0]));
}

#[test]
fn late_ticks_do_not_bend_rates() {
    let mut process = Process::new();
    for _ in 0..4 {
        for _ in 0..250 {
            process.load.offered();
        }
        process.now += ms(2500);
        process.load.advance(process.now);
    }
    assert_eq!(process.rates()["offered"], serde_json::json!([100.0, 100.0]));
}

#[test]
fn queue_delays_have_inclusive_bounds() {
    let mut process = Process::new();
    for micros in [0, 100, 101, 200, 500_000, 500_001, 10_000_000] {
        process.load.queued(Duration::from_micros(micros));
    }
    process.tick();
    let expected = serde_json::json!([2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(process.report()["queueDelayCounts"], expected);
    process.seconds(6, 0, 0);
    assert_eq!(
        process.report()["queueDelayCounts"],
        serde_json::json!(vec![0; 13])
    );
}

#[test]
fn p99_of_the_last_seconds_and_absent_without_answers() {
    let mut process = Process::new();
    process.tick();
    assert!(process.report().get("latencyP99Ms").is_none());
    for _ in 0..98 {
        process.load.answered(ms(4));
    }
    process.load.answered(ms(50));
    process.load.answered(ms(50));
    process.tick();
    let p99 = process.report()["latencyP99Ms"].as_f64().unwrap();
    assert!((p99 - 50.0).abs() < 1.6, "{p99}");
    process.seconds(6, 0, 0);
    assert!(process.report().get("latencyP99Ms").is_none());
}

#[test]
fn busy_is_a_share_of_all_engines_and_counts_a_run_under_way() {
    let mut process = Process::new();
    assert!(process.report().get("busyPercent").is_none());
    let engines = [process.load.engine(), process.load.engine()];
    process.load.model_ready(process.now);
    engines[0].begin(process.now);
    process.seconds(3, 0, 0);
    assert_eq!(process.report()["busyPercent"], 50.0);
    engines[0].end(process.now);
    process.seconds(3, 0, 0);
    assert_eq!(process.report()["busyPercent"], 25.0);
    process.seconds(6, 0, 0);
    assert_eq!(process.report()["busyPercent"], 0.0);
    // A run that never ends is not idleness.
    engines[0].begin(process.now);
    engines[1].begin(process.now);
    process.seconds(100, 0, 0);
    assert_eq!(process.report()["busyPercent"], 100.0);
}

#[test]
fn an_engine_on_other_threads_uses_the_time_of_engine_threads() {
    let mut process = Process::new();
    let _own = [process.load.engine(), process.load.engine()];
    let borrowed = process.load.borrowed_engine();
    process.load.model_ready(process.now);
    borrowed.begin(process.now);
    process.seconds(6, 0, 0);
    assert_eq!(process.report()["busyPercent"], 50.0);
}

#[test]
fn threads_that_read_requests_all_the_time_are_busy() {
    let mut process = Process::new();
    let _engine = process.load.engine();
    for (busy_ms, percent) in [(2 * 400, 0.0), (2 * 900, 90.0), (2 * 2000, 100.0)] {
        process.load.reading(ms(0), 2);
        process.load.model_ready(process.now);
        for second in 1..=6 {
            process.load.reading(ms(busy_ms * second), 2);
            process.seconds(1, 0, 0);
        }
        assert_eq!(process.report()["busyPercent"], percent);
    }
}

#[test]
fn the_answer_of_a_fresh_process() {
    let process = Process::new();
    let mut answer = process.report();
    let boot_id = answer["bootId"].take();
    assert_eq!(boot_id.as_str().map(str::len), Some(16));
    assert_ne!(boot_id, Process::new().report()["bootId"]);
    let expected = serde_json::json!({
        "version": 1, "bootId": null, "revision": "r1", "uptimeSeconds": 0.0, "ready": true, "draining": false,
        "requestsPerSecond": {"offered": [0.0, 0.0], "refused": [0.0, 0.0], "answered": [0.0, 0.0]},
        "inFlight": 3, "queueDelayCounts": vec![0; 13],
    });
    assert_eq!(answer, expected);
}

fn full() -> Reading {
    Reading {
        name: Some("simulated".into()),
        utilization_percent: Some(100),
        memory: Some(Memory {
            used: (9_999_999 << 20) | 1,
            total: 9_999_999 << 20,
        }),
        power_milliwatts: Some(999_999),
        power_limit_milliwatts: Some(999_999),
        temperature_celsius: Some(110),
        throttled: Some(Throttle::ALL.to_vec()),
        mig: Some(true),
        ..Reading::default()
    }
}

#[test]
fn the_longest_answer_is_under_a_kilobyte() {
    let mut process = Process::new();
    process.load = Load::new(&"r".repeat(63), process.now);
    let engine = process.load.engine();
    // Three years without an answer of the driver, and counters as high as they go.
    process.now += Duration::from_secs(99_999_999);
    process.load.model_ready(process.now);
    engine.begin(process.now);
    process.now += ms(333);
    engine.end(process.now);
    process.now += ms(666);
    for counter in [
        &process.load.offered,
        &process.load.refused,
        &process.load.answered,
    ] {
        counter.store(u64::MAX, Ordering::Relaxed);
    }
    for bucket in &process.load.queue_delays {
        bucket.store(u64::MAX, Ordering::Relaxed);
    }
    process.load.latency.observe(Duration::MAX);
    let mut gpus = vec![Gpu::Seen(full()); 16];
    gpus.extend(vec![Gpu::Lost; 16]);
    let xid = Some(
        (900..999)
            .map(|code| (code, u32::MAX))
            .collect::<BTreeMap<u16, u32>>(),
    );
    let taken = Taken {
        at: process.now - Duration::from_secs(99_999_999),
        sample: Sample { gpus, xid },
    };
    let state = State {
        ready: false,
        draining: false,
        in_flight: usize::MAX,
        gpus: Some(&taken),
    };
    let text = serde_json::to_string(&process.load.report(&state, process.now)).unwrap();
    assert!(text.len() < 1024, "{} bytes: {text}", text.len());
    for field in [
        "latencyP99Ms",
        "busyPercent",
        "\"xid\":{\"900\"",
        "powerLimitWatts",
    ] {
        assert!(text.contains(field), "{field} is not in {text}");
    }
}
