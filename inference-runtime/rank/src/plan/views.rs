//! Cells as kernels read them: part of one root's row, copied together where they are not.

use std::sync::Arc;

use super::compile::Compiler;
use super::layout::{self, Cell, Cells, Root};
use super::place;
use super::step::{Column, Copy, Home, Kind, Stage, View};
use crate::ir::ValueId;

impl Compiler<'_> {
    /// The same cells, those of roots that lie inside of another as cells of that one.
    pub fn settled(&self, cells: &Cells) -> Cells {
        let settle = |cell: &Cell| {
            let outer = place::outermost(&self.roots, cell.root);
            Cell {
                root: outer.root,
                at: outer.from + cell.at,
                ..*cell
            }
        };
        Arc::new(cells.iter().map(settle).collect())
    }

    /// The cells as part of one root; where they are not, they are copied together, and the value is what was copied.
    pub fn view(&mut self, id: ValueId, cells: &Cells) -> View {
        let cells = &self.settled(cells);
        contiguous(cells).unwrap_or_else(|| self.joined(id, cells))
    }

    /// As [`Self::view`], of cells that are not all there is of the value, or not once.
    pub fn repeated(&mut self, id: ValueId, cells: &Cells) -> View {
        let cells = &self.settled(cells);
        contiguous(cells).unwrap_or_else(|| View {
            root: self.copied(id, cells, self.stage(id)),
            from: 0,
        })
    }

    /// As [`Self::view`], with each row right after the one before, and rows those of `stage`.
    pub fn dense(&mut self, id: ValueId, cells: &Cells, stage: Stage) -> View {
        let cells = &self.settled(cells);
        if let Some(view) = contiguous(cells) {
            let root = &mut self.roots[view.root.0];
            let fits = root.width == cells.len() && root.stage == stage;
            if fits && !matches!(root.home, Home::Within(_) | Home::Constant(_)) {
                root.pinned = true;
                return view;
            }
        }
        let root = self.copied(id, cells, stage);
        self.roots[root.0].pinned = true;
        View { root, from: 0 }
    }

    /// Where a part is all of a root, that root is computed in place, and only the rest is copied.
    fn joined(&mut self, id: ValueId, cells: &Cells) -> View {
        let root = self.copied(id, cells, self.stage(id));
        self.set_cells(id, layout::whole(root, cells.len()));
        View { root, from: 0 }
    }

    fn copied(&mut self, id: ValueId, cells: &Cells, stage: Stage) -> Root {
        let root = self.root(cells.len(), stage, Home::Own);
        let mut copies: Vec<Copy> = Vec::new();
        for run in layout::runs(cells) {
            if self.place_within(root, &run, stage) {
                continue;
            }
            let at = copies.iter().position(|copy| copy.root == run.root);
            let at = at.unwrap_or_else(|| {
                copies.push(Copy::new(run.root));
                copies.len() - 1
            });
            copies[at].push(run);
        }
        if !copies.is_empty() {
            self.prepare(id, "Copy", Kind::Copy(copies), (root, stage));
        }
        root
    }

    fn place_within(&mut self, outer: Root, run: &layout::Run, stage: Stage) -> bool {
        let part = &mut self.roots[run.root.0];
        let is_whole = run.from == 0 && run.len == part.width && run.step == 1;
        if !is_whole || part.pinned || part.stage != stage || !matches!(part.home, Home::Own) {
            return false;
        }
        part.home = Home::Within(View {
            root: outer,
            from: run.to,
        });
        if place::clashes(&self.roots, &self.steps, outer) {
            self.roots[run.root.0].home = Home::Own;
            return false;
        }
        true
    }
}

/// Where cells lie one after the other in one root.
fn contiguous(cells: &Cells) -> Option<View> {
    let runs = layout::runs(cells);
    match runs[..] {
        [run] if run.step == 1 => Some(View {
            root: run.root,
            from: run.from,
        }),
        _ => None,
    }
}

pub(super) fn columns(cells: &Cells) -> Vec<Column> {
    let column = |cell: &layout::Cell| Column {
        view: View {
            root: cell.root,
            from: cell.at,
        },
        add: cell.add,
    };
    cells.iter().map(column).collect()
}
