//! Products. Each output has one accumulator, filled in the order of K by fused multiply-adds from its start value, so
//! that splitting rows or columns, or computing a prefix of K once, never changes a bit.

use super::{EvalError, math};
use crate::tensor::{Tensor, Walk};

fn floats(x: &Tensor) -> Result<&[f32], EvalError> {
    x.as_f32().ok_or_else(|| EvalError::element("MatMul", x.element))
}

pub fn matmul(a: &Tensor, b: &Tensor, start: Option<&Tensor>) -> Result<Tensor, EvalError> {
    let (a_rank, b_rank) = (a.shape.len(), b.shape.len());
    let (m, k, n) = (a.shape[a_rank - 2], a.shape[a_rank - 1], b.shape[b_rank - 1]);
    let (a_outer, b_outer) = (&a.shape[..a_rank - 2], &b.shape[..b_rank - 2]);
    let rank = a_outer.len().max(b_outer.len());
    let at = |shape: &[usize], axis: usize| {
        (axis + shape.len())
            .checked_sub(rank)
            .map_or(1, |axis| shape[axis])
    };
    let outer: Vec<usize> = (0..rank)
        .map(|axis| {
            if at(a_outer, axis) == 1 {
                at(b_outer, axis)
            } else {
                at(a_outer, axis)
            }
        })
        .collect();
    let shape = [outer.as_slice(), &[m, n]].concat();
    let mut result = match start {
        Some(start) => {
            let values = floats(start)?;
            Walk::broadcast(&start.shape, &shape)
                .map(|index| values[index])
                .collect()
        }
        None => vec![0.0; shape.iter().product()],
    };
    let (x, y) = (floats(a)?, floats(b)?);
    let batches = Walk::broadcast(a_outer, &outer).zip(Walk::broadcast(b_outer, &outer));
    for ((at_a, at_b), out) in batches.zip(result.chunks_exact_mut((m * n).max(1))) {
        let rows = x[at_a * m * k..(at_a + 1) * m * k].chunks_exact(k.max(1));
        for (row, out) in rows.zip(out.chunks_exact_mut(n.max(1))) {
            multiply_row(row, &y[at_b * k * n..(at_b + 1) * k * n], out);
        }
    }
    Ok(Tensor::f32(shape, result))
}

/// `out += row * matrix`
fn multiply_row(row: &[f32], matrix: &[f32], out: &mut [f32]) {
    for (value, weights) in row.iter().zip(matrix.chunks_exact(out.len())) {
        for (out, weight) in out.iter_mut().zip(weights) {
            *out = value.mul_add(*weight, *out);
        }
    }
}

/// ONNX's GRU, forward, gates in the order z, r, h.
pub fn gru(hidden: usize, linear_before_reset: bool, inputs: &[&Tensor]) -> Result<Vec<Tensor>, EvalError> {
    let (x, bias) = (inputs[0], floats(inputs[3])?);
    let [steps, rows, width] = x.shape[..] else {
        return Err(EvalError::Slice);
    };
    let transposed = |weights: &Tensor| super::layout::transpose(&[1, 0], weights);
    let (w, r) = (transposed(inputs[1]), transposed(inputs[2]));
    let (w, r, x) = (floats(&w)?, floats(&r)?, floats(x)?);
    let (w_bias, r_bias) = bias.split_at(3 * hidden);
    let mut state = floats(inputs[4])?.to_vec();
    let mut all = Vec::with_capacity(steps * rows * hidden);
    for step in 0..steps {
        for row in 0..rows {
            let state = &mut state[row * hidden..(row + 1) * hidden];
            let mut from_input = w_bias.to_vec();
            let at = (step * rows + row) * width;
            multiply_row(&x[at..at + width], w, &mut from_input);
            let mut from_state = r_bias.to_vec();
            multiply_row(state, r, &mut from_state);
            let mut gates = vec![0.0; 2 * hidden];
            for (gate, (input, state)) in gates.iter_mut().zip(from_input.iter().zip(&from_state)) {
                *gate = math::sigmoid(input + state);
            }
            let (z, reset) = gates.split_at(hidden);
            let mut candidate: Vec<f32> = from_state[2 * hidden..].to_vec();
            if linear_before_reset {
                candidate
                    .iter_mut()
                    .zip(reset)
                    .for_each(|(value, reset)| *value *= reset);
            } else {
                let shrunk: Vec<f32> = state
                    .iter()
                    .zip(reset)
                    .map(|(state, reset)| state * reset)
                    .collect();
                let mut gates = r_bias.to_vec();
                multiply_row(&shrunk, r, &mut gates);
                candidate.copy_from_slice(&gates[2 * hidden..]);
            }
            for at in 0..hidden {
                let new = math::tanh(from_input[2 * hidden + at] + candidate[at]);
                state[at] = z[at].mul_add(state[at], (1.0 - z[at]) * new);
            }
        }
        all.extend_from_slice(&state);
    }
    Ok(vec![
        Tensor::f32(vec![steps, rows, hidden], all),
        Tensor::f32(vec![rows, hidden], state),
    ])
}
