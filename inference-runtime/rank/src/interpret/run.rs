//! Runs a graph: whole, or with the request's part once a request.

use std::sync::Arc;

use super::{EvalError, eval};
use crate::ir::{Extent, Graph, ValueId};
use crate::pass::domain::{Domain, Domains};
use crate::tensor::Tensor;

/// In the order of the graph's inputs.
pub type Inputs<'a> = &'a [Tensor];

/// Runs the graph for a batch: the first dimension of the inputs that have one is the number of rows.
pub fn run(graph: &Graph, inputs: Inputs<'_>) -> Result<Vec<Tensor>, EvalError> {
    let mut rows = None;
    for (id, tensor) in graph.inputs.iter().zip(inputs) {
        check(graph, *id, tensor, &mut rows)?;
    }
    let rows = rows.unwrap_or(1);
    let mut values: Vec<Option<Arc<Tensor>>> = start(graph, inputs);
    for node in &graph.nodes {
        let arguments: Vec<Arc<Tensor>> = node.inputs.iter().map(|id| get(&values, *id)).collect();
        let arguments: Vec<&Tensor> = arguments.iter().map(AsRef::as_ref).collect();
        let results = eval(&node.op, &arguments, rows).map_err(|source| at_node(node, source))?;
        for (id, tensor) in node.outputs.iter().zip(results) {
            values[id.index()] = Some(Arc::new(tensor));
        }
    }
    Ok(graph
        .outputs
        .iter()
        .map(|id| get(&values, *id).as_ref().clone())
        .collect())
}

/// Runs a row-independent graph with each request's inputs once. `segments[pair]` is the request a pair belongs to;
/// inputs of the request's domain have one row a request, the others one a pair.
pub fn run_segmented(
    graph: &Graph,
    domains: &Domains,
    inputs: Inputs<'_>,
    segments: &[usize],
) -> Result<Vec<Tensor>, EvalError> {
    let requests = requests(graph, domains, inputs, segments)?;
    let rows_of = |domain: Domain| match domain {
        Domain::Const => 1,
        Domain::Request => requests,
        Domain::Item | Domain::Pair => segments.len(),
    };
    // The block of a value for each row of a consumer in a wider domain.
    let widen = |id: ValueId, tensor: Arc<Tensor>, to: Domain| {
        let Some(axis) = graph.fact(id).batch_axis() else {
            return tensor;
        };
        match (domains.of(id), to) {
            (from, to) if rows_of(from) == rows_of(to) && from != Domain::Request => tensor,
            (Domain::Request, Domain::Item | Domain::Pair) => {
                Arc::new(repeat(&tensor, axis, requests, segments))
            }
            (Domain::Const, to) => Arc::new(repeat(&tensor, axis, 1, &vec![0; rows_of(to)])),
            _ => tensor,
        }
    };
    let mut values = start(graph, inputs);
    for node in &graph.nodes {
        let domain = domains.of(node.outputs[0]);
        let arguments: Vec<Arc<Tensor>> = node
            .inputs
            .iter()
            .map(|id| widen(*id, get(&values, *id), domain))
            .collect();
        let arguments: Vec<&Tensor> = arguments.iter().map(AsRef::as_ref).collect();
        let results = eval(&node.op, &arguments, rows_of(domain)).map_err(|source| at_node(node, source))?;
        for (id, tensor) in node.outputs.iter().zip(results) {
            values[id.index()] = Some(Arc::new(tensor));
        }
    }
    let output = |id: &ValueId| widen(*id, get(&values, *id), Domain::Pair).as_ref().clone();
    Ok(graph.outputs.iter().map(output).collect())
}

/// Checks the inputs of a segmented run, and says how many requests there are.
pub(crate) fn requests(
    graph: &Graph,
    domains: &Domains,
    inputs: Inputs<'_>,
    segments: &[usize],
) -> Result<usize, EvalError> {
    let (mut requests, mut pairs) = (None, Some(segments.len()));
    for (at, id) in graph.inputs.iter().enumerate() {
        let rows = if domains.of(*id) == Domain::Request {
            &mut requests
        } else {
            &mut pairs
        };
        let tensor = inputs.get(at).ok_or_else(|| EvalError::Input {
            name: graph.value(*id).name.clone(),
            problem: "is missing".to_owned(),
        })?;
        check(graph, *id, tensor, rows)?;
    }
    let requests = requests.unwrap_or(1);
    match segments.iter().find(|segment| **segment >= requests) {
        None => Ok(requests),
        Some(segment) => Err(EvalError::Index {
            index: i64::try_from(*segment).unwrap_or(i64::MAX),
            size: requests,
        }),
    }
}

fn start(graph: &Graph, inputs: Inputs<'_>) -> Vec<Option<Arc<Tensor>>> {
    let mut values: Vec<Option<Arc<Tensor>>> =
        graph.values.iter().map(|value| value.constant.clone()).collect();
    for (id, tensor) in graph.inputs.iter().zip(inputs) {
        values[id.index()] = Some(Arc::new(tensor.clone()));
    }
    values
}

fn get(values: &[Option<Arc<Tensor>>], id: ValueId) -> Arc<Tensor> {
    values[id.index()]
        .clone()
        .expect("nodes are in topological order")
}

fn at_node(node: &crate::ir::Node, source: EvalError) -> EvalError {
    EvalError::Node {
        node: node.name.clone(),
        operator: node.op.name(),
        source: Box::new(source),
    }
}

/// Whether a tensor is what the model declares, and how many rows it has.
fn check(graph: &Graph, id: ValueId, tensor: &Tensor, rows: &mut Option<usize>) -> Result<(), EvalError> {
    let value = graph.value(id);
    let wrong = |problem: String| {
        Err(EvalError::Input {
            name: value.name.clone(),
            problem,
        })
    };
    let fact = &value.fact;
    if tensor.element != fact.element {
        return wrong(format!(
            "is {:?}, the model takes {:?}",
            tensor.element, fact.element
        ));
    }
    // Texts are made for errors alone: a run that succeeds allocates nothing here.
    let declared = || crate::ir::display_shape(&fact.shape);
    if tensor.shape.len() != fact.shape.len() {
        return wrong(format!(
            "has {} dimensions, the model takes {}",
            tensor.shape.len(),
            declared()
        ));
    }
    if let Some(axis) = fact.batch_axis() {
        let own = tensor.shape[axis];
        if *rows.get_or_insert(own) != own {
            return wrong(format!("has {own} rows, other inputs have {}", rows.unwrap_or(0)));
        }
    }
    let rows = rows.unwrap_or(1);
    let fits = |(extent, size): (&Extent, &usize)| extent.resolve(rows) == Some(*size);
    if !fact.shape.iter().zip(&tensor.shape).all(fits) {
        return wrong(format!(
            "has shape {:?}, the model takes {}",
            tensor.shape,
            declared()
        ));
    }
    Ok(())
}

/// Rows `segments[0]`, `segments[1]` ... of a tensor whose `axis` has the same number of entries for each of `rows`.
pub(crate) fn repeat(tensor: &Tensor, axis: usize, rows: usize, segments: &[usize]) -> Tensor {
    let each = tensor.shape[axis] / rows.max(1);
    let positions: Vec<usize> = segments
        .iter()
        .flat_map(|segment| (0..each).map(move |at| segment * each + at))
        .collect();
    super::layout::along(axis, tensor, &positions)
}
