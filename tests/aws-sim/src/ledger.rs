//! What the instances cost, in simulated hours. Independent of what the operator believes: own table,
//! own clock.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::assumptions::BILLING_MINIMUM;
use crate::catalog::{InstanceType, PRICES_AS_OF, Purchase};
use crate::clock::SimTime;

#[derive(Clone, Debug)]
struct Line {
    instance_type: &'static InstanceType,
    zone: String,
    purchase: Purchase,
    group: String,
    launched: SimTime,
    running: Option<SimTime>,
    stopping: Option<SimTime>,
    terminated: Option<SimTime>,
}

impl Line {
    fn cost_usd(&self, now: SimTime) -> f64 {
        let Some(running) = self.running else { return 0.0 };
        let billed = self.stopping.unwrap_or(now).since(running).max(BILLING_MINIMUM);
        self.instance_type.hourly_usd(self.purchase) * billed.as_secs_f64() / 3600.0
    }

    fn rate_usd(&self) -> f64 {
        match (self.running, self.stopping) {
            (Some(_), None) => self.instance_type.hourly_usd(self.purchase),
            _ => 0.0,
        }
    }
}

#[derive(Debug, Default)]
pub struct Ledger {
    lines: BTreeMap<String, Line>,
}

#[derive(Debug)]
pub struct Launch<'a> {
    pub instance_type: &'static InstanceType,
    pub zone: &'a str,
    pub purchase: Purchase,
    pub group: &'a str,
}

impl Ledger {
    pub fn launched(&mut self, id: &str, launch: Launch<'_>, at: SimTime) {
        let line = Line {
            instance_type: launch.instance_type,
            zone: launch.zone.to_owned(),
            purchase: launch.purchase,
            group: launch.group.to_owned(),
            launched: at,
            running: None,
            stopping: None,
            terminated: None,
        };
        self.lines.insert(id.to_owned(), line);
    }

    pub fn running(&mut self, id: &str, at: SimTime) {
        if let Some(line) = self.lines.get_mut(id) {
            line.running = Some(at);
        }
    }

    pub fn stopping(&mut self, id: &str, at: SimTime) {
        if let Some(line) = self.lines.get_mut(id) {
            line.stopping = Some(at);
        }
    }

    pub fn terminated(&mut self, id: &str, at: SimTime) {
        if let Some(line) = self.lines.get_mut(id) {
            line.terminated = Some(at);
        }
    }

    pub fn report(&self, now: SimTime, time_scale: u32) -> Report {
        let instances = self
            .lines
            .iter()
            .map(|(id, line)| ReportLine::new(id, line, now))
            .collect();
        Report {
            clock: "simulated: seconds since start = real seconds x time scale",
            time_scale,
            now_seconds: seconds(now),
            prices_as_of: PRICES_AS_OF,
            instances_running: self.lines.values().filter(|l| l.rate_usd() > 0.0).count(),
            rate_usd_per_hour: self.lines.values().map(Line::rate_usd).sum(),
            total_usd: self.lines.values().map(|l| l.cost_usd(now)).sum(),
            instances,
        }
    }
}

fn seconds(at: SimTime) -> f64 {
    at.since(SimTime::default()).as_secs_f64()
}

/// The answer of `/_sim/ledger`. All times are simulated seconds since the account was opened.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub clock: &'static str,
    pub time_scale: u32,
    pub now_seconds: f64,
    pub prices_as_of: &'static str,
    pub instances_running: usize,
    /// What an hour of the instances that run now costs.
    pub rate_usd_per_hour: f64,
    pub total_usd: f64,
    pub instances: Vec<ReportLine>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportLine {
    pub instance_id: String,
    pub instance_type: &'static str,
    pub zone: String,
    pub purchase: Purchase,
    pub group: String,
    pub launched: f64,
    /// Billed from here (running) to there (shutting down).
    pub from: Option<f64>,
    pub to: Option<f64>,
    pub terminated: Option<f64>,
    pub usd_per_hour: f64,
    pub usd: f64,
}

impl ReportLine {
    fn new(id: &str, line: &Line, now: SimTime) -> Self {
        Self {
            instance_id: id.to_owned(),
            instance_type: line.instance_type.name,
            zone: line.zone.clone(),
            purchase: line.purchase,
            group: line.group.clone(),
            launched: seconds(line.launched),
            from: line.running.map(seconds),
            to: line.stopping.map(seconds),
            terminated: line.terminated.map(seconds),
            usd_per_hour: line.instance_type.hourly_usd(line.purchase),
            usd: line.cost_usd(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::instance_type;

    fn ledger_with(purchase: Purchase) -> Ledger {
        let mut ledger = Ledger::default();
        let launch = Launch {
            instance_type: instance_type("g5.xlarge").expect("in the table"),
            zone: "us-east-1a",
            purchase,
            group: "g",
        };
        ledger.launched("i-1", launch, SimTime::from_secs(100));
        ledger
    }

    #[test]
    fn an_hour_from_running_to_stopping_costs_the_hourly_price() {
        let mut ledger = ledger_with(Purchase::OnDemand);
        assert_eq!(
            ledger.report(SimTime::from_secs(110), 60).total_usd,
            0.0,
            "pending is free"
        );
        ledger.running("i-1", SimTime::from_secs(120));
        let running = ledger.report(SimTime::from_secs(1920), 60);
        assert!((running.total_usd - 1.006 / 2.0).abs() < 1e-9, "{running:?}");
        assert_eq!((running.rate_usd_per_hour, running.instances_running), (1.006, 1));
        ledger.stopping("i-1", SimTime::from_secs(3720));
        ledger.terminated("i-1", SimTime::from_secs(3750));
        let after = ledger.report(SimTime::from_secs(99_999), 60);
        assert!((after.total_usd - 1.006).abs() < 1e-9, "{after:?}");
        assert_eq!((after.rate_usd_per_hour, after.instances_running), (0.0, 0));
    }

    #[test]
    fn spot_is_cheaper_and_a_minute_is_the_least() {
        let mut ledger = ledger_with(Purchase::Spot);
        ledger.running("i-1", SimTime::from_secs(120));
        ledger.stopping("i-1", SimTime::from_secs(121));
        let report = ledger.report(SimTime::from_secs(500), 1);
        assert!((report.total_usd - 1.006 * 0.4 / 60.0).abs() < 1e-9, "{report:?}");
    }
}
