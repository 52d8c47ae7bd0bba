//! What one multiplication of a product is, and what it takes.

use std::marker::PhantomData;

use super::bf16::{self, Pair};
use super::vector::{LANES, Portable, Vector};

/// Every method is `unsafe` for the reasons that those of [`Vector`] are.
pub trait Arithmetic {
    type Sums: Vector;
    /// What a multiplication takes of a row, and of each column of weights: 32 bits.
    type Unit: Copy;
    /// Weights of 16 columns.
    type Line: Copy;
    /// Whether results may be rounded.
    const ROUNDS: bool = true;
    /// Rows that the accumulators of a whole tile stand for: at most six.
    const ROWS: usize = 6;

    unsafe fn line(from: *const Self::Unit) -> Self::Line;
    /// `sums + x * line`, `x` the same for all lanes.
    unsafe fn multiply_add(sums: Self::Sums, x: *const Self::Unit, line: Self::Line) -> Self::Sums;

    /// As [`bf16::round`].
    ///
    /// # Safety
    /// The machine has the instruction set.
    #[inline(always)]
    unsafe fn round(row: &[f32], pairs: &mut [Pair]) {
        bf16::round_by_bits(row, pairs);
    }
}

/// One number a time.
pub struct F32<V>(PhantomData<V>);

impl<V: Vector> Arithmetic for F32<V> {
    type Sums = V;
    type Unit = f32;
    type Line = V;
    const ROUNDS: bool = false;

    #[inline(always)]
    unsafe fn line(from: *const f32) -> V {
        // SAFETY: the caller's.
        unsafe { V::load(from) }
    }

    #[inline(always)]
    unsafe fn multiply_add(sums: V, x: *const f32, line: V) -> V {
        // SAFETY: the caller's.
        unsafe { sums.multiply_add(x, line) }
    }
}

/// In bf16, whatever numbers come: the definition.
pub struct ExactBf16;

impl Arithmetic for ExactBf16 {
    type Sums = Portable;
    type Unit = Pair;
    type Line = [Pair; LANES];

    #[inline(always)]
    unsafe fn line(from: *const Pair) -> Self::Line {
        // SAFETY: the caller vouches for LANES pairs.
        unsafe { from.cast::<Self::Line>().read() }
    }

    #[inline(always)]
    unsafe fn multiply_add(mut sums: Portable, x: *const Pair, line: Self::Line) -> Portable {
        // SAFETY: the caller vouches for `x`.
        let x = unsafe { *x };
        for (sum, y) in sums.0.iter_mut().zip(line) {
            *sum = bf16::multiply_add(x.first(), y.first(), *sum);
            *sum = bf16::multiply_add(x.second(), y.second(), *sum);
        }
        sums
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2Bf16, Avx512AsBf16, Avx512Bf16};

#[cfg(target_arch = "x86_64")]
mod x86 {
    // SAFETY of all blocks here: the trait's contract, which is that of the instructions used.
    use std::arch::x86_64::{
        __m256, __m256i, __m512, __m512bh, __m512i, _mm256_and_si256, _mm256_castsi256_ps, _mm256_fmadd_ps,
        _mm256_load_si256, _mm256_set1_epi32, _mm256_slli_epi32, _mm512_and_si512, _mm512_castsi512_ps,
        _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_load_si512, _mm512_set1_epi32, _mm512_slli_epi32,
    };

    use super::super::bf16::x86::round_row;
    use super::super::vector::{Avx2, Avx512};
    use super::{Arithmetic, Pair};

    const UPPER: i32 = -0x1_0000;

    /// Where [`super::bf16::stays_normal`]: each half as an f32, by a plain multiply-add.
    pub struct Avx2Bf16;

    #[target_feature(enable = "avx2")]
    #[inline]
    fn halves_of_8(pairs: __m256i) -> [__m256; 2] {
        let first = _mm256_and_si256(pairs, _mm256_set1_epi32(UPPER));
        let second = _mm256_slli_epi32::<16>(pairs);
        [_mm256_castsi256_ps(first), _mm256_castsi256_ps(second)]
    }

    impl Arithmetic for Avx2Bf16 {
        type Sums = Avx2;
        type Unit = Pair;
        type Line = [__m256i; 2];
        // The halves of both factors need registers as well.
        const ROWS: usize = 4;

        #[inline(always)]
        unsafe fn line(from: *const Pair) -> Self::Line {
            unsafe {
                let from = from.cast::<__m256i>();
                [_mm256_load_si256(from), _mm256_load_si256(from.add(1))]
            }
        }

        #[inline(always)]
        unsafe fn multiply_add(mut sums: Avx2, x: *const Pair, line: Self::Line) -> Avx2 {
            unsafe {
                let x = halves_of_8(_mm256_set1_epi32(x.cast::<i32>().read()));
                let (left, right) = (halves_of_8(line[0]), halves_of_8(line[1]));
                for half in 0..2 {
                    sums.0 = _mm256_fmadd_ps(x[half], left[half], sums.0);
                    sums.1 = _mm256_fmadd_ps(x[half], right[half], sums.1);
                }
                sums
            }
        }
    }

    /// As [`Avx2Bf16`].
    pub struct Avx512AsBf16;

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn halves_of_16(pairs: __m512i) -> [__m512; 2] {
        let first = _mm512_and_si512(pairs, _mm512_set1_epi32(UPPER));
        let second = _mm512_slli_epi32::<16>(pairs);
        [_mm512_castsi512_ps(first), _mm512_castsi512_ps(second)]
    }

    impl Arithmetic for Avx512AsBf16 {
        type Sums = Avx512;
        type Unit = Pair;
        type Line = __m512i;

        #[inline(always)]
        unsafe fn line(from: *const Pair) -> __m512i {
            unsafe { _mm512_load_si512(from.cast()) }
        }

        #[inline(always)]
        unsafe fn multiply_add(mut sums: Avx512, x: *const Pair, line: __m512i) -> Avx512 {
            unsafe {
                let x = halves_of_16(_mm512_set1_epi32(x.cast::<i32>().read()));
                let line = halves_of_16(line);
                for half in 0..2 {
                    sums.0 = _mm512_fmadd_ps(x[half], line[half], sums.0);
                }
                sums
            }
        }
    }

    /// Two multiply-adds in one instruction.
    pub struct Avx512Bf16;

    impl Arithmetic for Avx512Bf16 {
        type Sums = Avx512;
        type Unit = Pair;
        type Line = __m512i;

        #[inline(always)]
        unsafe fn line(from: *const Pair) -> __m512i {
            unsafe { _mm512_load_si512(from.cast()) }
        }

        #[inline(always)]
        unsafe fn multiply_add(sums: Avx512, x: *const Pair, line: __m512i) -> Avx512 {
            unsafe {
                let x = _mm512_set1_epi32(x.cast::<i32>().read());
                // The same bits by another name.
                let x = std::mem::transmute::<__m512i, __m512bh>(x);
                let line = std::mem::transmute::<__m512i, __m512bh>(line);
                Avx512(_mm512_dpbf16_ps(sums.0, x, line))
            }
        }

        #[inline(always)]
        unsafe fn round(row: &[f32], pairs: &mut [Pair]) {
            unsafe { round_row(row, pairs) }
        }
    }
}
