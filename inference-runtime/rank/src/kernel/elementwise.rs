//! One element in, one out. The source is that of the interpreter; each instruction set has it compiled for itself.

use super::{Rows, RowsMut, on_each_set};
use crate::interpret::math;
use crate::ir::{Binary, Unary};

/// Whether [`unary`] does it.
pub fn has_unary(unary: Unary) -> bool {
    !matches!(unary, Unary::IsInf | Unary::IsNan | Unary::Not)
}

/// Whether [`binary`] does it.
pub fn has_binary(binary: Binary) -> bool {
    use Binary::{Add, Div, Max, Min, Mul, PRelu, Pow, Sub};
    matches!(binary, Add | Div | Max | Min | Mul | PRelu | Pow | Sub)
}

on_each_set! {
    /// `width` elements of each of `rows`.
    unary(op: Unary, x: Rows<'_>, rows: usize, width: usize, out: &mut RowsMut<'_>) = unary_body
}

#[inline(always)]
fn unary_body(op: Unary, x: Rows<'_>, rows: usize, width: usize, out: &mut RowsMut<'_>) {
    for row in 0..rows {
        unary_row(op, x.row(row, width), out.row(row, width));
    }
}

#[inline(always)]
fn unary_row(op: Unary, x: &[f32], out: &mut [f32]) {
    match op {
        Unary::Abs => map(x, out, f32::abs),
        Unary::Ceil => map(x, out, f32::ceil),
        Unary::Elu { alpha } => map(x, out, |x| if x < 0.0 { alpha * (math::exp(x) - 1.0) } else { x }),
        Unary::Erf => map(x, out, math::erf),
        Unary::Exp => map(x, out, math::exp),
        Unary::Floor => map(x, out, f32::floor),
        Unary::Gelu { tanh } => map(x, out, |x| math::gelu(x, tanh)),
        Unary::HardSigmoid { alpha, beta } => {
            map(x, out, |x| math::min(math::max(x.mul_add(alpha, beta), 0.0), 1.0));
        }
        Unary::LeakyRelu { alpha } => map(x, out, |x| if x < 0.0 { alpha * x } else { x }),
        Unary::Log => map(x, out, math::log),
        Unary::Neg => map(x, out, |x| -x),
        Unary::Reciprocal => map(x, out, |x| 1.0 / x),
        Unary::Relu => map(x, out, math::relu),
        Unary::Sigmoid => map(x, out, math::sigmoid),
        Unary::Softplus => map(x, out, |x| math::relu(x) + math::log(1.0 + math::exp(-x.abs()))),
        Unary::Sqrt => map(x, out, f32::sqrt),
        Unary::Tanh => map(x, out, math::tanh),
        Unary::IsInf | Unary::IsNan | Unary::Not => unreachable!("has_unary"),
    }
}

#[inline(always)]
fn map(x: &[f32], out: &mut [f32], function: impl Fn(f32) -> f32) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = function(*x);
    }
}

on_each_set! {
    /// `width` elements of each of `rows`.
    binary(op: Binary, operands: [Rows<'_>; 2], rows: usize, width: usize, out: &mut RowsMut<'_>) = binary_body
}

#[inline(always)]
fn binary_body(op: Binary, operands: [Rows<'_>; 2], rows: usize, width: usize, out: &mut RowsMut<'_>) {
    for row in 0..rows {
        let [a, b] = operands.map(|operand| operand.row(row, width));
        let out = out.row(row, width);
        match op {
            Binary::Add => zip(a, b, out, |a, b| a + b),
            Binary::Sub => zip(a, b, out, |a, b| a - b),
            Binary::Mul => zip(a, b, out, |a, b| a * b),
            Binary::Div => zip(a, b, out, |a, b| a / b),
            Binary::Max => zip(a, b, out, math::max),
            Binary::Min => zip(a, b, out, math::min),
            Binary::Pow => zip(a, b, out, math::pow),
            Binary::PRelu => zip(a, b, out, |x, slope| if x < 0.0 { x * slope } else { x }),
            _ => unreachable!("has_binary"),
        }
    }
}

#[inline(always)]
fn zip(a: &[f32], b: &[f32], out: &mut [f32], function: impl Fn(f32, f32) -> f32) {
    for (out, (a, b)) in out.iter_mut().zip(a.iter().zip(b)) {
        *out = function(*a, *b);
    }
}
