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

/// The expression for each element. Not a function that takes a closure: a large closure stays a function of its own, compiled
/// without the instruction set.
macro_rules! map {
    ($from:expr, $out:expr, |$x:ident| $result:expr) => {
        for (out, $x) in $out.iter_mut().zip($from) {
            let $x = *$x;
            *out = $result;
        }
    };
}

#[inline(always)]
fn unary_row(op: Unary, from: &[f32], out: &mut [f32]) {
    match op {
        Unary::Abs => map!(from, out, |x| x.abs()),
        Unary::Ceil => map!(from, out, |x| x.ceil()),
        Unary::Elu { alpha } => map!(from, out, |x| if x < 0.0 {
            alpha * (math::exp(x) - 1.0)
        } else {
            x
        }),
        Unary::Erf => map!(from, out, |x| math::erf(x)),
        Unary::Exp => map!(from, out, |x| math::exp(x)),
        Unary::Floor => map!(from, out, |x| x.floor()),
        Unary::Gelu { tanh: true } => map!(from, out, |x| math::gelu(x, true)),
        Unary::Gelu { tanh: false } => map!(from, out, |x| math::gelu(x, false)),
        Unary::HardSigmoid { alpha, beta } => {
            map!(from, out, |x| math::min(
                math::max(x.mul_add(alpha, beta), 0.0),
                1.0
            ));
        }
        Unary::LeakyRelu { alpha } => map!(from, out, |x| if x < 0.0 { alpha * x } else { x }),
        Unary::Log => map!(from, out, |x| math::log(x)),
        Unary::Neg => map!(from, out, |x| -x),
        Unary::Reciprocal => map!(from, out, |x| 1.0 / x),
        Unary::Relu => map!(from, out, |x| math::relu(x)),
        Unary::Sigmoid => map!(from, out, |x| math::sigmoid(x)),
        Unary::Softplus => map!(from, out, |x| math::relu(x)
            + math::log(1.0 + math::exp(-x.abs()))),
        Unary::Sqrt => map!(from, out, |x| x.sqrt()),
        Unary::Tanh => map!(from, out, |x| math::tanh(x)),
        Unary::IsInf | Unary::IsNan | Unary::Not => unreachable!("has_unary"),
    }
}

/// As `map`, of two.
macro_rules! zip {
    ($left:expr, $right:expr, $out:expr, |$a:ident, $b:ident| $result:expr) => {
        for (out, ($a, $b)) in $out.iter_mut().zip($left.iter().zip($right)) {
            let ($a, $b) = (*$a, *$b);
            *out = $result;
        }
    };
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
            Binary::Add => zip!(a, b, out, |a, b| a + b),
            Binary::Sub => zip!(a, b, out, |a, b| a - b),
            Binary::Mul => zip!(a, b, out, |a, b| a * b),
            Binary::Div => zip!(a, b, out, |a, b| a / b),
            Binary::Max => zip!(a, b, out, |a, b| math::max(a, b)),
            Binary::Min => zip!(a, b, out, |a, b| math::min(a, b)),
            Binary::Pow => zip!(a, b, out, |a, b| math::pow(a, b)),
            Binary::PRelu => zip!(a, b, out, |x, slope| if x < 0.0 { x * slope } else { x }),
            _ => unreachable!("has_binary"),
        }
    }
}
