//! The portable interpreter: the oracle that every kernel is tested against.
//!
//! It is written to be right and reproducible, not fast: a row's result depends on that row alone, bit by bit.

mod elementwise;
mod layout;
mod linear;
pub mod math;
mod reduce;
mod run;
pub mod trees;

pub use run::{Inputs, run, run_segmented};
pub(crate) use run::{repeat, requests};

use crate::ir::{Extent, Op};
use crate::tensor::{Element, Tensor};

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvalError {
    #[error("{operator} does not take {element:?}")]
    Element { operator: String, element: Element },
    #[error("index {index} is outside of a table of {size}")]
    Index { index: i64, size: usize },
    #[error("integer division by zero")]
    DivisionByZero,
    #[error("a slice is outside of its axis")]
    Slice,
    #[error("the shape is too large for {rows} rows")]
    Rows { rows: usize },
    #[error("input {name:?}: {problem}")]
    Input { name: String, problem: String },
    #[error("node {node:?} ({operator}): {source}")]
    Node {
        node: String,
        operator: String,
        source: Box<EvalError>,
    },
}

impl EvalError {
    fn element(operator: &str, element: Element) -> Self {
        Self::Element {
            operator: operator.to_owned(),
            element,
        }
    }
}

/// The tensor as if it had this shape; `None` where it does not broadcast to it.
pub(crate) fn broadcast(x: &Tensor, shape: &[usize]) -> Option<Tensor> {
    let skipped = shape.len().checked_sub(x.shape.len())?;
    let fits = x
        .shape
        .iter()
        .zip(&shape[skipped..])
        .all(|(own, size)| own == size || *own == 1);
    fits.then(|| layout::expand(x, shape))
}

pub(crate) fn resolve(shape: &[Extent], rows: usize) -> Result<Vec<usize>, EvalError> {
    let sizes: Option<Vec<usize>> = shape.iter().map(|extent| extent.resolve(rows)).collect();
    sizes.ok_or(EvalError::Rows { rows })
}

/// One operator, for a batch of `rows`. Shapes must be those that inference allowed.
pub fn eval(op: &Op, inputs: &[&Tensor], rows: usize) -> Result<Vec<Tensor>, EvalError> {
    let one = |tensor: Tensor| Ok(vec![tensor]);
    match op {
        Op::Unary(unary) => one(elementwise::unary(*unary, inputs[0])?),
        Op::Binary(binary) => one(elementwise::binary(*binary, inputs[0], inputs[1])?),
        Op::Where => one(elementwise::select(inputs[0], inputs[1], inputs[2])?),
        Op::Cast(to) => one(elementwise::cast(*to, inputs[0])),
        Op::MatMul => one(linear::matmul(inputs[0], inputs[1], inputs.get(2).copied())?),
        Op::Gather { axis } => one(layout::gather(*axis, inputs[0], inputs[1])?),
        Op::GatherElements { axis } => one(layout::gather_elements(*axis, inputs[0], inputs[1])?),
        Op::GatherNd { batch_dims } => one(layout::gather_nd(*batch_dims, inputs[0], inputs[1])?),
        Op::Concat { axis } => one(layout::concat(*axis, inputs)?),
        Op::Slice {
            axis,
            start,
            end,
            step,
        } => {
            let span = if *step > 0 { end - start } else { start - end };
            let length = usize::try_from((span + step.abs() - 1) / step.abs()).unwrap_or(0);
            one(layout::slice(*axis, *start, *step, length, inputs[0])?)
        }
        Op::Reshape { shape } => one(inputs[0].clone().reshaped(resolve(shape, rows)?)),
        Op::Transpose { perm } => one(layout::transpose(perm, inputs[0])),
        Op::Expand { shape } => one(layout::expand(inputs[0], &resolve(shape, rows)?)),
        Op::Range { length } => {
            let length = length.resolve(rows).ok_or(EvalError::Rows { rows })?;
            one(Tensor::i64(vec![length], (0..).take(length).collect()))
        }
        Op::Reduce {
            reduction,
            axes,
            keep,
        } => one(reduce::reduce(*reduction, axes, *keep, inputs[0])?),
        Op::Softmax { axis, log } => one(reduce::softmax(*axis, *log, inputs[0])?),
        Op::LayerNorm { axis, epsilon } => one(reduce::layer_norm(*axis, *epsilon, inputs)?),
        Op::TopK { axis, k, largest } => reduce::top_k(*axis, *k, *largest, inputs[0]),
        Op::CumSum { axis } => one(reduce::cum_sum(*axis, inputs[0])?),
        Op::Gru {
            hidden,
            linear_before_reset,
        } => linear::gru(*hidden, *linear_before_reset, inputs),
        Op::Trees(ensemble) => one(ensemble.run(inputs[0])?),
    }
}
