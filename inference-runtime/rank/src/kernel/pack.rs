//! Weights as the product's kernels read them.

use super::bf16::{self, Pair};
use super::vector::LANES;

/// A cache line of f32 or [`Pair`]s.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<U>(pub(super) [U; LANES]);

/// A matrix `[k, n]` in panels of 16 columns: the 16 weights of each k (of each two, for [`Pair`]s) one after the other. Columns
/// beyond n are 0.
#[derive(Clone, Debug)]
pub struct Packed<U = f32> {
    pub(super) lines: Vec<Line<U>>,
    k: usize,
    n: usize,
}

impl<U> Default for Packed<U> {
    fn default() -> Self {
        let (k, n) = (0, 0);
        Self {
            lines: Vec::new(),
            k,
            n,
        }
    }
}

impl<U> Packed<U> {
    pub fn k(&self) -> usize {
        self.k
    }

    pub fn n(&self) -> usize {
        self.n
    }

    pub fn bytes(&self) -> usize {
        std::mem::size_of_val(self.lines.as_slice())
    }
}

impl Packed {
    /// From a row-major matrix.
    pub fn new(matrix: &[f32], k: usize, n: usize) -> Self {
        let mut packed = Self::default();
        packed.fill(matrix, [k, n], [n, 1]);
        packed
    }

    /// Packs another matrix `[k, n]` into the same memory; `strides` are from a row, and from a column, to the next.
    pub fn fill(&mut self, matrix: &[f32], [k, n]: [usize; 2], [row, column]: [usize; 2]) {
        (self.k, self.n) = (k, n);
        let lines = n.div_ceil(LANES) * k;
        self.lines.clear();
        self.lines.resize(lines, Line([0.0; LANES]));
        for (panel, lines) in self.lines.chunks_exact_mut(k.max(1)).enumerate() {
            let first = panel * LANES;
            let width = (n - first).min(LANES);
            if column == 1 {
                for (at, line) in lines.iter_mut().enumerate() {
                    let from = &matrix[at * row + first..at * row + first + width];
                    line.0.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                }
                continue;
            }
            for lane in 0..width {
                let from = &matrix[(first + lane) * column..];
                if row == 1 {
                    lines
                        .iter_mut()
                        .zip(from)
                        .for_each(|(line, from)| line.0[lane] = *from);
                } else {
                    let from = from.iter().step_by(row);
                    lines
                        .iter_mut()
                        .zip(from)
                        .for_each(|(line, from)| line.0[lane] = *from);
                }
            }
        }
    }
}

/// Weights rounded to bf16, half as large.
#[derive(Clone, Debug, Default)]
pub struct Bf16Weights {
    pub(super) packed: Packed<Pair>,
    /// The least magnitude but 0, as [`bf16::least`] gives it.
    pub(super) least: u32,
}

impl Bf16Weights {
    /// From a row-major matrix, for rows of parts that have so many columns: each begins with a pair.
    pub fn new(matrix: &[f32], parts: &[usize], n: usize) -> Self {
        let mut twos = Vec::new();
        let mut end = 0;
        for part in parts {
            let own = end..end + part;
            twos.extend(own.clone().step_by(2).map(|at| (at, own.contains(&(at + 1)))));
            end = own.end;
        }
        let mut lines = Vec::with_capacity(n.div_ceil(LANES) * twos.len());
        let mut least = u32::MAX;
        for first in (0..n).step_by(LANES) {
            let columns = first..(first + LANES).min(n);
            for (at, two) in &twos {
                let mut line = Line([Pair::default(); LANES]);
                for (pair, column) in line.0.iter_mut().zip(columns.clone()) {
                    let second = if *two {
                        matrix[(at + 1) * n + column]
                    } else {
                        Pair::BEYOND
                    };
                    *pair = Pair::new(matrix[at * n + column], second);
                    least = bf16::least(pair.first().to_bits(), least);
                    least = bf16::least(pair.second().to_bits(), least);
                }
                lines.push(line);
            }
        }
        let k = 2 * twos.len() - parts.last().map_or(0, |part| part % 2);
        Self {
            packed: Packed { lines, k, n },
            least,
        }
    }

    /// For rows that go on with those of `below`, which has as many columns.
    pub fn over(&self, below: &Self) -> Self {
        assert_eq!(self.n(), below.n(), "both are for the same sums");
        let of = |weights: &Self, panel: usize| {
            let depth = weights.depth();
            weights.packed.lines[panel * depth..(panel + 1) * depth].to_vec()
        };
        let panels = 0..self.n().div_ceil(LANES);
        let lines = panels.flat_map(|panel| [of(self, panel), of(below, panel)].concat());
        Self {
            packed: Packed {
                lines: lines.collect(),
                k: 2 * self.depth() + below.k(),
                n: self.n(),
            },
            least: self.least.min(below.least),
        }
    }

    pub fn k(&self) -> usize {
        self.packed.k
    }

    /// Pairs of a column.
    pub fn depth(&self) -> usize {
        self.packed.k.div_ceil(2)
    }

    pub fn n(&self) -> usize {
        self.packed.n
    }

    pub fn bytes(&self) -> usize {
        self.packed.bytes()
    }
}
