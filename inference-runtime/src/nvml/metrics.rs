//! `pinnace_runtime_gpu_*`, made anew from the board at each scrape: what is unknown has no series. Values that are
//! stale are unknown; only their age is told.

use std::fmt::Error;
use std::sync::Arc;
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::board::{Board, Taken};
use super::sample::{Gpu, Reading, Throttle};

#[derive(Debug)]
pub struct GpuMetrics(pub Arc<Board>);

impl Collector for GpuMetrics {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), Error> {
        match self.0.newest() {
            Some(taken) => encode(encoder, &taken, Instant::now()),
            None => Ok(()),
        }
    }
}

type Value = fn(&Reading) -> Option<f64>;

const GAUGES: [(&str, &str, Value); 10] = [
    (
        "utilization_percent",
        "Share of time in which any kernel ran",
        |gpu| gpu.utilization_percent.map(f64::from),
    ),
    ("memory_used_bytes", "GPU memory in use", |gpu| {
        gpu.memory.map(|memory| memory.used as f64)
    }),
    ("memory_total_bytes", "GPU memory", |gpu| {
        gpu.memory.map(|memory| memory.total as f64)
    }),
    ("power_watts", "Power drawn", |gpu| {
        gpu.power_milliwatts.map(|power| f64::from(power) / 1000.0)
    }),
    ("power_limit_watts", "Power limit in force", |gpu| {
        gpu.power_limit_milliwatts.map(|power| f64::from(power) / 1000.0)
    }),
    ("temperature_celsius", "Temperature of the GPU", |gpu| {
        gpu.temperature_celsius.map(f64::from)
    }),
    ("sm_clock_megahertz", "Clock of the multiprocessors", |gpu| {
        gpu.sm_clock_mhz.map(f64::from)
    }),
    ("memory_clock_megahertz", "Clock of the memory", |gpu| {
        gpu.memory_clock_mhz.map(f64::from)
    }),
    ("mig", "1 in MIG mode", |gpu| {
        gpu.mig.map(|mig| f64::from(u8::from(mig)))
    }),
    ("processes", "Processes with a compute context", |gpu| {
        gpu.processes.map(f64::from)
    }),
];

fn encode(encoder: DescriptorEncoder, taken: &Taken, now: Instant) -> Result<(), Error> {
    let mut families = Families { encoder };
    families.age(taken.age(now).as_secs_f64())?;
    if taken.is_stale(now) {
        return Ok(());
    }
    let gpus = || taken.sample.gpus.iter().enumerate();
    let seen = || gpus().filter_map(|(index, gpu)| reading(gpu).map(|gpu| (index.to_string(), gpu)));
    let lost = gpus().map(|(index, gpu)| {
        let lost = f64::from(u8::from(matches!(gpu, Gpu::Lost)));
        (vec![("gpu", index.to_string())], lost)
    });
    families.gauges("lost", "1 when the GPU has fallen off the bus", lost.collect())?;
    let info = seen().map(|(index, gpu)| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let labels = vec![
            ("gpu", index),
            ("uuid", text(&gpu.uuid)),
            ("name", text(&gpu.name)),
        ];
        (labels, 1.0)
    });
    families.gauges("info", "Which GPU it is", info.collect())?;
    for (name, help, value) in GAUGES {
        let series = seen().filter_map(|(index, gpu)| Some((vec![("gpu", index)], value(gpu)?)));
        families.gauges(name, help, series.collect())?;
    }
    let throttled = seen().filter_map(|(index, gpu)| Some((index, gpu.throttled.as_ref()?)));
    let throttled = throttled.flat_map(|(index, in_force)| {
        Throttle::ALL.map(|reason| {
            let labels = vec![("gpu", index.clone()), ("reason", format!("{reason:?}"))];
            (labels, f64::from(u8::from(in_force.contains(&reason))))
        })
    });
    families.gauges(
        "throttled",
        "1 while the reason lowers the clocks",
        throttled.collect(),
    )?;
    let ecc = seen().filter_map(|(index, gpu)| Some((vec![("gpu", index)], gpu.ecc_errors?)));
    families.counters(
        "ecc_uncorrected_errors",
        "Since the driver was loaded",
        ecc.collect(),
    )?;
    let xid = taken.sample.xid.iter().flatten();
    let xid = xid.map(|(code, count)| (vec![("xid", code.to_string())], u64::from(*count)));
    families.counters("xid_errors", "XID events since the start, by code", xid.collect())
}

fn reading(gpu: &Gpu) -> Option<&Reading> {
    match gpu {
        Gpu::Seen(reading) => Some(reading),
        Gpu::Lost => None,
    }
}

type Labels = Vec<(&'static str, String)>;

struct Families<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Families<'_> {
    fn age(&mut self, seconds: f64) -> Result<(), Error> {
        let (name, help) = ("runtime_gpu_sample_age_seconds", "Age of the newest sample");
        let gauge = ConstGauge::new(seconds);
        gauge.encode(
            self.encoder
                .encode_descriptor(name, help, None, MetricType::Gauge)?,
        )
    }

    fn gauges(&mut self, name: &str, help: &str, series: Vec<(Labels, f64)>) -> Result<(), Error> {
        self.family(name, help, MetricType::Gauge, series, ConstGauge::new)
    }

    fn counters(&mut self, name: &str, help: &str, series: Vec<(Labels, u64)>) -> Result<(), Error> {
        self.family(name, help, MetricType::Counter, series, ConstCounter::new)
    }

    /// A family without series is left out, with its description.
    fn family<V, M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        series: Vec<(Labels, V)>,
        metric: fn(V) -> M,
    ) -> Result<(), Error> {
        if series.is_empty() {
            return Ok(());
        }
        let name = format!("runtime_gpu_{name}");
        let mut family = self.encoder.encode_descriptor(&name, help, None, kind)?;
        for (labels, value) in series {
            let value = metric(value);
            value.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use prometheus_client::registry::Registry;

    use super::*;
    use crate::nvml::Sample;

    fn text(at: Instant) -> String {
        let board = Arc::new(Board::default());
        let seen = Reading {
            name: Some("NVIDIA A10G".into()),
            uuid: Some("GPU-1".into()),
            utilization_percent: Some(61),
            power_milliwatts: Some(120_500),
            throttled: Some(vec![Throttle::PowerCap]),
            mig: Some(false),
            ..Reading::default()
        };
        let xid = Some(BTreeMap::from([(13, 2)]));
        let gpus = vec![Gpu::Seen(seen), Gpu::Lost];
        board.put(at, Sample { gpus, xid });
        let mut registry = Registry::with_prefix("pinnace");
        registry.register_collector(Box::new(GpuMetrics(board)));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn known_values_have_series_and_unknown_none() {
        let text = text(Instant::now());
        for line in [
            "pinnace_runtime_gpu_utilization_percent{gpu=\"0\"} 61.0\n",
            "pinnace_runtime_gpu_power_watts{gpu=\"0\"} 120.5\n",
            "pinnace_runtime_gpu_lost{gpu=\"0\"} 0.0\n",
            "pinnace_runtime_gpu_lost{gpu=\"1\"} 1.0\n",
            "pinnace_runtime_gpu_info{gpu=\"0\",uuid=\"GPU-1\",name=\"NVIDIA A10G\"} 1.0\n",
            "pinnace_runtime_gpu_throttled{gpu=\"0\",reason=\"PowerCap\"} 1.0\n",
            "pinnace_runtime_gpu_throttled{gpu=\"0\",reason=\"HwThermal\"} 0.0\n",
            "pinnace_runtime_gpu_xid_errors_total{xid=\"13\"} 2\n",
            "pinnace_runtime_gpu_sample_age_seconds 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        for absent in ["memory", "temperature", "clock", "ecc", "processes"] {
            assert!(!text.contains(&format!("gpu_{absent}")), "{absent} is in\n{text}");
        }
    }

    #[test]
    fn of_a_stale_sample_only_the_age() {
        let at = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        let text = text(at);
        assert!(
            text.contains("pinnace_runtime_gpu_sample_age_seconds 6"),
            "{text}"
        );
        assert!(!text.contains("utilization"), "{text}");
    }
}
