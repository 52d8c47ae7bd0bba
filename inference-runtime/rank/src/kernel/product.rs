//! The product of rows with packed weights, started and finished in registers.

use std::ops::Range;

use super::arithmetic::{Arithmetic, ExactBf16, F32};
#[cfg(target_arch = "x86_64")]
use super::arithmetic::{Avx2Bf16, Avx512AsBf16, Avx512Bf16};
use super::bf16;
#[cfg(target_arch = "x86_64")]
use super::vector::{Avx2, Avx512};
use super::vector::{LANES, Portable, Vector};
use super::{Bf16Weights, InstructionSet, Packed, Pair, Rows, RowsMut};

/// What the accumulators begin at.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    Zero,
    /// The same for every row.
    Row(&'a [f32]),
    Rows(Rows<'a>),
}

/// `rows` rows of `a` times `weights`; `a` are rounded rows, one right after the other, where the weights are in bf16.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a, W = Packed, A = Rows<'a>> {
    pub rows: usize,
    pub a: A,
    pub weights: &'a W,
    pub start: Start<'a>,
    pub relu: bool,
}

/// Rows that the accumulators of one tile stand for.
const TILE: usize = 6;

/// So many units of a panel (16 KiB) stay in the first cache while all rows pass by.
const SPAN: usize = 256;

/// Steps of k between two looks at the end.
const UNROLL: usize = 4;

/// What [`Product`] is to the kernels: pointers that were checked. Strides are in what they point to.
struct Job<U> {
    rows: usize,
    a: *const U,
    a_stride: usize,
    weights: *const U,
    /// In units.
    k: usize,
    n: usize,
    /// Null: 0.
    start: *const f32,
    start_stride: usize,
    /// Null: row r starts from row r.
    start_index: *const usize,
    out: *mut f32,
    out_stride: usize,
    relu: bool,
}

pub fn multiply(set: InstructionSet, product: &Product<'_>, out: &mut RowsMut<'_>) {
    let (k, n) = (product.weights.k(), product.weights.n());
    if product.rows == 0 || n == 0 {
        return;
    }
    product.check(set, n, out);
    assert!(product.a.index.is_none(), "a product takes its rows in order");
    product.a.check(product.rows, k);
    let a = (product.a.data.as_ptr(), product.a.stride, k);
    let job = product.job(a, product.weights, out);
    // SAFETY: the machine has the instruction set, and all rows of `a`, `start` and `out` are inside, as was checked.
    unsafe {
        match set {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => avx2(&job),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 | InstructionSet::Avx512Bf16 => avx512(&job),
            _ => portable(&job),
        }
    }
}

/// The same in bf16 ([`mod@bf16`]), with rows as [`bf16::round`] makes them.
pub fn multiply_bf16(
    set: InstructionSet,
    product: &Product<'_, Bf16Weights, &[Pair]>,
    out: &mut RowsMut<'_>,
) {
    let (depth, n) = (product.weights.depth(), product.weights.n());
    if product.rows == 0 || n == 0 {
        return;
    }
    product.check(set, n, out);
    let pairs = &product.a[..product.rows * depth];
    let plain =
        matches!(set, InstructionSet::Avx2 | InstructionSet::Avx512) && product.stays_normal(set, pairs);
    let job = product.job((pairs.as_ptr(), depth, depth), &product.weights.packed, out);
    // SAFETY: as in `multiply`.
    unsafe {
        match set {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 if plain => avx2_bf16(&job),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 if plain => avx512_as_bf16(&job),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 | InstructionSet::Avx512 => fused_bf16(&job),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Bf16 => avx512_bf16(&job),
            _ => portable_bf16(&job),
        }
    }
}

impl<W, A> Product<'_, W, A> {
    /// Panics where a row of `start` or `out` is not inside, or the machine lacks the instruction set.
    fn check(&self, set: InstructionSet, n: usize, out: &RowsMut<'_>) {
        assert!(set.is_here(), "this machine has no {set}");
        out.check(self.rows, n);
        match self.start {
            Start::Zero => {}
            Start::Row(row) => assert!(row.len() >= n, "a start of {} for {n} columns", row.len()),
            Start::Rows(rows) => rows.check(self.rows, n),
        }
    }

    /// After all was checked; `a` are the rows, their stride, and units of a row.
    fn job<U>(
        &self,
        (a, a_stride, k): (*const U, usize, usize),
        weights: &Packed<U>,
        out: &mut RowsMut<'_>,
    ) -> Job<U> {
        let n = weights.n();
        assert!(
            weights.lines.len() >= n.div_ceil(LANES) * k,
            "weights are packed whole"
        );
        let (start, start_stride, start_index) = match self.start {
            Start::Zero => (std::ptr::null(), 0, std::ptr::null()),
            Start::Row(row) => (row.as_ptr(), 0, std::ptr::null()),
            Start::Rows(rows) => {
                let index = rows.index.map_or(std::ptr::null(), <[usize]>::as_ptr);
                (rows.data.as_ptr(), rows.stride, index)
            }
        };
        Job {
            rows: self.rows,
            a,
            a_stride,
            weights: weights.lines.as_ptr().cast(),
            k,
            n,
            start,
            start_stride,
            start_index,
            out: out.data.as_mut_ptr(),
            out_stride: out.stride,
            relu: self.relu,
        }
    }
}

impl<A> Product<'_, Bf16Weights, A> {
    /// Whether sums cannot become denormal ([`bf16::stays_normal`]).
    fn stays_normal(&self, set: InstructionSet, pairs: &[Pair]) -> bool {
        let (mut factor, mut start) = (u32::MAX, u32::MAX);
        bf16::least_of(set, pairs, &mut factor);
        let n = self.weights.n();
        match self.start {
            Start::Zero => {}
            Start::Row(row) => bf16::least_of_rows(set, Rows::new(row, 0), 1, n, &mut start),
            Start::Rows(rows) => bf16::least_of_rows(set, rows, self.rows, n, &mut start),
        }
        bf16::stays_normal(factor, self.weights.least, start)
    }
}

/// A driver for an instruction set: for each number of rows in a tile, how many panels the tile spans, so that accumulators
/// fill the registers and hide the latency of the multiply-add.
macro_rules! driver {
    ($name:ident, $arithmetic:ty, $($feature:literal,)? [$one:literal, $two:literal, $three:literal, $four:literal, $five:literal, $six:literal]) => {
        /// # Safety
        /// The machine has the instruction set; `job` is as [`multiply`] makes it.
        $(#[target_feature(enable = $feature)])?
        unsafe fn $name(job: &Job<<$arithmetic as Arithmetic>::Unit>) {
            // SAFETY: as above.
            unsafe {
                let whole = job.rows / TILE * TILE;
                let step = if whole > 2 * TILE { SPAN } else { job.k.max(1) };
                let mut from = 0;
                loop {
                    let to = (from + step).min(job.k);
                    sweep::<$arithmetic, TILE, $six>(job, 0..whole, from..to);
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
        let mut at = span.start;
        // Addresses are computed once for several k.
        while at + UNROLL <= span.end {
            for k in 0..UNROLL {
                accumulate::<A, M, N>(job, &mut sums, a.add(at + k), weights.add((at + k) * LANES));
            }
            at += UNROLL;
        }
        while at < span.end {
            accumulate::<A, M, N>(job, &mut sums, a.add(at), weights.add(at * LANES));
            at += 1;
        }
        let finish = job.relu && span.end == job.k;
        for (r, sums) in sums.iter().enumerate() {
            let to = job.out.add((row + r) * job.out_stride + column);
            for (c, sum) in sums.iter().enumerate() {
                let sum = if finish { sum.relu() } else { *sum };
                let to = to.add(c * LANES);
                if c + 1 == N && last < LANES {
                    sum.store_first(to, last);
                } else {
                    sum.store(to);
                }
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

#[cfg(test)]
pub(super) mod tests;
