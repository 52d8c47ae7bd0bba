//! `inputs.NAME.policies` of config.yaml: what becomes of ids that have no row of their own.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::hash::HashName;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Ids outside of the vocabulary fail the request.
    #[default]
    Refuse,
    /// A row that stands in for ids outside of the vocabulary.
    DefaultRow(u64),
    /// Every value is hashed into the vocabulary. `goldens`: values, and the rows that training had for them.
    Hash {
        function: HashName,
        goldens: BTreeMap<String, u64>,
    },
}

/// A policy that is more than a word.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PolicyKeys {
    default_row: Option<u64>,
    hash: Option<HashName>,
    goldens: Option<BTreeMap<String, u64>>,
}

impl PolicyKeys {
    fn policy(self) -> Result<Policy, &'static str> {
        match (self.default_row, self.hash, self.goldens) {
            (Some(row), None, None) => Ok(Policy::DefaultRow(row)),
            (None, Some(function), goldens) => Ok(Policy::Hash {
                function,
                goldens: goldens.unwrap_or_default(),
            }),
            (_, None, Some(_)) => Err("goldens are of a hash; say which, as hash: NAME"),
            _ => Err("give either defaultRow or hash"),
        }
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Policy;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("refuse, {defaultRow: ROW} or {hash: NAME}")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Policy, E> {
                match word {
                    "refuse" => Ok(Policy::Refuse),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(word), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, keys: A) -> Result<Policy, A::Error> {
                let keys = PolicyKeys::deserialize(MapAccessDeserializer::new(keys))?;
                keys.policy().map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_any(Keys)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Policy::Refuse => f.write_str("others are refused"),
            Policy::DefaultRow(row) => write!(f, "row {row} for others"),
            Policy::Hash { function, .. } => write!(f, "every value by {}", function.as_str()),
        }
    }
}
