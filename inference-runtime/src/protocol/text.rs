//! Values of BYTES: each is hashed as it is read, so that a request never takes more memory than an id a value.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};

use crate::engine::Data;
use crate::ids::InputRules;

/// Bytes of the length in front of each value, a little-endian number.
pub const PREFIX: usize = size_of::<u32>();

/// Exactly `count` values, each behind its length.
pub fn from_bytes(rules: &InputRules, bytes: &[u8], count: usize) -> Result<Data, String> {
    // A shape alone cannot make us reserve memory.
    let mut rows = Vec::with_capacity(count.min(bytes.len() / PREFIX));
    let mut rest = bytes;
    for index in 0..count {
        let Some((prefix, behind)) = rest.split_first_chunk::<PREFIX>() else {
            return Err(format!(
                "element {index} of {count} has no length: {} bytes are left",
                rest.len()
            ));
        };
        let length = u32::from_le_bytes(*prefix);
        let value = usize::try_from(length)
            .ok()
            .and_then(|length| behind.split_at_checked(length));
        let Some((value, others)) = value else {
            return Err(format!(
                "element {index} of {count} has {length} bytes by its length, {} are left",
                behind.len()
            ));
        };
        rows.push(rules.row_of_text(index, value));
        rest = others;
    }
    if !rest.is_empty() {
        return Err(format!("{} bytes are left after {count} elements", rest.len()));
    }
    Ok(rules.data(rows))
}

/// Exactly `count` values.
pub fn from_values<T: AsRef<[u8]>>(rules: &InputRules, values: &[T]) -> Data {
    let row = |(index, value): (usize, &T)| rules.row_of_text(index, value.as_ref());
    rules.data(values.iter().enumerate().map(row).collect())
}

/// Exactly `count` strings, in flat or nested arrays.
pub fn from_json(rules: &InputRules, json: &str, count: usize) -> Result<Data, serde_json::Error> {
    // Three bytes a string at least, two of them quotes.
    let mut rows = Vec::with_capacity(count.min(json.len() / 3 + 1));
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let append = Append {
        rules,
        rows: &mut rows,
        limit: count,
    };
    append.deserialize(&mut deserializer)?;
    deserializer.end()?;
    if rows.len() < count {
        return Err(serde_json::Error::custom(format!("{} elements", rows.len())));
    }
    Ok(rules.data(rows))
}

/// Appends the row of one string, or of all strings of an array; depth is bounded by the JSON reader.
struct Append<'a> {
    rules: &'a InputRules,
    rows: &'a mut Vec<i64>,
    limit: usize,
}

impl<'de> DeserializeSeed<'de> for Append<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Append<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string or an array of such")
    }
    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        let index = self.rows.len();
        if index >= self.limit {
            return Err(E::custom(format!("more than {} elements", self.limit)));
        }
        self.rows.push(self.rules.row_of_text(index, value.as_bytes()));
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements
            .next_element_seed(Append {
                rules: self.rules,
                rows: &mut *self.rows,
                limit: self.limit,
            })?
            .is_some()
        {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{HashName, IdRules};
    use crate::protocol::request::tests::hashed;

    fn row(text: &str) -> i64 {
        (HashName::FarmHash64.hash(text.as_bytes()) % 1000).cast_signed()
    }

    fn prefixed(values: &[&str]) -> Vec<u8> {
        let value = |value: &&str| [&(value.len() as u32).to_le_bytes()[..], value.as_bytes()].concat();
        values.iter().flat_map(value).collect()
    }

    fn with<T>(read: impl Fn(&InputRules) -> T) -> T {
        let model = hashed();
        let rules: &IdRules = &model.ids;
        read(rules.of("ids").unwrap())
    }

    #[test]
    fn the_same_values_in_every_form_are_the_same_rows() {
        let values = ["abc", "", "büch\"er", "4711"];
        let rows = Data::I64(values.map(row).to_vec());
        let bytes = prefixed(&values);
        assert_eq!(with(|rules| from_bytes(rules, &bytes, 4)), Ok(rows.clone()));
        assert_eq!(with(|rules| from_values(rules, &values)), rows);
        let json = r#"[["abc",""],["b\u00fcch\"er","4711"]]"#;
        assert_eq!(with(|rules| from_json(rules, json, 4).unwrap()), rows);
    }

    #[test]
    fn lengths_that_lie_are_told() {
        let whole = prefixed(&["abc", "de"]);
        let long = [&u32::MAX.to_le_bytes()[..], b"abc"].concat();
        for (bytes, count, named) in [
            (&whole[..], 3, "element 2 of 3 has no length: 0 bytes are left"),
            (&whole[..9], 2, "element 1 of 2 has no length: 2 bytes are left"),
            (
                &whole[..12],
                2,
                "element 1 of 2 has 2 bytes by its length, 1 are left",
            ),
            (&whole[..], 1, "6 bytes are left after 1 elements"),
            (
                &long[..],
                1,
                "element 0 of 1 has 4294967295 bytes by its length, 3 are left",
            ),
            (&[], usize::MAX / 8, "has no length"),
        ] {
            let error = with(|rules| from_bytes(rules, bytes, count)).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn json_of_another_kind_is_refused() {
        for (json, count, named) in [
            (r#"["a","b"]"#, 1, "more than 1 elements"),
            (r#"["a"]"#, 2, "1 elements"),
            ("[5]", 1, "expected a string"),
            ("[null]", 1, "expected a string"),
            (r#"["a""#, 1, "EOF"),
            (r#"["\ud800"]"#, 1, "hex escape"),
        ] {
            let error = with(|rules| from_json(rules, json, count))
                .unwrap_err()
                .to_string();
            assert!(error.contains(named), "{json}: {error}");
        }
        assert!(with(|rules| from_json(rules, &"[".repeat(100_000), 1)).is_err());
    }
}
