//! Operators of the IR. Import lowers ONNX's many into these few; shapes, axes and bounds are attributes, never inputs.

use std::sync::Arc;

use super::Extent;
use crate::interpret::trees::Ensemble;
use crate::tensor::Element;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    Abs,
    Ceil,
    Elu { alpha: f32 },
    Erf,
    Exp,
    Floor,
    Gelu { tanh: bool },
    HardSigmoid { alpha: f32, beta: f32 },
    IsInf,
    IsNan,
    LeakyRelu { alpha: f32 },
    Log,
    Neg,
    Not,
    Reciprocal,
    Relu,
    Sigmoid,
    Softplus,
    Sqrt,
    Tanh,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Add,
    And,
    Div,
    Equal,
    /// C's remainder, the sign of the dividend.
    Fmod,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Max,
    Min,
    /// Remainder with the sign of the divisor.
    Mod,
    Mul,
    Or,
    Pow,
    PRelu,
    Sub,
    Xor,
}

impl Binary {
    /// Whether the result is BOOL whatever the inputs are.
    pub fn is_predicate(self) -> bool {
        use Binary::{And, Equal, Greater, GreaterOrEqual, Less, LessOrEqual, Or, Xor};
        matches!(
            self,
            And | Equal | Greater | GreaterOrEqual | Less | LessOrEqual | Or | Xor
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    L2,
    SumSquare,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    Unary(Unary),
    /// Two inputs, broadcast as in ONNX.
    Binary(Binary),
    Where,
    Cast(Element),
    /// `[a, b]` or `[a, b, start]`: as ONNX's MatMul; accumulators begin at `start` (0 without), broadcast to the result.
    MatMul,
    /// `[table, indices]`
    Gather {
        axis: usize,
    },
    /// `[data, indices]`, both of the same rank
    GatherElements {
        axis: usize,
    },
    GatherNd {
        batch_dims: usize,
    },
    Concat {
        axis: usize,
    },
    /// `start` and `end` are within the axis; `step` is not 0; downwards `end` is exclusive and may be -1.
    Slice {
        axis: usize,
        start: i64,
        end: i64,
        step: i64,
    },
    Reshape {
        shape: Vec<Extent>,
    },
    Transpose {
        perm: Vec<usize>,
    },
    Expand {
        shape: Vec<Extent>,
    },
    /// 0, 1, 2 ... along one axis that grows with the rows.
    Range {
        length: Extent,
    },
    /// Axes ascending.
    Reduce {
        reduction: Reduction,
        axes: Vec<usize>,
        keep: bool,
    },
    Softmax {
        axis: usize,
        log: bool,
    },
    /// `[x, scale]` or `[x, scale, bias]`, over the axes from `axis` on.
    LayerNorm {
        axis: usize,
        epsilon: f32,
    },
    /// Values and indices, along `axis`.
    TopK {
        axis: usize,
        k: usize,
        largest: bool,
    },
    CumSum {
        axis: usize,
    },
    /// `[x (T, N, I), w (3H, I), r (3H, H), b (6H), initial (N, H)]` -> `[all (T, N, H), last (N, H)]`; gates z, r, h.
    Gru {
        hidden: usize,
        linear_before_reset: bool,
    },
    Trees(Arc<Ensemble>),
}

impl Op {
    /// Name in messages and in `inspect`.
    pub fn name(&self) -> String {
        match self {
            Op::Unary(unary) => word(&format!("{unary:?}")),
            Op::Binary(binary) => format!("{binary:?}"),
            Op::Reduce { reduction, .. } => format!("Reduce{reduction:?}"),
            other => word(&format!("{other:?}")),
        }
    }

    pub fn outputs(&self) -> usize {
        match self {
            Op::TopK { .. } | Op::Gru { .. } => 2,
            _ => 1,
        }
    }
}

/// The first word of a Debug text: the variant's name.
fn word(debug: &str) -> String {
    debug.split([' ', '(', '{']).next().unwrap_or(debug).to_owned()
}
