//! The product of rows with packed weights, started and finished in registers.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::vector::{Avx2, Avx512};
use super::vector::{LANES, Portable, Vector};
use super::{InstructionSet, Packed, Rows, RowsMut};

/// What the accumulators begin at.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    Zero,
    /// The same for every row.
    Row(&'a [f32]),
    Rows(Rows<'a>),
}

/// `rows` rows of `a` times `weights`.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    pub rows: usize,
    pub a: Rows<'a>,
    pub weights: &'a Packed,
    pub start: Start<'a>,
    pub relu: bool,
}

/// Rows that the accumulators of one tile stand for.
const TILE: usize = 6;

/// So many k of a panel (16 KiB) stay in the first cache while all rows pass by.
const SPAN: usize = 256;

/// Steps of k between two looks at the end.
const UNROLL: usize = 4;

/// What [`Product`] is to the kernels: pointers that were checked.
struct Job {
    rows: usize,
    a: *const f32,
    a_stride: usize,
    weights: *const f32,
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
    assert!(set.is_here(), "this machine has no {set}");
    assert!(product.a.index.is_none(), "a product takes its rows in order");
    product.a.check(product.rows, k);
    out.check(product.rows, n);
    assert!(
        product.weights.lines.len() >= n.div_ceil(LANES) * k,
        "weights are packed whole"
    );
    let (start, start_stride, start_index) = match product.start {
        Start::Zero => (std::ptr::null(), 0, std::ptr::null()),
        Start::Row(row) => {
            assert!(row.len() >= n, "a start of {} for {n} columns", row.len());
            (row.as_ptr(), 0, std::ptr::null())
        }
        Start::Rows(rows) => {
            rows.check(product.rows, n);
            let index = rows.index.map_or(std::ptr::null(), <[usize]>::as_ptr);
            (rows.data.as_ptr(), rows.stride, index)
        }
    };
    let job = Job {
        rows: product.rows,
        a: product.a.data.as_ptr(),
        a_stride: product.a.stride,
        weights: product.weights.lines.as_ptr().cast(),
        k,
        n,
        start,
        start_stride,
        start_index,
        out: out.data.as_mut_ptr(),
        out_stride: out.stride,
        relu: product.relu,
    };
    // SAFETY: the machine has the instruction set, and all rows of `a`, `start` and `out` are inside, as asserted above.
    unsafe {
        match set {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => avx2(&job),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => avx512(&job),
            _ => portable(&job),
        }
    }
}

/// A driver for an instruction set: for each number of rows in a tile, how many panels the tile spans, so that accumulators
/// fill the registers and hide the latency of the multiply-add.
macro_rules! driver {
    ($name:ident, $vector:ty, $($feature:literal,)? [$one:literal, $two:literal, $three:literal, $four:literal, $five:literal, $six:literal]) => {
        /// # Safety
        /// The machine has the instruction set; `job` is as [`multiply`] makes it.
        $(#[target_feature(enable = $feature)])?
        unsafe fn $name(job: &Job) {
            // SAFETY: as above.
            unsafe {
                let whole = job.rows / TILE * TILE;
                let step = if whole > 2 * TILE { SPAN } else { job.k.max(1) };
                let mut from = 0;
                loop {
                    let to = (from + step).min(job.k);
                    sweep::<$vector, TILE, $six>(job, 0..whole, from..to);
                    let rest = whole..job.rows;
                    match rest.len() {
                        1 => sweep::<$vector, 1, $one>(job, rest, from..to),
                        2 => sweep::<$vector, 2, $two>(job, rest, from..to),
                        3 => sweep::<$vector, 3, $three>(job, rest, from..to),
                        4 => sweep::<$vector, 4, $four>(job, rest, from..to),
                        5 => sweep::<$vector, 5, $five>(job, rest, from..to),
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

driver!(portable, Portable, [1, 1, 1, 1, 1, 1]);
#[cfg(target_arch = "x86_64")]
driver!(avx2, Avx2, "avx2,fma", [7, 3, 2, 1, 1, 1]);
#[cfg(target_arch = "x86_64")]
driver!(avx512, Avx512, "avx512f,avx2,fma", [14, 7, 4, 4, 4, 4]);

/// All columns of some rows, for a span of k.
#[inline(always)]
unsafe fn sweep<V: Vector, const M: usize, const N: usize>(
    job: &Job,
    rows: Range<usize>,
    span: Range<usize>,
) {
    let panels = job.n.div_ceil(LANES);
    let mut panel = 0;
    // SAFETY: the caller's.
    unsafe {
        while panel + N <= panels {
            for row in rows.clone().step_by(M) {
                tile::<V, M, N>(job, row, panel, span.clone());
            }
            panel += N;
        }
        while N > 2 && panel + 2 <= panels {
            for row in rows.clone().step_by(M) {
                tile::<V, M, 2>(job, row, panel, span.clone());
            }
            panel += 2;
        }
        while panel < panels {
            for row in rows.clone().step_by(M) {
                tile::<V, M, 1>(job, row, panel, span.clone());
            }
            panel += 1;
        }
    }
}

/// M rows by N panels, from `row` and `panel` on. A span after the first goes on from what is in `out`.
#[inline(always)]
unsafe fn tile<V: Vector, const M: usize, const N: usize>(
    job: &Job,
    row: usize,
    panel: usize,
    span: Range<usize>,
) {
    // SAFETY: rows from `row` on are inside of `a`, `start` and `out`, panels from `panel` on inside of the weights; of the
    // last panel only the columns that exist are touched.
    unsafe {
        let column = panel * LANES;
        let last = (job.n - column - (N - 1) * LANES).min(LANES);
        let mut sums = [[V::zero(); N]; M];
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
                    V::load_first(from, last)
                } else {
                    V::load(from)
                };
            }
        }
        let a = job.a.add(row * job.a_stride);
        let weights = job.weights.add(panel * job.k * LANES);
        let mut at = span.start;
        // Addresses are computed once for several k.
        while at + UNROLL <= span.end {
            for k in 0..UNROLL {
                accumulate(job, &mut sums, a.add(at + k), weights.add((at + k) * LANES));
            }
            at += UNROLL;
        }
        while at < span.end {
            accumulate(job, &mut sums, a.add(at), weights.add(at * LANES));
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

/// `sums += a * weights` for one k.
#[inline(always)]
unsafe fn accumulate<V: Vector, const M: usize, const N: usize>(
    job: &Job,
    sums: &mut [[V; N]; M],
    a: *const f32,
    weights: *const f32,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut line = [V::zero(); N];
        for (c, line) in line.iter_mut().enumerate() {
            *line = V::load(weights.add(c * job.k * LANES));
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            let x = a.add(r * job.a_stride);
            for (sum, line) in sums.iter_mut().zip(line) {
                *sum = sum.multiply_add(x, line);
            }
        }
    }
}

#[cfg(test)]
mod tests;
