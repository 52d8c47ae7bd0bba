//! Ensembles of trees, walked without branches: some trees of a row at once, so that the loads of one hide behind those
//! of the others (predication and interleaving: Asadi, Lin and de Vries, "Runtime Optimizations for Tree-Based Machine
//! Learning Models", IEEE TKDE 26(9), 2014).

use std::ops::Range;

use super::{Rows, RowsMut, on_each_set};
use crate::interpret::trees::{Aggregate, Branch, Ensemble, TreeNode};

/// Trees that are walked at once: their positions fit the registers.
const TREES: usize = 8;

/// Steps of a walk before the first look at who has arrived.
const UNSEEN: usize = 8;

/// Rows whose leaves are added together.
const ROWS: usize = 16;

/// Every comparison is `<=`: `x < t` is `x <= t'` with the float before t, the others are these with children swapped.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// At or below it the walk goes on at `child`, else (a NaN too) at the node behind that.
    threshold: f32,
    /// Element of a prepared row.
    feature: u32,
    /// Of a leaf the leaf itself: a walk that has arrived stays.
    child: u32,
    /// Of a leaf with one weight.
    weight: f32,
}

/// An ensemble as the kernel reads it.
#[derive(Clone, Debug)]
pub struct Forest {
    /// The roots first, in the order of the trees; of children both together.
    nodes: Vec<Node>,
    trees: usize,
    /// The longest walk of each group of [`TREES`] trees.
    depths: Vec<usize>,
    /// Where the leaves of each node are; empty where each leaf has one weight, of the only target.
    ranges: Vec<Range<usize>>,
    leaves: Vec<(usize, f32)>,
    base: Vec<f32>,
    aggregate: Aggregate,
    features: usize,
    /// Whether a missing value is ever taken for a small one: rows have a copy in which it is.
    missing: bool,
    comparisons: usize,
}

impl Forest {
    /// `None` for thresholds that no `<=` stands for (NaN; `<` or `=` with minus infinity), and for too many nodes.
    pub fn new(ensemble: &Ensemble) -> Option<Self> {
        let mut layout = Layout::new(ensemble)?;
        for (at, node) in ensemble.nodes.iter().enumerate() {
            if let TreeNode::Branch { .. } = node {
                layout.children(at)?;
            }
        }
        for (position, root) in ensemble.roots.iter().enumerate() {
            layout.put(position, *root)?;
        }
        let of_root = ensemble.roots.iter().map(|root| layout.depths[*root]);
        let depths: Vec<usize> = of_root.collect();
        let one = |range: &Range<usize>| range.len() == 1;
        let single = ensemble.base.len() == 1 && layout.leaf_ranges().all(one);
        let mut forest = Self {
            nodes: layout.nodes,
            trees: ensemble.roots.len(),
            comparisons: depths.iter().sum(),
            depths: depths
                .chunks(TREES)
                .map(|group| group.iter().copied().max().unwrap_or(0))
                .collect(),
            ranges: layout.ranges,
            leaves: ensemble.leaves.clone(),
            base: ensemble.base.clone(),
            aggregate: ensemble.aggregate,
            features: ensemble.features(),
            missing: layout.missing,
        };
        if single {
            for (node, range) in forest.nodes.iter_mut().zip(&forest.ranges) {
                node.weight = forest.leaves.get(range.start).map_or(0.0, |(_, weight)| *weight);
            }
            forest.ranges.clear();
        }
        Some(forest)
    }

    /// The most that a row needs.
    pub fn comparisons(&self) -> usize {
        self.comparisons
    }

    pub fn trees(&self) -> usize {
        self.trees
    }

    /// Floats of a prepared row: 0, for leaves to compare with; the features; these again with NaN as minus infinity.
    fn width(&self) -> usize {
        1 + self.features * if self.missing { 2 } else { 1 }
    }

    #[inline(always)]
    fn prepare(&self, x: Rows<'_>, rows: usize, prepared: &mut Vec<f32>) {
        let width = self.width();
        if prepared.len() < rows * width {
            prepared.resize(rows * width, 0.0);
        }
        for (row, prepared) in prepared.chunks_exact_mut(width).take(rows).enumerate() {
            let x = x.row(row, self.features);
            let (zero, values) = prepared.split_at_mut(1);
            zero.fill(0.0);
            let (values, small) = values.split_at_mut(self.features);
            values.copy_from_slice(x);
            for (small, x) in small.iter_mut().zip(x) {
                *small = if x.is_nan() { f32::NEG_INFINITY } else { *x };
            }
        }
    }

    /// Adds the leaves that the rows came to, tree by tree.
    #[inline(always)]
    fn add(&self, leaves: &[[u32; ROWS]], rows: Range<usize>, out: &mut RowsMut<'_>) {
        if !self.ranges.is_empty() {
            for (lane, row) in rows.enumerate() {
                let out = out.row(row, self.base.len());
                for tree in leaves {
                    for (target, weight) in &self.leaves[self.ranges[tree[lane] as usize].clone()] {
                        out[*target] = self.aggregate.add(out[*target], *weight);
                    }
                }
            }
            return;
        }
        let mut scores = [0.0; ROWS];
        for (score, row) in scores.iter_mut().zip(rows.clone()) {
            *score = out.row(row, 1)[0];
        }
        for tree in leaves {
            for (score, leaf) in scores.iter_mut().zip(tree) {
                *score = self.aggregate.add(*score, self.nodes[*leaf as usize].weight);
            }
        }
        for (score, row) in scores.iter().zip(rows) {
            out.row(row, 1)[0] = *score;
        }
    }
}

on_each_set! {
    /// A score for each target, for each of `rows`; `prepared` is memory that is used again.
    trees(forest: &Forest, x: Rows<'_>, rows: usize, prepared: &mut Vec<f32>, out: &mut RowsMut<'_>) = trees_body
}

#[inline(always)]
fn trees_body(forest: &Forest, x: Rows<'_>, rows: usize, prepared: &mut Vec<f32>, out: &mut RowsMut<'_>) {
    forest.prepare(x, rows, prepared);
    let (width, targets) = (forest.width(), forest.base.len());
    for row in 0..rows {
        out.row(row, targets).fill(forest.aggregate.start());
    }
    // A group's nodes stay in the first cache while all rows pass by.
    for (group, depth) in forest.depths.iter().enumerate() {
        let first = group * TREES;
        let trees = (forest.trees - first).min(TREES);
        for from in (0..rows).step_by(ROWS) {
            let some = from..(from + ROWS).min(rows);
            let mut leaves = [[0; ROWS]; TREES];
            for row in some.clone() {
                let prepared = &prepared[row * width..(row + 1) * width];
                // Lanes without a tree walk the last one again.
                let mut at: [u32; TREES] = std::array::from_fn(|lane| (first + lane.min(trees - 1)) as u32);
                walk(forest, prepared, &mut at, *depth);
                for (leaves, at) in leaves.iter_mut().zip(at) {
                    leaves[row - from] = at;
                }
            }
            forest.add(&leaves[..trees], some, out);
        }
    }
    for row in 0..rows {
        for (score, base) in out.row(row, targets).iter_mut().zip(&forest.base) {
            *score = forest.aggregate.end(*score, forest.trees, *base);
        }
    }
}

#[inline(always)]
fn walk(forest: &Forest, row: &[f32], at: &mut [u32; TREES], depth: usize) {
    assert!(row.len() >= forest.width(), "a prepared row");
    // A look at who has arrived costs more than a few steps that nobody needs.
    let unseen = depth.min(UNSEEN);
    for _ in 0..unseen {
        step(forest, row, at);
    }
    for _ in unseen..depth {
        let before = *at;
        step(forest, row, at);
        if before == *at {
            break;
        }
    }
}

#[inline(always)]
#[allow(clippy::neg_cmp_op_on_partial_ord)] // NaN is not at or below anything
fn step(forest: &Forest, row: &[f32], at: &mut [u32; TREES]) {
    for at in at {
        // SAFETY: walks begin at roots, and [`Layout`] makes every child, and the node behind it, a position of a node, and
        // every feature an element of a prepared row. A leaf compares 0 with infinity, and stays.
        let (node, x) = unsafe {
            let node = forest.nodes.get_unchecked(*at as usize);
            (node, *row.get_unchecked(node.feature as usize))
        };
        *at = node.child + u32::from(!(x <= node.threshold));
    }
}

/// Where nodes go.
struct Layout<'a> {
    ensemble: &'a Ensemble,
    nodes: Vec<Node>,
    ranges: Vec<Range<usize>>,
    /// Position of the children of each branch.
    children: Vec<usize>,
    /// The longest walk from each node.
    depths: Vec<usize>,
    missing: bool,
}

/// A branch in terms of `<=`.
struct Test {
    threshold: f32,
    below: usize,
    above: usize,
    missing_is_below: bool,
}

impl<'a> Layout<'a> {
    fn new(ensemble: &'a Ensemble) -> Option<Self> {
        let is_equality = |mode: &Branch| matches!(mode, Branch::Equal | Branch::NotEqual);
        let mut children = Vec::with_capacity(ensemble.nodes.len());
        let mut size = ensemble.roots.len();
        let mut missing = false;
        for node in &ensemble.nodes {
            children.push(size);
            if let TreeNode::Branch { mode, .. } = node {
                size += if is_equality(mode) { 4 } else { 2 };
                missing |= tests(node)?.iter().flatten().any(|test| test.missing_is_below);
            }
        }
        // One position more than nodes can be said, and features twice.
        u32::try_from(size.max(2 * ensemble.features()).checked_add(1)?).ok()?;
        let mut depths = vec![0; ensemble.nodes.len()];
        for (at, node) in ensemble.nodes.iter().enumerate().rev() {
            // Branches lead forwards.
            if let TreeNode::Branch { yes, no, mode, .. } = node {
                depths[at] = depths[*yes].max(depths[*no]) + if is_equality(mode) { 2 } else { 1 };
            }
        }
        let leaf = Node {
            threshold: f32::INFINITY,
            feature: 0,
            child: 0,
            weight: 0.0,
        };
        Some(Self {
            ensemble,
            nodes: vec![leaf; size],
            ranges: vec![0..0; size],
            children,
            depths,
            missing,
        })
    }

    /// Both children of a branch, at their places.
    fn children(&mut self, at: usize) -> Option<()> {
        let position = self.children[at];
        match tests(&self.ensemble.nodes[at])? {
            [Some(test), None] => {
                self.put(position, test.below)?;
                self.put(position + 1, test.above)
            }
            // At or below the number: whether it is the number itself.
            [Some(test), Some(own)] => {
                self.nodes[position] = self.branch(at, &own, position + 2)?;
                self.put(position + 1, test.above)?;
                self.put(position + 2, own.below)?;
                self.put(position + 3, own.above)
            }
            _ => None,
        }
    }

    fn put(&mut self, position: usize, node: usize) -> Option<()> {
        match &self.ensemble.nodes[node] {
            TreeNode::Leaf { start, end } => {
                self.nodes[position].child = u32::try_from(position).ok()?;
                self.ranges[position] = *start..*end;
            }
            branch @ TreeNode::Branch { .. } => {
                let [test, _] = tests(branch)?;
                self.nodes[position] = self.branch(node, &test?, self.children[node])?;
            }
        }
        Some(())
    }

    fn branch(&self, at: usize, test: &Test, child: usize) -> Option<Node> {
        let TreeNode::Branch { feature, .. } = self.ensemble.nodes[at] else {
            return None;
        };
        let skipped = if test.missing_is_below {
            self.ensemble.features()
        } else {
            0
        };
        Some(Node {
            threshold: test.threshold,
            feature: u32::try_from(1 + skipped + feature).ok()?,
            child: u32::try_from(child).ok()?,
            weight: 0.0,
        })
    }

    /// Of leaves that a walk can come to.
    fn leaf_ranges(&self) -> impl Iterator<Item = &Range<usize>> {
        let nodes = self.nodes.iter().zip(&self.ranges).enumerate();
        nodes.filter_map(|(at, (node, range))| (node.child as usize == at).then_some(range))
    }
}

/// What a branch asks: one question, or for an equality a second one of what is at or below the number.
fn tests(node: &TreeNode) -> Option<[Option<Test>; 2]> {
    let TreeNode::Branch {
        mode,
        threshold,
        yes,
        no,
        missing_is_yes,
        ..
    } = *node
    else {
        return Some([None, None]);
    };
    if threshold.is_nan() {
        return None;
    }
    let before = (threshold > f32::NEG_INFINITY).then(|| threshold.next_down());
    let (yes_is_below, threshold_of_first) = match mode {
        Branch::LessOrEqual => (true, threshold),
        Branch::Less => (true, before?),
        Branch::GreaterOrEqual => (false, before?),
        Branch::Greater => (false, threshold),
        Branch::Equal | Branch::NotEqual => {
            let (same, other) = if mode == Branch::Equal {
                (yes, no)
            } else {
                (no, yes)
            };
            let missing_is_same = missing_is_yes == (mode == Branch::Equal);
            let first = Test {
                threshold,
                below: same,
                above: other,
                missing_is_below: missing_is_same,
            };
            let second = Test {
                threshold: before?,
                below: other,
                above: same,
                missing_is_below: false,
            };
            return Some([Some(first), Some(second)]);
        }
    };
    let (below, above) = if yes_is_below { (yes, no) } else { (no, yes) };
    let test = Test {
        threshold: threshold_of_first,
        below,
        above,
        missing_is_below: missing_is_yes == yes_is_below,
    };
    Some([Some(test), None])
}

#[cfg(test)]
#[path = "trees_tests.rs"]
mod tests;
