//! What the model did since it was loaded, in the terms of the protocol's statistics extension.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often, and how long together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    pub count: u64,
    pub ns: u64,
}

impl Total {
    fn add(&mut self, count: u64, each: Duration) {
        self.count += count;
        let ns = u64::try_from(each.as_nanos()).unwrap_or(u64::MAX);
        self.ns = self.ns.saturating_add(ns.saturating_mul(count));
    }
}

/// Times of one run: joining the inputs, the engine, cutting the outputs apart.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phases {
    pub input: Duration,
    pub infer: Duration,
    pub output: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhaseTotals {
    pub input: Total,
    pub infer: Total,
    pub output: Total,
}

impl PhaseTotals {
    fn add(&mut self, count: u64, phases: Phases) {
        self.input.add(count, phases.input);
        self.infer.add(count, phases.infer);
        self.output.add(count, phases.output);
    }
}

#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Milliseconds since 1970, of the last run; 0 before the first.
    pub last_inference_ms: u64,
    /// Rows that the engines scored.
    pub rows: u64,
    pub runs: u64,
    /// Requests answered, from the first byte here to the answer made; and those that were not.
    pub success: Total,
    pub fail: Total,
    /// By request: a run that three requests shared counts for each.
    pub queue: Total,
    pub phases: PhaseTotals,
    /// By run: its rows, and its times. As many entries as there are sizes, at most `maxBatchSize`.
    pub by_rows: BTreeMap<usize, PhaseTotals>,
}

/// Counted under a lock that is held for some additions, so that a snapshot fits together.
#[derive(Debug, Default)]
pub struct Statistics {
    counts: Mutex<Counts>,
}

impl Statistics {
    /// A run of `rows` rows for requests that waited for `waits`.
    pub fn ran(&self, rows: usize, waits: impl Iterator<Item = Duration>, phases: Phases) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut counts = self.lock();
        counts.last_inference_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        counts.rows += rows as u64;
        counts.runs += 1;
        let mut requests = 0;
        for waited in waits {
            counts.queue.add(1, waited);
            requests += 1;
        }
        counts.phases.add(requests, phases);
        counts.by_rows.entry(rows).or_default().add(1, phases);
    }

    /// A request that was answered, well or not, `took` after it began.
    pub fn answered(&self, success: bool, took: Duration) {
        let mut counts = self.lock();
        let total = if success {
            &mut counts.success
        } else {
            &mut counts.fail
        };
        total.add(1, took);
    }

    pub fn snapshot(&self) -> Counts {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_runs_are_counted_apart() {
        let statistics = Statistics::default();
        let ms = Duration::from_millis;
        let phases = Phases {
            input: ms(1),
            infer: ms(10),
            output: ms(2),
        };
        statistics.ran(5, [ms(3), ms(4)].into_iter(), phases);
        statistics.ran(5, [ms(1)].into_iter(), phases);
        statistics.answered(true, ms(20));
        statistics.answered(false, ms(7));
        let counts = statistics.snapshot();
        let total = |count, ms: u64| Total {
            count,
            ns: ms * 1_000_000,
        };
        assert_eq!((counts.rows, counts.runs), (10, 2));
        assert_eq!(counts.queue, total(3, 8));
        assert_eq!(counts.phases.infer, total(3, 30));
        assert_eq!(counts.by_rows[&5].infer, total(2, 20));
        assert_eq!(counts.by_rows[&5].output, total(2, 4));
        assert_eq!((counts.success, counts.fail), (total(1, 20), total(1, 7)));
        assert!(counts.last_inference_ms > 0);
    }
}
