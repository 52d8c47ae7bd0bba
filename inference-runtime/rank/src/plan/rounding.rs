//! Rows rounded to bf16: once for all products that take them, and where it can be, by the step that makes them.

use super::compile::Compiler;
use super::layout::{self, Cells, Root};
use super::step::{Home, Kind, Rounding, Stage, Step, View, Weights};
use crate::ir::ValueId;

/// Columns that a part of a row has at least, on average, where rows are rounded from several places: shorter ones are copied
/// together first.
const LEAST: usize = 8;

impl Compiler<'_> {
    /// How the value's rows are rounded, of `parts` products each: from where they lie. And for the weights: the columns of each
    /// part of a product's rows.
    pub(super) fn rounded(
        &mut self,
        id: ValueId,
        cells: &Cells,
        parts: usize,
    ) -> (Vec<Rounding>, Vec<usize>) {
        let settled = self.settled(cells);
        let runs = layout::runs(&settled);
        if parts == 1 && runs.iter().all(|run| run.step == 1) && runs.len() * LEAST <= cells.len() {
            let mut to = 0;
            let part = |run: &layout::Run| {
                let view = View {
                    root: run.root,
                    from: run.from,
                };
                let part = Rounding {
                    view,
                    width: run.len,
                    to,
                };
                to = part.end();
                part
            };
            return (
                runs.iter().map(part).collect(),
                runs.iter().map(|run| run.len).collect(),
            );
        }
        let view = self.view(id, cells);
        let width = cells.len() / parts;
        let part = |part: usize| Rounding {
            view: View {
                from: view.from + part * width,
                ..view
            },
            width,
            to: part * width.div_ceil(2),
        };
        let rounded = if width.is_multiple_of(2) {
            vec![Rounding {
                width: cells.len(),
                ..part(0)
            }]
        } else {
            (0..parts).map(part).collect()
        };
        (rounded, vec![width])
    }

    /// The root of rounded rows: one that is there already, or a new one.
    pub(super) fn round(&mut self, id: ValueId, rounded: Vec<Rounding>, stage: Stage) -> Root {
        let same = |step: &&Step| {
            step.stage == stage && matches!(&step.kind, Kind::Round(parts) if *parts == rounded)
        };
        if let Some(root) = self.steps.iter().find(same).and_then(|step| step.out) {
            return root;
        }
        let width = rounded.last().map_or(0, Rounding::end);
        let root = self.root(width, stage, Home::Own);
        self.prepare(id, "Round", Kind::Round(rounded), (root, stage));
        root
    }

    /// What a root of rounded rows is made of.
    pub(super) fn roundings(&self, root: Root) -> Vec<Rounding> {
        let maker = self.steps.iter().find(|step| step.out == Some(root));
        match maker.map(|step| &step.kind) {
            Some(Kind::Round(parts)) => parts.clone(),
            _ => Vec::new(),
        }
    }

    /// Steps whose results are only rounded, all of them into one place, round them themselves, into it.
    pub(super) fn round_in_place(&mut self, kept: &[Root]) {
        // What was rounded for a product that is now part of another.
        let readers = self.readers(kept);
        self.steps.retain(|step| {
            !matches!(step.kind, Kind::Round(_)) || step.out.is_some_and(|root| readers[root.0] > 0)
        });
        let readers = self.readers(kept);
        for at in 0..self.steps.len() {
            let (Kind::Round(parts), Some(root)) = (&self.steps[at].kind, self.steps[at].out) else {
                continue;
            };
            let rest = parts.clone().into_iter().filter(|part| {
                let alone = readers[part.view.root.0] == 1;
                !(alone && self.makes_rounded(part, root))
            });
            let rest = rest.collect();
            self.steps[at].kind = Kind::Round(rest);
        }
        self.steps
            .retain(|step| !matches!(&step.kind, Kind::Round(parts) if parts.is_empty()));
    }

    /// How often each root is read.
    fn readers(&self, kept: &[Root]) -> Vec<usize> {
        let mut readers = vec![0; self.roots.len()];
        let read = self.steps.iter().flat_map(Step::reads);
        read.chain(kept.iter().copied())
            .for_each(|root| readers[root.0] += 1);
        readers
    }

    /// Has the part, which is a whole root, made in its place among the rounded rows of `to`.
    fn makes_rounded(&mut self, part: &Rounding, to: Root) -> bool {
        let from = part.view.root;
        let (info, stage) = (&self.roots[from.0], self.roots[to.0].stage);
        let whole = part.view.from == 0 && part.width == info.width;
        if !whole || info.stage != stage || !matches!(info.home, Home::Own) {
            return false;
        }
        let mut makers = self.steps.iter_mut().filter(|step| step.out == Some(from));
        let (Some(maker), None) = (makers.next(), makers.next()) else {
            return false;
        };
        match &mut maker.kind {
            Kind::Product(linear) => match &linear.weights {
                Weights::Bf16(weights) if linear.parts == 1 && weights.may_round() => linear.rounded = true,
                _ => return false,
            },
            // Each of its rows begins with a pair.
            Kind::Gather { table, ids } => {
                let even = table.width().is_multiple_of(2);
                if !even && ids.iter().map(|group| group.columns.len()).sum::<usize>() > 1 {
                    return false;
                }
                *table = self.tables.rounded(table, self.set);
            }
            _ => return false,
        }
        let info = &mut self.roots[from.0];
        info.width = info.width.div_ceil(2);
        info.home = Home::Within(View {
            root: to,
            from: part.to,
        });
        true
    }
}
