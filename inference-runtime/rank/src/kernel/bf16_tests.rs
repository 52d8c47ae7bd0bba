use super::*;
use crate::kernel::product::tests::numbers;

/// Every kind of number: those of all sizes, and those of which products are close to the least normal number.
fn all_kinds(count: usize, seed: u32) -> Vec<f32> {
    let mut all = numbers(count, seed, true);
    for (at, x) in all.iter_mut().enumerate() {
        match at % 3 {
            0 => *x *= 2.0_f32.powi(-63),
            1 => *x = f32::from_bits(x.to_bits().rotate_left(u32::try_from(at).unwrap())),
            _ => {}
        }
    }
    all
}

#[test]
fn numbers_are_rounded_to_the_nearest_of_16_bits() {
    let bits = |x: u32| rounded(f32::from_bits(x)) >> 16;
    // Just below, at and above the middle, after an even and after an odd number.
    assert_eq!(
        [0x3f80_7fff, 0x3f80_8000, 0x3f80_8001].map(bits),
        [0x3f80, 0x3f80, 0x3f81]
    );
    assert_eq!(
        [0x3f81_7fff, 0x3f81_8000, 0x3f81_8001].map(bits),
        [0x3f81, 0x3f82, 0x3f82]
    );
    assert_eq!([0x7f7f_ffff, 0xff80_0000].map(bits), [0x7f80, 0xff80], "infinity");
    // Which NaN is not promised, but it is not infinity.
    for nan in [0x7f80_0001, 0xff80_0001, 0x7fc0_0000, 0x7fff_ffff] {
        assert!(f32::from_bits(rounded(f32::from_bits(nan))).is_nan(), "{nan:x}");
    }
    assert_eq!(
        [0x007f_ffff, 0x807f_ffff, 0x8000_0000].map(bits),
        [0, 0x8000, 0x8000]
    );
    assert_eq!(bits(0x0080_0000), 0x0080, "the least normal number stays");
}

#[test]
fn every_instruction_set_rounds_rows_alike() {
    for k in [1_usize, 2, 3, 31, 32, 33, 48, 97] {
        let (rows, stride, depth) = (3, k + 2, k.div_ceil(2));
        let data = all_kinds(rows * stride, 7);
        let a = Rows::new(&data, stride);
        // A pair of others on both sides.
        let mut expected = Vec::new();
        for row in 0..rows {
            let pairs = a.row(row, k).chunks(2);
            expected.push(Pair(1));
            expected.extend(pairs.map(|x| Pair::new(x[0], x.get(1).copied().unwrap_or(0.0))));
            expected.push(Pair(1));
        }
        for set in InstructionSet::available() {
            let mut got = vec![Pair(1); expected.len()];
            let to = Columns {
                at: 1,
                depth: depth + 2,
            };
            assert_eq!(round(set, a, [rows, k], to, &mut got), depth + 1);
            assert_eq!(got, expected, "{set}, {k}");
        }
    }
}

#[test]
fn the_least_number_is_found() {
    let pairs = [
        Pair::new(0.0, -3.0),
        Pair::new(-0.25, f32::NAN),
        Pair::new(-0.0, 1.0),
    ];
    for set in InstructionSet::available() {
        let mut found = 0;
        let rows = |stride: usize| PairRows {
            pairs: &pairs,
            stride,
        };
        least_of(set, rows(1), 3, 1, &mut found);
        assert_eq!(found, 0.25_f32.to_bits() - 1, "{set}");
        least_of(set, rows(2), 2, 1, &mut found);
        assert_eq!(found, 1.0_f32.to_bits() - 1, "{set}");
        let data = [1.0, -0.5, 0.0, 0.125, 1.0, 1e-40];
        least_of_rows(set, Rows::new(&data, 3), 2, 2, &mut found);
        assert_eq!(found, 0.125_f32.to_bits() - 1, "{set}");
        least_of(set, rows(1), 0, 1, &mut found);
        assert_eq!(found, u32::MAX, "{set}");
    }
}

/// Where a plain multiply-add is said to do, no sum is denormal and none was flushed.
#[test]
fn sums_that_stay_normal_need_no_flush() {
    let power = |e: i32| f32::from_bits(u32::try_from(e + 127).unwrap() << 23);
    let of = |x: f32| least(x.to_bits(), u32::MAX);
    assert!(stays_normal(of(power(-55)), of(power(-55)), of(power(-101))));
    assert!(stays_normal(u32::MAX, of(1.0), u32::MAX));
    for (a, b, start) in [(-56, -57, 0), (-126, 0, 0), (0, -126, 0), (0, 0, -104)] {
        assert!(!stays_normal(of(power(a)), of(power(b)), of(power(start))));
    }
    let (a, b) = (all_kinds(4096, 1), all_kinds(4096, 2));
    let sums = all_kinds(4096, 3);
    let mut plain = 0;
    for (at, sum) in sums.iter().enumerate() {
        for other in [0, 1, 2] {
            let pair = Pair::new(a[at], b[(at + other) % b.len()]);
            let (x, y) = (pair.first(), pair.second());
            if stays_normal(of(x), of(y), of(*sum)) {
                let (got, expected) = (multiply_add(x, y, *sum), x.mul_add(y, *sum));
                assert!(got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan()));
                plain += 1;
            }
        }
    }
    assert!(plain > 1000, "{plain}");
}

/// The instruction itself, one lane.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn dot(sum: f32, x: Pair, y: Pair) -> f32 {
    use std::arch::x86_64::{_mm512_cvtss_f32, _mm512_dpbf16_ps, _mm512_set1_epi32, _mm512_set1_ps};
    let [x, y] = [x, y].map(|pair| {
        let all = _mm512_set1_epi32(pair.0.cast_signed());
        // SAFETY: the same bits by another name.
        unsafe { std::mem::transmute(all) }
    });
    _mm512_cvtss_f32(_mm512_dpbf16_ps(_mm512_set1_ps(sum), x, y))
}

/// What the definition says, bit by bit, where the machine has the instruction.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_instruction_computes_what_is_defined() {
    if !InstructionSet::Avx512Bf16.is_here() {
        return;
    }
    let check = |sum: f32, x: Pair, y: Pair| {
        // SAFETY: the machine has the instruction.
        let got = unsafe { dot(sum, x, y) };
        let expected = multiply_add(x.first(), y.first(), sum);
        let expected = multiply_add(x.second(), y.second(), expected);
        assert!(
            got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan()),
            "{sum:e} + {x:?} * {y:?} is {got:e}, not {expected:e}"
        );
    };
    const COUNT: usize = 50_000;
    let numbers: Vec<f32> = all_kinds(COUNT + 4, 4);
    for at in numbers.windows(5) {
        check(at[0], Pair::new(at[1], at[2]), Pair::new(at[3], at[4]));
    }
    // Just below the least normal number: 2^-126 less m 2^-e.
    for e in 148..156 {
        for m in 128..256 {
            let m = m as f32 / 128.0;
            let y = Pair::new(2.0_f32.powi(-70), 0.0);
            for (x, sum) in [(-m, f32::MIN_POSITIVE), (m, -f32::MIN_POSITIVE)] {
                check(sum, Pair::new(x * 2.0_f32.powi(70 - e), 0.0), y);
            }
        }
    }
}
