//! The timeline: what the simulated GPUs do at which second.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Deserialize;

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Script {
    /// How many GPUs there are; 1 when not given.
    #[serde(default = "one")]
    pub gpus: u32,
    /// In the order of their seconds.
    #[serde(default)]
    pub steps: Vec<Step>,
}

fn one() -> u32 {
    1
}

/// What changes at a second.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Step {
    pub at_seconds: f64,
    /// Percent, instead of the busy share of the engine threads.
    pub utilization: Option<u32>,
    #[serde(rename = "memoryUsedMiB")]
    pub memory_used_mib: Option<u64>,
    pub power_watts: Option<f64>,
    pub temperature_celsius: Option<u32>,
    /// NVML's bits of clock event reasons: 1 idle, 4 power cap, 32 and 64 thermal, ...
    pub throttle_bits: Option<u64>,
    /// MIG mode: utilization is then unsupported, as on real devices.
    pub mig: Option<bool>,
    /// Questions answered "not supported".
    pub unsupported: Option<Vec<Question>>,
    /// Every call blocks until a step says `false`.
    pub hang: Option<bool>,
    /// Indexes of GPUs that have fallen off the bus.
    pub lost: Option<Vec<u32>>,
    /// One XID event of the first GPU, at this second.
    pub xid: Option<u64>,
}

/// What can be asked of a device.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Question {
    Name,
    Uuid,
    Utilization,
    Memory,
    Power,
    PowerLimit,
    Temperature,
    Clocks,
    Throttled,
    Mig,
    Ecc,
    Processes,
    Events,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            gpus: one(),
            steps: Vec::new(),
        }
    }
}

impl Script {
    pub fn parse(text: &str) -> Result<Self, String> {
        let script: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let at: Vec<f64> = script.steps.iter().map(|step| step.at_seconds).collect();
        if !at.is_sorted() {
            return Err("steps: write them in the order of atSeconds".to_owned());
        }
        Ok(script)
    }

    /// All fields as they stand at `time`; `xid` is not among them.
    pub fn at(&self, time: Duration) -> Step {
        let mut state = Step::default();
        for step in self.past(time) {
            let step = step.clone();
            state.utilization = step.utilization.or(state.utilization);
            state.memory_used_mib = step.memory_used_mib.or(state.memory_used_mib);
            state.power_watts = step.power_watts.or(state.power_watts);
            state.temperature_celsius = step.temperature_celsius.or(state.temperature_celsius);
            state.throttle_bits = step.throttle_bits.or(state.throttle_bits);
            state.mig = step.mig.or(state.mig);
            state.unsupported = step.unsupported.or(state.unsupported);
            state.hang = step.hang.or(state.hang);
            state.lost = step.lost.or(state.lost);
        }
        state
    }

    /// The XID events up to `time`.
    pub fn xids(&self, time: Duration) -> Vec<u64> {
        self.past(time).filter_map(|step| step.xid).collect()
    }

    fn past(&self, time: Duration) -> impl Iterator<Item = &Step> {
        self.steps
            .iter()
            .take_while(move |step| step.at_seconds <= time.as_secs_f64())
    }
}

/// The script's file, read again when it has changed.
#[derive(Debug, Default)]
pub struct File {
    path: Option<PathBuf>,
    seen: Option<(SystemTime, u64)>,
    pub script: Script,
}

impl File {
    /// Without a path there is no script, and one GPU.
    pub fn open(path: Option<PathBuf>) -> Result<Self, String> {
        let mut file = Self {
            path,
            ..Self::default()
        };
        file.refresh()?;
        Ok(file)
    }

    /// Whether there is a new script. After an error the old one stands.
    pub fn refresh(&mut self) -> Result<bool, String> {
        let Some(path) = self.path.as_deref() else {
            return Ok(false);
        };
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let seen = version(path).map_err(|error| named(&error))?;
        if self.seen == Some(seen) {
            return Ok(false);
        }
        // Remembered first, so that a bad file is told of once.
        self.seen = Some(seen);
        let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
        self.script = Script::parse(&text).map_err(|error| named(&error))?;
        Ok(true)
    }
}

/// A file that replaces another by renaming has another inode, even within the clock's resolution.
fn version(path: &Path) -> std::io::Result<(SystemTime, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.modified()?, metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script() -> Script {
        Script::parse(
            r#"{"gpus": 2, "steps": [
                {"atSeconds": 0, "utilization": 100, "unsupported": ["power", "powerLimit"]},
                {"atSeconds": 10, "hang": true, "xid": 13},
                {"atSeconds": 20.5, "hang": false, "lost": [1], "xid": 79}
            ]}"#,
        )
        .unwrap()
    }

    #[test]
    fn a_field_stands_until_it_is_set_again() {
        let at = |seconds| script().at(Duration::from_secs_f64(seconds));
        let expected = Step {
            utilization: Some(100),
            unsupported: Some(vec![Question::Power, Question::PowerLimit]),
            ..Step::default()
        };
        assert_eq!(at(9.9), expected);
        assert_eq!((at(10.0).hang, at(10.0).utilization), (Some(true), Some(100)));
        assert_eq!((at(3600.0).hang, at(3600.0).lost), (Some(false), Some(vec![1])));
        assert_eq!(at(3600.0).utilization, Some(100));
    }

    #[test]
    fn events_come_at_their_second() {
        let xids = |seconds| script().xids(Duration::from_secs(seconds));
        assert_eq!((xids(9), xids(10), xids(21)), (vec![], vec![13], vec![13, 79]));
    }

    #[test]
    fn bad_scripts_are_told() {
        for (bad, told) in [
            ("{", "EOF"),
            (r#"{"steps": [{"atSecond": 1}]}"#, "atSecond"),
            (r#"{"steps": [{"unsupported": ["fan"]}]}"#, "fan"),
            (r#"{"steps": [{"atSeconds": 2}, {"atSeconds": 1}]}"#, "order"),
        ] {
            let error = Script::parse(bad).unwrap_err();
            assert!(error.contains(told), "{bad}: {error}");
        }
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_bad_one_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script.json");
        let replace = |text: &str| {
            let new = folder.path().join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, &path).unwrap();
        };
        assert!(File::open(Some(path.clone())).is_err());
        replace(r#"{"gpus": 3}"#);
        let mut file = File::open(Some(path.clone())).unwrap();
        assert_eq!(file.refresh(), Ok(false));
        replace("{");
        assert!(file.refresh().is_err());
        assert_eq!((file.refresh(), file.script.gpus), (Ok(false), 3));
        replace(r#"{"gpus": 4}"#);
        assert_eq!((file.refresh(), file.script.gpus), (Ok(true), 4));
    }

    #[test]
    fn without_a_file_one_gpu() {
        let mut file = File::open(None).unwrap();
        assert_eq!((file.refresh(), file.script), (Ok(false), Script::default()));
    }
}
