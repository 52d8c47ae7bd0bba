//! What the replicas of a model say together: cleaned, and extended to those that were not asked.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Freshness, Situation};
use crate::observed::{QUEUE_DELAY_BOUNDS_MS, ReplicaLoad};

/// Fewer fresh answers than this shrink nothing (reliability invariant I5).
const FRESH_PERCENT: usize = 80;
/// No replica of ours answers more requests a second: a larger rate is a fault.
const IMPOSSIBLE_RATE: f64 = 1e7;

/// A value summed over all replicas: what is known at least and, with those that did not answer counted as busy, at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Total {
    pub low: f64,
    pub high: f64,
}

/// Windows of the rates that replicas tell, in seconds; the delays are of the first.
pub const WINDOWS: [f64; 2] = [6.0, 60.0];

/// Kubernetes tells times in whole seconds, cut off.
const CLOCK_SECONDS: f64 = 1.0;

#[derive(Debug)]
pub struct Load<'a> {
    /// What a replica says, and how many seconds it has been serving.
    answers: Vec<(&'a ReplicaLoad, f64)>,
    /// Serving replicas that the answers stand for.
    population: u32,
    /// Serving replicas that were asked.
    asked: usize,
    /// Serving replicas.
    pub ready: u32,
    /// How long the replica that was ready last has been serving.
    pub youngest_seconds: f64,
    /// Replicas that are asked for.
    pub current: u32,
}

impl<'a> Load<'a> {
    /// Keeps the answers of pods that serve, that are young and that can be true.
    #[must_use]
    pub fn of(situation: &Situation<'a>) -> Self {
        let ready: BTreeMap<&str, Timestamp> = situation.ready.iter().copied().collect();
        let samples = situation.load.iter().flat_map(|load| &load.samples);
        let asked: Vec<_> = samples
            .filter_map(|s| Some((s, *ready.get(s.pod.as_str())?)))
            .collect();
        let oldest = situation.now - situation.max_age;
        let young = asked.iter().filter(|(s, _)| s.read_at >= oldest);
        let answers = young.filter_map(|(s, since)| {
            let load = s.load.as_ref().filter(|load| is_possible(load))?;
            Some((load, s.read_at.duration_since(*since).as_secs_f64().max(0.0)))
        });
        let serving = u32::try_from(situation.ready.len()).unwrap_or(u32::MAX);
        let youngest = situation.ready.iter().map(|(_, since)| *since).max();
        let served = |since| situation.now.duration_since(since).as_secs_f64().max(0.0);
        Self {
            answers: answers.collect(),
            population: situation.load.map_or(0, |load| load.population.min(serving)),
            asked: asked.len(),
            ready: serving,
            youngest_seconds: youngest.map_or(0.0, served),
            current: situation.current,
        }
    }

    #[must_use]
    pub fn freshness(&self) -> Freshness {
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        if self.ready == 0 {
            Freshness::NobodyReady
        } else if self.asked == 0 {
            Freshness::Unasked
        } else if self.answers.len() * 100 >= self.asked * FRESH_PERCENT {
            Freshness::Fresh
        } else {
            Freshness::Stale {
                answered: small(self.answers.len()),
                asked: small(self.asked),
            }
        }
    }

    /// Sum of a value over all serving replicas. Who was not asked though it served is like the mean of those who answered;
    /// who did not answer, or began to serve since, is idle in `low`, and has `busy` in `high`. `None` when no answer has
    /// the value, or too few have.
    #[must_use]
    pub fn total(&self, value: impl Fn(&ReplicaLoad) -> Option<f64>, busy: f64) -> Option<Total> {
        self.sum(|(load, _)| value(load), busy)
    }

    fn sum(&self, value: impl Fn((&ReplicaLoad, f64)) -> Option<f64>, busy: f64) -> Option<Total> {
        let values: Vec<f64> = self.answers.iter().filter_map(|answer| value(*answer)).collect();
        if values.is_empty() || values.len() * 100 < self.answers.len() * FRESH_PERCENT {
            return None;
        }
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let missing = self.asked.saturating_sub(values.len()) as f64;
        let low = mean * (f64::from(self.population) - missing).max(0.0);
        let newcomers = f64::from(self.ready.saturating_sub(self.population));
        Some(Total {
            low,
            high: low + (missing + newcomers) * busy,
        })
    }

    /// Requests a second over 6 s, and over the longer of 6 s and 60 s: a rise is seen at once, a fall when it lasts.
    ///
    /// A replica tells its rate since it serves; of a window that began before that it had only its part. Otherwise what
    /// the old ones got before the new ones came would count twice. Since when it serves is known to a second.
    #[must_use]
    pub fn offered(&self, busy: f64) -> Option<Total> {
        let part = |load: &ReplicaLoad, serving: f64, i: usize| {
            load.offered[i] * (serving / WINDOWS[i]).clamp(0.0, 1.0)
        };
        let rising = self.sum(
            |(load, serving)| Some(part(load, serving - CLOCK_SECONDS, 0)),
            busy,
        )?;
        let short = self.sum(|(load, serving)| Some(part(load, serving, 0)), busy)?;
        let long = self.sum(|(load, serving)| Some(part(load, serving, 1)), busy)?;
        Some(Total {
            low: rising.low,
            high: short.high.max(long.high),
        })
    }

    /// Anybody has said anything that counts.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !self.answers.is_empty()
    }

    #[must_use]
    pub fn refuses(&self) -> bool {
        self.answers.iter().any(|(load, _)| load.refused[0] > 0.0)
    }

    /// Requests that the delays are from.
    #[must_use]
    pub fn delays(&self) -> u64 {
        self.merged().iter().sum()
    }

    /// 95th percentile of the queue delay over all answers of the last 6 s, in ms, linear within its bucket. `None`
    /// without requests.
    #[must_use]
    pub fn queue_delay_p95_ms(&self) -> Option<f64> {
        let counts = self.merged();
        let all: u64 = counts.iter().sum();
        let rank = all as f64 * 0.95;
        let (mut below, mut lower) = (0u64, 0.0);
        for (index, count) in counts.iter().enumerate() {
            // The last bucket has no upper bound: twice the lower one stands for "far above".
            let upper = QUEUE_DELAY_BOUNDS_MS.get(index).copied().unwrap_or(lower * 2.0);
            if *count > 0 && (below + count) as f64 >= rank {
                let share = (rank - below as f64) / *count as f64;
                return Some(lower + (upper - lower) * share);
            }
            below += count;
            lower = upper;
        }
        None
    }

    fn merged(&self) -> [u64; 13] {
        let mut counts = [0u64; 13];
        for (load, _) in &self.answers {
            for (sum, count) in counts.iter_mut().zip(load.queue_delay_counts) {
                *sum = sum.saturating_add(count);
            }
        }
        counts
    }

    /// Mean share of the engines' time that is used, in percent.
    #[must_use]
    pub fn busy_percent(&self) -> Option<f64> {
        let total = self.total(|load| load.busy_percent, 100.0)?;
        Some(total.high / f64::from(self.ready.max(1)))
    }
}

fn is_possible(load: &ReplicaLoad) -> bool {
    let rates = load.offered.iter().chain(&load.refused).chain(&load.answered);
    let percents = [load.busy_percent, load.gpu_percent];
    let mut percents = percents.iter().flatten();
    load.ready
        && rates
            .into_iter()
            .all(|rate| (0.0..IMPOSSIBLE_RATE).contains(rate))
        && percents.all(|percent| (0.0..=100.0).contains(percent))
}
