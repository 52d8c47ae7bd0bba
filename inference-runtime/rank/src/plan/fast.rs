//! Which nodes have a kernel.

use std::sync::Arc;

use super::Precision;
use super::compile::Compiler;
use super::layout::{self, Cell, Moved};
use super::step::{Factor, IdGroup, Kind, Linear, Operand, Stage, Start, Weights};
use crate::interpret;
use crate::ir::{Binary, Extent, Node, Op, Reduction, Unary, ValueId};
use crate::kernel::{self, Bf16Weights, Packed};
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
        let table = self.plain_constant(node.inputs[0])?;
        table.as_f32()?;
        let width: usize = table.shape[1..].iter().product();
        let ids = self.cells(node.inputs[1])?;
        let out = self.output(node)?;
        let mut groups: Vec<IdGroup> = Vec::new();
        for (at, cell) in ids.iter().enumerate() {
            match groups.last_mut() {
                Some(group) if group.root == cell.root => group.columns.push((cell.at, cell.add)),
                _ => groups.push(IdGroup {
                    root: cell.root,
                    columns: vec![(cell.at, cell.add)],
                    to: at * width,
                }),
            }
        }
        let kind = Kind::Gather {
            table,
            width,
            ids: groups,
        };
        self.push(node, kind, Some(out), 0);
        Some(())
    }

    /// Rows times a constant matrix.
    fn product(&mut self, node: &Node) -> Option<()> {
        let weights = self.plain_constant(node.inputs[1])?;
        let [k, n] = weights.shape[..] else { return None };
        let matrix = weights.as_f32()?;
        let id = node.inputs[0];
        let rank = self.graph.shape(id).len();
        let a = self.cells(id)?;
        if rank < 2 || k == 0 || n == 0 || a.len() % k != 0 || self.graph.shape(node.outputs[0]).len() != rank
        {
            return None;
        }
        let parts = a.len() / k;
        let width = layout::row_width(self.graph.shape(node.outputs[0]))?;
        if width != parts * n {
            return None;
        }
        let stage = self.stage(node.outputs[0]);
        let start = self.start(node, (parts, n), stage)?;
        let a = if parts == 1 && self.stage(id) == stage {
            self.view(id, &a)
        } else {
            self.dense(id, &a, stage)
        };
        let out = self.output(node)?;
        self.roots[out.0].pinned = parts > 1;
        let mut linear = Linear {
            a: vec![Factor { view: a, width: k }],
            parts,
            weights: match self.precision {
                Precision::F32 => Weights::F32(Arc::new(Packed::new(matrix, k, n))),
                Precision::Bf16 => Weights::Bf16(Arc::new(Bf16Weights::new(matrix, k, n))),
            },
            start,
            relu: false,
        };
        let flop = 2 * parts * k * n + self.with_start(&mut linear, node);
        self.push(node, Kind::Product(linear), Some(out), flop);
        Some(())
    }

    /// Where a product in bf16 goes on with the sums of another, which nobody else reads, both become one: rows are rounded into other memory
    /// anyway, so their columns need not lie together. Gives the operations that the other one was.
    fn with_start(&mut self, linear: &mut Linear, node: &Node) -> usize {
        let (Start::Rows(view), Weights::Bf16(own), 1) = (&linear.start, &linear.weights, linear.parts)
        else {
            return 0;
        };
        let first = node.inputs.get(2).and_then(|id| self.sole(*id));
        let stage = self.stage(node.outputs[0]);
        let Some(at) = self
            .steps
            .iter()
            .rposition(|step| step.out == first && step.stage == stage)
        else {
            return 0;
        };
        let Kind::Product(before) = &self.steps[at].kind else {
            return 0;
        };
        let whole = first == Some(view.root) && view.from == 0;
        let (Weights::Bf16(weights), false, 1, true) = (&before.weights, before.relu, before.parts, whole)
        else {
            return 0;
        };
        linear.weights = Weights::Bf16(Arc::new(weights.over(own)));
        linear.a.splice(0..0, before.a.iter().copied());
        linear.start = before.start.clone();
        self.steps.remove(at).flop
    }

    fn start(&mut self, node: &Node, (parts, n): (usize, usize), stage: Stage) -> Option<Start> {
        let Some(id) = node.inputs.get(2).copied() else {
            return Some(Start::Zero);
        };
        if let Some(constant) = self.plain_constant(id) {
            let lead = constant.count() / constant.shape.last().copied().unwrap_or(1).max(1);
            if lead != 1 {
                return None;
            }
            let row = interpret::broadcast(
                &constant,
                &[vec![1; constant.shape.len().max(1) - 1], vec![n]].concat(),
            )?;
            return Some(Start::Row(Arc::new(row.as_f32()?.to_vec())));
        }
        if self.graph.shape(id) != self.graph.shape(node.outputs[0]) {
            return None;
        }
        let cells = self.cells(id)?;
        Some(Start::Rows(if parts == 1 {
            self.view(id, &cells)
        } else {
            self.dense(id, &cells, stage)
        }))
    }

    /// Into the product before it, where nobody else reads that.
    fn relu(&mut self, node: &Node) -> Option<()> {
        let root = self.sole(node.inputs[0])?;
        let step = self.steps.iter_mut().rfind(|step| step.out == Some(root))?;
        let Kind::Product(linear) = &mut step.kind else {
            return None;
        };
        linear.relu = true;
        step.name.clone_from(&node.name);
        let cells = self.cells(node.inputs[0])?;
        self.set_cells(node.outputs[0], cells);
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
