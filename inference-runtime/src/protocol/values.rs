//! `data` of a JSON tensor: flat or nested arrays of numbers, read straight into the elements' type.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};

use crate::engine::{Data, Datatype};

/// An element that JSON can give.
trait Element: Sized {
    const EXPECTED: &'static str;
    fn from_u64(value: u64) -> Option<Self>;
    fn from_i64(value: i64) -> Option<Self>;
    fn from_f64(value: f64) -> Option<Self>;
    fn from_bool(_: bool) -> Option<Self> {
        None
    }
}

macro_rules! integers {
    ($($rust:ty, $name:literal;)*) => {$(
        impl Element for $rust {
            const EXPECTED: &'static str = concat!("a number that fits ", $name);
            fn from_u64(value: u64) -> Option<Self> { value.try_into().ok() }
            fn from_i64(value: i64) -> Option<Self> { value.try_into().ok() }
            fn from_f64(_: f64) -> Option<Self> { None }
        }
    )*};
}
integers! { u8, "UINT8"; u16, "UINT16"; u32, "UINT32"; u64, "UINT64"; i8, "INT8"; i16, "INT16"; i32, "INT32"; i64, "INT64"; }

impl Element for f32 {
    const EXPECTED: &'static str = "a number that fits FP32";
    fn from_u64(value: u64) -> Option<Self> {
        Some(value as f32)
    }
    fn from_i64(value: i64) -> Option<Self> {
        Some(value as f32)
    }
    fn from_f64(value: f64) -> Option<Self> {
        let narrow = value as f32;
        narrow.is_finite().then_some(narrow)
    }
}

impl Element for f64 {
    const EXPECTED: &'static str = "a number that fits FP64";
    fn from_u64(value: u64) -> Option<Self> {
        Some(value as f64)
    }
    fn from_i64(value: i64) -> Option<Self> {
        Some(value as f64)
    }
    fn from_f64(value: f64) -> Option<Self> {
        Some(value)
    }
}

impl Element for bool {
    const EXPECTED: &'static str = "true or false";
    fn from_u64(_: u64) -> Option<Self> {
        None
    }
    fn from_i64(_: i64) -> Option<Self> {
        None
    }
    fn from_f64(_: f64) -> Option<Self> {
        None
    }
    fn from_bool(value: bool) -> Option<Self> {
        Some(value)
    }
}

/// Appends one value, or all values of an array; depth is bounded by the JSON reader.
struct Append<'a, T> {
    values: &'a mut Vec<T>,
    limit: usize,
}

impl<T: Element> Append<'_, T> {
    fn push<E: serde::de::Error>(self, value: Option<T>, shown: impl fmt::Display) -> Result<(), E> {
        if self.values.len() >= self.limit {
            return Err(E::custom(format!("more than {} elements", self.limit)));
        }
        let index = self.values.len();
        self.values.push(
            value.ok_or_else(|| E::custom(format!("element {index} is {shown}, not {}", T::EXPECTED)))?,
        );
        Ok(())
    }
}

impl<'de, T: Element> DeserializeSeed<'de> for Append<'_, T> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Element> Visitor<'de> for Append<'_, T> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} or an array of such", T::EXPECTED)
    }
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.push(T::from_u64(value), value)
    }
    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.push(T::from_i64(value), value)
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.push(T::from_f64(value), value)
    }
    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.push(T::from_bool(value), value)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements
            .next_element_seed(Append {
                values: &mut *self.values,
                limit: self.limit,
            })?
            .is_some()
        {}
        Ok(())
    }
}

fn read<T: Element>(text: &str, count: usize) -> Result<Vec<T>, serde_json::Error> {
    // Two bytes a number at least: a shape alone cannot make us reserve memory.
    let mut values = Vec::with_capacity(count.min(text.len() / 2 + 1));
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Append {
        values: &mut values,
        limit: count,
    }
    .deserialize(&mut deserializer)?;
    deserializer.end()?;
    if values.len() < count {
        return Err(serde_json::Error::custom(format!("{} elements", values.len())));
    }
    Ok(values)
}

/// Reads exactly `count` elements.
pub fn parse(datatype: Datatype, text: &str, count: usize) -> Result<Data, serde_json::Error> {
    Ok(match datatype {
        Datatype::Bool => Data::Bool(read(text, count)?),
        Datatype::U8 => Data::U8(read(text, count)?),
        Datatype::U16 => Data::U16(read(text, count)?),
        Datatype::U32 => Data::U32(read(text, count)?),
        Datatype::U64 => Data::U64(read(text, count)?),
        Datatype::I8 => Data::I8(read(text, count)?),
        Datatype::I16 => Data::I16(read(text, count)?),
        Datatype::I32 => Data::I32(read(text, count)?),
        Datatype::I64 => Data::I64(read(text, count)?),
        Datatype::F32 => Data::F32(read(text, count)?),
        Datatype::F64 => Data::F64(read(text, count)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_nested_and_exact() {
        assert_eq!(
            parse(Datatype::F32, "[[1, 2.5], [-3e2, 0]]", 4).unwrap(),
            Data::F32(vec![1.0, 2.5, -300.0, 0.0])
        );
        let ids = "[9223372036854775807, -9223372036854775808]";
        assert_eq!(
            parse(Datatype::I64, ids, 2).unwrap(),
            Data::I64(vec![i64::MAX, i64::MIN])
        );
        assert_eq!(
            parse(Datatype::Bool, "[true,false]", 2).unwrap(),
            Data::Bool(vec![true, false])
        );
        assert_eq!(
            parse(Datatype::U64, "[18446744073709551615]", 1).unwrap(),
            Data::U64(vec![u64::MAX])
        );
    }

    #[test]
    fn refused() {
        for (datatype, text, count) in [
            (Datatype::I64, "[1.5]", 1),
            (Datatype::I64, "[9223372036854775808]", 1),
            (Datatype::I32, "[2147483648]", 1),
            (Datatype::U8, "[-1]", 1),
            (Datatype::F32, "[1e39]", 1),
            (Datatype::F64, "[1e999]", 1),
            (Datatype::F32, "[NaN]", 1),
            (Datatype::F32, "[null]", 1),
            (Datatype::F32, "[\"1\"]", 1),
            (Datatype::F32, "{\"a\":1}", 1),
            (Datatype::F32, "[1,2]", 1),
            (Datatype::F32, "[1]", 2),
            (Datatype::F32, "[1", 1),
            (Datatype::F32, "[true]", 1),
            (Datatype::Bool, "[1]", 1),
        ] {
            assert!(parse(datatype, text, count).is_err(), "{datatype:?} {text}");
        }
        assert!(parse(Datatype::F32, &"[".repeat(100_000), 1).is_err());
        assert!(parse(Datatype::F32, "[1]", usize::MAX).is_err());
    }
}
