//! Operators that look along an axis: sums as a fixed tree of 16 lanes, whatever the vector width of a kernel.

use super::{EvalError, layout, math};
use crate::ir::Reduction;
use crate::tensor::{Data, Tensor};

fn floats<'a>(operator: &str, x: &'a Tensor) -> Result<&'a [f32], EvalError> {
    x.as_f32().ok_or_else(|| EvalError::element(operator, x.element))
}

/// The axes moved to the end, and the number of elements in each group.
fn grouped(axes: &[usize], x: &Tensor) -> (Tensor, usize) {
    let kept = (0..x.shape.len()).filter(|axis| !axes.contains(axis));
    let perm: Vec<usize> = kept.chain(axes.iter().copied()).collect();
    (
        layout::transpose(&perm, x),
        axes.iter().map(|axis| x.shape[*axis]).product(),
    )
}

pub fn reduce(reduction: Reduction, axes: &[usize], keep: bool, x: &Tensor) -> Result<Tensor, EvalError> {
    let mut shape = Vec::new();
    for (axis, size) in x.shape.iter().enumerate() {
        match (axes.contains(&axis), keep) {
            (false, _) => shape.push(*size),
            (true, true) => shape.push(1),
            (true, false) => {}
        }
    }
    let (moved, group) = grouped(axes, x);
    let count: usize = shape.iter().product();
    match &moved.data {
        Data::F32(values) => {
            let groups = (0..count).map(|at| reduce_floats(reduction, &values[at * group..(at + 1) * group]));
            Ok(Tensor::f32(shape, groups.collect()))
        }
        Data::Int(values) => {
            let groups =
                (0..count).map(|at| reduce_integers(reduction, &values[at * group..(at + 1) * group]));
            let values = groups
                .collect::<Option<Vec<i64>>>()
                .ok_or_else(|| EvalError::element("Reduce", x.element))?;
            Ok(Tensor::int(x.element, shape, values))
        }
        Data::Bf16(_) | Data::Bool(_) => Err(EvalError::element("Reduce", x.element)),
    }
}

#[allow(clippy::cast_precision_loss)] // lengths of axes
fn reduce_floats(reduction: Reduction, values: &[f32]) -> f32 {
    let all = values.iter().copied();
    match reduction {
        Reduction::Sum => math::sum(all),
        Reduction::Mean => math::sum(all) / values.len() as f32,
        Reduction::Max => math::tree(all, f32::NEG_INFINITY, math::max),
        Reduction::Min => math::tree(all, f32::INFINITY, math::min),
        Reduction::Prod => math::tree(all, 1.0, |a, b| a * b),
        Reduction::L2 => math::sum(all.map(|value| value * value)).sqrt(),
        Reduction::SumSquare => math::sum(all.map(|value| value * value)),
    }
}

fn reduce_integers(reduction: Reduction, values: &[i64]) -> Option<i64> {
    let all = values.iter().copied();
    Some(match reduction {
        Reduction::Sum => all.fold(0, i64::wrapping_add),
        Reduction::Prod => all.fold(1, i64::wrapping_mul),
        Reduction::Max => all.max()?,
        Reduction::Min => all.min()?,
        Reduction::Mean => all
            .fold(0, i64::wrapping_add)
            .checked_div(i64::try_from(values.len()).ok()?)?,
        Reduction::L2 | Reduction::SumSquare => return None,
    })
}

pub fn softmax(axis: usize, log: bool, x: &Tensor) -> Result<Tensor, EvalError> {
    let values = floats("Softmax", x)?;
    let inner: usize = x.shape[axis + 1..].iter().product();
    let size = x.shape[axis];
    let mut result = vec![0.0; values.len()];
    let starts = (0..values.len() / (size * inner).max(1))
        .flat_map(|outer| (0..inner).map(move |at| outer * size * inner + at));
    for start in starts {
        let at = |index: usize| start + index * inner;
        let highest = math::tree((0..size).map(|i| values[at(i)]), f32::NEG_INFINITY, math::max);
        for index in 0..size {
            result[at(index)] = math::exp(values[at(index)] - highest);
        }
        let total = math::sum((0..size).map(|i| result[at(i)]));
        for index in 0..size {
            result[at(index)] = if log {
                values[at(index)] - highest - math::log(total)
            } else {
                result[at(index)] / total
            };
        }
    }
    Ok(Tensor::f32(x.shape.clone(), result))
}

#[allow(clippy::cast_precision_loss)] // lengths of axes
pub fn layer_norm(axis: usize, epsilon: f32, inputs: &[&Tensor]) -> Result<Tensor, EvalError> {
    let x = floats("LayerNormalization", inputs[0])?;
    let group: usize = inputs[0].shape[axis..].iter().product();
    let shape = &inputs[0].shape;
    let weights = |input: &Tensor| {
        let values = floats("LayerNormalization", input)?.to_vec();
        let walk = crate::tensor::Walk::broadcast(&input.shape, shape);
        Ok(walk.map(move |index| values[index]))
    };
    let mut result = Vec::with_capacity(x.len());
    for group_values in x.chunks_exact(group.max(1)) {
        let mean = math::sum(group_values.iter().copied()) / group as f32;
        let variance = math::sum(group_values.iter().map(|x| (x - mean) * (x - mean))) / group as f32;
        let scale = 1.0 / (variance + epsilon).sqrt();
        result.extend(group_values.iter().map(|x| (x - mean) * scale));
    }
    result
        .iter_mut()
        .zip(weights(inputs[1])?)
        .for_each(|(value, scale)| *value *= scale);
    if let Some(bias) = inputs.get(2) {
        result
            .iter_mut()
            .zip(weights(bias)?)
            .for_each(|(value, bias)| *value += bias);
    }
    Ok(Tensor::f32(shape.clone(), result))
}

/// Sorted by value, then by index: the order never depends on chance. NaN is above every number, as in numpy.
pub fn top_k(axis: usize, k: usize, largest: bool, x: &Tensor) -> Result<Vec<Tensor>, EvalError> {
    let values = floats("TopK", x)?;
    let inner: usize = x.shape[axis + 1..].iter().product();
    let outer: usize = x.shape[..axis].iter().product();
    let size = x.shape[axis];
    let mut shape = x.shape.clone();
    shape[axis] = k;
    let mut best = vec![0.0; outer * k * inner];
    let mut indices = vec![0; outer * k * inner];
    for outer in 0..outer {
        for inner_at in 0..inner {
            let value = |index: usize| values[(outer * size + index) * inner + inner_at];
            let mut order: Vec<usize> = (0..size).collect();
            order.sort_by(|a, b| {
                let order = value(*a).total_cmp(&value(*b));
                if largest { order.reverse() } else { order }
            });
            for (rank, index) in order.into_iter().take(k).enumerate() {
                best[(outer * k + rank) * inner + inner_at] = value(index);
                indices[(outer * k + rank) * inner + inner_at] = i64::try_from(index).unwrap_or(i64::MAX);
            }
        }
    }
    Ok(vec![
        Tensor::f32(shape.clone(), best),
        Tensor::i64(shape, indices),
    ])
}

pub fn cum_sum(axis: usize, x: &Tensor) -> Result<Tensor, EvalError> {
    let inner: usize = x.shape[axis + 1..].iter().product();
    let size = x.shape[axis];
    let mut result = x.clone();
    let first = |index: usize| (index / inner.max(1)).is_multiple_of(size.max(1));
    match &mut result.data {
        Data::F32(values) => (0..values.len())
            .filter(|i| !first(*i))
            .for_each(|i| values[i] += values[i - inner]),
        Data::Int(values) => {
            (0..values.len())
                .filter(|i| !first(*i))
                .for_each(|i| values[i] = values[i].wrapping_add(values[i - inner]));
        }
        Data::Bf16(_) | Data::Bool(_) => return Err(EvalError::element("CumSum", x.element)),
    }
    Ok(result)
}
