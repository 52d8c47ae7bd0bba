//! FP32 kept in half the memory: the upper 16 bits, rounded to nearest even.

/// Little-endian bytes of finite values; an error is the index of one that is beyond the range.
pub fn bytes(values: &[f32]) -> Result<Vec<u8>, usize> {
    let mut bytes = Vec::with_capacity(2 * values.len());
    for (index, value) in values.iter().enumerate() {
        let bits = value.to_bits();
        let rounded = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff_0000;
        if !f32::from_bits(rounded).is_finite() {
            return Err(index);
        }
        bytes.extend_from_slice(&rounded.to_le_bytes()[2..]);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounded_to_nearest_even() {
        let kept = |value: f32| {
            let half = bytes(&[value]).unwrap().try_into().unwrap();
            rank::tensor::widened(u16::from_le_bytes(half)).to_bits()
        };
        for (bits, expected) in [
            (0, 0),
            (0x8000_0000, 0x8000_0000),
            (0x3f80_7fff, 0x3f80_0000),
            (0x3f80_8000, 0x3f80_0000),
            (0x3f80_8001, 0x3f81_0000),
            (0x3f81_8000, 0x3f82_0000),
            (0xbf81_8000, 0xbf82_0000),
            (0x3fff_ffff, 0x4000_0000),
            (0x0000_ffff, 0x0001_0000),
            (0x7f7f_7fff, 0x7f7f_0000),
        ] {
            assert_eq!(kept(f32::from_bits(bits)), expected, "{bits:08x}");
        }
        assert_eq!(bytes(&[1.0, f32::MAX]), Err(1));
    }
}
