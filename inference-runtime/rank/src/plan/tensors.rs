//! Tensors of a run: for the interpreter, and for the caller.

use super::run::{Block, Run, Scratch, slot};
use super::step::{Argument, Stage};
use crate::interpret::{self, EvalError};
use crate::ir::{Op, ValueId};
use crate::pass::domain::Domain;
use crate::tensor::{Data, Element, Tensor};

impl Run<'_> {
    pub(super) fn interpret(
        &self,
        op: &Op,
        arguments: &[(ValueId, Argument)],
        outputs: &[ValueId],
        block: &Block<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), EvalError> {
        let tensors: Vec<Tensor> = arguments
            .iter()
            .map(|(id, argument)| self.tensor(*id, argument, block, scratch))
            .collect::<Result<_, _>>()?;
        // Constants are not copied: a table may be most of the model.
        let tensors: Vec<&Tensor> = arguments
            .iter()
            .zip(&tensors)
            .map(|((_, argument), tensor)| match argument {
                Argument::Constant(constant) => constant.as_ref(),
                _ => tensor,
            })
            .collect();
        let results = interpret::eval(op, &tensors, block.rows)?;
        let memories = scratch.memories(block.stage);
        for (id, tensor) in outputs.iter().zip(results) {
            let axis = self.graph.fact(*id).batch_axis();
            memories.slots[id.index()] = Some(match axis {
                Some(axis) if rowwise(&tensor) => rows_first(tensor, axis, block.rows),
                _ => tensor,
            });
        }
        Ok(())
    }

    /// The argument for the rows of the block. Of a constant nothing: it is used where it is.
    fn tensor(
        &self,
        id: ValueId,
        argument: &Argument,
        block: &Block<'_>,
        scratch: &Scratch,
    ) -> Result<Tensor, EvalError> {
        let fact = self.graph.fact(id);
        let axis = fact.batch_axis();
        let empty = Tensor::f32(vec![0], Vec::new());
        Ok(match argument {
            Argument::Constant(_) => empty,
            Argument::ConstantRow(tensor) => match axis {
                Some(axis) => interpret::repeat(tensor, axis, 1, &vec![0; block.rows]),
                None => tensor.as_ref().clone(),
            },
            Argument::Input(input) => {
                let tensor = &self.inputs[*input];
                let (Some(axis), Stage::Pair) = (axis, block.stage) else {
                    return Ok(tensor.clone().into_wide());
                };
                if self.domains.of(id) == Domain::Request {
                    interpret::repeat(tensor, axis, self.requests, block.owners)
                } else {
                    let rows: Vec<usize> = (block.first..block.first + block.rows).collect();
                    interpret::repeat(tensor, axis, self.segments.len(), &rows)
                }
            }
            Argument::Slot(id, stage) => {
                let tensor = slot(scratch, *id, *stage).unwrap_or(&empty);
                match axis {
                    Some(axis) if *stage != block.stage => {
                        interpret::repeat(tensor, axis, self.requests, block.owners)
                    }
                    _ => tensor.clone(),
                }
            }
            Argument::Floats(view) => {
                let shape = interpret::resolve(&fact.shape, block.rows)?;
                let width = shape.iter().product::<usize>() / block.rows.max(1);
                let rows = self.rows(view, block, scratch);
                let mut values = Vec::with_capacity(width * block.rows);
                (0..block.rows).for_each(|row| values.extend_from_slice(rows.row(row, width)));
                rows_at(Tensor::f32(shape, values), axis.unwrap_or(0), block.rows)
            }
            Argument::Integers(columns) => {
                let shape = interpret::resolve(&fact.shape, block.rows)?;
                let mut values = Vec::with_capacity(columns.len() * block.rows);
                for row in 0..block.rows {
                    for column in columns.iter() {
                        let (data, stride, index) = self.integers(column.view.root, block, scratch);
                        let row = index.map_or(row, |index| index[row]);
                        values.push(data[row * stride + column.view.from].wrapping_add(column.add));
                    }
                }
                rows_at(
                    Tensor::int(fact.element, shape, values),
                    axis.unwrap_or(0),
                    block.rows,
                )
            }
        })
    }

    /// Outputs that are to have so many rows, without one yet, their memory kept.
    pub(super) fn begin(&self, rows: usize, outputs: &mut Vec<Tensor>) -> Result<(), EvalError> {
        outputs.truncate(self.program.outputs.len());
        for (at, (id, _)) in self.program.outputs.iter().enumerate() {
            let fact = self.graph.fact(*id);
            if outputs.len() == at {
                outputs.push(Tensor::f32(vec![0], Vec::new()));
            }
            let output = &mut outputs[at];
            output.element = fact.element;
            output.shape.clear();
            for extent in &fact.shape {
                output
                    .shape
                    .push(extent.resolve(rows).ok_or(EvalError::Rows { rows })?);
            }
            match (&mut output.data, fact.element) {
                (Data::F32(values), Element::F32) => values.clear(),
                (data, Element::F32) => *data = Data::F32(Vec::new()),
                (data, Element::Bool) => *data = Data::Bool(Vec::new()),
                (data, _) => *data = Data::Int(Vec::new()),
            }
        }
        Ok(())
    }

    /// The rows of a block, to outputs that are to have `of` rows.
    pub(super) fn append(
        &self,
        block: &Block<'_>,
        of: usize,
        scratch: &Scratch,
        outputs: &mut [Tensor],
    ) -> Result<(), EvalError> {
        for ((id, argument), output) in self.program.outputs.iter().zip(outputs) {
            if let (Argument::Floats(view), Data::F32(values)) = (argument, &mut output.data) {
                let width: usize = output.shape.iter().product::<usize>() / of.max(1);
                let rows = self.rows(view, block, scratch);
                if width == 1 {
                    values.extend((0..block.rows).map(|row| rows.row(row, 1)[0]));
                } else if rows.stride == width && rows.index.is_none() {
                    values.extend_from_slice(&rows.data[..block.rows * width]);
                } else {
                    (0..block.rows).for_each(|row| values.extend_from_slice(rows.row(row, width)));
                }
                continue;
            }
            let tensor = self.tensor(*id, argument, block, scratch)?;
            match (&mut output.data, tensor.data) {
                (Data::F32(all), Data::F32(more)) => all.extend(more),
                (Data::Int(all), Data::Int(more)) => all.extend(more),
                (Data::Bool(all), Data::Bool(more)) => all.extend(more),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether steps read the tensor by rows; booleans go to the interpreter alone.
fn rowwise(tensor: &Tensor) -> bool {
    tensor.element != Element::Bool
}

/// Elements of each row brought together; the shape stays as it was.
fn rows_first(tensor: Tensor, axis: usize, rows: usize) -> Tensor {
    let (outer, inner) = around(&tensor, axis, rows);
    swapped(tensor, (outer, rows), inner)
}

/// The way back from [`rows_first`].
fn rows_at(tensor: Tensor, axis: usize, rows: usize) -> Tensor {
    let (outer, inner) = around(&tensor, axis, rows);
    swapped(tensor, (rows, outer), inner)
}

/// `(a, b, inner)` elements as `(b, a, inner)`.
fn swapped(tensor: Tensor, (a, b): (usize, usize), inner: usize) -> Tensor {
    if a == 1 || b == 1 {
        return tensor;
    }
    let order = (0..b).flat_map(|second| (0..a).map(move |first| first * b + second));
    let indices = order.flat_map(|part| part * inner..(part + 1) * inner);
    tensor.pick(tensor.shape.clone(), indices)
}

/// Elements before the rows' axis, and of a row behind it.
fn around(tensor: &Tensor, axis: usize, rows: usize) -> (usize, usize) {
    let outer = tensor.shape[..axis].iter().product::<usize>();
    (outer, tensor.count() / (outer * rows).max(1))
}
