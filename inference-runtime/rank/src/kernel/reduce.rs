//! What looks along an axis: sums as a fixed tree of 16 lanes, whatever the vector width.

use super::vector::LANES;
use super::{Rows, RowsMut, on_each_set};
use crate::interpret::math;
use crate::ir::Reduction;

/// Elements of a row as `[outer, group, inner]`: groups are reduced.
pub type Groups = [usize; 3];

on_each_set! {
    /// `outer * inner` results for each of `rows`.
    reduce(op: Reduction, x: Rows<'_>, rows: usize, groups: Groups, out: &mut RowsMut<'_>) = reduce_body
}

#[inline(always)]
fn reduce_body(op: Reduction, x: Rows<'_>, rows: usize, groups: Groups, out: &mut RowsMut<'_>) {
    let [outer, group, inner] = groups;
    for row in 0..rows {
        let x = x.row(row, outer * group * inner);
        let out = out.row(row, outer * inner);
        for at in 0..outer {
            let x = &x[at * group * inner..(at + 1) * group * inner];
            reduce_row(op, x, inner, &mut out[at * inner..(at + 1) * inner]);
        }
    }
}

#[inline(always)]
#[allow(clippy::cast_precision_loss)] // lengths of axes
fn reduce_row(op: Reduction, x: &[f32], inner: usize, out: &mut [f32]) {
    let add = |a: f32, b: f32| a + b;
    let square = |x: f32| x * x;
    match op {
        Reduction::Sum => trees(x, inner, out, (0.0, |x| x, add)),
        Reduction::Mean => {
            trees(x, inner, out, (0.0, |x| x, add));
            let count = (x.len() / inner.max(1)) as f32;
            out.iter_mut().for_each(|out| *out /= count);
        }
        Reduction::Max => trees(x, inner, out, (f32::NEG_INFINITY, |x| x, math::max)),
        Reduction::Min => trees(x, inner, out, (f32::INFINITY, |x| x, math::min)),
        Reduction::Prod => trees(x, inner, out, (1.0, |x| x, |a, b| a * b)),
        Reduction::SumSquare => trees(x, inner, out, (0.0, square, add)),
        Reduction::L2 => {
            trees(x, inner, out, (0.0, square, add));
            out.iter_mut().for_each(|out| *out = out.sqrt());
        }
    }
}

/// What a lane begins at, what is done to an element, and how two are combined.
type Tree<P, C> = (f32, P, C);

#[inline(always)]
fn trees<P, C>(x: &[f32], inner: usize, out: &mut [f32], tree: Tree<P, C>)
where
    P: Fn(f32) -> f32 + Copy,
    C: Fn(f32, f32) -> f32 + Copy,
{
    const COLUMNS: usize = 8;
    if let ([out], 1) = (&mut *out, inner) {
        *out = lanes(x, tree);
        return;
    }
    let mut column = 0;
    while column + COLUMNS <= inner {
        columns::<COLUMNS, P, C>(x, (column, inner), out, tree);
        column += COLUMNS;
    }
    while column < inner {
        columns::<1, P, C>(x, (column, inner), out, tree);
        column += 1;
    }
}

/// One group that lies together.
#[inline(always)]
fn lanes<P, C>(x: &[f32], (zero, prepare, combine): Tree<P, C>) -> f32
where
    P: Fn(f32) -> f32,
    C: Fn(f32, f32) -> f32,
{
    let mut lanes = [zero; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = combine(*lane, prepare(*x));
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = combine(*lane, prepare(*x));
    }
    math::together(lanes, combine)
}

/// W groups side by side.
#[inline(always)]
fn columns<const W: usize, P, C>(
    x: &[f32],
    (column, inner): (usize, usize),
    out: &mut [f32],
    (zero, prepare, combine): Tree<P, C>,
) where
    P: Fn(f32) -> f32,
    C: Fn(f32, f32) -> f32,
{
    let mut lanes = [[zero; W]; LANES];
    for (at, x) in x.chunks_exact(inner).enumerate() {
        let x = &x[column..column + W];
        for (lane, x) in lanes[at % LANES].iter_mut().zip(x) {
            *lane = combine(*lane, prepare(*x));
        }
    }
    out[column..column + W].copy_from_slice(&side_by_side(lanes, combine));
}

/// The lanes of W groups, each combined as [`math::together`] has it.
#[inline(always)]
fn side_by_side<const W: usize>(lanes: [[f32; W]; LANES], combine: impl Fn(f32, f32) -> f32) -> [f32; W] {
    math::together(lanes, |a: [f32; W], b: [f32; W]| {
        std::array::from_fn(|at| combine(a[at], b[at]))
    })
}

on_each_set! {
    /// Over groups of `size` that lie together; their logarithm where `log`.
    softmax(x: Rows<'_>, rows: usize, groups: [usize; 2], log: bool, out: &mut RowsMut<'_>) = softmax_body
}

#[inline(always)]
fn softmax_body(x: Rows<'_>, rows: usize, groups: [usize; 2], log: bool, out: &mut RowsMut<'_>) {
    let [outer, size] = groups;
    for row in 0..rows {
        let (x, out) = (x.row(row, outer * size), out.row(row, outer * size));
        if outer >= SOME && size <= LANES && !log {
            short_softmax(x, size.max(1), out);
            continue;
        }
        for (x, out) in x.chunks_exact(size.max(1)).zip(out.chunks_exact_mut(size.max(1))) {
            let highest = lanes(x, (f32::NEG_INFINITY, |x| x, math::max));
            for (out, x) in out.iter_mut().zip(x) {
                *out = math::exp(x - highest);
            }
            let total = lanes(out, (0.0, |x| x, |a, b| a + b));
            if log {
                let total = math::log(total);
                for (out, x) in out.iter_mut().zip(x) {
                    *out = x - highest - total;
                }
            } else {
                out.iter_mut().for_each(|out| *out /= total);
            }
        }
    }
}

/// Many short groups: numbers of several fill the registers.
#[inline(always)]
fn short_softmax(x: &[f32], size: usize, out: &mut [f32]) {
    let some = SOME * size;
    for (x, out) in x.chunks(some).zip(out.chunks_mut(some)) {
        let highest = some_groups(x, size, (f32::NEG_INFINITY, |x| x, math::max));
        for ((x, out), highest) in x.chunks_exact(size).zip(out.chunks_exact_mut(size)).zip(highest) {
            out.iter_mut().zip(x).for_each(|(out, x)| *out = x - highest);
        }
    }
    out.iter_mut().for_each(|out| *out = math::exp(*out));
    for out in out.chunks_mut(some) {
        let totals = some_groups(out, size, (0.0, |x| x, |a, b| a + b));
        for (out, total) in out.chunks_exact_mut(size).zip(totals) {
            out.iter_mut().for_each(|out| *out /= total);
        }
    }
}

/// Groups that lie together and are looked at together.
const SOME: usize = 8;

/// Of at most [`SOME`] groups that are no longer than the lanes: as [`lanes`] of each.
#[inline(always)]
fn some_groups<P, C>(x: &[f32], size: usize, tree: Tree<P, C>) -> [f32; SOME]
where
    P: Fn(f32) -> f32 + Copy,
    C: Fn(f32, f32) -> f32 + Copy,
{
    let (zero, prepare, combine) = tree;
    if x.len() < SOME * size {
        let mut out = [zero; SOME];
        for (out, x) in out.iter_mut().zip(x.chunks_exact(size)) {
            *out = lanes(x, tree);
        }
        return out;
    }
    // Short ones side by side: a few numbers would not fill the lanes.
    let mut lanes = [[zero; SOME]; LANES];
    for (group, x) in x.chunks_exact(size).enumerate() {
        for (lane, x) in lanes.iter_mut().zip(x) {
            lane[group] = combine(zero, prepare(*x));
        }
    }
    side_by_side(lanes, combine)
}

/// Layer normalization over groups that lie together; weights for a whole row.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    pub group: usize,
    pub epsilon: f32,
    pub scale: &'a [f32],
    pub bias: Option<&'a [f32]>,
}

on_each_set! {
    /// As many elements of each of `rows` as the scale has.
    layer_norm(x: Rows<'_>, rows: usize, norm: Norm<'_>, out: &mut RowsMut<'_>) = layer_norm_body
}

#[inline(always)]
#[allow(clippy::cast_precision_loss)] // lengths of axes
fn layer_norm_body(x: Rows<'_>, rows: usize, norm: Norm<'_>, out: &mut RowsMut<'_>) {
    let group = norm.group.max(1);
    let width = norm.scale.len();
    let add = |a: f32, b: f32| a + b;
    for row in 0..rows {
        let out = out.row(row, width);
        let x = x.row(row, width).chunks_exact(group);
        for (x, out) in x.zip(out.chunks_exact_mut(group)) {
            let mean = lanes(x, (0.0, |x| x, add)) / group as f32;
            let square = |x: f32| (x - mean) * (x - mean);
            let variance = lanes(x, (0.0, square, add)) / group as f32;
            let scale = 1.0 / (variance + norm.epsilon).sqrt();
            for (out, x) in out.iter_mut().zip(x) {
                *out = (x - mean) * scale;
            }
        }
        for (out, scale) in out.iter_mut().zip(norm.scale) {
            *out *= scale;
        }
        for (out, bias) in out.iter_mut().zip(norm.bias.unwrap_or(&[])) {
            *out += bias;
        }
    }
}
