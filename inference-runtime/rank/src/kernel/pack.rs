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
        packed.fill(k, n, |at, column| matrix[at * n + column]);
        packed
    }

    /// Packs another matrix into the same memory.
    #[inline(always)]
    pub fn fill(&mut self, k: usize, n: usize, weight: impl Fn(usize, usize) -> f32) {
        (self.k, self.n) = (k, n);
        self.lines.resize(n.div_ceil(LANES) * k, Line([0.0; LANES]));
        for (panel, lines) in self.lines.chunks_exact_mut(k.max(1)).enumerate() {
            let width = (n - panel * LANES).min(LANES);
            for (at, line) in lines.iter_mut().enumerate() {
                for (lane, value) in line.0.iter_mut().enumerate() {
                    *value = if lane < width {
                        weight(at, panel * LANES + lane)
                    } else {
                        0.0
                    };
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
