//! Constant folding: a node whose inputs are all constant is computed while the graph is built.

use crate::interpret;
use crate::ir::{Extent, Fact, Graph, Op, ValueId};
use crate::tensor::{Data, Element, Tensor};

/// Integer tensors up to this many elements may be sizes and are followed symbolically.
pub const SIZES: usize = 64;

/// Constants may make so many elements whatever they are, and [`FACTOR`] times as many as there are.
pub const FLOOR: usize = 1 << 20;
pub const FACTOR: usize = 4;

pub fn constant_fact(tensor: &Tensor) -> Fact {
    let sizes = match &tensor.data {
        Data::Int(values) if values.len() <= SIZES => {
            Some(values.iter().map(|value| Extent::fixed(*value)).collect())
        }
        Data::Bool(values) if values.len() <= SIZES => Some(
            values
                .iter()
                .map(|value| Extent::fixed(i64::from(*value)))
                .collect(),
        ),
        _ => None,
    };
    Fact {
        element: tensor.element,
        shape: tensor.shape.iter().map(|size| Extent::of(*size)).collect(),
        sizes,
    }
}

/// A tensor of fixed sizes.
pub fn sizes_tensor(element: Element, shape: Vec<usize>, sizes: &[Extent]) -> Tensor {
    if element == Element::Bool {
        return Tensor::bool(shape, sizes.iter().map(|size| size.fixed != 0).collect());
    }
    Tensor::int(element, shape, sizes.iter().map(|size| size.fixed).collect())
}

/// Elements of all these for one row.
pub fn elements<'a>(facts: impl Iterator<Item = &'a Fact>) -> usize {
    let count = |fact: &Fact| {
        let sizes = fact.shape.iter().map(|extent| extent.resolve(1));
        sizes.fold(1_usize, |count, size| {
            count.saturating_mul(size.unwrap_or(usize::MAX))
        })
    };
    facts.map(count).fold(0, usize::saturating_add)
}

/// Refuses constants that would take more memory than the file warrants; `made` were made before.
pub fn check_room(graph: &Graph, made: usize, more: usize) -> Result<(), String> {
    if graph.allows_constants(made.saturating_add(more)) {
        return Ok(());
    }
    Err(format!(
        "makes {more} elements of constants; store large tensors in the file"
    ))
}

/// The outputs, when they follow from constants alone; `made` elements did before.
pub fn fold(
    graph: &Graph,
    made: usize,
    op: &Op,
    inputs: &[ValueId],
    outputs: &[Fact],
) -> Result<Option<Vec<Tensor>>, String> {
    let fixed = |fact: &Fact| fact.batch_axis().is_none();
    if inputs.is_empty() || !outputs.iter().all(fixed) {
        return Ok(None);
    }
    let Some(tensors) = inputs
        .iter()
        .map(|id| graph.constant(*id))
        .collect::<Option<Vec<_>>>()
    else {
        return Ok(None);
    };
    check_room(graph, made, elements(outputs.iter()))?;
    interpret::eval(op, &tensors, 1)
        .map(Some)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Binary;

    #[test]
    fn constants_fold_and_sizes_stay_symbolic() {
        let mut graph = Graph::default();
        let two = graph.add_constant("two", Tensor::i64(vec![1], vec![2]));
        let three = graph.add_constant("three", Tensor::i64(vec![1], vec![3]));
        let six = graph
            .push_one("six", Op::Binary(Binary::Mul), &[two, three])
            .unwrap();
        assert_eq!(graph.constant(six), Some(&Tensor::i64(vec![1], vec![6])));
        let rows = graph.add_sizes("rows", Element::I64, vec![1], vec![Extent::N]);
        let product = graph
            .push_one("product", Op::Binary(Binary::Mul), &[rows, two])
            .unwrap();
        assert_eq!(
            graph.fact(product).sizes,
            Some(vec![Extent { rows: 2, fixed: 0 }])
        );
        assert!(graph.nodes.is_empty());
        let reason = graph
            .push_one("float", Op::Cast(Element::F32), &[product])
            .unwrap_err();
        assert!(reason.contains("number of rows"), "{reason}");
    }

    #[test]
    fn constants_make_no_more_than_the_file_warrants() {
        let mut graph = Graph::default();
        let one = graph.add_constant("one", Tensor::scalar(1.0));
        let expand = |graph: &mut Graph, count: usize| {
            let shape = vec![Extent::of(count)];
            graph.push_one("wide", Op::Expand { shape }, &[one])
        };
        for _ in 0..4 {
            expand(&mut graph, FLOOR / 4).unwrap();
        }
        let reason = expand(&mut graph, FLOOR / 4).unwrap_err();
        assert!(reason.contains("store large tensors in the file"), "{reason}");
        assert!(expand(&mut graph, 1 << 40).unwrap_err().contains("more than"));
        // A large file may make more.
        graph.add_constant("table", Tensor::f32(vec![FLOOR], vec![0.0; FLOOR]));
        assert!(expand(&mut graph, 2 * FLOOR).is_ok());
    }

    #[test]
    fn a_row_is_not_of_absurd_size() {
        let mut graph = Graph::default();
        let x = graph.add_input("x", Fact::new(Element::F32, vec![Extent::N, Extent::ONE]));
        let shape = vec![Extent::N, Extent::of(1 << 30)];
        let reason = graph.push_one("wide", Op::Expand { shape }, &[x]).unwrap_err();
        assert!(reason.contains("more than 16777216 elements"), "{reason}");
    }
}
