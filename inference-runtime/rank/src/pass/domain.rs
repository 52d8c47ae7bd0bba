//! Domains: on what a value depends, and so how often it has to be computed.
//!
//! Different users share a batch: a value of the request's domain has one row for each request (segment), and each
//! pair knows its segment (`run_segmented`).

use std::fmt::Write as _;

use crate::ir::{Graph, ValueId};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// The same for every row.
    Const,
    /// The candidate alone.
    Item,
    /// The user and the context: once a request.
    Request,
    /// Both: once a candidate.
    Pair,
}

impl Domain {
    pub fn join(self, other: Domain) -> Domain {
        match (self, other) {
            (Domain::Const, domain) | (domain, Domain::Const) => domain,
            (a, b) if a == b => a,
            _ => Domain::Pair,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Domains(Vec<Domain>);

impl Domains {
    pub fn of(&self, id: ValueId) -> Domain {
        self.0[id.index()]
    }
}

/// Domains of all values, when `request` names the inputs that come once a request.
pub fn domains(graph: &Graph, request: &[ValueId]) -> Domains {
    let mut domains = vec![Domain::Const; graph.values.len()];
    for input in &graph.inputs {
        // An input without rows is the same for the whole request, whatever was declared.
        let once = request.contains(input) || graph.fact(*input).batch_axis().is_none();
        domains[input.index()] = if once { Domain::Request } else { Domain::Item };
    }
    for node in &graph.nodes {
        let joined = node
            .inputs
            .iter()
            .map(|id| domains[id.index()])
            .fold(Domain::Const, Domain::join);
        node.outputs.iter().for_each(|id| domains[id.index()] = joined);
    }
    Domains(domains)
}

/// One line a node, as `inspect` prints it.
pub fn describe(graph: &Graph, domains: &Domains) -> String {
    let mut text = String::new();
    for node in &graph.nodes {
        let output = node.outputs[0];
        let shape = crate::ir::display_shape(graph.shape(output));
        let domain = format!("{:?}", domains.of(output));
        let _ = writeln!(text, "{domain:8} {:16} {shape:16} {}", node.op.name(), node.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Binary, Extent, Fact, Op, Unary};
    use crate::tensor::{Element, Tensor};

    #[test]
    fn a_value_is_as_wide_as_what_it_depends_on() {
        let mut graph = Graph::default();
        let rows = |width: usize| Fact::new(Element::F32, vec![Extent::N, Extent::of(width)]);
        let user = graph.add_input("user", rows(4));
        let item = graph.add_input("item", rows(4));
        let zero = graph.add_constant("zero", Tensor::scalar(0.0));
        let spread = Op::Expand {
            shape: vec![Extent::N, Extent::of(4)],
        };
        let zeros = graph.push_one("zeros", spread, &[zero]).unwrap();
        let u = graph
            .push_one("u", Op::Binary(Binary::Add), &[user, zeros])
            .unwrap();
        let i = graph.push_one("i", Op::Unary(Unary::Relu), &[item]).unwrap();
        let both = graph.push_one("both", Op::Binary(Binary::Mul), &[u, i]).unwrap();
        let domains = domains(&graph, &[user]);
        let of = [zeros, u, i, both].map(|id| domains.of(id));
        assert_eq!(of, [Domain::Const, Domain::Request, Domain::Item, Domain::Pair]);
        assert!(describe(&graph, &domains).contains("Pair     Mul              [N, 4]           both"));
    }
}
