//! Requests that share a run: their inputs joined along the first dimension, the outputs cut apart again.

use super::{Batch, Dim, Outputs, Signature, Tensor};

/// Whether requests of a model may be joined at all, as far as its shapes tell: each input and output counts rows
/// in front, and in no other place. (What shapes cannot tell, `model::warmup` tries.)
pub fn joinable(signature: &Signature) -> bool {
    let rows = |dim: &Dim| match dim {
        Dim::Named(symbol) => Some(symbol.clone()),
        Dim::Fixed(_) | Dim::Any => None,
    };
    let specs = || signature.inputs.iter().chain(&signature.outputs);
    let symbols: Vec<String> = specs()
        .filter_map(|spec| spec.dims.first().and_then(rows))
        .collect();
    let elsewhere = specs()
        .flat_map(|spec| spec.dims.iter().skip(1))
        .filter_map(rows)
        .any(|symbol| symbols.contains(&symbol));
    !signature.inputs.is_empty() && signature.batched() && !elsewhere
}

/// Whether each input has the batch's rows, or its lists, in front: one row beside many means something else than rows.
pub fn uniform(batch: &Batch) -> bool {
    let counted = |first: usize| first == batch.rows || (first == batch.lists.len() && first > 0);
    batch
        .inputs
        .iter()
        .all(|tensor| tensor.shape.first().is_some_and(|first| counted(*first)))
}

/// Whether two uniform batches of one model differ in nothing but their rows and values.
pub fn alike(one: &Batch, other: &Batch) -> bool {
    one.inputs.len() == other.inputs.len()
        && one
            .inputs
            .iter()
            .zip(&other.inputs)
            .all(|(a, b)| a.data.datatype() == b.data.datatype() && a.shape.get(1..) == b.shape.get(1..))
}

/// Joins batches that are `alike`. `None` when they are not.
pub fn join(batches: &[&Batch]) -> Option<Batch> {
    let (first, rest) = batches.split_first()?;
    if !rest.iter().all(|batch| alike(first, batch)) {
        return None;
    }
    let rows = batches.iter().map(|batch| batch.rows).sum();
    let mut inputs = Vec::with_capacity(first.inputs.len());
    for (index, input) in first.inputs.iter().enumerate() {
        let count = batches.iter().map(|batch| batch.inputs[index].data.count()).sum();
        let mut data = input.data.datatype().with_capacity(count);
        for batch in batches {
            data.append(&batch.inputs[index].data);
        }
        let mut shape = input.shape.clone();
        *shape.first_mut()? = batches
            .iter()
            .map(|batch| batch.inputs[index].shape.first().copied().unwrap_or(0))
            .sum();
        inputs.push(Tensor { shape, data });
    }
    let lists = batches
        .iter()
        .flat_map(|batch| batch.lists.iter().copied())
        .collect();
    Some(Batch { inputs, rows, lists })
}

/// Cuts outputs into one part for each of `rows`. `None` when an output does not have their sum in front.
pub fn split(outputs: &Outputs, rows: &[usize]) -> Option<Vec<Outputs>> {
    let sum: usize = rows.iter().sum();
    if !outputs
        .tensors
        .iter()
        .all(|tensor| tensor.shape.first() == Some(&sum))
    {
        return None;
    }
    let mut parts = Vec::with_capacity(rows.len());
    let mut start = 0;
    for own in rows {
        let tensors = outputs.tensors.iter().map(|tensor| part(tensor, start, *own));
        parts.push(Outputs {
            tensors: tensors.collect::<Option<Vec<Tensor>>>()?,
        });
        start += own;
    }
    Some(parts)
}

/// Puts parts together again, one after the other: the way back from [`split`]. `None` when they are not of one run.
pub fn concat(parts: Vec<Outputs>) -> Option<Outputs> {
    let rows = |parts: &[Outputs], index: usize| {
        let first = |part: &Outputs| part.tensors.get(index)?.shape.first().copied();
        parts.iter().map(first).sum::<Option<usize>>()
    };
    let sums = (0..parts.first()?.tensors.len()).map(|index| rows(&parts, index));
    let sums = sums.collect::<Option<Vec<usize>>>()?;
    let mut parts = parts.into_iter();
    let mut whole = parts.next()?;
    for part in parts {
        for (own, more) in whole.tensors.iter_mut().zip(&part.tensors) {
            if own.shape.get(1..) != more.shape.get(1..) || !own.data.append(&more.data) {
                return None;
            }
        }
    }
    for (tensor, sum) in whole.tensors.iter_mut().zip(sums) {
        *tensor.shape.first_mut()? = sum;
    }
    Some(whole)
}

fn part(tensor: &Tensor, start: usize, rows: usize) -> Option<Tensor> {
    let (first, rest) = tensor.shape.split_first()?;
    let width = tensor.data.count().checked_div(*first)?;
    let data = tensor.data.copy_range(start * width..(start + rows) * width)?;
    let shape = std::iter::once(rows).chain(rest.iter().copied()).collect();
    Some(Tensor { shape, data })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Data, Datatype, TensorSpec};

    fn batch(rows: usize, from: u8) -> Batch {
        let dense = Tensor {
            shape: vec![rows, 2],
            data: Data::F32((0..2 * rows).map(|i| f32::from(from) + i as f32).collect()),
        };
        let ids = Tensor {
            shape: vec![rows],
            data: Data::I64((0..rows).map(|i| i64::from(from) + i as i64).collect()),
        };
        Batch {
            inputs: vec![dense, ids],
            rows,
            lists: vec![],
        }
    }

    #[test]
    fn split_gives_back_what_join_joined() {
        let batches = [batch(2, 0), batch(1, 10), batch(3, 20)];
        let joined = join(&batches.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!((joined.rows, &joined.inputs[0].shape), (6, &vec![6, 2]));
        assert_eq!(joined.inputs[1].data, Data::I64(vec![0, 1, 10, 20, 21, 22]));
        let outputs = Outputs {
            tensors: joined.inputs,
        };
        let parts = split(&outputs, &[2, 1, 3]).unwrap();
        for (part, batch) in parts.iter().zip(&batches) {
            assert_eq!(part.tensors, batch.inputs);
        }
        assert_eq!(concat(parts.clone()), Some(outputs.clone()));
        let mut other = parts;
        other[2].tensors[1] = other[0].tensors[0].clone();
        assert_eq!(concat(other), None);
        assert!(split(&outputs, &[2, 1]).is_none());
        assert!(split(&outputs, &[2, 1, 4]).is_none());
    }

    #[test]
    fn only_alike_batches_are_joined() {
        let one = batch(2, 0);
        let mut wider = batch(2, 0);
        wider.inputs[0].shape = vec![2, 1];
        wider.inputs[0].data = Data::F32(vec![0.0; 2]);
        let mut typed = batch(2, 0);
        typed.inputs[1].data = Data::I32(vec![0; 2]);
        for other in [wider, typed] {
            assert!(!alike(&one, &other));
            assert!(join(&[&one, &other]).is_none());
        }
        let mut broadcast = batch(2, 0);
        assert!(uniform(&broadcast));
        broadcast.inputs[1] = batch(1, 0).inputs[1].clone();
        assert!(!uniform(&broadcast));
    }

    #[test]
    fn rows_must_be_in_front_everywhere_and_nowhere_else() {
        let named = |name: &str| Dim::Named(name.into());
        let signature = |input: Vec<Dim>, output: Vec<Dim>| {
            let spec = |dims| TensorSpec {
                name: "t".into(),
                datatype: Datatype::F32,
                dims,
            };
            Signature {
                inputs: vec![spec(input)],
                outputs: vec![spec(output)],
            }
        };
        let two = || Dim::Fixed(2);
        assert!(joinable(&signature(vec![named("n"), two()], vec![named("n")])));
        assert!(joinable(&signature(
            vec![Dim::Any, named("length")],
            vec![Dim::Any]
        )));
        for (input, output) in [
            (vec![two(), two()], vec![named("n")]),
            (vec![named("n"), two()], vec![two()]),
            (vec![named("n"), two()], vec![]),
            (vec![named("n"), named("n")], vec![named("n")]),
            (vec![named("n"), two()], vec![named("n"), named("n")]),
        ] {
            assert!(!joinable(&signature(input, output)));
        }
        assert!(!joinable(&Signature::default()));
    }
}
