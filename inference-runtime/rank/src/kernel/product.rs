//! The product of rows with packed weights, started and finished in registers.

mod tile;

use super::bf16;
use super::vector::LANES;
use super::{Bf16Weights, InstructionSet, Packed, PairRows, Rows, RowsMut};
use tile::{Job, SPAN};

/// What the accumulators begin at.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    Zero,
    /// The same for every row.
    Row(&'a [f32]),
    Rows(Rows<'a>),
}

/// `rows` rows of `a` times `weights`; `a` are rounded rows where the weights are in bf16.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a, W = Packed, A = Rows<'a>> {
    pub rows: usize,
    pub a: A,
    pub weights: &'a W,
    pub start: Start<'a>,
    pub relu: bool,
}

pub fn multiply(set: InstructionSet, product: &Product<'_>, out: &mut RowsMut<'_>) {
    let (k, n) = (product.weights.k(), product.weights.n());
    if product.rows == 0 || n == 0 {
        return;
    }
    product.check(set, n, out, false);
    assert!(product.a.index.is_none(), "a product takes its rows in order");
    product.a.check(product.rows, k);
    let a = (product.a.data.as_ptr(), product.a.stride, k);
    let job = product.job(a, product.weights, out, false);
    // SAFETY: the machine has the instruction set, and all rows of `a`, `start` and `out` are inside, as was checked.
    unsafe { tile::in_f32(set, &job) }
}

/// The same in bf16 ([`mod@bf16`]), with rows as [`bf16::round`] makes them.
pub fn multiply_bf16(
    set: InstructionSet,
    product: &Product<'_, Bf16Weights, PairRows<'_>>,
    out: &mut RowsMut<'_>,
) {
    in_bf16(set, product, out, false);
}

/// The same, with results rounded as [`bf16::round`] does it: as many pairs as half of the columns, in place of floats. Weights
/// must be such that [`Bf16Weights::may_round`].
pub fn multiply_and_round(
    set: InstructionSet,
    product: &Product<'_, Bf16Weights, PairRows<'_>>,
    out: &mut RowsMut<'_>,
) {
    assert!(product.weights.may_round(), "sums are kept in `out` meanwhile");
    in_bf16(set, product, out, true);
}

fn in_bf16(
    set: InstructionSet,
    product: &Product<'_, Bf16Weights, PairRows<'_>>,
    out: &mut RowsMut<'_>,
    rounded: bool,
) {
    let (depth, n) = (product.weights.depth(), product.weights.n());
    if product.rows == 0 || n == 0 {
        return;
    }
    product.check(set, n, out, rounded);
    let PairRows { pairs, stride } = product.a;
    Rows::new(bf16::floats(pairs), stride).check(product.rows, depth);
    let plain = matches!(set, InstructionSet::Avx2 | InstructionSet::Avx512) && product.stays_normal(set);
    let a = (pairs.as_ptr(), stride, depth);
    let job = product.job(a, &product.weights.packed, out, rounded);
    // SAFETY: as in `multiply`.
    unsafe { tile::in_bf16(set, &job, plain) }
}

impl<W, A> Product<'_, W, A> {
    /// Panics where a row of `start` or `out` is not inside, or the machine lacks the instruction set.
    fn check(&self, set: InstructionSet, n: usize, out: &RowsMut<'_>, rounded: bool) {
        assert!(set.is_here(), "this machine has no {set}");
        out.check(self.rows, if rounded { n.div_ceil(2) } else { n });
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
        rounded: bool,
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
            rounded,
        }
    }
}

impl Bf16Weights {
    /// Whether sums are whole when they leave the registers for the first time.
    pub fn may_round(&self) -> bool {
        self.depth() <= SPAN
    }
}

impl Product<'_, Bf16Weights, PairRows<'_>> {
    /// Whether sums cannot become denormal ([`bf16::stays_normal`]).
    fn stays_normal(&self, set: InstructionSet) -> bool {
        let (mut factor, mut start) = (u32::MAX, u32::MAX);
        bf16::least_of(set, self.a, self.rows, self.weights.depth(), &mut factor);
        let n = self.weights.n();
        match self.start {
            Start::Zero => {}
            Start::Row(row) => bf16::least_of_rows(set, Rows::new(row, 0), 1, n, &mut start),
            Start::Rows(rows) => bf16::least_of_rows(set, rows, self.rows, n, &mut start),
        }
        bf16::stays_normal(factor, self.weights.least, start)
    }
}

#[cfg(test)]
pub(super) mod tests;
