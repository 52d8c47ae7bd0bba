//! TensorProto to [`Tensor`] and back.

use super::ExternalData;
use super::proto::TensorProto;
use crate::tensor::{Data, Element, Tensor};

/// TensorProto.DataType
pub mod datatype {
    pub const FLOAT: i32 = 1;
    pub const INT32: i32 = 6;
    pub const INT64: i32 = 7;
    pub const BOOL: i32 = 9;
}

const EXTERNAL: i32 = 1;

pub fn element(datatype: i32) -> Result<Element, String> {
    match datatype {
        datatype::FLOAT => Ok(Element::F32),
        datatype::INT32 => Ok(Element::I32),
        datatype::INT64 => Ok(Element::I64),
        datatype::BOOL => Ok(Element::Bool),
        other => Err(format!(
            "element type {} is not taken; cast it to FLOAT, INT64, INT32 or BOOL",
            name(other)
        )),
    }
}

pub fn datatype_of(element: Element) -> i32 {
    match element {
        Element::F32 => datatype::FLOAT,
        Element::I32 => datatype::INT32,
        Element::I64 => datatype::INT64,
        Element::Bool => datatype::BOOL,
    }
}

fn name(datatype: i32) -> String {
    const NAMES: [&str; 17] = [
        "UNDEFINED",
        "FLOAT",
        "UINT8",
        "INT8",
        "UINT16",
        "INT16",
        "INT32",
        "INT64",
        "STRING",
        "BOOL",
        "FLOAT16",
        "DOUBLE",
        "UINT32",
        "UINT64",
        "COMPLEX64",
        "COMPLEX128",
        "BFLOAT16",
    ];
    let known = usize::try_from(datatype).ok().and_then(|at| NAMES.get(at));
    known.map_or_else(|| datatype.to_string(), ToString::to_string)
}

/// Bytes of one element in a file.
fn width(element: Element) -> usize {
    match element {
        Element::F32 | Element::I32 => 4,
        Element::I64 => 8,
        Element::Bool => 1,
    }
}

pub fn decode(proto: &TensorProto, external: &dyn ExternalData) -> Result<Tensor, String> {
    let element = element(proto.data_type)?;
    let shape: Option<Vec<usize>> = proto
        .dims
        .iter()
        .map(|size| usize::try_from(*size).ok())
        .collect();
    let shape = shape.ok_or_else(|| format!("has a negative size: {:?}", proto.dims))?;
    let count = shape
        .iter()
        .try_fold(1_usize, |count, size| count.checked_mul(*size));
    let bytes = count.and_then(|count| count.checked_mul(width(element)));
    let (Some(count), Some(bytes)) = (count, bytes) else {
        return Err(format!("is too large: {shape:?}"));
    };
    let data = if proto.data_location == EXTERNAL {
        from_bytes(element, &read_external(proto, external, bytes)?)
    } else if let Some(raw) = &proto.raw_data {
        if raw.len() != bytes {
            return Err(format!(
                "has {} bytes, {bytes} are needed for {shape:?}",
                raw.len()
            ));
        }
        from_bytes(element, raw)
    } else {
        typed(element, proto)
    };
    if data.len() != count {
        return Err(format!(
            "has {} elements, {count} are needed for {shape:?}",
            data.len()
        ));
    }
    Ok(Tensor { element, shape, data })
}

fn read_external(proto: &TensorProto, external: &dyn ExternalData, bytes: usize) -> Result<Vec<u8>, String> {
    let entry = |key: &str| {
        proto
            .external_data
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| entry.value.as_str())
    };
    let number = |key: &str| {
        let parse = |text: &str| {
            text.parse::<u64>()
                .map_err(|_| format!("has external data with {key} {text:?}"))
        };
        entry(key).map(parse).transpose()
    };
    let location = entry("location").ok_or("has external data without a location")?;
    let content = external.read(location, number("offset")?.unwrap_or(0), number("length")?)?;
    if content.len() != bytes {
        return Err(format!(
            "has {} bytes in {location:?}, {bytes} are needed",
            content.len()
        ));
    }
    Ok(content)
}

fn from_bytes(element: Element, bytes: &[u8]) -> Data {
    macro_rules! numbers {
        ($type:ty) => {
            bytes
                .as_chunks::<{ size_of::<$type>() }>()
                .0
                .iter()
                .map(|chunk| <$type>::from_le_bytes(*chunk))
        };
    }
    match element {
        Element::F32 => Data::F32(numbers!(f32).collect()),
        Element::I64 => Data::Int(numbers!(i64).collect()),
        Element::I32 => Data::Int(numbers!(i32).map(i64::from).collect()),
        Element::Bool => Data::Bool(bytes.iter().map(|byte| *byte != 0).collect()),
    }
}

fn typed(element: Element, proto: &TensorProto) -> Data {
    match element {
        Element::F32 => Data::F32(proto.float_data.clone()),
        Element::I64 => Data::Int(proto.int64_data.clone()),
        Element::I32 => Data::Int(proto.int32_data.iter().map(|value| i64::from(*value)).collect()),
        Element::Bool => Data::Bool(proto.int32_data.iter().map(|value| *value != 0).collect()),
    }
}

pub fn encode(name: &str, tensor: &Tensor) -> TensorProto {
    let raw: Vec<u8> = match &tensor.data {
        Data::Bf16(_) => return encode(name, &tensor.clone().into_wide()),
        Data::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Data::Int(values) if tensor.element == Element::I32 => values
            .iter()
            .flat_map(|value| {
                i32::try_from(*value)
                    .expect("32-bit integers are kept in range")
                    .to_le_bytes()
            })
            .collect(),
        Data::Int(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Data::Bool(values) => values.iter().map(|value| u8::from(*value)).collect(),
    };
    TensorProto {
        name: name.to_owned(),
        dims: tensor
            .shape
            .iter()
            .map(|size| i64::try_from(*size).unwrap_or(i64::MAX))
            .collect(),
        data_type: datatype_of(tensor.element),
        raw_data: Some(raw.into()),
        ..TensorProto::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::NoExternalData;
    use super::super::proto::StringStringEntryProto;
    use super::*;

    struct File(Vec<u8>);

    impl ExternalData for File {
        fn read(&self, _: &str, offset: u64, length: Option<u64>) -> Result<Vec<u8>, String> {
            let start = usize::try_from(offset).unwrap();
            let end = length.map_or(self.0.len(), |length| start + usize::try_from(length).unwrap());
            Ok(self.0[start..end].to_vec())
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for tensor in [
            Tensor::f32(vec![2, 2], vec![1.0, -2.5, f32::NAN, 0.0]),
            Tensor::i64(vec![3], vec![1, i64::MIN, 3]),
            Tensor::int(Element::I32, vec![1], vec![-7]),
            Tensor::bool(vec![2], vec![true, false]),
            Tensor::scalar(4.0),
        ] {
            let read = decode(&encode("t", &tensor), &NoExternalData).unwrap();
            assert_eq!(format!("{read:?}"), format!("{tensor:?}"));
        }
    }

    #[test]
    fn sizes_that_lie_are_refused() {
        let mut proto = encode("t", &Tensor::f32(vec![2], vec![1.0, 2.0]));
        proto.dims = vec![3];
        assert_eq!(
            decode(&proto, &NoExternalData).unwrap_err(),
            "has 8 bytes, 12 are needed for [3]"
        );
        proto.dims = vec![-3];
        assert!(decode(&proto, &NoExternalData).unwrap_err().contains("negative"));
        proto.dims = vec![i64::MAX, i64::MAX];
        assert!(decode(&proto, &NoExternalData).unwrap_err().contains("too large"));
        proto.data_type = 10;
        assert!(decode(&proto, &NoExternalData).unwrap_err().contains("FLOAT16"));
    }

    #[test]
    fn external_data_comes_through_the_reader_alone() {
        let entry = |key: &str, value: &str| StringStringEntryProto {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        let proto = TensorProto {
            dims: vec![1],
            data_type: datatype::FLOAT,
            data_location: EXTERNAL,
            external_data: vec![
                entry("location", "weights.bin"),
                entry("offset", "4"),
                entry("length", "4"),
            ],
            ..TensorProto::default()
        };
        let file = File([1.0_f32.to_le_bytes(), 2.0_f32.to_le_bytes()].concat());
        assert_eq!(decode(&proto, &file).unwrap(), Tensor::f32(vec![1], vec![2.0]));
        assert!(
            decode(&proto, &NoExternalData)
                .unwrap_err()
                .contains("weights.bin")
        );
    }
}
