//! Shape inference: element type and shape of a node's outputs, the batch symbolic, and the elements of tensors of sizes.

mod sizes;

pub use sizes::{LARGEST_CONSTANT, LARGEST_ROW, check_size};

use crate::ir::{Binary, Extent, Fact, Op, Unary, display_shape};
use crate::tensor::Element;

/// Facts of the outputs; the error says what does not fit.
pub fn infer(op: &Op, inputs: &[&Fact]) -> Result<Vec<Fact>, String> {
    let mut facts = match op {
        Op::TopK { axis, k, .. } => top_k(inputs[0], *axis, *k)?,
        Op::Gru { hidden, .. } => gru(inputs, *hidden)?,
        _ => vec![single(op, inputs)?],
    };
    if let [fact] = facts.as_mut_slice() {
        fact.sizes = sizes::sizes(op, inputs, &fact.shape);
    }
    Ok(facts)
}

fn single(op: &Op, inputs: &[&Fact]) -> Result<Fact, String> {
    let x = inputs.first();
    let same = |shape: Vec<Extent>| Ok(Fact::new(x.map_or(Element::I64, |x| x.element), shape));
    match op {
        Op::Unary(unary) => unary_fact(*unary, inputs[0]),
        Op::Binary(binary) => binary_fact(*binary, inputs),
        Op::Where => select(inputs),
        Op::Cast(to) => Ok(Fact::new(*to, inputs[0].shape.clone())),
        Op::MatMul => matmul(inputs),
        Op::Gather { axis } => {
            need_int(inputs[1])?;
            let (table, indices) = (&inputs[0].shape, &inputs[1].shape);
            check_axis(*axis, table)?;
            same([&table[..*axis], indices, &table[axis + 1..]].concat())
        }
        Op::GatherElements { axis } => gather_elements(inputs, *axis),
        Op::GatherNd { batch_dims } => gather_nd(inputs, *batch_dims),
        Op::Concat { axis } => concat(inputs, *axis),
        Op::Slice {
            axis,
            start,
            end,
            step,
        } => {
            check_axis(*axis, &inputs[0].shape)?;
            let length = slice_length(inputs[0].shape[*axis], *start, *end, *step)?;
            let mut shape = inputs[0].shape.clone();
            shape[*axis] = length;
            same(shape)
        }
        Op::Reshape { shape } => {
            let (from, to) = (Extent::product(&inputs[0].shape), Extent::product(shape));
            if from.is_none() || from != to {
                return Err(format!(
                    "{} does not reshape to {}",
                    display_shape(&inputs[0].shape),
                    display_shape(shape)
                ));
            }
            same(shape.clone())
        }
        Op::Transpose { perm } => transpose(perm, inputs[0]),
        Op::Expand { shape } => same(broadcast(&inputs[0].shape, shape)?),
        Op::Range { length } => Ok(Fact::new(Element::I64, vec![*length])),
        Op::Reduce { axes, keep, .. } => reduce(inputs[0], axes, *keep),
        Op::Softmax { axis, .. } | Op::CumSum { axis } => {
            check_axis(*axis, &inputs[0].shape)?;
            if matches!(op, Op::Softmax { .. }) {
                need(inputs[0], Element::F32, "the input")?;
            }
            same(inputs[0].shape.clone())
        }
        Op::LayerNorm { axis, .. } => layer_norm(inputs, *axis),
        Op::Trees(ensemble) => match inputs[0].shape.as_slice() {
            [rows, features]
                if features
                    .as_fixed()
                    .is_some_and(|count| count >= ensemble.features()) =>
            {
                need(inputs[0], Element::F32, "the input")?;
                Ok(Fact::new(
                    Element::F32,
                    vec![*rows, Extent::of(ensemble.targets())],
                ))
            }
            shape => Err(format!(
                "trees need [N, {}], not {}",
                ensemble.features(),
                display_shape(shape)
            )),
        },
        Op::TopK { .. } | Op::Gru { .. } => unreachable!("operators with two outputs are inferred apart"),
    }
}

fn select(inputs: &[&Fact]) -> Result<Fact, String> {
    need(inputs[0], Element::Bool, "the condition")?;
    if inputs[1].element != inputs[2].element {
        return Err("the two branches differ in element type".to_owned());
    }
    let shape = broadcast(&broadcast(&inputs[0].shape, &inputs[1].shape)?, &inputs[2].shape)?;
    Ok(Fact::new(inputs[1].element, shape))
}

fn transpose(perm: &[usize], x: &Fact) -> Result<Fact, String> {
    let mut sorted = perm.to_vec();
    sorted.sort_unstable();
    if sorted != (0..x.shape.len()).collect::<Vec<_>>() {
        return Err(format!("perm {perm:?} is no order of {} axes", x.shape.len()));
    }
    Ok(Fact::new(
        x.element,
        perm.iter().map(|axis| x.shape[*axis]).collect(),
    ))
}

fn layer_norm(inputs: &[&Fact], axis: usize) -> Result<Fact, String> {
    let x = inputs[0];
    check_axis(axis, &x.shape)?;
    inputs
        .iter()
        .try_for_each(|input| need(input, Element::F32, "each input"))?;
    for weight in &inputs[1..] {
        if broadcast(&weight.shape, &x.shape)? != x.shape {
            return Err("scale and bias do not fit the normalised axes".to_owned());
        }
    }
    Ok(Fact::new(Element::F32, x.shape.clone()))
}

fn need(fact: &Fact, element: Element, what: &str) -> Result<(), String> {
    if fact.element == element {
        return Ok(());
    }
    Err(format!("{what} must be {element:?}, not {:?}", fact.element))
}

fn need_int(fact: &Fact) -> Result<(), String> {
    match fact.element {
        Element::I64 | Element::I32 => Ok(()),
        other => Err(format!("indices must be integers, not {other:?}")),
    }
}

fn check_axis(axis: usize, shape: &[Extent]) -> Result<(), String> {
    if axis < shape.len() {
        return Ok(());
    }
    Err(format!("axis {axis} is outside of {}", display_shape(shape)))
}

pub fn broadcast(a: &[Extent], b: &[Extent]) -> Result<Vec<Extent>, String> {
    let rank = a.len().max(b.len());
    let at = |shape: &[Extent], axis: usize| {
        (axis + shape.len())
            .checked_sub(rank)
            .map_or(Extent::ONE, |axis| shape[axis])
    };
    let one = |axis| match (at(a, axis), at(b, axis)) {
        (x, y) if x == y || y == Extent::ONE => Ok(x),
        (Extent::ONE, y) => Ok(y),
        _ => Err(format!(
            "{} and {} do not broadcast",
            display_shape(a),
            display_shape(b)
        )),
    };
    (0..rank).map(one).collect()
}

fn unary_fact(unary: Unary, x: &Fact) -> Result<Fact, String> {
    let result = match unary {
        Unary::Not => {
            need(x, Element::Bool, "the input")?;
            Element::Bool
        }
        Unary::IsInf | Unary::IsNan => {
            need(x, Element::F32, "the input")?;
            Element::Bool
        }
        Unary::Abs | Unary::Neg | Unary::Relu if x.element != Element::Bool => x.element,
        _ => {
            need(x, Element::F32, "the input")?;
            Element::F32
        }
    };
    Ok(Fact::new(result, x.shape.clone()))
}

fn binary_fact(binary: Binary, inputs: &[&Fact]) -> Result<Fact, String> {
    let (a, b) = (inputs[0], inputs[1]);
    if a.element != b.element {
        return Err(format!("inputs are {:?} and {:?}", a.element, b.element));
    }
    let logic = matches!(binary, Binary::And | Binary::Or | Binary::Xor);
    let shape = broadcast(&a.shape, &b.shape)?;
    match (logic, a.element) {
        (true, Element::Bool) => {}
        (true, other) => return Err(format!("inputs must be Bool, not {other:?}")),
        (false, Element::Bool) if binary != Binary::Equal => return Err("inputs are Bool".to_owned()),
        (false, Element::I64 | Element::I32) if matches!(binary, Binary::Pow | Binary::PRelu) => {
            return Err("inputs must be F32".to_owned());
        }
        _ => {}
    }
    let element = if binary.is_predicate() {
        Element::Bool
    } else {
        a.element
    };
    if binary == Binary::PRelu && shape != a.shape {
        return Err("the slope does not broadcast to the input".to_owned());
    }
    Ok(Fact::new(element, shape))
}

fn matmul(inputs: &[&Fact]) -> Result<Fact, String> {
    let (a, b) = (&inputs[0].shape, &inputs[1].shape);
    inputs
        .iter()
        .try_for_each(|input| need(input, Element::F32, "each input"))?;
    let ([.., rows, inner], [.., inner_b, columns]) = (a.as_slice(), b.as_slice()) else {
        return Err("both inputs need two axes or more".to_owned());
    };
    if inner != inner_b {
        return Err(format!(
            "{} and {} do not multiply",
            display_shape(a),
            display_shape(b)
        ));
    }
    let mut shape = broadcast(&a[..a.len() - 2], &b[..b.len() - 2])?;
    shape.extend([*rows, *columns]);
    if let Some(start) = inputs.get(2)
        && broadcast(&start.shape, &shape)? != shape
    {
        return Err(format!(
            "{} does not broadcast to {}",
            display_shape(&start.shape),
            display_shape(&shape)
        ));
    }
    Ok(Fact::new(Element::F32, shape))
}

fn gather_elements(inputs: &[&Fact], axis: usize) -> Result<Fact, String> {
    need_int(inputs[1])?;
    let (data, indices) = (&inputs[0].shape, &inputs[1].shape);
    check_axis(axis, data)?;
    let fits = data.len() == indices.len()
        && data
            .iter()
            .zip(indices)
            .enumerate()
            .all(|(at, (a, b))| at == axis || a == b);
    if !fits {
        return Err(format!(
            "indices {} do not fit {}",
            display_shape(indices),
            display_shape(data)
        ));
    }
    Ok(Fact::new(inputs[0].element, indices.clone()))
}

fn gather_nd(inputs: &[&Fact], batch_dims: usize) -> Result<Fact, String> {
    need_int(inputs[1])?;
    let (data, indices) = (&inputs[0].shape, &inputs[1].shape);
    let depth = indices.last().and_then(|extent| extent.as_fixed());
    let fits = |depth: &usize| {
        *depth > 0
            && batch_dims < indices.len()
            && batch_dims + depth <= data.len()
            && data[..batch_dims] == indices[..batch_dims]
    };
    let Some(depth) = depth.filter(fits) else {
        return Err(format!(
            "indices {} do not fit {}",
            display_shape(indices),
            display_shape(data)
        ));
    };
    let shape = [&indices[..indices.len() - 1], &data[batch_dims + depth..]].concat();
    Ok(Fact::new(inputs[0].element, shape))
}

fn concat(inputs: &[&Fact], axis: usize) -> Result<Fact, String> {
    let first = inputs[0];
    check_axis(axis, &first.shape)?;
    let mut shape = first.shape.clone();
    for input in &inputs[1..] {
        let fits = input.shape.len() == shape.len()
            && shape
                .iter()
                .zip(&input.shape)
                .enumerate()
                .all(|(at, (a, b))| at == axis || a == b);
        if !fits || input.element != first.element {
            return Err(format!(
                "{} and {} do not concatenate",
                display_shape(&first.shape),
                display_shape(&input.shape)
            ));
        }
        shape[axis] = shape[axis]
            .checked_add(input.shape[axis])
            .ok_or("the result is too long")?;
    }
    Ok(Fact::new(first.element, shape))
}

fn slice_length(length: Extent, start: i64, end: i64, step: i64) -> Result<Extent, String> {
    match length.as_fixed() {
        Some(size) => {
            let size = i64::try_from(size).map_err(|_| "the axis is too long")?;
            let inside = if step > 0 {
                0 <= start && end <= size
            } else {
                start < size && -1 <= end
            };
            if step == 0 || !inside {
                return Err(format!("slice {start}:{end}:{step} is outside of {length}"));
            }
            let count = if step > 0 {
                (end - start + step - 1) / step
            } else {
                (start - end - step - 1) / -step
            };
            Ok(Extent::fixed(count.max(0)))
        }
        None => Err(format!("slice over {length} rows")),
    }
}

fn reduce(x: &Fact, axes: &[usize], keep: bool) -> Result<Fact, String> {
    axes.iter().try_for_each(|axis| check_axis(*axis, &x.shape))?;
    if x.element == Element::Bool {
        return Err("the input is Bool".to_owned());
    }
    let mut shape = Vec::new();
    for (axis, extent) in x.shape.iter().enumerate() {
        match (axes.contains(&axis), keep) {
            (false, _) => shape.push(*extent),
            (true, true) => shape.push(Extent::ONE),
            (true, false) => {}
        }
    }
    Ok(Fact::new(x.element, shape))
}

fn top_k(x: &Fact, axis: usize, k: usize) -> Result<Vec<Fact>, String> {
    check_axis(axis, &x.shape)?;
    need(x, Element::F32, "the input")?;
    let mut shape = x.shape.clone();
    if shape[axis].as_fixed().is_none_or(|size| size < k) {
        return Err(format!("k is {k}, the axis has {}", shape[axis]));
    }
    shape[axis] = Extent::of(k);
    Ok(vec![
        Fact::new(Element::F32, shape.clone()),
        Fact::new(Element::I64, shape),
    ])
}

fn gru(inputs: &[&Fact], hidden: usize) -> Result<Vec<Fact>, String> {
    inputs
        .iter()
        .try_for_each(|input| need(input, Element::F32, "each input"))?;
    let hidden_extent = Extent::of(hidden);
    let gates = Extent::of(3 * hidden);
    let [steps, rows, width] = inputs[0].shape[..] else {
        return Err(format!(
            "the input needs [steps, N, width], not {}",
            display_shape(&inputs[0].shape)
        ));
    };
    let fits = steps.is_fixed()
        && inputs[1].shape == [gates, width]
        && inputs[2].shape == [gates, hidden_extent]
        && inputs[3].shape == [Extent::of(6 * hidden)]
        && inputs[4].shape == [rows, hidden_extent];
    if !fits {
        return Err("weights, bias or initial state do not fit".to_owned());
    }
    Ok(vec![
        Fact::new(Element::F32, vec![steps, rows, hidden_extent]),
        Fact::new(Element::F32, vec![rows, hidden_extent]),
    ])
}

#[cfg(test)]
mod tests;
