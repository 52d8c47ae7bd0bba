//! Prices as dated data (`prices/*.tsv`). They rank offerings and fill `hourlyUsd`; they are list prices of one region,
//! never a bill.

const US_EAST_1: &str = include_str!("../prices/us-east-1.tsv");

/// Millionths of a USD an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MicroUsdPerHour(pub u64);

impl MicroUsdPerHour {
    /// As a decimal string with cents: `21.96`.
    #[must_use]
    pub fn to_decimal(self) -> String {
        let cents = (self.0 + 5_000) / 10_000;
        format!("{}.{:02}", cents / 100, cents % 100)
    }
}

/// On-demand price of an instance type; `None` for a type without a known price.
#[must_use]
pub fn on_demand(instance_type: &str) -> Option<MicroUsdPerHour> {
    US_EAST_1
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('\t'))
        .find(|(name, _)| *name == instance_type)
        .and_then(|(_, usd)| parse(usd))
}

fn parse(usd: &str) -> Option<MicroUsdPerHour> {
    let (whole, fraction) = usd.trim().split_once('.').unwrap_or((usd.trim(), ""));
    let fraction: u64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    Some(MicroUsdPerHour(whole.parse::<u64>().ok()? * 1_000_000 + fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_a_price() {
        let lines = US_EAST_1.lines().filter(|l| !l.starts_with('#'));
        for line in lines {
            let name = line.split('\t').next().unwrap();
            assert!(on_demand(name).is_some_and(|p| p.0 > 0), "{line}");
        }
        assert_eq!(on_demand("g5.xlarge"), Some(MicroUsdPerHour(1_006_000)));
        assert_eq!(on_demand("p4d.24xlarge"), Some(MicroUsdPerHour(21_957_642)));
        assert_eq!(on_demand("t3.micro"), None);
    }

    #[test]
    fn money_is_written_with_cents() {
        assert_eq!(MicroUsdPerHour(21_957_642).to_decimal(), "21.96");
        assert_eq!(MicroUsdPerHour(0).to_decimal(), "0.00");
        assert_eq!(MicroUsdPerHour(1_005_000).to_decimal(), "1.01");
    }
}
