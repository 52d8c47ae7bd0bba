//! `ai.onnx.ml` tree ensembles, as LightGBM and XGBoost leave them.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Lowered, one};
use crate::interpret::trees::{Aggregate, Branch, Ensemble, TreeNode};
use crate::ir::{Binary, Extent, Op, Unary, ValueId};
use crate::onnx::step::Step;
use crate::tensor::Tensor;

/// The number is only said in the file: memory for so many may be had.
const MOST_TARGETS: usize = 1 << 16;

pub fn lower(step: &mut Step<'_, '_>) -> Lowered {
    match step.node.op_type.as_str() {
        "TreeEnsembleRegressor" => regressor(step),
        "TreeEnsembleClassifier" => classifier(step),
        "ZipMap" => Err("export without ZipMap (zipmap=False)".to_owned()),
        "ArrayFeatureExtractor" => {
            let (x, indices) = (step.input(0)?, step.input(1)?);
            let flat = Extent::product(&step.fact(indices).shape).ok_or("indices grow with the rows")?;
            let indices = step.reshape(indices, vec![flat])?;
            let axis = step.rank(x).checked_sub(1).ok_or("the input has no axis")?;
            one(step.push(Op::Gather { axis }, &[x, indices])?)
        }
        _ => Ok(None),
    }
}

fn regressor(step: &mut Step<'_, '_>) -> Lowered {
    let targets = step.attributes.int("n_targets", 1);
    let targets = usize::try_from(targets)
        .ok()
        .filter(|targets| *targets <= MOST_TARGETS)
        .ok_or_else(|| format!("n_targets is {targets}; 0 to {MOST_TARGETS} are taken"))?;
    let ensemble = ensemble(step, "target", targets)?;
    let x = step.input(0)?;
    let scores = step.push(Op::Trees(Arc::new(ensemble)), &[x])?;
    one(match step.attributes.text("post_transform").unwrap_or("NONE") {
        "NONE" => scores,
        "LOGISTIC" => step.push(Op::Unary(Unary::Sigmoid), &[scores])?,
        other => return Err(format!("post_transform {other} is not taken")),
    })
}

/// Two classes: label and both probabilities. Weights are of the second class alone, or of each.
fn classifier(step: &mut Step<'_, '_>) -> Lowered {
    let labels = step.attributes.ints("classlabels_int64s").unwrap_or(&[]).to_vec();
    let [first, second] = labels[..] else {
        return Err(format!("{} integer classes are not taken, 2 are", labels.len()));
    };
    let ids = step.attributes.ints("class_ids").unwrap_or(&[]);
    if ids.iter().any(|id| ids.first() != Some(id)) {
        return Err("weights for both of two classes are not taken".to_owned());
    }
    let ensemble = ensemble(step, "class", 1)?;
    let x = step.input(0)?;
    let scores = step.push(Op::Trees(Arc::new(ensemble)), &[x])?;
    let (positive, middle) = match step.attributes.text("post_transform").unwrap_or("NONE") {
        "NONE" => (scores, 0.5),
        "LOGISTIC" => (step.push(Op::Unary(Unary::Sigmoid), &[scores])?, 0.5),
        other => return Err(format!("post_transform {other} is not taken")),
    };
    let unit = step.constant(Tensor::scalar(1.0));
    let negative = step.push(Op::Binary(Binary::Sub), &[unit, positive])?;
    let both = step.push(Op::Concat { axis: 1 }, &[negative, positive])?;
    let middle = step.constant(Tensor::scalar(middle));
    let above = step.push(Op::Binary(Binary::Greater), &[positive, middle])?;
    let [first, second] = [first, second].map(|label| step.constant(Tensor::i64(Vec::new(), vec![label])));
    let label = step.push(Op::Where, &[above, second, first])?;
    let rows = step.shape(label)[0];
    let label: ValueId = step.reshape(label, vec![rows])?;
    Ok(Some(vec![label, both]))
}

fn ensemble(step: &Step<'_, '_>, kind: &str, targets: usize) -> Result<Ensemble, String> {
    let attributes = &step.attributes;
    let ints = |name: &str| attributes.ints(name).unwrap_or(&[]);
    if attributes.has("nodes_values_as_tensor") {
        return Err("trees of doubles are not taken".to_owned());
    }
    let (trees, nodes) = (ints("nodes_treeids"), ints("nodes_nodeids"));
    let position: HashMap<(i64, i64), usize> = trees
        .iter()
        .zip(nodes)
        .enumerate()
        .map(|(at, (tree, node))| ((*tree, *node), at))
        .collect();
    let modes = attributes.texts("nodes_modes");
    let columns = [
        trees.len(),
        nodes.len(),
        modes.len(),
        ints("nodes_featureids").len(),
        attributes.floats("nodes_values").len(),
    ];
    let children = [ints("nodes_truenodeids").len(), ints("nodes_falsenodeids").len()];
    if columns.iter().chain(&children).any(|count| *count != trees.len()) || position.len() != trees.len() {
        return Err("the attributes of its nodes differ in length, or name a node twice".to_owned());
    }
    let (leaves, ranges) = leaves(step, kind)?;
    let mut built = Vec::with_capacity(trees.len());
    for (at, mode) in modes.iter().enumerate() {
        let branch = match *mode {
            "LEAF" => {
                let (start, end) = ranges.get(&(trees[at], nodes[at])).copied().unwrap_or((0, 0));
                built.push(TreeNode::Leaf { start, end });
                continue;
            }
            "BRANCH_LEQ" => Branch::LessOrEqual,
            "BRANCH_LT" => Branch::Less,
            "BRANCH_GTE" => Branch::GreaterOrEqual,
            "BRANCH_GT" => Branch::Greater,
            "BRANCH_EQ" => Branch::Equal,
            "BRANCH_NEQ" => Branch::NotEqual,
            other => return Err(format!("mode {other} is not taken")),
        };
        let child = |name: &str| {
            let id = ints(name)[at];
            position
                .get(&(trees[at], id))
                .copied()
                .ok_or_else(|| format!("tree {} has no node {id}", trees[at]))
        };
        built.push(TreeNode::Branch {
            mode: branch,
            feature: usize::try_from(ints("nodes_featureids")[at]).map_err(|_| "a feature is negative")?,
            threshold: attributes.floats("nodes_values")[at],
            yes: child("nodes_truenodeids")?,
            no: child("nodes_falsenodeids")?,
            missing_is_yes: ints("nodes_missing_value_tracks_true")
                .get(at)
                .is_some_and(|flag| *flag != 0),
        });
    }
    let roots = (0..trees.len())
        .filter(|at| *at == 0 || trees[*at] != trees[at - 1])
        .collect();
    let base = match attributes.floats("base_values") {
        [] => vec![0.0; targets],
        values if values.len() == targets => values.to_vec(),
        values => return Err(format!("{} base values for {targets} targets", values.len())),
    };
    let aggregate = match attributes.text("aggregate_function").unwrap_or("SUM") {
        "SUM" => Aggregate::Sum,
        "AVERAGE" => Aggregate::Average,
        "MIN" => Aggregate::Min,
        "MAX" => Aggregate::Max,
        other => return Err(format!("aggregate_function {other} is not known")),
    };
    Ensemble::new(built, roots, leaves, base, aggregate)
}

type Ranges = HashMap<(i64, i64), (usize, usize)>;

/// Targets and weights, those of one leaf together, and where each leaf's are.
fn leaves(step: &Step<'_, '_>, kind: &str) -> Result<(Vec<(usize, f32)>, Ranges), String> {
    let ints = |name: &str| step.attributes.ints(&format!("{kind}_{name}")).unwrap_or(&[]);
    let (trees, nodes, ids) = (ints("treeids"), ints("nodeids"), ints("ids"));
    let weights = step.attributes.floats(&format!("{kind}_weights"));
    if [trees.len(), nodes.len(), ids.len()]
        .iter()
        .any(|count| *count != weights.len())
    {
        return Err("the attributes of its leaves differ in length".to_owned());
    }
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|at| (trees[*at], nodes[*at]));
    let mut leaves = Vec::with_capacity(order.len());
    let mut ranges = Ranges::new();
    for at in order {
        // Of two classes only one score is kept, whichever of them the weights name.
        let target = if kind == "class" {
            0
        } else {
            usize::try_from(ids[at]).map_err(|_| "a target is negative")?
        };
        let range = ranges
            .entry((trees[at], nodes[at]))
            .or_insert((leaves.len(), leaves.len()));
        leaves.push((target, weights[at]));
        range.1 = leaves.len();
    }
    Ok((leaves, ranges))
}
