//! Constants, and sizes as values.

use super::{Lowered, one};
use crate::ir::{Extent, Op};
use crate::onnx::constant;
use crate::onnx::step::Step;
use crate::tensor::{Element, Tensor};

pub fn lower(step: &mut Step<'_, '_>) -> Lowered {
    match step.node.op_type.as_str() {
        "Constant" => {
            let tensor = constant_tensor(step)?;
            one(step.constant(tensor))
        }
        "Shape" => {
            let x = step.input(0)?;
            let shape = step.shape(x);
            let rank = Extent::of(shape.len()).fixed;
            let bound = |name: &str, default: i64| {
                let at = step.attributes.int(name, default);
                usize::try_from(if at < 0 { at + rank } else { at }.clamp(0, rank)).unwrap_or(0)
            };
            let (start, end) = (bound("start", 0), bound("end", rank));
            let sizes = shape.get(start..end).unwrap_or(&[]).to_vec();
            let name = step.name();
            one(step
                .importer
                .graph
                .add_sizes(&name, Element::I64, vec![sizes.len()], sizes))
        }
        "Size" => {
            let x = step.input(0)?;
            let size = Extent::product(&step.fact(x).shape).ok_or("the size is not linear in the rows")?;
            let name = step.name();
            one(step
                .importer
                .graph
                .add_sizes(&name, Element::I64, Vec::new(), vec![size]))
        }
        "ConstantOfShape" => {
            let shape = step.known_sizes(0, "shape")?;
            let value = match step.attributes.tensor("value") {
                Some(proto) => constant::decode(proto, step.importer.external)
                    .map_err(|reason| format!("value {reason}"))?,
                None => Tensor::scalar(0.0),
            };
            if value.count() != 1 {
                return Err("value must have one element".to_owned());
            }
            let value = step.constant(value.reshaped(Vec::new()));
            one(step.push(Op::Expand { shape }, &[value])?)
        }
        "Range" => range(step),
        _ => Ok(None),
    }
}

fn constant_tensor(step: &Step<'_, '_>) -> Result<Tensor, String> {
    let attributes = &step.attributes;
    if let Some(proto) = attributes.tensor("value") {
        return constant::decode(proto, step.importer.external).map_err(|reason| format!("value {reason}"));
    }
    if attributes.has("value_float") {
        return Ok(Tensor::scalar(attributes.float("value_float", 0.0)));
    }
    if attributes.has("value_int") {
        return Ok(Tensor::i64(Vec::new(), vec![attributes.int("value_int", 0)]));
    }
    if let Some(values) = attributes.ints("value_ints") {
        return Ok(Tensor::i64(vec![values.len()], values.to_vec()));
    }
    if attributes.has("value_floats") {
        let values = attributes.floats("value_floats");
        return Ok(Tensor::f32(vec![values.len()], values.to_vec()));
    }
    Err("has no value that rank takes".to_owned())
}

fn range(step: &mut Step<'_, '_>) -> Lowered {
    let sizes = [
        step.known_sizes(0, "start"),
        step.known_sizes(1, "limit"),
        step.known_sizes(2, "delta"),
    ];
    let [Ok(start), Ok(limit), Ok(delta)] = sizes else {
        return Err("start, limit and delta must follow from shapes and constants".to_owned());
    };
    let ([start], [limit], [delta]) = (&start[..], &limit[..], &delta[..]) else {
        return Err("start, limit and delta must be scalars".to_owned());
    };
    if !limit.is_fixed() {
        if (*start, *delta) != (Extent::fixed(0), Extent::ONE) {
            return Err("a range over the rows must start at 0 and count by 1".to_owned());
        }
        return one(step.push(Op::Range { length: *limit }, &[])?);
    }
    let (start, limit, delta) = (start.fixed, limit.fixed, delta.fixed);
    let span = limit.checked_sub(start).ok_or("the range is too long")?;
    let count = if delta == 0 {
        -1
    } else {
        span.checked_div(delta)
            .map_or(-1, |count| count + i64::from(span % delta != 0))
    };
    let count = usize::try_from(count.max(0)).unwrap_or(0);
    if delta == 0 || count > 1 << 20 {
        return Err(format!("range {start}:{limit}:{delta} is not one to be made"));
    }
    let name = step.name();
    let values = || {
        Tensor::i64(
            vec![count],
            (0..).take(count).map(|at: i64| start + at * delta).collect(),
        )
    };
    one(step.importer.graph.add_computed(&name, count, values)?)
}
