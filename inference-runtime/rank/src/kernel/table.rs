//! Tables as [`super::gather`] reads them.

use std::fmt;
use std::sync::Arc;

use super::bf16::{self, Columns};
use super::{InstructionSet, Lines, Rows};
use crate::tensor::Tensor;

/// Rows of floats, or of [`super::Pair`]s, which have the same size.
pub struct Table {
    memory: Memory,
    /// Floats or pairs of a row.
    width: usize,
}

enum Memory {
    /// As the model has it.
    Tensor(Arc<Tensor>),
    /// A row that is as wide as a cache line is one.
    Lines(Lines),
    Pairs(Lines),
}

impl Table {
    /// By the tensor's first axis; `None` unless it is of F32.
    pub fn new(tensor: &Arc<Tensor>) -> Option<Self> {
        tensor.as_f32()?;
        Some(Self {
            width: tensor.shape.get(1..)?.iter().product(),
            memory: Memory::Tensor(Arc::clone(tensor)),
        })
    }

    /// The same rows in memory of their own.
    pub fn in_lines(&self) -> Self {
        Self {
            memory: Memory::Lines(Lines::of(self.rows())),
            width: self.width,
        }
    }

    /// Each row rounded to bf16, in half of the memory. One of an odd width ends with a 0.
    pub fn in_pairs(&self, set: InstructionSet) -> Self {
        let (rows, width) = (self.size(), self.width.div_ceil(2));
        let mut lines = Lines::zeros(rows * width);
        let to = Columns { at: 0, depth: width };
        let from = Rows::new(self.rows(), self.width);
        bf16::round(
            set,
            from,
            [rows, self.width],
            to,
            bf16::pairs_mut(lines.floats_mut()),
        );
        Self {
            memory: Memory::Pairs(lines),
            width,
        }
    }

    /// Whether it has memory of its own.
    pub fn is_laid_out(&self) -> bool {
        !matches!(self.memory, Memory::Tensor(_))
    }

    /// Whether its rows are pairs.
    pub fn is_rounded(&self) -> bool {
        matches!(self.memory, Memory::Pairs(_))
    }

    /// Number of rows.
    pub fn size(&self) -> usize {
        self.rows().len().checked_div(self.width).unwrap_or(0)
    }

    pub fn width(&self) -> usize {
        self.width
    }

    /// One after the other; pairs as the floats that have their bits.
    pub(super) fn rows(&self) -> &[f32] {
        match &self.memory {
            Memory::Tensor(tensor) => tensor.as_f32().unwrap_or(&[]),
            Memory::Lines(lines) | Memory::Pairs(lines) => lines.floats(),
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("size", &self.size())
            .field("width", &self.width)
            .finish_non_exhaustive()
    }
}
