//! Products: Gemm, MatMul, Einsum, convolutions of width 1, GRU.

use super::elementwise::factor;
use super::{Lowered, one};
use crate::ir::{Binary, Extent, Op, ValueId};
use crate::onnx::step::Step;
use crate::tensor::Tensor;

pub fn lower(step: &mut Step<'_, '_>) -> Lowered {
    match step.node.op_type.as_str() {
        "Gemm" => gemm(step),
        "MatMul" => matmul(step),
        "Einsum" => einsum(step),
        "Conv" => conv(step),
        "BatchNormalization" => batch_norm(step),
        "GRU" => gru(step),
        _ => Ok(None),
    }
}

fn scaled(step: &mut Step<'_, '_>, x: ValueId, by: f32) -> Result<ValueId, String> {
    if by.to_bits() == 1.0_f32.to_bits() {
        return Ok(x);
    }
    let by = factor(step, by);
    step.push(Op::Binary(Binary::Mul), &[x, by])
}

fn gemm(step: &mut Step<'_, '_>) -> Lowered {
    let (mut a, mut b) = (step.input(0)?, step.input(1)?);
    if step.attributes.int("transA", 0) != 0 {
        a = step.transpose(a, vec![1, 0])?;
    }
    if step.attributes.int("transB", 0) != 0 {
        b = step.transpose(b, vec![1, 0])?;
    }
    // Into the weights, where it costs nothing at run time.
    b = scaled(step, b, step.attributes.float("alpha", 1.0))?;
    let mut inputs = vec![a, b];
    if let Some(c) = step.optional(2) {
        inputs.push(scaled(step, c, step.attributes.float("beta", 1.0))?);
    }
    one(step.push(Op::MatMul, &inputs)?)
}

/// Vectors get the axis that ONNX adds and takes away again.
fn matmul(step: &mut Step<'_, '_>) -> Lowered {
    let (mut a, mut b) = (step.input(0)?, step.input(1)?);
    let (flat_a, flat_b) = (step.rank(a) == 1, step.rank(b) == 1);
    if flat_a {
        let shape = [vec![Extent::ONE], step.shape(a)].concat();
        a = step.reshape(a, shape)?;
    }
    if flat_b {
        let shape = [step.shape(b), vec![Extent::ONE]].concat();
        b = step.reshape(b, shape)?;
    }
    let product = step.push(Op::MatMul, &[a, b])?;
    let mut shape = step.shape(product);
    if flat_b {
        shape.pop();
    }
    if flat_a {
        shape.remove(shape.len() - 1 - usize::from(!flat_b));
    }
    one(step.reshape(product, shape)?)
}

/// A term of an equation with the letters at hand, sums of lone letters done.
struct Term {
    id: ValueId,
    letters: Vec<char>,
}

/// One or two terms: letters of one term alone are summed, shared ones become the batch, the rest a product.
fn einsum(step: &mut Step<'_, '_>) -> Lowered {
    let equation: String = step
        .attributes
        .text("equation")
        .unwrap_or("")
        .chars()
        .filter(|letter| !letter.is_whitespace())
        .collect();
    let (left, result) = equation
        .split_once("->")
        .ok_or("an equation without -> is not taken")?;
    let terms: Vec<&str> = left.split(',').collect();
    let inputs = step.all()?;
    let known = |text: &str| text.chars().all(|letter| letter.is_ascii_alphabetic());
    if terms.len() != inputs.len()
        || inputs.len() != 2
        || !terms.iter().all(|term| known(term))
        || !known(result)
    {
        return Err(format!("equation {equation:?} is not one of two plain terms"));
    }
    let result: Vec<char> = result.chars().collect();
    let letters: Vec<Vec<char>> = terms.iter().map(|term| term.chars().collect()).collect();
    for (id, letters) in inputs.iter().zip(&letters) {
        let twice = letters
            .iter()
            .enumerate()
            .any(|(at, letter)| letters[..at].contains(letter));
        if twice || letters.len() != step.rank(*id) {
            return Err(format!("equation {equation:?} does not fit its inputs"));
        }
    }
    let a = sum_alone(step, inputs[0], &letters[0], &letters[1], &result)?;
    let b = sum_alone(step, inputs[1], &letters[1], &letters[0], &result)?;
    one(contract(step, &a, &b, &result)?)
}

/// Sums over letters that stand nowhere else.
fn sum_alone(
    step: &mut Step<'_, '_>,
    id: ValueId,
    own: &[char],
    other: &[char],
    result: &[char],
) -> Result<Term, String> {
    let alone = |letter: &char| !other.contains(letter) && !result.contains(letter);
    let axes: Vec<usize> = (0..own.len()).filter(|axis| alone(&own[*axis])).collect();
    let letters = own.iter().copied().filter(|letter| !alone(letter)).collect();
    if axes.is_empty() {
        return Ok(Term { id, letters });
    }
    let op = Op::Reduce {
        reduction: crate::ir::Reduction::Sum,
        axes,
        keep: false,
    };
    Ok(Term {
        id: step.push(op, &[id])?,
        letters,
    })
}

fn contract(step: &mut Step<'_, '_>, a: &Term, b: &Term, result: &[char]) -> Result<ValueId, String> {
    let pick = |from: &Term, test: &dyn Fn(&char) -> bool| -> Vec<char> {
        from.letters.iter().copied().filter(test).collect()
    };
    let batch = pick(a, &|letter| b.letters.contains(letter) && result.contains(letter));
    let inner = pick(a, &|letter| {
        b.letters.contains(letter) && !result.contains(letter)
    });
    let rows = pick(a, &|letter| !b.letters.contains(letter));
    let columns = pick(b, &|letter| !a.letters.contains(letter));
    let size = |step: &Step<'_, '_>, letters: &[char]| -> Result<Vec<Extent>, String> {
        let extent = |letter: &char| {
            let term = if a.letters.contains(letter) { a } else { b };
            let at = term
                .letters
                .iter()
                .position(|own| own == letter)
                .ok_or("an unknown letter")?;
            Ok(step.fact(term.id).shape[at])
        };
        letters.iter().map(extent).collect()
    };
    let product =
        |extents: &[Extent]| Extent::product(extents).ok_or_else(|| "joins two growing axes".to_owned());
    let arrange = |step: &mut Step<'_, '_>, term: &Term, order: [&[char]; 3]| -> Result<ValueId, String> {
        let wanted = order.concat();
        let perm = wanted
            .iter()
            .filter_map(|letter| term.letters.iter().position(|own| own == letter))
            .collect();
        let turned = step.transpose(term.id, perm)?;
        let mut shape = size(step, order[0])?;
        shape.push(product(&size(step, order[1])?)?);
        shape.push(product(&size(step, order[2])?)?);
        step.reshape(turned, shape)
    };
    let left = arrange(step, a, [&batch, &rows, &inner])?;
    let right = arrange(step, b, [&batch, &inner, &columns])?;
    let multiplied = if inner.is_empty() {
        // An outer product is no sum: each element is one multiplication.
        step.push(Op::Binary(Binary::Mul), &[left, right])?
    } else {
        step.push(Op::MatMul, &[left, right])?
    };
    let order = [batch, rows, columns].concat();
    let shape = size(step, &order)?;
    let open = step.reshape(multiplied, shape)?;
    let perm: Option<Vec<usize>> = result
        .iter()
        .map(|letter| order.iter().position(|own| own == letter))
        .collect();
    step.transpose(open, perm.ok_or("the result has a letter that no term has")?)
}

/// `[N, C, L]` with a kernel of width 1: a product over the channels.
fn conv(step: &mut Step<'_, '_>) -> Lowered {
    let (x, weights) = (step.input(0)?, step.known(1, "weights")?);
    let plain = |name: &str, value: i64| {
        step.attributes
            .ints(name)
            .is_none_or(|all| all.iter().all(|own| *own == value))
    };
    let [filters, channels, 1] = weights.shape[..] else {
        return Err(format!("a kernel of shape {:?} is not of width 1", weights.shape));
    };
    if !plain("strides", 1) || !plain("pads", 0) || step.attributes.int("group", 1) != 1 || step.rank(x) != 3
    {
        return Err("strides, pads or groups are not taken".to_owned());
    }
    let weights = step.constant(weights.reshaped(vec![filters, channels]));
    let mut inputs = vec![weights, x];
    if let Some(bias) = step.optional(2) {
        let column = vec![Extent::of(filters), Extent::ONE];
        inputs.push(step.reshape(bias, column)?);
    }
    one(step.push(Op::MatMul, &inputs)?)
}

/// With constant statistics: one multiplication and one addition.
fn batch_norm(step: &mut Step<'_, '_>) -> Lowered {
    let x = step.input(0)?;
    let epsilon = step.attributes.float("epsilon", 1e-5);
    let floats = |at: usize, what: &str| {
        let tensor = step.known(at, what)?;
        tensor
            .as_f32()
            .map(<[f32]>::to_vec)
            .ok_or_else(|| format!("{what} must be F32"))
    };
    let (scale, bias) = (floats(1, "scale")?, floats(2, "bias")?);
    let (mean, variance) = (floats(3, "mean")?, floats(4, "variance")?);
    let channels = scale.len();
    let rank = step.rank(x);
    if rank < 2
        || [bias.len(), mean.len(), variance.len()]
            .iter()
            .any(|count| *count != channels)
    {
        return Err("statistics do not fit the input".to_owned());
    }
    let factor: Vec<f32> = scale
        .iter()
        .zip(&variance)
        .map(|(scale, variance)| scale / (variance + epsilon).sqrt())
        .collect();
    let shift = bias
        .iter()
        .zip(&mean)
        .zip(&factor)
        .map(|((bias, mean), factor)| (-mean).mul_add(*factor, *bias))
        .collect();
    let mut shape = vec![1; rank - 1];
    shape[0] = channels;
    let factor = step.constant(Tensor::f32(shape.clone(), factor));
    let shift = step.constant(Tensor::f32(shape, shift));
    let scaled = step.push(Op::Binary(Binary::Mul), &[x, factor])?;
    one(step.push(Op::Binary(Binary::Add), &[scaled, shift])?)
}

fn gru(step: &mut Step<'_, '_>) -> Lowered {
    let attributes = &step.attributes;
    let forward = attributes
        .text("direction")
        .is_none_or(|direction| direction == "forward");
    let activations = attributes.texts("activations");
    if !forward || attributes.int("layout", 0) != 0 || attributes.has("clip") || step.optional(4).is_some() {
        return Err("direction, layout, clip and sequence_lens are not taken".to_owned());
    }
    if !activations.is_empty() && activations != ["Sigmoid", "Tanh"] {
        return Err(format!("activations {activations:?} are not taken"));
    }
    let linear_before_reset = attributes.int("linear_before_reset", 0) != 0;
    let recurrent = step.shape(step.input(2)?);
    let hidden = recurrent.last().and_then(|extent| extent.as_fixed());
    let hidden = hidden.ok_or("the recurrent weights have no width")?;
    if attributes.int("hidden_size", 0) != Extent::of(hidden).fixed {
        return Err("hidden_size is not that of the recurrent weights".to_owned());
    }
    let x = step.input(0)?;
    let [_, rows, _] = step.shape(x)[..] else {
        return Err("the input needs three axes".to_owned());
    };
    let (w, r) = (unstacked(step, step.input(1)?)?, unstacked(step, step.input(2)?)?);
    let bias = match step.optional(3) {
        Some(bias) => unstacked(step, bias)?,
        None => {
            let (zero, gates) = (factor(step, 0.0), Extent::of(6).checked_mul(Extent::of(hidden)));
            let shape = vec![gates.ok_or("the recurrent weights are too wide")?];
            step.push(Op::Expand { shape }, &[zero])?
        }
    };
    let state_shape = vec![rows, Extent::of(hidden)];
    let state = match step.optional(5) {
        Some(state) => step.reshape(state, state_shape)?,
        None => {
            let zero = factor(step, 0.0);
            step.push(Op::Expand { shape: state_shape }, &[zero])?
        }
    };
    let name = step.name();
    let op = Op::Gru {
        hidden,
        linear_before_reset,
    };
    let outputs = step.importer.graph.push(&name, op, &[x, w, r, bias, state])?;
    // ONNX keeps an axis for the direction.
    let (all, last) = (step.shape(outputs[0]), step.shape(outputs[1]));
    let all = step.reshape(outputs[0], vec![all[0], Extent::ONE, all[1], all[2]])?;
    let last = step.reshape(outputs[1], vec![Extent::ONE, last[0], last[1]])?;
    Ok(Some(vec![all, last]))
}

/// Without the axis of directions, which must be 1.
fn unstacked(step: &mut Step<'_, '_>, weights: ValueId) -> Result<ValueId, String> {
    let shape = step.shape(weights);
    if shape.first() != Some(&Extent::ONE) {
        return Err("only one direction is taken".to_owned());
    }
    step.reshape(weights, shape[1..].to_vec())
}
