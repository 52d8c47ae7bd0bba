//! Simulated time. The account's state machine only ever sees [`SimTime`], so unit tests drive it with
//! numbers; the server maps the machine's clock onto it, multiplied by the time scale.

use std::fmt;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

/// Time since the simulated account was opened, in simulated milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SimTime(u64);

impl SimTime {
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1000)
    }

    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    pub const fn millis(self) -> u64 {
        self.0
    }

    pub fn after(self, delay: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    pub fn since(self, earlier: SimTime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for SimTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1000, self.0 % 1000)
    }
}

/// How many simulated seconds pass in one real one: 1 to 600.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeScale(u32);

impl TimeScale {
    pub const REAL_TIME: TimeScale = TimeScale(1);

    pub fn get(self) -> u32 {
        self.0
    }
}

impl std::str::FromStr for TimeScale {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s.trim_end_matches('x').parse::<u32>() {
            Ok(n @ 1..=600) => Ok(Self(n)),
            _ => Err(format!("{s:?} is not a time scale: a whole number from 1 to 600")),
        }
    }
}

/// Maps the machine's monotonic clock to simulated time, and simulated time back to wall-clock
/// timestamps. API answers carry wall-clock time (`start + simulated / scale`), because callers compare
/// them with their own clocks; only the ledger counts simulated hours.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    started_wall: Timestamp,
    scale: TimeScale,
}

impl Clock {
    pub fn start(scale: TimeScale) -> Self {
        Self {
            started: Instant::now(),
            started_wall: Timestamp::now(),
            scale,
        }
    }

    pub fn now(&self) -> SimTime {
        let scaled = self
            .started
            .elapsed()
            .as_millis()
            .saturating_mul(u128::from(self.scale.get()));
        SimTime(u64::try_from(scaled).unwrap_or(u64::MAX))
    }

    pub fn wall(&self, at: SimTime) -> Timestamp {
        let real = i64::try_from(at.0 / u64::from(self.scale.get())).unwrap_or(i64::MAX);
        self.started_wall
            .checked_add(SignedDuration::from_millis(real))
            .unwrap_or(Timestamp::MAX)
    }

    /// How long until simulated time reaches `at`, by the machine's clock.
    pub fn real_until(&self, at: SimTime) -> Duration {
        at.since(self.now()) / self.scale.get()
    }

    pub fn scale(&self) -> TimeScale {
        self.scale
    }
}

/// `2026-11-24T16:24:45.123Z`, as the XML services write it.
pub fn iso8601(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// A duration as the command line writes it: `30s`, `5m`, `250ms`, or bare seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number
        .parse()
        .map_err(|_| format!("{text:?} is not a duration, like 30s"))?;
    let secs = match unit {
        "" | "s" => number,
        "ms" => number / 1000.0,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("{text:?}: the unit is one of ms, s, m, h")),
    };
    Duration::try_from_secs_f64(secs).map_err(|e| format!("{text:?}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_units() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("7"), Ok(Duration::from_secs(7)));
        assert!(parse_duration("7d").is_err());
        assert!(parse_duration("soon").is_err());
    }

    #[test]
    fn the_scale_is_bounded() {
        assert!("0".parse::<TimeScale>().is_err());
        assert!("601".parse::<TimeScale>().is_err());
        assert_eq!("60x".parse::<TimeScale>().map(TimeScale::get), Ok(60));
    }

    #[test]
    fn wall_time_runs_at_the_speed_of_the_machine() {
        let clock = Clock::start("60".parse().expect("in range"));
        let wall = clock.wall(SimTime::from_secs(120));
        assert_eq!(
            wall.duration_since(clock.started_wall),
            SignedDuration::from_secs(2)
        );
    }
}
