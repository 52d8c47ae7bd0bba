//! Operators that move elements and compute none.

use super::EvalError;
use crate::tensor::{Tensor, Walk, strides};

pub fn transpose(perm: &[usize], x: &Tensor) -> Tensor {
    let own = strides(&x.shape);
    let shape: Vec<usize> = perm.iter().map(|axis| x.shape[*axis]).collect();
    let walk = Walk::new(&shape, perm.iter().map(|axis| own[*axis]).collect(), 0);
    x.pick(shape, walk)
}

pub fn expand(x: &Tensor, target: &[usize]) -> Tensor {
    let rank = target.len().max(x.shape.len());
    let at = |shape: &[usize], axis: usize| {
        (axis + shape.len())
            .checked_sub(rank)
            .map_or(1, |axis| shape[axis])
    };
    let size = |axis| match (at(&x.shape, axis), at(target, axis)) {
        (1, other) | (other, 1) => other,
        (size, _) => size,
    };
    let shape: Vec<usize> = (0..rank).map(size).collect();
    let walk = Walk::broadcast(&x.shape, &shape);
    x.pick(shape, walk)
}

pub fn slice(axis: usize, start: i64, step: i64, length: usize, x: &Tensor) -> Result<Tensor, EvalError> {
    let position = |index: usize| {
        let offset = i64::try_from(index).ok()?.checked_mul(step)?.checked_add(start)?;
        usize::try_from(offset)
            .ok()
            .filter(|offset| *offset < x.shape[axis])
    };
    let positions: Option<Vec<usize>> = (0..length).map(position).collect();
    Ok(along(axis, x, &positions.ok_or(EvalError::Slice)?))
}

/// The entries at `positions` of one axis.
pub fn along(axis: usize, x: &Tensor, positions: &[usize]) -> Tensor {
    let inner: usize = x.shape[axis + 1..].iter().product();
    let outer: usize = x.shape[..axis].iter().product();
    let size = x.shape[axis];
    let mut shape = x.shape.clone();
    shape[axis] = positions.len();
    let indices = (0..outer).flat_map(|outer| {
        positions.iter().flat_map(move |position| {
            (0..inner).map(move |inner_at| (outer * size + position) * inner + inner_at)
        })
    });
    x.pick(shape, indices)
}

pub fn concat(axis: usize, inputs: &[&Tensor]) -> Result<Tensor, EvalError> {
    use crate::tensor::Data;
    let mut shape = inputs[0].shape.clone();
    shape[axis] = inputs.iter().map(|input| input.shape[axis]).sum();
    let outer: usize = shape[..axis].iter().product();
    let chunk = |input: &Tensor| input.shape[axis..].iter().product::<usize>();
    macro_rules! join {
        ($variant:ident) => {{
            let mut joined = Vec::with_capacity(shape.iter().product());
            for outer in 0..outer {
                for input in inputs {
                    let Data::$variant(values) = &input.data else {
                        return Err(EvalError::element("Concat", input.element));
                    };
                    joined.extend_from_slice(&values[outer * chunk(input)..(outer + 1) * chunk(input)]);
                }
            }
            Data::$variant(joined)
        }};
    }
    let data = match &inputs[0].data {
        Data::F32(_) => join!(F32),
        Data::Int(_) => join!(Int),
        Data::Bool(_) => join!(Bool),
        Data::Bf16(_) => join!(Bf16),
    };
    Ok(Tensor {
        element: inputs[0].element,
        shape,
        data,
    })
}

/// An index into an axis of `size`, counted from the end when negative.
fn index_within(index: i64, size: usize) -> Result<usize, EvalError> {
    let limit = i64::try_from(size).unwrap_or(i64::MAX);
    let position = if index < 0 {
        index.checked_add(limit)
    } else {
        Some(index)
    };
    position
        .and_then(|position| usize::try_from(position).ok())
        .filter(|position| *position < size)
        .ok_or(EvalError::Index { index, size })
}

fn integers(x: &Tensor) -> Result<&[i64], EvalError> {
    x.as_int().ok_or_else(|| EvalError::element("indices", x.element))
}

pub fn gather(axis: usize, table: &Tensor, indices: &Tensor) -> Result<Tensor, EvalError> {
    let size = table.shape[axis];
    let positions: Result<Vec<usize>, _> = integers(indices)?
        .iter()
        .map(|index| index_within(*index, size))
        .collect();
    let picked = along(axis, table, &positions?);
    let shape = [&table.shape[..axis], &indices.shape, &table.shape[axis + 1..]].concat();
    Ok(picked.reshaped(shape))
}

pub fn gather_elements(axis: usize, data: &Tensor, indices: &Tensor) -> Result<Tensor, EvalError> {
    let own = strides(&data.shape);
    let mut outer = own.clone();
    outer[axis] = 0;
    let walk = Walk::new(&indices.shape, outer, 0);
    let offset =
        |(base, index): (usize, &i64)| Ok(base + index_within(*index, data.shape[axis])? * own[axis]);
    let offsets: Result<Vec<usize>, EvalError> = walk.zip(integers(indices)?).map(offset).collect();
    Ok(data.pick(indices.shape.clone(), offsets?.into_iter()))
}

pub fn gather_nd(batch_dims: usize, data: &Tensor, indices: &Tensor) -> Result<Tensor, EvalError> {
    let depth = indices.shape[indices.shape.len() - 1];
    let own = strides(&data.shape);
    let inner: usize = data.shape[batch_dims + depth..].iter().product();
    let per_batch: usize = indices.shape[batch_dims..indices.shape.len() - 1]
        .iter()
        .product();
    let batch_size: usize = data.shape[batch_dims..].iter().product();
    let mut offsets = Vec::with_capacity(indices.count() / depth * inner);
    for (at, index) in integers(indices)?.chunks_exact(depth).enumerate() {
        let mut base = at.checked_div(per_batch).unwrap_or(0) * batch_size;
        for (axis, index) in (batch_dims..).zip(index) {
            base += index_within(*index, data.shape[axis])? * own[axis];
        }
        offsets.extend(base..base + inner);
    }
    let shape = [
        &indices.shape[..indices.shape.len() - 1],
        &data.shape[batch_dims + depth..],
    ]
    .concat();
    Ok(data.pick(shape, offsets.into_iter()))
}
