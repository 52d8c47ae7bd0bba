//! Constant folding: a node whose inputs are all constant is computed while the graph is built.

use crate::interpret;
use crate::ir::{Extent, Fact, Graph, Op, ValueId};
use crate::tensor::{Data, Element, Tensor};

/// Integer tensors up to this many elements may be sizes and are followed symbolically.
const SIZES: usize = 64;

/// Larger results stay a node: an `Expand` of a scalar may ask for any amount of memory.
const FOLDED_ELEMENTS: usize = 1 << 26;

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

/// The outputs, when they follow from constants alone.
pub fn fold(
    graph: &Graph,
    op: &Op,
    inputs: &[ValueId],
    outputs: &[Fact],
) -> Result<Option<Vec<Tensor>>, String> {
    let fits = |fact: &Fact| {
        let count = Extent::product(&fact.shape).and_then(Extent::as_fixed);
        count.is_some_and(|count| count <= FOLDED_ELEMENTS)
    };
    if inputs.is_empty() || !outputs.iter().all(fits) {
        return Ok(None);
    }
    let Some(tensors) = inputs
        .iter()
        .map(|id| graph.constant(*id))
        .collect::<Option<Vec<_>>>()
    else {
        return Ok(None);
    };
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
}
