//! `.npy` files, as `numpy.save` writes them: one array a file, behind a short header.
//! The format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::path::Path;

use crate::engine::Datatype;

/// An array as it lies in a file; `bytes` are row-major and little-endian.
#[derive(Debug, PartialEq)]
pub struct Array {
    pub datatype: Datatype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

const MAGIC: &[u8] = b"\x93NUMPY";

/// Reads a file. The error says what is wrong, and how the array is saved instead.
pub fn read(path: &Path) -> Result<Array, String> {
    parse(std::fs::read(path).map_err(|error| error.to_string())?)
}

pub fn parse(mut content: Vec<u8>) -> Result<Array, String> {
    let (header, start) = header(&content).ok_or("is not an .npy file; write it with numpy.save")?;
    let descr =
        quoted(header, "descr").ok_or("its elements are no numbers; save a plain array of numbers")?;
    let datatype = datatype(descr).ok_or_else(|| {
        format!("its elements are {descr:?}; save integers, floats or booleans, little-endian")
    })?;
    if value(header, "fortran_order").is_none_or(|value| !value.starts_with("False")) {
        return Err("is in Fortran's order; save numpy.ascontiguousarray of it".to_owned());
    }
    let shape = value(header, "shape")
        .and_then(sizes)
        .ok_or("its shape cannot be read; write it with numpy.save")?;
    content.drain(..start);
    let expected = shape
        .iter()
        .try_fold(datatype.size(), |bytes, size| bytes.checked_mul(*size));
    if expected != Some(content.len()) {
        return Err(format!(
            "has {} bytes of elements, which is not what shape {shape:?} needs; write it again",
            content.len()
        ));
    }
    Ok(Array {
        datatype,
        shape,
        bytes: content,
    })
}

/// The header's text, and where the elements begin.
fn header(content: &[u8]) -> Option<(&str, usize)> {
    let rest = content.strip_prefix(MAGIC)?;
    let (version, rest) = rest.split_first_chunk::<2>()?;
    let (length, rest) = match version[0] {
        1 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk::<4>()?;
            (usize::try_from(u32::from_le_bytes(*length)).ok()?, rest)
        }
        _ => return None,
    };
    let header = std::str::from_utf8(rest.get(..length)?).ok()?;
    Some((header, content.len() - rest.len() + length))
}

/// What stands behind a key of the header, which is a Python dictionary.
fn value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{key}':"))?;
    Some(rest.trim_start())
}

fn quoted<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    value(header, key)?.strip_prefix('\'')?.split('\'').next()
}

/// `(3, 4)`, `(3,)` or `()`.
fn sizes(text: &str) -> Option<Vec<usize>> {
    let (inside, _) = text.strip_prefix('(')?.split_once(')')?;
    let parts = inside.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().ok()).collect()
}

fn datatype(descr: &str) -> Option<Datatype> {
    Some(match descr {
        "|b1" => Datatype::Bool,
        "|u1" => Datatype::U8,
        "<u2" => Datatype::U16,
        "<u4" => Datatype::U32,
        "<u8" => Datatype::U64,
        "|i1" => Datatype::I8,
        "<i2" => Datatype::I16,
        "<i4" => Datatype::I32,
        "<i8" => Datatype::I64,
        "<f4" => Datatype::F32,
        "<f8" => Datatype::F64,
        _ => return None,
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A file as `numpy.save` writes it.
    pub fn file(descr: &str, fortran: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
        let mut header = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}");
        while !(MAGIC.len() + 4 + header.len() + 1).is_multiple_of(64) {
            header.push(' ');
        }
        header.push('\n');
        let mut content = MAGIC.to_vec();
        content.extend([1, 0]);
        content.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
        content.extend(header.bytes());
        content.extend(bytes);
        content
    }

    #[test]
    fn shapes_and_types() {
        for (descr, shape, bytes, datatype, sizes) in [
            ("<f4", "(2, 3)", 24, Datatype::F32, vec![2, 3]),
            ("<i8", "(2,)", 16, Datatype::I64, vec![2]),
            ("<i4", "(0, 7)", 0, Datatype::I32, vec![0, 7]),
            ("|b1", "()", 1, Datatype::Bool, vec![]),
        ] {
            let bytes: Vec<u8> = (0..bytes).map(|byte| byte % 2).collect();
            let array = parse(file(descr, "False", shape, &bytes)).unwrap();
            assert_eq!(
                array,
                Array {
                    datatype,
                    shape: sizes,
                    bytes
                }
            );
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = file("<f4", "False", "(1, 2)", &[0; 8]);
        for length in [0, 5, 9, 40, good.len() - 1] {
            assert!(parse(good[..length].to_vec()).is_err(), "{length}");
        }
        for (content, named) in [
            (file("<f2", "False", "(2,)", &[0; 4]), "\"<f2\""),
            (file(">f4", "False", "(1,)", &[0; 4]), "little-endian"),
            (file("<f4", "True", "(1,)", &[0; 4]), "ascontiguousarray"),
            (file("<f4", "False", "(3,)", &[0; 8]), "[3]"),
            (
                file("<f4", "False", "(9223372036854775807, 9)", &[0; 8]),
                "write it again",
            ),
            (file("<f4", "False", "(-1,)", &[0; 8]), "shape"),
            (b"PK\x03\x04 a zip".to_vec(), "numpy.save"),
        ] {
            let error = parse(content).unwrap_err();
            assert!(error.contains(named), "{named}: {error}");
        }
    }
}
