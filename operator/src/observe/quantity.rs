//! Kubernetes quantities, as numbers of the planner's units.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use planner::observed::Allocatable;

pub const GPU: &str = "nvidia.com/gpu";

const MIB: u128 = 1000 << 20;

/// What a node offers: `cpu`, `memory` (rounded down) and GPUs of a resource list; what is absent or cannot be read is 0.
#[must_use]
pub fn allocatable(list: Option<&BTreeMap<String, Quantity>>) -> Allocatable {
    of(list, |memory| memory / MIB)
}

/// What a pod asks for: as [`allocatable`], with memory rounded up, so that what is planned on a node fits there.
#[must_use]
pub fn requested(list: Option<&BTreeMap<String, Quantity>>) -> Allocatable {
    of(list, |memory| memory.div_ceil(MIB))
}

fn of(list: Option<&BTreeMap<String, Quantity>>, mib: fn(u128) -> u128) -> Allocatable {
    let get = |name: &str| {
        list.and_then(|l| l.get(name))
            .and_then(|q| milli(&q.0))
            .unwrap_or(0)
    };
    Allocatable {
        gpus: u32::try_from(get(GPU) / 1000).unwrap_or(u32::MAX),
        milli_cpu: u64::try_from(get("cpu")).unwrap_or(u64::MAX),
        memory_mib: u64::try_from(mib(get("memory"))).unwrap_or(u64::MAX),
    }
}

/// Thousandths of the unit: `250m`, `0.5`, `12Gi`, `1e3`.
fn milli(text: &str) -> Option<u128> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let factor: u128 = match suffix {
        "n" => return Some(decimal(number)? / 1_000_000_000),
        "u" => return Some(decimal(number)? / 1_000_000),
        "m" => 1,
        "" => 1_000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        exponent => {
            let power: u32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            10u128.checked_pow(power)?.checked_mul(1_000)?
        }
    };
    Some(decimal(number)?.checked_mul(factor)? / 1_000)
}

/// A decimal number in thousandths.
fn decimal(text: &str) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = format!("{fraction:0<3}");
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    Some(whole.checked_mul(1_000)? + fraction.get(..3)?.parse::<u128>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read() {
        let cases = [
            ("250m", 250),
            ("2", 2_000),
            ("0.5", 500),
            ("1.5", 1_500),
            ("1e3", 1_000_000),
            ("3Ki", 3_072_000),
            ("2k", 2_000_000),
            ("5000000n", 5),
        ];
        for (text, expected) in cases {
            assert_eq!(milli(text), Some(expected), "{text}");
        }
        for bad in ["", "x", "1x", "1e99", "-1"] {
            assert!(milli(bad).is_none_or(|n| n == 0), "{bad}");
        }
    }

    #[test]
    fn lists_become_planner_units() {
        let pairs = [
            ("cpu", "3920m"),
            ("memory", "14502592Ki"),
            (GPU, "1"),
            ("pods", "58"),
        ];
        let list = pairs.map(|(k, v)| (k.to_owned(), Quantity(v.to_owned()))).into();
        let expected = Allocatable {
            gpus: 1,
            milli_cpu: 3920,
            memory_mib: 14_162,
        };
        assert_eq!(allocatable(Some(&list)), expected);
        assert_eq!(requested(Some(&list)).memory_mib, 14_163);
        assert_eq!(allocatable(None), Allocatable::default());
    }
}
