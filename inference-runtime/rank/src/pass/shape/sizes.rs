//! The elements of tensors of sizes, symbolic in the rows.

use crate::ir::{Binary, Extent, Fact, Op, display_shape};
use crate::pass::fold::SIZES;
use crate::tensor::{Element, Walk};

/// Elements that a row of an input or a computed value may have: 64 MiB, more than the attention of a sequence of a
/// thousand needs. A few bytes of a model can ask for any amount.
pub const LARGEST_ROW: i64 = 1 << 24;

/// Elements of a constant: products of sizes stay far from overflow.
pub const LARGEST_CONSTANT: i64 = 1 << 32;

/// Sizes are not negative, and a row is not of absurd size, whatever a damaged model says.
pub fn check_size(fact: &Fact, largest: i64) -> Result<(), String> {
    let mut count = 1_i64;
    for extent in &fact.shape {
        let one_row = extent
            .rows
            .checked_add(extent.fixed)
            .filter(|size| *size >= 0 && extent.rows >= 0);
        let size = one_row.ok_or_else(|| format!("makes the shape {}", display_shape(&fact.shape)))?;
        count = count
            .checked_mul(size)
            .filter(|count| *count <= largest)
            .ok_or_else(|| {
                format!(
                    "makes {}, more than {largest} elements",
                    display_shape(&fact.shape)
                )
            })?;
    }
    Ok(())
}

/// Elements of the result where every input's elements are known as sizes.
pub fn sizes(op: &Op, inputs: &[&Fact], shape: &[Extent]) -> Option<Vec<Extent>> {
    let known: Vec<&[Extent]> = inputs
        .iter()
        .map(|fact| fact.sizes.as_deref())
        .collect::<Option<_>>()?;
    let fixed = |fact: &Fact| {
        fact.shape
            .iter()
            .map(|extent| extent.as_fixed())
            .collect::<Option<Vec<usize>>>()
    };
    let shapes: Vec<Vec<usize>> = inputs.iter().map(|fact| fixed(fact)).collect::<Option<_>>()?;
    let out: Vec<usize> = shape
        .iter()
        .map(|extent| extent.as_fixed())
        .collect::<Option<_>>()?;
    let elements = out
        .iter()
        .try_fold(1_usize, |count, size| count.checked_mul(*size));
    if elements.is_none_or(|count| count > SIZES) {
        return None;
    }
    match op {
        Op::Cast(Element::I64 | Element::I32 | Element::Bool) | Op::Reshape { .. } => Some(known[0].to_vec()),
        Op::Binary(binary) => {
            let walk = |at: usize| walk(&shapes[at], &out, known[at]);
            walk(0)
                .zip(walk(1))
                .map(|(a, b)| combine(*binary, a, b))
                .collect()
        }
        Op::Where => {
            let walk = |at: usize| walk(&shapes[at], &out, known[at]);
            let pick = |((condition, a), b): ((Extent, Extent), Extent)| {
                condition
                    .is_fixed()
                    .then_some(if condition.fixed != 0 { a } else { b })
            };
            walk(0).zip(walk(1)).zip(walk(2)).map(pick).collect()
        }
        Op::Gather { axis: 0 } if shapes[0].len() == 1 => {
            let length = i64::try_from(known[0].len()).ok()?;
            let pick = |index: &Extent| {
                let index = if index.fixed < 0 {
                    index.fixed + length
                } else {
                    index.fixed
                };
                known[0].get(usize::try_from(index).ok()?).copied()
            };
            known[1].iter().map(pick).collect()
        }
        Op::Concat { axis: 0 } if out.len() == 1 => Some(known.concat()),
        Op::Slice {
            axis: 0,
            start,
            step: 1,
            ..
        } if out.len() == 1 => {
            let start = usize::try_from(*start).ok()?;
            known[0].get(start..start + out[0]).map(<[Extent]>::to_vec)
        }
        Op::Expand { .. } => Some(Walk::broadcast(&shapes[0], &out).map(|i| known[0][i]).collect()),
        Op::Reduce {
            reduction: crate::ir::Reduction::Prod,
            ..
        } if out.iter().product::<usize>() == 1 => Extent::product(known[0]).map(|product| vec![product]),
        _ => None,
    }
}

fn walk(from: &[usize], to: &[usize], sizes: &[Extent]) -> impl Iterator<Item = Extent> {
    Walk::broadcast(from, to).map(|index| sizes[index])
}

fn combine(binary: Binary, a: Extent, b: Extent) -> Option<Extent> {
    match binary {
        Binary::Add => a.checked_add(b),
        Binary::Sub => a.checked_sub(b),
        Binary::Mul => a.checked_mul(b),
        Binary::Div => a.checked_div(b),
        Binary::Equal if a == b => Some(Extent::ONE),
        // A size is never negative, whatever the number of rows.
        Binary::Equal => {
            let apart = a.rows == b.rows || (a.rows > 0 && a.fixed >= 0 && b.rows == 0 && b.fixed < 0);
            apart.then_some(Extent::fixed(0))
        }
        _ => None,
    }
}
