//! What came back, and the report of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::connection::{Kind, Outcome};

/// Counts outcomes; what ends before the window opens or after it closes is only in the totals.
pub struct Record {
    opens: Instant,
    closes: Instant,
    answered: Vec<Duration>,
    refused: Vec<Duration>,
    /// Answers that came within the window.
    answered_in_window: u64,
    pairs_in_window: u64,
    lateness: Vec<Duration>,
    total: Totals,
    statuses: BTreeMap<String, u64>,
    first_failure: Option<String>,
}

/// From the first request to the last answer: what the server's CPU time is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    pub sent: u64,
    pub answered: u64,
    pub pairs: u64,
    pub refused: u64,
    pub failed: u64,
    /// Sent or due, and without an answer when the waiting ended.
    pub unanswered: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub mode: &'static str,
    pub window_seconds: f64,
    pub answered_per_second: f64,
    pub pairs_per_second: f64,
    /// Of answers; in an open loop from the time that a request was due, and of unanswered ones the time waited.
    pub latency: Option<Latency>,
    pub refused_latency: Option<Latency>,
    /// By how much requests left the arrivals' clock too late: what the client itself adds.
    pub lateness: Option<Latency>,
    pub total: Totals,
    /// HTTP or gRPC statuses, `none` where there was no answer.
    pub statuses: BTreeMap<String, u64>,
    pub first_failure: Option<String>,
    pub client_cpu_seconds: f64,
    pub elapsed_seconds: f64,
}

/// Milliseconds by nearest rank.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    pub count: usize,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

impl Record {
    pub fn new(opens: Instant, closes: Instant) -> Self {
        Self {
            opens,
            closes,
            answered: Vec::new(),
            refused: Vec::new(),
            answered_in_window: 0,
            pairs_in_window: 0,
            lateness: Vec::new(),
            total: Totals::default(),
            statuses: BTreeMap::new(),
            first_failure: None,
        }
    }

    pub fn sent(&mut self) {
        self.total.sent += 1;
    }

    /// A request left this much after it was due.
    pub fn late(&mut self, lateness: Duration) {
        self.lateness.push(lateness);
    }

    /// `started` is when the request was sent (closed loop) or due (open loop).
    pub fn ended(&mut self, started: Instant, now: Instant, pairs: u64, outcome: Outcome) {
        let status = outcome
            .status
            .map_or_else(|| "none".to_owned(), |status| status.to_string());
        *self.statuses.entry(status).or_default() += 1;
        let counts = self.counts(started);
        let latency = now.saturating_duration_since(started);
        match outcome.kind {
            Kind::Answered => {
                self.total.answered += 1;
                self.total.pairs += pairs;
                if self.opens <= now && now < self.closes {
                    self.answered_in_window += 1;
                    self.pairs_in_window += pairs;
                }
                if counts {
                    self.answered.push(latency);
                }
            }
            Kind::Refused => {
                self.total.refused += 1;
                if counts {
                    self.refused.push(latency);
                }
            }
            Kind::Failed => {
                self.total.failed += 1;
                self.first_failure = self.first_failure.take().or(outcome.failure);
            }
        }
    }

    /// No answer came: the time waited so far stands for its latency, else the slowest would be left out.
    pub fn unanswered(&mut self, started: Instant, now: Instant) {
        self.total.unanswered += 1;
        if self.counts(started) {
            self.answered.push(now.saturating_duration_since(started));
        }
    }

    fn counts(&self, started: Instant) -> bool {
        self.opens <= started && started < self.closes
    }

    pub fn report(self, mode: &'static str, client_cpu: Duration, elapsed: Duration) -> Report {
        let window = self.closes.saturating_duration_since(self.opens).as_secs_f64();
        Report {
            mode,
            window_seconds: window,
            answered_per_second: self.answered_in_window as f64 / window,
            pairs_per_second: self.pairs_in_window as f64 / window,
            latency: Latency::of(self.answered),
            refused_latency: Latency::of(self.refused),
            lateness: Latency::of(self.lateness),
            total: self.total,
            statuses: self.statuses,
            first_failure: self.first_failure,
            client_cpu_seconds: client_cpu.as_secs_f64(),
            elapsed_seconds: elapsed.as_secs_f64(),
        }
    }
}

impl Latency {
    pub fn of(mut all: Vec<Duration>) -> Option<Self> {
        all.sort_unstable();
        let max = *all.last()?;
        let ms = |latency: Duration| latency.as_secs_f64() * 1000.0;
        let quantile = |share: f64| {
            let rank = (all.len() as f64 * share).ceil() as usize;
            ms(all[rank.clamp(1, all.len()) - 1])
        };
        Some(Self {
            count: all.len(),
            mean_ms: all.iter().copied().map(ms).sum::<f64>() / all.len() as f64,
            p50_ms: quantile(0.5),
            p90_ms: quantile(0.9),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            max_ms: ms(max),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn answered() -> Outcome {
        Outcome {
            status: Some(200),
            kind: Kind::Answered,
            failure: None,
        }
    }

    #[test]
    fn quantiles_by_nearest_rank() {
        let latency = Latency::of((1..=100).rev().map(|i| MS * i).collect()).unwrap();
        assert_eq!(
            (latency.p50_ms, latency.p99_ms, latency.p999_ms, latency.max_ms),
            (50.0, 99.0, 100.0, 100.0)
        );
        assert_eq!(Latency::of(vec![MS]).unwrap().p50_ms, 1.0);
        assert_eq!(Latency::of(vec![]), None);
    }

    #[test]
    fn the_warm_up_is_in_the_totals_only() {
        let start = Instant::now();
        let mut record = Record::new(start + MS * 100, start + MS * 200);
        record.ended(start + MS * 50, start + MS * 60, 64, answered());
        record.ended(start + MS * 150, start + MS * 170, 64, answered());
        // Sent within, answered after: in the latencies, not in the rate.
        record.ended(start + MS * 190, start + MS * 230, 64, answered());
        let report = record.report("closed", MS, MS * 230);
        assert_eq!((report.total.answered, report.total.pairs), (3, 192));
        assert!((report.pairs_per_second - 640.0).abs() < 1e-9);
        let latency = report.latency.unwrap();
        assert_eq!((latency.count, latency.p50_ms, latency.max_ms), (2, 20.0, 40.0));
    }

    #[test]
    fn what_was_never_answered_counts_with_the_time_waited() {
        let start = Instant::now();
        let mut record = Record::new(start, start + MS * 100);
        record.ended(start, start + MS, 1, answered());
        record.unanswered(start + MS * 10, start + MS * 5010);
        record.ended(start, start + MS, 1, Outcome::broken("gone"));
        let report = record.report("open", MS, MS);
        assert_eq!((report.total.unanswered, report.total.failed), (1, 1));
        assert_eq!(report.latency.unwrap().max_ms, 5000.0);
        assert_eq!(report.first_failure.as_deref(), Some("gone"));
        assert_eq!(report.statuses.get("none"), Some(&1));
    }
}
