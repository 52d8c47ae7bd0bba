//! Must a desired object be applied over an observed one?
//!
//! Not when everything desired is there. What the API server fills in, and what others add where several may write (labels,
//! a variable, a volume), is ignored: server-side apply would leave it, and applying again would never end. A field that is no
//! longer desired shows by the hash in the annotation `pinnace.dev/applied`, which is a part of the desired object.

use serde_json::Value;

/// Fields whose value is replaced as a whole: one entry more changes the meaning and is taken away by an apply.
const ATOMIC_MAPS: [&str; 6] = [
    "labelSelector",
    "matchLabels",
    "namespaceSelector",
    "nodeSelector",
    "podSelector",
    "selector",
];

/// Does the desired object differ from the observed one?
#[must_use]
pub fn needs_apply(desired: &Value, observed: &Value) -> bool {
    // Rules of a policy are atomic lists, though their fields are named like those of others.
    let merge = desired.get("kind").and_then(Value::as_str) != Some("NetworkPolicy");
    !covers(desired, observed, "", merge)
}

fn covers(desired: &Value, observed: &Value, field: &str, merge: bool) -> bool {
    match (desired, observed) {
        (Value::Object(d), Value::Object(o)) => {
            let exact = ATOMIC_MAPS.contains(&field);
            let quantities = matches!(field, "limits" | "requests");
            (!exact || o.len() <= d.len())
                && d.iter().all(|(key, wanted)| match o.get(key) {
                    Some(have) if quantities => same_quantity(wanted, have),
                    Some(have) => covers(wanted, have, key, merge),
                    None => is_empty(wanted),
                })
        }
        (Value::Array(d), Value::Array(o)) => match merge_key(field).filter(|_| merge) {
            Some(key) => d.iter().all(|wanted| {
                let counterpart = o.iter().find(|have| same_key(wanted, have, key));
                counterpart.is_some_and(|have| covers(wanted, have, "", merge))
            }),
            None => {
                d.len() == o.len()
                    && d.iter()
                        .zip(o)
                        .all(|(wanted, have)| covers(wanted, have, "", merge))
            }
        },
        _ => desired == observed || (is_empty(desired) && is_empty(observed)),
    }
}

/// Keys by which the API server merges the lists that we write.
fn merge_key(field: &str) -> Option<&'static [&'static str]> {
    match field {
        "containers" | "env" | "imagePullSecrets" | "volumes" => Some(&["name"]),
        "ownerReferences" => Some(&["uid"]),
        "ports" => Some(&["port", "containerPort", "protocol"]),
        "topologySpreadConstraints" => Some(&["topologyKey", "whenUnsatisfiable"]),
        "volumeMounts" => Some(&["mountPath"]),
        _ => None,
    }
}

fn same_key(a: &Value, b: &Value, key: &[&str]) -> bool {
    key.iter().all(|part| a.get(part) == b.get(part))
}

/// Absent and empty are one. Not so `false` and 0: the API server's default may be another.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(_) | Value::Number(_) => false,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.values().all(is_empty),
    }
}

fn same_quantity(a: &Value, b: &Value) -> bool {
    let nano = |value: &Value| value.as_str().and_then(nano);
    a == b || matches!((nano(a), nano(b)), (Some(a), Some(b)) if a == b)
}

/// A Kubernetes quantity in units of 10^-9; `None` where it is none, or too large to count.
fn nano(quantity: &str) -> Option<i128> {
    let end = quantity
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let fraction = u32::try_from(fraction.len()).ok()?;
    let scaled = digits.checked_mul(scale(suffix)?)?;
    Some(scaled / 10i128.checked_pow(fraction)?)
}

fn scale(suffix: &str) -> Option<i128> {
    const ONE: i128 = 1_000_000_000;
    let binary = |power: u32| ONE << (10 * power);
    Some(match suffix {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "" => ONE,
        "k" => ONE * 1_000,
        "M" => ONE * 1_000_000,
        "G" => ONE * 1_000_000_000,
        "T" => ONE * 1_000_000_000_000,
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        _ => ONE.checked_mul(10i128.checked_pow(suffix.strip_prefix(['e', 'E'])?.parse().ok()?)?)?,
    })
}
