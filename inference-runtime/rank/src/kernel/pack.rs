//! Weights as the product's kernels read them.

use super::vector::LANES;

/// A cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub(super) struct Line(pub(super) [f32; LANES]);

/// A matrix `[k, n]` in panels of 16 columns: the 16 weights of each k one after the other. Columns beyond n are 0.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    pub(super) lines: Vec<Line>,
    k: usize,
    n: usize,
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
