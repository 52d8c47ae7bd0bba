//! Rows times constant matrices.

use std::sync::Arc;

use super::Precision;
use super::compile::Compiler;
use super::layout;
use super::step::{Kind, Linear, Rounding, Stage, Start, View, Weights};
use crate::interpret;
use crate::ir::Node;
use crate::kernel::{Bf16Weights, Packed};

impl Compiler<'_> {
    /// Rows times a constant matrix.
    pub(super) fn product(&mut self, node: &Node) -> Option<()> {
        let weights = self.plain_constant(node.inputs[1])?;
        let [k, n] = weights.shape[..] else { return None };
        let matrix = weights.as_f32()?;
        let id = node.inputs[0];
        let rank = self.graph.shape(id).len();
        let a = self.cells(id)?;
        let whole = k > 0 && n > 0 && !a.is_empty() && a.len().is_multiple_of(k);
        if rank < 2 || !whole || self.graph.shape(node.outputs[0]).len() != rank {
            return None;
        }
        let parts = a.len() / k;
        let width = layout::row_width(self.graph.shape(node.outputs[0]))?;
        if width != parts * n {
            return None;
        }
        let stage = self.stage(node.outputs[0]);
        let start = self.start(node, (parts, n), stage)?;
        let (a, weights) = match self.precision {
            Precision::F32 => {
                let a = if parts == 1 && self.stage(id) == stage {
                    self.view(id, &a)
                } else {
                    self.dense(id, &a, stage)
                };
                (a, Weights::F32(Arc::new(Packed::new(matrix, k, n))))
            }
            Precision::Bf16 => {
                let (rounded, widths) = self.rounded(id, &a, parts);
                let root = self.round(id, rounded, stage);
                let weights = Bf16Weights::new(matrix, &widths, n);
                (View { root, from: 0 }, Weights::Bf16(Arc::new(weights)))
            }
        };
        let out = self.output(node)?;
        self.roots[out.0].pinned = parts > 1;
        let mut linear = Linear {
            a,
            parts,
            weights,
            start,
            relu: false,
            rounded: false,
        };
        let flop = 2 * parts * k * n + self.with_start(&mut linear, node);
        self.push(node, Kind::Product(linear), Some(out), flop);
        Some(())
    }

    /// Where a product in bf16 goes on with the sums of another, which nobody else reads, both become one: rows are rounded into
    /// other memory anyway, so their columns need not lie together. Gives the operations that the other one was.
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
        let (mut rounded, depth) = (self.roundings(before.a.root), weights.depth());
        rounded.extend(self.roundings(linear.a.root).into_iter().map(|part| Rounding {
            to: part.to + depth,
            ..part
        }));
        linear.weights = Weights::Bf16(Arc::new(weights.over(own)));
        linear.start = before.start.clone();
        let flop = self.steps.remove(at).flop;
        linear.a.root = self.round(node.inputs[0], rounded, stage);
        flop
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
    pub(super) fn relu(&mut self, node: &Node) -> Option<()> {
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
}
