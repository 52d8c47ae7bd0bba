//! Tree ensembles of `ai.onnx.ml`: a walk a tree, leaves added in the order of the trees.

use super::EvalError;
use crate::tensor::Tensor;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Branch {
    LessOrEqual,
    Less,
    GreaterOrEqual,
    Greater,
    Equal,
    NotEqual,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TreeNode {
    Branch {
        mode: Branch,
        feature: usize,
        threshold: f32,
        /// Positions in the ensemble's nodes.
        yes: usize,
        no: usize,
        missing_is_yes: bool,
    },
    /// A range of the ensemble's leaves.
    Leaf { start: usize, end: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    Sum,
    Average,
    Min,
    Max,
}

impl Aggregate {
    /// What a score begins at.
    #[inline(always)]
    pub fn start(self) -> f32 {
        match self {
            Aggregate::Sum | Aggregate::Average => 0.0,
            Aggregate::Min => f32::INFINITY,
            Aggregate::Max => f32::NEG_INFINITY,
        }
    }

    /// A score with one more leaf.
    #[inline(always)]
    pub fn add(self, score: f32, weight: f32) -> f32 {
        match self {
            Aggregate::Sum | Aggregate::Average => score + weight,
            Aggregate::Min => score.min(weight),
            Aggregate::Max => score.max(weight),
        }
    }

    /// The score of all `trees`.
    #[allow(clippy::cast_precision_loss)] // a number of trees
    #[inline(always)]
    pub fn end(self, score: f32, trees: usize, base: f32) -> f32 {
        match self {
            Aggregate::Average => score / trees as f32 + base,
            Aggregate::Sum | Aggregate::Min | Aggregate::Max => score + base,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Ensemble {
    pub(crate) nodes: Vec<TreeNode>,
    pub(crate) roots: Vec<usize>,
    /// Target and weight.
    pub(crate) leaves: Vec<(usize, f32)>,
    pub(crate) base: Vec<f32>,
    pub(crate) aggregate: Aggregate,
    features: usize,
}

impl Ensemble {
    /// Checks that every branch leads forwards to a node, so that each walk ends.
    pub fn new(
        nodes: Vec<TreeNode>,
        roots: Vec<usize>,
        leaves: Vec<(usize, f32)>,
        base: Vec<f32>,
        aggregate: Aggregate,
    ) -> Result<Self, String> {
        let mut features = 0;
        for (at, node) in nodes.iter().enumerate() {
            match node {
                TreeNode::Branch { yes, no, feature, .. } => {
                    if *yes <= at || *no <= at || *yes >= nodes.len() || *no >= nodes.len() {
                        return Err(format!("tree node {at} leads back or nowhere"));
                    }
                    features = features.max(feature + 1);
                }
                TreeNode::Leaf { start, end } if start <= end && *end <= leaves.len() => {}
                TreeNode::Leaf { .. } => return Err(format!("tree node {at} has leaves that do not exist")),
            }
        }
        if leaves.iter().any(|(target, _)| *target >= base.len())
            || roots.iter().any(|root| *root >= nodes.len())
        {
            return Err("a leaf's target or a root does not exist".to_owned());
        }
        Ok(Self {
            nodes,
            roots,
            leaves,
            base,
            aggregate,
            features,
        })
    }

    /// Columns that the trees look at.
    pub fn features(&self) -> usize {
        self.features
    }

    pub fn targets(&self) -> usize {
        self.base.len()
    }

    pub fn run(&self, x: &Tensor) -> Result<Tensor, EvalError> {
        let values = x
            .as_f32()
            .ok_or_else(|| EvalError::element("TreeEnsemble", x.element))?;
        let columns = x.shape[1];
        let targets = self.targets();
        let mut scores = Vec::with_capacity(x.shape[0] * targets);
        // Rows have no columns where the trees look at none.
        for row in 0..x.shape[0] {
            scores.extend(self.score(&values[row * columns..(row + 1) * columns]));
        }
        Ok(Tensor::f32(vec![x.shape[0], targets], scores))
    }

    fn score(&self, row: &[f32]) -> Vec<f32> {
        let mut scores = vec![self.aggregate.start(); self.targets()];
        for root in &self.roots {
            for (target, weight) in self.leaf(*root, row) {
                scores[*target] = self.aggregate.add(scores[*target], *weight);
            }
        }
        for (score, base) in scores.iter_mut().zip(&self.base) {
            *score = self.aggregate.end(*score, self.roots.len(), *base);
        }
        scores
    }

    fn leaf(&self, root: usize, row: &[f32]) -> &[(usize, f32)] {
        let mut at = root;
        loop {
            match &self.nodes[at] {
                TreeNode::Leaf { start, end } => return &self.leaves[*start..*end],
                TreeNode::Branch {
                    mode,
                    feature,
                    threshold,
                    yes,
                    no,
                    missing_is_yes,
                } => {
                    let value = row[*feature];
                    let taken = match mode {
                        _ if value.is_nan() => *missing_is_yes,
                        Branch::LessOrEqual => value <= *threshold,
                        Branch::Less => value < *threshold,
                        Branch::GreaterOrEqual => value >= *threshold,
                        Branch::Greater => value > *threshold,
                        Branch::Equal => value == *threshold,
                        Branch::NotEqual => value != *threshold,
                    };
                    at = if taken { *yes } else { *no };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stump(yes: usize) -> Result<Ensemble, String> {
        let nodes = vec![
            TreeNode::Branch {
                mode: Branch::LessOrEqual,
                feature: 1,
                threshold: 0.5,
                yes,
                no: 2,
                missing_is_yes: true,
            },
            TreeNode::Leaf { start: 0, end: 1 },
            TreeNode::Leaf { start: 1, end: 2 },
        ];
        Ensemble::new(
            nodes,
            vec![0],
            vec![(0, -1.0), (0, 2.0)],
            vec![0.25],
            Aggregate::Sum,
        )
    }

    #[test]
    fn walks_and_sends_missing_values_where_declared() {
        let x = Tensor::f32(vec![3, 2], vec![9.0, 0.5, 9.0, 0.6, 9.0, f32::NAN]);
        let scores = stump(1).unwrap().run(&x).unwrap();
        assert_eq!(scores, Tensor::f32(vec![3, 1], vec![-0.75, 2.25, -0.75]));
    }

    #[test]
    fn a_loop_is_refused() {
        assert!(stump(0).unwrap_err().contains("leads back"));
        assert!(stump(7).is_err());
    }
}
