//! Reductions, softmax, normalisation, TopK.

use super::{Lowered, one};
use crate::ir::{Op, Reduction};
use crate::onnx::step::Step;

pub fn lower(step: &mut Step<'_, '_>) -> Lowered {
    let reduction = match step.node.op_type.as_str() {
        "ReduceSum" => Reduction::Sum,
        "ReduceMean" => Reduction::Mean,
        "ReduceMax" => Reduction::Max,
        "ReduceMin" => Reduction::Min,
        "ReduceProd" => Reduction::Prod,
        "ReduceL2" => Reduction::L2,
        "ReduceSumSquare" => Reduction::SumSquare,
        "Softmax" | "LogSoftmax" => return softmax(step),
        "LayerNormalization" => return layer_norm(step),
        "TopK" => return top_k(step),
        "CumSum" => return cum_sum(step),
        _ => return Ok(None),
    };
    let x = step.input(0)?;
    let rank = step.rank(x);
    let axes = match step.axes(1, rank)? {
        Some(axes) if axes.is_empty() && step.attributes.int("noop_with_empty_axes", 0) != 0 => {
            return one(x);
        }
        Some(axes) if !axes.is_empty() => axes,
        _ if step.attributes.int("noop_with_empty_axes", 0) != 0 => return one(x),
        _ => (0..rank).collect(),
    };
    let keep = step.attributes.int("keepdims", 1) != 0;
    one(step.push(
        Op::Reduce {
            reduction,
            axes,
            keep,
        },
        &[x],
    )?)
}

fn softmax(step: &mut Step<'_, '_>) -> Lowered {
    let x = step.input(0)?;
    let axis = step.axis(step.attributes.int("axis", -1), step.rank(x))?;
    one(step.push(
        Op::Softmax {
            axis,
            log: step.node.op_type == "LogSoftmax",
        },
        &[x],
    )?)
}

fn layer_norm(step: &mut Step<'_, '_>) -> Lowered {
    let inputs = step.all()?;
    let axis = step.axis(step.attributes.int("axis", -1), step.rank(step.input(0)?))?;
    let epsilon = step.attributes.float("epsilon", 1e-5);
    one(step.push(Op::LayerNorm { axis, epsilon }, &inputs)?)
}

fn top_k(step: &mut Step<'_, '_>) -> Lowered {
    let x = step.input(0)?;
    let axis = step.axis(step.attributes.int("axis", -1), step.rank(x))?;
    let [k] = step.known_ints(1, "k")?[..] else {
        return Err("k must be one number".to_owned());
    };
    let k = usize::try_from(k).map_err(|_| "k is negative")?;
    let op = Op::TopK {
        axis,
        k,
        largest: step.attributes.int("largest", 1) != 0,
    };
    let name = step.name();
    step.importer.graph.push(&name, op, &[x]).map(Some)
}

fn cum_sum(step: &mut Step<'_, '_>) -> Lowered {
    let x = step.input(0)?;
    let [axis] = step.known_ints(1, "axis")?[..] else {
        return Err("axis must be one number".to_owned());
    };
    if step.attributes.int("exclusive", 0) != 0 || step.attributes.int("reverse", 0) != 0 {
        return Err("exclusive and reverse are not taken".to_owned());
    }
    let axis = step.axis(axis, step.rank(x))?;
    one(step.push(Op::CumSum { axis }, &[x])?)
}
