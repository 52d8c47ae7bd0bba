//! Recurrent units: the interpreter's source, compiled for each instruction set.

use super::on_each_set;
use crate::interpret::{self, EvalError};
use crate::tensor::Tensor;

/// What a GRU is given ([`crate::ir::Op::Gru`]).
#[derive(Clone, Copy, Debug)]
pub struct Gru<'a> {
    pub hidden: usize,
    pub linear_before_reset: bool,
    pub inputs: &'a [&'a Tensor],
}

on_each_set! {
    gru(unit: Gru<'_>, result: &mut Result<Vec<Tensor>, EvalError>) = body
}

#[inline(always)]
fn body(unit: Gru<'_>, result: &mut Result<Vec<Tensor>, EvalError>) {
    *result = interpret::gru(unit.hidden, unit.linear_before_reset, unit.inputs);
}
