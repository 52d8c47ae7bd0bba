//! `/load` version 1: JSON under 1 KB. Absent means unknown; nothing unknown is ever 0.

use std::time::Instant;

use serde::Serialize;

use super::history::Span;
use super::{Details, Load, Rates};
use crate::nvml::{Summary, Taken};

pub const QUEUE_DELAYS: usize = 13;

/// Bounds of what numbers may take of the 1 KB. No process gets near any of them.
const MAX_RATE: f64 = 99_999_999.0;
const MAX_COUNT: u64 = 99_999_999;

/// What the process knows besides the counters.
#[derive(Debug)]
pub struct State<'a> {
    pub ready: bool,
    pub draining: bool,
    /// Admitted and not answered.
    pub in_flight: usize,
    pub gpus: Option<&'a Taken>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    version: u32,
    boot_id: String,
    revision: String,
    uptime_seconds: f64,
    ready: bool,
    draining: bool,
    requests_per_second: RequestsPerSecond,
    in_flight: u64,
    queue_delay_counts: [u64; QUEUE_DELAYS],
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_p99_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    busy_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu: Option<Gpu>,
}

/// Over the short and the long window.
#[derive(Debug, Serialize)]
struct RequestsPerSecond {
    offered: [f64; 2],
    refused: [f64; 2],
    answered: [f64; 2],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Gpu {
    age_seconds: f64,
    stale: bool,
    #[serde(flatten)]
    summary: Summary,
}

pub fn report(
    load: &Load,
    windows: [&Span<Rates>; 2],
    details: &Span<Details>,
    state: &State<'_>,
    now: Instant,
) -> Report {
    let rates = |count: fn(&Rates) -> u64| {
        windows.map(|window| {
            let counted = count(&window.end).saturating_sub(count(&window.begin));
            round(counted as f64 / window.seconds, 3).min(MAX_RATE)
        })
    };
    Report {
        version: 1,
        boot_id: load.boot_id.clone(),
        revision: super::lock(&load.revision).clone(),
        uptime_seconds: round(now.saturating_duration_since(load.started).as_secs_f64(), 1),
        ready: state.ready,
        draining: state.draining,
        requests_per_second: RequestsPerSecond {
            offered: rates(|rates| rates.offered),
            refused: rates(|rates| rates.refused),
            answered: rates(|rates| rates.answered),
        },
        in_flight: (state.in_flight as u64).min(MAX_COUNT),
        queue_delay_counts: details.queue_delays().map(|count| count.min(MAX_COUNT)),
        latency_p99_ms: details.p99().map(|p99| round(p99.as_secs_f64() * 1000.0, 3)),
        busy_percent: details.busy_percent(load.threads()).map(|busy| round(busy, 1)),
        gpu: state.gpus.map(|taken| Gpu {
            age_seconds: round(taken.age(now).as_secs_f64(), 1),
            stale: taken.is_stale(now),
            summary: taken.sample.summary(),
        }),
    }
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}
