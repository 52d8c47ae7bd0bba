//! Removes nodes that no output needs.

use crate::ir::Graph;

pub fn prune(graph: &mut Graph) {
    let mut needed = vec![false; graph.values.len()];
    for output in &graph.outputs {
        needed[output.index()] = true;
    }
    let mut kept = Vec::with_capacity(graph.nodes.len());
    for node in graph.nodes.drain(..).rev() {
        if node.outputs.iter().any(|id| needed[id.index()]) {
            node.inputs.iter().for_each(|id| needed[id.index()] = true);
            kept.push(node);
        }
    }
    kept.reverse();
    graph.nodes = kept;
    // Constants that nothing reads are let go: a folded table may be most of the model.
    for (value, needed) in graph.values.iter_mut().zip(needed) {
        if !needed {
            value.constant = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Extent, Fact, Op, Unary};
    use crate::tensor::Element;

    #[test]
    fn what_no_output_needs_is_gone() {
        let mut graph = Graph::default();
        let x = graph.add_input("x", Fact::new(Element::F32, vec![Extent::N]));
        let kept = graph.push_one("kept", Op::Unary(Unary::Relu), &[x]).unwrap();
        graph.push_one("dead", Op::Unary(Unary::Exp), &[kept]).unwrap();
        graph.outputs.push(kept);
        prune(&mut graph);
        assert_eq!(graph.nodes.len(), 1);
        assert_eq!(graph.nodes[0].name, "kept");
    }
}
