//! Operators that are large enough for a kernel of their own: recurrent units and ensembles of trees.

use std::sync::Arc;

use super::compile::Compiler;
use super::step::{Kind, Operand, Recurrent};
use crate::interpret::trees::Ensemble;
use crate::ir::Node;
use crate::kernel::{Forest, Gru};

impl Compiler<'_> {
    /// Weights must be constants; the state to begin with may be anything.
    pub(super) fn gru(&mut self, node: &Node, hidden: usize, linear_before_reset: bool) -> Option<()> {
        let [x, w, r, bias, initial] = node.inputs[..] else {
            return None;
        };
        let weights = [w, r, bias].map(|id| self.plain_constant(id));
        let [Some(w), Some(r), Some(bias)] = &weights else {
            return None;
        };
        let weights = [w.as_f32()?, r.as_f32()?, bias.as_f32()?];
        let unit = Gru::new(weights, hidden, linear_before_reset)?;
        let [all, last] = node.outputs[..] else {
            return None;
        };
        let steps = self.graph.shape(all)[0].as_fixed().filter(|steps| *steps > 0)?;
        let stage = self.stage(all);
        let initial = match self.constant(initial) {
            // One row for all rows.
            Some(row) => Operand::Row(Arc::new(row.as_f32()?.to_vec())),
            None => {
                let cells = self.cells(initial)?;
                Operand::View(self.view(initial, &cells))
            }
        };
        // A product takes its rows in order: inputs of requests are repeated for their pairs.
        let cells = self.cells(x)?;
        let x = if self.stage(x) == stage {
            self.view(x, &cells)
        } else {
            self.dense(x, &cells, stage)
        };
        let flop = steps * unit.flop();
        let root = self.output(node)?;
        let cells = self.cells(all)?;
        self.set_cells(last, Arc::new(cells[(steps - 1) * hidden..].to_vec()));
        let recurrent = Recurrent {
            unit,
            steps,
            x,
            initial,
        };
        self.push(node, Kind::Gru(Box::new(recurrent)), Some(root), flop);
        Some(())
    }

    pub(super) fn trees(&mut self, node: &Node, ensemble: &Ensemble) -> Option<()> {
        let forest = Forest::new(ensemble)?;
        let cells = self.cells(node.inputs[0])?;
        let x = self.view(node.inputs[0], &cells);
        let root = self.output(node)?;
        // A comparison waits for two loads: about eight operations.
        let flop = 8 * forest.comparisons() + forest.trees();
        let forest = Box::new(forest);
        self.push(node, Kind::Trees { forest, x }, Some(root), flop);
        Some(())
    }
}
