//! Tensors as the protocol and the engines see them: typed, row-major, contiguous.

/// Elements whose bits can be compared: 0 and -0 are not the same, a NaN and its copy are.
trait SameBits: Sized {
    fn same_bits(one: &[Self], other: &[Self]) -> bool;
}

macro_rules! equal_is_same {
    ($($rust:ty),*) => {$(
        impl SameBits for $rust {
            fn same_bits(one: &[Self], other: &[Self]) -> bool {
                one == other
            }
        }
    )*};
}
equal_is_same! { bool, u8, u16, u32, u64, i8, i16, i32, i64 }

macro_rules! equal_in_bits_is_same {
    ($($rust:ty),*) => {$(
        impl SameBits for $rust {
            fn same_bits(one: &[Self], other: &[Self]) -> bool {
                let differing = one
                    .iter()
                    .zip(other)
                    .fold(0, |bits, (a, b)| bits | (a.to_bits() ^ b.to_bits()));
                one.len() == other.len() && differing == 0
            }
        }
    )*};
}
equal_in_bits_is_same! { f32, f64 }

/// Data types of the protocol that a model may use.
macro_rules! datatypes {
    ($($variant:ident $rust:ty, $protocol:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Datatype { $($variant),* }

        impl Datatype {
            pub const ALL: &[Datatype] = &[$(Datatype::$variant),*];

            /// Name in the protocol.
            pub fn name(self) -> &'static str {
                match self { $(Datatype::$variant => $protocol),* }
            }

            /// Bytes of one element.
            pub fn size(self) -> usize {
                match self { $(Datatype::$variant => size_of::<$rust>()),* }
            }

            pub fn parse(name: &str) -> Option<Datatype> {
                match name { $($protocol => Some(Datatype::$variant),)* _ => None }
            }

            /// No elements yet, with room for `count`.
            pub fn with_capacity(self, count: usize) -> Data {
                match self { $(Datatype::$variant => Data::$variant(Vec::with_capacity(count))),* }
            }

            /// `count` elements of zero.
            pub fn zeros(self, count: usize) -> Data {
                match self { $(Datatype::$variant => Data::$variant(vec![<$rust>::default(); count])),* }
            }
        }

        #[derive(Clone, Debug, PartialEq)]
        pub enum Data { $($variant(Vec<$rust>)),* }

        impl Data {
            pub fn datatype(&self) -> Datatype {
                match self { $(Data::$variant(_) => Datatype::$variant),* }
            }

            /// Number of elements.
            pub fn count(&self) -> usize {
                match self { $(Data::$variant(values) => values.len()),* }
            }

            /// Appends the elements of another of the same datatype; `false` when it is of another one.
            pub fn append(&mut self, other: &Data) -> bool {
                match (self, other) {
                    $((Data::$variant(own), Data::$variant(more)) => own.extend_from_slice(more),)*
                    _ => return false,
                }
                true
            }

            /// Appends a range of another's elements; `false` when that is of another datatype or shorter.
            pub fn append_range(&mut self, other: &Data, range: std::ops::Range<usize>) -> bool {
                match (self, other) {
                    $((Data::$variant(own), Data::$variant(more)) => match more.get(range) {
                        Some(more) => own.extend_from_slice(more),
                        None => return false,
                    },)*
                    _ => return false,
                }
                true
            }

            /// The `columns` of each of `rows`, one after the other, of rows that are `width` long.
            pub fn cut(&self, width: usize, rows: &[usize], columns: &[std::ops::Range<usize>]) -> Data {
                let mut cut = self.datatype().with_capacity(rows.len() * columns.iter().map(|range| range.len()).sum::<usize>());
                match (&mut cut, self) {
                    $((Data::$variant(cut), Data::$variant(values)) => {
                        for row in rows {
                            for range in columns {
                                cut.extend_from_slice(&values[row * width + range.start..row * width + range.end]);
                            }
                        }
                    })*
                    _ => unreachable!("both are of one datatype"),
                }
                cut
            }

            /// Whether two rows have the same bits in `columns`.
            pub fn same(&self, width: usize, (one, other): (usize, usize), columns: &[std::ops::Range<usize>]) -> bool {
                match self {
                    $(Data::$variant(values) => columns.iter().all(|range| {
                        let of = |row: usize| &values[row * width + range.start..row * width + range.end];
                        SameBits::same_bits(of(one), of(other))
                    }),)*
                }
            }

            /// A copy of the elements in `range`; `None` when it reaches beyond them.
            pub fn copy_range(&self, range: std::ops::Range<usize>) -> Option<Data> {
                Some(match self { $(Data::$variant(values) => Data::$variant(values.get(range)?.to_vec())),* })
            }
        }
    };
}

datatypes! {
    Bool bool, "BOOL";
    U8 u8, "UINT8";
    U16 u16, "UINT16";
    U32 u32, "UINT32";
    U64 u64, "UINT64";
    I8 i8, "INT8";
    I16 i16, "INT16";
    I32 i32, "INT32";
    I64 i64, "INT64";
    F32 f32, "FP32";
    F64 f64, "FP64";
}

/// Runs `$body` with `$values` bound to the vector of any numeric (not BOOL) tensor, and `$bool` for BOOL.
#[macro_export]
macro_rules! with_numbers {
    ($data:expr, $values:ident => $body:expr, bool $bools:ident => $boolean:expr) => {
        match $data {
            $crate::engine::Data::Bool($bools) => $boolean,
            $crate::engine::Data::U8($values) => $body,
            $crate::engine::Data::U16($values) => $body,
            $crate::engine::Data::U32($values) => $body,
            $crate::engine::Data::U64($values) => $body,
            $crate::engine::Data::I8($values) => $body,
            $crate::engine::Data::I16($values) => $body,
            $crate::engine::Data::I32($values) => $body,
            $crate::engine::Data::I64($values) => $body,
            $crate::engine::Data::F32($values) => $body,
            $crate::engine::Data::F64($values) => $body,
        }
    };
}

impl Data {
    /// Floats in double precision; `None` of anything else.
    pub fn floats(&self) -> Option<Vec<f64>> {
        match self {
            Data::F32(values) => Some(values.iter().map(|value| f64::from(*value)).collect()),
            Data::F64(values) => Some(values.clone()),
            _ => None,
        }
    }

    /// Index of the first NaN or infinity.
    pub fn first_non_finite(&self) -> Option<usize> {
        match self {
            Data::F32(values) => first(values, |value| !value.is_finite()),
            Data::F64(values) => first(values, |value| !value.is_finite()),
            _ => None,
        }
    }

    /// Little-endian bytes, as in the binary tensor extension.
    pub fn to_bytes(&self, bytes: &mut Vec<u8>) {
        bytes.reserve(self.count() * self.datatype().size());
        with_numbers!(self,
            values => values.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes())),
            bool values => bytes.extend(values.iter().map(|value| u8::from(*value))))
    }

    /// Appends elements from their little-endian bytes.
    pub fn append_bytes(&mut self, bytes: &[u8]) {
        macro_rules! append {
            ($values:ident, $rust:ty) => {{
                let (elements, _) = bytes.as_chunks::<{ size_of::<$rust>() }>();
                $values.extend(
                    elements
                        .iter()
                        .map(|element| <$rust>::from_le_bytes(*element)),
                );
            }};
        }
        match self {
            Data::Bool(values) => values.extend(bytes.iter().map(|byte| *byte == 1)),
            Data::U8(values) => values.extend_from_slice(bytes),
            Data::U16(values) => append!(values, u16),
            Data::U32(values) => append!(values, u32),
            Data::U64(values) => append!(values, u64),
            Data::I8(values) => append!(values, i8),
            Data::I16(values) => append!(values, i16),
            Data::I32(values) => append!(values, i32),
            Data::I64(values) => append!(values, i64),
            Data::F32(values) => append!(values, f32),
            Data::F64(values) => append!(values, f64),
        }
    }
}

/// The first element that is `wrong`. Blocks are looked at as a whole, which takes a fraction of the time.
fn first<T: Copy>(values: &[T], wrong: impl Fn(T) -> bool) -> Option<usize> {
    const BLOCK: usize = 64;
    let any = |block: &[T]| block.iter().fold(false, |any, value| any | wrong(*value));
    let block = values.chunks(BLOCK).position(any)?;
    let inside = values[block * BLOCK..].iter().position(|value| wrong(*value))?;
    Some(block * BLOCK + inside)
}

/// Little-endian bytes into elements; `None` when the length is no multiple, or a BOOL is neither 0 nor 1.
pub fn from_bytes(datatype: Datatype, bytes: &[u8]) -> Option<Data> {
    let whole = bytes.len().is_multiple_of(datatype.size());
    if !whole || (datatype == Datatype::Bool && bytes.iter().any(|byte| *byte > 1)) {
        return None;
    }
    let mut data = datatype.with_capacity(bytes.len() / datatype.size());
    data.append_bytes(bytes);
    Some(data)
}

/// A tensor; `data.count()` is the product of `shape`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Data,
}

impl Tensor {
    /// What is left where a tensor was taken out.
    pub const EMPTY: Tensor = Tensor {
        shape: Vec::new(),
        data: Data::U8(Vec::new()),
    };

    /// The rows at `places`, in that order.
    pub fn rows(&self, places: &[usize]) -> Tensor {
        let width = self.shape[1..].iter().product();
        let mut shape = self.shape.clone();
        shape[0] = places.len();
        let data = self.data.cut(width, places, std::slice::from_ref(&(0..width)));
        Tensor { shape, data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_wrong_element_is_found() {
        for place in [0, 1, 63, 64, 130] {
            let mut values = vec![0.5_f32; 131];
            assert_eq!(Data::F32(values.clone()).first_non_finite(), None);
            values[place] = f32::NAN;
            values[130] = f32::INFINITY;
            assert_eq!(Data::F32(values).first_non_finite(), Some(place));
        }
    }

    #[test]
    fn bytes_round_trip_for_every_datatype() {
        for datatype in Datatype::ALL {
            assert_eq!(Datatype::parse(datatype.name()), Some(*datatype));
            let raw: Vec<u8> = (0..3 * datatype.size()).map(|i| u8::from(i % 2 == 0)).collect();
            let data = from_bytes(*datatype, &raw).unwrap();
            assert_eq!((data.count(), data.datatype()), (3, *datatype));
            let mut bytes = Vec::new();
            data.to_bytes(&mut bytes);
            assert_eq!(bytes, raw);
            if datatype.size() > 1 {
                assert!(from_bytes(*datatype, &raw[1..]).is_none());
            }
        }
        assert!(from_bytes(Datatype::Bool, &[2]).is_none());
    }
}
