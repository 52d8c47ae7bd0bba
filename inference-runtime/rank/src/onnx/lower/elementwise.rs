//! Arithmetic, comparisons, activations.

use super::{Lowered, one};
use crate::ir::{Binary, Op, Unary, ValueId};
use crate::onnx::constant;
use crate::onnx::step::Step;
use crate::tensor::{Element, Tensor};

pub fn lower(step: &mut Step<'_, '_>) -> Lowered {
    if let Some(unary) = unary(step) {
        let x = step.input(0)?;
        return one(step.push(Op::Unary(unary), &[x])?);
    }
    if let Some(binary) = binary(step) {
        let inputs = step.all()?;
        let Some((first, rest)) = inputs
            .split_first()
            .filter(|(_, rest)| !rest.is_empty() || is_variadic(binary))
        else {
            return Err(format!("has {} inputs", inputs.len()));
        };
        let mut result = *first;
        for input in rest {
            result = step.push(Op::Binary(binary), &[result, *input])?;
        }
        return one(result);
    }
    match step.node.op_type.as_str() {
        // Dropout does nothing at inference; its mask is never taken. A sequence is only ever the rows of EmbeddingBag.
        "Identity" | "Dropout" | "ConcatFromSequence" => one(step.input(0)?),
        "Where" => {
            let inputs = [step.input(0)?, step.input(1)?, step.input(2)?];
            one(step.push(Op::Where, &inputs)?)
        }
        "Cast" | "CastLike" => cast(step),
        "Clip" => clip(step),
        "Sum" => {
            let inputs = step.all()?;
            let mut sum = step.input(0)?;
            for input in &inputs[1..] {
                sum = step.push(Op::Binary(Binary::Add), &[sum, *input])?;
            }
            one(sum)
        }
        "HardSwish" => {
            let x = step.input(0)?;
            let gate = step.push(
                Op::Unary(Unary::HardSigmoid {
                    alpha: 1.0 / 6.0,
                    beta: 0.5,
                }),
                &[x],
            )?;
            one(step.push(Op::Binary(Binary::Mul), &[x, gate])?)
        }
        _ => Ok(None),
    }
}

fn is_variadic(binary: Binary) -> bool {
    matches!(binary, Binary::Max | Binary::Min)
}

fn unary(step: &Step<'_, '_>) -> Option<Unary> {
    let float = |name: &str, default: f32| step.attributes.float(name, default);
    Some(match step.node.op_type.as_str() {
        "Abs" => Unary::Abs,
        "Ceil" => Unary::Ceil,
        "Elu" => Unary::Elu {
            alpha: float("alpha", 1.0),
        },
        "Erf" => Unary::Erf,
        "Exp" => Unary::Exp,
        "Floor" => Unary::Floor,
        "Gelu" => Unary::Gelu {
            tanh: step.attributes.text("approximate") == Some("tanh"),
        },
        "HardSigmoid" => Unary::HardSigmoid {
            alpha: float("alpha", 0.2),
            beta: float("beta", 0.5),
        },
        "IsInf" => Unary::IsInf,
        "IsNaN" => Unary::IsNan,
        "LeakyRelu" => Unary::LeakyRelu {
            alpha: float("alpha", 0.01),
        },
        "Log" => Unary::Log,
        "Neg" => Unary::Neg,
        "Not" => Unary::Not,
        "Reciprocal" => Unary::Reciprocal,
        "Relu" => Unary::Relu,
        "Sigmoid" => Unary::Sigmoid,
        "Softplus" => Unary::Softplus,
        "Sqrt" => Unary::Sqrt,
        "Tanh" => Unary::Tanh,
        _ => return None,
    })
}

fn binary(step: &Step<'_, '_>) -> Option<Binary> {
    Some(match step.node.op_type.as_str() {
        "Add" => Binary::Add,
        "And" => Binary::And,
        "Div" => Binary::Div,
        "Equal" => Binary::Equal,
        "Greater" => Binary::Greater,
        "GreaterOrEqual" => Binary::GreaterOrEqual,
        "Less" => Binary::Less,
        "LessOrEqual" => Binary::LessOrEqual,
        "Max" => Binary::Max,
        "Min" => Binary::Min,
        "Mod" if step.attributes.int("fmod", 0) != 0 => Binary::Fmod,
        "Mod" => Binary::Mod,
        "Mul" => Binary::Mul,
        "Or" => Binary::Or,
        "PRelu" => Binary::PRelu,
        "Pow" => Binary::Pow,
        "Sub" => Binary::Sub,
        "Xor" => Binary::Xor,
        _ => return None,
    })
}

fn cast(step: &mut Step<'_, '_>) -> Lowered {
    let x = step.input(0)?;
    let to = if step.node.op_type == "CastLike" {
        let like = step.input(1)?;
        step.fact(like).element
    } else {
        constant::element(i32::try_from(step.attributes.int("to", 0)).unwrap_or(0))?
    };
    if step.fact(x).element == to {
        return one(x);
    }
    one(step.push(Op::Cast(to), &[x])?)
}

/// Max, then Min: bounds that do not limit are left out.
fn clip(step: &mut Step<'_, '_>) -> Lowered {
    let mut x = step.input(0)?;
    for (at, op) in [(1, Binary::Max), (2, Binary::Min)] {
        if let Some(bound) = step.optional(at) {
            let bound = scalar(step, bound)?;
            x = step.push(Op::Binary(op), &[x, bound])?;
        }
    }
    one(x)
}

/// Bounds may come with the shape [1], which must not add an axis.
fn scalar(step: &mut Step<'_, '_>, bound: ValueId) -> Result<ValueId, String> {
    step.reshape(bound, Vec::new())
}

/// A float constant of one element.
pub fn factor(step: &mut Step<'_, '_>, value: f32) -> ValueId {
    step.constant(Tensor {
        element: Element::F32,
        shape: Vec::new(),
        data: crate::tensor::Data::F32(vec![value]),
    })
}
