//! Latencies in logarithmic buckets: 16 an octave, so that a quantile is right to about 3 %.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of an octave, as a power of two.
const PRECISION: u32 = 4;
/// 2^10 ns (about 1 us) and less share the lowest octave, 2^37 ns (137 s) and more the highest bucket.
const LOWEST: u32 = 10;
const HIGHEST: u32 = 37;
const BUCKETS: usize = ((HIGHEST - LOWEST) << PRECISION) as usize;

#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Histogram {
    pub fn observe(&self, value: Duration) {
        self.buckets[bucket(value)].fetch_add(1, Ordering::Relaxed);
    }

    pub fn snapshot(&self) -> Vec<u64> {
        let read = |bucket: &AtomicU64| bucket.load(Ordering::Relaxed);
        self.buckets.iter().map(read).collect()
    }
}

fn bucket(value: Duration) -> usize {
    let nanos = u64::try_from(value.as_nanos())
        .unwrap_or(u64::MAX)
        .max(1 << LOWEST);
    let octave = nanos.ilog2();
    let within = (nanos >> (octave - PRECISION)) as usize & ((1 << PRECISION) - 1);
    let index = ((octave - LOWEST) as usize) << PRECISION | within;
    index.min(BUCKETS - 1)
}

/// The middle of a bucket.
fn middle(index: usize) -> Duration {
    let octave = LOWEST + (index >> PRECISION) as u32;
    let within = (index & ((1 << PRECISION) - 1)) as u64;
    let width = 1_u64 << (octave - PRECISION);
    Duration::from_nanos((1 << octave) + within * width + width / 2)
}

/// The value that `quantile` of those between two snapshots do not exceed; nothing when there are none.
pub fn quantile(begin: &[u64], end: &[u64], quantile: f64) -> Option<Duration> {
    let counts = || {
        end.iter()
            .zip(begin)
            .map(|(end, begin)| end.saturating_sub(*begin))
    };
    let total: u64 = counts().sum();
    let rank = (total as f64 * quantile).ceil() as u64;
    let mut seen = 0;
    let index = counts().position(|count| {
        seen += count;
        count > 0 && seen >= rank
    });
    index.map(middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_three_percent() {
        let histogram = Histogram::default();
        let before = histogram.snapshot();
        for micros in 1..=10_000 {
            histogram.observe(Duration::from_micros(micros));
        }
        let after = histogram.snapshot();
        for (wanted, exact) in [(0.5, 5_000.0), (0.99, 9_900.0), (1.0, 10_000.0)] {
            let found = quantile(&before, &after, wanted).unwrap().as_secs_f64() * 1e6;
            assert!(
                (found / exact - 1.0).abs() < 0.032,
                "{wanted}: {found} for {exact}"
            );
        }
        assert_eq!(quantile(&after, &after, 0.99), None);
    }

    #[test]
    fn extremes_have_a_bucket() {
        let histogram = Histogram::default();
        for value in [Duration::ZERO, Duration::MAX] {
            histogram.observe(value);
        }
        let counts = histogram.snapshot();
        assert_eq!((counts[0], counts[BUCKETS - 1]), (1, 1));
        assert!(middle(0) < Duration::from_micros(2) && middle(BUCKETS - 1) > Duration::from_secs(100));
    }

    #[test]
    fn a_value_lies_in_its_bucket() {
        for nanos in [1_024, 1_087, 1_088, 4_095, 4_096, 123_456_789, 99_999_999_999_u64] {
            let value = middle(bucket(Duration::from_nanos(nanos))).as_nanos() as f64;
            assert!((value / nanos as f64 - 1.0).abs() < 0.032, "{nanos}");
        }
    }
}
