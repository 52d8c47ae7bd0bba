//! Recurrent units: each step is two products of all rows and what their sums go through.

use super::{InstructionSet, Packed, Product, Rows, RowsMut, Start, multiply, on_each_set};
use crate::interpret::math;

/// A GRU, its weights packed; gates in the order z, r, h ([`crate::ir::Op::Gru`]).
#[derive(Clone, Debug)]
pub struct Gru {
    width: usize,
    hidden: usize,
    /// `[width, 3 hidden]`
    input: Packed,
    /// `[hidden, 3 hidden]`
    state: Packed,
    /// `[hidden, hidden]`: of the candidate, where the state is reset before the product.
    candidate: Option<Packed>,
    input_bias: Vec<f32>,
    state_bias: Vec<f32>,
}

/// What a run is given: for each row `steps` inputs one after the other, and the state that it begins with.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    pub steps: usize,
    pub x: Rows<'a>,
    pub initial: Rows<'a>,
}

impl Gru {
    /// `weights` are `w (3H, I)`, `r (3H, H)` and `b (6H)` as ONNX has them; `None` where they do not fit, or are empty.
    pub fn new(weights: [&[f32]; 3], hidden: usize, linear_before_reset: bool) -> Option<Self> {
        let [w, r, bias] = weights;
        let gates = 3 * hidden;
        let width = w.len().checked_div(gates)?;
        let fits = w.len() == gates * width && r.len() == gates * hidden && bias.len() == 2 * gates;
        if !fits || width == 0 {
            return None;
        }
        let packed = |weights: &[f32], k: usize| {
            let mut packed = Packed::default();
            packed.fill(weights, [k, weights.len() / k], [1, k]);
            packed
        };
        let (input_bias, state_bias) = bias.split_at(gates);
        Some(Self {
            width,
            hidden,
            input: packed(w, width),
            state: packed(r, hidden),
            candidate: (!linear_before_reset).then(|| packed(&r[2 * hidden * hidden..], hidden)),
            input_bias: input_bias.to_vec(),
            state_bias: state_bias.to_vec(),
        })
    }

    /// Of a step.
    pub fn flop(&self) -> usize {
        // Exponentials of three gates are about 16 operations each.
        2 * 3 * self.hidden * (self.width + self.hidden) + 60 * self.hidden
    }
}

/// The states after all steps of each row, one after the other. `memory` is used again.
pub fn gru(
    set: InstructionSet,
    unit: &Gru,
    sequence: &Sequence<'_>,
    rows: usize,
    memory: &mut Vec<f32>,
    out: &mut RowsMut<'_>,
) {
    let (hidden, gates) = (unit.hidden, 3 * unit.hidden);
    let size = rows * (2 * gates + 2 * hidden);
    if memory.len() < size {
        memory.resize(size, 0.0);
    }
    let (from_input, rest) = memory[..size].split_at_mut(rows * gates);
    let (from_state, rest) = rest.split_at_mut(rows * gates);
    let (state, shrunk) = rest.split_at_mut(rows * hidden);
    for (row, state) in state.chunks_exact_mut(hidden).enumerate() {
        state.copy_from_slice(sequence.initial.row(row, hidden));
    }
    for step in 0..sequence.steps {
        let x = Rows {
            data: &sequence.x.data[step * unit.width..],
            ..sequence.x
        };
        sums(set, (x, rows), (&unit.input, &unit.input_bias), from_input, gates);
        let own = Rows::new(state, hidden);
        sums(
            set,
            (own, rows),
            (&unit.state, &unit.state_bias),
            from_state,
            gates,
        );
        open(set, hidden, [from_input, state], from_state, shrunk);
        if let Some(candidate) = &unit.candidate {
            let weights = (candidate, &unit.state_bias[2 * hidden..]);
            let own = Rows::new(shrunk, hidden);
            sums(set, (own, rows), weights, &mut from_state[2 * hidden..], gates);
        } else {
            dampen(set, hidden, from_state);
        }
        update(set, hidden, [from_input, from_state], state);
        for (row, state) in state.chunks_exact(hidden).enumerate() {
            let at = row * out.stride + step * hidden;
            out.data[at..at + hidden].copy_from_slice(state);
        }
    }
}

/// A product that begins at a bias; results every `stride` floats.
fn sums(
    set: InstructionSet,
    (a, rows): (Rows<'_>, usize),
    (weights, bias): (&Packed, &[f32]),
    out: &mut [f32],
    stride: usize,
) {
    let product = Product {
        rows,
        a,
        weights,
        start: Start::Row(bias),
        relu: false,
    };
    multiply(set, &product, &mut RowsMut { data: out, stride });
}

on_each_set! {
    /// The gates z and r instead of their sums, and the state times r.
    open(hidden: usize, from: [&[f32]; 2], sums: &mut [f32], shrunk: &mut [f32]) = open_body
}

#[inline(always)]
fn open_body(hidden: usize, [from_input, state]: [&[f32]; 2], sums: &mut [f32], shrunk: &mut [f32]) {
    let rows = from_input
        .chunks_exact(3 * hidden)
        .zip(state.chunks_exact(hidden));
    let results = sums
        .chunks_exact_mut(3 * hidden)
        .zip(shrunk.chunks_exact_mut(hidden));
    for ((from_input, state), (sums, shrunk)) in rows.zip(results) {
        let gates = &mut sums[..2 * hidden];
        for (gate, input) in gates.iter_mut().zip(from_input) {
            *gate = math::sigmoid(input + *gate);
        }
        for ((shrunk, state), reset) in shrunk.iter_mut().zip(state).zip(&gates[hidden..]) {
            *shrunk = state * reset;
        }
    }
}

on_each_set! {
    /// The candidate's sum times r, where that comes after the product.
    dampen(hidden: usize, sums: &mut [f32]) = dampen_body
}

#[inline(always)]
fn dampen_body(hidden: usize, sums: &mut [f32]) {
    for sums in sums.chunks_exact_mut(3 * hidden) {
        let (gates, candidate) = sums.split_at_mut(2 * hidden);
        for (candidate, reset) in candidate.iter_mut().zip(&gates[hidden..]) {
            *candidate *= reset;
        }
    }
}

on_each_set! {
    /// The state after a step.
    update(hidden: usize, from: [&[f32]; 2], state: &mut [f32]) = update_body
}

#[inline(always)]
fn update_body(hidden: usize, [from_input, sums]: [&[f32]; 2], state: &mut [f32]) {
    let rows = from_input
        .chunks_exact(3 * hidden)
        .zip(sums.chunks_exact(3 * hidden));
    for (state, (from_input, sums)) in state.chunks_exact_mut(hidden).zip(rows) {
        let candidates = from_input[2 * hidden..].iter().zip(&sums[2 * hidden..]);
        for ((state, z), (input, candidate)) in state.iter_mut().zip(sums).zip(candidates) {
            let new = math::tanh(input + candidate);
            *state = z.mul_add(*state, (1.0 - z) * new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interpret;
    use crate::ir::Op;
    use crate::tensor::Tensor;

    fn values(count: usize, seed: usize) -> Vec<f32> {
        let value = |at: usize| ((at * 37 + seed * 11) % 101) as f32 / 50.0 - 1.0;
        (0..count).map(value).collect()
    }

    #[test]
    fn states_have_the_bits_of_the_interpreter() {
        let (steps, width) = (5, 3);
        for (hidden, rows) in [(1, 1), (4, 7), (16, 2), (21, 30)] {
            for linear_before_reset in [false, true] {
                let gates = 3 * hidden;
                let (w, r, bias) = (
                    values(gates * width, 1),
                    values(gates * hidden, 2),
                    values(2 * gates, 3),
                );
                let (x, initial) = (values(steps * rows * width, 4), values(rows * hidden, 5));
                let op = Op::Gru {
                    hidden,
                    linear_before_reset,
                };
                let inputs = [
                    Tensor::f32(vec![steps, rows, width], x.clone()),
                    Tensor::f32(vec![gates, width], w.clone()),
                    Tensor::f32(vec![gates, hidden], r.clone()),
                    Tensor::f32(vec![2 * gates], bias.clone()),
                    Tensor::f32(vec![rows, hidden], initial.clone()),
                ];
                let expected = interpret::eval(&op, &inputs.each_ref(), rows).unwrap();
                let expected = expected[0].as_f32().unwrap();
                // By rows, as plans have it.
                let by_rows = |from: &[f32], width: usize| {
                    let cell = |at: usize| {
                        let (row, step, column) = (at / (steps * width), at / width % steps, at % width);
                        from[(step * rows + row) * width + column]
                    };
                    (0..from.len()).map(cell).collect::<Vec<f32>>()
                };
                let x = by_rows(&x, width);
                let unit = Gru::new([&w, &r, &bias], hidden, linear_before_reset).unwrap();
                for set in InstructionSet::available() {
                    let sequence = Sequence {
                        steps,
                        x: Rows::new(&x, steps * width),
                        initial: Rows::new(&initial, hidden),
                    };
                    let mut got = vec![0.0; rows * steps * hidden];
                    let mut out = RowsMut {
                        data: &mut got,
                        stride: steps * hidden,
                    };
                    gru(set, &unit, &sequence, rows, &mut Vec::new(), &mut out);
                    assert_eq!(got, by_rows(expected, hidden), "{hidden} {rows} on {set}");
                }
            }
        }
        assert!(Gru::new([&[], &[1.0; 3], &[0.0; 6]], 1, true).is_none());
        assert!(Gru::new([&[1.0; 4], &[1.0; 3], &[0.0; 6]], 1, true).is_none());
    }
}
