//! Rows by panels of weights, as many at a time as there are registers for their sums.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::super::arithmetic::{Arithmetic, ExactBf16, F32};
#[cfg(target_arch = "x86_64")]
use super::super::arithmetic::{Avx2Bf16, Avx512AsBf16, Avx512Bf16};
#[cfg(target_arch = "x86_64")]
use super::super::vector::{Avx2, Avx512};
use super::super::vector::{LANES, Portable, Vector};
use super::super::{InstructionSet, Pair};

/// So many units of a panel (16 KiB) stay in the first cache while all rows pass by.
pub const SPAN: usize = 256;

/// What [`super::Product`] is to the kernels: pointers that were checked. Strides are in what they point to.
pub struct Job<U> {
    pub rows: usize,
    pub a: *const U,
    pub a_stride: usize,
    pub weights: *const U,
    /// In units.
    pub k: usize,
    pub n: usize,
    /// Null: 0.
    pub start: *const f32,
    pub start_stride: usize,
    /// Null: row r starts from row r.
    pub start_index: *const usize,
    pub out: *mut f32,
    pub out_stride: usize,
    pub relu: bool,
    /// Results are rounded: `out` are pairs.
    pub rounded: bool,
}

/// # Safety
/// The machine has the instruction set, and all rows are inside of what the job points to.
pub unsafe fn in_f32(set: InstructionSet, job: &Job<f32>) {
    // SAFETY: the caller's.
    unsafe {
        match set {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => avx2(job),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 | InstructionSet::Avx512Bf16 => avx512(job),
            _ => portable(job),
        }
    }
}

/// `plain`: no sum can become denormal.
///
/// # Safety
/// As for [`in_f32`].
pub unsafe fn in_bf16(set: InstructionSet, job: &Job<Pair>, plain: bool) {
    // SAFETY: the caller's.
    unsafe {
        match set {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 if plain => avx2_bf16(job),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 if plain => avx512_as_bf16(job),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 | InstructionSet::Avx512 => fused_bf16(job),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Bf16 => avx512_bf16(job),
            _ => portable_bf16(job),
        }
    }
}

/// A driver for an instruction set: for one to five rows in a tile, and for a whole one, how many panels the tile spans, so that
/// accumulators fill the registers and hide the latency of the multiply-add.
macro_rules! driver {
    ($name:ident, $arithmetic:ty, $($feature:literal,)? [$one:literal, $two:literal, $three:literal, $four:literal, $five:literal, $whole:literal]) => {
        /// # Safety
        /// The machine has the instruction set; all rows are inside of what `job` points to.
        $(#[target_feature(enable = $feature)])?
        unsafe fn $name(job: &Job<<$arithmetic as Arithmetic>::Unit>) {
            // SAFETY: as above.
            unsafe {
                const TILE: usize = <$arithmetic as Arithmetic>::ROWS;
                let whole = job.rows / TILE * TILE;
                let step = if whole > 2 * TILE { SPAN } else { job.k.max(1) };
                let mut from = 0;
                loop {
                    let to = (from + step).min(job.k);
                    sweep::<$arithmetic, TILE, $whole>(job, 0..whole, from..to);
                    let rest = whole..job.rows;
                    match rest.len() {
                        1 => sweep::<$arithmetic, 1, $one>(job, rest, from..to),
                        2 => sweep::<$arithmetic, 2, $two>(job, rest, from..to),
                        3 => sweep::<$arithmetic, 3, $three>(job, rest, from..to),
                        4 => sweep::<$arithmetic, 4, $four>(job, rest, from..to),
                        5 => sweep::<$arithmetic, 5, $five>(job, rest, from..to),
                        _ => {}
                    }
                    from = to;
                    if from >= job.k {
                        break;
                    }
                }
            }
        }
    };
}

driver!(portable, F32<Portable>, [1, 1, 1, 1, 1, 1]);
#[cfg(target_arch = "x86_64")]
driver!(avx2, F32<Avx2>, "avx2,fma", [7, 3, 2, 1, 1, 1]);
#[cfg(target_arch = "x86_64")]
driver!(avx512, F32<Avx512>, "avx512f,avx2,fma", [14, 7, 4, 4, 4, 4]);

driver!(portable_bf16, ExactBf16, [1, 1, 1, 1, 1, 1]);
// The same where multiply-add is an instruction.
#[cfg(target_arch = "x86_64")]
driver!(fused_bf16, ExactBf16, "avx2,fma", [1, 1, 1, 1, 1, 1]);
#[cfg(target_arch = "x86_64")]
driver!(avx2_bf16, Avx2Bf16, "avx2,fma", [3, 2, 1, 1, 1, 1]);
#[cfg(target_arch = "x86_64")]
driver!(
    avx512_as_bf16,
    Avx512AsBf16,
    "avx512f,avx2,fma",
    [7, 4, 4, 4, 3, 3]
);
#[cfg(target_arch = "x86_64")]
driver!(
    avx512_bf16,
    Avx512Bf16,
    "avx512f,avx512bf16,avx2,fma",
    [14, 7, 4, 4, 4, 4]
);

/// All columns of some rows, for a span of k.
#[inline(always)]
unsafe fn sweep<A: Arithmetic, const M: usize, const N: usize>(
    job: &Job<A::Unit>,
    rows: Range<usize>,
    span: Range<usize>,
) {
    let panels = job.n.div_ceil(LANES);
    let mut panel = 0;
    // SAFETY: the caller's.
    unsafe {
        while panel + N <= panels {
            for row in rows.clone().step_by(M) {
                tile::<A, M, N>(job, row, panel, span.clone());
            }
            panel += N;
        }
        while N > 2 && panel + 2 <= panels {
            for row in rows.clone().step_by(M) {
                tile::<A, M, 2>(job, row, panel, span.clone());
            }
            panel += 2;
        }
        while panel < panels {
            for row in rows.clone().step_by(M) {
                tile::<A, M, 1>(job, row, panel, span.clone());
            }
            panel += 1;
        }
    }
}

/// M rows by N panels, from `row` and `panel` on. A span after the first goes on from what is in `out`.
#[inline(always)]
unsafe fn tile<A: Arithmetic, const M: usize, const N: usize>(
    job: &Job<A::Unit>,
    row: usize,
    panel: usize,
    span: Range<usize>,
) {
    // SAFETY: rows from `row` on are inside of `a`, `start` and `out`, panels from `panel` on inside of the weights; of the
    // last panel only the columns that exist are touched.
    unsafe {
        let column = panel * LANES;
        let last = (job.n - column - (N - 1) * LANES).min(LANES);
        let mut sums = [[A::Sums::zero(); N]; M];
        for (r, sums) in sums.iter_mut().enumerate() {
            let start = if span.start > 0 {
                job.out.add((row + r) * job.out_stride).cast_const()
            } else if job.start.is_null() {
                continue;
            } else if job.start_index.is_null() {
                job.start.add((row + r) * job.start_stride)
            } else {
                job.start.add(*job.start_index.add(row + r) * job.start_stride)
            };
            for (c, sum) in sums.iter_mut().enumerate() {
                let from = start.add(column + c * LANES);
                *sum = if c + 1 == N && last < LANES {
                    A::Sums::load_first(from, last)
                } else {
                    A::Sums::load(from)
                };
            }
        }
        let a = job.a.add(row * job.a_stride);
        let weights = job.weights.add(panel * job.k * LANES);
        for at in span.clone() {
            accumulate::<A, M, N>(job, &mut sums, a.add(at), weights.add(at * LANES));
        }
        let finish = job.relu && span.end == job.k;
        // Results that are rounded go to the stack first: whatever is done with the sums here, they have to stay in registers.
        let mut stack = MaybeUninit::<[[[f32; LANES]; N]; M]>::uninit();
        let rounded = A::ROUNDS && job.rounded;
        let (out, stride) = if rounded {
            (stack.as_mut_ptr().cast(), N * LANES)
        } else {
            (job.out.add(row * job.out_stride + column), job.out_stride)
        };
        for (r, sums) in sums.iter().enumerate() {
            for (c, sum) in sums.iter().enumerate() {
                let sum = if finish { sum.relu() } else { *sum };
                let to = out.add(r * stride + c * LANES);
                if c + 1 == N && last < LANES {
                    sum.store_first(to, last);
                } else {
                    sum.store(to);
                }
            }
        }
        if rounded {
            let columns = (N - 1) * LANES + last;
            for r in 0..M {
                let to = job.out.add((row + r) * job.out_stride + column / 2).cast();
                A::round(
                    std::slice::from_raw_parts(out.add(r * stride), columns),
                    std::slice::from_raw_parts_mut(to, columns.div_ceil(2)),
                );
            }
        }
    }
}

/// `sums += a * weights` for one unit of k.
#[inline(always)]
unsafe fn accumulate<A: Arithmetic, const M: usize, const N: usize>(
    job: &Job<A::Unit>,
    sums: &mut [[A::Sums; N]; M],
    a: *const A::Unit,
    weights: *const A::Unit,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut lines = [A::line(weights); N];
        for (c, line) in lines.iter_mut().enumerate().skip(1) {
            *line = A::line(weights.add(c * job.k * LANES));
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            let x = a.add(r * job.a_stride);
            for (sum, line) in sums.iter_mut().zip(lines) {
                *sum = A::multiply_add(*sum, x, line);
            }
        }
    }
}
