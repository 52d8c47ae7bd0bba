//! Proof of row independence: before anything is batched with another request, split or hoisted.
//!
//! Every value has at most one axis that grows with the batch, with the same number of entries for each row; the
//! proof is that each operator keeps rows apart along it. Where it fails, the model is listwise and runs whole.

use crate::ir::{Extent, Fact, Graph, Node, Op, display_shape};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rows {
    Independent,
    /// Why rows are seen together.
    Listwise(String),
}

pub fn prove(graph: &Graph) -> Rows {
    match check(graph) {
        Ok(()) => Rows::Independent,
        Err(reason) => Rows::Listwise(reason),
    }
}

fn check(graph: &Graph) -> Result<(), String> {
    if graph
        .inputs
        .iter()
        .all(|id| graph.fact(*id).batch_axis().is_none())
    {
        return Err("no input has a batch dimension; export with dynamic axes (dynamic_shapes)".to_owned());
    }
    for id in &graph.inputs {
        if graph.fact(*id).batch_axis().is_some_and(|axis| axis != 0) {
            return Err(format!(
                "input {:?} has its rows in another axis than the first",
                graph.value(*id).name
            ));
        }
    }
    for node in &graph.nodes {
        check_node(graph, node)
            .map_err(|reason| format!("node {:?} ({}) {reason}", node.name, node.op.name()))?;
    }
    for id in &graph.outputs {
        if graph.fact(*id).batch_axis() != Some(0) {
            return Err(format!(
                "output {:?} has no row for each pair",
                graph.value(*id).name
            ));
        }
    }
    Ok(())
}

fn check_node(graph: &Graph, node: &Node) -> Result<(), String> {
    let inputs: Vec<&Fact> = node.inputs.iter().map(|id| graph.fact(*id)).collect();
    let batch = inputs.first().and_then(|fact| fact.batch_axis());
    let mixes = |axis: usize| {
        if batch == Some(axis) {
            Err("works across rows".to_owned())
        } else {
            Ok(())
        }
    };
    match &node.op {
        Op::Unary(_)
        | Op::Binary(_)
        | Op::Where
        | Op::Cast(_)
        | Op::Expand { .. }
        | Op::Transpose { .. }
        | Op::Trees(_) => {}
        Op::MatMul => {
            let rank = inputs[1].shape.len();
            if batch == Some(inputs[0].shape.len() - 1) || inputs[1].batch_axis() == Some(rank - 2) {
                return Err("multiplies across rows".to_owned());
            }
        }
        Op::Gather { axis }
        | Op::GatherElements { axis }
        | Op::Softmax { axis, .. }
        | Op::TopK { axis, .. } => mixes(*axis)?,
        Op::Concat { axis } | Op::Slice { axis, .. } | Op::CumSum { axis } => {
            if inputs.iter().any(|input| input.batch_axis() == Some(*axis)) {
                return Err("works across rows".to_owned());
            }
        }
        Op::GatherNd { batch_dims } => {
            let depth = inputs[1]
                .shape
                .last()
                .and_then(|extent| extent.as_fixed())
                .unwrap_or(0);
            (*batch_dims..batch_dims + depth).try_for_each(mixes)?;
        }
        Op::Reduce { axes, .. } => axes.iter().try_for_each(|axis| mixes(*axis))?,
        Op::LayerNorm { axis, .. } => (*axis..inputs[0].shape.len()).try_for_each(mixes)?,
        Op::Gru { .. } => mixes(0)?,
        Op::Range { .. } => return Err("numbers the rows".to_owned()),
        Op::Reshape { shape } => reshape(&inputs[0].shape, shape)?,
    }
    for output in &node.outputs {
        let shape = graph.shape(*output);
        let growing: Vec<&Extent> = shape.iter().filter(|extent| !extent.is_fixed()).collect();
        if growing.len() > 1 || growing.iter().any(|extent| extent.per_row().is_none()) {
            return Err(format!("pairs rows with rows: {}", display_shape(shape)));
        }
        if growing.is_empty() && inputs.iter().any(|input| input.batch_axis().is_some()) {
            return Err("joins the rows to one value".to_owned());
        }
    }
    Ok(())
}

/// Rows stay apart when as many elements lie before the growing axis as did: the order of elements does not change.
fn reshape(from: &[Extent], to: &[Extent]) -> Result<(), String> {
    let before = |shape: &[Extent]| {
        let axis = shape.iter().position(|extent| !extent.is_fixed())?;
        Extent::product(&shape[..axis])
    };
    if before(from) == before(to) {
        return Ok(());
    }
    Err(format!(
        "mixes rows: {} to {}",
        display_shape(from),
        display_shape(to)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Binary, Reduction, ValueId, extents as of};
    use crate::tensor::Element;

    /// A graph with input `x [N, 4, 6]` and what `build` makes of it.
    fn prove_of(build: impl Fn(&mut Graph, ValueId) -> Result<ValueId, String>) -> Rows {
        let mut graph = Graph::default();
        let shape = vec![Extent::N, Extent::fixed(4), Extent::fixed(6)];
        let x = graph.add_input("x", Fact::new(Element::F32, shape));
        let out = build(&mut graph, x).unwrap();
        graph.outputs.push(out);
        prove(&graph)
    }

    fn listwise(rows: Rows) -> String {
        match rows {
            Rows::Listwise(reason) => reason,
            Rows::Independent => panic!("proved"),
        }
    }

    #[test]
    fn rows_may_move_but_not_mix() {
        let reshape = |shape: &[i64]| {
            let shape = of(shape);
            prove_of(move |graph, x| graph.push_one("r", Op::Reshape { shape: shape.clone() }, &[x]))
        };
        assert_eq!(reshape(&[-4, 6]), Rows::Independent);
        assert_eq!(reshape(&[-1, 24]), Rows::Independent);
        assert!(listwise(reshape(&[4, -1, 6])).contains("mixes rows: [N, 4, 6] to [4, N, 6]"));
        // To [4, N, 6], heads split, and back: as attention does with the sequence first.
        let moved = prove_of(|graph, x| {
            let first = graph.push_one("t", Op::Transpose { perm: vec![1, 0, 2] }, &[x])?;
            let heads = graph.push_one(
                "h",
                Op::Reshape {
                    shape: of(&[4, -2, 3]),
                },
                &[first],
            )?;
            graph.push_one("b", Op::Transpose { perm: vec![1, 0, 2] }, &[heads])
        });
        assert_eq!(moved, Rows::Independent);
    }

    #[test]
    fn reductions_over_the_rows_are_listwise() {
        let reduce = |axis: usize| {
            prove_of(move |graph, x| {
                let op = Op::Reduce {
                    reduction: Reduction::Sum,
                    axes: vec![axis],
                    keep: true,
                };
                let sum = graph.push_one("sum", op, &[x])?;
                graph.push_one("sub", Op::Binary(Binary::Sub), &[x, sum])
            })
        };
        assert_eq!(reduce(1), Rows::Independent);
        assert_eq!(listwise(reduce(0)), "node \"sum\" (ReduceSum) works across rows");
        let softmax = prove_of(|graph, x| graph.push_one("s", Op::Softmax { axis: 0, log: false }, &[x]));
        assert_eq!(listwise(softmax), "node \"s\" (Softmax) works across rows");
    }

    #[test]
    fn rows_against_rows_are_listwise() {
        let all_pairs = prove_of(|graph, x| {
            let flat = graph.push_one("flat", Op::Reshape { shape: of(&[-1, 24]) }, &[x])?;
            let turned = graph.push_one("turned", Op::Transpose { perm: vec![1, 0] }, &[flat])?;
            graph.push_one("all", Op::MatMul, &[flat, turned])
        });
        assert_eq!(
            listwise(all_pairs),
            "node \"all\" (MatMul) pairs rows with rows: [N, N]"
        );
        let gram = prove_of(|graph, x| {
            let flat = graph.push_one("flat", Op::Reshape { shape: of(&[-1, 24]) }, &[x])?;
            let turned = graph.push_one("turned", Op::Transpose { perm: vec![1, 0] }, &[flat])?;
            graph.push_one("gram", Op::MatMul, &[turned, flat])
        });
        assert_eq!(listwise(gram), "node \"gram\" (MatMul) multiplies across rows");
    }
}
