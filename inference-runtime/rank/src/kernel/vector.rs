//! Sixteen floats, as each instruction set holds them.

/// The width of a panel of packed weights, and of a vector on every instruction set.
pub const LANES: usize = 16;

/// Every method is `unsafe` for the same two reasons: the machine must have the instruction set, and pointers must be good
/// for [`LANES`] floats.
pub trait Vector: Copy {
    unsafe fn zero() -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `self + x * y`, rounded once, `x` the same for all lanes.
    unsafe fn multiply_add(self, x: *const f32, y: Self) -> Self;
    /// 0 where a lane is below 0; NaN and -0 stay.
    unsafe fn relu(self) -> Self;

    /// The first `count` lanes, the rest 0.
    ///
    /// # Safety
    /// `from` is good for `count` floats.
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        let mut lanes = [0.0_f32; LANES];
        // SAFETY: `count` is at most LANES, and the caller vouches for `from`.
        unsafe {
            std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count.min(LANES));
            Self::load(lanes.as_ptr())
        }
    }

    /// # Safety
    /// `to` is good for `count` floats.
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        let mut lanes = [0.0_f32; LANES];
        // SAFETY: as in `load_first`.
        unsafe {
            self.store(lanes.as_mut_ptr());
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, count.min(LANES));
        }
    }
}

#[derive(Clone, Copy)]
pub struct Portable(pub(super) [f32; LANES]);

impl Vector for Portable {
    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; LANES])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for LANES floats; an array of f32 needs no more alignment than they.
        Self(unsafe { from.cast::<[f32; LANES]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as in `load`.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn multiply_add(mut self, x: *const f32, y: Self) -> Self {
        // SAFETY: the caller vouches for `x`.
        let x = unsafe { *x };
        for (sum, y) in self.0.iter_mut().zip(y.0) {
            *sum = x.mul_add(y, *sum);
        }
        self
    }

    #[inline(always)]
    unsafe fn relu(mut self) -> Self {
        for lane in &mut self.0 {
            *lane = crate::interpret::math::relu(*lane);
        }
        self
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    // SAFETY of all blocks here: the trait's contract, which is that of the instructions used.
    use super::{LANES, Vector};
    use std::arch::x86_64::{
        __m256, __m512, _CMP_LT_OQ, _CMP_NLT_UQ, _mm256_andnot_ps, _mm256_broadcast_ss, _mm256_cmp_ps,
        _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps, _mm256_storeu_ps, _mm512_cmp_ps_mask,
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_maskz_mov_ps, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_storeu_ps,
    };

    const HALF: usize = LANES / 2;

    #[derive(Clone, Copy)]
    pub struct Avx2(pub(in crate::kernel) __m256, pub(in crate::kernel) __m256);

    impl Vector for Avx2 {
        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { Self(_mm256_setzero_ps(), _mm256_setzero_ps()) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(HALF))) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe {
                _mm256_storeu_ps(to, self.0);
                _mm256_storeu_ps(to.add(HALF), self.1);
            }
        }

        #[inline(always)]
        unsafe fn multiply_add(self, x: *const f32, y: Self) -> Self {
            unsafe {
                let x = _mm256_broadcast_ss(&*x);
                Self(_mm256_fmadd_ps(x, y.0, self.0), _mm256_fmadd_ps(x, y.1, self.1))
            }
        }

        #[inline(always)]
        unsafe fn relu(self) -> Self {
            unsafe {
                let zero = _mm256_setzero_ps();
                let below = Self(
                    _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, zero),
                    _mm256_cmp_ps::<_CMP_LT_OQ>(self.1, zero),
                );
                Self(
                    _mm256_andnot_ps(below.0, self.0),
                    _mm256_andnot_ps(below.1, self.1),
                )
            }
        }
    }

    #[derive(Clone, Copy)]
    pub struct Avx512(pub(in crate::kernel) __m512);

    impl Vector for Avx512 {
        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { Self(_mm512_setzero_ps()) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { Self(_mm512_loadu_ps(from)) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn multiply_add(self, x: *const f32, y: Self) -> Self {
            unsafe { Self(_mm512_fmadd_ps(_mm512_set1_ps(*x), y.0, self.0)) }
        }

        #[inline(always)]
        unsafe fn relu(self) -> Self {
            unsafe {
                let kept = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(self.0, _mm512_setzero_ps());
                Self(_mm512_maskz_mov_ps(kept, self.0))
            }
        }
    }
}
