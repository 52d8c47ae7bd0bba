//! Operators that only move elements are not run: each element of their result is remembered as an element of a root, a
//! value that a step computes or an input brings.

use std::sync::Arc;

use crate::interpret;
use crate::ir::{Extent, Op};
use crate::tensor::{Element, Tensor};

/// A value that is really there: computed by a step, or brought by an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Root(pub usize);

/// An element of a row: the one at `at` of the root's row, and for integers what is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub root: Root,
    pub at: usize,
    pub add: i64,
}

/// The elements of a row, in order.
pub type Cells = Arc<Vec<Cell>>;

/// Larger rows are left to the interpreter: 24 bytes a cell are kept until the plan is compiled.
const MOST: usize = 1 << 18;

/// All elements of a root, in order.
pub fn whole(root: Root, width: usize) -> Cells {
    Arc::new((0..width).map(|at| Cell { root, at, add: 0 }).collect())
}

/// Elements that each row of this shape has; `None` unless one axis has the same number of entries for each row, and when
/// there are too many to keep track of. Wherever that axis is: a root's rows lie one after the other.
pub fn row_width(shape: &[Extent]) -> Option<usize> {
    let mut growing = shape.iter().filter(|extent| !extent.is_fixed());
    growing.next()?.per_row()?;
    if growing.next().is_some() {
        return None;
    }
    row_shape(shape)?
        .into_iter()
        .try_fold(1_usize, |product, size| product.checked_mul(size))
        .filter(|width| *width <= MOST)
}

/// The shape that a single row has.
pub fn row_shape(shape: &[Extent]) -> Option<Vec<usize>> {
    shape.iter().map(|extent| extent.resolve(1)).collect()
}

/// Whether the operator moves elements inside of each row in the same way, whatever they are.
pub fn only_moves(op: &Op) -> bool {
    matches!(
        op,
        Op::Slice { .. }
            | Op::Reshape { .. }
            | Op::Transpose { .. }
            | Op::Concat { .. }
            | Op::Expand { .. }
            | Op::Gather { .. }
            | Op::GatherElements { .. }
            | Op::GatherNd { .. }
    )
}

/// An input of an operator that moves elements: cells with their row's shape, or a constant (of indices).
pub enum Moved<'a> {
    Cells(&'a Cells, Vec<usize>),
    Constant(&'a Tensor),
}

/// What becomes of the elements: the interpreter moves their numbers.
pub fn moved(op: &Op, inputs: &[Moved<'_>]) -> Option<Cells> {
    let mut all = Vec::new();
    let mut numbers = Vec::with_capacity(inputs.len());
    for input in inputs {
        numbers.push(match input {
            Moved::Constant(tensor) => (*tensor).clone(),
            Moved::Cells(cells, shape) => {
                let first = Extent::of(all.len()).fixed;
                all.extend_from_slice(cells);
                let last = Extent::of(all.len()).fixed;
                Tensor::int(Element::I64, shape.clone(), (first..last).collect())
            }
        });
    }
    if all.len() > MOST {
        return None;
    }
    let arguments: Vec<&Tensor> = numbers.iter().collect();
    let result = interpret::eval(op, &arguments, 1).ok()?.into_iter().next()?;
    let cell = |number: &i64| all.get(usize::try_from(*number).ok()?).copied();
    let cells: Option<Vec<Cell>> = result.as_int()?.iter().map(cell).collect();
    cells.filter(|cells| cells.len() <= MOST).map(Arc::new)
}

/// Neighbouring cells of one root: `step` 1, or 0 where one cell is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub root: Root,
    pub from: usize,
    pub to: usize,
    pub len: usize,
    pub step: usize,
}

pub fn runs(cells: &[Cell]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (to, cell) in cells.iter().enumerate() {
        if let Some(run) = runs.last_mut()
            && run.root == cell.root
        {
            if run.len == 1 && cell.at == run.from {
                run.step = 0;
            }
            if cell.at == run.from + run.len * run.step {
                run.len += 1;
                continue;
            }
        }
        runs.push(Run {
            root: cell.root,
            from: cell.at,
            to,
            len: 1,
            step: 1,
        });
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::extents;

    #[test]
    fn moves_are_followed_through_operators() {
        let cells = whole(Root(3), 6);
        let transpose = Op::Transpose { perm: vec![0, 2, 1] };
        let turned = moved(&transpose, &[Moved::Cells(&cells, vec![1, 2, 3])]).unwrap();
        assert_eq!(
            turned.iter().map(|cell| cell.at).collect::<Vec<_>>(),
            [0, 3, 1, 4, 2, 5]
        );
        let other = whole(Root(4), 2);
        let both = [Moved::Cells(&cells, vec![1, 6]), Moved::Cells(&other, vec![1, 2])];
        let joined = moved(&Op::Concat { axis: 1 }, &both).unwrap();
        let run = |root, from, to, len, step| Run {
            root: Root(root),
            from,
            to,
            len,
            step,
        };
        assert_eq!(runs(&joined), [run(3, 0, 0, 6, 1), run(4, 0, 6, 2, 1)]);
        let shape = extents(&[-1, 2, 3]);
        let spread = moved(&Op::Expand { shape }, &[Moved::Cells(&other, vec![1, 2, 1])]).unwrap();
        assert_eq!(runs(&spread), [run(4, 0, 0, 3, 0), run(4, 1, 3, 3, 0)]);
    }

    #[test]
    fn rows_have_a_width_where_one_axis_grows() {
        assert_eq!(row_width(&extents(&[-2, 3])), Some(6));
        assert_eq!(row_width(&extents(&[3, -1])), Some(3));
        assert_eq!(row_width(&extents(&[-1, -1])), None);
        assert_eq!(row_width(&extents(&[])), None);
        assert_eq!(row_width(&extents(&[-1, 1 << 20])), None);
    }
}
