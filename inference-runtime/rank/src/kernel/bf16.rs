//! Numbers in bf16: the upper half of an f32.
//!
//! A product in bf16 is one accumulator an output, an f32, filled in the order of K by fused multiply-adds, as in f32. Apart from that:
//! both factors are rounded to bf16 first, and a denormal is 0, as a factor, as a start, and as a sum. That is what
//! `vdpbf16ps` computes on two neighbours of K, the one in the upper half first (Intel's manual says so, and AMD's
//! processors do it), whatever modes of rounding and flushing the thread has.

use super::{InstructionSet, Rows, on_each_set};
use crate::tensor::widened;

/// Two neighbours of K as one instruction takes them: the first in the upper half.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair(u32);

const UPPER: u32 = 0xffff_0000;
const SIGN: u32 = 0x8000_0000;
const EXPONENT: u32 = 0x7f80_0000;

/// Bits of the number of 16 bits, to the nearest, ties to even, the lower half 0. A denormal is 0 of its sign, NaN stays NaN.
#[inline(always)]
fn rounded(x: f32) -> u32 {
    const QUIET: u32 = 0x0040_0000;
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    let nearest = if x.is_nan() { bits | QUIET } else { nearest };
    let nearest = if bits & EXPONENT == 0 {
        bits & SIGN
    } else {
        nearest
    };
    nearest & UPPER
}

impl Pair {
    /// Behind an odd K: a weight of -0, which changes no sum when the factor is 0, not even the sign of a sum of 0.
    pub(super) const BEYOND: f32 = -0.0;

    #[inline(always)]
    pub(super) fn new(first: f32, second: f32) -> Self {
        Self(rounded(first) | rounded(second) >> 16)
    }

    #[inline(always)]
    pub(super) fn first(self) -> f32 {
        f32::from_bits(self.0 & UPPER)
    }

    #[inline(always)]
    pub(super) fn second(self) -> f32 {
        f32::from_bits(self.0 << 16)
    }
}

/// The pairs that have the bits of these numbers.
pub fn pairs(floats: &[f32]) -> &[Pair] {
    // SAFETY: both have the same size and alignment, and any bits are one.
    unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), floats.len()) }
}

/// The other way round.
pub(super) fn floats(pairs: &[Pair]) -> &[f32] {
    // SAFETY: as in `pairs`.
    unsafe { std::slice::from_raw_parts(pairs.as_ptr().cast(), pairs.len()) }
}

/// As [`pairs`].
pub fn pairs_mut(floats: &mut [f32]) -> &mut [Pair] {
    // SAFETY: as in `pairs`.
    unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), floats.len()) }
}

/// One fused multiply-add that gives 0 instead of a denormal; `x` and `y` are no denormals. Tiny is a result that would be
/// below the least normal number if exponents had no end, as for every instruction of x86-64 that flushes.
#[inline(always)]
pub(super) fn multiply_add(x: f32, y: f32, sum: f32) -> f32 {
    /// The middle between the least normal number and the number of 24 bits before it.
    const TINY: f64 = f32::MIN_POSITIVE as f64 * (1.0 - 1.0 / (1_u64 << 25) as f64);
    let sum = flushed(sum);
    let result = x.mul_add(y, sum);
    // The product of 16 bits is exact. The sum may not be, but then its error is far below its distance from the limit.
    if result.abs() == f32::MIN_POSITIVE && (f64::from(x) * f64::from(y) + f64::from(sum)).abs() < TINY {
        return 0.0_f32.copysign(result);
    }
    flushed(result)
}

#[inline(always)]
fn flushed(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE {
        0.0_f32.copysign(x)
    } else {
        x
    }
}

/// Rounded rows: row `r` begins at `r * stride`.
#[derive(Clone, Copy, Debug)]
pub struct PairRows<'a> {
    pub pairs: &'a [Pair],
    pub stride: usize,
}

/// Where the columns of some rows go: from `at` on in every `depth` pairs.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    pub at: usize,
    pub depth: usize,
}

/// The first `k` numbers of each row, rounded. Gives where the columns end.
pub fn round(
    set: InstructionSet,
    a: Rows<'_>,
    [rows, k]: [usize; 2],
    to: Columns,
    pairs: &mut [Pair],
) -> usize {
    #[cfg(target_arch = "x86_64")]
    if set == InstructionSet::Avx512Bf16 {
        assert!(set.is_here(), "this machine has no {set}");
        // SAFETY: the machine has the instruction set.
        unsafe { x86::round(a, [rows, k], to, pairs) }
        return to.at + k.div_ceil(2);
    }
    by_bits(set, a, [rows, k], to, pairs);
    to.at + k.div_ceil(2)
}

on_each_set! {
    by_bits(a: Rows<'_>, sizes: [usize; 2], to: Columns, pairs: &mut [Pair]) = by_bits_body
}

#[inline(always)]
fn by_bits_body(a: Rows<'_>, [rows, k]: [usize; 2], to: Columns, pairs: &mut [Pair]) {
    for (row, pairs) in (0..rows).zip(pairs.chunks_exact_mut(to.depth.max(1))) {
        round_by_bits(a.row(row, k), &mut pairs[to.at..to.at + k.div_ceil(2)]);
    }
}

#[inline(always)]
pub(super) fn round_by_bits(row: &[f32], pairs: &mut [Pair]) {
    let (twos, rest) = row.as_chunks::<2>();
    for (pair, [first, second]) in pairs.iter_mut().zip(twos) {
        *pair = Pair::new(*first, *second);
    }
    if let (Some(pair), [first]) = (pairs.last_mut(), rest) {
        *pair = Pair::new(*first, 0.0);
    }
}

on_each_set! {
    /// Numbers by their upper halves.
    widen(halves: &[u16], out: &mut [f32]) = widen_body
}

#[inline(always)]
fn widen_body(halves: &[u16], out: &mut [f32]) {
    for (out, half) in out.iter_mut().zip(halves) {
        *out = widened(*half);
    }
}

/// The least magnitude of numbers that are not 0, as bits; all bits set where all are 0.
#[inline(always)]
pub(super) fn least(bits: u32, than: u32) -> u32 {
    // 0 becomes the largest.
    (bits & !SIGN).wrapping_sub(1).min(than)
}

on_each_set! {
    /// Into `found`: the least of all halves of the first `depth` pairs of each row.
    least_of(a: PairRows<'_>, rows: usize, depth: usize, found: &mut u32) = least_of_body
}

#[inline(always)]
fn least_of_body(a: PairRows<'_>, rows: usize, depth: usize, found: &mut u32) {
    let mut all = u32::MAX;
    for row in 0..rows {
        for pair in &a.pairs[row * a.stride..row * a.stride + depth] {
            all = least(pair.0 & UPPER, least(pair.0 << 16, all));
        }
    }
    *found = all;
}

on_each_set! {
    /// Into `found`: the least of the first `n` of each row.
    least_of_rows(start: Rows<'_>, rows: usize, n: usize, found: &mut u32) = least_of_rows_body
}

#[inline(always)]
fn least_of_rows_body(start: Rows<'_>, rows: usize, n: usize, found: &mut u32) {
    let mut all = u32::MAX;
    for row in 0..rows {
        for x in start.row(row, n) {
            all = least(x.to_bits(), all);
        }
    }
    *found = all;
}

/// Whether no denormal can arise, so that a plain multiply-add gives the same bits: with `a`, `b` and `start` the exponents of
/// the least factors and of the least start, products are multiples of 2^(a - 7) 2^(b - 7), starts of 2^(start - 23), and
/// so is every sum of them, rounded or not. Where both are at least 2^-126, no sum but 0 is less.
pub(super) fn stays_normal(a: u32, b: u32, start: u32) -> bool {
    // Exponents as they are stored: 127 more. `least` is one bit short, which may take one off.
    let exponent = |bits: u32| bits >> 23;
    exponent(a) + exponent(b) >= 2 * 127 + 14 - 126 && exponent(start) >= 127 + 23 - 126
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_loadu_ps, _mm512_mask_storeu_epi32,
        _mm512_maskz_loadu_ps, _mm512_rol_epi32, _mm512_storeu_si512,
    };

    use super::super::vector::LANES;
    use super::{Columns, Pair, Rows};

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub fn round(a: Rows<'_>, [rows, k]: [usize; 2], to: Columns, pairs: &mut [Pair]) {
        for (row, pairs) in (0..rows).zip(pairs.chunks_exact_mut(to.depth.max(1))) {
            round_row(a.row(row, k), &mut pairs[to.at..to.at + k.div_ceil(2)]);
        }
    }

    /// `pairs` are half as many, rounded up.
    #[target_feature(enable = "avx512f,avx512bf16")]
    #[inline]
    pub fn round_row(row: &[f32], pairs: &mut [Pair]) {
        let (whole, rest) = row.as_chunks::<{ 2 * LANES }>();
        let (pairs, last) = pairs.split_at_mut(whole.len() * LANES);
        for (x, pairs) in whole.iter().zip(pairs.as_chunks_mut::<LANES>().0) {
            // SAFETY: there are as many numbers and pairs.
            unsafe {
                let [low, high] = [x.as_ptr(), x.as_ptr().add(LANES)].map(|x| _mm512_loadu_ps(x));
                _mm512_storeu_si512(pairs.as_mut_ptr().cast(), two(low, high));
            }
        }
        if rest.is_empty() {
            return;
        }
        let first = |count: usize| u16::MAX.checked_shr((LANES - count) as u32).unwrap_or(0);
        let low = rest.len().min(LANES);
        // SAFETY: no more is read than `rest` has, what is behind it is 0, and no more is written than `last` has.
        unsafe {
            let high = _mm512_maskz_loadu_ps(first(rest.len() - low), rest.as_ptr().wrapping_add(low));
            let low = _mm512_maskz_loadu_ps(first(low), rest.as_ptr());
            _mm512_mask_storeu_epi32(last.as_mut_ptr().cast(), first(last.len()), two(low, high));
        }
    }

    /// The numbers of `low`, then those of `high`, in pairs.
    #[target_feature(enable = "avx512f,avx512bf16")]
    #[inline]
    fn two(low: __m512, high: __m512) -> __m512i {
        // SAFETY: the same bits by another name.
        let halves = unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) };
        // The instruction has the first of a pair in the lower half.
        _mm512_rol_epi32::<16>(halves)
    }
}

#[cfg(test)]
#[path = "bf16_tests.rs"]
mod tests;
