//! Operators that move elements: gathers, slices, shapes of all kinds.

use super::{Lowered, one};
use crate::ir::{Extent, Op, ValueId};
use crate::onnx::step::Step;

pub fn lower(step: &mut Step<'_, '_>) -> Lowered {
    match step.node.op_type.as_str() {
        "Gather" => {
            let (table, indices) = (step.input(0)?, step.input(1)?);
            let axis = step.axis(step.attributes.int("axis", 0), step.rank(table))?;
            one(step.push(Op::Gather { axis }, &[table, indices])?)
        }
        "GatherElements" => {
            let (data, indices) = (step.input(0)?, step.input(1)?);
            let axis = step.axis(step.attributes.int("axis", 0), step.rank(data))?;
            one(step.push(Op::GatherElements { axis }, &[data, indices])?)
        }
        "GatherND" => {
            let inputs = [step.input(0)?, step.input(1)?];
            let batch_dims = usize::try_from(step.attributes.int("batch_dims", 0))
                .map_err(|_| "batch_dims is negative")?;
            one(step.push(Op::GatherNd { batch_dims }, &inputs)?)
        }
        "Concat" => {
            let inputs = step.all()?;
            let axis = step.axis(step.attributes.int("axis", 0), step.rank(step.input(0)?))?;
            if let [only] = inputs[..] {
                return one(only);
            }
            one(step.push(Op::Concat { axis }, &inputs)?)
        }
        "Transpose" => {
            let x = step.input(0)?;
            let rank = step.rank(x);
            let perm: Vec<usize> = match step.attributes.ints("perm") {
                Some(perm) => perm
                    .iter()
                    .map(|axis| step.axis(*axis, rank))
                    .collect::<Result<_, _>>()?,
                None => (0..rank).rev().collect(),
            };
            one(step.transpose(x, perm)?)
        }
        "Slice" => slices(step),
        "Split" => split(step),
        "Reshape" => reshape(step),
        "Flatten" => flatten(step),
        "Unsqueeze" => unsqueeze(step),
        "Squeeze" => squeeze(step),
        "Expand" => {
            let x = step.input(0)?;
            let shape = step.known_sizes(1, "shape")?;
            one(expand(step, x, shape)?)
        }
        "Tile" => tile(step),
        _ => Ok(None),
    }
}

fn expand(step: &mut Step<'_, '_>, x: ValueId, shape: Vec<Extent>) -> Result<ValueId, String> {
    let target = crate::pass::shape::broadcast(step.fact(x).shape.as_slice(), &shape)?;
    if target == step.fact(x).shape {
        return Ok(x);
    }
    step.push(Op::Expand { shape: target }, &[x])
}

/// A chain of slices of one axis each; whole axes are left out.
fn slices(step: &mut Step<'_, '_>) -> Lowered {
    let mut x = step.input(0)?;
    let rank = step.rank(x);
    let starts = step.known_sizes(1, "starts")?;
    let ends = step.known_sizes(2, "ends")?;
    let axes: Vec<i64> = match step.optional(3) {
        Some(_) => step.known_ints(3, "axes")?,
        None => (0..).take(starts.len()).collect(),
    };
    let steps = match step.optional(4) {
        Some(_) => step.known_ints(4, "steps")?,
        None => vec![1; starts.len()],
    };
    if [ends.len(), axes.len(), steps.len()]
        .iter()
        .any(|count| *count != starts.len())
    {
        return Err("starts, ends, axes and steps differ in length".to_owned());
    }
    for (at, stride) in steps.into_iter().enumerate() {
        let axis = step.axis(axes[at], rank)?;
        let length = step.fact(x).shape[axis];
        if let Some(op) = slice(length, axis, starts[at], ends[at], stride)? {
            x = step.push(op, &[x])?;
        }
    }
    one(x)
}

/// ONNX clamps bounds to the axis and counts negative ones from its end. `None` for the whole axis.
fn slice(length: Extent, axis: usize, start: Extent, end: Extent, step: i64) -> Result<Option<Op>, String> {
    let Some(size) = length.as_fixed() else {
        let to_end = end == length || (end.is_fixed() && end.fixed >= i64::from(i32::MAX));
        if start == Extent::fixed(0) && to_end && step == 1 {
            return Ok(None);
        }
        return Err(format!("slices the {length} rows"));
    };
    if !start.is_fixed() || !end.is_fixed() {
        return Err("its bounds depend on the number of rows".to_owned());
    }
    let size = i64::try_from(size).map_err(|_| "the axis is too long")?;
    if size == 0 {
        return Ok(None);
    }
    // A longer stride than the axis takes the same one element.
    let step = step.clamp(-size.max(1), size.max(1));
    let wrap = |bound: i64| {
        if bound < 0 {
            bound.saturating_add(size)
        } else {
            bound
        }
    };
    let (start, end) = match step {
        1.. => (wrap(start.fixed).clamp(0, size), wrap(end.fixed).clamp(0, size)),
        0 => return Err("a step is 0".to_owned()),
        _ => (
            wrap(start.fixed).clamp(0, size - 1),
            wrap(end.fixed).clamp(-1, size - 1),
        ),
    };
    Ok((start != 0 || end != size || step != 1).then_some(Op::Slice {
        axis,
        start,
        end,
        step,
    }))
}

fn split(step: &mut Step<'_, '_>) -> Lowered {
    let x = step.input(0)?;
    let axis = step.axis(step.attributes.int("axis", 0), step.rank(x))?;
    let length = step.fact(x).shape[axis];
    let size = length
        .as_fixed()
        .ok_or_else(|| format!("splits the {length} rows"))?;
    let parts: Vec<usize> = if step.optional(1).is_some() {
        let sizes = step.known_ints(1, "split")?;
        sizes
            .into_iter()
            .map(|size| usize::try_from(size).map_err(|_| "a part is negative"))
            .collect::<Result<_, _>>()?
    } else {
        let count = step.node.output.len().max(1);
        let part = size.div_ceil(count);
        (0..count)
            .map(|at| part.min(size.saturating_sub(at * part)))
            .collect()
    };
    if parts.iter().sum::<usize>() != size {
        return Err(format!("splits {size} into {parts:?}"));
    }
    let mut outputs = Vec::with_capacity(parts.len());
    let mut start = 0;
    for part in parts {
        let op = Op::Slice {
            axis,
            start: Extent::of(start).fixed,
            end: Extent::of(start + part).fixed,
            step: 1,
        };
        outputs.push(step.push(op, &[x])?);
        start += part;
    }
    Ok(Some(outputs))
}

fn reshape(step: &mut Step<'_, '_>) -> Lowered {
    let x = step.input(0)?;
    let own = step.shape(x);
    let mut target = step.known_sizes(1, "shape")?;
    if step.attributes.int("allowzero", 0) == 0 {
        for (axis, extent) in target
            .iter_mut()
            .enumerate()
            .filter(|(_, extent)| **extent == Extent::fixed(0))
        {
            *extent = *own.get(axis).ok_or("a 0 in the shape stands for no axis")?;
        }
    }
    if let Some(free) = target.iter().position(|extent| *extent == Extent::fixed(-1)) {
        target[free] = Extent::ONE;
        let total = Extent::product(&own).ok_or("the shape is not linear in the rows")?;
        let others = Extent::product(&target);
        target[free] = others
            .and_then(|others| total.checked_div(others))
            .ok_or_else(|| {
                format!(
                    "{} does not reshape to the {} axes asked for",
                    crate::ir::display_shape(&own),
                    target.len()
                )
            })?;
    }
    one(step.reshape(x, target)?)
}

fn flatten(step: &mut Step<'_, '_>) -> Lowered {
    let x = step.input(0)?;
    let shape = step.shape(x);
    let axis = match step.attributes.int("axis", 1) {
        axis if axis == Extent::of(shape.len()).fixed => shape.len(),
        axis => step.axis(axis, shape.len())?,
    };
    let product = |part: &[Extent]| Extent::product(part).ok_or("the shape is not linear in the rows");
    let target = vec![product(&shape[..axis])?, product(&shape[axis..])?];
    one(step.reshape(x, target)?)
}

fn unsqueeze(step: &mut Step<'_, '_>) -> Lowered {
    let x = step.input(0)?;
    let shape = step.shape(x);
    let count = match (step.attributes.ints("axes"), step.optional(1)) {
        (Some(axes), _) => axes.len(),
        (None, _) => step.known_ints(1, "axes")?.len(),
    };
    let axes = step.axes(1, shape.len() + count)?.ok_or("has no axes")?;
    let mut own = shape.iter();
    let target = (0..shape.len() + axes.len())
        .map(|axis| {
            if axes.contains(&axis) {
                Some(Extent::ONE)
            } else {
                own.next().copied()
            }
        })
        .collect::<Option<Vec<_>>>()
        .ok_or("names an axis twice")?;
    one(step.reshape(x, target)?)
}

fn squeeze(step: &mut Step<'_, '_>) -> Lowered {
    let x = step.input(0)?;
    let shape = step.shape(x);
    let axes = step.axes(1, shape.len())?;
    let axes = axes.unwrap_or_else(|| {
        (0..shape.len())
            .filter(|axis| shape[*axis] == Extent::ONE)
            .collect()
    });
    if let Some(axis) = axes.iter().find(|axis| shape[**axis] != Extent::ONE) {
        return Err(format!("axis {axis} has {}, not 1", shape[*axis]));
    }
    let kept = shape.iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
    let target = kept.map(|(_, extent)| *extent).collect();
    one(step.reshape(x, target)?)
}

/// Each repeated axis gets one in front of it, which is expanded and merged again.
fn tile(step: &mut Step<'_, '_>) -> Lowered {
    let x = step.input(0)?;
    let shape = step.shape(x);
    let repeats = step.known_sizes(1, "repeats")?;
    if repeats.len() != shape.len() {
        return Err(format!("{} repeats for {} axes", repeats.len(), shape.len()));
    }
    let with = |count: fn(Extent) -> Extent| -> Vec<Extent> {
        repeats
            .iter()
            .zip(&shape)
            .flat_map(|(times, size)| [count(*times), *size])
            .collect()
    };
    let opened = step.reshape(x, with(|_| Extent::ONE))?;
    let target = with(|times| times);
    let spread = expand(step, opened, target)?;
    let merged = repeats
        .iter()
        .zip(&shape)
        .map(|(times, size)| times.checked_mul(*size));
    let merged = merged
        .collect::<Option<Vec<_>>>()
        .ok_or("repeats rows by the number of rows")?;
    one(step.reshape(spread, merged)?)
}
