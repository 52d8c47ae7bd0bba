//! Products of two values: a matrix of its own for each row.

use std::sync::Arc;

use super::compile::Compiler;
use super::layout::{self, Cells, Moved};
use super::step::{Batched, Kind, Operand, View};
use crate::interpret;
use crate::ir::{Extent, Node, Op, ValueId};

impl Compiler<'_> {
    pub(super) fn batched(&mut self, node: &Node) -> Option<()> {
        let out = node.outputs[0];
        let shape = self.graph.shape(out).to_vec();
        let rank = shape.len();
        let axis = shape.iter().position(|extent| !extent.is_fixed())?;
        // Rows of the batch may not be rows of the product.
        if rank < 3 || axis + 2 >= rank {
            return None;
        }
        let (left, right) = (node.inputs[0], node.inputs[1]);
        let last = |compiler: &Self, id: ValueId| compiler.graph.shape(id).last()?.as_fixed();
        let (m, n) = (shape[rank - 2].as_fixed()?, shape[rank - 1].as_fixed()?);
        let k = last(self, left)?;
        let matrices = layout::row_width(&shape)?.checked_div(m * n)?;
        if matrices * k == 0 {
            return None;
        }
        let outer = &shape[..rank - 2];
        let target = |rows: usize, columns: usize| [outer, &[Extent::of(rows), Extent::of(columns)]].concat();
        let a = self.matrices(left, &target(m, k))?;
        let Matrices::Cells(b) = self.matrices(right, &target(k, n))? else {
            return None;
        };
        let start = match node.inputs.get(2) {
            None => None,
            Some(id) => Some(self.operand(node, *id)?),
        };
        let (a, a_strides) = match a {
            Matrices::Constant(row) => (Operand::Row(row), [m * k, k]),
            Matrices::Cells(cells) => match affine(&self.settled(&cells), [matrices, m, k]) {
                Some((view, [batch, row, 1])) => (Operand::View(view), [batch, row]),
                _ => (Operand::View(self.repeated(left, &cells)), [m * k, k]),
            },
        };
        let (b, b_strides) = match affine(&self.settled(&b), [matrices, k, n]) {
            Some(found) => found,
            None => (self.repeated(right, &b), [k * n, n, 1]),
        };
        let root = self.output(node)?;
        let kind = Kind::Batched(Box::new(Batched {
            sizes: [matrices, m, k, n],
            a,
            a_strides,
            b,
            b_strides,
            start,
        }));
        self.push(node, kind, Some(root), 2 * matrices * m * k * n);
        Some(())
    }

    /// A factor's elements, repeated over the outer axes that it lacks.
    fn matrices(&mut self, id: ValueId, target: &[Extent]) -> Option<Matrices> {
        if let Some(constant) = self.plain_constant(id) {
            let row = interpret::broadcast(&constant, &layout::row_shape(target)?)?;
            return Some(Matrices::Constant(Arc::new(row.as_f32()?.to_vec())));
        }
        let own = self.graph.shape(id);
        let axis = |shape: &[Extent]| {
            let from_start = shape.iter().position(|extent| !extent.is_fixed())?;
            Some(shape.len() - from_start)
        };
        if axis(own) != axis(target) {
            return None;
        }
        let shape = layout::row_shape(own)?;
        let cells = self.cells(id)?;
        let op = Op::Expand {
            shape: target.to_vec(),
        };
        layout::moved(&op, &[Moved::Cells(&cells, shape)]).map(Matrices::Cells)
    }
}

enum Matrices {
    Constant(Arc<Vec<f32>>),
    Cells(Cells),
}

/// Where elements of three axes lie at fixed distances in one root, and these distances.
fn affine(cells: &Cells, sizes: [usize; 3]) -> Option<(View, [usize; 3])> {
    let first = cells.first()?;
    let steps = [sizes[1] * sizes[2], sizes[2], 1];
    let mut strides = [1; 3];
    for axis in 0..3 {
        if sizes[axis] > 1 {
            strides[axis] = cells.get(steps[axis])?.at.checked_sub(first.at)?;
        }
    }
    let fits = cells.iter().enumerate().all(|(index, cell)| {
        let at = [index / steps[0], index / steps[1] % sizes[1], index % sizes[2]];
        let offset: usize = at.iter().zip(strides).map(|(at, stride)| at * stride).sum();
        cell.root == first.root && cell.at == first.at + offset
    });
    let view = View {
        root: first.root,
        from: first.at,
    };
    fits.then_some((view, strides))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::layout::{Root, whole};

    #[test]
    fn transposed_and_interleaved_matrices_are_read_where_they_are() {
        let cells = whole(Root(0), 24);
        let turned = layout::moved(
            &Op::Transpose { perm: vec![0, 2, 1] },
            &[Moved::Cells(&cells, vec![2, 3, 4])],
        )
        .unwrap();
        let (view, strides) = affine(&turned, [2, 4, 3]).unwrap();
        assert_eq!((view.from, strides), (0, [12, 1, 4]));
        let picked = Arc::new(vec![cells[0], cells[1], cells[3]]);
        assert_eq!(affine(&picked, [1, 1, 3]), None);
    }
}
