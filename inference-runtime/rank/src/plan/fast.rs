//! Which nodes have a kernel.

use std::sync::Arc;

use super::compile::Compiler;
use super::layout::{self, Cell, Moved};
use super::step::{IdGroup, Kind, Operand};
use crate::interpret;
use crate::ir::{Binary, Extent, Node, Op, Reduction, Unary, ValueId};
use crate::kernel;
use crate::tensor::{Element, Tensor};

impl Compiler<'_> {
    /// Whether the node became a step of a kernel, part of one, or none at all.
    pub(super) fn fast(&mut self, node: &Node) -> bool {
        let done = match &node.op {
            Op::Gather { axis: 0 } => self.gather(node),
            Op::MatMul => self.product(node).or_else(|| self.batched(node)),
            Op::Unary(Unary::Relu) => self.relu(node).or_else(|| self.unary(node, Unary::Relu)),
            Op::Unary(unary) => self.unary(node, *unary),
            Op::Binary(Binary::Add) if self.element(node) == Element::I64 => self.offset(node),
            Op::Binary(Binary::Pow) => self.power(node),
            Op::Binary(binary) => self.binary(node, *binary),
            Op::Reduce { reduction, axes, .. } => self.reduce(node, *reduction, axes),
            Op::Softmax { axis, log } => self.softmax(node, *axis, *log),
            Op::LayerNorm { axis, epsilon } => self.layer_norm(node, *axis, *epsilon),
            Op::Cast(Element::I64) => self.widened(node),
            Op::Gru {
                hidden,
                linear_before_reset,
            } => self.gru(node, *hidden, *linear_before_reset),
            Op::Trees(ensemble) => self.trees(node, ensemble),
            _ => None,
        };
        done.is_some()
    }

    fn element(&self, node: &Node) -> Element {
        self.graph.fact(node.outputs[0]).element
    }

    /// Integers plus constants: remembered with the cells.
    fn offset(&mut self, node: &Node) -> Option<()> {
        let ids = node
            .inputs
            .iter()
            .position(|id| self.plain_constant(*id).is_none())?;
        let constant = self.plain_constant(*node.inputs.get(1 - ids)?)?;
        let cells = self.spread(node, node.inputs[ids])?;
        let shape = layout::row_shape(self.graph.shape(node.outputs[0]))?;
        let added = interpret::broadcast(&constant, &shape)?;
        let cells = cells.iter().zip(added.as_int()?).map(|(cell, add)| Cell {
            add: cell.add.wrapping_add(*add),
            ..*cell
        });
        self.set_cells(node.outputs[0], Arc::new(cells.collect()));
        Some(())
    }

    /// Integers are 64 bits wide in memory, whatever they are called.
    fn widened(&mut self, node: &Node) -> Option<()> {
        if self.graph.fact(node.inputs[0]).element == Element::F32 {
            return None;
        }
        let cells = self.cells(node.inputs[0])?;
        self.set_cells(node.outputs[0], cells);
        Some(())
    }

    /// The input's cells, repeated to the shape of the node's result.
    fn spread(&mut self, node: &Node, id: ValueId) -> Option<layout::Cells> {
        let target = self.graph.shape(node.outputs[0]);
        layout::row_width(target)?;
        let own = self.graph.shape(id);
        let from_end = |shape: &[Extent]| Some(shape.len() - shape.iter().position(|size| !size.is_fixed())?);
        if from_end(own) != from_end(target) {
            return None;
        }
        let cells = self.cells(id)?;
        if own == target {
            return Some(cells);
        }
        let op = Op::Expand {
            shape: target.to_vec(),
        };
        layout::moved(&op, &[Moved::Cells(&cells, layout::row_shape(own)?)])
    }

    fn gather(&mut self, node: &Node) -> Option<()> {
        let table = self.table(node.inputs[0])?;
        let ids = self.cells(node.inputs[1])?;
        let out = self.output(node)?;
        let mut groups: Vec<IdGroup> = Vec::new();
        for (at, cell) in ids.iter().enumerate() {
            match groups.last_mut() {
                Some(group) if group.root == cell.root => group.columns.push((cell.at, cell.add)),
                _ => groups.push(IdGroup {
                    root: cell.root,
                    columns: vec![(cell.at, cell.add)],
                    to: at,
                }),
            }
        }
        let kind = Kind::Gather { table, ids: groups };
        self.push(node, kind, Some(out), 0);
        Some(())
    }

    fn unary(&mut self, node: &Node, unary: Unary) -> Option<()> {
        let id = node.inputs[0];
        if self.graph.fact(id).element != Element::F32 || !kernel::has_unary(unary) {
            return None;
        }
        let cells = self.cells(id)?;
        let view = self.view(id, &cells);
        let out = self.output(node)?;
        self.push(node, Kind::Unary(unary, view), Some(out), cells.len());
        Some(())
    }

    fn binary(&mut self, node: &Node, binary: Binary) -> Option<()> {
        if self.element(node) != Element::F32 || !kernel::has_binary(binary) {
            return None;
        }
        let width = layout::row_width(self.graph.shape(node.outputs[0]))?;
        let a = self.operand(node, node.inputs[0])?;
        let b = self.operand(node, node.inputs[1])?;
        let out = self.output(node)?;
        self.push(node, Kind::Binary(binary, a, b), Some(out), width);
        Some(())
    }

    pub(super) fn operand(&mut self, node: &Node, id: ValueId) -> Option<Operand> {
        let out = node.outputs[0];
        if let Some(constant) = self.plain_constant(id) {
            let shape = layout::row_shape(self.graph.shape(out))?;
            let row: Tensor = interpret::broadcast(&constant, &shape)?;
            return Some(Operand::Row(Arc::new(row.as_f32()?.to_vec())));
        }
        let cells = self.spread(node, id)?;
        if self.graph.shape(id) == self.graph.shape(out) {
            return Some(Operand::View(self.view(id, &cells)));
        }
        Some(Operand::View(self.repeated(id, &cells)))
    }

    /// A square is a product, with the same bits as the interpreter's power.
    fn power(&mut self, node: &Node) -> Option<()> {
        let exponent = self.plain_constant(node.inputs[1])?;
        if !exponent.as_f32()?.iter().all(|exponent| *exponent == 2.0) {
            return self.binary(node, Binary::Pow);
        }
        let (id, out) = (node.inputs[0], node.outputs[0]);
        if self.graph.shape(id) != self.graph.shape(out) {
            return None;
        }
        let cells = self.cells(id)?;
        let x = Operand::View(self.view(id, &cells));
        let root = self.output(node)?;
        self.push(
            node,
            Kind::Binary(Binary::Mul, x.clone(), x),
            Some(root),
            cells.len(),
        );
        Some(())
    }

    fn reduce(&mut self, node: &Node, reduction: Reduction, axes: &[usize]) -> Option<()> {
        let id = node.inputs[0];
        let (first, last) = (*axes.first()?, *axes.last()?);
        if self.element(node) != Element::F32 || last - first + 1 != axes.len() {
            return None;
        }
        let shape = layout::row_shape(self.graph.shape(id))?;
        let product = |axes: &[usize]| axes.iter().product();
        let groups = [
            product(&shape[..first]),
            product(&shape[first..=last]),
            product(&shape[last + 1..]),
        ];
        let cells = self.cells(id)?;
        let x = self.view(id, &cells);
        let root = self.output(node)?;
        self.push(node, Kind::Reduce(reduction, x, groups), Some(root), cells.len());
        Some(())
    }

    fn softmax(&mut self, node: &Node, axis: usize, log: bool) -> Option<()> {
        let id = node.inputs[0];
        let shape = layout::row_shape(self.graph.shape(id))?;
        if shape[axis + 1..].iter().any(|size| *size != 1) || shape[axis] == 0 {
            return None;
        }
        let groups = [shape[..axis].iter().product(), shape[axis]];
        let cells = self.cells(id)?;
        let x = self.view(id, &cells);
        let root = self.output(node)?;
        // An exponential is about 16 operations.
        self.push(
            node,
            Kind::Softmax { x, groups, log },
            Some(root),
            20 * cells.len(),
        );
        Some(())
    }

    fn layer_norm(&mut self, node: &Node, axis: usize, epsilon: f32) -> Option<()> {
        let id = node.inputs[0];
        let shape = layout::row_shape(self.graph.shape(id))?;
        let mut weights = Vec::new();
        for id in &node.inputs[1..] {
            let row = interpret::broadcast(self.plain_constant(*id)?.as_ref(), &shape)?;
            weights.push(Arc::new(row.as_f32()?.to_vec()));
        }
        let mut weights = weights.into_iter();
        let scale = weights.next()?;
        let cells = self.cells(id)?;
        let kind = Kind::LayerNorm {
            x: self.view(id, &cells),
            group: shape[axis..].iter().product(),
            epsilon,
            scale,
            bias: weights.next(),
        };
        let root = self.output(node)?;
        self.push(node, kind, Some(root), 8 * cells.len());
        Some(())
    }
}
