//! One look at all GPUs, and its sums.

use std::collections::BTreeMap;

use serde::Serialize;

/// XID codes in a summary, the most frequent ones; `/load` has 1 KB for everything.
const XID_CODES: usize = 8;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    pub gpus: Vec<Gpu>,
    /// XID events since the start by code; nothing when the driver reports none to us.
    pub xid: Option<BTreeMap<u16, u32>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Gpu {
    /// Fallen off the bus: no value of it is known any more.
    Lost,
    Seen(Reading),
}

/// Of one GPU what its driver says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    pub name: Option<String>,
    pub uuid: Option<String>,
    /// Share of time in which any kernel ran: it is full long before the GPU is.
    pub utilization_percent: Option<u32>,
    pub memory: Option<Memory>,
    pub power_milliwatts: Option<u32>,
    pub power_limit_milliwatts: Option<u32>,
    pub temperature_celsius: Option<u32>,
    pub sm_clock_mhz: Option<u32>,
    pub memory_clock_mhz: Option<u32>,
    pub throttled: Option<Vec<Throttle>>,
    pub mig: Option<bool>,
    /// Uncorrected memory errors since the driver was loaded.
    pub ecc_errors: Option<u64>,
    pub processes: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub used: u64,
    pub total: u64,
}

/// Why clocks are lower than they could be. That nothing runs is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Throttle {
    ApplicationClocks,
    PowerCap,
    HwSlowdown,
    SyncBoost,
    SwThermal,
    HwThermal,
    PowerBrake,
    DisplayClocks,
}

impl Throttle {
    pub const ALL: [Self; 8] = [
        Self::ApplicationClocks,
        Self::PowerCap,
        Self::HwSlowdown,
        Self::SyncBoost,
        Self::SwThermal,
        Self::HwThermal,
        Self::PowerBrake,
        Self::DisplayClocks,
    ];
}

/// All GPUs together, as `/load` shows them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub simulated: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utilization_percent: Option<u32>,
    #[serde(rename = "memoryUsedMiB", skip_serializing_if = "Option::is_none")]
    pub memory_used_mib: Option<u64>,
    #[serde(rename = "memoryTotalMiB", skip_serializing_if = "Option::is_none")]
    pub memory_total_mib: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_watts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_limit_watts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature_celsius: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled: Option<Vec<Throttle>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mig: Option<bool>,
    pub lost: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xid: Option<BTreeMap<u16, u32>>,
}

impl Sample {
    fn seen(&self) -> impl Iterator<Item = &Reading> {
        self.gpus.iter().filter_map(|gpu| match gpu {
            Gpu::Seen(reading) => Some(reading),
            Gpu::Lost => None,
        })
    }

    /// Each value is over the GPUs that report it, and absent when none does.
    pub fn summary(&self) -> Summary {
        let seen = || self.seen();
        let simulated = seen().any(Reading::is_simulated);
        let memory = |part: fn(Memory) -> u64| sum(seen().map(|gpu| gpu.memory.map(part))).map(mebibytes);
        let watts = |part: fn(&Reading) -> Option<u32>| {
            sum(seen().map(|gpu| part(gpu).map(u64::from))).map(|milliwatts| {
                // To a tenth of a watt; sensors are not better than that.
                (milliwatts as f64 / 100.0).round() / 10.0
            })
        };
        Summary {
            count: self.gpus.len(),
            simulated: simulated.then_some(true),
            utilization_percent: mean(seen().filter_map(|gpu| gpu.utilization_percent)),
            memory_used_mib: memory(|memory| memory.used),
            memory_total_mib: memory(|memory| memory.total),
            power_watts: watts(|gpu| gpu.power_milliwatts),
            power_limit_watts: watts(|gpu| gpu.power_limit_milliwatts),
            temperature_celsius: seen().filter_map(|gpu| gpu.temperature_celsius).max(),
            throttled: self.throttled(),
            mig: seen().filter_map(|gpu| gpu.mig).reduce(|a, b| a || b),
            lost: self.gpus.len() - seen().count(),
            xid: self.xid.as_ref().map(most_frequent),
        }
    }

    fn throttled(&self) -> Option<Vec<Throttle>> {
        let mut reasons: Vec<Throttle> = Vec::new();
        let mut known = false;
        for of_gpu in self.seen().filter_map(|gpu| gpu.throttled.as_ref()) {
            known = true;
            reasons.extend(of_gpu);
        }
        reasons.sort_unstable();
        reasons.dedup();
        known.then_some(reasons)
    }
}

impl Reading {
    fn is_simulated(&self) -> bool {
        let name = self.name.as_deref().unwrap_or_default();
        name.to_ascii_lowercase().contains("simulated")
    }
}

/// Nothing when all are unknown.
fn sum(values: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    values.flatten().reduce(u64::saturating_add)
}

fn mean(values: impl Iterator<Item = u32>) -> Option<u32> {
    let (mut total, mut count) = (0_u64, 0_u64);
    for value in values {
        total += u64::from(value);
        count += 1;
    }
    let rounded = (total + count / 2).checked_div(count)?;
    u32::try_from(rounded).ok()
}

fn mebibytes(bytes: u64) -> u64 {
    bytes >> 20
}

fn most_frequent(events: &BTreeMap<u16, u32>) -> BTreeMap<u16, u32> {
    let mut codes: Vec<(u16, u32)> = events.iter().map(|(code, count)| (*code, *count)).collect();
    codes.sort_by_key(|(code, count)| (std::cmp::Reverse(*count), *code));
    codes.into_iter().take(XID_CODES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading() -> Reading {
        Reading {
            name: Some("NVIDIA A10G".into()),
            utilization_percent: Some(60),
            memory: Some(Memory {
                used: 1 << 30,
                total: 24 << 30,
            }),
            power_milliwatts: Some(120_060),
            power_limit_milliwatts: Some(300_000),
            temperature_celsius: Some(60),
            throttled: Some(vec![]),
            mig: Some(false),
            ..Reading::default()
        }
    }

    #[test]
    fn sums_means_and_the_hottest() {
        let second = Reading {
            utilization_percent: Some(65),
            temperature_celsius: Some(71),
            throttled: Some(vec![Throttle::PowerCap, Throttle::ApplicationClocks]),
            ..reading()
        };
        let sample = Sample {
            gpus: vec![Gpu::Seen(reading()), Gpu::Seen(second)],
            xid: Some(BTreeMap::from([(13, 2)])),
        };
        let expected = Summary {
            count: 2,
            utilization_percent: Some(63),
            memory_used_mib: Some(2048),
            memory_total_mib: Some(49152),
            power_watts: Some(240.1),
            power_limit_watts: Some(600.0),
            temperature_celsius: Some(71),
            throttled: Some(vec![Throttle::ApplicationClocks, Throttle::PowerCap]),
            mig: Some(false),
            xid: Some(BTreeMap::from([(13, 2)])),
            ..Summary::default()
        };
        assert_eq!(sample.summary(), expected);
    }

    #[test]
    fn values_are_over_the_gpus_that_report_them() {
        let mig = Reading {
            utilization_percent: None,
            mig: Some(true),
            power_milliwatts: None,
            ..reading()
        };
        let sample = Sample {
            gpus: vec![Gpu::Lost, Gpu::Seen(mig), Gpu::Seen(reading())],
            xid: None,
        };
        let summary = sample.summary();
        assert_eq!((summary.count, summary.lost, summary.mig), (3, 1, Some(true)));
        assert_eq!(
            (summary.utilization_percent, summary.power_watts),
            (Some(60), Some(120.1))
        );
        assert_eq!(summary.memory_used_mib, Some(2048));
    }

    #[test]
    fn unknown_is_absent_and_never_zero() {
        let nothing = Sample {
            gpus: vec![Gpu::Seen(Reading::default()), Gpu::Lost],
            xid: None,
        };
        let json = serde_json::to_string(&nothing.summary()).unwrap();
        assert_eq!(json, r#"{"count":2,"lost":1}"#);
    }

    #[test]
    fn simulated_when_the_name_says_so() {
        let simulated = Reading {
            name: Some("NVIDIA A10G (Simulated)".into()),
            ..reading()
        };
        let sample = |reading| Sample {
            gpus: vec![Gpu::Seen(reading)],
            xid: None,
        };
        assert_eq!(sample(simulated).summary().simulated, Some(true));
        assert_eq!(sample(reading()).summary().simulated, None);
    }

    #[test]
    fn the_most_frequent_xid_codes() {
        let events = (1..=20).map(|code| (code, u32::from(code))).collect();
        let kept: Vec<u16> = most_frequent(&events).into_keys().collect();
        assert_eq!(kept, (13..=20).collect::<Vec<u16>>());
    }
}
